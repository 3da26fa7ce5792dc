"""The file: what it keeps and lets go, when an epoch ends, and what cannot be used."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from running import run_hub, until
from stores import STATE, draft, store

from hub import Hub
from hub.errors import UsageError
from hub.stream.brokers import database, epochs, retention, storefile
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.sqlite import FILE
from hub.stream.brokers.storefile import PAGE, WAL_PAGES
from hub.stream.events import Draft


def closed_badly(path: Path, boot: str) -> None:
    with sqlite3.connect(path / FILE) as sql:
        sql.execute("UPDATE meta SET value = 0 WHERE name = 'clean'")
        sql.execute("UPDATE meta SET value = ? WHERE name = 'boot'", (boot,))
    sql.close()


@pytest.mark.parametrize(("boot", "full", "same"), [("", False, True), ("x", False, False), ("x", True, True)])
async def test_a_new_epoch_begins_if_commits_may_be_gone(
    tmp_path: Path, boot: str, full: bool, same: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with store(tmp_path, full=full) as one:
        await one.put(draft("a"))
        epoch = one.broker.epoch
    closed_badly(tmp_path, boot or epochs.BOOT.read_text().strip())
    async with store(tmp_path) as two:
        assert (two.broker.epoch == epoch) is same
        assert ("another epoch begins" in caplog.text) is not same
        assert [str(event.cursor) for event in await two.broker.read(0, 9)] == [f"{two.broker.epoch}:1"]
    async with store(tmp_path) as three:
        assert three.broker.epoch == two.broker.epoch


async def test_the_file_gets_smaller(tmp_path: Path) -> None:
    def size() -> int:
        return (tmp_path / FILE).stat().st_size

    async with store(tmp_path) as it:
        for _ in range(10):
            await it.put(*(Draft("a:x", f"{i}", b'"%b"' % (b"x" * 10_000)) for i in range(100)))
    large = size()
    assert large > 10_000_000
    async with store(tmp_path, Limits(50, 2**26, 86400.0)) as it:
        await until(lambda: it.broker.tail == 951, "the trimming")
        await until(lambda: size() < large / 4, "the file's shrinking")
        assert len(await it.ids()) == 50


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with store(tmp_path, Limits(100, 2**20, 0.2)) as it:
        await it.put(draft("a", key="k"), draft("b"))
        await until(lambda: it.broker.tail == 3, "the end of their time")
        assert (await it.ids(), it.broker.bytes) == ([], 0)
    async with store(tmp_path) as it:
        assert (it.broker.head, it.broker.tail) == (2, 3)
        assert [kept.event.id for kept in await it.broker.last_values()] == ["a"]
        assert await it.put(draft("c")) == [3]


def spoiled(folder: Path) -> None:
    """Ended without a close, and somebody has written into the file."""
    with closing(sqlite3.connect(folder / FILE)) as sql:
        sql.execute("UPDATE meta SET value = 0 WHERE name = 'clean'")
        sql.commit()
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with (folder / FILE).open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"\x07" * 2000)


def with_a_hole(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as sql:
        sql.execute("DELETE FROM events WHERE seq = 3")
        sql.commit()


@pytest.mark.parametrize(("spoil", "why"), [(spoiled, "age 4"), (with_a_hole, "numbers are missing")])
async def test_a_store_that_was_tampered_with_is_not_used(tmp_path: Path, spoil: Any, why: str) -> None:
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}", key=f"{i}") for i in range(50)))
    spoil(tmp_path)
    with pytest.raises(UsageError) as found:
        async with store(tmp_path):
            pass
    assert str(tmp_path / FILE) in str(found.value)
    assert why in str(found.value)
    assert "move it away" in str(found.value)


@pytest.mark.parametrize("spoil", ["text", "link", "held"])
async def test_a_start_that_cannot_be_is_one_sentence(tmp_path: Path, spoil: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    path, holder = tmp_path / FILE, None
    if spoil == "text":
        path.write_text("nothing that SQLite knows" * 100)
    elif spoil == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    else:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError) as found:
        await Hub(state_dir=tmp_path, port=0).start()
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)
    if holder:
        holder.close()
    status, _, _ = await run_hub(tmp_path, "audit", "verify", str(tmp_path))
    assert status == 0, "the audit log was left open"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (PermissionError(13, "Permission denied"), "look at the disk and at the rights of the file"),
        (sqlite3.OperationalError("unable to open database file"), "look at the disk"),
        (OSError(28, "No space left on device"), "make room on the disk"),
        (MemoryError(), "look at the disk"),
        (sqlite3.DatabaseError("file is not a database"), "move it away"),
        (KeyError("clean"), "move it away"),
    ],
)
def test_only_what_is_no_store_may_have_to_be_moved_away(error: Exception, hint: str) -> None:
    assert hint in storefile.advice(error)
    assert ("move it away" in storefile.advice(error)) is (hint == "move it away")


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        assert modes(tmp_path) == dict.fromkeys((FILE, f"{FILE}-wal", epochs.HEAD, epochs.HOME), 0o600)


async def test_a_planted_link_would_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storefile, "open_private", lambda path: os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    (tmp_path / "other").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    async with store(tmp_path) as it:
        await it.put(draft("a"))
    assert (tmp_path / "other").stat().st_size > 0


def test_free_pages_are_given_back_step_by_step_and_then_the_journal(tmp_path: Path) -> None:
    """The file gets smaller only when the journal has been brought into it, which the last step asks for."""
    limits = Limits(10, 2**26)
    it = database.Database(tmp_path / FILE, limits, STATE, full=False)
    it.open()
    events, _ = it.write(
        [Draft("a:x", f"{number}", b"1" * 4000) for number in range(retention.SPARE + 2 * retention.STEP)]
    )
    it.settle(events)
    while it.tidy(it.head):
        pass
    assert it.tail == it.head - limits.events + 1
    assert it.unsaved >= WAL_PAGES
    it.checkpoint()
    it.close()
    assert (tmp_path / FILE).stat().st_size < (retention.SPARE + 2 * retention.STEP) * 4096
