"""Last values on disk outlive their events, and know whether they are stale."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import draft, stale, store

from hub.stream.brokers.broker import Limits


async def test_a_value_that_was_saved_and_set_again_is_the_new_one(tmp_path: Path) -> None:
    limits = Limits(2, 2**20, 86400.0)
    async with store(tmp_path, limits) as it:
        await it.put(draft("old", key="k"))
        await it.put(draft("b"), draft("c"))  # "old" goes, and is saved
    async with store(tmp_path) as it:
        await it.put(draft("new", key="k"))
    for _ in range(2):
        async with store(tmp_path, limits) as it:
            assert [(k.event.id, k.stale) for k in await it.broker.last_values()] == [("new", False)]
            await it.put(draft("d"), draft("e"))  # "new" goes, and takes the place of "old"


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.tuples(st.sampled_from("klmno"), st.booleans()), max_size=30), cuts=st.sets(st.integers(0, 29)))
async def test_last_values_outlive_their_events(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, bool]], cuts: set[int]
) -> None:
    path = tmp_path_factory.mktemp("values")
    model, numbers = dict[str, tuple[str, bool]](), dict[str, int]()

    async def check() -> None:
        async with store(path, Limits(3, 2**20, 86400.0), items=3) as it:
            kept = [(k.event.key, (k.event.id, k.stale)) for k in await it.broker.last_values()]
            assert kept == list(model.items())

    context = store(path, Limits(3, 2**20, 86400.0), items=3)
    it = await context.__aenter__()
    for number, (key, ends) in enumerate(keys):
        if number in cuts:
            await context.__aexit__(None, None, None)
            await check()
            context = store(path, Limits(3, 2**20, 86400.0), items=3)
            it = await context.__aenter__()
        if ends and key in model:
            await it.put(stale("a:x", key, numbers[key]))
            model[key] = (model[key][0], True)
        else:
            [numbers[key]] = await it.put(draft(f"{number}", key=key))
            model.pop(key, None)
            model[key] = (f"{number}", False)
            if len(model) > 3:
                del model[next(iter(model))]
    await context.__aexit__(None, None, None)
    await check()


@pytest.mark.parametrize("trimmed", [False, True])
async def test_what_ends_a_lease_does_not_end_the_next_across_a_restart(tmp_path: Path, trimmed: bool) -> None:
    """The renewal was on its way when the lease ended, and has the number before that of its end."""
    limits = Limits(1 if trimmed else 100, 2**20, 86400.0)
    async with store(tmp_path, limits) as it:
        await it.put(draft("1", key="k", ttl=10), draft("2", key="k", ttl=10), stale("a:x", "k", 1))
        await it.put(draft("3", key="over", ttl=10), stale("a:x", "over", 4), draft("more"))
    for _ in range(2):
        async with store(tmp_path, limits) as it:
            kept = [(k.event.id, k.stale) for k in await it.broker.last_values()]
            assert kept == [("2", False), ("3", True)]
            await it.put(draft("one more"))
