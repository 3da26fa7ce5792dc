"""A full disk, no descriptors, clients that are stuck, a clock that jumps: the hub says so, goes on, and recovers."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from logs import everything
from running import JSON, HubProcess, Raw, Talk, hub_app, hub_process, run_hub, seq, talk, until

from hub import Hub
from hub.audit.verdict import INTACT
from hub.audit.verify import verify
from hub.commands.call import Call

WORK = '''
import asyncio

def setup(hub):
    @hub.command("work:do", effect="write")
    async def do(call):
        """Do it."""
        return "done"

    @hub.command("work:hang", effect="write")
    async def hang(call):
        """Never end."""
        await hub.publish("work:hanging", 1)
        await asyncio.sleep(60)
'''
# A module that takes the protection out of the hub that loads it.
NOT_CLOSED = """
def setup(hub):
    from hub.audit.writer import LogFile
    LogFile._commit = lambda self, entries: None
"""


SPINS = """
def setup(hub):
    import sys
    from asyncio import constants
    from hub.web import program
    sys.modules["uvloop"] = None  # it has a rest of its own
    program.ACCEPTS = 100
    constants.ACCEPT_RETRY_DELAY = 0
"""
SHORT_QUEUE = """
def setup(hub):
    from hub.web import program
    program.BACKLOG = 100
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path) -> None:
    (tmp_path / "spins.py").write_text(SPINS)
    (tmp_path / "short_queue.py").write_text(SHORT_QUEUE)
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "not_closed.py").write_text(NOT_CLOSED)


async def ready(hub: HubProcess) -> tuple[int, str]:
    async with hub.http.get(hub.url + "readyz") as response:
        return response.status, await response.text()


async def publish(hub: HubProcess) -> int:
    async with hub.http.post(hub.url + "api/events", data='{"event":"a:x","data":1}', headers=JSON) as response:
        return response.status


async def once_it_works(client: Talk) -> None:
    """Call until it is no longer refused; the time limit of the test ends it."""
    while (answer := await client.answer(await client.begin("work:do")))["type"] == "error":
        assert answer["payload"]["code"] == "audit_unavailable", answer
        await asyncio.sleep(0.05)


def finished(state_dir: Path, command: str) -> int:
    done = [record["details"] for record in everything(state_dir) if record["action"] == "command.finished"]
    return sum(details["command"] == command and details["outcome"] == "ok" for details in done)


# ---- a full disk


@pytest.mark.parametrize(("store", "kept"), [("--ephemeral", 200), ("--no-ephemeral", 503)])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_full_disk_refuses_what_must_be_kept_and_nothing_else(
    weakened: bool, store: str, kept: int, tmp_path: Path
) -> None:
    flags = (store, "--load", "work", "--load", "not_closed") if weakened else (store, "--load", "work")
    async with hub_process(tmp_path, *flags) as hub, talk(hub.url) as client:
        assert await client.call("work:do") == "done"
        log = hub.state_dir / "audit.jsonl"
        soft, hard = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
        room = log.stat().st_size + 100  # a part of the next record gets there
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (room, hard))
        if weakened:
            assert await client.call("work:do") == "done"  # nobody will ever know
            assert finished(hub.state_dir, "work:do") == 0
            return
        before = log.read_bytes()
        for _ in range(3):
            error = await client.fails("work:do", "audit_unavailable")
            assert error["retry_after"] == 1
        assert (await client.call("hub:ping"))["pong"] is True  # a read
        assert await publish(hub) == kept  # in memory there is room
        status, why = await ready(hub)
        assert status == 503
        assert "audit" in why
        assert ("Events cannot be kept" in why) is (kept == 503)
        assert "File too large" in why
        assert log.read_bytes() == before  # no partial line
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        await once_it_works(client)
        while (await ready(hub))[0] != 200:
            await asyncio.sleep(0.05)
        assert await publish(hub) == 200
        assert await client.numbers(1 + (kept == 200)) == list(range(1, 2 + (kept == 200)))  # the stream has no hole
        assert finished(hub.state_dir, "work:do") == 2
    assert verify(tmp_path / "state").status == INTACT


# ---- no descriptors


async def occupy(hub: HubProcess, count: int) -> list[Raw]:
    """Connections that the system accepts, whether the hub can or not."""
    raws = [Raw(hub.port) for _ in range(count)]
    for raw in raws:
        await raw.__aenter__()
    return raws


def processor_seconds(process: int) -> float:
    return time.clock_gettime((~process << 3) | 2)  # clock_getcpuclockid(3)


async def test_without_descriptors_it_rests_keeps_its_files_and_recovers(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "work") as hub, talk(hub.url) as client:
        await client.call("work:do")
        pid = hub.process.pid
        used = len(os.listdir(f"/proc/{pid}/fd"))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, hard))
        raws = await occupy(hub, 40)
        await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= used + 4, "that it has no descriptors left")
        spent, answers = processor_seconds(pid), 0
        for _ in range(50):
            assert await client.call("work:do") == "done"  # the files are its own still
            answers += 1
            await asyncio.sleep(0.05)
        spent = processor_seconds(pid) - spent
        assert answers == 50
        assert spent < 1.5, f"{spent:.2f} s of processor time for 50 calls: it spins"
        assert hub.log.count("\n") < 500, f"{hub.log.count(chr(10))} lines of log: {hub.log[:2000]}"
        for raw in raws:
            await raw.__aexit__()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        async with talk(hub.url) as another:  # by itself
            assert await another.call("work:do") == "done"
    assert verify(tmp_path / "state").status == INTACT


async def test_without_the_rest_it_does_nothing_else(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "spins") as hub:
        pid = hub.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 4, hard))
        raws = await occupy(hub, 40)
        await until(lambda: hub.log.count("\n") > 500, "that it spins")
        for raw in raws:
            await raw.__aexit__()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


# ---- a thousand clients at once


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_thousand_connections_find_room_while_the_hub_is_busy(weakened: bool, tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with hub_process(tmp_path, *(("--load", "short_queue") if weakened else ())) as hub:
        os.kill(hub.process.pid, signal.SIGSTOP)
        raws = [Raw(hub.port) for _ in range(1000)]
        connecting = [asyncio.create_task(raw.__aenter__()) for raw in raws]
        done, waiting = await asyncio.wait(connecting, timeout=2.0 if weakened else None)
        assert (len(done) < 200) is weakened
        for task in waiting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        for raw in raws:
            raw.socket.close()
        os.kill(hub.process.pid, signal.SIGCONT)


# ---- SIGTERM with stuck clients


async def test_stuck_clients_and_calls_hold_a_stop_for_ten_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("running.PATIENCE", 10.0)
    async with hub_process(tmp_path, "--load", "work") as hub, contextlib.AsyncExitStack() as stack:
        stuck = [await stack.enter_async_context(Raw(hub.port, buffer=4096)) for _ in range(10)]
        for raw in stuck:
            await raw.upgrade()
        client = await stack.enter_async_context(talk(hub.url, "?topics=work:*"))
        await client.begin("work:hang", "hung")
        assert await client.name() == "work:hanging"
        line = json.dumps({"event": "a:x", "data": "x" * 30_000})
        for _ in range(100):
            async with hub.http.post(hub.url + "api/events", data=line, headers=JSON) as response:
                assert response.status == 200
        hub.signal()
        assert await client.end() == 1001
        assert client.answers["hung"]["payload"]["code"] == "shutting_down"
        async with asyncio.timeout(10):
            assert await hub.process.wait() == 0
    assert (await run_hub(tmp_path, "audit", "verify", str(hub.state_dir)))[0] == 0
    assert everything(hub.state_dir)[-1]["action"] == "hub.stopped"


# ---- a clock that jumps


async def test_a_clock_that_jumps_changes_neither_order_nor_durations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jumps = time.time, iter((0.0, -86400.0, 3600.0, -7200.0, 1e8, -1e8))
    offset = [0.0]

    def prepare(hub: Hub) -> None:
        @hub.command("clock:jump")
        async def jump(call: Call) -> float:
            """Set the clock while a call runs."""
            offset[0] = next(jumps)
            return offset[0]

    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    async with hub_app(tmp_path, prepare=prepare) as hub, talk(hub.url) as client:
        for number in range(6):
            await client.call("clock:jump")
            await hub.hub.publish("a:x", number)
        events = [await client.event() for _ in range(6)]
        assert [seq(event) for event in events] == [1, 2, 3, 4, 5, 6]
        stamps = [event["timestamp"] for event in events]
        assert stamps != sorted(stamps)  # the clock did jump
        done = await hub.records("command.finished")
        assert all(0 <= record["details"]["ms"] < 60_000 for record in done)
        assert [record["seq"] for record in done] == sorted(record["seq"] for record in done)
        assert hub.hub.uptime < 3600
        assert (await client.call("audit:verify"))["valid"] is True
        cursor = events[2]["cursor"]
        async with talk(hub.url, f"?after={cursor}") as again:
            assert await again.numbers(3) == [4, 5, 6]


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_monotonic_clock_is_what_measures_a_call(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offset = time.time, [0.0]

    def prepare(hub: Hub) -> None:
        @hub.command("clock:jump")
        async def jump(call: Call) -> None:
            """Set the clock back while a call runs."""
            offset[0] = -3600.0

    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    if weakened:
        monkeypatch.setattr("hub.commands.registry.time.monotonic", time.time)
    async with hub_app(tmp_path, prepare=prepare) as hub:
        await hub.post("api/commands/clock:jump", {})
        (done,) = await hub.records("command.finished")
        assert (done["details"]["ms"] < 0) is weakened
