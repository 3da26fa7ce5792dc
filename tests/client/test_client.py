"""HubClient against a hub that does what the test says, over real sockets; and the parts that need none."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from hub.client import client as client_room
from hub.client import connections
from hub.client.client import HubClient
from hub.client.connections import Backoff
from hub.client.discovery import Disconnected, NoHub
from hub.client.items import Arrival, Gap, Received, arrival
from hub.errors import HubError

TIME = "2026-01-02T03:04:05.678Z"


def event(seq: int, data: Any = None, name: str = "a:b") -> dict[str, Any]:
    payload = {"event": name, "data": data}
    return {"type": "event", "id": f"id{seq}", "timestamp": TIME, "cursor": f"e:{seq}", "payload": payload}


def notice(name: str, **data: Any) -> dict[str, Any]:
    return {"type": "event", "id": "n", "timestamp": TIME, "payload": {"event": name, "data": data}}


def error_object(code: str, **more: Any) -> dict[str, Any]:
    return {"error": "The hub says no.", "code": code, "retryable": False, **more}


class Peer:
    """The hub's end of one WebSocket."""

    def __init__(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        self.query, self.headers = dict(request.query), request.headers
        self._request, self._websocket, self.over = request, websocket, asyncio.Event()

    async def send(self, *frames: Any) -> None:
        for frame in frames:
            await self._websocket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def command(self) -> tuple[str, str, Any]:
        """The next command of the client: id, name, args."""
        frame = await self._websocket.receive_json()
        assert frame["type"] == "command"
        return frame["id"], frame["payload"]["command"], frame["payload"]["args"]

    async def respond(self, id: str, result: Any) -> None:
        await self.send({"type": "response", "id": id, "timestamp": TIME, "payload": result})

    async def ping(self) -> Any:
        """What the client answers a ping with."""
        await self._websocket.ping(b"there?")
        return await self._websocket.receive()

    async def close(self, code: int, reason: bytes = b"") -> None:
        await self._websocket.close(code=code, message=reason)
        self.over.set()

    def cut(self) -> None:
        """The connection is gone without a word."""
        assert self._request.transport is not None
        self._request.transport.abort()
        self.over.set()


class ScriptedHub:
    """Accepts what the client opens and leaves the rest to the test."""

    def __init__(self) -> None:
        self.page: tuple[int, Any] = 200, {"events": [], "cursor": "e:0", "complete": True, "more": False}
        self.asked: list[dict[str, str]] = []
        self.handshakes: list[int] = []  # HTTP statuses that the next handshakes get
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/events", self._history)
        app.router.add_get("/ws", self._websocket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        for peer in self._all:
            peer.over.set()
        await self._runner.cleanup()

    async def peer(self) -> Peer:
        """The next connection that the client opens."""
        return await self.peers.get()

    async def _history(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        status, body = self.page
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self.handshakes and (status := self.handshakes.pop(0)) != 101:
            return web.Response(status=status)
        websocket = web.WebSocketResponse(autoping=False)
        await websocket.prepare(request)
        peer = Peer(request, websocket)
        self._all.append(peer)
        self.peers.put_nowait(peer)
        await peer.over.wait()
        return websocket


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedHub]:
    hub = ScriptedHub()
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(connections, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(client_room, "CLOSE_TIMEOUT", 0.01)


def meaning(frame: Any) -> Received | Gap | None:
    """What the iterator is to make of a frame."""
    found = arrival(frame)
    assert found is not None
    return found[1]


async def take(client: HubClient, count: int) -> list[Any]:
    """What the iterator gives next: the cursor of an event, or the Gap."""
    items = [await anext(client) for _ in range(count)]
    return [item if isinstance(item, Gap) else item.cursor for item in items]


def following(client: HubClient) -> "asyncio.Task[Received | Gap]":
    """Somebody who waits for the next event: that opens the stream."""

    async def first() -> Received | Gap:
        return await anext(client)

    return asyncio.create_task(first())


# ---- coming back


def test_waits_are_drawn_below_a_ceiling_that_doubles_to_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.25

    monkeypatch.setattr(random, "uniform", uniform)
    backoff = Backoff()
    assert {backoff.next() for _ in range(9)} == {0.25}
    assert drawn == [(0, high) for high in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)]
    backoff.reset()
    backoff.next()
    assert drawn[9:] == [(0, 0.5)]


async def test_after_a_cut_it_goes_on_behind_what_it_had(hub: ScriptedHub) -> None:
    async with HubClient(hub.url, topics=["a:*", "c:*"]) as client:
        waiting = following(client)
        first = await hub.peer()
        assert first.query == {"topics": "a:*,c:*", "after": "e:0"}
        await first.send(event(1), event(2))
        assert await waiting == meaning(event(1))
        assert await take(client, 1) == ["e:2"]
        first.cut()
        waiting = following(client)
        second = await hub.peer()
        assert second.query == {"topics": "a:*,c:*", "after": "e:2"}
        await second.send(event(3))
        assert isinstance(item := await waiting, Received)
        assert (item.cursor, client.cursor) == ("e:3", "e:3")


async def test_what_was_read_and_not_taken_is_neither_lost_nor_asked_for_again(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        first = await hub.peer()
        await first.send(event(1), event(2), event(3))
        await waiting
        await first.close(1001)
        second = await hub.peer()
        assert client.cursor == "e:1"
        assert second.query["after"] == "e:3"
        await second.send(event(4))
        assert await take(client, 3) == ["e:2", "e:3", "e:4"]


async def test_the_stream_begins_where_the_hub_was_when_the_client_was_entered(hub: ScriptedHub) -> None:
    hub.page = 200, {"events": [], "cursor": "e:41", "complete": True, "more": False}
    async with HubClient(hub.url) as client:
        assert client.cursor == "e:41"
        waiting = following(client)
        first = await hub.peer()
        assert first.query["after"] == "e:41"
        first.cut()
        assert (await hub.peer()).query["after"] == "e:41"
        waiting.cancel()


async def test_a_given_cursor_is_checked_and_kept(hub: ScriptedHub) -> None:
    async with HubClient(hub.url, after="e:7") as client:
        assert hub.asked == [{"limit": "1", "after": "e:7"}]
        assert client.cursor == "e:7"


async def test_marks_and_gaps_move_the_point_it_comes_back_to(hub: ScriptedHub) -> None:
    gap = notice("hub:gap", after="e:9", before="e:21", count=11, reason="expired")
    async with HubClient(hub.url) as client:
        waiting = following(client)
        await (peer := await hub.peer()).send(notice("hub:mark", cursor="e:9"))
        peer.cut()
        peer = await hub.peer()
        assert peer.query["after"] == "e:9"
        await peer.send(gap)
        assert isinstance(item := await waiting, Gap)
        assert (item.after, item.before, item.count, item.reason) == ("e:9", "e:21", 11, "expired")
        assert client.cursor == "e:20"
        peer.cut()
        assert (await hub.peer()).query["after"] == "e:20"


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000])
async def test_it_comes_back_after_a_close_that_may_pass(hub: ScriptedHub, code: int) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        await (await hub.peer()).close(code)
        await (await hub.peer()).send(event(1))
        assert (await waiting) == meaning(event(1))


@pytest.mark.parametrize(("code", "problem"), [(1008, "forbidden"), (1009, "too_large"), (1003, "invalid_message")])
async def test_it_stays_away_after_a_close_that_will_not_pass(hub: ScriptedHub, code: int, problem: str) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        peer = await hub.peer()
        await peer.send(event(1), event(2))
        await waiting
        await peer.close(code, b"Only local connections allowed")
        assert await take(client, 1) == ["e:2"]
        for _ in range(2):
            with pytest.raises(HubError, match=f"{code}.*Only local connections allowed") as caught:
                await anext(client)
            assert caught.value.code == problem
        assert hub.peers.empty()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_it_comes_back_when_the_handshake_says_later(hub: ScriptedHub, status: int) -> None:
    async with HubClient(hub.url) as client:
        hub.handshakes = [status, status, 101]
        waiting = following(client)
        await (await hub.peer()).send(event(1))
        assert await waiting == meaning(event(1))


@pytest.mark.parametrize(
    ("status", "code"), [(400, "unknown_cursor"), (401, "forbidden"), (403, "forbidden"), (421, "forbidden")]
)
async def test_it_stays_away_when_the_handshake_says_no(hub: ScriptedHub, status: int, code: str) -> None:
    async with HubClient(hub.url) as client:
        hub.handshakes = [status]
        with pytest.raises(HubError, match=f"HTTP status {status}") as caught:
            await anext(client)
        assert (caught.value.code, caught.value.status) == (code, status)
        hub.handshakes = [status]
        with pytest.raises(HubError, match=f"HTTP status {status}"):
            await client.call("a:b")


def announce(folder: Path, text: str) -> Path:
    (folder / "server.json").write_text(text)
    return folder


async def test_it_follows_the_hub_to_a_new_address(hub: ScriptedHub, tmp_path: Path) -> None:
    moved = ScriptedHub()
    await moved.start()
    announce(tmp_path, json.dumps({"url": hub.url + "/", "pid": os.getpid()}))
    async with HubClient(state_dir=tmp_path) as client:
        waiting = following(client)
        peer = await hub.peer()
        announce(tmp_path, json.dumps({"url": moved.url + "/", "pid": os.getpid()}))
        peer.cut()
        await (await moved.peer()).send(event(1))
        assert await waiting == meaning(event(1))
    await moved.stop()


@pytest.mark.parametrize("text", ["hello", "[]", "{}", '{"type":"event","payload":{}}', "1"])
async def test_what_does_not_speak_as_a_hub_ends_the_stream(hub: ScriptedHub, text: str) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        await (await hub.peer()).send(text)
        with pytest.raises(HubError, match="does not speak as a hub") as caught:
            await waiting
        assert caught.value.code == "internal"


# ---- entering


def test_an_address_that_is_not_http_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="http://"):
        HubClient("127.0.0.1:3141")


async def test_entering_where_nothing_listens_says_so(hub: ScriptedHub) -> None:
    await hub.stop()
    with pytest.raises(NoHub, match=f"No hub answers at {hub.url} "):
        async with HubClient(hub.url):
            raise AssertionError("entered")
    await hub.start()


async def test_entering_tells_why_the_hub_refuses(hub: ScriptedHub) -> None:
    hub.page = 403, error_object("forbidden")
    with pytest.raises(HubError, match="The hub says no") as caught:
        async with HubClient(hub.url):
            raise AssertionError("entered")
    assert caught.value.code == "forbidden"


async def test_a_pattern_that_is_none_is_told_by_name(hub: ScriptedHub) -> None:
    with pytest.raises(HubError, match="'agent'") as caught:
        async with HubClient(hub.url, topics=["task:*", "agent"]):
            raise AssertionError("entered")
    assert (caught.value.code, hub.asked) == ("invalid_args", [])


async def test_it_cannot_be_used_outside_of_its_context(hub: ScriptedHub) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await HubClient(hub.url).call("a:b")


# ---- the connection itself


async def test_a_ping_is_answered_and_nothing_is_compressed(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        peer = await hub.peer()
        assert "Sec-WebSocket-Extensions" not in peer.headers
        message = await peer.ping()
        assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"there?")
        waiting.cancel()


async def test_a_cancelled_wait_takes_no_event(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        peer = await hub.peer()
        waiting.cancel()
        await asyncio.wait([waiting])
        await peer.send(event(1), event(2))
        assert await take(client, 2) == ["e:1", "e:2"]


async def test_leaving_ends_a_loop_in_another_task(hub: ScriptedHub) -> None:
    seen, first = [], asyncio.Event()
    async with HubClient(hub.url) as client:

        async def follow() -> None:
            async for item in client:
                seen.append(item.envelope)
                first.set()

        waiting = asyncio.create_task(follow())
        await (await hub.peer()).send(event(1))
        await first.wait()
    await waiting
    assert seen == [event(1)]


FRAMES, SIZE = 500, 60_000  # 30 MB: far more than all the buffers on the way


async def flood(peer: Peer) -> None:
    data = "x" * SIZE
    for seq in range(1, FRAMES + 1):
        await peer.send(event(seq, data))


class Watched(connections.ReadAhead):
    """Tells when it is full, and how much it has ever held."""

    full: asyncio.Event
    most = 0

    async def put(self, item: Arrival, size: int) -> None:
        if self._size >= connections.READ_AHEAD:
            self.full.set()
        await super().put(item, size)
        Watched.most = max(Watched.most, self._size)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    Watched.full, Watched.most = asyncio.Event(), 0
    monkeypatch.setattr(connections, "ReadAhead", Watched)
    return Watched


async def test_an_iterator_that_stands_still_holds_back_the_hub_but_no_answer(
    hub: ScriptedHub, watched: type[Watched]
) -> None:
    async with HubClient(hub.url) as client:
        waiting = following(client)
        peer = await hub.peer()
        flooding = asyncio.create_task(flood(peer))
        await waiting
        await watched.full.wait()
        calling = asyncio.create_task(client.call("a:b"))
        caller = await hub.peer()
        await caller.respond((await caller.command())[0], "still here")
        assert await calling == "still here"
        assert await take(client, FRAMES - 1) == [f"e:{seq}" for seq in range(2, FRAMES + 1)]
        await flooding
    assert watched.most < connections.READ_AHEAD + 2 * SIZE


async def test_weakened_without_the_bound_all_of_it_is_read_ahead(
    hub: ScriptedHub, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_AHEAD", 10**9)
    async with HubClient(hub.url) as client:
        waiting = following(client)
        peer = await hub.peer()
        await flood(peer)
        await peer.close(1001)
        await hub.peer()  # it has read to the end and is back, though only one event was taken
        await waiting
    assert watched.most > (FRAMES - 2) * SIZE


# ---- calls


async def opened(client: HubClient, hub: ScriptedHub, *commands: str) -> tuple[Peer, list["asyncio.Task[Any]"]]:
    """Calls under way, and the hub's end of their connection."""
    calls = [asyncio.create_task(client.call(command, {"n": n})) for n, command in enumerate(commands)]
    return await hub.peer(), calls


async def test_answers_find_their_call_in_any_order(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (first, second) = await opened(client, hub, "a:one", "a:two")
        assert peer.query == {"topics": "hub:none"}
        one, two = await peer.command(), await peer.command()
        assert (one[1:], two[1:]) == (("a:one", {"n": 0}), ("a:two", {"n": 1}))
        await peer.send(notice("hub:mark", cursor="e:9"))
        await peer.respond("never asked", 0)
        await peer.respond(two[0], [2])
        await peer.respond(one[0], None)
        assert (await first, await second) == (None, [2])
        assert hub.peers.empty()


async def test_a_refused_call_raises_what_the_wire_said(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (call,) = await opened(client, hub, "a:b")
        payload = error_object("invalid_args", details={"n": ["Not text."]}, retry_after=1.5)
        await peer.send({"type": "error", "id": (await peer.command())[0], "timestamp": TIME, "payload": payload})
        with pytest.raises(HubError, match="The hub says no") as caught:
            await call
        assert caught.value.payload() == payload


async def test_args_that_are_not_json_are_refused_here(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        with pytest.raises(HubError, match="not JSON") as caught:
            await client.call("a:b", {"n": float("nan")})
        assert (caught.value.code, hub.peers.empty()) == ("invalid_message", True)


@pytest.mark.parametrize("how", ["cut", "close"])
async def test_calls_that_run_when_the_connection_breaks_fail_and_are_not_run_again(hub: ScriptedHub, how: str) -> None:
    async with HubClient(hub.url) as client:
        peer, calls = await opened(client, hub, "a:one", "a:two")
        await peer.command()
        if how == "cut":
            peer.cut()
        else:
            await peer.close(1001, b"The hub is stopping")
        for call, name in zip(calls, ["a:one", "a:two"], strict=True):
            with pytest.raises(Disconnected, match=f"call of {name} was running") as caught:
                await call
            assert isinstance(caught.value, HubError)
            assert (caught.value.code, caught.value.retryable) == ("shutting_down", True)
        peer, (call,) = await opened(client, hub, "a:three")
        assert (await peer.command())[1] == "a:three"  # over a new connection, and before nothing old
        call.cancel()


async def test_a_call_is_told_when_the_hub_will_not_have_it(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (call,) = await opened(client, hub, "a:b")
        await peer.close(1009, b"frame too large")
        with pytest.raises(HubError, match="1009") as caught:
            await call
        assert caught.value.code == "too_large"
        assert not isinstance(caught.value, ConnectionError)


async def test_a_call_waits_for_a_hub_that_is_away(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        hub.handshakes = [503, 503, 101]
        peer, (call,) = await opened(client, hub, "a:b")
        await peer.respond((await peer.command())[0], 1)
        assert await call == 1


async def test_a_call_waits_no_longer_than_its_patience(hub: ScriptedHub) -> None:
    async with HubClient(hub.url, patience=0) as client:
        hub.handshakes = [503]
        with pytest.raises(NoHub, match="HTTP status 503"):
            await client.call("a:b")


async def test_a_cancelled_call_is_cancelled_in_the_hub(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (call,) = await opened(client, hub, "a:b")
        id, _, _ = await peer.command()
        call.cancel()
        assert (await peer.command())[1:] == ("hub:cancel", {"id": id})


async def test_leaving_fails_what_still_runs(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (call,) = await opened(client, hub, "a:b")
        await peer.command()
    with pytest.raises(Disconnected, match=r"The client was closed\."):
        await call


async def test_a_foreign_answer_fails_the_calls(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        peer, (call,) = await opened(client, hub, "a:b")
        await peer.command()
        await peer.send("[1]")
        with pytest.raises(HubError, match="does not speak as a hub"):
            await call


# ---- publishing


async def test_publish_returns_the_events_id_and_cursor(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        publishing = asyncio.create_task(client.publish("a:b", {"n": 1}, id="mine", ttl=5))
        peer = await hub.peer()
        id, command, args = await peer.command()
        assert (command, args) == ("hub:publish", {"event": "a:b", "data": {"n": 1}, "id": "mine", "ttl": 5})
        await peer.respond(id, {"id": "mine", "cursor": "e:1"})
        assert await publishing == {"id": "mine", "cursor": "e:1"}


async def test_a_publish_cut_off_is_tried_again_with_the_same_id(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        publishing = asyncio.create_task(client.publish("a:b"))
        peer = await hub.peer()
        _, _, first = await peer.command()
        peer.cut()
        peer = await hub.peer()
        id, _, second = await peer.command()
        assert first == second
        assert first["id"]
        await peer.respond(id, {"id": first["id"], "cursor": "e:1"})
        assert (await publishing)["cursor"] == "e:1"


async def test_a_refused_publish_is_not_tried_again(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        publishing = asyncio.create_task(client.publish("hub:mine"))
        peer = await hub.peer()
        id, _, _ = await peer.command()
        await peer.send({"type": "error", "id": id, "timestamp": TIME, "payload": error_object("reserved_event")})
        with pytest.raises(HubError) as caught:
            await publishing
        assert caught.value.code == "reserved_event"
        assert hub.peers.empty()


async def test_a_publish_gives_up_when_the_connection_breaks_every_time(hub: ScriptedHub) -> None:
    async with HubClient(hub.url) as client:
        publishing = asyncio.create_task(client.publish("a:b"))
        for _ in range(client_room.PUBLISH_TRIES):
            peer = await hub.peer()
            await peer.command()
            peer.cut()
        with pytest.raises(Disconnected):
            await publishing
        assert hub.peers.empty()
