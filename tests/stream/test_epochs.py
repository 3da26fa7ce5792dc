"""Epochs: no cursor ever means another event, and nobody is told of a gap where nothing is missing."""

import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lives import Broken, run
from stores import draft, store

from hub.errors import UsageError
from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers import epochs
from hub.stream.brokers.epochs import EARLIER, HEAD, HOME, Epochs, HeadNote
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


class Unreadable:
    """A boot id that the system does not tell."""

    def read_text(self) -> str:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("boot", [Path("/proc/no/such/file"), Unreadable()], ids=["missing", "unreadable"])
@pytest.mark.parametrize(("killed", "full", "same"), [(False, False, True), (True, False, False), (True, True, True)])
async def test_where_the_system_does_not_say_which_boot_this_is(
    killed: bool, full: bool, same: bool, boot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that was not clean may have been the machine's; nothing is in the way of a start."""
    monkeypatch.setattr(epochs, "BOOT", boot)
    async with store(tmp_path, full=full) as one:
        await one.put(draft("a"))
        before = one.broker.epoch
        if killed:
            await one.kill()
    async with store(tmp_path) as two:
        assert (two.broker.epoch == before) is same
        assert two.broker.lineage == ({} if same else {before: 1})
        assert await two.ids() == ["a"]


async def test_the_newest_earlier_epochs_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "BOOT", Path("/proc/no/such/file"))
    had = []
    for number in range(1, EARLIER + 4):
        async with store(tmp_path) as it:
            had.append((it.broker.epoch, number))
            assert await it.put(draft(f"{number}")) == [number]
            await it.kill()
    async with store(tmp_path) as it:
        assert list(it.broker.lineage.items()) == had[-EARLIER:]
        (tmp_path / HOME).unlink()
    async with store(tmp_path) as it:
        assert len(it.broker.lineage) == EARLIER
        assert next(iter(it.broker.lineage)) == had[-EARLIER + 1][0]


async def test_a_plain_restart_and_a_kill_change_no_epoch(tmp_path: Path) -> None:
    had = set()
    for number in range(6):
        async with store(tmp_path) as it:
            had.add(it.broker.epoch)
            await it.put(draft("a"), draft("b"))
            if number % 3:
                await it.kill()
    assert len(had) == 1


def test_in_a_directory_that_takes_no_file_nothing_is_sure(tmp_path: Path) -> None:
    it = Epochs(tmp_path / "away")
    said = {"epoch": "e", "clean": 1, "full": 0, **Epochs(tmp_path).facts(tmp_path)}
    it.judge({**said, "epoch": "e"}, 7, tmp_path)
    assert (it.changed, it.lineage) == ("the store was put back from a copy", {"e": 7})


@pytest.mark.parametrize("name", [HEAD, HOME])
async def test_a_planted_link_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="symbolic link"):
        async with store(tmp_path):
            pass
    assert (tmp_path / "other").read_text() == "mine"


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
