"""How calls that may be repeated have ended, where several hubs find it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine, broker
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Store

from hub.errors import HubError
from hub.stream.brokers.answers import MemoryAnswers, ServerAnswers
from hub.stream.brokers.broker import Limits, Past

pytestmark = pytest.mark.once

WHAT = b"w w" * 10
PLACES = [b"a", b"b", b"c", b"d e", b"\0\r\n"]


@pytest.fixture
async def it(redis_engine: Engine) -> AsyncIterator[Store]:
    found = Store(broker(redis_engine, prefix=uuid4().hex))
    await found.open()
    yield found
    await found.broker.close()


async def seen(answers: Any) -> list[Any]:
    """What can be found at each place."""
    return [((past := await answers.recall(place)), past and await answers.told(place)) for place in PLACES]


STEPS = st.lists(st.tuples(st.sampled_from(PLACES), st.none() | st.binary(max_size=8)), max_size=20)


@settings(max_examples=30)
@given(steps=STEPS, most=st.integers(1, 6), size=st.integers(0, 20))
async def test_it_keeps_what_memory_keeps(redis_engine: Engine, steps: Any, most: int, size: int) -> None:
    it, limits = Store(broker(redis_engine, prefix=uuid4().hex)), Limits(most, size, 1000.0)
    await it.open()
    try:
        model, answers = MemoryAnswers(limits), ServerAnswers(it.broker._ask, limits)
        for place, answer in steps:
            for each in (model, answers):
                await each.remember(place, WHAT, answer)
            assert await seen(answers) == await seen(model)
    finally:
        await it.broker.close()


async def test_it_is_forgotten_in_time(it: Store) -> None:
    answers = ServerAnswers(it.broker._ask, Limits(10, 100, 0.05))
    await answers.remember(b"a", WHAT, b"answer")
    while await answers.recall(b"a") is not None:
        await asyncio.sleep(0.005)
    assert await answers.told(b"a") == b"answer"
    await answers.remember(b"b", WHAT, None)
    assert (await answers.told(b"a"), await answers.recall(b"b")) == (None, Past(WHAT, False))


async def test_another_hub_finds_it(redis_engine: Engine, it: Store) -> None:
    await it.broker.answers.remember(b"a", WHAT, b"answer")
    other = Store(broker(redis_engine, prefix=it.broker.server.prefix))
    await other.open()
    assert await other.broker.answers.recall(b"a") == Past(WHAT, True)
    await other.broker.close()


async def test_in_a_stream_that_is_gone_nothing_is_kept(redis_engine: Engine, it: Store) -> None:
    redis_engine.ask("DEL", it.broker.server.keys[1])
    with pytest.raises(HubError, match="another epoch") as refused:
        await it.broker.answers.remember(b"a", WHAT, None)
    assert refused.value.code == "broker_unavailable"
