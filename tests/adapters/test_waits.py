"""A permission that still stands in the terminal is never lost from what waits, whatever else the agent does."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Values, sample

from hub.adapters import waits
from hub.adapters.waits import MOST, PENDING, WAITING
from hub.redaction import redact
from hub.wire.vocabulary import Adapter

Body = dict[str, Any]
INPUTS: Mapping[str, Mapping[str, Any]] = {
    "a": {"command": "rm -rf build"},
    "b": {"command": "cat notes"},
    "c": {"command": "rm -rf build", "timeout": 5},
}


def claude(kind: str, call: str) -> Body:
    names = {"begins": "PreToolUse", "asks": "PermissionRequest", "ends": "PostToolUse", "fails": "PostToolUseFailure"}
    id = {} if kind == "asks" else {"tool_use_id": f"toolu_{call}"}
    body: Body = sample("claude-05-permission-request") | {"hook_event_name": names[kind], **id}
    return body | {"tool_name": "Read" if call == "b" else "Bash", "tool_input": INPUTS[call]}


def codex(kind: str, call: str) -> Body:
    return {**claude(kind, call), "turn_id": "t"}


def copilot(kind: str, call: str) -> Body:
    names = {"begins": "preToolUse", "asks": "permissionRequest", "ends": "postToolUse", "fails": "postToolUseFailure"}
    body = {"sessionId": "s", "hook_event_name": names[kind], "toolName": "bash", "toolArgs": INPUTS[call]}
    return body | ({"timestamp": 1795600500000} if kind == "begins" else {})


def gemini(kind: str, call: str) -> Body:
    names = {"begins": "BeforeTool", "asks": "Notification", "ends": "AfterTool", "fails": "AfterTool"}
    body = {"session_id": "s", "hook_event_name": names[kind]}
    if kind == "asks":
        return body | {"notification_type": "ToolPermission", "details": {"type": "exec", **INPUTS[call]}}
    failed = {"tool_response": {"error": "no"}} if kind == "fails" else {}
    return body | {"tool_name": "run_shell_command", "tool_input": INPUTS[call]} | failed


SENDERS: Mapping[Adapter, Callable[[str, str], Body]] = {
    "claude-code": claude,
    "codex": codex,
    "copilot": copilot,
    "gemini": gemini,
}


def task(values: Values) -> dict[str, Any]:
    (found,) = (data for (event, _), data in values.last.items() if event == "task:progress")
    return found


def played(sender: Adapter, *steps: str, values: Values | None = None) -> Values:
    """What `asks a`, `ends b` and so on, one after the other, leave behind."""
    values = values or Values()
    for step in steps:
        kind, call = step.split()
        values.play(sender, SENDERS[sender](kind, call))
    return values


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("end", ["ends", "fails"])
def test_only_its_own_end_ends_a_wait(sender: Adapter, end: str) -> None:
    values = played(sender, "begins a", "begins b", "asks a", f"{end} b")
    assert (task(values)["status"], task(values)["message"].endswith("rm -rf build")) == (WAITING, True)
    assert task(played(sender, f"{end} a", values=values))["status"] == "running"
    assert PENDING not in task(values)


@pytest.mark.parametrize("sender", SENDERS)
def test_another_tool_that_begins_ends_no_wait(sender: Adapter) -> None:
    values = played(sender, "asks a", "begins b")
    assert task(values)["status"] == WAITING
    assert task(played(sender, "ends b", values=values))["status"] == WAITING
    assert task(played(sender, "begins a", values=values))["status"] == "running", "it may run, or is tried again"


@pytest.mark.parametrize("sender", ["claude-code", "codex", "copilot"])
def test_each_that_waits_is_ended_by_itself(sender: Adapter) -> None:
    values = played(sender, "begins a", "begins b", "asks a", "asks b")
    assert task(values)["message"].endswith("cat notes")
    played(sender, "ends b", values=values)
    assert (task(values)["status"], task(values)["message"].endswith("rm -rf build")) == (WAITING, True)
    assert task(played(sender, "ends a", values=values))["status"] == "running"


def test_weakened_another_tool_would_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "ended", lambda pending, over: [])
    assert task(played("claude-code", "begins a", "begins b", "asks a", "ends b"))["status"] == "running"


def test_calls_of_the_same_input_are_told_by_their_ids() -> None:
    values = Values()
    for call in ("1", "2"):
        values.play("claude-code", {**claude("begins", "a"), "tool_use_id": call})
        values.play("claude-code", claude("asks", "a"))
    values.play("claude-code", {**claude("ends", "a"), "tool_use_id": "2"})
    assert task(values)["status"] == WAITING
    values.play("claude-code", {**claude("ends", "a"), "tool_use_id": "1"})
    assert task(values)["status"] == "running"


def test_what_a_sender_fills_in_meanwhile_changes_nothing() -> None:
    values = played("codex", "asks a")
    filled = {**codex("ends", "c"), "tool_use_id": ""}
    values.play("codex", filled)
    assert task(values)["status"] == "running"


def test_a_permission_that_names_no_call_is_for_one_of_those_that_run() -> None:
    note = sample("copilot-04-notification") | {"sessionId": "s"}
    values = played("copilot", "begins a", "begins b")
    values.play("copilot", note)
    assert task(played("copilot", "ends b", values=values))["status"] == WAITING, "it may be the other one's"
    assert task(played("copilot", "ends a", values=values))["status"] == "running"
    values = played("copilot", "begins a")
    values.play("copilot", note)
    assert task(played("copilot", "begins b", "ends b", values=values))["status"] == WAITING
    assert task(played("copilot", "ends a", values=values))["status"] == "running"


def test_a_server_of_tools_waits_until_one_of_its_own_is_over() -> None:
    values = Values()
    values.play("claude-code", claude("begins", "b"))
    values.play("claude-code", {**claude("begins", "a"), "tool_name": "mcp__deploy__run"})
    values.play("claude-code", sample("claude-14-elicitation"))
    assert task(played("claude-code", "ends b", values=values))["status"] == WAITING
    values.play("claude-code", {**claude("ends", "a"), "tool_name": "mcp__deploy__run"})
    assert task(values)["status"] == "running"


def test_a_late_prompt_of_the_turn_itself_ends_no_wait() -> None:
    values = played("claude-code", "asks a")
    values.play("claude-code", sample("claude-02-user-prompt-submit"))
    assert (task(values)["status"], task(values)["name"]) == (WAITING, "Make the checkout tests pass")
    values.play("claude-code", sample("claude-15-stop"))
    assert (task(values)["status"], PENDING in task(values)) == ("succeeded", False)


def test_a_subagent_that_stops_waits_for_nothing() -> None:
    values = Values()
    values.play("claude-code", {**claude("asks", "a"), "agent_id": "a1f9c3"})
    values.play("claude-code", {**claude("asks", "b"), "agent_id": "other"})
    values.play("claude-code", sample("claude-10-subagent-stop"))
    assert (task(values)["status"], len(task(values)[PENDING])) == (WAITING, 1)
    values.play("claude-code", sample("claude-10-subagent-stop") | {"agent_id": "other"})
    assert task(values)["status"] == "running"


def test_what_others_have_published_is_waited_for_by_any() -> None:
    assert waits.of({"status": WAITING, "message": "Deploy?", PENDING: [1, {"x": "y"}, {"tool": 3}, {}]}) == [
        {"asks": "Deploy?"}
    ]
    assert waits.of({"status": WAITING, PENDING: {"asks": "x"}}) == [{"asks": "a permission"}]
    assert waits.of({"status": "succeeded", PENDING: [{"asks": "x"}]}) == []
    assert waits.ended([{"asks": "Deploy?"}], waits.call("Bash", None, "", "")) == []


def test_what_is_kept_is_bounded_and_has_no_secrets() -> None:
    values = Values()
    values.play("claude-code", claude("asks", "a"))
    large = {f"{n:03}": "x" * 10**4 for n in range(100)} | {"password": "hunter2"}
    for number in range(3 * MOST):
        call = {"tool_name": "T" * 10**4, "tool_use_id": f"{number}" * 1000, "tool_input": large}
        values.play("claude-code", {**claude("begins", "a"), **call})
    assert (task(values)["status"], len(task(values)[PENDING])) == (WAITING, MOST)
    assert len(str(task(values)[PENDING])) < MOST * 1100
    assert redact(task(values)) == (task(values), 0)
    assert waits.mark({"password": "hunter2"}) == waits.mark({"password": "other"}) == ""


STEPS = st.lists(
    st.sampled_from([f"{kind} {call}" for kind in ("begins", "asks", "ends") for call in "ab"]), max_size=12
)


@given(STEPS)
def test_in_any_order_what_was_asked_for_behind_its_beginning_waits_for_its_own_end(steps: list[str]) -> None:
    values, standing, running = Values(), set[str](), set[str]()
    for step in steps:
        kind, call = step.split()
        if kind == "begins" and call in running:
            continue
        played("claude-code", step, values=values)
        if kind == "begins":
            running.add(call)
        elif kind == "asks" and call in running:
            standing.add(call)
        elif kind == "ends":
            running.discard(call)
            standing.discard(call)
        assert not standing or task(values)["status"] == WAITING
