"""Copilot CLI: camel case without the event's name, or Claude's; it runs a repository's Claude hooks, too."""

import contextlib
from collections.abc import Mapping
from typing import Any

from .asking import permission
from .claude_code import ENDED_TOOLS, ENDS
from .identities import part_of_id
from .reading import first_line, identity, mapping, moment, read, summary, text
from .shape import Given, Taken, Tool, passed_over
from .turns import TURN, Hook, Kind, closes, events, over
from .waits import mark

KINDS: Mapping[str, Kind] = {
    "sessionstart": "session_start",
    "userpromptsubmitted": "prompt",
    "userpromptsubmit": "prompt",
    "pretooluse": "tool_started",
    "posttooluse": "tool_finished",
    "posttoolusefailure": "tool_failed",
    "permissionrequest": "waiting",
    "notification": "notification",
    "subagentstart": "subagent_start",
    "subagentstop": "subagent_stop",
    "agentstop": "stop",
    "stop": "stop",
    "erroroccurred": "failure",
    "precompact": "compaction",
    "sessionend": "session_end",
}

TOOL = "tool"  # one that is not named


def take(given: Given) -> Taken:
    """What one of its hooks becomes."""
    body = given.body
    named = text(_either(body, "hook_event_name", "hookName"))
    name = (named or given.event or _told_by_fields(body)).casefold()
    kind, session = KINDS.get(name), part_of_id(body.get("sessionId") or body.get("session_id"))
    if kind is None or not session:
        return passed_over({})
    if kind == "notification" and _either(body, "notification_type", "notificationType") == "permission_prompt":
        kind = "waiting"
    if kind == "failure" and body.get("recoverable") is True:
        kind = "notification"
    hook, tool = _hook(given, kind, session), _tool(body)
    asked, found = name == "permissionrequest", events(hook, given)
    return Taken(
        events=found,
        question=permission(hook, given, tool, body.get("cwd"), {"behavior": "allow"}, _denied) if asked else None,
        session=hook.agent,
        actor=hook.actor,
        tool=tool,
        ran=tool if kind in ENDED_TOOLS else None,
        starts=kind == "tool_started",
        waits=asked,
        is_over=kind in ENDS and closes(hook, given),
        over=over(hook, found),
        stops=kind == "subagent_stop",
    )


def _denied(sentence: str) -> Mapping[str, Any]:
    return {"behavior": "deny", "message": sentence}


def _hook(given: Given, kind: Kind, session: str) -> Hook:
    body, tool = given.body, _tool(given.body)
    error = body.get("error")
    return Hook(
        kind=kind,
        sender="copilot",
        session=session,
        turn=TURN,
        subagent=part_of_id(_either(body, "agentId", "agent_id", "agentName", "agent_name")),
        subagent_type=identity(_either(body, "agentName", "agent_name", "agent_type")),
        said=first_line(body.get("prompt") if kind == "prompt" else body.get("message")),
        reason=text(body.get("reason") or body.get("source") or _either(body, "notification_type", "trigger")),
        error=first_line(mapping(error).get("message") if isinstance(error, dict) else error),
        tool="" if kind == "waiting" and tool.name == TOOL else tool.name,
        summary=summary(tool.input),
        mark=mark(tool.input),
        call=identity(_either(body, "toolUseId", "tool_use_id", "toolCallId")),
        at=moment(body.get("timestamp")),
    )


def _tool(body: Mapping[str, Any]) -> Tool:
    """The tool and its args, which a permission request calls otherwise, and some versions write as JSON in a text."""
    given = _either(body, "toolArgs", "toolInput", "tool_input")
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            given = read(given.encode("utf-8", "replace"))
    return Tool(identity(_either(body, "toolName", "tool_name")) or TOOL, given)


def _told_by_fields(body: Mapping[str, Any]) -> str:
    """The event, where neither the body nor the address names it."""
    if "permissionSuggestions" in body:
        return "permissionRequest"
    if "toolName" in body:
        failed = "error" in body
        return "postToolUseFailure" if failed else "postToolUse" if "toolResult" in body else "preToolUse"
    told = {
        "prompt": "userPromptSubmitted",
        "stopReason": "agentStop",
        "error": "errorOccurred",
        "initialPrompt": "sessionStart",
        "source": "sessionStart",
        "reason": "sessionEnd",
        "notification_type": "notification",
    }
    return next((name for field, name in told.items() if field in body), "")


def _either(body: Mapping[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) not in (None, "")), None)
