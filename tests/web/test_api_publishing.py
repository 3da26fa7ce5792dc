"""POST /api/events over real sockets: what is taken, and every refusal with its status, its code and one sentence."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asked import JSON, NDJSON, api_hub, event, request
from running import HubInside, Raw, hub_app, hub_process

from hub.web import answers, signed
from hub.wire import strictjson
from hub.wire.validation import problems_in


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with api_hub(tmp_path) as running:
        yield running


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


ROUTES = "api/events", "api/commands/hub:publish", "hooks/claude-code", "hooks/github", "ping/job", "answer", "seen"


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: identity, chunked", 501),
        ("Transfer-Encoding: chunked\r\nContent-Encoding: identity\r\nContent-Encoding: x", 415),
        ("Transfer-Encoding: chunked\r\nContent-Encoding: identity, x", 415),
    ],
)
async def test_what_nobody_here_would_undo_is_not_taken_as_it_is(
    hub: HubInside, path: str, line: str, status: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(answers, "check_body", lambda request, most: None)
        monkeypatch.setattr(signed, "check_body", lambda request, most: None)
    form = path in ("answer", "seen")
    text = b"event=a%3Ab&key=1" if form else json.dumps(event()).encode()
    head = request(hub, f"POST /{path}", line, f"Origin: http://127.0.0.1:{hub.port}", "Connection: close")
    if form:
        head = head.replace(b"application/json", b"application/x-www-form-urlencoded")
    async with Raw(hub.port) as raw:
        await raw.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))
        first = await raw.read()
    assert (int(first.split()[1]) == status) is not weakened, first
    if not weakened:
        assert hub.hub.cursor.seq == 0
        assert b'"code":"invalid_message"' in first or form


async def test_one_that_is_undone_is_taken(hub: HubInside) -> None:
    for line in ("Transfer-Encoding: Chunked", "Transfer-Encoding: chunked\r\nContent-Encoding: Identity"):
        async with Raw(hub.port) as raw:
            await raw.write(request(hub, "POST /api/commands/hub:ping", line) + b"2\r\n{}\r\n0\r\n\r\n")
            assert (await raw.read()).startswith(b"HTTP/1.1 200 ")


async def test_what_cannot_be_unpacked_is_no_traceback_in_the_log(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        for encoding in ("gzip", "deflate"):
            headers = {**JSON, "Content-Encoding": encoding}
            async with hub.http.post(hub.url + "api/commands/hub:ping", data=b"{}", headers=headers) as response:
                assert response.status == 415
    assert "Traceback" not in hub.log


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


@pytest.mark.parametrize("weakened", [False, True])
async def test_lines_are_counted_before_the_first_is_parsed(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = mock.Mock(wraps=strictjson.loads)
    monkeypatch.setattr("hub.web.api.loads", parse)
    async with hub_app(tmp_path, max_batch=10**9 if weakened else 1000) as hub:
        answer = await hub.post("api/events", b"0\n\n \n" * 20_000, NDJSON)
    answer.refused(*((422, "invalid_message") if weakened else (413, "too_large")))
    assert parse.call_count == (20_000 if weakened else 0)


async def test_the_details_of_what_does_not_fit_are_bounded(hub: HubInside) -> None:
    votes = {
        "event": "governance:vote_cast",
        "data": {"vote_id": "x", "votes": dict.fromkeys(map(str, range(5000)), 0)},
    }
    for body in (votes, [event("a")] * 1000, {**event(), **{f"x{n}": 0 for n in range(5000)}}):
        details = (await hub.post("api/events", body)).refused(422, "invalid_message")["details"]
        assert 90 <= problems_in(details) <= 100
    args = {"topics": ["x"] * 250, **{f"x{n}": 0 for n in range(5000)}}
    for path, body, status in (
        ("api/commands/hub:history", args, 422),
        ("api/commands/hub:history", {"topics": ["x"] * 250}, 422),
    ):
        details = (await hub.post(path, body)).refused(status, "invalid_args")["details"]
        assert problems_in(details) == 100
    answer = await hub.get("api/events", topics=",".join(f"x{n}" for n in range(250)))
    assert problems_in(answer.refused(400, "invalid_args")["details"]) == 100
    assert hub.hub.cursor.seq == 0


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


# ---- weakened builds: the same checks with one mechanism switched off


SWITCHES: dict[str, tuple[Callable[[HubInside], Any], str, Any]] = {
    "any content type": (
        lambda hub: test_only_json_is_taken(hub, "api/events", "text/plain"),
        "hub.web.api.content_type",
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
        "hub.web.answers.bounded",
        lambda data, most: data,
    ),
    "any domain": (
        test_the_domain_of_the_hub_is_reserved,
        "hub.stream.bus._read",
        lambda record: ("a:x", 1, None, None),
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_the_check_fails_without_the_mechanism(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, check: Callable[[HubInside], Any], switch: str, off: Any
) -> None:
    monkeypatch.setattr(switch, off)
    with pytest.raises(AssertionError):
        await check(hub)


NO_DEADLINES: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "bodies": (
        test_a_body_that_does_not_come_is_not_waited_for,
        "hub.web.answers.asyncio.timeout",
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
