"""Calls are weighed: whose turn it is, how much waits for its client, and how much a client's calls hold."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stores import passes
from wires import Wire

from hub import Call, Hub
from hub.commands import session
from hub.commands.clients import Client
from hub.commands.load import UNREAD, Load
from hub.commands.session import Session
from hub.errors import HubError
from hub.stream.passes import Passes
from hub.wire.vocabulary import Turns


class Reads:
    """Reads that end when the test says so: how many have begun, and the most that ran at once."""

    def __init__(self, hub: Hub) -> None:
        self.begun = self.inside = self.most = 0
        self.go = asyncio.Event()
        turns: Turns
        for turns in ("none", "client", "hub"):
            hub.commands.add(f"test:{turns}", self.read, effect="read", turns=turns)

    async def read(self, call: Call) -> Any:
        self.begun, self.inside = self.begun + 1, self.inside + 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
        return "x" * int(call.args.get("size", 1))


class Visitor:
    """A client with a session and a wire, which it reads or not."""

    def __init__(self, hub: Hub) -> None:
        self.wire, self.hub = Wire(), hub
        self.client = Client("websocket", "127.0.0.1:1", 0, subscriber=self.wire)
        self.answers: dict[str, Any] = {}
        self.session = Session(hub, self.client, self._answer, lambda code, reason: None)
        hub.clients.join(self.client)

    def _answer(self, text: bytes) -> None:
        answer = json.loads(text)
        self.answers[answer["id"]] = answer["payload"]

    def call(self, id: str, command: str, /, **args: Any) -> None:
        frame = {"type": "command", "id": id, "payload": {"command": command, "args": args}}
        self.session.receive(json.dumps(frame))

    async def idle(self) -> None:
        """All that it has called for is answered."""
        while running := [call.task for call in self.session.client.calls.values() if call.task]:
            await asyncio.wait(running)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(port=0, state_dir=tmp_path, rate=0)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
def reads(hub: Hub) -> Reads:
    return Reads(hub)


async def begun(hub: Hub, count: int) -> None:
    """So many calls are on record, and whatever they may do without waiting is done."""
    while len(hub.commands.running) < count:
        await asyncio.sleep(0.001)
    await passes(1000)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("command", ["test:client", "test:hub"])
async def test_one_read_after_the_other_for_each_client(
    command: str, weakened: bool, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        everybody = property(lambda load: contextlib.AsyncExitStack(), lambda load, lock: None)
        monkeypatch.setattr(Load, "reading", everybody)
    clients = Visitor(hub), Visitor(hub)
    for client in clients:
        for n in range(20):
            client.call(str(n), command)
    await begun(hub, 40)
    assert reads.most == (40 if weakened else 2)
    clients[0].call("other", "hub:ping")
    while "other" not in clients[0].answers:  # what takes no time waits for none of them
        await asyncio.sleep(0.001)
    reads.go.set()
    for client in clients:
        await client.idle()
        assert list(client.answers)[-20:] == [str(n) for n in range(20)]
    assert reads.most == (40 if weakened else 2)


async def test_the_hubs_own_reads_have_turns(hub: Hub) -> None:
    turns = {command.name: command.turns for command in hub.commands}
    assert {name for name, value in turns.items() if value == "none"} == {
        "hub:info", "hub:ping", "hub:publish", "hub:provide", "hub:ask", "hub:answer", "hub:cancel",
        "hub:seen",
        "audit:verify",
    }  # fmt: skip


async def test_a_call_that_waits_for_its_turn_can_be_cancelled(hub: Hub, reads: Reads) -> None:
    client = Visitor(hub)
    for id in ("first", "second"):
        client.call(id, "test:client")
    await begun(hub, 2)
    client.call("stop", "hub:cancel", id="second")
    while "second" not in client.answers:
        await asyncio.sleep(0.001)
    assert (client.answers["second"]["code"], reads.begun) == ("cancelled", 1)
    reads.go.set()
    await client.idle()
    assert client.answers["first"] == "x"


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_has_gone_is_not_read_for(
    weakened: bool, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(hub.clients, "on_leave", [])
    client = Visitor(hub)
    for n in range(20):
        client.call(str(n), "test:client")
    client.call("own", "test:none")  # as a command of an application: it may have an effect
    await begun(hub, 21)
    hub.clients.leave(client.client, "lost")
    reads.go.set()
    await client.idle()
    assert client.answers["own"] == "x"
    assert reads.begun == (21 if weakened else 2)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("command", ["test:none", "test:client"])
async def test_nothing_is_done_for_who_has_a_mebibyte_unread(
    command: str, weakened: bool, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes its time to record that calls have ended: so long their answers lie in the hub."""
    if weakened:

        async def room(load: Load) -> None:
            """Whoever asks is let in."""

        monkeypatch.setattr(Load, "room", room)
    recorded, record = asyncio.Event(), hub.audit.record

    async def slowly(action: str, *args: Any) -> None:
        if action == "command.finished":
            await recorded.wait()
        await record(action, *args)

    monkeypatch.setattr(hub.audit, "record", slowly)
    client = Visitor(hub)
    reads.go.set()
    for n in range(20):
        client.call(str(n), command, size=UNREAD // 2)
    while client.client.load.unread < (10 * UNREAD if weakened else UNREAD):
        await asyncio.sleep(0.001)
    await passes()
    before = reads.begun
    recorded.set()
    await client.idle()
    assert before == (20 if weakened else 2)
    assert (len(client.answers), reads.begun, client.client.load.unread) == (20, 20, 0)


@pytest.mark.parametrize("weakened", [False, True])
async def test_nothing_is_done_for_who_does_not_read(
    weakened: bool, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Visitor(hub)
    client.wire.pause()  # something is left over in its socket
    if weakened:
        monkeypatch.setattr(Client, "room", lambda client: client.load.room())
    client.call("1", "test:client")
    await begun(hub, 1)
    assert reads.begun == weakened
    client.wire.resume()
    reads.go.set()
    await client.idle()
    assert client.answers == {"1": "x"}


@pytest.mark.parametrize("weakened", [False, True])
async def test_running_calls_are_weighed_too(
    weakened: bool, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(session, "HELD", 10**9)
    client = Visitor(hub)
    for n in range(100):
        client.call(str(n), "test:none", pad="x" * 60_000)
    refused = [answer["code"] for answer in client.answers.values()]
    assert refused == ([] if weakened else ["busy"] * (100 - session.HELD // 60_100))
    reads.go.set()
    await client.idle()
    client.call("again", "test:none", pad="x" * 60_000)
    await client.idle()
    assert client.answers["again"] == "x"


async def test_waiting_counts_as_the_calls_time(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, call_timeout=0.05)
    await hub.start()
    reads, client = Reads(hub), Client("http", "127.0.0.1:1", 0)
    calls = [hub.commands.call(Call(hub, client, str(n)), "test:client", {}) for n in range(2)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [end.code for end in ends if isinstance(end, HubError)] == ["timeout", "timeout"]
    assert reads.begun == 1
    await hub.stop()


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("after", [True, False])
async def test_a_neighbour_is_answered_between_slices_of_reading(
    after: bool, weakened: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clients look for what is not there, fifty times each at once, forwards or backwards."""
    if weakened:

        async def turn(passes: Passes) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(Passes, "turn", turn)
        everybody = property(lambda load: contextlib.AsyncExitStack(), lambda load, lock: None)
        monkeypatch.setattr(Load, "reading", everybody)
    slices, names = 0, hub.broker.names

    async def counted(after: int, limit: int) -> list[tuple[int, str]]:
        nonlocal slices
        slices += 1
        return await names(after, limit)

    async def record(*args: Any) -> None:
        """The disk's time would be counted, too."""
        await asyncio.sleep(0)

    monkeypatch.setattr(hub.broker, "names", counted)
    monkeypatch.setattr(hub.audit, "record", record)
    for _ in range(5):
        await hub.bus.publish([{"event": "a:x", "data": n} for n in range(1000)], many=True)
    clients, neighbour = [Visitor(hub) for _ in range(3)], Visitor(hub)
    begin = {"after": f"{hub.broker.epoch}:0"} if after else {}
    for client in clients:
        for n in range(50):
            client.call(str(n), "hub:history", topics=["b:*"], **begin)
    most = 0
    for n in range(20):
        before = slices
        neighbour.call(str(n), "hub:ping")
        while str(n) not in neighbour.answers:
            await asyncio.sleep(0)
        most = max(most, slices - before)
    assert most > 100 if weakened else most <= 4
    for client in clients:
        await client.idle()
        assert all(answer["events"] == [] and answer["complete"] for answer in client.answers.values())
        assert len(client.answers) == 50
    assert slices >= 3 * 50 * 5


@pytest.mark.parametrize("weakened", [False, True])
async def test_large_calls_begin_one_after_the_other(weakened: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are recorded with is on the disk in the same moment: without turns all begin in one pass."""
    if weakened:
        monkeypatch.setattr("hub.commands.runner.LIGHT", 10**9)
    clock, begun = [0], list[int]()

    async def note(call: Call) -> None:
        begun.append(clock[0])

    hub.commands.add("test:note", note, effect="read")
    client = Visitor(hub)
    for n in range(40):
        client.call(str(n), "test:note", pad="x" * 20_000)
    while client.session.client.calls:
        clock[0] += 1
        await asyncio.sleep(0)
    most = max(map(begun.count, begun))
    assert (len(begun), most) == (40, most if weakened else 1)
    assert most > 1 or not weakened
