"""Epochs: no cursor ever means another event, and nobody is told of a gap where nothing is missing."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lives import Broken, run

from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers.epochs import Epochs, HeadNote
from hub.wire.names import Cursor

SECONDS = 6.0
MOST = 45.0  # seconds until a weakened build must have been found out


@pytest.fixture
def _quiet() -> Iterator[None]:
    """The log of so many epochs is of no use here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_quiet")
async def test_whoever_has_seen_a_cursor_is_told_what_is_true() -> None:
    assert await run(SECONDS, 1) > 0


# ---- without what protects it


def any_place(patch: pytest.MonkeyPatch) -> None:
    """A copy of the whole directory is taken for the directory."""
    patch.setattr(Epochs, "_place", lambda self, store: "")


def no_head(patch: pytest.MonkeyPatch) -> None:
    """Nobody notes what was seen."""
    patch.setattr(HeadNote, "write", lambda self, seq: None)
    patch.setattr(HeadNote, "read", lambda self: None)
    real = Epochs._broken

    def broken(self: Epochs, *args: Any) -> str | None:
        why = real(self, *args)
        return None if why and "events.head" in why else why

    patch.setattr(Epochs, "_broken", broken)


def head_noted_late(patch: pytest.MonkeyPatch) -> None:
    """What was seen is noted some time later."""
    patch.setattr(Epochs, "note", lambda self, seq: None)


def head_believed(patch: pytest.MonkeyPatch) -> None:
    """A head that was put back with its times is believed."""
    patch.setattr("hub.stream.brokers.epochs._is_as_written", lambda facts: True)


def no_lineage(patch: pytest.MonkeyPatch) -> None:
    """What is still the same in another epoch is not known."""
    real = Epochs.begin

    def begin(self: Epochs, head: int) -> None:
        real(self, head)
        self.lineage = {}

    patch.setattr(Epochs, "begin", begin)


def lineage_without_end(patch: pytest.MonkeyPatch) -> None:
    """Every cursor of an earlier epoch goes on."""
    real = Broadcaster.start

    def start(self: Broadcaster, after: Cursor | None) -> Any:
        if after is not None and after.epoch in self.broker.lineage:
            return min(after.seq, self.window.head), None
        return real(self, after)

    patch.setattr(Broadcaster, "start", start)


def no_boot(patch: pytest.MonkeyPatch) -> None:
    """The machine never goes down."""
    patch.setattr("hub.stream.brokers.epochs._boot", lambda: "the same")


WEAKENED = [any_place, no_head, head_noted_late, head_believed, no_lineage, lineage_without_end, no_boot]


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("weaken", WEAKENED, ids=lambda weaken: str(weaken.__name__))
async def test_weakened_somebody_is_told_what_is_not_true(
    weaken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch)
    with pytest.raises(Exception) as found:  # noqa: PT011
        await run(MOST, 1)
    assert isinstance(found.value, Broken) or "unknown_cursor" in repr(vars(found.value)), found.value
