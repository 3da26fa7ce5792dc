"""Claude Code: one hook, JSON on stdin, an event's name in it."""

import re
from collections.abc import Mapping
from typing import Any

from .asking import choice, permission
from .identities import part_of_id
from .reading import cleaned, first_line, identity, mapping, number, summary, text
from .shape import CANCEL, DECLINE, Given, Question, Taken, Tool, passed_over
from .turns import Hook, Kind, closes, events, over
from .waits import mark

KINDS: Mapping[str, Kind] = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "prompt",
    "PreToolUse": "tool_started",
    "PostToolUse": "tool_finished",
    "PostToolUseFailure": "tool_failed",
    "PermissionRequest": "waiting",
    "Elicitation": "waiting",
    "Notification": "notification",
    "SubagentStart": "subagent_start",
    "SubagentStop": "subagent_stop",
    "Stop": "stop",
    "StopFailure": "failure",
    "SessionEnd": "session_end",
    "TaskCreated": "item_created",
    "TaskCompleted": "item_completed",
    "PreCompact": "compaction",
}
ASKS = "AskUserQuestion"  # the tool by which the agent itself asks a person
ECHOED = 256 * 1024  # bytes of a body of which something waits with the question, to go back with its answer
ENDS = ("stop", "failure", "interrupt", "session_end")
ENDED_TOOLS = ("tool_finished", "tool_failed")


def take(given: Given) -> Taken:
    """What one of its hooks becomes."""
    return taken(given, "claude-code", KINDS, part_of_id(given.body.get("prompt_id")), {})


def taken(given: Given, sender: str, kinds: Mapping[str, Kind], turn: str, answer: Mapping[str, Any] | None) -> Taken:
    """As `take`, for whoever has Claude's names. `answer`: what goes back where nothing is decided."""
    body = given.body
    name = text(body.get("hook_event_name")) or given.event
    kind, session = kinds.get(name), part_of_id(body.get("session_id"))
    if kind is None or not session:
        return passed_over(answer)
    hook = _hook(given, name, kind, sender, session, turn)
    tool, found = Tool(hook.tool, body.get("tool_input")), events(hook, given)
    return Taken(
        events=found,
        question=_question(hook, given, name, tool),
        answer=answer,
        session=hook.agent,
        actor=hook.actor,
        call=hook.call if sender == "claude-code" else "",
        tool=tool,
        ran=tool if kind in ENDED_TOOLS else None,
        starts=kind == "tool_started",
        waits=name == "PermissionRequest",
        is_over=kind in ENDS and closes(hook, given),
        over=over(hook, found),
        stops=kind == "subagent_stop",
    )


def _hook(given: Given, name: str, kind: Kind, sender: str, session: str, turn: str) -> Hook:
    body = given.body
    if name == "PreToolUse" and body.get("tool_name") == ASKS:
        kind = "waiting"
    tool = _server(body) if name == "Elicitation" else identity(body.get("tool_name")) or "tool"
    return Hook(
        kind=kind,
        sender=sender,
        session=session,
        turn=turn,
        is_named=bool(turn),
        subagent=part_of_id(body.get("agent_id")),
        subagent_type=identity(body.get("agent_type")),
        said=_said(name, body),
        reason=text(body.get("reason") or body.get("source") or body.get("notification_type") or body.get("trigger")),
        error=_error(body),
        tool=tool,
        summary=summary(body.get("tool_input")),
        mark=mark(body.get("tool_input")),
        begins=name == "PreToolUse",
        call=identity(body.get("tool_use_id")),
        item=part_of_id(body.get("task_id")),
        took=number(body.get("duration_ms")),
    )


def _server(body: Mapping[str, Any]) -> str:
    """How the names of the tools of the server begin that asks."""
    named, _ = cleaned(identity(body.get("mcp_server_name")))  # written as a part of a name, a secret is none
    return f"mcp__{re.sub('[^A-Za-z0-9_-]', '_', named)}" if named else ""


def _error(body: Mapping[str, Any]) -> str:
    """Why something failed: in words, where its kind is not known."""
    words = (body.get(name) for name in ("error_details", "last_assistant_message"))
    kind = first_line(body.get("error"))
    return next(filter(None, map(first_line, words)), kind) if kind == "unknown" else kind


def _said(name: str, body: Mapping[str, Any]) -> str:
    match name:
        case "UserPromptSubmit":
            return first_line(body.get("prompt"))
        case "Elicitation":
            server, message = identity(body.get("mcp_server_name")), first_line(body.get("message"))
            return text(f"{server}: {message}" if server else message)
        case "TaskCreated" | "TaskCompleted":
            return first_line(body.get("task_subject"))
        case "PreToolUse" if body.get("tool_name") == ASKS:
            return first_line(_asked(body).get("question"))
        case "Notification":
            return first_line(body.get("message"))
    return ""


# ---- questions


def _question(hook: Hook, given: Given, name: str, tool: Tool) -> Question | None:
    if name == "PermissionRequest":
        cwd = given.body.get("cwd")
        return permission(hook, given, tool, cwd, _decided(behavior="allow"), _denied)
    if hook.sender != "claude-code":
        return None
    if name == "Elicitation":
        return _elicitation(hook, given)
    return _own_question(hook, given, tool) if name == "PreToolUse" and tool.name == ASKS else None


def _decided(**decision: str) -> Mapping[str, Any]:
    return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}


def _denied(sentence: str) -> Mapping[str, Any]:
    return _decided(behavior="deny", message=sentence)


def _asked(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The question of the tool, if it is one by itself."""
    questions = mapping(body.get("tool_input")).get("questions")
    return mapping(questions[0]) if isinstance(questions, list) and questions else {}


def _own_question(hook: Hook, given: Given, tool: Tool) -> Question | None:
    """What the agent asks, if one label is the whole answer. Questions go back as they came, never as they were kept:
    what is kept has no secrets."""
    questions, asked = mapping(tool.input).get("questions"), _asked(given.body)
    text, options = asked.get("question"), asked.get("options")
    if not (isinstance(questions, list) and len(questions) == 1 and isinstance(text, str)):
        return None
    if asked.get("multiSelect") not in (None, False) or not isinstance(options, list) or given.size > ECHOED:
        return None

    def decision(label: str) -> Mapping[str, Any] | None:
        if label not in labels:
            return None
        output = {
            "hookEventName": "PreToolUse",
            "permissionDecision": "allow",
            "permissionDecisionReason": "Answered in hub",
            "updatedInput": {"questions": questions, "answers": {text: label}},
        }
        return {"hookSpecificOutput": output}

    labels = [mapping(option).get("label") for option in options]
    return choice(hook, given, text, labels, (), tool, given.body.get("cwd"), decision)


def _elicitation(hook: Hook, given: Given) -> Question | None:
    """What an MCP server asks, if its form is one choice."""
    body = given.body
    schema = mapping(body.get("requested_schema"))
    properties = mapping(schema.get("properties"))
    if len(properties) != 1 or body.get("mode", "form") != "form" or given.size > ECHOED:
        return None
    ((field, wanted),) = properties.items()
    if mapping(wanted).get("type", "string") != "string":
        return None

    def decision(chosen: str) -> Mapping[str, Any] | None:
        output: dict[str, Any] = {"hookEventName": "Elicitation"}
        if chosen in labels:
            return {"hookSpecificOutput": output | {"action": "accept", "content": {field: chosen}}}
        return {"hookSpecificOutput": output | {"action": chosen}} if chosen in (DECLINE, CANCEL) else None

    labels = mapping(wanted).get("enum") or []
    tool = Tool(identity(body.get("mcp_server_name")), body.get("requested_schema"))
    asked = f"{tool.name}: {text(body.get('message'), 1000)}"
    return choice(hook, given, asked, labels, (DECLINE, CANCEL), tool, body.get("cwd"), decision)
