"""GET /api/events and /api/state over real sockets: pages, cursors, and state that misses nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asked import api_hub, event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import HubInside, hub_app, seq, talk


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with api_hub(tmp_path) as running:
        yield running


async def test_history(hub: HubInside) -> None:
    epoch = hub.hub.cursor.epoch
    await hub.publish(5)
    await hub.publish(1, "b:x")
    newest = (await hub.get("api/events", limit="2")).json
    assert set(newest) == {"events", "cursor", "complete", "more"}
    assert [seq(e) for e in newest["events"]] == [5, 6]
    assert (newest["cursor"], newest["complete"]) == (f"{epoch}:6", True)
    page = (await hub.get("api/events", after=f"{epoch}:1", limit="2")).json
    assert [seq(e) for e in page["events"]] == [2, 3]
    assert (page["complete"], page["more"]) == (True, True)
    narrowed = (await hub.get("api/events", after=page["cursor"], topics="b:*,c:*")).json
    assert [seq(e) for e in narrowed["events"]] == [6]
    assert narrowed["more"] is False


async def test_an_event_in_the_history_is_the_event_of_the_stream(hub: HubInside) -> None:
    async with talk(hub.url) as client:
        await hub.post("api/events", event("task:progress", {"id": "build", "secret": "s", "progress": 40}))
        assert (await hub.get("api/events")).json["events"] == [await client.event()]


async def test_what_was_trimmed_is_not_complete(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=5) as hub:
        await hub.publish(9)
        epoch = hub.hub.cursor.epoch
        page = (await hub.get("api/events", after=f"{epoch}:2")).json
        assert ([seq(e) for e in page["events"]], page["complete"]) == ([5, 6, 7, 8, 9], False)
        page = (await hub.get("api/events", after=f"{epoch}:4")).json
        assert ([seq(e) for e in page["events"]], page["complete"]) == ([5, 6, 7, 8, 9], True)
        page = (await hub.get("api/events", after="another:4")).json
        assert ([seq(e) for e in page["events"]], page["complete"]) == ([5, 6, 7, 8, 9], False)


async def test_where_nothing_is_left_the_history_goes_on_at_the_head(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=0) as hub:
        await hub.publish(9)
        epoch = hub.hub.cursor.epoch
        page = (await hub.get("api/events", after=f"{epoch}:2")).json
        assert page == {"events": [], "cursor": f"{epoch}:9", "complete": False, "more": False}
        assert (await hub.get("api/events", after=page["cursor"])).json["complete"]


async def test_large_events_are_paged_by_their_bytes_too(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        await hub.publish(50, pad="x" * 50_000)
        after, got = f"{hub.hub.cursor.epoch}:0", []
        while True:
            answer = await hub.get("api/events", after=after, limit="1000")
            assert len(answer.text) < 1_200_000
            got += [seq(e) for e in answer.json["events"]]
            after = answer.json["cursor"]
            if not answer.json["more"]:
                break
        assert got == list(range(1, 51))


BAD_QUERIES = {
    "after=": (400, "unknown_cursor"),
    "after=nonsense": (400, "unknown_cursor"),
    "after=EPOCH:1": (400, "unknown_cursor"),
    "after=EPOCH:-1": (400, "unknown_cursor"),
    "after=EPOCH:01": (400, "unknown_cursor"),
    "after=EPOCH:99999999999999999999999": (400, "unknown_cursor"),
    "topics=": (400, "invalid_args"),
    "topics=agent": (400, "invalid_args"),
    "topics=a:*,": (400, "invalid_args"),
    "topics=a*": (400, "invalid_args"),
    "limit=0": (422, "invalid_args"),
    "limit=1001": (422, "invalid_args"),
    "limit=-1": (422, "invalid_args"),
    "limit=ten": (422, "invalid_args"),
    "limit=%D9%A1": (422, "invalid_args"),  # an Arabic one
    "limit=": (422, "invalid_args"),
    "limit=" + "9" * 5000: (422, "invalid_args"),
    "topic=a:*": (400, "invalid_args"),
    "Limit=1": (400, "invalid_args"),
    "=": (400, "invalid_args"),
    "limit=1&limit=2": (400, "invalid_args"),
    "after=EPOCH:0&after=EPOCH:0": (400, "invalid_args"),
}


@pytest.mark.parametrize(("query", "refusal"), BAD_QUERIES.items())
async def test_a_bad_query(hub: HubInside, query: str, refusal: tuple[int, str]) -> None:
    query = query.replace("EPOCH", hub.hub.cursor.epoch)
    (await hub.ask("GET", f"api/events?{query}")).refused(*refusal)
    if query.startswith("topics"):
        (await hub.ask("GET", f"api/state?{query}")).refused(*refusal)
    if query.startswith("limit"):
        (await hub.ask("GET", f"api/audit?{query}")).refused(*refusal)


NAMES = ["a:x", "a:y", "b:x"]


@given(
    names=st.lists(st.sampled_from(NAMES), max_size=30),
    topics=st.sets(st.sampled_from(["*", "a:*", "b:*", "*:x", "c:*"]), min_size=1),
    limit=st.integers(1, 12),
    start=st.integers(0, 30),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_paging_gives_each_kept_event_once(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], topics: set[str], limit: int, start: int
) -> None:
    """From any cursor, with any page size: all that matches and is kept, in order; `complete` and `more` are true."""

    async def page_through() -> None:
        async with hub_app(tmp_path_factory.mktemp("state"), ephemeral=True, window_events=20) as hub:
            for name in names:
                await hub.hub.publish(name, None)
            head, tail = len(names), max(1, len(names) - 19)
            after = min(start, head)
            wants = [n for n in range(max(after + 1, tail), head + 1) if matches(names[n - 1], topics)]
            cursor, got, more, complete = f"{hub.hub.cursor.epoch}:{after}", [], True, True
            while more:
                query = {"after": cursor, "limit": str(limit), "topics": ",".join(sorted(topics))}
                page = (await hub.get("api/events", **query)).json
                numbers = [seq(e) for e in page["events"]]
                assert len(numbers) <= limit
                got += numbers
                cursor, more, complete = page["cursor"], page["more"], complete and page["complete"]
                assert more is (got != wants)
            assert got == wants
            assert complete is (after + 1 >= tail)
            assert cursor == str(hub.hub.cursor)

    asyncio.run(page_through())


def matches(name: str, topics: set[str]) -> bool:
    domain, action = name.split(":")
    return bool(topics & {"*", f"{domain}:*", f"*:{action}"})


# ---- state


async def test_state_and_its_cursor(hub: HubInside) -> None:
    for progress in (10, 40):
        await hub.post("api/events", event("task:progress", {"id": "build", "progress": progress}))
    await hub.post("api/events", event("memory:stats_update", {"total_entries": 7}))
    await hub.post("api/events", event("a:x", {"id": "no type, no key"}))
    state = (await hub.get("api/state")).json
    assert state["cursor"] == f"{hub.hub.cursor.epoch}:4"
    items = {(item["event"], item["key"]): item for item in state["items"]}
    assert items.keys() == {("task:progress", "build"), ("memory:stats_update", "memory")}
    build = items["task:progress", "build"]
    assert set(build) == {"event", "key", "timestamp", "data", "stale"}
    assert (build["data"], build["stale"]) == ({"id": "build", "progress": 40}, False)
    narrowed = (await hub.get("api/state", topics="memory:*")).json["items"]
    assert [item["event"] for item in narrowed] == ["memory:stats_update"]


async def test_state_and_the_stream_from_its_cursor_miss_nothing(tmp_path: Path) -> None:
    """In a storm: the state at a cursor, and what comes behind it, make the state at the end."""
    async with hub_app(tmp_path, rate=0) as hub:

        async def publish(worker: int) -> None:
            for n in range(60):
                data = {"id": f"t{n % 7}", "progress": (n + worker) % 100}
                assert (await hub.post("api/events", event("task:progress", data))).status == 200

        async def join() -> dict[str, Any]:
            state = (await hub.get("api/state")).json
            view = {item["key"]: item["data"] for item in state["items"]}
            async with talk(hub.url, f"?after={state['cursor']}") as client:
                number = int(state["cursor"].rpartition(":")[2])
                while number < 240:
                    frame = await client.event()
                    number += 1
                    assert seq(frame) == number
                    view[frame["payload"]["data"]["id"]] = frame["payload"]["data"]
            return view

        joining = []
        storm = asyncio.gather(*(publish(worker) for worker in range(4)))
        while not storm.done():
            joining.append(asyncio.create_task(join()))
            await asyncio.wait([storm], timeout=0.05)
        await storm
        end = {item["key"]: item["data"] for item in (await hub.get("api/state")).json["items"]}
        assert len(end) == 7
        assert all(view == end for view in await asyncio.gather(*joining))


async def test_pages_over_http(hub: HubInside) -> None:
    """`after` and `before` are what the answer before has said."""
    for key in ("a", "b"):
        await hub.hub.publish("task:progress", {"id": key})
    first = f"{hub.hub.cursor.epoch}:1"
    state = (await hub.get("api/state", after=first)).json
    assert ([item["key"] for item in state["items"]], state["more"]) == (["b"], False)
    (await hub.get("api/state", after=f"{hub.hub.cursor.epoch}:9")).refused(400, "unknown_cursor")
    records = (await hub.get("api/audit", before="3")).json
    assert [record["seq"] for record in records] == [1, 2]
    (await hub.get("api/audit", before="none")).refused(422, "invalid_args")
    assert [row["name"] for row in (await hub.get("api/commands", name="hub:ping")).json] == ["hub:ping"]


async def test_a_lease_that_runs_out_turns_stale(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=hub:*") as client:
        data = {"id": "a1", "status": "active"}
        await hub.post("api/events", event("agent:status_change", data, ttl=0.05))
        stale = await client.event()
        ended = {"event": "agent:status_change", "key": "a1", "seq": 1}
        assert stale["payload"] == {"event": "hub:stale", "data": ended}
        assert seq(stale) == 2
        [item] = (await hub.get("api/state")).json["items"]
        assert (item["stale"], item["data"]) == (True, data)
        await hub.post("api/events", event("agent:status_change", data))
        [item] = (await hub.get("api/state")).json["items"]
        assert item["stale"] is False


async def test_a_lease_that_is_renewed_does_not(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=hub:*") as client:
        data = {"id": "a1", "status": "active"}
        await hub.post("api/events", event("agent:status_change", data, ttl=0.05))
        await hub.post("api/events", event("agent:status_change", data, ttl=500))
        await hub.post("api/events", event("agent:status_change", {**data, "id": "a2"}, ttl=0.1))
        assert (await client.event())["payload"]["data"]["key"] == "a2"
