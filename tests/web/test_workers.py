"""Several workers on one port: started, started again, stopped; and one for who talks to them."""

import asyncio
import errno
import json
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from crews import answering, crew, pair, pids, published, scraped
from engines import Engine
from running import HubProcess, Talk, run_hub, talk, until

from hub import Config, Hub, tokens
from hub.commands import listing
from hub.commands.clients import Client, Page
from hub.errors import HubError, Occupied
from hub.web import listening, seats, workers
from hub.web.viewers import Viewers


async def provided(worker: Talk) -> None:
    await worker.call("hub:provide", commands=[{"name": "jobs:run", "effect": "read"}])


async def serve(worker: Talk) -> None:
    """Answer every call."""
    while frame := await worker.frame():
        if frame["type"] == "command":
            await worker.send({"type": "response", "id": frame["id"], "payload": "done"})


async def test_workers_are_one_hub(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path) as hub, AsyncExitStack() as stack:
        first = sorted(pids(hub))
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
        assert facts['hub_events_total{event="other"}'] == 1  # although each has seen it
        listed = [await each.call("hub:clients") for each in talks[:4]]
        own = [(await each.call("hub:info"))["client"] for each in talks]
        for found in listed:
            assert [client["client"] for client in found if client["client"] in own] == sorted(own)
        (stats,) = {json.dumps((await each.call("hub:stats"))["hub_clients"]) for each in talks[:4]}
        assert json.loads(stats) == {"websocket": 16, "sse": 0}
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
        await until(lambda: len(found := pids(hub)) == 2 and first[0] not in found, "that it is started again")
        await until(lambda: "was ended by signal 9 (SIGKILL); it is started again in" in hub.log)
        async with asyncio.timeout(30):
            while (facts := await scraped(hub))['hub_workers{state="up"}'] != 2:
                await asyncio.sleep(0.01)
        assert facts["hub_broker_up"] == 1
    assert not (hub.state_dir / "server.json").exists()
    status, out, err = await run_hub(tmp_path, "audit", "verify", "--state-dir", str(hub.state_dir))
    assert (status, err) == (0, "")
    assert [line.partition(", ")[0][:17] for line in out.splitlines()] == ["worker-1: intact:", "worker-2: intact:"]
    for number in (1, 2):
        assert f" INFO worker {number}: stopping" in hub.log


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


def test_the_token_is_there_before_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that made it at the same moment kept each other from starting."""
    found = list[str | None]()

    class Noted:
        def __init__(self, config: Config, *args: Any) -> None:
            found.append(tokens.read(config.state_dir))

        def run(self) -> int:
            return 0

    monkeypatch.setattr(workers, "Crew", Noted)
    monkeypatch.setattr(workers, "set_up_logging", lambda config: None)
    config = Config(state_dir=tmp_path, workers=2, broker="unix:///nowhere", auth="token", port=0)
    assert workers.run(config, lambda config, seat: 0) == 0
    assert found == [tokens.read(tmp_path)]
    assert found[0]


async def fetched(hub: HubProcess, url: str, **headers: str) -> tuple[int, str]:
    """Status and cookie of what is there, over a connection of its own."""
    async with hub.http.get(url, headers={"Connection": "close", **headers}, allow_redirects=False) as response:
        return response.status, response.headers.get("Set-Cookie", "").partition(";")[0]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_page_hears_of_news_wherever_it_fetches(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[dict[str, Any]]()
    with pair() as both:
        here, there = both.here, both.there
        if weakened:
            monkeypatch.setattr(here, "fetched", lambda viewer, position: None)
        mine, others = Viewers(), Viewers()
        there.on_fetched = others.fetched_elsewhere
        mine.on_unknown = lambda id: here.fetched(id, 7)
        client = Client("websocket", "127.0.0.1:1")
        others.join(client, lambda text: told.append(json.loads(text)["payload"]["data"]))
        async with answering(there):
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
    assert not (tmp_path / "state").exists()  # nothing of it is left


@pytest.mark.parametrize("weakened", [False, True])
def test_connections_of_before_keep_nobody_from_the_port(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The side that closes first has them for a minute: the workers, at each stop."""
    if weakened:
        monkeypatch.setattr(socket, "SO_REUSEADDR", socket.SO_KEEPALIVE)  # which does nothing here
    config = Config(port=0)
    with listening.bind(config, shared=True) as worker:
        worker.listen()
        port = worker.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            worker.setblocking(True)
            connection, _ = worker.accept()
            connection.close()
            assert client.recv(1) == b""
    if weakened:
        with pytest.raises(Occupied):
            workers._reserve(config.changed(port=port))
    else:
        workers._reserve(config.changed(port=port)).close()


def test_the_port_is_no_other_accounts_while_no_worker_listens() -> None:
    with workers._reserve(Config(port=0)) as held, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(held.getsockname())


async def test_workers_end_with_their_parent(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path, status=-signal.SIGKILL) as hub:
        found = pids(hub)
        hub.signal(signal.SIGKILL)
        await hub.ended()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), "that they end")


async def test_a_second_signal_waits_for_nobody(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path, status=128 + signal.SIGINT) as hub, talk(hub.url) as worker:
        await provided(worker)
        await worker.begin("jobs:run")  # which nobody answers
        found = pids(hub)
        hub.signal(signal.SIGINT)
        await until(lambda: "stopping" in hub.log)
        hub.signal(signal.SIGINT)
        await hub.ended()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), "that they end")


async def test_a_hangup_without_a_terminal_is_passed_on(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path) as hub:
        hub.signal(signal.SIGHUP)
        await until(lambda: hub.log.count("hub.toml was read again") == 2)


async def test_without_descriptors_it_answers_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "PATIENCE", 0.01)
    loop, failures = asyncio.get_running_loop(), [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = loop.sock_accept

    async def accepts(sock: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", accepts)
    with pair() as both:
        both.there.on_clients = somebody
        async with answering(both.there):
            await until(lambda: not failures, "that it has tried so often")
            assert await both.here.clients("") == [([("x", "{}")], False)]


@pytest.mark.parametrize("weakened", [False, True])
async def test_no_other_account_is_asked_or_answered(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    is_ours, looked = seats._is_ours, list[bool]()

    def noted(connection: socket.socket) -> bool:
        looked.append(weakened or is_ours(connection))
        return looked[-1]

    monkeypatch.setattr(seats, "_is_ours", noted)
    mine = os.geteuid()
    with pair() as both:
        both.there.on_clients = somebody
        async with answering(both.there):
            monkeypatch.setattr(os, "geteuid", lambda: mine + 1)  # as if it were another's
            if weakened:
                assert await both.here.clients("") == [([("x", "{}")], False)]
            else:
                with pytest.raises(HubError) as refused:
                    await both.here.clients("")
                assert refused.value.code == "busy"
            await until(lambda: len(looked) == 2, "that both have looked")


async def test_who_is_connected_is_told_in_one_order_and_without_a_hole(tmp_path: Path) -> None:
    """Also where one of the workers has more than an answer holds."""
    large = '{"x":"%s"}' % ("y" * 300_000)
    pages: list[Page] = [([("b", large), ("d", large)], True), ([("a", "{}"), ("c", "{}"), ("e", "{}")], False)]

    async def elsewhere(after: str) -> list[Page]:
        return [([row for row in rows if row[0] > after], more) for rows, more in pages]

    hub = Hub(state_dir=tmp_path)
    hub.clients.elsewhere = elsewhere
    assert json.loads(await listing.clients(hub, "")) == [{}, json.loads(large), {}, json.loads(large)]
    pages[0] = ([("b", large), ("d", large), ("f", large), ("g", large)], False)
    found = json.loads(await listing.clients(hub, ""))
    assert [len(str(each)) > 10 for each in found] == [False, True, False, True, False, True]
    assert json.loads(await listing.clients(hub, "f")) == [json.loads(large)]


async def test_a_worker_that_stands_still_is_not_left_out_silently(redis_engine: Engine, tmp_path: Path) -> None:
    async with crew(redis_engine, tmp_path) as hub, AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talk(hub.url)) for _ in range(16)]
        assert len(await talks[0].call("hub:clients")) == 16
        stopped = pids(hub)[0]
        os.kill(stopped, signal.SIGSTOP)
        calls = [asyncio.ensure_future(each.fails("hub:clients", "busy")) for each in talks]
        done, _ = await asyncio.wait(calls, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert " does not answer, so who is connected to it is not known; ask again." in done.pop().result()["error"]
        os.kill(stopped, signal.SIGCONT)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def somebody(after: str) -> Page:
    return [("x", "{}")], False
