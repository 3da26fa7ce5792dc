"""PROTOCOL 3 over real sockets: the stream, and those who read it slowly."""

import asyncio
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import running
from running import HubInside, Raw, Talk, hub_app, open_streams, seq, talk, until

from hub.commands.session import Session
from hub.stream.subscriber import Subscriber

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


# ---- the stream


async def test_a_client_of_the_seed_gets_everything(hub: HubInside, client: Talk) -> None:
    for name in ("agent:a:b", "task:done", "z:z"):
        await hub.hub.publish(name, {"name": name})
    events = [await client.event() for _ in range(3)]
    assert [e["payload"] for e in events] == [
        {"event": n, "data": {"name": n}} for n in ("agent:a:b", "task:done", "z:z")
    ]
    assert [seq(e) for e in events] == [1, 2, 3]
    assert all(set(e) == {"type", "id", "timestamp", "cursor", "payload"} for e in events)


async def test_topics_narrow_and_after_resumes(hub: HubInside) -> None:
    for name in ("agent:x", "task:x", "agents:x", "agent:a:b"):
        await hub.hub.publish(name, None)
    async with talk(hub.url, f"?topics=agent:*,none:*&after={hub.hub.cursor.epoch}:0") as client:
        assert await client.numbers(2) == [1, 4]
        await hub.hub.publish("task:x", None)
        await hub.hub.publish("agent:x", None)
        assert await client.numbers(1) == [6]


async def test_the_first_subscribe_replaces_the_implied_star_and_further_ones_add(hub: HubInside, client: Talk) -> None:
    first = await client.call("hub:subscribe", topics=["a:*"])
    assert (first["topics"], first["cursor"]) == (["a:*"], str(hub.hub.cursor))
    assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["a:*", "b:*"]
    for name in ("c:x", "b:x", "a:x"):
        await hub.hub.publish(name, None)
    assert await client.numbers(2) == [2, 3]
    assert (await client.call("hub:unsubscribe", topics=["a:*", "unknown:*"]))["topics"] == ["b:*"]
    for name in ("a:x", "b:x"):
        await hub.hub.publish(name, None)
    assert await client.numbers(1) == [5]


async def test_topics_of_the_address_are_not_implied(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=a:*") as client:
        assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["a:*", "b:*"]
    async with talk(hub.url, "?topics=*") as client:
        assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["*", "b:*"]


async def test_unsubscribing_from_what_was_never_asked_for_leaves_the_star_implied(client: Talk) -> None:
    assert (await client.call("hub:unsubscribe", topics=["x:*"]))["topics"] == ["*"]
    assert (await client.call("hub:subscribe", topics=["a:*"]))["topics"] == ["a:*"]


async def test_unsubscribing_from_everything_gives_silence(hub: HubInside, client: Talk) -> None:
    assert (await client.call("hub:unsubscribe", topics=["*"]))["topics"] == []
    await hub.publish(3)
    await client.call("hub:ping")
    assert client.events == []
    await client.call("hub:subscribe", topics=["a:*"])
    await hub.publish(1)
    assert await client.numbers(1) == [4]


async def test_subscribing_with_after_starts_the_stream_again(hub: HubInside, client: Talk) -> None:
    await hub.publish(3)
    assert await client.numbers(3) == [1, 2, 3]
    again = await client.call("hub:subscribe", topics=["a:*"], after=f"{hub.hub.cursor.epoch}:1")
    assert again["cursor"] == f"{hub.hub.cursor.epoch}:1"
    await hub.publish(1)
    assert await client.numbers(3) == [2, 3, 4]


async def test_an_unknown_epoch_is_one_gap_and_then_everything(hub: HubInside) -> None:
    await hub.publish(2)
    async with talk(hub.url, "?after=long-ago:17") as client:
        gap = await client.event()
        assert gap["payload"]["event"] == "hub:gap"
        assert "cursor" not in gap
        epoch = hub.hub.cursor.epoch
        want = {"after": "long-ago:17", "before": f"{epoch}:1", "count": None, "reason": "epoch"}
        assert gap["payload"]["data"] == want
        await hub.publish(1)
        assert await client.numbers(3) == [1, 2, 3]
        assert hub.counted("hub_gaps_total", "epoch") == 1


async def test_what_is_no_longer_kept_is_a_gap_in_its_place(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=5) as hub:
        await hub.publish(12)
        epoch = hub.hub.cursor.epoch
        async with talk(hub.url, f"?after={epoch}:3") as client:
            gap = (await client.event())["payload"]["data"]
            assert gap == {"after": f"{epoch}:3", "before": f"{epoch}:8", "count": 4, "reason": "expired"}
            assert await client.numbers(5) == [8, 9, 10, 11, 12]
        assert hub.counted("hub_missed_events_total") == 4


async def test_a_narrowed_client_is_told_where_it_is(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub, talk(hub.url, "?topics=b:*") as client:
        await hub.publish(3)
        mark = await client.event()
        assert mark["payload"] == {"event": "hub:mark", "data": {"cursor": str(hub.hub.cursor)}}
        assert "cursor" not in mark


async def test_secrets_never_reach_a_client(hub: HubInside, client: Talk) -> None:
    await client.call("hub:publish", event="a:x", data={"deep": [{"github_token": "abc", "max_tokens": 3}]})
    assert (await client.event())["payload"]["data"] == {"deep": [{"max_tokens": 3}]}


async def test_an_id_is_sent_once(hub: HubInside, client: Talk) -> None:
    first = await client.call("hub:publish", event="a:x", data=1, id="once")
    await client.call("hub:publish", event="a:y", data=2)
    again = await client.call("hub:publish", event="a:x", data=1, id="once")
    assert again == first == {"id": "once", "cursor": f"{hub.hub.cursor.epoch}:1"}
    await client.call("hub:ping")
    names = [await client.name() for _ in range(2)]
    assert names == ["a:x", "a:y"]
    assert client.events == []


# ---- slow readers


def judge(frames: list[dict[str, Any]], newest: int) -> int:
    """Everything from 1 to `newest`, in order, each once, or a gap that names exactly what is not there."""
    position, gaps = 0, 0
    for frame in frames:
        if frame["payload"]["event"] == "hub:gap":
            gap = frame["payload"]["data"]
            assert int(gap["after"].rpartition(":")[2]) == position
            before = int(gap["before"].rpartition(":")[2])
            assert gap["count"] == before - position - 1 > 0
            assert gap["reason"] == "slow"
            position, gaps = before - 1, gaps + 1
        else:
            assert seq(frame) == position + 1
            assert frame["payload"]["data"]["n"] == position + 1
            position += 1
    assert position == newest
    return gaps


async def read_to(raw: Raw, newest: int) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1].get("cursor", ":0").rpartition(":")[2] != str(newest):
        got = await raw.frame()
        assert got is not None
        if got[0] == TEXT:
            frames.append(json.loads(got[1]))
    return frames


async def test_a_slow_reader_gets_everything_that_is_still_kept(hub: HubInside) -> None:
    """The window is large enough: it stops reading, starts again, and misses nothing."""
    async with Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        while hub.hub.broadcaster.lagging == 0:
            await hub.publish(10, pad="x" * 50_000)
        await hub.publish(20, pad="x" * 50_000)
        newest = hub.hub.cursor.seq
        assert judge(await read_to(raw, newest), newest) == 0
        await until(lambda: hub.hub.broadcaster.lagging == 0)


async def test_a_reader_slower_than_the_window_is_told_what_it_misses(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=20) as hub, Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        for _ in range(2):  # it stops and starts twice
            while hub.hub.broadcaster.lagging == 0:
                await hub.publish(10, pad="x" * 50_000)
            await hub.publish(30, pad="x" * 50_000)
            newest = hub.hub.cursor.seq
            if _ == 0:
                first = await read_to(raw, newest)
                await until(lambda: hub.hub.broadcaster.lagging == 0)
        assert judge(first + await read_to(raw, newest), newest) == 2
        assert hub.counted("hub_gaps_total", "slow") == 2


async def test_a_gap_that_is_kept_quiet_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the mechanism switched off: the reader misses events and nobody tells it."""
    monkeypatch.setattr("hub.stream.catchup.CatchUp.tell_gap", lambda *args: None)
    with pytest.raises(AssertionError):
        await test_a_reader_slower_than_the_window_is_told_what_it_misses(tmp_path)


async def storm(hub: HubInside, stuck: int, events: int) -> int:
    """Clients that never read beside a healthy one; returns the most bytes that lay ready for one of them."""
    most = 0
    raws = [Raw(hub.port, buffer=4096) for _ in range(stuck)]
    try:
        for raw in raws:
            await raw.__aenter__()
            await raw.upgrade()
        async with talk(hub.url) as healthy:
            reading = asyncio.create_task(healthy.numbers(events))
            for _ in range(events // 20):
                await hub.publish(20, pad="x" * 50_000)
                ready = [stream.transport.get_write_buffer_size() for stream in open_streams(hub)]
                most = max(most, *ready)
            assert await reading == list(range(1, events + 1))
    finally:
        for raw in raws:
            raw.socket.close()
    return most


@pytest.mark.once
async def test_clients_that_never_read_cost_one_write_and_the_healthy_one_nothing(tmp_path: Path) -> None:
    async with hub_app(tmp_path, window_bytes=100_000_000) as hub:
        assert await storm(hub, 50, 2000) < 5_000_000


@pytest.mark.once
async def test_a_hub_that_takes_no_notice_of_full_buffers_fills_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the mechanism switched off: what nobody reads piles up."""
    monkeypatch.setattr(Subscriber, "pause", lambda subscriber: None)
    monkeypatch.setattr("hub.web.streams._straight", lambda transport: None)
    async with hub_app(tmp_path, window_bytes=100_000_000) as hub:
        assert await storm(hub, 10, 600) > 15_000_000


async def test_an_application_that_publishes_in_a_loop_starves_nobody(tmp_path: Path) -> None:
    """Far more than the window holds, and nobody reads slowly: so nobody may be told that it did."""
    async with hub_app(tmp_path, window_events=100) as hub, talk(hub.url) as client:
        reading = asyncio.create_task(client.numbers(1000))
        for n in range(1000):
            await hub.hub.publish("a:x", n)
        assert await reading == list(range(1, 1001))


async def test_a_neighbour_of_a_flooder_is_served_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit of the rate helps here: 40,000 frames, all allowed, come at once; answers must not wait for them all."""
    taken = 0

    def ping(session: Session) -> bool:
        nonlocal taken
        taken += 1
        return True

    monkeypatch.setattr(Session, "ping", ping)
    async with hub_app(tmp_path) as hub, talk(hub.url, "?topics=none:*") as neighbour, Raw(hub.port) as raw:
        await raw.upgrade()
        flooding = asyncio.create_task(raw.write(Raw.packed(PONG, b"") * 40_000))
        answers = 0
        while taken < 40_000:
            await neighbour.call("hub:publish", event="a:x", data=answers)
            answers += 1
        await flooding
    assert answers >= 10, f"{answers} answers while 40,000 frames of another client were taken"


async def test_without_turns_the_neighbour_waits_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.web.ws.fair.FAIR", 10**9)
    with pytest.raises(AssertionError, match="answers while"):
        await test_a_neighbour_of_a_flooder_is_served_in_between(tmp_path, monkeypatch)


async def test_all_clients_drop_and_resume_at_once_and_miss_nothing(hub: HubInside) -> None:
    """A thousand, in one process with the hub: so the limit of descriptors must allow two for each."""
    await all_come_back(hub, 1000)


async def test_where_the_cursor_is_not_looked_at_they_miss_what_was_published(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.web.answers.stream_query", lambda request: (None, None))
    monkeypatch.setattr(running, "PATIENCE", 2.0)
    with pytest.raises(TimeoutError):
        await all_come_back(hub, 30)


async def all_come_back(hub: HubInside, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    await hub.publish(5)
    cursor = hub.hub.cursor
    await hub.publish(20)

    async def come_back() -> list[int]:
        async with talk(hub.url, f"?after={cursor}") as client:
            return await client.numbers(21)

    async def meanwhile() -> None:
        await until(lambda: hub.clients("websocket") > 20)
        await hub.publish(1)

    *views, _ = await asyncio.gather(*(come_back() for _ in range(count)), meanwhile())
    assert all(view == list(range(6, 27)) for view in views)
