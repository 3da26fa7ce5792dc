"""The stream of a HubClient, against a hub that does what the test says; and the parts that need no socket."""

import asyncio
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType
from scripted import Peer, ScriptedHub, error_object, event, notice

from hub.client import connections
from hub.client.client import HubClient, PromptClient
from hub.client.connections import Backoff
from hub.client.discovery import NoHub
from hub.client.items import Arrival, Gap, Received, arrival
from hub.client.ownership import is_near
from hub.errors import HubError

pytestmark = pytest.mark.usefixtures("soon")


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


@pytest.mark.parametrize(("url", "longest"), [("http://127.0.0.1:1", 2.0), (None, 2.0), ("http://h.example", 30.0)])
def test_waits_are_drawn_below_a_ceiling_that_doubles_to_30_seconds_or_to_2_in_this_machine(
    url: str | None, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.25

    monkeypatch.setattr(random, "uniform", uniform)
    backoff = Backoff(is_near=is_near(url))
    assert {backoff.next() for _ in range(9)} == {0.25}
    assert drawn == [(0, min(high, longest)) for high in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)]
    backoff.reset()
    backoff.next()
    assert drawn[9:] == [(0, 0.5)]


async def test_after_a_cut_it_goes_on_behind_what_it_had(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, topics=["a:*", "c:*"]) as client:
        waiting = following(client)
        first = await scripted.peer()
        assert first.query == {"topics": "a:*,c:*", "after": "e:0"}
        await first.send(event(1), event(2))
        assert await waiting == meaning(event(1))
        assert await take(client, 1) == ["e:2"]
        first.cut()
        waiting = following(client)
        second = await scripted.peer()
        assert second.query == {"topics": "a:*,c:*", "after": "e:2"}
        await second.send(event(3))
        assert isinstance(item := await waiting, Received)
        assert (item.cursor, client.cursor) == ("e:3", "e:3")


async def test_what_was_read_and_not_taken_is_neither_lost_nor_asked_for_again(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        first = await scripted.peer()
        await first.send(event(1), event(2), event(3))
        await waiting
        await first.close(1001)
        second = await scripted.peer()
        assert client.cursor == "e:1"
        assert second.query["after"] == "e:3"
        await second.send(event(4))
        assert await take(client, 3) == ["e:2", "e:3", "e:4"]


async def test_the_stream_begins_where_the_hub_was_when_the_client_was_entered(scripted: ScriptedHub) -> None:
    scripted.page = 200, {"events": [], "cursor": "e:41", "complete": True, "more": False}
    async with HubClient(scripted.url) as client:
        assert client.cursor == "e:41"
        waiting = following(client)
        first = await scripted.peer()
        assert first.query["after"] == "e:41"
        first.cut()
        assert (await scripted.peer()).query["after"] == "e:41"
        waiting.cancel()


async def test_a_given_cursor_is_checked_and_kept(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, after="e:7") as client:
        assert (scripted.asked, client.cursor) == ([{}], "e:7")
    with pytest.raises(HubError, match="not a cursor") as caught:
        await HubClient(scripted.url, after="e7").__aenter__()
    assert caught.value.code == "unknown_cursor"


async def test_a_hub_that_is_not_ready_can_be_followed(scripted: ScriptedHub) -> None:
    scripted.page = 503, {"status": "unavailable", "reasons": {"audit": "The disk is full."}, "cursor": "e:4"}
    async with HubClient(scripted.url) as client:
        assert client.cursor == "e:4"


async def test_who_keeps_the_cursor_and_goes_asks_where_the_stream_is(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, topics=["a:*", "b:*"]) as client:
        await client.settle()
        assert client.cursor == "e:0", "it follows nothing yet"
        waiting = following(client)
        await (peer := await scripted.peer()).send(event(1))
        await waiting
        settling = asyncio.create_task(client.settle())
        id, name, args = await peer.command()
        assert (name, args) == ("hub:subscribe", {"topics": ["a:*"]})
        await peer.respond(id, {"topics": ["a:*", "b:*"], "cursor": "e:7"})
        await settling
        assert client.cursor == "e:7"


async def test_what_is_not_handed_over_keeps_the_cursor_before_it(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, topics=["a:*"]) as client:
        waiting = following(client)
        await (peer := await scripted.peer()).send(event(1))
        await waiting
        settling = asyncio.create_task(client.settle())
        id, _, _ = await peer.command()
        await peer.send(notice("hub:mark", cursor="e:5"), event(6))
        await peer.respond(id, {"topics": ["a:*"], "cursor": "e:9"})
        await settling
        assert client.cursor == "e:5"
        assert isinstance(item := await anext(client), Received)
        assert item.cursor == "e:6"
        await client.settle()
        assert client.cursor == "e:9"


@pytest.mark.parametrize("how", ["refuse", "cut", "nothing"])
async def test_a_hub_that_does_not_say_where_it_is_changes_nothing(
    how: str, scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.client.client.SETTLE_SECONDS", 0.1)
    async with HubClient(scripted.url, topics=["a:*"]) as client:
        waiting = following(client)
        await (peer := await scripted.peer()).send(event(1))
        await waiting
        settling = asyncio.create_task(client.settle())
        id, _, _ = await peer.command()
        if how == "refuse":
            await peer.refuse(id, error_object("busy"))
        elif how == "cut":
            peer.cut()
        await settling
        assert client.cursor == "e:1"


async def test_marks_and_gaps_move_the_point_it_comes_back_to(scripted: ScriptedHub) -> None:
    gap = notice("hub:gap", after="e:9", before="e:21", count=11, reason="expired")
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        await (peer := await scripted.peer()).send(notice("hub:mark", cursor="e:9"))
        peer.cut()
        peer = await scripted.peer()
        assert peer.query["after"] == "e:9"
        await peer.send(gap)
        assert isinstance(item := await waiting, Gap)
        assert (item.after, item.before, item.count, item.reason) == ("e:9", "e:21", 11, "expired")
        assert client.cursor == "e:20"
        peer.cut()
        assert (await scripted.peer()).query["after"] == "e:20"


@pytest.mark.parametrize("weakened", [False, True])
async def test_it_stays_away_from_a_hub_that_does_not_allow_it(
    scripted: ScriptedHub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Backoff, "after", lambda self, error: 0)
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        peer = await scripted.peer()
        await peer.send(event(1), event(2))
        await waiting
        for _ in range(2):
            await peer.close(1008, b"Only local connections allowed")
            if weakened or not _:
                peer = await scripted.peer()
        assert await take(client, 1) == ["e:2"]
        if weakened:
            return
        for _ in range(2):
            with pytest.raises(HubError, match=r"1008.*Only local connections allowed") as caught:
                await anext(client)
            assert caught.value.code == "forbidden"
        assert scripted.peers.empty()


REFUSALS = [(400, "unknown_cursor"), (401, "forbidden"), (403, "forbidden"), (421, "forbidden")]


@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_it_stays_away_when_the_hub_says_no(scripted: ScriptedHub, status: int, code: str) -> None:
    """A handshake carries a status only: the hub's own words are asked for."""
    async with HubClient(scripted.url, token="t" * 32) as client:
        scripted.handshakes, scripted.page = [status] * 2, (status, error_object(code))
        with pytest.raises(HubError, match="The hub says no") as caught:
            await anext(client)
        assert (caught.value.code, caught.value.status) == (code, status)
        assert scripted.asked[-1] == {"limit": "1", "topics": "*", "after": "e:0"}
        with pytest.raises(HubError, match="The hub says no"):
            await client.call("a:b")
        assert scripted.asked[-1] == {"limit": "1", "topics": "hub:none"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 421, 426])
@pytest.mark.parametrize("page", [(404, "<h1>Not Found</h1>"), (200, "[1]")])
async def test_a_stranger_on_the_hubs_port_is_no_end(scripted: ScriptedHub, status: int, page: tuple[int, Any]) -> None:
    async with HubClient(scripted.url, token="t" * 32) as client:
        scripted.handshakes, scripted.page = [status, status, 101], page
        waiting = following(client)
        await (await scripted.peer()).send(event(1))
        assert await waiting == meaning(event(1))


@pytest.mark.parametrize("text", ["hello", "[]", "{}", '{"type":"event","payload":{}}', "1"])
async def test_what_does_not_speak_as_a_hub_is_no_end(scripted: ScriptedHub, text: str) -> None:
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        await (await scripted.peer()).send(text)
        await (await scripted.peer()).send(event(1))
        assert await waiting == meaning(event(1))


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_token_that_is_not_found_yet_is_no_end(
    scripted: ScriptedHub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hub that is just starting, or one whose token was replaced, each attempt looks for it anew."""
    if weakened:
        monkeypatch.setattr(HubClient, "_may_get_another_token", lambda self: False)
    async with HubClient(scripted.url) as client:
        scripted.handshakes, scripted.page = [401, 401, 101], (401, error_object("forbidden"))
        waiting = following(client)
        if weakened:
            with pytest.raises(HubError, match="The hub says no"):
                await waiting
        else:
            await (await scripted.peer()).send(event(1))
            assert await waiting == meaning(event(1))


def announce(folder: Path, text: str) -> Path:
    (folder / "server.json").write_text(text)
    return folder


async def test_it_follows_the_hub_to_a_new_address(scripted: ScriptedHub, tmp_path: Path) -> None:
    moved = ScriptedHub()
    await moved.start()
    announce(tmp_path, json.dumps({"url": scripted.url + "/", "pid": os.getpid()}))
    async with HubClient(state_dir=tmp_path) as client:
        waiting = following(client)
        peer = await scripted.peer()
        announce(tmp_path, json.dumps({"url": moved.url + "/", "pid": os.getpid()}))
        peer.cut()
        await (await moved.peer()).send(event(1))
        assert await waiting == meaning(event(1))
    await moved.stop()


# ---- entering


def test_an_address_that_is_not_http_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="http://"):
        HubClient("ftp://127.0.0.1:3141")


async def test_entering_where_nothing_listens_says_so(scripted: ScriptedHub) -> None:
    await scripted.stop()
    with pytest.raises(NoHub, match=f"No hub answers at {scripted.url} "):
        async with HubClient(scripted.url):
            raise AssertionError("entered")
    await scripted.start()


@pytest.mark.parametrize("by", ["address", "folder"])
async def test_with_patience_entering_waits_for_a_hub_that_starts(
    scripted: ScriptedHub, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    def next(backoff: Backoff) -> float:
        tried.set()
        return 0.001

    monkeypatch.setattr(Backoff, "next", next)
    await scripted.stop()
    where: dict[str, Any] = {"url": scripted.url} if by == "address" else {"state_dir": tmp_path}
    client = HubClient(**where, patience=math.inf)
    entering = asyncio.create_task(client.__aenter__())
    await tried.wait()
    scripted.page = 503, {**error_object("shutting_down"), "retryable": True}  # and while it stops
    await scripted.start(int(scripted.url.rpartition(":")[2]))
    announce(tmp_path, json.dumps({"url": scripted.url + "/", "pid": os.getpid()}))
    while not scripted.asked:
        await asyncio.sleep(0)
    scripted.page = 200, {"events": [], "cursor": "e:41", "complete": True, "more": False}
    await entering
    assert client.cursor == "e:41"
    calling = asyncio.create_task(client.call("a:b"))
    caller = await scripted.peer()
    await caller.respond((await caller.command())[0], 1)
    assert await calling == 1
    await client.__aexit__()


@pytest.mark.parametrize("patience", [0, 0.05])
async def test_and_no_longer_than_its_patience(scripted: ScriptedHub, patience: float) -> None:
    await scripted.stop()
    with pytest.raises(NoHub, match="No hub answers"):
        await HubClient(scripted.url, patience=patience).__aenter__()
    await scripted.start()


async def test_what_is_prompt_waits_for_calls_alone(scripted: ScriptedHub) -> None:
    await scripted.stop()
    with pytest.raises(NoHub, match="No hub answers"):
        await PromptClient(scripted.url, patience=math.inf).__aenter__()
    await scripted.start()


async def test_with_patience_a_hub_that_says_no_is_told_at_once(scripted: ScriptedHub) -> None:
    scripted.page = 403, error_object("forbidden")
    with pytest.raises(HubError, match="The hub says no"):
        await HubClient(scripted.url, patience=math.inf).__aenter__()


async def test_entering_tells_why_the_hub_refuses(scripted: ScriptedHub) -> None:
    scripted.page = 403, error_object("forbidden")
    with pytest.raises(HubError, match="The hub says no") as caught:
        async with HubClient(scripted.url):
            raise AssertionError("entered")
    assert caught.value.code == "forbidden"


async def test_a_pattern_that_is_none_is_told_by_name(scripted: ScriptedHub) -> None:
    with pytest.raises(HubError, match="'agent'") as caught:
        async with HubClient(scripted.url, topics=["task:*", "agent"]):
            raise AssertionError("entered")
    assert (caught.value.code, scripted.asked) == ("invalid_args", [])


async def test_it_cannot_be_used_outside_of_its_context(scripted: ScriptedHub) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await HubClient(scripted.url).call("a:b")


async def test_entered_again_it_goes_on_behind_what_it_handed_over(scripted: ScriptedHub) -> None:
    client = HubClient(scripted.url)
    async with client:
        with pytest.raises(RuntimeError, match="already"):
            await client.__aenter__()
        waiting = following(client)
        await (await scripted.peer()).send(event(1), event(2))
        await waiting
    async with client:
        waiting = following(client)
        peer = await scripted.peer()
        assert peer.query["after"] == "e:1"
        await peer.send(event(2))
        assert await waiting == meaning(event(2))
        calling = asyncio.create_task(client.call("a:b"))
        caller = await scripted.peer()
        await caller.respond((await caller.command())[0], 1)
        assert await calling == 1


# ---- the connection itself


async def test_a_ping_is_answered_and_nothing_is_compressed(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        peer = await scripted.peer()
        assert "Sec-WebSocket-Extensions" not in peer.headers
        message = await peer.ping()
        assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"there?")
        waiting.cancel()


async def test_a_cancelled_wait_takes_no_event(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        peer = await scripted.peer()
        waiting.cancel()
        await asyncio.wait([waiting])
        await peer.send(event(1), event(2))
        assert await take(client, 2) == ["e:1", "e:2"]


async def test_leaving_ends_a_loop_in_another_task(scripted: ScriptedHub) -> None:
    seen, first = [], asyncio.Event()
    async with HubClient(scripted.url) as client:

        async def follow() -> None:
            async for item in client:
                seen.append(item.envelope)
                first.set()

        waiting = asyncio.create_task(follow())
        await (await scripted.peer()).send(event(1))
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
    scripted: ScriptedHub, watched: type[Watched]
) -> None:
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        peer = await scripted.peer()
        flooding = asyncio.create_task(flood(peer))
        await waiting
        await watched.full.wait()
        calling = asyncio.create_task(client.call("a:b"))
        caller = await scripted.peer()
        await caller.respond((await caller.command())[0], "still here")
        assert await calling == "still here"
        assert await take(client, FRAMES - 1) == [f"e:{seq}" for seq in range(2, FRAMES + 1)]
        await flooding
    assert watched.most < connections.READ_AHEAD + 2 * SIZE


async def test_weakened_without_the_bound_all_of_it_is_read_ahead(
    scripted: ScriptedHub, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_AHEAD", 10**9)
    async with HubClient(scripted.url) as client:
        waiting = following(client)
        peer = await scripted.peer()
        await flood(peer)
        await peer.close(1001)
        await scripted.peer()  # it has read to the end and is back, though only one event was taken
        await waiting
    assert watched.most > (FRAMES - 2) * SIZE
