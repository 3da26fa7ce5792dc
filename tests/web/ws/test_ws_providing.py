"""Commands that clients serve, over real sockets: in whatever way a provider goes, and one that does not read."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from running import HubInside, Raw, Talk, hub_app, refused, talk, until

TEXT, CLOSE = 0x1, 0x8


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, call_timeout=10.0, stop_timeout=0.1) as running:
        yield running


@pytest.fixture
async def caller(hub: HubInside) -> AsyncIterator[Talk]:
    async with talk(hub.url, "?topics=no:thing") as client:
        yield client


async def provide(worker: Raw, *names: str) -> None:
    await worker.upgrade("?topics=no:thing")
    args = {"commands": [{"name": name} for name in names]}
    frame = {"type": "command", "id": "p", "payload": {"command": "hub:provide", "args": args}}
    await worker.send(TEXT, json.dumps(frame).encode())
    answer = await worker.frame()
    assert answer
    assert json.loads(answer[1])["type"] == "response"


async def asked(worker: Raw) -> None:
    frame = await worker.frame()
    assert frame
    assert json.loads(frame[1])["payload"]["command"] == "a:b"


async def close(worker: Raw) -> None:
    await worker.send(CLOSE, struct.pack("!H", 1000))


async def reset(worker: Raw) -> None:
    worker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    worker.socket.close()


async def hang_up(worker: Raw) -> None:
    worker.socket.shutdown(socket.SHUT_WR)


async def violate(worker: Raw) -> None:
    await worker.send(0x3, b"")


async def send_too_much(worker: Raw) -> None:
    await worker.send(TEXT, b"x" * 70_000)


@pytest.mark.parametrize("end", [close, reset, hang_up, violate, send_too_much])
async def test_in_whatever_way_it_goes_its_callers_hear_of_it(
    hub: HubInside, caller: Talk, end: Callable[[Raw], Awaitable[None]]
) -> None:
    async with Raw(hub.port) as worker:
        await provide(worker, "a:b")
        id = await caller.begin("a:b")
        posted = asyncio.create_task(hub.post("api/commands/a:b", {}))
        await asked(worker)
        await asked(worker)
        await end(worker)
        refused((await caller.answer(id))["payload"], "provider_gone")
        (await posted).refused(503, "provider_gone")
        await caller.fails("a:b", "unknown_command")
        assert hub.counted("hub_providers") == 0


async def test_one_that_is_silent_goes_with_its_heartbeat(tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path, heartbeat=0.2) as hub,
        talk(hub.url, "?topics=no:thing") as caller,
        Raw(hub.port) as worker,
    ):
        await provide(worker, "a:b")
        refused((await caller.answer(await caller.begin("a:b")))["payload"], "provider_gone")
        assert hub.counted("hub_disconnections_total", "heartbeat") == 1


async def test_when_the_hub_stops_everybody_is_answered(tmp_path: Path) -> None:
    async with hub_app(tmp_path, stop_timeout=0.1) as hub, Raw(hub.port) as worker:
        async with talk(hub.url, "?topics=no:thing") as caller:
            await provide(worker, "a:b")
            id = await caller.begin("a:b")
            await asked(worker)
            stopping = asyncio.create_task(hub.runner.cleanup())
            refused((await caller.answer(id))["payload"], "shutting_down")
            assert await caller.end() == 1001
        frame = await worker.frame()
        assert frame
        assert json.loads(frame[1])["payload"]["command"] == "hub:cancel"
        assert await worker.close_code() == 1001
        await stopping


async def test_http_gets_its_answers_like_everybody(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=no:thing") as worker:
        await worker.call("hub:provide", commands=[{"name": "a:b", "args": {"required": ["x"]}}])
        (await hub.post("api/commands/a:b", {})).refused(422, "invalid_args")
        posted = asyncio.create_task(hub.post("api/commands/a:b", {"x": 1}))
        frame = await worker.frame()
        assert frame
        assert frame["payload"] == {"command": "a:b", "args": {"x": 1}}
        await worker.send({"type": "response", "id": frame["id"], "payload": [1]})
        assert (await posted).json == [1]
        body = {"commands": [{"name": "a:c"}]}
        error = (await hub.post("api/commands/hub:provide", body)).refused(500, "command_failed")
        assert "Only a client on /ws" in error["error"]
        await worker.send({"type": "response", "id": "call-9", "payload": 1})
        refused((await worker.answer("call-9"))["payload"], "unexpected_type")


async def test_args_that_no_frame_can_hold_are_refused(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=no:thing") as worker:
        await worker.call("hub:provide", commands=[{"name": "a:b"}])
        large = json.dumps({"x": "x" * 1_048_300}).encode()
        (await hub.post("api/commands/a:b", large)).refused(413, "too_large")
        assert await worker.call("hub:ping")


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_that_does_not_read_fills_no_memory(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.commands.clients.Client.room", lambda client: asyncio.sleep(0))
        monkeypatch.setattr("hub.commands.providers.HELD", 10**9)
    args = json.dumps({"x": "x" * 400_000}).encode()
    async with Raw(hub.port, 4096) as worker:
        await provide(worker, "a:b")
        (client,) = [client for client in hub.hub.clients if hub.hub.providers.names(client)]
        at_work = hub.hub.providers._providers[client].asked
        posts = [asyncio.create_task(hub.post("api/commands/a:b", args)) for _ in range(30)]
        await until(lambda: sum(post.done() for post in posts) + len(at_work) == 30)
        busy = [post for post in posts if post.done()]
        assert bool(busy) is not weakened
        for post in busy:
            (await post).refused(429, "busy")
        assert sum(len(call.args["x"]) for call in at_work) > 4 * 1024 * 1024 or not weakened
        await reset(worker)
        for post in posts:
            if post not in busy:
                (await post).refused(503, "provider_gone")
