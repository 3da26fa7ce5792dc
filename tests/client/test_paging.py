"""Following the pages of a real hub, from Python and from the shell."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, run_hub

from hub.client.client import HubClient
from hub.client.paging import joined, next_page
from hub.commands import builtin, listing


async def fill(hub: HubInside) -> None:
    for number in (*range(12), 3):
        await hub.hub.publish("task:progress", {"id": f"{number}", "message": "x" * 300})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGEST_EVENT", 1500)


@pytest.mark.usefixtures("small")
async def test_a_client_is_given_all_last_values(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub, HubClient(hub.url) as client:
        await fill(hub)
        assert (await client.call("hub:state"))["more"] is True
        state = await client.state()
        assert [item["key"] for item in state["items"]] == ["0", "1", "2", *map(str, range(4, 12)), "3"]
        assert (state["cursor"], state["more"]) == (str(hub.hub.cursor), False)
        assert (await client.state(["agent:*"]))["items"] == []


async def whole(hub: HubInside, **args: Any) -> dict[str, Any]:
    """hub:history to its end."""
    answer = (await hub.post("api/commands/hub:history", args)).json
    while further := next_page("hub:history", args, answer):
        answer = joined("hub:history", answer, (await hub.post("api/commands/hub:history", further)).json)
    return dict(answer)


@pytest.mark.usefixtures("small")
async def test_history_is_followed_as_far_as_was_asked_for(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        await fill(hub)
        found = await whole(hub)
        assert [event["payload"]["data"]["id"] for event in found["events"]] == [*map(str, range(12)), "3"]
        assert (found["complete"], found["more"]) == (True, False)
        assert len((await whole(hub, limit=7))["events"]) == 7
        assert len((await whole(hub, limit=7, after="gone:1"))["events"]) == 7
        assert (await whole(hub, after="gone:1"))["complete"] is False


@pytest.mark.usefixtures("small")
async def test_a_shell_is_given_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "LARGEST_EVENT", 1500)
    async with hub_app(tmp_path / "hub") as hub:
        await fill(hub)
        where = "--url", hub.url
        status, state, _ = await run_hub(tmp_path, "call", *where, "hub:state")
        assert (status, len(json.loads(state)["items"])) == (0, 12)
        status, history, _ = await run_hub(tmp_path, "call", *where, "hub:history", "limit=9")
        assert (status, len(json.loads(history)["events"])) == (0, 9)
        for limit in (5, 1000):
            status, records, _ = await run_hub(tmp_path, "audit", "tail", *where, "--limit", str(limit))
            numbers = [json.loads(line)["seq"] for line in records.splitlines()]
            assert status == 0
            assert numbers == list(range(numbers[-1] - len(numbers) + 1, numbers[-1] + 1))
            assert len(numbers) == 5 or numbers[0] == 1


def test_of_a_last_value_the_later_counts() -> None:
    old, other, new = ({"event": "a:x", "key": key, "data": data} for key, data in (("k", 1), ("l", 1), ("k", 2)))
    first, second = (
        {"items": [old, other], "cursor": "e:2", "more": True},
        {"items": [new], "cursor": "e:3", "more": False},
    )
    assert joined("hub:state", first, second) == {"items": [other, new], "cursor": "e:3", "more": False}


def test_other_answers_have_no_pages() -> None:
    assert next_page("hub:ping", {}, {"pong": True}) is None
