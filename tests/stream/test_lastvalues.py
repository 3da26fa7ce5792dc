"""Last values on disk outlive their events, and know whether they are stale."""

from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import until
from stores import PLENTY, STATE, draft, stale, store

from hub.stream.brokers.broker import Limits
from hub.stream.brokers.database import Database
from hub.stream.brokers.lastvalues import LastValues
from hub.stream.brokers.sqlite import FILE
from hub.stream.events import Draft
from hub.stream.state import State
from hub.wire.strictjson import LARGEST_EVENT


async def test_a_value_that_was_saved_and_set_again_is_the_new_one(tmp_path: Path) -> None:
    limits = Limits(2, 2**20, 86400.0)
    async with store(tmp_path, limits) as it:
        await it.put(draft("old", key="k"))
        await it.put(draft("b"), draft("c"))  # "old" goes, and is saved
    async with store(tmp_path) as it:
        await it.put(draft("new", key="k"))
    for _ in range(2):
        async with store(tmp_path, limits) as it:
            assert [(k.event.id, bool(k.stale)) for k in await it.broker.last_values()] == [("new", False)]
            await it.put(draft("d"), draft("e"))  # "new" goes, and takes the place of "old"


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.tuples(st.sampled_from("klmno"), st.booleans()), max_size=30), cuts=st.sets(st.integers(0, 29)))
async def test_last_values_outlive_their_events(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, bool]], cuts: set[int]
) -> None:
    path = tmp_path_factory.mktemp("values")
    model, numbers = dict[str, tuple[str, bool]](), dict[str, int]()

    async def check() -> None:
        async with store(path, Limits(3, 2**20, 86400.0), state=Limits(3, 2**20)) as it:
            kept = [(k.event.key, (k.event.id, bool(k.stale))) for k in await it.broker.last_values()]
            assert kept == list(model.items())

    context = store(path, Limits(3, 2**20, 86400.0), state=Limits(3, 2**20))
    it = await context.__aenter__()
    for number, (key, ends) in enumerate(keys):
        if number in cuts:
            await context.__aexit__(None, None, None)
            await check()
            context = store(path, Limits(3, 2**20, 86400.0), state=Limits(3, 2**20))
            it = await context.__aenter__()
        if ends and key in model:
            await it.put(stale("a:x", key, numbers[key]))
            model[key] = (model.pop(key)[0], True)
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
            kept = [(k.event.id, bool(k.stale)) for k in await it.broker.last_values()]
            assert kept == [("2", False), ("3", True)]
            await it.put(draft("one more"))


# ---- the same as in memory, and bounded


class Both:
    """A store and the state beside it, which hear of the same events."""

    def __init__(self, path: Path, most: Limits, limits: Limits = PLENTY) -> None:
        self.path, self.most, self.limits = path, most, limits
        self.state, self.numbers = State(most.events, most.bytes), dict[str, int]()

    async def __aenter__(self) -> Self:
        self._context = store(self.path, self.limits, state=self.most)
        self.it = await self._context.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._context.__aexit__(None, None, None)

    async def change(self, key: str, ends: bool, pad: int) -> None:
        if ends and ("a:x", key) in self.state._items:
            await self.it.put(stale("a:x", key, self.numbers[key]))
        else:
            [self.numbers[key]] = await self.it.put(Draft("a:x", key, b'"%b"' % (b"x" * pad), key))
        self.state.apply(self.it.batches[-1])

    async def restart(self) -> State:
        """Return the state as another hub finds it."""
        await self.__aexit__()
        await self.__aenter__()
        found = State(self.most.events, self.most.bytes)
        found.restore(await self.it.broker.last_values(), self.it.broker.head)
        return found


def values(state: State) -> list[tuple[int, int, bool]]:
    return [(item.event.seq, item.changed, item.stale) for item in state._items.values()]


CHANGES = st.lists(st.tuples(st.sampled_from("klmno"), st.booleans(), st.integers(0, 300)), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.sampled_from([PLENTY, Limits(3, 2**20, 86400.0)]))
async def test_what_is_on_disk_is_what_is_in_memory(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, bool, int]], limits: Limits
) -> None:
    async with Both(tmp_path_factory.mktemp("values"), Limits(4, 1000), limits) as both:
        for number, change in enumerate(changes, 1):
            await both.change(*change)
            if number % 7 == 0 or number == len(changes):
                found = await both.restart()
                assert values(found) == values(both.state)
                assert found.bytes == both.state.bytes <= 1000
                both.state = found


GONE = [("k", False, 0), ("l", False, 300), ("m", False, 300), ("l", False, 0), ("m", False, 0)]


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_has_gone_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    """It went for the sake of values that are small by now; the event that it was is still kept."""
    if weakened:
        real = LastValues.load

        def load(self: LastValues, sql: Connection, largest: int) -> None:
            self.gone = 0
            real(self, sql, largest)

        monkeypatch.setattr(LastValues, "load", load)
    async with Both(tmp_path, Limits(4, 800)) as both:
        for change in GONE:
            await both.change(*change)
        assert [seq for seq, _, _ in values(both.state)] == [4, 5]
        assert [seq for seq, _, _ in values(await both.restart())] == ([1, 4, 5] if weakened else [4, 5])


def saved_in(path: Path) -> list[int]:
    """The numbers of what the table of last values has."""
    with closing(connect(path / FILE)) as sql:
        return [seq for (seq,) in sql.execute("SELECT seq FROM state ORDER BY seq")]


async def many_saved(path: Path) -> None:
    """20 values of 100 KB in the table, as a version without a limit has left them."""
    async with store(path, Limits(1, 2**26), state=STATE) as it:
        for number in range(20):
            await it.put(Draft("a:x", "id", b'"%b"' % (b"x" * 100_000), f"{number}"))
        await it.put(draft("last"))
    assert len(saved_in(path)) == 20


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_too_much_leaves_the_file_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """A step at a time, and without anybody who publishes."""
    await many_saved(tmp_path)
    monkeypatch.setattr("hub.stream.brokers.lastvalues.STEP_BYTES", 300_000)
    steps, real = list[int](), Database._clean

    def clean(self: Database) -> bool:
        steps.append(len(self._last_values._dead))
        return False if weakened else real(self)

    monkeypatch.setattr(Database, "_clean", clean)
    async with store(tmp_path, Limits(1, 2**26), state=Limits(100, 500_000)) as it:
        it.broker._care.soon()
        await until(lambda: steps and steps[-1] == (16 if weakened else 0), "that nothing is left to be taken away")
    assert len(saved_in(tmp_path)) == (20 if weakened else 4)
    assert weakened or steps[:4] == [16, 13, 10, 7]


async def test_a_value_that_could_not_be_sent_is_none(tmp_path: Path) -> None:
    """Of an older version, which let larger events in. The one before it is not the last any more, either."""
    big = Draft("a:x", "id", b'"%b"' % (b"x" * LARGEST_EVENT), "saved")
    async with store(tmp_path, Limits(1, 2**26)) as it:
        await it.put(big)
        await it.put(draft("last"))
    async with store(tmp_path) as it:
        await it.put(draft("small", key="live"), draft("good", key="good"))
        await it.put(Draft("a:x", "id", big.body, "live"))
    async with store(tmp_path) as it:
        assert [kept.event.key for kept in await it.broker.last_values()] == ["good"]
