"""The newcomer's way through the whole hub, over real sockets: publish, see, ask, measure, look it up, mount, stop."""

import asyncio
import contextlib
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from marshmallow import Schema, fields
from running import JSON, HubProcess, Sent, Talk, hub_process, run_hub, seq, stream, talk, until

from hub import Hub, create_app
from hub.commands.call import Call
from hub.stream.events import Event

CURL = {"content-type": "application/json"}
PROGRESS = '{"event":"task:progress","data":{"id":"build","progress":40}}'

ORDERS = '''
import asyncio

def setup(hub):
    @hub.command("orders:wait")
    async def wait(call):
        """Wait for the door."""
        await hub.publish("orders:waiting", call.args)
        await asyncio.sleep(call.args["seconds"])
        return "done"
'''


async def get(hub: HubProcess, path: str) -> Any:
    async with hub.http.get(hub.url + path) as response:
        assert response.status == 200, await response.text()
        return await (response.json() if response.content_type == "application/json" else response.text())


async def post(hub: HubProcess, path: str, body: str) -> Any:
    async with hub.http.post(hub.url + path, data=body, headers=CURL) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def envelope(sent: Sent) -> Any:
    return sent.json


async def test_what_is_published_is_seen_everywhere(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, talk(hub.url) as socket, stream(hub.url) as page:
        published = await post(hub, "api/events", PROGRESS)

        event = await socket.event()
        assert event["payload"] == {"event": "task:progress", "data": {"id": "build", "progress": 40}}
        assert event["cursor"] == published["cursor"]
        assert [event["id"]] == published["ids"]

        sent = await page.event()
        assert (sent.id, sent.event, envelope(sent)) == (published["cursor"], "task:progress", event)

        assert 'hub_events_total{event="task:progress"} 1.0' in await get(hub, "metrics")
        assert 'hub_clients{transport="sse"} 1.0' in await get(hub, "metrics")

        state = await get(hub, "api/state")
        assert state["cursor"] == published["cursor"]
        assert [(i["event"], i["key"], i["data"]["progress"]) for i in state["items"]] == [
            ("task:progress", "build", 40)
        ]
        assert (await get(hub, "api/events"))["events"] == [event]
        assert "build" in await get(hub, "")

        status, out, err = await run_hub(tmp_path, "publish", "task:progress", '{"id":"build"}', "--url", hub.url)
        assert (status, err) == (0, "")
        assert (await socket.event())["cursor"] == out.strip()


async def test_a_command_is_answered_recorded_and_the_record_is_sealed(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        async with talk(hub.url) as socket:
            assert (await socket.call("hub:ping", "mine", apiKey="hidden", n=1))["pong"] is True
        assert (await post(hub, "api/commands/hub:ping", '{"n":2}'))["args"] == {"n": 2}

        records = [r for r in await get(hub, "api/audit?limit=100") if r["details"].get("command") == "hub:ping"]
        assert [r["action"] for r in records] == ["command.called", "command.finished"] * 2
        assert records[0]["details"] == {"id": "mine", "command": "hub:ping", "args": {"n": 1}}
        assert records[1]["details"]["outcome"] == "ok"
        assert records[0]["trust"] == "OPERATOR"
        assert (await post(hub, "api/commands/audit:verify", "{}"))["valid"] is True

        status, out, _ = await run_hub(tmp_path, "audit", "verify", "--state-dir", str(hub.state_dir))
        assert (status, out.split(":")[0]) == (0, "intact")

    log = hub.state_dir / "audit.jsonl"
    whole = log.read_bytes()
    assert "hidden" not in whole.decode()
    assert (await run_hub(tmp_path, "audit", "verify", str(log)))[0] == 0
    for place in (0, whole.index(b"hub:ping"), whole.index(b"127.0.0.1"), len(whole) // 2, len(whole) - 5):
        log.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        status, out, _ = await run_hub(tmp_path, "audit", "verify", str(log))
        assert status == 1, f"one byte changed at {place}, and it says {out}"
    log.write_bytes(whole)
    assert (await run_hub(tmp_path, "audit", "verify", str(log)))[0] == 0


# ---- mounted, as in ARCHITECTURE


class OrderCancelled(Schema):
    order = fields.Integer(strict=True, required=True)


async def test_it_can_be_mounted_in_another_application(tmp_path: Path) -> None:
    hub, heard = Hub(state_dir=tmp_path), []
    hub.event_type("orders:cancelled", OrderCancelled, key="order")

    @hub.command("orders:cancel", {"order": fields.Integer(strict=True, required=True)}, effect="write")
    async def cancel_order(call: Call) -> Any:
        """Cancel one order."""
        await call.hub.publish("orders:cancelled", {"order": call.args["order"]})
        return {"cancelled": call.args["order"]}

    @hub.on("orders:*")
    async def listener(event: Event) -> None:
        heard.append((event.name, event.data))

    async def front(request: web.Request) -> web.Response:
        return web.Response(text="the application's own page")

    app = web.Application()
    app.router.add_get("/", front)
    app.add_subapp("/hub/", create_app(hub))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}/hub/"
        async with ClientSession() as http, talk(url) as socket, stream(url, "?topics=orders:*") as page:
            assert await socket.call("orders:cancel", order=7) == {"cancelled": 7}
            event = await socket.event()
            assert event["payload"] == {"event": "orders:cancelled", "data": {"order": 7}}
            assert (await page.event()).json == event
            await until(lambda: heard)
            assert heard == [("orders:cancelled", {"order": 7})]
            await socket.fails("orders:cancel", "invalid_args", order="7")

            async with http.post(url + "api/commands/orders:cancel", json={"order": 8}) as response:
                assert await response.json() == {"cancelled": 8}
            wrong = {"event": "orders:cancelled", "data": {"order": "x"}}
            async with http.post(url + "api/events", json=wrong) as response:
                assert response.status == 422
            async with http.get(url + "api/state") as response:
                assert [item["key"] for item in (await response.json())["items"]] == ["7", "8"]
            async with http.get(url.removesuffix("/")) as response:  # is sent on to the page
                assert (response.status, str(response.url)) == (200, url)
            async with http.get(url.removesuffix("/") + "x") as response:
                assert response.status == 404
            async with http.get(url) as response:
                text = await response.text()
                assert response.status == 200
                assert 'src="/' not in text
                assert 'href="/' not in text
            async with http.get(f"http://{host}:{port}/") as response:
                assert await response.text() == "the application's own page"
            described = {row["name"]: row for row in await socket.call("hub:commands")}["orders:cancel"]
            assert (described["summary"], described["effect"]) == ("Cancel one order.", "write")
            ending = asyncio.create_task(socket.end())
            await runner.cleanup()
            assert await ending == 1001
    finally:
        await runner.cleanup()


async def test_two_hubs_in_one_process_never_meet(tmp_path: Path) -> None:
    one, two = Hub(state_dir=tmp_path / "1"), Hub(state_dir=tmp_path / "2")
    app = web.Application()
    app.add_subapp("/1/", create_app(one))
    app.add_subapp("/2/", create_app(two))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with talk(f"{base}/1/") as first, talk(f"{base}/2/") as second:
            await one.publish("a:one", 1)
            await two.publish("a:two", 2)
            assert await first.name() == "a:one"
            assert await second.name() == "a:two"
            assert one.cursor.epoch != two.cursor.epoch
    finally:
        await runner.cleanup()


# ---- the end


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module for --load."""
    (tmp_path / "orders.py").write_text(ORDERS)
    return "orders"


async def waiting(client: Talk, seconds: float) -> str:
    id = await client.begin("orders:wait", seconds=seconds)
    assert await client.name() == "orders:waiting"
    return id


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_answers_what_runs_and_says_goodbye(tmp_path: Path, orders: str, number: int) -> None:
    async with (
        hub_process(tmp_path, "--load", orders) as hub,
        talk(hub.url) as client,
        talk(hub.url) as idle,
        stream(hub.url) as page,
    ):
        id = await waiting(client, 0.5)
        hub.signal(number)
        one, other, _ = await asyncio.gather(client.end(), idle.end(), page.end())
        assert one == other == 1001
        assert client.answers[id]["payload"] == "done"
        assert await hub.ended() == 0
        assert "Traceback" not in hub.log
        assert not (hub.state_dir / "server.json").exists()
    assert (await run_hub(tmp_path, "audit", "verify", str(hub.state_dir)))[0] == 0
    last = json.loads((hub.state_dir / "audit.jsonl").read_text().splitlines()[-1])
    assert last["action"] == "hub.stopped"


async def test_calls_that_come_while_it_stops_are_refused(tmp_path: Path, orders: str) -> None:
    async with hub_process(tmp_path, "--load", orders, "--rate", "0") as hub, talk(hub.url) as client:
        id = await waiting(client, 0.5)
        hub.signal()
        asked: list[str] = []
        with contextlib.suppress(ConnectionError):
            while id not in client.answers:  # some come before the signal, and the last ones behind it
                asked.append(await client.begin("hub:ping", f"ping-{len(asked)}"))
                while asked[-1] not in client.answers and (frame := await client.frame()) is not None:
                    client.answers[frame["id"]] = frame
        assert await client.end() == 1001
        assert client.answers[id]["payload"] == "done"
        refused = [answer["payload"] for answer in client.answers.values() if answer["type"] == "error"]
        assert refused, "calls in the time of grace got no answer at all"
        assert {error["code"] for error in refused} == {"shutting_down"}
        assert await hub.ended() == 0


async def test_the_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--log-format", "json") as hub:
        pass
    lines = [json.loads(line) for line in hub.log.splitlines()]
    assert "stopping" in [line["message"] for line in lines]
    assert all({"timestamp", "level", "message"} <= line.keys() for line in lines)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path, orders: str) -> None:
    status = 128 + signal.SIGTERM
    async with hub_process(tmp_path, "--load", orders, status=status) as hub, talk(hub.url) as client:
        await waiting(client, 60)
        hub.signal()
        await until(lambda: "stopping" in hub.log, "that it says so")
        hub.signal()
        assert await hub.ended() == status


async def test_a_second_hub_has_to_leave_the_state_directory_alone(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        before = (hub.state_dir / "server.json").read_bytes()
        status, out, err = await run_hub(tmp_path, "--port", "0", "--state-dir", str(hub.state_dir))
        assert (status, out) == (2, "")
        assert len(err.strip().splitlines()) == 1, err
        assert hub.url in err
        assert (hub.state_dir / "server.json").read_bytes() == before
        assert (await get(hub, "healthz"))["status"] == "ok"


async def test_it_starts_again_after_kill_9_with_everything_that_was_answered(tmp_path: Path) -> None:
    async with hub_process(tmp_path, status=-signal.SIGKILL) as hub, talk(hub.url) as client:
        for n in range(5):
            await client.call("hub:ping", f"call-{n}")
        hub.signal(signal.SIGKILL)
    async with hub_process(tmp_path) as hub, talk(hub.url, "?after=gone:5") as client:
        assert (await client.event())["payload"]["data"]["reason"] == "epoch"
        records = await get(hub, "api/audit?limit=100")
        finished = [r["details"]["id"] for r in records if r["action"] == "command.finished"]
        assert finished == [f"call-{n}" for n in range(5)]
        assert (await post(hub, "api/commands/audit:verify", "{}"))["valid"] is True


async def test_a_client_that_reconnects_misses_nothing(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        async with talk(hub.url) as client:
            await post(hub, "api/events", PROGRESS)
            last = (await client.event())["cursor"]
        for _ in range(3):
            async with hub.http.post(hub.url + "api/events", data=PROGRESS, headers=JSON) as response:
                assert response.status == 200
        async with talk(hub.url, f"?after={last}") as client:
            assert [seq(await client.event()) for _ in range(3)] == [2, 3, 4]


@pytest.mark.parametrize("stands", ["state", "state/lock", "state/server.tmp"])
async def test_a_state_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path, stands: str) -> None:
    place = tmp_path / stands
    if stands == "state":
        place.touch()
    else:
        place.parent.mkdir(mode=0o700)
        place.mkdir()
    status, out, err = await run_hub(tmp_path, "--port", "0", "--state-dir", str(tmp_path / "state"))
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"hub: [^\n]+{re.escape(str(place))}[^\n]*\.\n", err)
