"""Marks on last values: seen as it was then, by whom, on record, and kept across a restart."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from logs import everything

from hub import Call, Hub
from hub.commands import seen
from hub.commands.asked import account
from hub.commands.clients import Client
from hub.commands.seen import EVENT, is_seen
from hub.errors import HubError

TASK = "task:progress"
UID = os.geteuid()


async def look(hub: Hub, event: str = TASK, key: str = "build", trust: Any = "OPERATOR") -> Any:
    call = Call(hub, Client("http", "127.0.0.1:1", UID, trust), "1")
    return json.loads(await hub.commands.call(call, "hub:seen", {"event": event, "key": key}))


async def refused(hub: Hub, **args: Any) -> HubError:
    with pytest.raises(HubError) as error:
        await look(hub, **args)
    return error.value


async def fail(hub: Hub, key: str = "build") -> None:
    await hub.publish(TASK, {"id": key, "status": "failed"})


async def newer_is_unseen(hub: Hub) -> bool:
    await fail(hub)
    await look(hub)
    assert is_seen(hub.state, TASK, "build")
    await fail(hub)
    return not is_seen(hub.state, TASK, "build")


async def test_what_was_seen_is_seen_until_there_is_a_newer_value(hub: Hub) -> None:
    assert not is_seen(hub.state, TASK, "build")
    assert await newer_is_unseen(hub)
    await look(hub)
    assert is_seen(hub.state, TASK, "build")


async def test_weakened_a_newer_value_would_hide_behind_the_mark(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_is_of", lambda mark, value: True)
    assert not await newer_is_unseen(hub)


async def test_the_mark_is_a_last_value_that_says_who_has_seen_what(hub: Hub) -> None:
    await fail(hub)
    await fail(hub, "other")
    value = hub.state.get(TASK, "build")
    assert await look(hub) == {}
    (mark,) = hub.state.of(EVENT)
    assert value
    assert (mark.key, mark.data) == (
        "task:progress build",
        {"event": TASK, "key": "build", "seq": value.seq, "by": account(UID)},
    )
    assert not is_seen(hub.state, TASK, "other")
    assert not is_seen(hub.state, "task", "progress build"), "name and key are told apart"


async def test_what_is_seen_already_is_not_published_again(hub: Hub) -> None:
    await fail(hub)
    await look(hub)
    before = hub.cursor
    assert await look(hub) == {}
    assert hub.cursor == before


async def test_a_look_reads_no_list(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await fail(hub)
    await look(hub)
    monkeypatch.setattr(hub.state, "_items", _Unlisted(hub.state._items))
    assert is_seen(hub.state, TASK, "build")
    with pytest.raises(AssertionError, match="a look at everything"):
        hub.state.of(EVENT)


class _Unlisted(dict[Any, Any]):
    def __iter__(self) -> Any:
        raise AssertionError("a look at everything")

    values = items = keys = __iter__


async def test_of_what_is_no_last_value_one_sentence_says_so(hub: Hub) -> None:
    await hub.publish("security:threat_detected", {"type": "x", "severity": "low"})
    for args in ({"key": "nothing"}, {"event": "security:threat_detected", "key": "x"}):
        error = await refused(hub, **args)
        assert error.code == "invalid_args"
        assert error.message.endswith("hub:state lists them.")
        assert list(error.details or {}) == ["key"]
    assert (await refused(hub, key="x" * 20_000)).code == "invalid_args"
    assert (await refused(hub, event="no name")).code == "invalid_args"
    assert hub.state.of(EVENT) == []


async def test_who_only_reads_cannot_mark(hub: Hub) -> None:
    await fail(hub)
    assert (await refused(hub, trust="OBSERVER")).code == "forbidden"
    assert not is_seen(hub.state, TASK, "build")


async def test_it_is_on_record_as_any_command(hub: Hub, tmp_path: Path) -> None:
    await fail(hub)
    await look(hub)
    calls = [record for record in everything(tmp_path) if record["action"].startswith("command.")]
    assert [record["action"] for record in calls] == ["command.called", "command.finished"]
    assert calls[0]["details"]["args"] == {"event": TASK, "key": "build"}


async def test_it_outlives_a_restart(tmp_path: Path) -> None:
    for first in (True, False):
        hub = Hub(port=0, state_dir=tmp_path)
        await hub.start()
        if first:
            await fail(hub)
            await look(hub)
        assert is_seen(hub.state, TASK, "build")
        if not first:
            await fail(hub)
            assert not is_seen(hub.state, TASK, "build")
        await hub.stop()


async def test_nobody_else_can_publish_a_mark(hub: Hub) -> None:
    with pytest.raises(HubError, match="the hub's own") as error:
        await hub.publish(EVENT, {"event": TASK, "key": "build", "seq": 1, "by": "me"})
    assert error.value.code == "reserved_event"
