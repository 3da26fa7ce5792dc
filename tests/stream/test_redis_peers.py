"""What a hub does among those of its stream when something comes at an odd moment."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine, broker
from running import until
from stores import Store

from hub.errors import HubError
from hub.stream.brokers import redispeers
from hub.stream.brokers.broker import unavailable
from hub.stream.brokers.peers import Ears, Offer
from hub.stream.brokers.redispeers import RedisPeers
from hub.stream.brokers.server import Server

pytestmark = pytest.mark.once


class Heard:
    """All that a hub hears of the others, and what it provides."""

    def __init__(self, **names: bytes) -> None:
        self.names: Mapping[str, bytes] = names
        self.refused, self.messages = list[str](), list[bytes]()
        self.offered = dict[str, Offer]()
        self.fails = list[Exception]()  # what hearing of offers raises next
        self.cuts = 0

    def ears(self) -> Ears:
        return Ears(
            lambda: self.names,
            self.refused.extend,
            self._offers,
            lambda links: None,
            self.messages.append,
            self._cut,
        )

    def _offers(self, offers: Mapping[str, Offer]) -> None:
        if self.fails:
            raise self.fails.pop()
        self.offered = dict(offers)

    def _cut(self) -> None:
        self.cuts += 1


@pytest.fixture
async def server(redis_engine: Engine) -> Server:
    return Server(redis_engine.url(prefix=uuid4().hex))


@pytest.fixture
async def heard() -> Heard:
    return Heard(mine=b"{}")


@pytest.fixture
async def it(server: Server, heard: Heard, redis_engine: Engine) -> AsyncIterator[Any]:
    store = Store(broker(redis_engine, prefix=server.prefix))  # which sees to the library
    await store.open()
    found = RedisPeers(server)
    await found.start(heard.ears())
    yield found
    await found.stop()
    await store.broker.close()


async def test_what_is_said_while_it_is_cut_is_not_heard(it: Any, heard: Heard) -> None:
    assert await it.send(it.link, b"hello")
    await until(lambda: heard.messages == [b"hello"])
    old = it.link
    it._asks.close()
    assert not await it.send(old, b"lost")
    with pytest.raises(HubError) as refused:
        await it.judge.is_asked("q")
    assert refused.value.code == "broker_unavailable"
    await until(lambda: it.link not in ("", old))
    it._hear(it._channel_of(old).encode(), b"too late")
    assert (heard.messages, heard.cuts) == ([b"hello"], 1)


async def test_who_looks_while_it_is_cut_hears_that_nothing_can_be_known(
    it: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.look()
    renew, begun, gate = it._renew, asyncio.Event(), asyncio.Event()

    async def waits(asks: Any) -> None:
        begun.set()
        await gate.wait()
        await renew(asks)

    monkeypatch.setattr(it, "_renew", waits)
    looks = [asyncio.ensure_future(it.look()) for _ in range(2)]
    await begun.wait()  # one look is for both
    looks.append(asyncio.ensure_future(it.look()))  # for whom it may come too late
    await until(lambda: it._looked is not None)
    it._asks.close()
    gate.set()
    for look in looks:
        with pytest.raises(HubError) as refused:
            await look
        assert refused.value.code == "broker_unavailable"


async def test_a_name_that_another_has_by_now_is_refused(it: Any, server: Server) -> None:
    other, second = Heard(mine=b"{}", theirs=b"{}"), RedisPeers(server)
    await second.start(other.ears())
    assert (other.refused, list(other.offered)) == (["mine"], ["mine"])
    await second.stop()


async def test_it_comes_back_behind_whatever_went_wrong(it: Any, heard: Heard) -> None:
    old, it._number = it.link, ""
    heard.fails.append(unavailable("Away."))
    await until(lambda: it.link not in ("", old))
    assert heard.cuts == 1


async def test_it_ends_where_it_was_never_begun_or_just_ends(it: Any, server: Server) -> None:
    await RedisPeers(server).stop()
    it._stopping = True
    it._asks.close()
    async with asyncio.timeout(30):
        await asyncio.wait({it._running})
    assert it.link == ""


async def test_a_server_that_is_not_there_is_looked_for(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redispeers, "PATIENCE", 0.01)
    found = RedisPeers(Server(f"unix://{tmp_path}/nowhere"))
    await found.start(heard.ears())
    assert (found.link, heard.cuts, await found.send("x", b"")) == ("", 0, False)
    await found.stop()


async def test_what_another_program_has_written_is_nobodys(
    it: Any, heard: Heard, server: Server, redis_engine: Engine
) -> None:
    """Such a field took all hubs out of their group, and nobody heard of it."""
    for key, field, value in (("p", "mine", "x"), ("p", "z", "a b c"), ("p", "\udcff", ""), ("l", "zz", "garbage")):
        name = field.encode("utf-8", "surrogateescape")
        redis_engine.ask("HSET", f"{{{server.prefix}}}:{key}", name, value)
    other, second = Heard(theirs=b"{}"), RedisPeers(server)
    await second.start(other.ears())
    await until(lambda: list(heard.offered) == ["theirs"])
    assert await it.claim({"mine": b"{}", "z": b"{}"}) is None
    await until(lambda: set(other.offered) == {"mine", "z"})
    assert heard.cuts == other.cuts == 0
    await second.stop()


async def test_it_comes_back_behind_a_bug(it: Any, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        old, it._number = it.link, ""
        heard.fails.append(ValueError("oops"))
        await until(lambda: it.link not in ("", old))  # noqa: B023
    assert caplog.text.count("fell out of those of its stream, which is a bug of the hub") == 1  # a minute
