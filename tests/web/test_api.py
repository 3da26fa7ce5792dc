"""PROTOCOL 4 over real sockets: every route, and every refusal with its status, its code and one sentence."""

import asyncio
import contextlib
import gzip
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import fields
from running import HubInside, Raw, hub_app, seq, talk, until

from hub import Hub
from hub.commands.ratelimit import Bucket
from hub.commands.registry import Call
from hub.errors import CommandError, HubError

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def prepare(hub: Hub) -> None:
    """Commands that go wrong in every way."""

    @hub.command("test:refuse")
    async def refuse(call: Call) -> Any:
        """Refuse."""
        raise CommandError("There is no such order.", {"order": call.args.get("order")})

    @hub.command("test:odd")
    async def odd(call: Call) -> Any:
        """Refuse with details that are not JSON."""
        raise CommandError("There is no such order.", {"order": object()})

    @hub.command("test:bug")
    async def bug(call: Call) -> Any:
        """Fail with an internal text."""
        raise ZeroDivisionError("the secret plan")

    @hub.command("test:unwritable")
    async def unwritable(call: Call) -> Any:
        """Return what JSON cannot say."""
        return {"what": object()}

    @hub.command("test:hang")
    async def hang(call: Call) -> Any:
        """Never end."""
        await asyncio.Event().wait()

    @hub.command("test:add", {"a": fields.Integer(strict=True, required=True), "b": fields.Integer(strict=True)})
    async def add(call: Call) -> Any:
        """Add two numbers."""
        return call.args["a"] + call.args.get("b", 0)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare, call_timeout=0.3, stop_timeout=0.2, max_body=100_000) as running:
        yield running


def event(name: str = "a:x", data: Any = None, **more: Any) -> dict[str, Any]:
    return {"event": name, "data": data, **more}


# ---- publishing


async def test_publish_one(hub: HubInside) -> None:
    answer = await hub.post("api/events", event("task:progress", {"id": "build", "progress": 40}))
    assert answer.status == 200
    assert set(answer.json) == {"accepted", "duplicates", "cursor", "ids"}
    assert (answer.json["accepted"], answer.json["duplicates"], len(answer.json["ids"])) == (1, 0, 1)
    assert answer.json["cursor"] == f"{hub.hub.cursor.epoch}:1"


async def test_publish_many(hub: HubInside) -> None:
    answer = (await hub.post("api/events", [event(data=n) for n in range(1000)])).json
    assert (answer["accepted"], answer["cursor"]) == (1000, f"{hub.hub.cursor.epoch}:1000")
    assert len(set(answer["ids"])) == 1000
    kept = (await hub.get("api/events", after=f"{hub.hub.cursor.epoch}:0", limit="1000")).json["events"]
    assert [e["payload"]["data"] for e in kept] == list(range(1000))
    assert [e["id"] for e in kept] == answer["ids"]


async def test_publish_none(hub: HubInside) -> None:
    answer = (await hub.post("api/events", [])).json
    assert answer == {"accepted": 0, "duplicates": 0, "cursor": f"{hub.hub.cursor.epoch}:0", "ids": []}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"], ids=["lf", "crlf", "empty lines"])
async def test_publish_ndjson(hub: HubInside, end: bytes) -> None:
    lines = [json.dumps(event(data=n)).encode() for n in range(3)]
    assert (await hub.post("api/events", end.join(lines) + end, NDJSON)).json["accepted"] == 3
    assert (await hub.post("api/events", end.join(lines), NDJSON)).json["accepted"] == 3


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_the_content_type_may_be_written_differently(hub: HubInside, kind: str) -> None:
    assert (await hub.post("api/events", event(), {"Content-Type": kind})).status == 200


async def test_an_id_is_accepted_once(hub: HubInside) -> None:
    first = (await hub.post("api/events", event(id="once", data=1))).json
    assert first["ids"] == ["once"]
    await hub.post("api/events", event())
    again = (await hub.post("api/events", event(id="once", data=2))).json
    assert again == {"accepted": 0, "duplicates": 1, "cursor": first["cursor"], "ids": ["once"]}
    mixed = (await hub.post("api/events", [event(id="once"), event(id="new")])).json
    assert (mixed["accepted"], mixed["duplicates"]) == (1, 1)
    assert [e["id"] for e in (await hub.get("api/events")).json["events"]].count("once") == 1


async def test_a_batch_is_all_or_nothing_and_says_which(hub: HubInside) -> None:
    batch = [event(), event("bad"), event("task:progress", {"id": "x", "progress": "40"}), {"data": 1, "more": 2}, 7]
    error = (await hub.post("api/events", batch)).refused(422, "invalid_message")
    assert set(error["details"]) == {"1", "2", "3", "4"}
    assert set(error["details"]["1"]) == {"event"}
    assert set(error["details"]["2"]["data"]) == {"progress"}
    assert set(error["details"]["3"]) == {"event", "more"}
    assert hub.hub.cursor.seq == 0
    assert hub.counted("hub_events_rejected_total", "invalid_message") == 5


async def test_an_id_twice_in_one_batch_is_refused(hub: HubInside) -> None:
    error = (await hub.post("api/events", [event(id="x"), event(), event(id="x")])).refused(422, "invalid_message")
    assert error["details"].keys() == {"2"}
    assert error["details"]["2"].keys() == {"id"}
    assert hub.hub.cursor.seq == 0


async def test_the_domain_of_the_hub_is_reserved(hub: HubInside) -> None:
    (await hub.post("api/events", event("hub:gap"))).refused(422, "reserved_event")
    error = (await hub.post("api/events", [event(), event("hub:gap")])).refused(422, "reserved_event")
    assert error["details"].keys() == {"1"}
    assert hub.hub.cursor.seq == 0


MISFITS: dict[str, tuple[Any, str]] = {
    "no event": ({"data": 1}, "event"),
    "no data": ({"event": "a:x"}, "data"),
    "an unknown key": (event(trust="ROOT"), "trust"),
    "a name with one part": (event("a"), "event"),
    "a name with an empty part": (event("a::b"), "event"),
    "a name with a line break": (event("a:b\n"), "event"),
    "a name of 129 characters": (event("a:" + "b" * 127), "event"),
    "a number as name": ({"event": 7, "data": 1}, "event"),
    "an empty id": (event(id=""), "id"),
    "an id of 129 characters": (event(id="x" * 129), "id"),
    "null as id": (event(id=None), "id"),
    "a number as id": (event(id=1), "id"),
    "ttl 0": (event("task:progress", {"id": "x"}, ttl=0), "ttl"),
    "ttl true": (event("task:progress", {"id": "x"}, ttl=True), "ttl"),
    "ttl as text": (event("task:progress", {"id": "x"}, ttl="5"), "ttl"),
    "ttl without key": (event(ttl=5), "ttl"),
    "a wrong known field": (event("agent:status_change", {"id": "x", "status": "asleep"}), "data"),
    "a missing known field": (event("security:threat_detected", {"type": "x"}), "data"),
    "data that is no object": (event("task:progress", [1]), "data"),
}


@pytest.mark.parametrize(("record", "field"), MISFITS.values(), ids=MISFITS.keys())
async def test_an_event_that_does_not_fit_is_named_by_its_field(hub: HubInside, record: Any, field: str) -> None:
    assert field in (await hub.post("api/events", record)).refused(422, "invalid_message")["details"]
    assert hub.hub.cursor.seq == 0


@pytest.mark.parametrize("value", [7, "text", None, True])
async def test_a_body_that_is_no_event_does_not_fit(hub: HubInside, value: Any) -> None:
    (await hub.post("api/events", value)).refused(422, "invalid_message")


BAD_JSON = {
    "nothing": b"",
    "spaces": b"  ",
    "no end": b'{"event": "a:x"',
    "two values": b"{} {}",
    "NaN": b'{"event": "a:x", "data": NaN}',
    "Infinity": b'{"event": "a:x", "data": -Infinity}',
    "an infinite number": b'{"event": "a:x", "data": 1e999}',
    "21 digits": b'{"event": "a:x", "data": 123456789012345678901}',
    "5,000 digits": b'{"event": "a:x", "data": %b}' % (b"1" * 5000),
    "a key twice": b'{"event": "a:x", "data": {"a": 1, "a": 2}}',
    "a lone surrogate": b'{"event": "a:x", "data": "\\ud800"}',
    "bad UTF-8": b'{"event": "a:x", "data": "\xff"}',
    "UTF-16": json.dumps({"event": "a:x", "data": 1}).encode("utf-16"),
    "depth 33": b'{"event": "a:x", "data": %b%b}' % (b"[" * 32, b"]" * 32),
    "depth 40,000": b"[" * 40_000 + b"]" * 40_000,
    "a comment": b'{"event": "a:x", "data": 1} // one',
    "a control character": b'{"event": "a:x", "data": "\x00"}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_bad_json(hub: HubInside, body: bytes) -> None:
    (await hub.post("api/events", body)).refused(400, "invalid_json")
    if body.strip():  # a command without args may come without a body
        (await hub.post("api/commands/hub:ping", body)).refused(400, "invalid_json")
    assert hub.hub.cursor.seq == 0


async def test_what_is_just_within_the_limits_of_json(hub: HubInside) -> None:
    body = b'{"event": "a:x", "data": [12345678901234567890, -12345678901234567890, %b%b]}' % (b"[" * 30, b"]" * 30)
    assert (await hub.post("api/events", body)).status == 200
    [kept] = (await hub.get("api/events")).json["events"]
    assert kept["payload"]["data"][:2] == [12345678901234567890, -12345678901234567890]


@pytest.mark.parametrize("bad", [b"{", b'{"event": "a:x", "data": NaN}', b"\xff"])
async def test_a_bad_line_is_named(hub: HubInside, bad: bytes) -> None:
    good = json.dumps(event()).encode()
    error = (await hub.post("api/events", b"\n".join([good, b"", bad, good]), NDJSON)).refused(400, "invalid_json")
    assert "line 3" in error["error"].lower()
    assert hub.hub.cursor.seq == 0


KINDS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", "", "json"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["api/events", "api/commands/hub:ping"])
async def test_only_json_is_taken(hub: HubInside, path: str, kind: str) -> None:
    answer = await hub.post(path, b'{"event": "a:x", "data": 1}', {"Content-Type": kind})
    answer.refused(415, "invalid_message")
    assert hub.hub.cursor.seq == 0


@pytest.mark.parametrize("path", ["api/events", "api/commands/hub:ping"])
async def test_a_body_without_content_type_is_refused(hub: HubInside, path: str) -> None:
    answer = await hub.ask("POST", path, data=b"{}", skip_auto_headers=["Content-Type"])
    answer.refused(415, "invalid_message")


async def test_a_command_takes_no_ndjson(hub: HubInside) -> None:
    (await hub.post("api/commands/hub:ping", b"{}", NDJSON)).refused(415, "invalid_message")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_encoded_body_is_refused(hub: HubInside, encoding: str) -> None:
    body = gzip.compress(json.dumps(event()).encode())
    answer = await hub.post("api/events", body, {**JSON, "Content-Encoding": encoding})
    answer.refused(415, "invalid_message")


async def test_an_encoding_that_nobody_here_can_read_is_refused(hub: HubInside) -> None:
    """aiohttp's parser refuses this one before any application sees it, so it is no error object."""
    answer = await hub.post("api/events", json.dumps(event()).encode(), {**JSON, "Content-Encoding": "br"})
    assert answer.status in (400, 415)
    assert hub.hub.cursor.seq == 0


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 10_000


@pytest.mark.parametrize("path", ["api/events", "api/commands/hub:ping"])
async def test_a_body_that_is_too_large(hub: HubInside, path: str) -> None:
    (await hub.post(path, b" " * 100_001)).refused(413, "too_large")
    (await hub.ask("POST", path, data=pieces(11), headers=JSON)).refused(413, "too_large")
    just = json.dumps(event(data="")).encode()
    assert (await hub.post("api/events", just + b" " * (100_000 - len(just)))).status == 200


async def test_a_declared_length_is_refused_before_the_body_comes(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.write(request(hub, "POST /api/events", f"Content-Length: {10**12}"))
        assert (await raw.read()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", [JSON, NDJSON], ids=["array", "ndjson"])
async def test_more_than_1000_events(hub: HubInside, kind: dict[str, str]) -> None:
    lines = [json.dumps(event()) for _ in range(1001)]
    body = "\n".join(lines) if kind is NDJSON else f"[{','.join(lines)}]"
    (await hub.post("api/events", body.encode(), kind)).refused(413, "too_large")
    assert hub.hub.cursor.seq == 0


def request(hub: HubInside, line: str, *headers: str) -> bytes:
    host = f"Host: 127.0.0.1:{hub.port}"
    return "\r\n".join([f"{line} HTTP/1.1", host, "Content-Type: application/json", *headers, "", ""]).encode()


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(request(hub, "POST /api/events", "Content-Length: 10") + b"{")
        assert (await raw.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_trickles_does_not_move_the_deadline(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(request(hub, "POST /api/events", "Transfer-Encoding: chunked"))
        answer = asyncio.create_task(raw.read())
        while not answer.done():
            await asyncio.wait([answer], timeout=0.02)
            if not answer.done():
                await raw.write(b"1\r\n \r\n")
        assert answer.result().startswith(b"HTTP/1.1 408 ")


# ---- reading


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
    "limit=": (422, "invalid_args"),
    "limit=" + "9" * 5000: (422, "invalid_args"),
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


# ---- commands


async def test_a_command(hub: HubInside) -> None:
    answer = await hub.post("api/commands/test:add", {"a": 40, "b": 2})
    assert (answer.status, answer.json) == (200, 42)
    assert (await hub.post("api/commands/hub:info", b"")).json["protocol"] == 1
    names = [row["name"] for row in (await hub.get("api/commands")).json]
    assert "test:add" in names


async def test_unknown_command(hub: HubInside) -> None:
    (await hub.post("api/commands/no:such", {})).refused(404, "unknown_command")
    (await hub.post("api/commands/nonsense", {})).refused(404, "unknown_command")
    (await hub.get("no/such/page")).refused(404, "unknown_command")


async def test_bad_args(hub: HubInside) -> None:
    assert (await hub.post("api/commands/test:add", {"a": "1"})).refused(422, "invalid_args")["details"].keys() == {"a"}
    error = (await hub.post("api/commands/test:add", {"c": 1})).refused(422, "invalid_args")
    assert error["details"].keys() == {"a", "c"}
    wrong: tuple[Any, ...] = ([], 7, "x", None)
    for args in wrong:
        (await hub.post("api/commands/test:add", args)).refused(422, "invalid_args")


WRONG_METHODS = [
    ("PUT", "api/events"),
    ("DELETE", "api/events"),
    ("OPTIONS", "api/events"),
    ("GET", "api/commands/hub:ping"),
    ("POST", "api/state"),
    ("POST", "metrics"),
    ("POST", "events"),
    ("POST", "ws"),
    ("DELETE", "healthz"),
    ("POST", ""),
]


@pytest.mark.parametrize(("method", "path"), WRONG_METHODS)
async def test_a_wrong_method(hub: HubInside, method: str, path: str) -> None:
    answer = await hub.ask(method, path)
    answer.refused(405, "invalid_message")
    assert answer.headers["Allow"]
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", ["api/events", "api/state", "api/commands", "metrics", "healthz", "events"])
async def test_head_has_no_body_and_ends(hub: HubInside, path: str) -> None:
    """What aiohttp lets HEAD do for free must not start a stream behind the head of the answer."""
    async with Raw(hub.port) as raw:
        await raw.write(request(hub, f"HEAD /{path}") + request(hub, "GET /no/such/page", "Connection: close"))
        got = b""
        while data := await raw.read():
            got += data
        assert got.count(b"HTTP/1.1 ") == 2
        assert got.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 404 ")


async def test_a_command_that_refuses(hub: HubInside) -> None:
    error = (await hub.post("api/commands/test:refuse", {"order": 7})).refused(500, "command_failed")
    assert error["error"] == "There is no such order."
    assert error["details"] == {"order": 7}


@pytest.mark.parametrize("name", ["test:bug", "test:unwritable", "test:odd"])
async def test_a_bug_is_internal_with_a_reference_that_the_log_has(
    hub: HubInside, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "hub"):
        answer = await hub.post(f"api/commands/{name}", {})
    sentence = answer.refused(500, "internal")["error"]
    assert "secret plan" not in answer.text
    assert "ZeroDivision" not in answer.text
    reference = sentence.rstrip(".").split()[-1]
    [line] = [record for record in caplog.records if reference in record.getMessage()]
    assert line.exc_info
    async with talk(hub.url) as client:
        await client.fails(name, "internal")
        await client.call("hub:ping")


async def test_a_bug_says_nothing(hub: HubInside) -> None:
    assert "secret plan" not in (await hub.post("api/commands/test:bug", {})).text


async def test_a_command_over_its_time(hub: HubInside) -> None:
    assert (await hub.post("api/commands/test:hang", {})).refused(504, "timeout")["retryable"] is True


async def test_more_calls_than_allowed_at_once_are_busy(tmp_path: Path) -> None:
    """256 at once a client, and over HTTP a client is a peer address."""
    settings: dict[str, Any] = {"max_calls": 3, "call_timeout": 2.0, "stop_timeout": 0.1}
    async with hub_app(tmp_path, prepare=prepare, **settings) as hub:
        calls = [asyncio.create_task(hub.post("api/commands/test:hang", {})) for _ in range(3)]
        await until(lambda: len(hub.hub.commands.running) == 3)
        answer = await hub.post("api/commands/hub:ping", {})
        assert int(answer.headers["Retry-After"]) >= 1
        answer.refused(429, "busy")
        for call in list(hub.hub.commands.running):
            call.cancel()
        for call_answer in await asyncio.gather(*calls):
            call_answer.refused(409, "cancelled")
        assert (await hub.post("api/commands/hub:ping", {})).status == 200


async def test_over_the_rate(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=3) as hub:
        for _ in range(6):
            assert (await hub.post("api/events", event())).status == 200
        answer = await hub.post("api/events", event())
        error = answer.refused(429, "rate_limited")
        assert error["retryable"] is True
        assert 0 < error["retry_after"] <= 1
        assert int(answer.headers["Retry-After"]) == 1
        assert hub.hub.cursor.seq == 6
        assert hub.counted("hub_rate_limited_total") == 1


async def test_without_the_limit_everything_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the mechanism switched off."""
    monkeypatch.setattr(Bucket, "take", lambda bucket: 0.0)
    with pytest.raises(AssertionError):
        await test_over_the_rate(tmp_path)


async def test_while_the_hub_stops_calls_are_refused(hub: HubInside) -> None:
    await hub.hub.commands.stop(0)
    answer = await hub.post("api/commands/hub:ping", {})
    assert answer.refused(503, "shutting_down")["retryable"] is True
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await hub.get("readyz")).status == 503
    assert (await hub.get("healthz")).status == 200


async def test_a_call_over_http_is_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/commands/test:add", {"a": 1})
    await hub.post("api/commands/test:refuse", {})
    await hub.post("api/commands/no:such", {})
    called = [record["details"]["command"] for record in await hub.records("command.called")]
    assert called == ["test:add", "test:refuse"]
    finished = [record["details"] for record in await hub.records("command.finished")]
    assert [(d["command"], d["outcome"]) for d in finished] == [("test:add", "ok"), ("test:refuse", "command_failed")]
    refusals = await hub.recorded("command.refused")
    assert refusals[0]["details"]["outcome"] == "unknown_command"
    newest = (await hub.get("api/audit", limit="1")).json
    assert [record["action"] for record in newest] == ["command.called"]
    assert newest[0]["details"]["command"] == "audit:tail"


async def test_a_call_over_the_rate_is_in_the_audit_log(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=1) as hub:
        for _ in range(2):
            await hub.post("api/commands/hub:ping", {})
        (await hub.post("api/commands/hub:ping", {})).refused(429, "rate_limited")
        async with asyncio.timeout(5):
            details = (await hub.recorded("command.refused"))[0]["details"]
        assert (details["command"], details["outcome"]) == ("hub:ping", "rate_limited")


async def test_publishing_is_not_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/events", event())
    await hub.post("api/commands/hub:publish", event())
    assert await hub.records("command.called") == []
    assert hub.hub.cursor.seq == 2


async def test_large_and_secret_args_are_not_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/commands/hub:ping", {"pad": "x" * 5000})
    await hub.post("api/commands/hub:ping", {"deep": [{"password": "hunter2"}]})
    large, secret = [record["details"]["args"] for record in await hub.records("command.called")]
    assert set(large) == {"bytes", "sha256"}
    assert secret == {"deep": [{}]}


# ---- health


async def test_health_readiness_and_metrics(hub: HubInside) -> None:
    assert (await hub.get("healthz")).json["status"] == "ok"
    assert (await hub.get("readyz")).json == {"status": "ok", "reasons": {}}
    await hub.post("api/events", event("task:progress", {"id": "x"}))
    await hub.post("api/events", event("made:up", {"id": "x"}))
    text = (await hub.get("metrics")).text
    assert 'hub_events_total{event="task:progress"} 1.0' in text
    assert 'hub_events_total{event="other"} 1.0' in text
    assert "made:up" not in text
    openmetrics = await hub.ask("GET", "metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_every_answer_has_the_security_headers(hub: HubInside) -> None:
    for path in ("", "api/state", "no/such/page", "metrics", "ws", "static/hub.css", "api/events?after=x"):
        answer = await hub.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert answer.headers["Cache-Control"] == "no-store", path


async def test_what_is_not_http_is_400_and_costs_nothing(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.write(b"this is not HTTP\r\n\r\n")
        assert (await raw.read()).split()[1] == b"400"
    assert (await hub.get("healthz")).status == 200


async def test_half_a_request_is_not_waited_for(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(b"GET /healthz HTTP/1.1\r\nHost: 127")
        while await raw.read():
            pass


async def test_a_head_that_trickles_does_not_move_the_deadline(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        end = asyncio.create_task(raw.read())
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while not end.done():
                    await asyncio.wait([end], timeout=0.02)
                    await raw.write(b"x")
        assert end.done()


# ---- weakened builds: the same checks with one mechanism switched off


SWITCHES: dict[str, tuple[Callable[[HubInside], Any], str, Any]] = {
    "any content type": (
        lambda hub: test_only_json_is_taken(hub, "api/events", "text/plain"),
        "hub.web.api._content_type",
        lambda request, *allowed: allowed[0],
    ),
    "lenient JSON": (
        lambda hub: test_bad_json(hub, BAD_JSON["a key twice"]),
        "hub.wire.strictjson._DECODER",
        json.JSONDecoder(),
    ),
    "any depth": (lambda hub: test_bad_json(hub, BAD_JSON["depth 33"]), "hub.wire.strictjson.MAX_DEPTH", 10**9),
    "any size": (
        lambda hub: test_a_body_that_is_too_large(hub, "api/events"),
        "hub.web.api._bounded",
        lambda data, most: data,
    ),
    "any domain": (
        test_the_domain_of_the_hub_is_reserved,
        "hub.stream.bus._read",
        lambda record: ("a:x", 1, None, None),
    ),
    "any exception's text": (
        test_a_bug_says_nothing,
        "hub.commands.registry.internal",
        lambda where: HubError("internal", f"{sys.exc_info()[1]!r}."),
    ),
    "secrets are kept": (
        test_large_and_secret_args_are_not_in_the_audit_log,
        "hub.commands.registry.redact",
        lambda v: (v, 0),
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_the_check_fails_without_the_mechanism(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, check: Callable[[HubInside], Any], switch: str, off: Any
) -> None:
    monkeypatch.setattr(switch, off)
    with pytest.raises(AssertionError):
        await check(hub)


def patient_runner(*args: Any, **options: Any) -> web.AppRunner:
    return web.AppRunner(*args, **{**options, "keepalive_timeout": 3600.0})


NO_DEADLINES: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "heads": (
        test_half_a_request_is_not_waited_for,
        "running.web",
        SimpleNamespace(AppRunner=patient_runner, SockSite=web.SockSite),
    ),
    "bodies": (
        test_a_body_that_does_not_come_is_not_waited_for,
        "hub.web.api.asyncio.timeout",
        lambda seconds: contextlib.AsyncExitStack(),
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), NO_DEADLINES.values(), ids=NO_DEADLINES.keys())
async def test_without_the_deadline_a_slow_client_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], Any], switch: str, off: Any
) -> None:
    monkeypatch.setattr("running.PATIENCE", 1.0)
    monkeypatch.setattr(switch, off)
    with pytest.raises(TimeoutError):
        await check(tmp_path)
