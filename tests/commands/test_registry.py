"""The registry, and the life of a call: checked, recorded, run within its time, recorded."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from marshmallow import Schema, fields
from running import until

from hub.audit.log import AuditLog
from hub.commands import supervised
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.registry import Registry
from hub.errors import CommandError, HubError


class Log:
    """As much of an audit log as a call needs, in a list; it can be made to fail."""

    reduced = staticmethod(AuditLog.reduced)

    def __init__(self) -> None:
        self.records: list[tuple[str, Mapping[str, Any]]] = []
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        self.broken = False
        self.unrecorded = 0

    async def record(self, action: str, actor: Any, trust: str, details: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise HubError("audit_unavailable", "The audit log cannot be written.")
        self.records.append((action, details))

    def note(self, action: str, actor: Any, trust: str, details: Mapping[str, Any], *, key: str | None = None) -> None:
        """As the log has it: without a key it is a record that nobody waits for."""
        (self.notes if key else self.records).append((action, details))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def commands(log: Log) -> Registry:
    commands = Registry(log, 5.0)  # type: ignore[arg-type]
    commands.on_call.freeze()
    return commands


def a_call(id: str = "1") -> Call:
    return Call(None, Client("websocket", "127.0.0.1:1", 1000), id)  # type: ignore[arg-type]


async def run(commands: Registry, name: str, args: Mapping[str, Any] | None = None, call: Call | None = None) -> Any:
    return json.loads(await commands.call(call or a_call(), name, args or {}))


async def echo(call: Call) -> Any:
    """Give back what came.

    Further text that the summary leaves out.
    """
    return call.args


async def test_a_call_is_recorded_before_and_after(commands: Registry, log: Log) -> None:
    seen: list[int] = []

    async def handler(call: Call) -> str:
        seen.append(len(log.records))
        return "done"

    commands.add("a:b", handler)
    assert await run(commands, "a:b", {"apiKey": "x", "y": 1}) == "done"
    assert seen == [1]  # the record was durable before the handler ran
    (called, first), (finished, last) = log.records
    assert (called, finished) == ("command.called", "command.finished")
    assert first == {"id": "1", "command": "a:b", "args": {"y": 1}}
    assert (last["id"], last["command"], last["outcome"]) == ("1", "a:b", "ok")
    assert last["ms"] >= 0


async def test_large_args_are_recorded_by_their_digest(commands: Registry, log: Log) -> None:
    commands.add("a:b", echo)
    await run(commands, "a:b", {"text": "x" * 5000})
    assert sorted(log.records[0][1]["args"]) == ["bytes", "sha256"]


@pytest.mark.parametrize(
    ("args", "path"),
    [({}, "order"), ({"order": "7"}, "order"), ({"order": 7, "trust": "ROOT"}, "trust"), ({"order": 7.5}, "order")],
)
async def test_bad_args_never_reach_the_handler(commands: Registry, log: Log, args: Any, path: str) -> None:
    commands.add("a:b", echo, {"order": fields.Integer(strict=True, required=True)})
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b", args)
    assert refused.value.code == "invalid_args"
    assert refused.value.details is not None
    assert path in refused.value.details
    assert log.records == []
    assert log.notes == [("command.refused", {"id": "1", "command": "a:b", "outcome": "invalid_args"})]


async def test_an_unknown_command(commands: Registry, log: Log) -> None:
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "unknown_command"
    assert [action for action, _ in log.notes] == ["command.refused"]


async def test_an_unknown_command_gets_the_one_that_was_meant(commands: Registry) -> None:
    async def handler(call: Call) -> None:
        pass

    commands.add("orders:cancel", handler)
    for name, said in (
        ("orders:cancle", "; did you mean orders:cancel? hub:commands lists them all."),
        ("no:such", "; hub:commands lists them."),
        ("orders:cancel" * 1000, "; hub:commands lists them."),
    ):
        with pytest.raises(HubError) as refused:
            await run(commands, name)
        assert refused.value.message == f"There is no command {name}{said}"


async def test_a_handlers_own_refusal(commands: Registry, log: Log) -> None:
    async def handler(call: Call) -> None:
        raise CommandError("No order with token ghp_" + "a1b2c3d4" * 5 + ".", {"order": ["Unknown."]})

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "command_failed"
    assert refused.value.message == "No order with token [redacted]."
    assert log.records[-1][1]["outcome"] == "command_failed"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
NOT_JSON = {"an object": object(), "nan": float("nan"), "a set": {1, 2}, "a date": datetime.now(UTC), "a cycle": CYCLE}


@pytest.mark.parametrize("result", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_result_that_is_not_json_is_a_bug(commands: Registry, result: Any) -> None:
    async def handler(call: Call) -> Any:
        return result

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "internal"


async def test_any_other_exception_is_internal_and_says_nothing(
    commands: Registry, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(call: Call) -> None:
        raise KeyError("the inside")

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    reference = refused.value.message.split()[-1].rstrip(".")
    assert refused.value.code == "internal"
    assert "inside" not in json.dumps(refused.value.payload())
    assert reference in caplog.text
    assert "the inside" in caplog.text
    assert log.records[-1][1]["outcome"] == "internal"


async def test_a_call_that_takes_too_long_is_ended(commands: Registry, log: Log) -> None:
    commands._runner.limit = 0.01

    async def handler(call: Call) -> None:
        await asyncio.Event().wait()

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "timeout"
    assert log.records[-1][1]["outcome"] == "timeout"


async def test_a_handlers_own_timeout_is_not_the_hubs(commands: Registry) -> None:
    async def handler(call: Call) -> None:
        raise TimeoutError

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "internal"


async def test_a_running_call_can_be_cancelled(commands: Registry, log: Log) -> None:
    running, call = asyncio.Event(), a_call()

    async def handler(call: Call) -> None:
        running.set()
        await asyncio.Event().wait()

    commands.add("a:b", handler)
    assert not call.cancel()  # nothing runs yet
    task = asyncio.create_task(run(commands, "a:b", call=call))
    await running.wait()
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(HubError) as refused:
        await task
    assert refused.value.code == "cancelled"
    assert log.records[-1][1]["outcome"] == "cancelled"
    assert not call.cancel()
    assert not commands.running


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("code", ["timeout", "cancelled", "shutting_down"])
async def test_a_handler_that_does_not_let_go_is_given_up(
    code: str, weakened: bool, commands: Registry, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "GRACE", 0.01)
    if weakened:
        monkeypatch.setattr(supervised.Work, "_wake", lambda work, task=None: task and work._over.set_result(None))
    asked, gate, call = asyncio.Event(), asyncio.Event(), a_call()

    async def stubborn(call: Call) -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                asked.set()
        return "done at last"

    commands.add("a:b", stubborn)
    commands._runner.limit = 0.01 if code == "timeout" else 5.0
    calling = asyncio.create_task(run(commands, "a:b", call=call))
    await until(lambda: call in commands.running)
    if code == "cancelled":
        assert call.cancel()
    ending = asyncio.create_task(commands.stop(0.01 if code == "shutting_down" else 60.0))
    await asked.wait()
    if weakened:  # its caller waits for as long as the handler likes, and so does the stop
        await asyncio.wait({calling, ending}, timeout=10 * supervised.GRACE)
        assert not calling.done()
        assert not ending.done()
        gate.set()
        assert await calling == "done at last"
    else:
        with pytest.raises(HubError) as refused:
            await calling
        assert refused.value.code == code
        assert [name for name, _ in log.records] == ["command.called", "command.finished"]
        assert log.records[-1][1]["outcome"] == code
        assert log.notes == [("command.abandoned", {"id": "1", "command": "a:b"})]
        assert not commands.running
        gate.set()
    await ending


async def test_what_a_handler_does_when_it_is_asked_to_end_counts_while_it_is_waited_for(commands: Registry) -> None:
    running = asyncio.Event()

    async def tidy(call: Call) -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "tidied up"

    commands.add("a:b", tidy)
    call = a_call()
    calling = asyncio.create_task(run(commands, "a:b", call=call))
    await running.wait()
    assert call.cancel()
    assert await calling == "tidied up"


async def test_who_waits_for_a_call_takes_it_along(commands: Registry, log: Log) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def handler(call: Call) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    commands.add("a:b", handler)
    calling = asyncio.create_task(run(commands, "a:b"))
    await running.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert ended.is_set()
    assert log.records[-1][1]["outcome"] == "cancelled"


@pytest.mark.parametrize("failure", [SystemExit(3), asyncio.CancelledError()], ids=["exit", "cancelled"])
async def test_a_handler_that_ends_itself_ends_nothing_else(
    commands: Registry, log: Log, failure: BaseException
) -> None:
    async def handler(call: Call) -> None:
        raise failure

    commands.add("a:b", handler)
    with pytest.raises(HubError) as refused:
        await run(commands, "a:b")
    assert refused.value.code == "internal"
    assert log.records[-1][1]["outcome"] == "internal"


async def test_a_call_whose_beginning_is_still_being_recorded_is_ended_too(
    commands: Registry, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ran = asyncio.Event(), []

    async def handler(call: Call) -> None:
        ran.append(1)

    async def slow(*args: Any) -> None:
        await gate.wait()
        log.records.append((args[0], args[3]))

    monkeypatch.setattr(log, "record", slow)
    commands.add("a:b", handler)
    calling = asyncio.create_task(run(commands, "a:b"))
    await asyncio.sleep(0)
    await commands.stop(0.01)
    settling = asyncio.create_task(commands.settle())
    await asyncio.sleep(0)
    assert not settling.done()  # the audit log must not be closed yet
    gate.set()
    with pytest.raises(HubError) as refused:
        await calling
    assert refused.value.code == "shutting_down"
    await settling
    assert ran == []
    assert log.records[-1][1]["outcome"] == "shutting_down"


async def test_stopping_waits_then_ends_what_runs(commands: Registry, log: Log) -> None:
    running, gate = asyncio.Event(), asyncio.Event()

    async def stuck(call: Call) -> None:
        running.set()
        await asyncio.Event().wait()

    async def quick(call: Call) -> str:
        await gate.wait()
        return "made it"

    commands.add("a:stuck", stuck)
    commands.add("a:quick", quick)
    first, second = (asyncio.create_task(run(commands, name)) for name in ("a:stuck", "a:quick"))
    await running.wait()
    gate.set()
    await commands.stop(0.05)
    assert await second == "made it"
    for late in (first, asyncio.create_task(run(commands, "a:quick"))):
        with pytest.raises(HubError) as refused:
            await late
        assert refused.value.code == "shutting_down"
        assert refused.value.retryable


class TestWithoutAnAuditLog:
    @pytest.mark.parametrize("effect", ["write", "dangerous"])
    async def test_what_changes_something_is_refused_and_does_not_run(
        self, commands: Registry, log: Log, effect: Any
    ) -> None:
        ran: list[int] = []

        async def handler(call: Call) -> None:
            ran.append(1)

        commands.add("a:b", handler, effect=effect)
        log.broken = True
        call = a_call()
        if effect == "dangerous":
            with pytest.raises(HubError) as unconfirmed:
                await run(commands, "a:b")
            assert unconfirmed.value.details
            call.confirm = unconfirmed.value.details["confirm"]
        with pytest.raises(HubError) as refused:
            await run(commands, "a:b", call=call)
        assert refused.value.code == "audit_unavailable"
        assert ran == []

    async def test_reads_are_answered_and_counted(self, commands: Registry, log: Log) -> None:
        commands.add("a:b", echo, effect="read")
        log.broken = True
        assert await run(commands, "a:b", {"x": 1}) == {"x": 1}
        assert log.unrecorded == 1

    async def test_an_end_that_cannot_be_recorded_is_not_answered_as_ok(self, commands: Registry, log: Log) -> None:
        async def handler(call: Call) -> str:
            log.broken = True
            return "ran"

        commands.add("a:b", handler)
        with pytest.raises(HubError) as refused:
            await run(commands, "a:b")
        assert refused.value.code == "audit_unavailable"

    async def test_publishing_goes_on(self, commands: Registry, log: Log) -> None:
        commands.add("a:b", echo, audited=False)
        log.broken = True
        assert await run(commands, "a:b") == {}


class TestRegistry:
    async def test_a_description(self, commands: Registry) -> None:
        commands.add("a:b", echo, {"order": fields.Integer(required=True)}, effect="dangerous")
        (command,) = commands
        assert command.describe() == {
            "name": "a:b",
            "summary": "Give back what came.",
            "args": {
                "type": "object",
                "properties": {"order": {"type": "integer"}},
                "required": ["order"],
                "additionalProperties": False,
            },
            "effect": "dangerous",
            "provider": None,
        }

    async def test_a_schema_with_hooks_of_its_own_is_run_whole(self, commands: Registry) -> None:

        class Odd(Schema):
            order = fields.Integer(required=True)

        commands.add("a:odd", echo, Odd)
        assert await run(commands, "a:odd", {"order": "7"}) == {"order": 7}

    @pytest.mark.parametrize(
        ("name", "kwargs", "error"),
        [
            ("bad", {}, ValueError),
            ("a:b", {}, ValueError),
            ("c:d", {"effect": "huge"}, ValueError),
        ],
    )
    async def test_what_cannot_be_registered(self, commands: Registry, name: str, kwargs: Any, error: Any) -> None:
        commands.add("a:b", echo)
        with pytest.raises(error):
            commands.add(name, echo, **kwargs)

    async def test_a_handler_must_be_async(self, commands: Registry) -> None:
        with pytest.raises(TypeError, match="async"):
            commands.add("c:d", lambda call: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_secret_in_an_id_or_a_name_is_not_noted(
    weakened: bool, commands: Registry, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.commands.registry.redact_text", lambda text: text)
    secret = "ghp_0123456789abcdefghij"
    commands.add("a:b", echo)
    await run(commands, "a:b", call=a_call(secret))
    with pytest.raises(HubError) as refused:
        await run(commands, f"a:{secret}", call=a_call(secret))
    noted = json.dumps([log.records, log.notes, refused.value.message])
    assert (secret in noted) is weakened
