"""Each sample by itself, in order, out of order and late: what it becomes, without a hub."""

import json
from typing import Any

import pytest
from hypothesis import given as having
from hypothesis import strategies as st
from samples import AGENTS_HOOKS, EXPECTED, HOOKS, Values, adapter_of, missing, sample

from hub.adapters import turns
from hub.adapters.ping import key_of
from hub.adapters.senders import ADAPTERS, sender_of
from hub.adapters.shape import Tool, is_same_call
from hub.adapters.turns import OVER
from hub.redaction import holds_secret, redact
from hub.stream.eventtypes import EventTypes

CLAUDE = "claude-code:7c1b4a52-0d3e-4f6a-9b1c-2e5d8f0a1b22"
TURN = f"{CLAUDE}/c0ffee00-1111-4222-8333-444455556666"


def body_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = sample(name)
    return found


def played(*names: str, values: Values | None = None) -> Values:
    """What these samples, one after the other, leave behind."""
    values = values or Values()
    for name in names:
        values.play(adapter_of(name), body_of(name), headers=body_of(name).get("_request", {}).get("headers", {}))
    return values


@pytest.mark.parametrize("name", HOOKS)
def test_a_sample_by_itself(name: str) -> None:
    assert missing(EXPECTED[name], played(name).events) == []


@pytest.mark.parametrize("sender", ["claude", "codex", "gemini", "copilot", "cursor"])
def test_samples_in_their_order(sender: str) -> None:
    values = Values()
    for name in (name for name in HOOKS if name.startswith(sender)):
        before = len(values.events)
        played(name, values=values)
        assert missing(EXPECTED[name], values.events[before:]) == [], name
    if sender == "cursor":  # of which there is no sample of an end
        values.play("cursor", body_of("cursor-03-after-file-edit") | {"hook_event_name": "stop", "status": "completed"})
    assert not [task for task in values.last.values() if task["status"] in ("running", "waiting_approval")]


@having(st.permutations(AGENTS_HOOKS), st.data())
def test_in_any_order_what_is_over_stays_so(names: list[str], data: st.DataObject) -> None:
    """A turn that is over runs again only where its sender names no turns, and a prompt begins the next."""
    values, types = Values(), EventTypes()
    for name in [*names, *data.draw(st.lists(st.sampled_from(AGENTS_HOOKS), max_size=8))]:
        over = {key[1] for key, value in values.last.items() if key[0] == turns.TASK and value["status"] in OVER}
        before = len(values.events)
        played(name, values=values)
        for event in values.events[before:]:
            types.check(event["event"], event["data"])
            task = event["data"].get("id")
            if event["event"] == turns.TASK and task in over and event["data"]["status"] not in OVER:
                assert task.endswith("/turn"), name
                assert "prompt" in body_of(name), name


def test_what_is_late_does_not_reopen_a_turn() -> None:
    values = played("claude-02-user-prompt-submit", "claude-15-stop")
    for late in ("claude-03-pre-tool-use", "claude-07-post-tool-use", "claude-05-permission-request"):
        assert played(late, values=values).status(TURN) == "succeeded", late
    assert played("claude-02-user-prompt-submit", values=values).status(TURN) == "succeeded"
    assert values.agent(CLAUDE) == "idle"


def test_weakened_what_is_late_would_reopen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "OVER", frozenset())
    values = played("claude-02-user-prompt-submit", "claude-15-stop", "claude-03-pre-tool-use")
    assert values.status(TURN) == "running"


def test_what_ends_a_turn_counts_also_late() -> None:
    values = played("claude-02-user-prompt-submit", "claude-19-session-end")
    assert (values.status(TURN), values.agent(CLAUDE)) == ("cancelled", "stopped")
    played("claude-15-stop", values=values)
    assert (values.status(TURN), values.agent(CLAUDE)) == ("succeeded", "stopped")


def test_nothing_runs_of_a_session_that_is_over() -> None:
    values = played("claude-19-session-end", "claude-03-pre-tool-use")
    assert values.status(TURN) is None
    assert values.events[-1]["event"] == "agent:tool_call"


def test_a_turn_without_a_name_begins_again_with_a_prompt() -> None:
    session = "gemini:3f6d2c1a-9b8e-4a77-b1c0-5d4e3f2a1b0c"
    values = played("gemini-02-before-agent", "gemini-06-after-agent", "gemini-03-before-tool")
    assert values.status(f"{session}/turn") == "succeeded"
    assert played("gemini-02-before-agent", values=values).status(f"{session}/turn") == "running"


def test_a_prompt_that_was_sent_before_the_end_is_late() -> None:
    prompt = body_of("gemini-02-before-agent") | {"timestamp": "2026-11-25T10:14:59.000Z"}
    values = played("gemini-06-after-agent")
    values.play("gemini", prompt)
    assert values.status(f"gemini:{prompt['session_id']}/turn") == "succeeded"
    values.play("gemini", prompt | {"timestamp": "2026-11-25T10:15:01.000Z"})
    assert values.status(f"gemini:{prompt['session_id']}/turn") == "running"


def test_a_prompt_ends_a_turn_that_was_interrupted() -> None:
    values = played("claude-02-user-prompt-submit")
    values.play("claude-code", body_of("claude-02-user-prompt-submit") | {"prompt_id": "next"})
    assert (values.status(TURN), values.status(f"{CLAUDE}/next")) == ("cancelled", "running")
    played("claude-15-stop", values=values)  # it comes late
    assert (values.status(TURN), values.agent(CLAUDE)) == ("succeeded", "active")


def test_a_hook_that_names_no_turn_means_the_open_one() -> None:
    values = played("claude-02-user-prompt-submit")
    stop = body_of("claude-15-stop")
    del stop["prompt_id"]
    values.play("claude-code", stop)
    assert (values.status(TURN), values.status(f"{CLAUDE}/turn")) == ("succeeded", None)


def test_the_name_and_the_time_of_a_turn_go_on_with_it() -> None:
    values = Values()
    values.play("claude-code", body_of("claude-02-user-prompt-submit"), now="2026-11-25T10:00:00.000Z")
    played("claude-03-pre-tool-use", "claude-07-post-tool-use", values=values)
    values.play("claude-code", body_of("claude-15-stop"), now="2026-11-25T10:00:01.500Z")
    task = values.value("task:progress", TURN)
    assert task is not None
    assert task["name"] == "Make the checkout tests pass"
    assert (task["started_at"], task["duration_ms"]) == ("2026-11-25T10:00:00.000Z", 1500)


def test_a_compaction_in_the_middle_of_a_turn_ends_nothing() -> None:
    values = played("claude-02-user-prompt-submit")
    values.play("claude-code", body_of("claude-01-session-start") | {"source": "compact"})
    assert values.agent(CLAUDE) == "active"


def test_a_failure_and_an_interrupt() -> None:
    values = played("claude-02-user-prompt-submit")
    failed = body_of("claude-15-stop") | {"hook_event_name": "StopFailure", "error": "rate_limit"}
    values.play("claude-code", failed)
    task = values.value("task:progress", TURN)
    assert task is not None
    assert (task["status"], task["error"], values.agent(CLAUDE)) == ("failed", "rate_limit", "error")
    values = played("codex-02-user-prompt-submit")
    values.play("codex", body_of("codex-06-stop") | {"hook_event_name": "Interrupt"})
    agent = "codex:" + body_of("codex-06-stop")["session_id"]
    assert values.agent(agent) == "idle"
    assert values.status(f"{agent}/{body_of('codex-06-stop')['turn_id']}") == "cancelled"


def test_what_gemini_waits_for_is_what_it_wants_to_do() -> None:
    """As version 0.61.0 says it: its message names no command."""
    values, body = Values(), body_of("gemini-04-notification")
    details = {"type": "exec", "title": "Confirm Shell Command", "command": "touch x", "rootCommand": "touch"}
    for given, said in (
        (details, "Confirm Shell Command: touch x"),
        ({"type": "edit", "filePath": "/x/a.py"}, "edit: /x/a.py"),
        ({"command": "ls"}, "ls"),
        ({"type": "info"}, "Tool Confirm requires execution"),
        (None, "Tool Confirm requires execution"),
    ):
        values.play("gemini", body | {"message": "Tool Confirm requires execution", "details": given})
        assert values.events[-1]["data"]["message"] == said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"error": "rate_limit", "last_assistant_message": "x"}, "rate_limit"),
        ({"error": "unknown", "last_assistant_message": "API Error: 400 no"}, "API Error: 400 no"),
        ({"error": "unknown", "error_details": "400 no\nmore", "last_assistant_message": "x"}, "400 no"),
        ({"error": "unknown"}, "unknown"),
        ({}, "failed"),
    ],
)
def test_why_a_turn_of_claude_failed(more: dict[str, Any], said: str) -> None:
    values = played("claude-02-user-prompt-submit")
    stop = {name: value for name, value in body_of("claude-15-stop").items() if name != "last_assistant_message"}
    values.play("claude-code", stop | {"hook_event_name": "StopFailure"} | more)
    assert (values.value("task:progress", TURN) or {})["error"] == said


def test_a_failed_tool_ends_the_waiting() -> None:
    values = played("claude-02-user-prompt-submit", "claude-05-permission-request", "claude-04-post-tool-use-failure")
    assert values.status(TURN) == "running"


def test_a_subagents_tools_are_its_own_and_the_turn_is_the_sessions() -> None:
    values = Values()
    values.play("claude-code", body_of("claude-03-pre-tool-use") | {"agent_id": "a1f9c3", "agent_type": "Explore"})
    call, task = values.events
    assert call["data"]["agent"] == f"{CLAUDE}/a1f9c3"
    assert (task["data"]["id"], task["data"]["agent"]) == (TURN, CLAUDE)


def test_codex_notify() -> None:
    values = Values()
    told = {
        "type": "agent-turn-complete",
        "thread-id": "t-1",
        "turn-id": "u-1",
        "cwd": "/home/user/api",
        "input-messages": ["Add a route\nplease"],
        "last-assistant-message": "Done.",
    }
    taken = values.play("claude-code", told)
    assert taken.answer is None
    task = values.value("task:progress", "codex:t-1/u-1")
    assert task is not None
    assert (task["status"], task["name"], values.agent("codex:t-1")) == ("succeeded", "Add a route", "idle")


@pytest.mark.parametrize("name", [name for name in AGENTS_HOOKS if not name.startswith("claude")])
def test_who_sent_it_is_read_from_the_body(name: str) -> None:
    """But for Gemini's hooks that every sender could have sent."""
    body = body_of(name)
    is_anybodys = name.startswith("gemini") and not body["hook_event_name"].startswith(("Before", "After"))
    assert sender_of(body, "claude-code") == ("claude-code" if is_anybodys else adapter_of(name))


def test_services_are_who_the_address_says() -> None:
    assert sender_of({"sessionId": "2"}, "github") == "github"
    assert sender_of({"cursor_version": "1", "sessionId": "2"}, "gemini") == "cursor"


def test_copilot_in_claudes_words() -> None:
    values = Values()
    values.play(
        "copilot", {"session_id": "s", "hook_event_name": "PreToolUse", "tool_name": "bash", "tool_input": "ls"}
    )
    assert values.events[0]["data"]["agent"] == "copilot:s"
    values.play("copilot", {"sessionId": "s", "toolName": "bash", "toolArgs": '{"command": "npm test"}'})
    assert values.events[2]["data"]["summary"] == "npm test"


def test_what_an_event_in_the_address_says() -> None:
    values = Values()
    values.play("copilot", {"sessionId": "s", "toolName": "bash", "toolArgs": {}}, event="permissionRequest")
    assert values.status("copilot:s/turn") == "waiting_approval"


def test_two_sessions_whose_ids_look_like_secrets_stay_two() -> None:
    values, kept = Values(), set[str]()
    for letter in "ab":
        body = {"session_id": f"ghp_{letter * 36}", "prompt_id": f"AKIA{letter.upper() * 16}", "agent_id": "x"}
        values.play("claude-code", {**body, "hook_event_name": "UserPromptSubmit", "prompt": "go"})
        kept |= {event["data"]["id"] for event in values.events}
    assert len(kept) == 4, "two agents, a turn each"
    assert not any(map(holds_secret, kept))


def test_a_subagent_that_has_stopped_starts_again_only_in_another_turn() -> None:
    values = Values()
    body = {"session_id": "s", "agent_id": "helper", "prompt_id": "1"}
    for event, prompt, then in (
        ("SubagentStart", "1", "active"),
        ("SubagentStop", "1", "stopped"),
        ("SubagentStart", "1", "stopped"),
        ("SubagentStart", "2", "active"),
    ):
        values.play("claude-code", {**body, "prompt_id": prompt, "hook_event_name": event})
        assert values.agent("claude-code:s/helper") == then, (event, prompt)


IDS = st.text(min_size=1, max_size=8) | st.sampled_from(
    [
        *(f"ghp_{letter * 36}" for letter in "abc"),
        *(f"Bearer {letter * 30}" for letter in "abc"),
        *(f"https://u:{letter * 9}@h" for letter in "abc"),
        *("x" * 150 + letter for letter in "abc"),
        *("a", "a/b", "b", "a\x00", " a", "x:/", "u:p@h", " ", "\x1f"),
    ]
)


@having(st.lists(st.tuples(IDS, IDS), min_size=2, max_size=4, unique=True), st.sampled_from(["prompt_id", "agent_id"]))
def test_what_has_another_id_is_another_one(pairs: list[tuple[str, str]], part: str) -> None:
    """Whatever ids look like, and whatever is taken out of them: two sessions, turns, subagents stay two."""
    kept = dict[tuple[str, ...], set[Any]]()
    for session, inner in pairs:
        values = Values()
        event = "UserPromptSubmit" if part == "prompt_id" else "SubagentStart"
        values.play("claude-code", {"session_id": session, part: inner, "hook_event_name": event, "prompt": "go"})
        for one in (redact(event["data"])[0] for event in values.events):
            name = "agent" if one["id"].count("/") == 0 else "part"
            kept.setdefault((name, session, *([inner] if name == "part" else [])), set()).add(one["id"])
    found = [id for ids in kept.values() for id in ids]
    assert all(len(ids) == 1 for ids in kept.values())
    assert len(set(found)) == len(found), kept


def test_jobs_units_and_alerts_whose_names_look_like_secrets_stay_two() -> None:
    values = Values()
    for letter in "ab":
        secret = f"ghp_{letter * 36}"
        values.play("systemd", {"argv": [secret]})
        values.play("alertmanager", {"alerts": [{"status": "firing", "fingerprint": secret}]})
        values.play("github", body_of("github-workflow-run-completed") | {"repository": {"full_name": f"u/{secret}"}})
    assert len({redact(event["data"])[0]["id"] for event in values.events}) == len(values.events) == 6
    assert key_of("ghp_" + "a" * 36) != key_of("ghp_" + "b" * 36)
    assert not holds_secret(key_of("ghp_" + "a" * 36) or "")
    taken = values.play("github", body_of("github-workflow-run-completed"), digest="d" * 64)
    assert taken.events[0].id == f"github:{'d' * 64}"


@having(
    st.permutations(["SubagentStart", "SubagentStop", "SubagentStop", "PreToolUse", "Stop", "SessionEnd"]),
    st.booleans(),
)
def test_in_any_order_no_subagent_goes_on_behind_its_end(names: list[str], is_named: bool) -> None:
    values = Values()
    body = {"session_id": "s", "agent_id": "x"} | ({"prompt_id": "1"} if is_named else {})
    for name in names:
        values.play("claude-code", {**body, "hook_event_name": name})
    assert values.agent("claude-code:s/x") == "stopped"


def test_the_end_of_a_session_is_that_of_its_subagents() -> None:
    values = Values()
    for agent in "xy":
        values.play("claude-code", {"session_id": "s", "agent_id": agent, "hook_event_name": "SubagentStart"})
    values.play("claude-code", {"session_id": "other", "agent_id": "z", "hook_event_name": "SubagentStart"})
    values.play("claude-code", {"session_id": "s", "hook_event_name": "SessionEnd"})
    assert [values.agent(f"claude-code:{name}") for name in ("s/x", "s/y", "other/z")] == [
        "stopped",
        "stopped",
        "active",
    ]
    values.play("claude-code", {"session_id": "s", "agent_id": "x", "hook_event_name": "SubagentStart"})
    assert values.agent("claude-code:s/x") == "stopped", "it comes late"


def test_a_subagent_of_a_sender_that_names_no_turns_begins_again_later() -> None:
    values = Values()
    for event, seconds, then in (
        ("subagentStart", 0, "active"),
        ("subagentStop", 9, "stopped"),
        ("subagentStart", 5, "stopped"),
        ("subagentStart", 10, "active"),
    ):
        body = {"sessionId": "s", "agentName": "explore", "timestamp": 1795600500000 + 1000 * seconds}
        values.play("copilot", body, event=event)
        assert values.agent("copilot:s/explore") == then, (event, seconds)


SECRET = "what-nobody-may-keep"


@pytest.mark.parametrize("name", AGENTS_HOOKS)
def test_what_is_never_stored(name: str) -> None:
    body = body_of(name) | {
        "tool_response": SECRET,
        "toolResult": SECRET,
        "prompt_response": SECRET,
        "user_email": SECRET,
        "transcript": [SECRET],
        "edits": [SECRET],
    }
    values = Values()
    taken = values.play(adapter_of(name), body, asks=True)
    assert SECRET not in json.dumps([values.events, taken.question and taken.question.details], default=str)


@pytest.mark.parametrize("name", AGENTS_HOOKS)
def test_what_is_long_is_cut(name: str) -> None:
    body = {
        key: value + "x" * 100_000 if isinstance(value, str) and key not in KEPT else value
        for key, value in body_of(name).items()
    }
    body["tool_input"] = {"command": "y" * 100_000, "description": "z" * 100_000}
    values = Values()
    taken = values.play(adapter_of(name), body, asks=True)
    assert all(len(json.dumps(event)) < 4096 for event in values.events)
    if taken.question:
        assert len(taken.question.text) <= 4000
        assert len(json.dumps(taken.question.details, ensure_ascii=False).encode()) < 8192


KEPT = ("hook_event_name", "session_id", "sessionId", "notification_type", "timestamp", "conversation_id", "tool_name")
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@having(st.sampled_from(HOOKS), st.data())
def test_whatever_stands_in_a_field_is_taken(name: str, data: st.DataObject) -> None:
    """Its events fit their schemas, and are JSON."""
    body = body_of(name)
    for field in data.draw(st.lists(st.sampled_from([*body]), unique=True)):
        if data.draw(st.booleans()):
            body[field] = data.draw(ANY)
        else:
            del body[field]
    values, types = Values(), EventTypes()
    values.play(adapter_of(name), body, asks=True)
    for event in values.events:
        json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
        types.check(event["event"], event["data"])


@having(st.sampled_from([*ADAPTERS]), st.dictionaries(st.text(), ANY))
def test_whatever_comes_is_passed_over(named: Any, body: dict[str, Any]) -> None:
    Values().play(named, body, asks=True)


def test_the_same_call() -> None:
    asked = Tool("Bash", {"command": "ls", "description": "look"})
    assert is_same_call(asked, Tool("Bash", {"command": "ls", "description": "look", "timeout": 3}))
    assert not is_same_call(asked, Tool("Bash", {"command": "ls -l", "description": "look"}))
    assert not is_same_call(asked, Tool("Edit", asked.input))
    assert not is_same_call(asked, Tool("Bash", {"timeout": 3}))
    assert is_same_call(Tool("Bash", "ls"), Tool("Bash", "ls"))
    assert not is_same_call(Tool("Bash", "ls"), Tool("Bash", {"command": "ls"}))
