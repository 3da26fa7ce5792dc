"""The layout of the store: what an older hub has kept opens whole, what a newer one has kept is refused untouched."""

import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from running import hub_app, seq, talk
from stores import draft, stale, store

from hub.errors import UsageError
from hub.stream.brokers import layout
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.sqlite import FILE

pytestmark = pytest.mark.once

FIRST = Path(__file__).parent
CENTURY = 3e9  # seconds: what the first store has is not too old
LIMITS = Limits(100, 2**20, CENTURY)
EPOCH = "b551dd7b"
NAMES = ["task:progress", "orders:paid", "orders:paid", "agent:status_change", "hub:stale", "orders:paid"]
VALUES = {"trimmed-and-stale": True, "leased": False, "stays": False, "stale": True}  # each with whether it is stale


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A state directory as the first hub with a store left it."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    sql = sqlite3.connect(directory / FILE)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.executescript((FIRST / "first_store.sql").read_text())
    sql.close()
    for name in ("audit.jsonl", "audit.head"):
        shutil.copy(FIRST / f"first_{name}", directory / name)
    for path in directory.iterdir():
        os.chmod(path, 0o600)
    return directory


def numbers_of(path: Path) -> tuple[int, int]:
    sql = sqlite3.connect(path)
    found = [sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    sql.close()
    return found[0], found[1]


def rewrite(path: Path, statement: str) -> None:
    sql = sqlite3.connect(path, isolation_level=None)
    sql.execute(statement)
    sql.close()


def staleness(items: list[Mapping[str, Any]]) -> dict[str, bool]:
    return {item["key"]: item["stale"] for item in items}


async def test_the_first_store_opens_whole(first: Path) -> None:
    async with hub_app(first, keep_seconds=CENTURY) as hub:
        events = (await hub.get("api/events")).json["events"]
        assert [(seq(event), event["payload"]["event"]) for event in events] == list(enumerate(NAMES, 6))
        assert events[4]["payload"]["data"] == {"event": "agent:status_change", "key": "stale", "seq": 9}
        assert events[5]["payload"]["data"] == [1.5, None, True]
        assert staleness((await hub.get("api/state")).json["items"]) == VALUES
        async with talk(hub.url, f"?after={EPOCH}:9") as client:  # who was following before goes on, without a gap
            assert await client.numbers(2) == [10, 11]
        again = (await hub.post("api/events", {"event": "orders:paid", "data": {"order": 2}, "id": "order-2"})).json
        assert (again["duplicates"], again["cursor"].endswith(":7")) == (1, True)
        assert (await hub.post("api/events", {"event": "a:b", "data": 1})).json["cursor"].endswith(":12")
        assert (await hub.post("api/commands/audit:verify", {})).json["valid"] is True
        assert [record["seq"] for record in await hub.hub.audit.tail(1000)][:8] == list(range(1, 9))
    assert numbers_of(first / FILE) == (layout.APPLICATION, layout.LAYOUT)
    async with hub_app(first, keep_seconds=CENTURY) as hub:
        assert staleness((await hub.get("api/state")).json["items"]) == VALUES


async def test_weakened_the_first_store_does_not_open(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_say_which_event_has_ended", lambda sql: None)
    with pytest.raises(UsageError, match=r"cannot be used \('seq'\)"):
        async with store(first, LIMITS):
            pass


async def test_an_update_that_fails_has_changed_nothing(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers_of(first / FILE)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "LAYOUT", "no number at all")
        with pytest.raises(UsageError, match="cannot be used"):
            async with store(first, LIMITS):
                pass
    assert numbers_of(first / FILE) == before
    async with store(first, LIMITS) as it:
        assert (await it.broker.read(9, 1))[0].data["seq"] == 9


async def test_what_has_ended_and_is_not_kept_has_no_number(first: Path) -> None:
    rewrite(first / FILE, "UPDATE events SET key = 'another' WHERE seq = 9")
    async with store(first, LIMITS) as it:
        assert (await it.broker.read(9, 1))[0].data["seq"] == 0


async def test_the_bytes_are_counted_as_they_are_now(first: Path) -> None:
    async with store(first, LIMITS) as it:
        assert it.broker.bytes == sum(event.size for event in await it.broker.read(0, 100))


async def test_what_a_newer_hub_has_kept_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
    path = tmp_path / FILE
    rewrite(path, f"PRAGMA user_version = {layout.LAYOUT + 1}")
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        async with store(tmp_path):
            pass
    assert str(refused.value) == (
        f"The events in {path} were kept by a newer hub (layout 2; this one knows 1): "
        "run that one, or move them away and begin anew."
    )
    assert path.read_bytes() == before
    rewrite(path, f"PRAGMA user_version = {layout.LAYOUT}")
    async with store(tmp_path) as it:
        assert await it.ids() == ["a"]


async def test_another_programs_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE
    rewrite(path, "CREATE TABLE meta (name TEXT PRIMARY KEY, value)")
    rewrite(path, "PRAGMA application_id = 252006673")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="is another program's SQLite file"):
        async with store(tmp_path):
            pass
    assert numbers_of(path) == (252006673, 0)


async def test_a_new_store_says_what_it_is(tmp_path: Path) -> None:
    async with store(tmp_path):
        pass
    assert numbers_of(tmp_path / FILE) == (layout.APPLICATION, layout.LAYOUT)


async def test_what_says_already_what_it_ends_stays_as_it_is(tmp_path: Path) -> None:
    """A store of the time between: it has the number of what has ended, and no layout."""
    async with store(tmp_path) as it:
        await it.put(draft("a", key="k"), stale("a:x", "k", 1), draft("b", key="k"))
    rewrite(tmp_path / FILE, "PRAGMA user_version = 0")
    async with store(tmp_path) as it:
        assert (await it.broker.read(1, 1))[0].data == {"event": "a:x", "key": "k", "seq": 1}
    assert numbers_of(tmp_path / FILE) == (layout.APPLICATION, layout.LAYOUT)
