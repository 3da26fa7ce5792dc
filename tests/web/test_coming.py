"""Bodies that have come by halves: what all of them take together is bounded, and keeps nobody's small ones out."""

import asyncio
import contextlib
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, Raw, hub_app, until

from hub.stream import passes
from hub.stream.passes import Passes
from hub.web import room
from hub.web.keys import COMING

SIZE, MOST, SENDERS = 60_000, 200_000, 10
EVENT = b'{"event":"a:b","data":1}'


def coming(hub: HubInside) -> room.Coming:
    return hub.app[COMING]


async def half(hub: HubInside, client: Raw, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nContent-Type: application/json\r\n"
    await client.write(f"{head}Content-Length: {SIZE + 100}\r\n\r\n".encode() + EVENT + b" " * (SIZE - len(EVENT)))


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("path", ["/api/events", "/api/commands/hub:ping", "/hooks/claude-code"])
async def test_what_comes_by_halves_is_bounded(
    path: str, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COMING", 10**12 if weakened else MOST)
    async with hub_app(tmp_path) as hub, contextlib.AsyncExitStack() as open_ones:
        all_of_it = coming(hub).left
        clients = [await open_ones.enter_async_context(Raw(hub.port)) for _ in range(SENDERS)]
        for client in clients:
            await half(hub, client, path)
        if weakened:
            await until(lambda: all_of_it - coming(hub).left > MOST, "more than there should be room for")
            return
        reading = [asyncio.ensure_future(client.read()) for client in clients]
        fit = MOST // SIZE
        await until(lambda: sum(task.done() for task in reading) == SENDERS - fit, "the refusals")
        for task in reading:
            if task.done():
                assert task.result().startswith(b"HTTP/1.1 429 ")
                assert b"\r\nRetry-After: 1\r\n" in task.result()
        assert 0 <= coming(hub).left < SIZE
        assert (await hub.post("api/events", EVENT)).status == 200
        assert hub.hub.cursor.seq == 1
        for client, task in zip(clients, reading, strict=True):
            if not task.done():
                await client.write(b" " * 100)
                assert (await task).startswith(b"HTTP/1.1 200 ")
        assert coming(hub).left == all_of_it


async def test_what_never_comes_whole_leaves_its_room(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=1.0) as hub:
        for _ in range(3):
            async with Raw(hub.port) as client:
                await half(hub, client, "/api/events")
                await until(lambda: coming(hub).left < room.COMING, "the half body")
            await until(lambda: coming(hub).left == room.COMING, "the room that it has left")
        async with Raw(hub.port) as client:
            await half(hub, client, "/api/events")
            assert (await client.read()).startswith(b"HTTP/1.1 408 ")
            assert coming(hub).left == room.COMING


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("path", "body"), [("api/events", {"event": "a:b", "data": "x"}), ("api/commands/hub:ping", {"any": "x"})]
)
async def test_large_ones_are_worked_on_one_by_one_and_weigh_until_their_turn(
    path: str, body: dict[str, Any], weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first is not kept before the last is parsed: all of that would be in memory together."""
    turns, turn = list[tuple[Passes, asyncio.Task[Any] | None]](), Passes.turn

    async def noted(passes: Passes, *, begun: bool = False) -> None:
        await turn(passes, begun=begun and not weakened)
        turns.append((passes, asyncio.current_task()))

    monkeypatch.setattr(Passes, "turn", noted)
    text = json.dumps(body).encode().ljust(passes.LARGE + 1)
    async with hub_app(tmp_path) as hub:
        heavy = hub.hub.bus.heavy
        heavy._left, heavy._resting = 0, 1  # somebody has it just now
        sending = [asyncio.create_task(hub.post(path, text)) for _ in range(4)]
        await until(lambda: len(heavy._waiting) == len(sending), "all of them")
        assert room.COMING - coming(hub).left == len(sending) * len(text)
        heavy._pass(asyncio.get_running_loop())
        assert [answer.status for answer in await asyncio.gather(*sending)] == [200] * 4
        assert coming(hub).left == room.COMING
        tasks = [task for passes, task in turns if passes is heavy]
        assert len(tasks) >= 2 * len(sending)
        assert (len(list(groupby(tasks))) == len(sending)) is not weakened
