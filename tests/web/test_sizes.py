"""Nothing that goes out is larger than what every client takes by default, whatever it is and whoever asked for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from asked import JSON, NDJSON
from forks import PIPE, fork
from running import HubInside, environment, hub_app, until

from hub import Call, Hub
from hub.commands import builtin, listing, registry, runner
from hub.commands.call import Command
from hub.commands.clients import Client
from hub.errors import CommandError, HubError
from hub.stream import bus
from hub.stream.brokers import database
from hub.stream.events import Draft, weights
from hub.stream.subscriber import Subscriber
from hub.wire import messages
from hub.wire.framing import WEBSOCKET
from hub.wire.names import MAX_PATTERNS, Cursor, Patterns
from hub.wire.strictjson import LARGEST, LARGEST_EVENT

ANYTHING = 2**40
ID = "𝄞" * 128  # the longest there is


# ---- events


def padded(hub: Hub, more: int = 0) -> dict[str, Any]:
    """An event whose envelope has so many bytes more than it may have."""
    cursor = Cursor(hub.broker.epoch, hub.cursor.seq + 1)
    pad = LARGEST_EVENT + more - max(weights(Draft("a:x", "id", b'""', given=True), cursor))
    return {"event": "a:x", "data": "x" * pad, "id": "id"}


Record = dict[str, Any]


def written(value: Any) -> str:
    """JSON as short as it can be."""
    return json.dumps(value, separators=(",", ":")).replace("1000000000000000.0", "1e15")


async def by_hub_publish(hub: HubInside, record: Record) -> str:
    try:
        await hub.hub.publish(record["event"], record["data"], id=record.get("id"))
    except HubError as error:
        return error.code
    return "ok"


async def _posted(hub: HubInside, body: str, headers: Mapping[str, str], where: str | None = None) -> str:
    answer = await hub.post("api/events", body.encode(), headers)
    if answer.status == 200:
        return "ok"
    assert answer.status == 413
    assert (where is None) == ("details" not in answer.json), answer.text[:300]
    assert where is None or "bytes" in answer.json["details"][where]["event"][0]
    return str(answer.json["code"])


async def by_object(hub: HubInside, record: Record) -> str:
    return await _posted(hub, written(record), JSON)


async def by_array(hub: HubInside, record: Record) -> str:
    return await _posted(hub, written([record, {"event": "a:y", "data": 1}]), JSON, "0")


async def by_ndjson(hub: HubInside, record: Record) -> str:
    return await _posted(hub, "\n".join(map(written, (record, {"event": "a:y", "data": 1}))), NDJSON, "0")


async def by_command(hub: HubInside, record: Record) -> str:
    async with hub.http.ws_connect(f"{hub.url}ws?topics=no:thing") as ws:
        return (await called(ws, "hub:publish", record))[0]


async def by_command_line(hub: HubInside, record: Record) -> str:
    command = ["publish", "--url", hub.url, "a:x", "-", *(["--id", record["id"]] if "id" in record else [])]
    process = await fork(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment(), cwd="/")
    _, said = await process.communicate(written(record["data"]).encode())
    if process.returncode == 0:
        return "ok"
    assert process.returncode == 1
    assert "The event would go out as" in said.decode()
    return "too_large"


WAYS = [by_hub_publish, by_object, by_array, by_ndjson, by_command, by_command_line]
Way = Callable[[HubInside, Record], Awaitable[str]]


async def called(ws: ClientWebSocketResponse, name: str, args: Any, id: str = "1") -> tuple[str, str]:
    """The outcome of a call, and its answer's text."""
    await ws.send_str(written({"type": "command", "id": id, "payload": {"command": name, "args": args}}))
    text = await ws.receive_str()
    answer = json.loads(text)
    assert answer["id"] == id
    return ("ok" if answer["type"] == "response" else answer["payload"]["code"]), text


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, max_frame=2 * LARGEST) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
async def test_the_largest_event_goes_through(hub: HubInside, way: Way) -> None:
    async with hub.http.ws_connect(f"{hub.url}ws?topics=a:x", max_msg_size=LARGEST) as reader:
        assert await way(hub, padded(hub.hub)) == "ok"
        assert len(await reader.receive_str()) == LARGEST_EVENT


@pytest.mark.parametrize("way", WAYS)
async def test_a_larger_one_is_refused_by_every_way_in(hub: HubInside, way: Way) -> None:
    assert await way(hub, padded(hub.hub, 1)) == "too_large"
    assert hub.hub.cursor.seq == 0
    assert hub.counted("hub_events_rejected_total", "too_large") > 0


@pytest.mark.parametrize("way", WAYS)
async def test_what_counts_is_what_goes_out(hub: HubInside, way: Way) -> None:
    """A list of 1e15 comes in as a third of what it is then."""
    assert await way(hub, {"event": "a:x", "data": [1e15] * 60_000, "id": "id"}) == "too_large"
    assert hub.hub.cursor.seq == 0


async def test_a_key_counts_where_it_stands(hub: HubInside) -> None:
    """In hub:state it stands once more."""
    assert (await hub.post("api/events", {"event": "task:progress", "data": {"id": "k" * 600_000}})).status == 413
    assert (await hub.post("api/events", {"event": "task:progress", "data": {"id": "k" * 520_000}})).status == 200
    answer = await hub.get("api/state")
    assert len(answer.json["items"][0]["key"]) == 520_000
    assert LARGEST_EVENT - 10_000 < len(answer.text) <= LARGEST


async def test_a_body_that_may_come_in_and_an_event_that_may_not(hub: HubInside) -> None:
    body = written({"event": "a:x", "data": "x" * (1_048_504 - len('{"event":"a:x","data":""}'))})
    assert len(body) == 1_048_504
    assert await _posted(hub, body, JSON) == "too_large"


async def test_weakened_a_larger_one_would_end_its_readers(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "LARGEST_EVENT", ANYTHING)
    async with hub.http.ws_connect(f"{hub.url}ws?topics=a:x", max_msg_size=LARGEST) as reader:
        assert await by_object(hub, {"event": "a:x", "data": [1e15] * 60_000}) == "ok"
        assert (await reader.receive()).type is WSMsgType.ERROR
        assert reader.close_code == 1009


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("window", [0, 100])
async def test_an_event_of_an_older_version_closes_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, weakened: bool
) -> None:
    """It was let in when nobody looked; where it would stand is a gap."""
    async with hub_app(tmp_path) as hub:
        await hub.hub.publish("a:x", 1)
        await hub.hub.broker.append([Draft("a:x", "id", b'"%b"' % (b"x" * LARGEST))])
        await hub.hub.publish("a:x", 3)
        epoch = hub.hub.cursor.epoch
    if weakened:
        monkeypatch.setattr(database, "LARGEST_FRAME", ANYTHING)
    async with hub_app(tmp_path, window_events=window) as hub:
        query = f"?topics=a:*&after={epoch}:0"
        async with hub.http.ws_connect(f"{hub.url}ws{query}", max_msg_size=LARGEST) as reader:
            assert (await reader.receive_json())["payload"]["data"] == 1
            if weakened:
                assert (await reader.receive()).type is WSMsgType.ERROR
                return
            gap = (await reader.receive_json())["payload"]
            assert (await reader.receive_json())["payload"]["data"] == 3
        assert gap["event"] == "hub:gap"
        told = {"after": f"{epoch}:1", "before": f"{epoch}:3", "count": 1, "reason": "expired"}
        assert gap["data"] == told
        async with hub.http.get(f"{hub.url}events{query}") as stream:
            lines = list[bytes]()
            while not lines or not lines[-1].endswith(b'"data":3}}\n'):
                lines.append(await stream.content.readline())
        assert lines.count(b"event: hub:gap\n") == 1
        assert [line for line in lines if line.startswith(b"id:")] == [f"id: {epoch}:{n}\n".encode() for n in (1, 3)]
        assert [len(event.data) for event in hub.hub.window.events() if event.withheld] == [LARGEST] * (window > 0)


# ---- last values


async def test_1500_agents_are_read_by_a_client_that_takes_a_mib(hub: HubInside) -> None:
    agents = [{"id": f"agent-{number}", "status": "idle", "task": "x" * 700} for number in range(1500)]
    for start in range(0, 1500, 500):
        records = [{"event": "agent:status_change", "data": agent} for agent in agents[start : start + 500]]
        assert (await hub.post("api/events", records)).status == 200
    found, args = list[Any](), dict[str, Any]()
    async with hub.http.ws_connect(f"{hub.url}ws?topics=no:thing", max_msg_size=LARGEST) as ws:
        while True:
            outcome, text = await called(ws, "hub:state", args)
            assert outcome == "ok"
            page = json.loads(text)["payload"]
            found += [item["data"] for item in page["items"]]
            if not page["more"]:
                break
            args = {"after": page["cursor"]}
    assert found == agents
    assert args, "all of them were one page"


def size_on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("events.sqlite*"))


@pytest.mark.parametrize("weakened", [False, True])
async def test_large_last_values_are_few_wherever_they_are(tmp_path: Path, weakened: bool) -> None:
    """In memory, on disk, and after a restart. 300 keys × 1 MB were 619 MiB of memory and 287 MiB on disk."""
    limit = 4 * LARGEST
    limits: dict[str, Any] = {"keep_bytes": limit, "state_bytes": ANYTHING if weakened else limit}
    async with hub_app(tmp_path, **limits) as hub:
        for key in range(60):
            await hub.hub.publish("task:progress", {"id": f"{key}", "message": "x" * 400_000})
        items, size = hub.counted("hub_state_items"), hub.counted("hub_state_bytes")
        assert (items, size > limit) == ((60, True) if weakened else (10, False))
        retention = hub.hub.retention()
        assert (retention["state_items"], retention["state_bytes"]) == (items, size)
        assert (retention["max_state_items"], retention["max_state_bytes"]) == (10_000, limits["state_bytes"])
    assert (size_on_disk(tmp_path) > 3 * limit) == weakened
    async with hub_app(tmp_path, **limits) as hub:
        assert (hub.counted("hub_state_items"), hub.counted("hub_state_bytes")) == (items, size)
        assert [item["key"] for item in hub.hub.snapshot()["items"]] == [str(key) for key in range(60 - items, 60)]


# ---- answers


def register(hub: Hub) -> None:
    """Commands whose answers are too large."""

    @hub.command("a:large", effect="read")
    async def large(call: Call) -> Any:
        return "x" * 2 * LARGEST

    @hub.command("a:details", effect="read")
    async def details(call: Call) -> Any:
        raise CommandError("No.", {f"{number}": ["x" * 1000] for number in range(2000)})

    @hub.command("a:sentence", effect="read")
    async def sentence(call: Call) -> Any:
        raise CommandError("No " * LARGEST)

    async def described(call: Call) -> Any:
        return None

    described.__doc__ = "x" * 500
    for number in range(2500):
        hub.commands.add(f"many:{number}", described, effect="read")


MANY = [f"some:{'x' * 100}{number:03}" for number in range(MAX_PATTERNS)]
ARGS: Mapping[str, Mapping[str, Any]] = {  # those with which an answer is as large as it can be
    "hub:info": {},
    "hub:ping": {"x": "x" * 1_048_300},
    "hub:subscribe": {"topics": MANY[1:]},
    "hub:unsubscribe": {"topics": ["no:such"]},
    "hub:publish": {"event": "a:x", "data": "x" * 1_040_000, "id": "one"},
    "hub:history": {"limit": 1000},
    "hub:state": {},
    "hub:commands": {},
    "hub:clients": {},
    "hub:stats": {},
    "hub:provide": {"commands": [{"name": name} for name in MANY]},
    "hub:ask": {"question": "Deploy?", "options": ["yes"], "default": "yes", "timeout": 1},
    "hub:answer": {"question": "no such", "answer": "yes"},
    "hub:questions": {},
    "hub:seen": {"event": "task:progress", "key": "0"},
    "hub:cancel": {"id": "no such"},
    "audit:tail": {"limit": 1000},
    "audit:verify": {},
    "a:large": {},
    "a:details": {},
    "a:sentence": {},
}
REFUSED = {"hub:ping": "too_large", "hub:commands": "too_large", "a:large": "too_large"} | {
    "a:details": "command_failed",
    "a:sentence": "command_failed",
}
LARGER = {
    "hub:state",
    "hub:history",
    "hub:clients",
    "hub:questions",
    "audit:tail",
    *REFUSED,
}  # than a MiB if nothing ended them


@asynccontextmanager
async def full_hub(path: Path) -> AsyncIterator[HubInside]:
    """A hub of which there is much to be told."""
    async with hub_app(path, prepare=register, max_frame=2 * LARGEST, rate=0) as hub:
        for key in range(30):
            await hub.hub.publish("task:progress", {"id": f"{key}", "message": "ä" * 30_000})
        for _ in range(45):
            client = Client("websocket", "127.0.0.1:1", 1000)
            client.subscriber = Subscriber(lambda data: None, WEBSOCKET)
            client.subscriber.patterns = Patterns(MANY)
            hub.hub.clients.join(client)
        for _ in range(350):
            call = Call(hub.hub, Client("http", "127.0.0.1:1", 1000), "1")
            await hub.hub.commands.call(call, "hub:ping", {"x": "x" * 3500})
        asking = [asyncio.ensure_future(hub.hub.ask("?", ["yes"], details="x" * 60_000)) for _ in range(20)]
        await until(lambda: len(list(hub.hub.questions.records())) == 20)
        yield hub
    for one in asking:
        with pytest.raises(HubError, match="stopping"):
            await one


def too_large(found: Mapping[str, tuple[str, str]]) -> set[str]:
    return {name for name, (_, text) in found.items() if len(text.encode()) > LARGEST}


async def all_answers(hub: HubInside) -> dict[str, tuple[str, str]]:
    """Outcome and text of the answers of all commands, on one WebSocket."""
    assert set(ARGS) == {c.name for c in hub.hub.commands if not c.name.startswith("many:")}
    async with hub.http.ws_connect(f"{hub.url}ws?topics=no:thing", max_msg_size=0) as ws:
        return {name: await called(ws, name, args, ID) for name, args in ARGS.items()}


async def test_no_answer_of_any_command_is_larger_than_every_client_takes(tmp_path: Path) -> None:
    async with full_hub(tmp_path) as hub:
        found = await all_answers(hub)
        assert too_large(found) == set()
        assert {name: outcome for name, (outcome, _) in found.items() if outcome != "ok"} == REFUSED
        assert "2097154 bytes" in found["a:large"][1], "the sentence says how large it would be"
        for name, args in ARGS.items():
            answer = await hub.post(f"api/commands/{name}", args)
            assert len(answer.text.encode()) <= LARGEST, name
            if name not in ("hub:subscribe", "hub:unsubscribe", "hub:provide"):  # which need a stream, or a WebSocket
                assert (answer.json["code"] if answer.status != 200 else "ok") == REFUSED.get(name, "ok")


async def test_no_refusal_is_either(tmp_path: Path) -> None:
    """Whatever was asked."""
    args = {f"{number}{'x' * 200}": number for number in range(4500)}
    async with hub_app(tmp_path, rate=0) as hub:
        for name in (*(command.name for command in hub.hub.commands), "no:such", f"no:{'x' * 7000}"):
            answer = await hub.post(f"api/commands/{name}", args)
            assert len(answer.text.encode()) <= LARGEST, name
        answer = await hub.post("api/events", [{"event": "x" * 900, "data": 1}] * 1000)
        assert answer.status == 422
        assert len(answer.text.encode()) <= LARGEST


async def test_weakened_they_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, name in ((listing, "LARGEST_EVENT"), (builtin, "LARGEST_EVENT")):
        monkeypatch.setattr(room, name, ANYTHING)
    for room in (runner, messages):
        monkeypatch.setattr(room, "LARGEST_RESULT", ANYTHING)
    monkeypatch.setattr(Command, "measure", lambda self, args, weight: None)
    async with full_hub(tmp_path) as hub:
        assert too_large(await all_answers(hub)) == LARGER


async def test_a_last_value_that_has_no_room_pushes_no_other_out(tmp_path: Path) -> None:
    """And its key has none then: the one before it is not true any more."""
    large = {"id": "c", "message": "x" * 60_000}
    async with hub_app(tmp_path, state_bytes=50_000) as hub:
        for key in "abc":
            await hub.hub.publish("task:progress", {"id": key})
        await hub.hub.publish("task:progress", large)
        assert [event.key for event in hub.hub.state.of("task:progress")] == ["a", "b"]
        await hub.hub.publish("task:progress", {"id": "c", "progress": 1})
        await hub.hub.publish("task:progress", {**large, "id": "a"})
    async with hub_app(tmp_path, state_bytes=50_000) as hub:
        assert [event.key for event in hub.hub.state.of("task:progress")] == ["b", "c"]


async def test_of_a_long_key_it_is_said_that_it_stands_there_twice(hub: HubInside) -> None:
    event = {"event": "agent:status_change", "data": {"id": "a" * (LARGEST // 2), "status": "active"}}
    said = (await hub.post("api/events", event)).refused(413, "too_large")
    assert "as a last value, beside its key, as 1" in said["error"]


# ---- what comes in


TEXTS = ",".join(['"{\\"password\\":\\"x\\"}"'] * 40_000)
TOO_LARGE = {
    "hub:ask": f'{{"question":"q","options":["a"],"details":[{TEXTS}]}}',
    "hub:ping": f'{{"texts":[{TEXTS}],"pad":"{"x" * (LARGEST - 40 - len(TEXTS))}"}}',
    "hub:answer": f'{{"question":"q","answer":"{"Bearer abcdefgh1234 " * 50_000}"}}',
}


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("name", TOO_LARGE)
async def test_what_is_too_large_for_its_command_costs_no_more_than_to_be_read(
    name: str, chunked: bool, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever form it came: nothing looks for secrets in it before it is refused."""
    looked: list[Any] = []

    async def look(values: Sequence[Any], apart: Any) -> tuple[list[Any], int]:
        looked.append(values)
        return list(values), 0

    def prepare(hub: Hub) -> None:
        monkeypatch.setattr(registry, "redact_each", look)

    if weakened:
        monkeypatch.setattr(Command, "measure", lambda self, args, weight: None)
        monkeypatch.setattr(Command, "check", lambda self, args: dict(args) | {"timeout": 1.0})

    async def parts() -> AsyncIterator[bytes]:
        yield TOO_LARGE[name].encode()

    async with hub_app(tmp_path, prepare=prepare) as hub:
        body = parts() if chunked else TOO_LARGE[name].encode()
        answer = await hub.ask("POST", f"api/commands/{name}", data=body, headers=JSON)
    assert bool(looked) is weakened
    assert weakened or answer.status == (422 if name == "hub:answer" else 413)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_in_chunks_weighs_what_any_other_does(
    chunked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []
    monkeypatch.setattr(Command, "measure", lambda self, args, weight: weighed.append(weight))
    text = b"{}".ljust(70_000)

    async def parts() -> AsyncIterator[bytes]:
        yield text[:100]
        yield text[100:]

    async with hub_app(tmp_path) as hub:
        await hub.ask("POST", "api/commands/hub:ping", data=parts() if chunked else text, headers=JSON)
    assert weighed == [len(text)]


async def test_what_is_written_at_length_is_not_larger_for_it(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        escaped = "\\u0061" * 20_000
        asking = f'{{"question":"q","options":["a"],"default":"a","timeout":1,"details":"{escaped}"}}'
        answer = await hub.post("api/commands/hub:ask", asking.ljust(200_000).encode())
        assert (answer.status, answer.json["timed_out"]) == (200, True)
