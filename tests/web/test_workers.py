"""Several workers on one port: started, started again, stopped, and counted as one."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from running import HubProcess, Talk, hub_process, run_hub, talk, until

from hub.commands.clients import Client
from hub.web import seats
from hub.web.seats import Seat, Summed, Workers, families
from hub.web.viewers import Viewers


@asynccontextmanager
async def crew(engine: Engine, tmp_path: Path, *flags: str, status: int = 0) -> AsyncIterator[HubProcess]:
    """Two workers on a free port."""
    url = engine.url(prefix=uuid4().hex)
    async with hub_process(tmp_path, "--workers", "2", "--broker", url, *flags, status=status) as hub:
        yield hub


def workers(hub: HubProcess) -> list[int]:
    """The processes of the workers."""
    return [int(pid) for pid in Path(f"/proc/{hub.process.pid}/task/{hub.process.pid}/children").read_text().split()]


async def scraped(hub: HubProcess) -> dict[str, float]:
    """What a scrape shows, by name and labels."""
    async with hub.http.get(f"{hub.url}metrics") as response:
        lines = (await response.text()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def published(hub: HubProcess, number: int) -> None:
    body = {"event": "agent:status_change", "data": {"id": f"agent-{number}", "status": "active"}}
    async with hub.http.post(f"{hub.url}api/events", json=body) as response:
        assert response.status == 200


async def provided(worker: Talk) -> None:
    await worker.call("hub:provide", commands=[{"name": "jobs:run", "effect": "read"}])


async def serve(worker: Talk) -> None:
    """Answer every call."""
    while frame := await worker.frame():
        if frame["type"] == "command":
            await worker.send({"type": "response", "id": frame["id"], "payload": "done"})


async def test_workers_are_one_hub(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path) as hub, AsyncExitStack() as stack:
        first = sorted(workers(hub))
        assert len(first) == 2
        assert json.loads((hub.state_dir / "server.json").read_text())["pid"] == hub.process.pid
        talks = [await stack.enter_async_context(talk(hub.url)) for _ in range(16)]  # of both, but for one in 32,768
        status, _, err = await run_hub(tmp_path, "publish", "--state-dir", str(hub.state_dir), "a:x", "n=1")
        assert status == 0, err
        events = [await each.event() for each in talks]
        assert all(event == events[0] for event in events)
        for _ in range(4):  # whichever is asked
            assert (await scraped(hub))['hub_clients{transport="websocket"}'] == 16
        facts = await scraped(hub)
        assert (facts["hub_history_events"], facts["hub_broker_up"]) == (1, 1)
        assert facts['hub_events_total{event="other"}'] == 2  # each has seen it
        await provided(talks[0])
        async with asyncio.timeout(30):
            while not all([await each.call("hub:commands", name="jobs:run") for each in talks]):
                pass
        serving = asyncio.ensure_future(serve(talks[0]))
        for each in talks[1:]:
            assert await each.call("jobs:run") == "done"
        serving.cancel()
        async with talk(hub.url, "?page=1") as page:
            for number in range(8):
                viewer = (await page.event())["payload"]["data"]["viewer"]
                await published(hub, number)
                async with hub.http.get(f"{hub.url}?viewer={viewer}", headers={"Connection": "close"}) as response:
                    assert response.status == 200
        os.kill(first[0], signal.SIGKILL)
        await until(lambda: len(found := workers(hub)) == 2 and first[0] not in found, "that it is started again")
        await until(lambda: "has ended, and is started again in" in hub.log)
        async with asyncio.timeout(30):
            while (await scraped(hub))["hub_broker_up"] != 1:
                await asyncio.sleep(0.01)
    assert not (hub.state_dir / "server.json").exists()


async def test_a_link_opens_one_session_that_all_know(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path, "--auth", "token") as hub:
        assert hub.process.stdout
        async with asyncio.timeout(30):
            link = (await hub.process.stdout.readline()).decode().split()[-1]
        found = await asyncio.gather(*(fetched(hub, link) for _ in range(8)))
        assert sorted(status for status, _ in found) == [303] + [401] * 7
        cookie = next(cookie for status, cookie in found if status == 303)
        for _ in range(16):  # of both workers, but for one run in 32,768
            assert (await fetched(hub, f"{hub.url}api/state", Cookie=cookie))[0] == 200
        kept = list((hub.state_dir / "tickets").rglob("*"))
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600, 0o700}
        status, _, err = await run_hub(tmp_path, "token", "--new", "--state-dir", str(hub.state_dir))
        assert status == 0, err
        for _ in range(16):
            assert (await fetched(hub, f"{hub.url}api/state", Cookie=cookie))[0] in (401, 429)
    assert not [path for path in (hub.state_dir / "tickets").rglob("*") if path.is_file()]


async def fetched(hub: HubProcess, url: str, **headers: str) -> tuple[int, str]:
    """Status and cookie of what is there, over a connection of its own."""
    async with hub.http.get(url, headers={"Connection": "close", **headers}, allow_redirects=False) as response:
        return response.status, response.headers.get("Set-Cookie", "").partition(";")[0]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_page_hears_of_news_wherever_it_fetches(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[dict[str, Any]]()
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for each in (one, two):
            each.bind("")
            each.listen()
            each.setblocking(False)
        here = Workers(Seat(1, 0, one, (two.getsockname(),), -1, -1), counted(1))
        there = Workers(Seat(2, 0, two, (one.getsockname(),), -1, -1), counted(2))
        if weakened:
            monkeypatch.setattr(here, "fetched", lambda viewer, position: None)
        mine, others = Viewers(), Viewers()
        there.on_fetched = others.fetched_elsewhere
        mine.on_unknown = lambda id: here.fetched(id, 7)
        client = Client("websocket", "127.0.0.1:1")
        others.join(client, lambda text: told.append(json.loads(text)["payload"]["data"]))
        answering = asyncio.ensure_future(there.answer())
        for cursor in ("e:7", "e:8"):  # the second time the other worker is behind
            (viewer,) = others.free()
            others.tell(viewer, {"agents": cursor}, cursor)
            mine.fetched(client.id, {"agents": "of another"})
            if weakened:
                assert await here.counted()
                assert not list(others.free())
                break
            await until(lambda: list(others.free()), "that it is free")
            others.tell(viewer, {"agents": cursor}, cursor)
        assert len(told) == (1 if weakened else 3)
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering


async def test_without_a_stream_for_several_it_says_what_is_needed(tmp_path: Path) -> None:
    status, out, err = await run_hub(tmp_path, "--workers", "2", "--port", "0", "--state-dir", "state")
    assert (status, out) == (2, "")
    assert "2 workers need one stream in a Redis or Valkey" in err


async def test_what_cannot_start_is_said_once(redis_engine: Engine, tmp_path: Path) -> None:
    flags = ["--workers", "2", "--state-dir", "state", "--broker"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, err = await run_hub(tmp_path, *flags, redis_engine.url(), "--port", port)
    assert (status, err.count("\n")) == (2, 1)
    assert f"Cannot listen on 127.0.0.1 port {port}: another program listens there" in err
    status, _, err = await run_hub(tmp_path, *flags, f"unix://{tmp_path}/nowhere", "--port", "0")
    assert status == 2
    assert "nowhere cannot be reached" in err


async def test_workers_end_with_their_parent(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path, status=-signal.SIGKILL) as hub:
        pids = workers(hub)
        hub.signal(signal.SIGKILL)
        await hub.ended()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "that they end")


async def test_a_second_signal_waits_for_nobody(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path, status=128 + signal.SIGINT) as hub, talk(hub.url) as worker:
        await provided(worker)
        await worker.begin("jobs:run")  # which nobody answers
        pids = workers(hub)
        hub.signal(signal.SIGINT)
        await until(lambda: "stopping" in hub.log)
        hub.signal(signal.SIGINT)
        await hub.ended()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "that they end")


async def test_a_hangup_without_a_terminal_is_passed_on(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path) as hub:
        hub.signal(signal.SIGHUP)
        await until(lambda: hub.log.count("hub.toml was read again") == 2)


# ---- what they have counted


def counted(value: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("hub_calls", "Calls.", ["outcome"], registry=registry).labels("ok").inc(value)
    Gauge("hub_clients", "Clients.", registry=registry).set(value)
    Gauge("hub_state_items", "Items.", registry=registry).set(value)
    Gauge("hub_broker_up", "Up.", registry=registry).set(value)
    Histogram("hub_seconds", "Seconds.", buckets=(1, 10), registry=registry).observe(value)
    return registry


def test_what_several_have_counted_is_summed_by_its_kind() -> None:
    registry: Any = Summed([families(counted(0)), families(counted(3))])
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'hub_calls_total{outcome="ok"} 3.0',
        "hub_clients 3.0",
        "hub_state_items 3.0",
        "hub_broker_up 0.0",
        'hub_seconds_bucket{le="1.0"} 1.0',
        'hub_seconds_bucket{le="+Inf"} 2.0',
        "hub_seconds_sum 3.0",
    ):
        assert line in lines
    both: Any = Summed([families(counted(3)), families(counted(4))])
    lines = generate_latest(both).decode().splitlines()
    assert {"hub_clients 7.0", "hub_state_items 4.0", "hub_broker_up 3.0"} <= set(lines)


@pytest.mark.parametrize("weakened", [False, True])
async def test_no_other_account_is_asked_or_answered(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for each in (one, two):
            each.bind("")
            each.listen()
            each.setblocking(False)
        here = Workers(Seat(1, 0, one, (two.getsockname(),), -1, -1), counted(1))
        there = Workers(Seat(2, 0, two, (one.getsockname(),), -1, -1), counted(2))
        answering = asyncio.ensure_future(there.answer())
        is_ours, asked = seats._is_ours, list[bool]()

        def noted(connection: socket.socket) -> bool:
            asked.append(weakened or is_ours(connection))
            return asked[-1]

        monkeypatch.setattr(seats, "_is_ours", noted)
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)  # as if it were another's
        registry: Any = await here.counted()
        assert (b"hub_clients 3.0" in generate_latest(registry)) is weakened
        await until(lambda: len(asked) == 2, "that both have looked")
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
