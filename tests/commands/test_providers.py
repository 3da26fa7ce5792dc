"""Commands that clients serve, without a socket: who provides what, and what becomes of each call."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import refused
from stores import passes
from workers import Visitor

from hub import Call, Hub
from hub.commands import listing
from hub.commands import providers as module
from hub.commands.clients import Client
from hub.commands.provided import Provided
from hub.errors import HubError
from hub.stats import snapshot
from hub.wire import argschema
from hub.wire.argschema import ArgSchema
from hub.wire.names import Patterns

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(port=0, state_dir=tmp_path, call_timeout=20.0, max_calls=8)

    @hub.command("own:command")
    async def own(call: Call) -> str:
        return "own"

    await hub.start()
    yield hub
    await hub.stop()


async def actions(hub: Hub, *wanted: str) -> list[dict[str, Any]]:
    """The audit records of these actions, once there is one of the last of them."""
    while True:
        found = [record for record in await hub.audit.tail(1000) if record["action"] in wanted]
        if any(record["action"] == wanted[-1] for record in found):
            return found
        await asyncio.sleep(0.001)


# ---- who provides what


async def test_a_call_is_sent_on_and_answered(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    assert await worker.provides("greet:hello") == {"provides": ["greet:hello"]}
    caller.call("1", "greet:hello", name="Ada")
    id, command, args = await worker.request()
    assert (command, args) == ("greet:hello", {"name": "Ada"})
    worker.say(type="response", id=id, payload={"hello": "Ada"})
    assert await caller.answer("1") == {"hello": "Ada"}
    called, finished = (await actions(hub, "command.called", "command.finished"))[-2:]
    assert called["details"] == {"id": "1", "command": "greet:hello", "args": {"name": "Ada"}}
    assert finished["details"]["outcome"] == "ok"


async def test_it_is_listed_while_it_is_provided(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    await worker.ask("hub:provide", commands=[{"name": "a:b", "summary": "Do b.", "effect": "read"}, {"name": "a:c"}])
    listed = {each["name"]: each for each in await caller.ask("hub:commands")}
    assert listed["a:b"] == {
        "name": "a:b", "summary": "Do b.", "args": {"type": "object"}, "effect": "read", "provider": worker.client.id
    }  # fmt: skip
    assert (listed["a:c"]["effect"], listed["own:command"]["provider"]) == ("write", None)
    (row,) = [row for row in await caller.ask("hub:clients") if row["client"] == worker.client.id]
    assert row["provides"] == ["a:b", "a:c"]
    assert snapshot(hub.metrics.registry)["hub_providers"] == 1
    assert await worker.provides() == {"provides": []}
    assert snapshot(hub.metrics.registry)["hub_providers"] == 0
    refused(await caller.ask("a:b"), "unknown_command")
    joined, left = await actions(hub, "provider.joined", "provider.left")
    assert joined["details"] == {"commands": ["a:b", "a:c"]}
    assert left["details"] == {"commands": ["a:b", "a:c"], "reason": "taken back"}
    assert joined["actor"]["client"] == left["actor"]["client"] == worker.client.id


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hub:x", "the hub's own"),
        ("audit:x", "the hub's own"),
        ("own:command", "has this command itself"),
        ("a:b", "twice"),
        ("b", "Not a name"),
        (f"x:{SECRET}", "looks like a secret"),
    ],
)
async def test_a_name_that_cannot_be_given(worker: Visitor, caller: Visitor, name: str, problem: str) -> None:
    error = refused(await worker.provides("a:b", name), "invalid_args")
    assert problem in error["details"]["commands"]["1"]["name"][0]
    refused(await caller.ask("a:b"), "unknown_command")  # all of the list, or none


async def shown(hub: Hub, caller: Visitor) -> str:
    """All that others see of what is provided, and what is noted of it."""
    noted = await actions(hub, "command.called", "provider.joined")
    lists = [await caller.ask(name) for name in ("hub:commands", "hub:clients")]
    return json.dumps([lists, noted])


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_is_shown_a_secret_in_a_name(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(module, "holds_secret", lambda text: False)
    await worker.provides("a:b")
    await worker.provides(f"x:{SECRET}")
    assert (SECRET in await shown(hub, caller)) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_is_shown_a_secret_in_a_description(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(module, "redact_text", lambda text: text)
        monkeypatch.setattr(argschema, "cleaned", lambda schema: schema)
    password = {"type": "string", "default": "hunter2", "description": f"not {SECRET}"}
    args = {"title": SECRET, "properties": {"password": password, "n": {"examples": [SECRET], "default": 5}}}
    await worker.provides("a:b", summary=f"with {SECRET}", args=args)
    text = await shown(hub, caller)
    assert (SECRET in text) is weakened
    assert ("hunter2" in text) is weakened
    (found,) = await caller.ask("hub:commands", name="a:b")
    if not weakened:
        assert found["summary"] == "with [redacted]"
        assert found["args"] == {
            "title": "[redacted]",
            "properties": {
                "password": {"type": "string", "description": "not [redacted]"},
                "n": {"examples": ["[redacted]"], "default": 5},
            },
        }
    refused(await caller.ask("a:b", password=5), "invalid_args")  # it is checked as before


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {SECRET: {}}},
        {"properties": {"a": {"const": SECRET}}},
        {"properties": {"a": {"enum": ["a", {"b": SECRET}]}}},
        {"required": [SECRET]},
    ],
)
async def test_what_is_checked_holds_no_secret(worker: Visitor, schema: dict[str, Any]) -> None:
    error = refused(await worker.provides("a:b", args=schema), "invalid_args")
    assert "looks like a secret" in json.dumps(error)
    assert SECRET not in json.dumps(error).replace(f'"{SECRET}": ', "")


async def test_an_expression_that_looks_like_a_secret_stays(worker: Visitor, caller: Visitor) -> None:
    schema = {"properties": {"url": {"pattern": "^x://[^:]+:[^@]+@"}}, "required": ["password", "url"]}
    await worker.provides("a:b", args=schema)
    (found,) = await caller.ask("hub:commands", name="a:b")
    assert found["args"] == schema


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_is_shown_a_secret_in_a_pattern(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(listing, "redact_text", lambda text: text)
    hub.broadcaster.narrow(worker.wire, Patterns([f"x:{SECRET}", "a:*"]))
    text = json.dumps(await caller.ask("hub:clients"))
    assert "a:*" in text
    assert (SECRET in text) is weakened


async def test_one_provider_a_name_until_it_goes(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    refused(await caller.provides("a:c", "a:b"), "already_provided")
    assert await worker.provides("a:b", "a:d", effect="read") == {"provides": ["a:b", "a:d"]}  # anew
    (found,) = await caller.ask("hub:commands", name="a:b")
    assert found["effect"] == "read"
    worker.leave()
    assert await caller.provides("a:b", "a:c") == {"provides": ["a:b", "a:c"]}


async def test_who_only_looks_on_provides_nothing_and_calls_what_reads(hub: Hub, worker: Visitor) -> None:
    await worker.provides("a:write")
    await worker.provides("a:read", effect="read")
    guest = Visitor(hub, "OBSERVER")
    refused(await guest.provides("a:c"), "forbidden")
    refused(await guest.ask("a:write"), "forbidden")
    guest.call("1", "a:read")
    id, command, _ = await worker.request()
    assert command == "a:read"
    worker.say(type="response", id=id, payload=None)
    assert await guest.answer("1") is None


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_call_that_comes_after_its_client_has_gone_provides_nothing(
    hub: Hub, worker: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(hub.providers, "_clients", [worker.client])
    worker.call("1", "hub:provide", commands=[{"name": "a:b"}])
    worker.leave()
    await worker.answer("1")
    assert ("a:b" in hub.commands.provided) is weakened


async def test_what_is_provided_is_bounded(hub: Hub, worker: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"a:{n}" for n in range(module.MAX_PROVIDED)]
    refused(await worker.provides(*names, "a:b"), "invalid_args")
    await worker.provides(*names)
    refused(await worker.provides("a:b"), "invalid_args")
    size = sum(len(json.dumps(each.describe(), separators=(",", ":"))) for each in hub.commands.provided.values())
    monkeypatch.setattr(module, "MAX_DESCRIBED", size)
    assert refused(await Visitor(hub).provides("a:b"), "busy")["retryable"]
    assert len(await worker.ask("hub:commands")) > module.MAX_PROVIDED


# ---- a call that ends before it is answered


async def test_a_cancelled_call_is_announced(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    assert await caller.ask("hub:cancel", id="1") == {"cancelled": True}
    refused(await caller.answer("1"), "cancelled")
    stop, command, args = await worker.request(2)
    assert (command, args) == ("hub:cancel", {"id": id})
    worker.say(type="response", id=stop, payload={"cancelled": True})
    worker.say(type="response", id=id, payload="late")
    await worker.ask("hub:ping")
    assert worker.answers == {}


async def test_an_answer_in_the_very_step_in_which_the_call_is_cancelled_is_too_late(
    worker: Visitor, caller: Visitor
) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    caller.client.calls["1"].cancel()
    worker.say(type="response", id=id, payload="late")
    refused(await caller.answer("1"), "cancelled")
    assert await worker.ask("hub:ping")
    assert worker.answers == {}


async def test_an_overdue_call_is_announced(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, call_timeout=0.05)
    await hub.start()
    worker, caller = Visitor(hub), Visitor(hub)
    await worker.provides("a:b")
    refused(await caller.ask("a:b"), "timeout")
    assert [command for _, command, _ in worker.asked] == ["a:b", "hub:cancel"]
    await hub.stop()


async def test_the_hubs_stop_ends_calls_and_announces_it(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, stop_timeout=0.05)
    await hub.start()
    worker, caller = Visitor(hub), Visitor(hub)
    await worker.provides("a:b")
    caller.call("1", "a:b")
    await worker.request()
    await hub.stop()
    refused(await caller.answer("1"), "shutting_down")
    assert worker.asked[-1][1] == "hub:cancel"


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_caller_that_goes_is_worked_for_no_more(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(hub.clients, "on_leave", [])
    await worker.provides("a:b")
    caller.call("1", "a:b")
    caller.say(type="command", id="2", payload={"command": "a:b", "idempotency_key": "k"})
    await worker.request(2)
    caller.leave()
    await passes(100)
    assert [args for _, command, args in worker.asked if command == "hub:cancel"] == (
        [] if weakened else [{"id": "call-1"}]
    )
    for id in ("call-1", "call-2"):
        worker.say(type="response", id=id, payload="done")
    while caller.session.client.calls:
        await asyncio.sleep(0.001)
    outcomes = [record["details"]["outcome"] for record in await actions(hub, "command.finished")]
    assert sorted(outcomes[-2:]) == (["ok", "ok"] if weakened else ["cancelled", "ok"])


async def test_a_dangerous_one_needs_its_confirmation(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:drop", effect="dangerous")
    confirm = refused(await caller.ask("a:drop", n=1), "confirmation_required")["details"]["confirm"]
    assert worker.asked == []
    caller.say(type="command", id="1", payload={"command": "a:drop", "args": {"n": 1}, "confirm": confirm})
    id, *_ = await worker.request()
    worker.say(type="response", id=id, payload="dropped")
    assert await caller.answer("1") == "dropped"


async def test_a_call_that_is_repeated_reaches_it_once(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    """Also when who called has gone meanwhile, and repeats it on another connection."""
    await worker.provides("a:b")
    payload = {"command": "a:b", "args": {}, "idempotency_key": "k"}
    caller.say(type="command", id="1", payload=payload)
    id, *_ = await worker.request()
    caller.leave()
    other = Visitor(hub)
    for repeat in ("2", "3"):
        other.say(type="command", id=repeat, payload=payload)
    worker.say(type="response", id=id, payload="once")
    assert [await other.answer(repeat) for repeat in ("2", "3")] == ["once", "once"]
    other.say(type="command", id="4", payload=payload)
    assert await other.answer("4") == "once"
    assert [command for _, command, _ in worker.asked] == ["a:b"]


# ---- a provider that goes, takes back, or does not read


@pytest.mark.parametrize("weakened", [False, True])
async def test_when_it_goes_its_calls_fail_at_once(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(hub.clients, "on_leave", [])
    await worker.provides("a:b")
    caller.call("1", "a:b")
    await worker.request()
    worker.leave()
    assert ("a:b" in hub.commands.provided) is weakened  # in that very step
    await passes(100)
    if weakened:
        assert "1" not in caller.answers
        caller.call("stop", "hub:cancel", id="1")
        await caller.answer("1")
        return
    assert refused(await caller.answer("1"), "provider_gone")["retryable"]
    assert [command for _, command, _ in worker.asked] == ["a:b"]
    (left,) = await actions(hub, "provider.left")
    assert left["details"] == {"commands": ["a:b"], "reason": "lost"}


async def test_a_call_that_comes_to_its_handler_after_that_fails_too(
    hub: Hub, worker: Visitor, caller: Visitor
) -> None:
    await worker.provides("a:b")
    call = Call(hub, caller.client, "1", command=hub.commands.provided["a:b"])
    worker.leave()
    with pytest.raises(HubError) as gone:
        await hub.providers._serve(call)
    assert gone.value.code == "provider_gone"


async def test_a_call_whose_beginning_is_being_recorded_fails_too(
    hub: Hub, worker: Visitor, caller: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.provides("a:b")
    record, go = hub.audit.record, asyncio.Event()

    async def slow(action: str, *rest: Any) -> None:
        if action == "command.called":
            await go.wait()
        await record(action, *rest)

    monkeypatch.setattr(hub.audit, "record", slow)
    caller.call("1", "a:b")
    await passes(10)
    worker.leave()
    another = Visitor(hub)
    go.set()
    refused(await caller.answer("1"), "provider_gone")
    assert worker.asked == another.asked == []


async def test_what_it_has_answered_in_the_step_before_it_goes_is_answered(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    worker.say(type="response", id=id, payload="done")
    worker.leave()
    assert await caller.answer("1") == "done"


async def test_what_it_takes_back_it_does_to_the_end(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    await worker.provides()
    refused(await caller.ask("a:b"), "unknown_command")
    worker.say(type="response", id=id, payload="done")
    assert await caller.answer("1") == "done"


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_does_not_read_is_sent_nothing_and_asked_little(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Client, "room", lambda client: asyncio.sleep(0))
    await worker.provides("a:b")
    worker.wire.pause()
    for n in range(8):
        caller.call(str(n), "a:b")
    other = Visitor(hub)
    while not hub.commands.running or len(hub.commands.running) < 8:
        await asyncio.sleep(0.001)
    await passes(100)
    assert len(worker.asked) == (8 if weakened else 0)
    assert refused(await other.ask("a:b"), "busy")["retry_after"]
    worker.wire.resume()
    await worker.request(8)
    assert len(worker.asked) == 8
    for id, *_ in worker.asked:
        worker.say(type="response", id=id, payload=None)
    for n in range(8):
        assert await caller.answer(str(n)) is None


async def test_what_it_has_to_answer_is_bounded_in_bytes(
    hub: Hub, worker: Visitor, caller: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD", 2000)
    await worker.provides("a:b")
    caller.call("1", "a:b", x="x" * 1500)
    id, *_ = await worker.request()
    refused(await caller.ask("a:b", x="x" * 1500), "busy")
    worker.say(type="response", id=id, payload=None)
    await caller.answer("1")
    caller.call("2", "a:b", x="x" * 1500)
    await worker.request(2)
    worker.leave()
    refused(await caller.answer("2"), "provider_gone")


# ---- what it says of its args

GREETING = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("weakened", [False, True])
async def test_args_that_do_not_fit_never_reach_it(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Provided, "check", lambda command, args: dict(args))
    await worker.provides("a:b", args=GREETING)
    (listed,) = await caller.ask("hub:commands", name="a:b")
    assert listed["args"] == GREETING
    caller.call("1", "a:b", name=5)
    if weakened:
        await worker.request()
        return
    error = refused(await caller.answer("1"), "invalid_args")
    assert error["details"] == {"name": ["Not a valid string."]}
    assert worker.asked == []
    assert (await actions(hub, "command.refused"))[-1]["details"]["outcome"] == "invalid_args"
    caller.call("2", "a:b", name="Ada")
    assert (await worker.request())[2] == {"name": "Ada"}


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_takes_long_to_be_checked_is_checked_in_turns(
    hub: Hub, worker: Visitor, caller: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Provided, "is_heavy", lambda command, weight: False)
    checked, check = list[Any](), ArgSchema.problems

    def counted(schema: ArgSchema, args: Any) -> Any:
        checked.append(args)
        return check(schema, args)

    monkeypatch.setattr(ArgSchema, "problems", counted)
    doubling = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(8)} | {"a8": {"type": "integer"}}
    schema = {"$defs": doubling, "properties": {"x": {"$ref": "#/$defs/a0"}}}
    await worker.provides("a:b", args=schema)
    caller.call("0", "a:b", x=1)
    await worker.request()
    checked.clear()
    neighbour, seen = Visitor(hub), list[int]()
    for n in range(1, 8):
        caller.call(str(n), "a:b", x=1)
    monkeypatch.setattr(neighbour.session, "_send", lambda text: seen.append(len(checked)))
    neighbour.call("ping", "hub:publish", event="a:x", data=1)  # which waits for no audit log
    await worker.request(8)
    assert len(checked) == 7
    assert (seen[0] == 7) is weakened


async def test_a_schema_that_is_not_to_be_had_is_refused_by_its_path(worker: Visitor, caller: Visitor) -> None:
    bad = {"properties": {"name": {"type": "strin"}}}
    commands = [{"name": "a:b"}, {"name": "a:c", "args": bad}]
    error = refused(await worker.ask("hub:provide", commands=commands), "invalid_args")
    assert "name" in error["details"]["commands"]["1"]["args"]["properties"]
    assert "commands.1.args.properties.name.type" in error["error"]
    refused(await caller.ask("a:b"), "unknown_command")
    refused(await worker.provides("a:b", args={"$ref": "https://example.org/other"}), "invalid_args")


# ---- where other hubs may have a name


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_client_that_goes_while_other_hubs_are_asked_provides_nothing(
    hub: Hub, worker: Visitor, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[list[str]] = []

    async def claim(given: object) -> bool:
        hub.clients.leave(worker.client, "lost")
        return not weakened  # that somebody was asked, and time has gone by

    monkeypatch.setattr(hub.providers, "claim", claim)
    monkeypatch.setattr(hub.providers, "release", released.append)
    answer = await worker.provides("greet:hello")
    assert (answer.get("code"), released) == ((None, []) if weakened else ("cancelled", [["greet:hello"]]))
    assert ("greet:hello" in hub.commands.provided) is weakened


async def test_what_another_hub_has_by_now_is_taken_back(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    await caller.provides("weather:now")
    await worker.provides("greet:hello", "greet:bye")
    hub.providers.lose(["greet:hello", "no:such"])
    assert list(hub.commands.provided) == ["weather:now", "greet:bye"]
    [left] = [record for record in await actions(hub, "provider.left") if record["action"] == "provider.left"]
    assert left["details"]["commands"] == ["greet:hello"]
