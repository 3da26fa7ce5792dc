"""A client's conversation, without a socket: push a frame, read the answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.commands import session as module
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.ratelimit import Bucket
from hub.commands.session import Session
from hub.hub import Hub


class Talk:
    """One client of a hub that nobody listens to: `say` pushes a frame, `hear` waits for the next answer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.closed: list[tuple[int, str]] = []
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.client = Client("websocket", "127.0.0.1:1", 0)
        self.session = Session(
            hub,
            self.client,
            lambda text: self._answers.put_nowait(json.loads(text)),
            lambda code, reason: self.closed.append((code, reason)),
        )

    def say(self, text: str) -> None:
        self.session.receive(text)

    def call(self, id: str, command: str, /, **args: Any) -> None:
        self.say(json.dumps({"type": "command", "id": id, "payload": {"command": command, "args": args}}))

    async def hear(self) -> dict[str, Any]:
        return await self._answers.get()

    async def ask(self, id: str, command: str, /, **args: Any) -> dict[str, Any]:
        self.call(id, command, **args)
        answer = await self.hear()
        assert answer["id"] == id
        return answer


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(state_dir=tmp_path, max_calls=3)
    gate = asyncio.Event()

    @hub.command("test:wait")
    async def wait(call: Call) -> str:
        """Wait until the gate opens."""
        await gate.wait()
        return "open"

    @hub.command("test:open")
    async def open_gate(call: Call) -> None:
        gate.set()

    await hub.start()
    yield hub
    gate.set()
    await hub.stop()


@pytest.fixture
def talk(hub: Hub) -> Talk:
    return Talk(hub)


async def test_a_call_is_answered_by_its_id(talk: Talk) -> None:
    answer = await talk.ask("my id", "hub:ping", x=[1])
    assert answer["type"] == "response"
    assert answer["payload"] == {"pong": True, "args": {"x": [1]}}
    assert sorted(answer) == ["id", "payload", "timestamp", "type"]


async def test_answers_come_in_any_order(talk: Talk) -> None:
    talk.call("slow", "test:wait")
    assert (await talk.ask("quick", "hub:ping"))["type"] == "response"
    talk.call("key", "test:open")
    assert {(await talk.hear())["id"] for _ in range(2)} == {"slow", "key"}


async def test_an_id_that_is_running(talk: Talk) -> None:
    talk.call("a", "test:wait")
    assert (await talk.ask("a", "hub:ping"))["payload"]["code"] == "duplicate_id"
    await talk.ask("b", "test:open")
    await talk.hear()
    assert (await talk.ask("a", "hub:ping"))["type"] == "response"


async def test_too_many_calls_at_once(talk: Talk) -> None:
    for i in range(3):
        talk.call(str(i), "test:wait")
    answer = await talk.ask("more", "hub:ping")
    assert answer["payload"]["code"] == "busy"
    assert answer["payload"]["retryable"] is True
    assert answer["payload"]["retry_after"] > 0


async def test_cancelling_an_own_call(talk: Talk, hub: Hub) -> None:
    talk.call("slow", "test:wait")
    while not hub.commands.running:
        await asyncio.sleep(0)
    stranger = Talk(hub)
    assert (await stranger.ask("x", "hub:cancel", id="slow"))["payload"] == {"cancelled": False}
    talk.call("c", "hub:cancel", id="slow")
    answers = [await talk.hear() for _ in range(2)]
    by_id = {answer["id"]: answer["payload"] for answer in answers}
    assert by_id["c"] == {"cancelled": True}
    assert by_id["slow"]["code"] == "cancelled"


async def test_who_cancels_hears_whether_the_call_was(talk: Talk, hub: Hub) -> None:
    @hub.command("test:stubborn")
    async def stubborn(call: Call) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done all the same"

    talk.call("slow", "test:stubborn")
    while not hub.commands.running:
        await asyncio.sleep(0)
    talk.call("c", "hub:cancel", id="slow")
    by_id = {answer["id"]: answer["payload"] for answer in [await talk.hear() for _ in range(2)]}
    assert by_id == {"slow": "done all the same", "c": {"cancelled": False}}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ('{"type":"event","id":"1"}', "unexpected_type"),
        ('{"type":"response","id":"1","payload":null}', "unexpected_type"),
        ('{"type":"command","id":"1"}', "invalid_message"),
        ('{"type":"command","id":"1","payload":{"command":"no:such"}}', "unknown_command"),
        ('{"type":"command","id":"1","payload":{"command":"hub:info","args":{"x":1}}}', "invalid_args"),
        (
            '{"type":"command","id":"1","payload":{"command":"hub:publish","args":{"event":"hub:x","data":1}}}',
            "reserved_event",
        ),
    ],
)
async def test_what_is_wrong_is_answered_and_the_talk_goes_on(talk: Talk, text: str, code: str) -> None:
    talk.say(text)
    answer = await talk.hear()
    assert answer["type"] == "error"
    assert answer["payload"]["code"] == code
    assert answer["payload"]["error"].endswith(".")
    assert (await talk.ask("after", "hub:ping"))["type"] == "response"


async def test_a_flood_is_refused_then_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSALS", 50)
    talk = Talk(hub)
    talk.session._bucket = Bucket(0.001, 2)
    for i in range(52):
        talk.call(str(i), "no:such")
    answers = [await talk.hear() for _ in range(52)]
    refused = [answer for answer in answers if answer["payload"]["code"] == "rate_limited"]
    assert len(refused) == 50
    assert refused[0]["payload"]["retry_after"] > 0
    assert talk.closed == []
    talk.say("not even json")
    assert talk.closed == [(1008, "Too many messages")]


async def test_without_the_limit_a_flood_would_be_served(hub: Hub) -> None:
    talk = Talk(hub)
    talk.session._bucket = Bucket(0)
    for i in range(60):
        assert (await talk.ask(str(i), "hub:ping"))["type"] == "response"


@given(st.floats(1, 1000), st.lists(st.floats(0, 0.5), max_size=40))
def test_a_bucket_gives_no_more_than_its_rate(rate: float, waits: list[float]) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(module, "time", clock)
        bucket, taken = Bucket(rate), 0
        for wait in waits:
            clock.now += wait
            if (seconds := bucket.take()) == 0:
                taken += 1
            else:
                assert seconds <= 1 / rate
            assert taken <= 2 * rate + clock.now * rate + 1e-6
        if waits:
            clock.now += bucket.take() + 1e-9
            assert bucket.take() == 0 or bucket.take() <= 1 / rate
