"""HubClient.provide, against a real hub: what a handler may do, and what becomes of it when a connection breaks."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, Talk, hub_app, open_streams, refused, talk, until
from scripted import Silent

from hub import CommandError, HubClient, HubError, NoHub, ServedCall
from hub.client import connections, providing

GREETING = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


@pytest.fixture
async def caller(hub: HubInside) -> AsyncIterator[Talk]:
    async with talk(hub.url, "?topics=no:thing") as client:
        yield client


@pytest.fixture
async def worker(hub: HubInside) -> AsyncIterator[HubClient]:
    async with HubClient(hub.url) as client:
        yield client


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits before another attempt are short."""
    monkeypatch.setattr(connections, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connections, "LONGEST_DELAY", 0.1)


async def greet(call: ServedCall) -> Any:
    """Greet somebody.

    At length.
    """
    return f"Hello, {call.args['name']}"


class Gate:
    """A handler that ends when the test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = self.inside = self.most = self.cancelled = 0

    async def __call__(self, call: ServedCall) -> Any:
        self.begun, self.inside = self.begun + 1, self.inside + 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1
        return call.id


def link(hub: HubInside) -> Any:
    """The connection by which the commands are served, at the hub's end."""
    (found,) = [stream for stream in open_streams(hub) if hub.hub.providers.names(stream.client)]
    return found


async def test_a_command_is_served(hub: HubInside, caller: Talk, worker: HubClient) -> None:
    await worker.provide("greet:hello", greet, args=GREETING, effect="read")
    assert await caller.call("greet:hello", name="Ada") == "Hello, Ada"
    (listed,) = await caller.call("hub:commands", name="greet:hello")
    assert (listed["summary"], listed["args"], listed["effect"]) == ("Greet somebody.", GREETING, "read")
    assert (await caller.fails("greet:hello", "invalid_args"))["details"]["name"]
    await worker.provide("greet:bye", greet, summary="Part.")
    assert await caller.call("greet:bye", name="Ada") == "Hello, Ada"


async def test_what_a_handler_raises(caller: Talk, worker: HubClient, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(call: ServedCall) -> Any:
        raise CommandError("There is no such order.", call.args)

    async def fail(call: ServedCall) -> Any:
        raise ZeroDivisionError("the secret plan")

    async def odd(call: ServedCall) -> Any:
        return object()

    async def large(call: ServedCall) -> Any:
        return "ä" * 40_000

    async def stray(call: ServedCall) -> Any:
        raise asyncio.CancelledError

    for name, handler in {"refuse": refuse, "fail": fail, "odd": odd, "large": large, "stray": stray}.items():
        await worker.provide(f"a:{name}", handler)
    error = await caller.fails("a:refuse", "command_failed", order=7)
    assert (error["error"], error["details"]) == ("There is no such order.", {"order": 7})
    for name in ("fail", "odd", "stray"):
        sentence = (await caller.fails(f"a:{name}", "command_failed"))["error"]
        assert sentence.startswith(f"a:{name} failed; the log of its provider says why under the reference ")
        assert sentence[:-1].rpartition(" ")[2] in caplog.text
    assert (await caller.fails("a:large", "command_failed"))["error"] == (
        "The answer of a:large is too large: what a provider sends may have 65536 bytes (--max-frame of the hub). "
        "It has to say less, or part of it at a time, as its args ask for."
    )
    assert await caller.call("hub:ping")


@pytest.mark.parametrize("what", ["refusal", "details", "progress"])
async def test_what_no_frame_can_hold_does_not_end_the_provider(caller: Talk, worker: HubClient, what: str) -> None:
    async def large(call: ServedCall) -> Any:
        if what == "progress":
            await call.progress("x" * 70_000)
        raise CommandError("x" * 70_000 if what == "refusal" else "No.", {"field": ["x" * 70_000]})

    await worker.provide("a:large", large)
    for _ in range(2):
        answer = await caller.answer(await caller.begin("a:large"))
        assert answer["payload"]["code"] == "command_failed"
        assert len(str(answer)) < 1000


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_whatever_a_handler_answers_somebody_hears_of_it(
    caller: Talk, worker: HubClient, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the hub could not read, whoever has called would hear that, and nothing of what the handler has said."""
    if weakened:
        monkeypatch.setattr("hub.client.connections.text_of", json.dumps)
    answers: list[Any] = []

    async def odd(call: ServedCall) -> Any:
        answer = answers[call.args["n"]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    await worker.provide("a:odd", odd)
    answers += [nested(depth) for depth in range(29, 34)]
    if weakened:
        id = await caller.begin("a:odd", n=answers.index(nested(32)))
        assert "a frame that does not fit" in (await caller.answer(id))["payload"]["error"]
        return
    answers += [CommandError("no file caf\udce9"), CommandError(b"bytes"), CommandError("No.", {"deep": nested(40)})]  # type: ignore[arg-type]
    answers += [{"half": "\udce9"}, float("nan"), {1, 2}]
    found = [(await caller.answer(await caller.begin("a:odd", n=n)))["payload"] for n in range(len(answers))]
    assert found[:3] == answers[:3]
    assert [payload["code"] for payload in found[3:]] == ["command_failed"] * 8
    assert [payload["error"] for payload in found[5:8]] == ["no file caf\\udce9", "b'bytes'", "No."]


async def test_it_says_how_far_it_is(caller: Talk, worker: HubClient) -> None:
    async def slow(call: ServedCall) -> Any:
        await call.progress({"percent": 50})
        await call.progress("nearly")
        return "done"

    await worker.provide("a:slow", slow)
    assert await caller.call("a:slow", "my id") == "done"
    assert [frame["payload"]["data"] for frame in caller.events] == [
        {"call": "my id", "percent": 50}, {"call": "my id", "data": "nearly"}
    ]  # fmt: skip


@pytest.mark.parametrize("weakened", [False, True])
async def test_several_run_side_by_side_and_no_more(
    caller: Talk, worker: HubClient, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("asyncio.Semaphore", lambda count: _Nothing())
    gate = Gate()
    await worker.provide("a:gate", gate, at_once=3)
    ids = [await caller.begin("a:gate") for _ in range(8)]
    await until(lambda: gate.begun == (8 if weakened else 3))
    await caller.call("hub:ping")
    assert gate.most == (8 if weakened else 3)
    gate.open.set()
    assert len({(await caller.answer(id))["payload"] for id in ids}) == 8


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


async def test_a_cancelled_call_is_cancelled_here(caller: Talk, worker: HubClient) -> None:
    gate = Gate()
    await worker.provide("a:gate", gate, at_once=1)
    first, second = [await caller.begin("a:gate") for _ in range(2)]
    await until(lambda: gate.begun == 1)
    for id in (second, first):  # one that waits for its turn, too
        assert await caller.call("hub:cancel", id=id) == {"cancelled": True}
        refused((await caller.answer(id))["payload"], "cancelled")
    await until(lambda: gate.cancelled == 1)
    gate.open.set()
    assert await caller.call("a:gate")
    assert gate.begun == 2


async def test_after_a_break_it_is_provided_again(hub: HubInside, caller: Talk, worker: HubClient) -> None:
    gate = Gate()
    await worker.provide("a:gate", gate)
    await worker.provide("greet:hello", greet)
    for _ in range(3):
        id = await caller.begin("a:gate")
        await until(lambda: gate.inside == 1)
        old = link(hub)
        old.cut()
        refused((await caller.answer(id))["payload"], "provider_gone")
        await until(lambda: gate.inside == 0)
        await until(lambda: len(hub.hub.providers))
        assert link(hub) is not old
        assert await caller.call("greet:hello", name="Ada") == "Hello, Ada"
    assert gate.cancelled == 3


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_somebody_still_provides_is_tried_again(
    hub: HubInside, caller: Talk, worker: HubClient, weakened: bool, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """As the own connection of before, which for the hub is still there."""
    if weakened:
        monkeypatch.setattr(providing, "_is_for_a_while", lambda error: False)
    await worker.provide("greet:hello", greet)
    async with talk(hub.url, "?topics=no:thing") as old:
        id = (await old.call("hub:info"))["client"]
        [half_dead] = [stream.client for stream in open_streams(hub) if stream.client.id == id]
        for stream in open_streams(hub):
            if hub.hub.providers.names(stream.client):
                stream.cut()  # and in the same step, before it can come back:
        assert await hub.hub.providers.provide(half_dead, [{"name": "greet:hello", "summary": "", "effect": "write"}])
        if weakened:
            with pytest.raises(HubError, match="is provided by"):
                await worker.serve()
            return
        await until(lambda: caplog.text.count("is provided by") >= 2)
    assert await _served(caller) == "Hello, Ada"


async def _served(caller: Talk) -> Any:
    """The answer, once it is there."""
    while True:
        answer = await caller.answer(await caller.begin("greet:hello", name="Ada"))
        if answer["type"] == "response":
            return answer["payload"]
        assert answer["payload"]["code"] in ("unknown_command", "provider_gone")


async def test_what_the_hub_refuses(hub: HubInside, caller: Talk, worker: HubClient) -> None:
    await caller.call("hub:provide", commands=[{"name": "a:b"}])
    with pytest.raises(HubError) as taken:
        await worker.provide("a:b", greet)
    assert taken.value.code == "already_provided"
    with pytest.raises(HubError) as bad:
        await worker.provide("a:c", greet, args={"type": "strin"})
    assert (bad.value.code, list(bad.value.details or ())) == ("invalid_args", ["commands"])
    await worker.provide("greet:hello", greet)
    with pytest.raises(HubError):
        await worker.provide("greet:hello", greet, args={"type": "strin"})
    assert await caller.call("greet:hello", name="Ada") == "Hello, Ada"  # as before


async def test_where_no_hub_is(hub: HubInside) -> None:
    async with HubClient(hub.url, patience=0.05) as client:
        await hub.runner.cleanup()
        with pytest.raises(NoHub):
            await client.provide("greet:hello", greet)
        with pytest.raises(RuntimeError):
            await HubClient(hub.url).serve()


async def test_a_client_that_is_closed_serves_no_more(hub: HubInside, caller: Talk) -> None:
    gate = Gate()
    async with HubClient(hub.url) as client:
        await client.provide("a:gate", gate)
        id = await caller.begin("a:gate")
        await until(lambda: gate.inside == 1)
        serving = asyncio.create_task(client.serve())
        await asyncio.sleep(0)
        serving.cancel()  # takes nothing along
        await caller.call("hub:ping")
        assert gate.inside == 1
    assert gate.cancelled == 1
    refused((await caller.answer(id))["payload"], "provider_gone")
    await caller.fails("a:gate", "unknown_command")


async def test_it_ends_when_coming_back_cannot_help(
    hub: HubInside, worker: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(query: Mapping[str, str]) -> Any:
        raise HubError("forbidden", "Not you.")

    await worker.provide("greet:hello", greet)
    serving = asyncio.create_task(worker.serve())
    monkeypatch.setattr(worker._providing, "_connect", refuse)
    link(hub).close(1008, "Not allowed", "forbidden")
    with pytest.raises(HubError) as ended:
        await serving
    assert ended.value.code == "forbidden"


@pytest.mark.parametrize("how", ["a foreign frame", "barred once"])
async def test_what_may_pass_does_not_end_it(hub: HubInside, worker: HubClient, caller: Talk, how: str) -> None:
    await worker.provide("greet:hello", greet)
    if how == "barred once":
        link(hub).close(1008, "The token was replaced", "token")
    else:
        link(hub).send(b'{"type":"command","id":"call-1"}')
    await until(lambda: not len(hub.hub.providers))
    assert await _served(caller) == "Hello, Ada"


async def test_a_silent_port_takes_no_longer_than_its_patience(hub: HubInside, silent: Silent) -> None:
    async with HubClient(hub.url, patience=0.05) as client:
        client._url = silent.url
        with pytest.raises(NoHub, match="in time"):
            await client.provide("greet:hello", greet)
    assert silent.connections == 1
