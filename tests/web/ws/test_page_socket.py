"""GET /ws?page=1: what the page is told, over real sockets."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, HubInside, hub_app, open_streams, talk

from hub.wire.names import Patterns


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, heartbeat=1.0) as hub:
        yield hub


async def notice(client: Any) -> dict[str, Any]:
    """The next frame, which must be a notice without a number."""
    frame = await client.event()
    assert "cursor" not in frame
    assert frame["payload"]["event"] == "hub:page"
    data: dict[str, Any] = frame["payload"]["data"]
    assert set(data) == {"viewer", "panels", "cursor"}
    return data


def versions(html: str) -> dict[str, str]:
    return dict(re.findall(r'data-panel="(\w+)" data-version="([^"]+)"', html))


async def test_it_is_told_of_news_once_until_it_has_fetched(hub: HubInside) -> None:
    async with talk(hub.url, "?page=1") as page:
        first = await notice(page)
        names = "summary waiting failed working newest recent threats events hub".split()
        assert {*names} == set(first["panels"])
        await hub.hub.publish("task:progress", {"id": "a"})
        await hub.hub.publish("task:progress", {"id": "b"})
        answer = await hub.get("", panel="working", viewer=first["viewer"])
        assert 'data-task="b"' in answer.text or versions(answer.text)["working"] == first["panels"]["working"]
        async with asyncio.timeout(PATIENCE):
            while True:
                data = await notice(page)
                answer = await hub.get("", panel="working", viewer=data["viewer"])
                if 'data-task="b"' in answer.text:
                    break
        assert versions(answer.text)["working"] != first["panels"]["working"]
        assert [record for record in await hub.hub.audit.tail(100) if record["action"].startswith("command")] == []


async def test_it_gets_no_event_and_no_mark(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talk(hub.url, "?page=1") as page, talk(hub.url, "?topics=other:*") as narrow:
        await notice(page)
        await hub.hub.publish("a:x", {})
        while (await narrow.event())["payload"]["event"] != "hub:mark":  # of the same tick
            pass
        assert page.events == []
        assert await page.call("hub:ping", n=1) == {"pong": True, "args": {"n": 1}}
        assert page.events == [], "all that came before the answer"


@pytest.mark.parametrize("weakened", [False, True])
async def test_it_gets_no_event_whatever_it_asks_for(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talk(hub.url, "?page=1") as page:
        await notice(page)
        if weakened:
            (connection,) = open_streams(hub)
            connection.deaf = False
            await page.call("hub:subscribe", topics=["*"])
            await hub.hub.publish("a:x", {})
            while (await page.event())["payload"]["event"] != "a:x":
                pass
            return
        for command in ("hub:subscribe", "hub:unsubscribe"):
            error = await page.fails(command, "command_failed", topics=["*"])
            assert (
                error["error"] == "This connection is a page's, which gets no events; connect to /ws without ?page=1."
            )
        await page.fails("hub:subscribe", "command_failed", topics=["*"], after=str(hub.hub.cursor))
        await hub.hub.publish("a:x", {})
        await page.call("hub:ping")
        assert [frame for frame in page.events if frame["payload"]["event"] != "hub:page"] == []


async def test_weakened_it_would_be_told_where_it_is(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patterns, "are_narrow", property(lambda patterns: not patterns.everything))
    async with talk(hub.url, "?page=1") as page:
        await notice(page)
        await hub.hub.publish("a:x", {})
        assert (await page.event())["payload"]["event"] == "hub:mark"


@pytest.mark.parametrize("query", ["?page=2", "?page=1&topics=a:*", "?page=1&after=x:1", "?page=1&page=1"])
async def test_a_query_that_does_not_fit_is_refused_before_the_upgrade(hub: HubInside, query: str) -> None:
    (await hub.ask("GET", f"ws{query}")).refused(400, "invalid_args")


async def test_it_looks_at_what_it_says(hub: HubInside) -> None:
    async with talk(hub.url, "?page=1") as page:
        data = await notice(page)
        await hub.get("", panel="events", filter="a:*", viewer=data["viewer"], only="1")
        await hub.hub.publish("a:x", {})
        assert set((await notice(page))["panels"]) == {"summary", "events"}
