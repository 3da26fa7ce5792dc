"""GET /events: the stream as Server-Sent Events, with the cursors and the promise of the WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, Raw, Stream, hub_app, sockets, stream, talk, until


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


async def numbers(client: Stream, count: int) -> list[int]:
    return [int((await client.event()).json["cursor"].rpartition(":")[2]) for _ in range(count)]


async def test_an_event_is_its_cursor_its_name_and_its_envelope(hub: HubInside) -> None:
    async with stream(hub.url) as client, talk(hub.url) as other:
        await hub.hub.publish("agent:a:b", {"text": "two\nlines \u2028 and more", "token": "t"})
        sent = await client.event()
        assert sent.id == str(hub.hub.cursor)
        assert sent.event == "agent:a:b"
        assert sent.json == await other.event()
        assert sent.json["payload"]["data"] == {"text": "two\nlines \u2028 and more"}


async def test_the_head_of_the_answer(hub: HubInside) -> None:
    async with stream(hub.url) as client:
        headers = client.response.headers
        assert headers["Content-Type"].startswith("text/event-stream")
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in headers if name.startswith("Access-Control")]


async def test_topics_narrow(hub: HubInside) -> None:
    async with stream(hub.url, "?topics=agent:*,task:x") as client:
        for name in ("task:y", "agent:x", "agents:x", "task:x"):
            await hub.hub.publish(name, None)
        assert await numbers(client, 2) == [2, 4]


async def test_after_resumes_and_the_last_event_id_wins(hub: HubInside) -> None:
    await hub.publish(5)
    epoch = hub.hub.cursor.epoch
    async with stream(hub.url, f"?after={epoch}:2") as client:
        assert await numbers(client, 3) == [3, 4, 5]
    async with stream(hub.url, f"?after={epoch}:1", Last_Event_ID=f"{epoch}:3") as client:
        await hub.publish(1)
        assert await numbers(client, 3) == [4, 5, 6]
    async with stream(hub.url, Last_Event_ID="long-ago:3") as client:
        gap = await client.event()
        assert (gap.id, gap.event) == (None, "hub:gap")
        want = {"after": "long-ago:3", "before": f"{epoch}:1", "count": None, "reason": "epoch"}
        assert gap.json["payload"] == {"event": "hub:gap", "data": want}
        assert await numbers(client, 6) == [1, 2, 3, 4, 5, 6]


async def test_what_is_no_longer_kept_is_a_gap(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=5) as hub:
        await hub.publish(12)
        epoch = hub.hub.cursor.epoch
        async with stream(hub.url, f"?after={epoch}:3") as client:
            gap = (await client.event()).json["payload"]["data"]
            assert gap == {"after": f"{epoch}:3", "before": f"{epoch}:8", "count": 4, "reason": "expired"}
            assert await numbers(client, 5) == [8, 9, 10, 11, 12]


async def test_where_a_browser_comes_back_wins_over_the_address(hub: HubInside) -> None:
    headers = {"Last-Event-ID": str(hub.hub.cursor)}
    async with hub.http.get(f"{hub.url}events?after=x", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("query", ["?after=x", "?after=", "?topics=", "?topics=a", "?after=EPOCH:1"])
async def test_a_bad_query_is_refused(hub: HubInside, query: str) -> None:
    answer = await hub.ask("GET", "events" + query.replace("EPOCH", hub.hub.cursor.epoch))
    answer.refused(400, "unknown_cursor" if "after" in query else "invalid_args")
    (await hub.ask("GET", "events", headers={"Last-Event-ID": "x"})).refused(400, "unknown_cursor")
    twice = [("Last-Event-ID", str(hub.hub.cursor)), ("Last-Event-ID", "x")]
    (await hub.ask("GET", "events", headers=twice)).refused(400, "invalid_args")  # as two `?after=` are
    (await hub.ask("GET", f"events?after={hub.hub.cursor}&after=x")).refused(400, "invalid_args")
    assert hub.clients("sse") == 0


async def test_a_full_hub_refuses(tmp_path: Path) -> None:
    async with hub_app(tmp_path, max_clients=1) as hub, stream(hub.url):
        answer = await hub.get("events")
        answer.refused(503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_a_comment_is_the_heartbeat(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub, stream(hub.url) as client:
        for _ in range(2):
            block = await client.block()
            assert block is not None
            assert block.comment is not None
        await hub.publish(1)
        assert await numbers(client, 1) == [1]


async def test_a_narrowed_client_is_told_where_it_is(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub, stream(hub.url, "?topics=b:*") as client:
        await hub.publish(3)
        mark = await client.event()
        assert (mark.id, mark.event) == (None, "hub:mark")
        assert mark.json["payload"]["data"] == {"cursor": str(hub.hub.cursor)}


async def test_a_client_that_goes_is_gone(hub: HubInside) -> None:
    async with stream(hub.url):
        await until(lambda: hub.clients("sse") == 1)
        async with talk(hub.url) as other:
            rows = {row["transport"]: row for row in await other.call("hub:clients")}
            assert rows["sse"]["topics"] == ["*"]
    await until(lambda: hub.clients("sse") == 0)
    assert hub.counted("hub_connections_total", "sse") == 1
    assert sum(hub.counted("hub_disconnections_total").values()) == 2


async def test_the_end_of_the_hub_ends_the_stream_whole(hub: HubInside) -> None:
    async with stream(hub.url) as client:
        await hub.publish(2)
        ending = asyncio.create_task(client.end())
        await hub.runner.cleanup()
        assert [sent.id for sent in await ending] == [f"{hub.hub.cursor.epoch}:{n}" for n in (1, 2)]


async def test_the_old_http_cannot_have_it(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.write(f"GET /events HTTP/1.0\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode())
        assert (await raw.read()).split()[1] == b"505"


# ---- slow readers


async def stuck(hub: HubInside, raw: Raw) -> None:
    """A client with a small buffer that reads nothing, in a storm, until the hub skips it."""
    others = hub.clients("sse")
    await raw.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode())
    await until(lambda: hub.clients("sse") > others)
    while hub.hub.broadcaster.lagging == 0:
        await hub.publish(10, pad="x" * 50_000)


async def read_to(raw: Raw, newest: str) -> list[dict[str, Any]]:
    """The envelopes of a chunked stream, up to the one with this cursor."""
    text = b""
    while newest.encode() + b'",' not in text or not text.endswith(b"\n\n\r\n"):
        data = await raw.read()
        assert data
        text += data
    _, _, left = text.partition(b"\r\n\r\n")
    body = b""
    while left:
        size, _, left = left.partition(b"\r\n")
        body += left[: int(size, 16)]
        assert left[int(size, 16) :][:2] == b"\r\n"
        left = left[int(size, 16) + 2 :]
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]


async def test_a_slow_reader_gets_everything_that_is_still_kept(hub: HubInside) -> None:
    async with Raw(hub.port, buffer=4096) as raw, stream(hub.url) as healthy:
        reading = asyncio.create_task(numbers(healthy, 30))
        await stuck(hub, raw)
        newest = hub.hub.cursor
        assert await reading == list(range(1, 31))
        frames = await read_to(raw, str(newest))
        assert [f["payload"]["data"]["n"] for f in frames] == list(range(1, newest.seq + 1))


async def test_a_reader_slower_than_the_window_is_told_what_it_misses(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=20) as hub, Raw(hub.port, buffer=4096) as raw:
        await stuck(hub, raw)
        await hub.publish(30, pad="x" * 50_000)
        frames = await read_to(raw, str(hub.hub.cursor))
        position = 0
        for frame in frames:
            if frame["payload"]["event"] == "hub:gap":
                gap = frame["payload"]["data"]
                assert gap["after"].endswith(f":{position}")
                assert gap["reason"] == "slow"
                position += gap["count"]
                assert gap["before"].endswith(f":{position + 1}")
            else:
                position += 1
                assert frame["payload"]["data"]["n"] == position
        assert position == hub.hub.cursor.seq
        assert hub.counted("hub_gaps_total", "slow") == 1


async def test_half_open_peers_go_also_with_full_buffers(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.3) as hub, Raw(hub.port, buffer=4096) as raw:
        await stuck(hub, raw)
        both_ends = sockets()
        await until(lambda: hub.clients("sse") == 0)
        await until(lambda: sockets() < both_ends, "that its socket is closed")
        assert hub.counted("hub_disconnections_total", "heartbeat") == 1
