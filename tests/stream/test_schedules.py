"""Random schedules of a store, and builds without a protection, which the schedules find."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from schedules import Broken, run

from hub.stream.brokers.broker import Outlet
from hub.stream.brokers.database import Database
from hub.stream.brokers.lastvalues import LastValues
from hub.stream.brokers.rounds import Rounds
from hub.stream.brokers.sqlite import SqliteBroker
from hub.stream.brokers.storefile import DatabaseError
from hub.stream.state import State

pytestmark = pytest.mark.once

SECONDS = 6.0
MOST = 100.0  # seconds until a weakened build must have been found out


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The log of so many failures is of no use here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("full", [False, True], ids=["normal", "full"])
async def test_the_store_keeps_its_word_in_any_schedule(full: bool) -> None:
    assert await run(SECONDS, 1, full=full) > 0


# ---- without what protects it


def no_generation(patch: pytest.MonkeyPatch) -> None:
    """A round goes on although the store was opened anew under it."""
    patch.setattr(Rounds, "_check", lambda self, generation: None)


def no_number_in_stale(patch: pytest.MonkeyPatch) -> None:
    """hub:stale ends whatever is the last of the key."""
    real = LastValues.end

    def end(self: LastValues, seq: int, data: dict[str, Any]) -> None:
        place = data["event"], data["key"]
        real(self, seq, {**data, "seq": self._values[place].seq if place in self._values else 0})

    patch.setattr(LastValues, "end", end)


def only_known_errors(patch: pytest.MonkeyPatch) -> None:
    """What is neither of the disk nor of SQLite does not fail the store."""
    real = SqliteBroker._fail

    def fail(self: SqliteBroker, error: Exception) -> Any:
        return real(self, error) if isinstance(error, DatabaseError | OSError) else error

    patch.setattr(SqliteBroker, "_fail", fail)


def announced_once(patch: pytest.MonkeyPatch) -> None:
    """The end of a lease is lost if the store is away just then."""
    real = State._announce

    async def announce(self: State, ended: Any) -> bool:
        await real(self, ended)
        return True

    patch.setattr(State, "_announce", announce)


def dropped_by_the_pump(patch: pytest.MonkeyPatch) -> None:
    """What was in the pump when it failed does not come again."""

    async def flush(self: Outlet) -> None:
        batch, self._fresh = self._fresh, []
        if batch:
            await self._pump(batch)

    patch.setattr(Outlet, "flush", flush)


def settled_too_early(patch: pytest.MonkeyPatch) -> None:
    """Events that may still be refused are last values already."""
    write, settle = Database.write, Database.settle

    def early(self: Database, drafts: Any) -> Any:
        written = write(self, drafts)
        settle(self, written[0])
        return written

    patch.setattr(Database, "write", early)
    patch.setattr(Database, "settle", lambda self, events: None)


def forgotten_by_a_reopening(patch: pytest.MonkeyPatch) -> None:
    """What is known of calls goes with what the store takes back."""
    real = Database.reopen

    def reopen(self: Database, head: int) -> None:
        real(self, head)
        self._sql.execute("DELETE FROM calls")

    patch.setattr(Database, "reopen", reopen)


def answered_too_early(patch: pytest.MonkeyPatch) -> None:
    """A call is told that its answer is kept, and it is not."""
    patch.setattr(Database, "remember", lambda self, *what: None)


WEAKENED: dict[Callable[[pytest.MonkeyPatch], None], bool] = {  # and whether it shows with `--sync full`
    no_generation: True,
    no_number_in_stale: False,
    only_known_errors: False,
    announced_once: False,
    dropped_by_the_pump: False,
    settled_too_early: True,
    forgotten_by_a_reopening: False,
    answered_too_early: False,
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("weaken", WEAKENED, ids=lambda weaken: str(weaken.__name__))
async def test_weakened_the_schedules_find_it(
    weaken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch)
    with pytest.raises(Exception) as found:  # noqa: PT011
        await run(MOST, 1, full=WEAKENED[weaken])
    assert isinstance(found.value, Broken | RuntimeError | MemoryError), found.value
