"""Many large bodies of hooks at once: what they take together is bounded."""

import asyncio
import io
import json
import re
import signal
from pathlib import Path

import pytest
from aiohttp import ClientSession
from running import HubProcess, hub_process
from samples import sample

pytestmark = [pytest.mark.once, pytest.mark.timeout(180)]

MIB = 1024 * 1024
MOST = 400  # MiB above what the hub has at rest: bodies that are read at once, and one that is parsed
SENDERS, ASKERS, WAITING = 16, 40, 200
LISTS = "[],"  # of all JSON this becomes the most: an object of 56 bytes from each 3
# Nobody is told to come again, however slow the machine is; weakened, all are taken at once, and kept as they came.
PATIENT = """
from hub.web import hooks


def setup(hub):
    real = hooks.Hooks.__init__

    def begin(self, patience):
        real(self, 1000.0)

    hooks.Hooks.__init__ = begin
"""
WEAKENED = """
from contextlib import nullcontext

from hub.web import hooks
from hub.web.room import Room


def setup(hub):
    real = hooks.Hooks.__init__

    def begin(self, patience):
        real(self, patience)
        self.parsing, self.room = nullcontext(), Room(10**12, patience)

    hooks.Hooks.__init__ = begin
    hooks.marked = lambda tool: tool
"""


AHEAD = """
from hub.web import program


def setup(hub):
    program.READ_AHEAD = 256 * 1024  # as aiohttp does it
"""


def peak(hub: HubProcess) -> int:
    """The most memory that the process has had so far, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{hub.process.pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


def large(name: str, member: str, *, of_lists: bool) -> bytes:
    """A sample of 4 MiB."""
    body = json.dumps(sample(name) | {member: {"content": "LARGE"}})
    room = 4 * MIB - len(body) - 16
    value = f"[{LISTS * (room // len(LISTS))}[]]" if of_lists else f'"{"x" * room}"'
    return body.replace('"LARGE"', value).encode()


async def send(hub: HubProcess, path: str, data: bytes) -> tuple[int, str]:
    """What one sender gets."""
    async with ClientSession() as http, http.post(f"{hub.url}{path}", data=io.BytesIO(data)) as response:
        return response.status, await response.text() if response.status == 200 else ""


def flags(tmp_path: Path, *, weakened: bool, change: str = WEAKENED) -> tuple[str, ...]:
    (tmp_path / "changed.py").write_text(change if weakened else PATIENT)
    return "--load", "changed"


async def test_what_many_senders_of_4_mib_take_is_bounded(tmp_path: Path) -> None:
    async with hub_process(tmp_path, *flags(tmp_path, weakened=False)) as hub:
        before = peak(hub)
        data = large("claude-07-post-tool-use", "tool_response", of_lists=False)
        told = await asyncio.gather(*(send(hub, "hooks/claude-code", data) for _ in range(SENDERS)))
        assert set(told) == {(200, "{}")}
        assert peak(hub) - before < MOST


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_becomes_large_is_bounded_too(tmp_path: Path, weakened: bool) -> None:
    """Of lists each takes seconds to parse. When three are done, all the room was in use, with one that is parsed."""
    async with hub_process(tmp_path, *flags(tmp_path, weakened=weakened), status=-signal.SIGKILL) as hub:
        before = peak(hub)
        data = large("claude-07-post-tool-use", "tool_response", of_lists=True)
        sending = [asyncio.create_task(send(hub, "hooks/claude-code", data)) for _ in range(SENDERS)]
        while sum(one.done() for one in sending) < 3 and peak(hub) - before < MOST:
            await asyncio.sleep(0.02)
        assert (peak(hub) - before < MOST) is not weakened
        assert {one.result() for one in sending if one.done()} <= {(200, "{}")}
        hub.signal(signal.SIGKILL)
        await asyncio.gather(*sending, return_exceptions=True)


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_waits_with_a_question_weighs_little(tmp_path: Path, weakened: bool) -> None:
    async with hub_process(tmp_path, *flags(tmp_path, weakened=weakened)) as hub:
        before, path = peak(hub), "hooks/claude-code?ask=1&timeout=120"
        data = large("claude-05-permission-request", "tool_input", of_lists=False)
        asking = asyncio.gather(*(send(hub, path, data) for _ in range(ASKERS)))
        found = None
        while not asking.done() and not (found and int(found[1]) == ASKERS):
            async with hub.http.get(f"{hub.url}metrics") as response:
                found = re.search(r"^hub_questions_open (\d+)", await response.text(), re.MULTILINE)
            await asyncio.sleep(0.05)
        assert (peak(hub) - before < 120) is not weakened
        async with hub.http.post(f"{hub.url}hooks/claude-code", json=sample("claude-15-stop")) as response:
            assert response.status == 200
        told = set(await asking)
        assert (200, "{}") in told
        # Weakened, what a slow machine has not read within the time for a body is refused; else none is.
        assert told <= {(200, "{}"), (429, ""), (408, "")} if weakened else told <= {(200, "{}"), (429, "")}


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_waits_to_be_read_waits_with_its_sender(tmp_path: Path, weakened: bool) -> None:
    """Of a body for which there is no room yet little is here."""
    head = "POST /hooks/claude-code HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 4000000\r\n\r\n"
    async with hub_process(tmp_path, *flags(tmp_path, weakened=weakened, change=AHEAD)) as hub:
        before, sending = peak(hub), list[asyncio.StreamWriter]()
        for _ in range(WAITING):
            _, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            writer.write(head.format(hub.port).encode() + bytes(MIB))
            sending.append(writer)
        left, same = [0], 0
        while same < 100:  # looks at which nothing more has been taken
            await asyncio.sleep(0.01)
            now = [writer.transport.get_write_buffer_size() for writer in sending]
            left, same = now, same + 1 if now == left else 0
        assert (peak(hub) - before < WAITING // 2) is not weakened
        for writer in sending:
            writer.transport.abort()
