"""Cursor: conversations and generations; it waits for a permission, and can be told to ask in the editor."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .asking import permission
from .claude_code import ENDS
from .identities import part_of_id
from .reading import first_line, identity, number, summary, text
from .shape import Event, Given, Taken, Tool, passed_over
from .turns import Hook, Kind, closes, events, over
from .waits import mark

KINDS: Mapping[str, Kind] = {
    "sessionStart": "session_start",
    "beforeSubmitPrompt": "prompt",
    "beforeShellExecution": "tool_started",
    "afterShellExecution": "tool_finished",
    "beforeMCPExecution": "tool_started",
    "afterMCPExecution": "tool_finished",
    "afterFileEdit": "tool_finished",
    "stop": "stop",
    "sessionEnd": "session_end",
}
WAITS = ("beforeShellExecution", "beforeMCPExecution")
ENDED: Mapping[str, Kind] = {"aborted": "interrupt", "error": "failure"}  # how a turn has ended, if not well
UNDECIDED = {
    "permission": "ask",
    "user_message": "No answer came from hub; please decide here.",
    "agent_message": "The person decides in the editor.",
}


def take(given: Given) -> Taken:
    """What one of its hooks becomes."""
    body = given.body
    name = text(body.get("hook_event_name")) or given.event
    kind, session = KINDS.get(name), part_of_id(body.get("conversation_id"))
    if kind is None or not session:
        return passed_over({})
    if kind == "stop":
        kind = ENDED.get(text(body.get("status")), kind)
    asks = given.asks and name in WAITS
    tool = _tool(name, body)
    hook = _hook(given, kind, session, tool)
    allow, deny = {"permission": "allow"}, {"permission": "deny"}
    asked = permission(hook, given, tool, _folder(body), allow, lambda sentence: deny) if asks else None
    found = _waiting(hook, given) if asks else _events(hook, given, name)
    return Taken(
        events=found,
        question=asked,
        answer=UNDECIDED if asks else {},
        session=hook.agent,
        actor=hook.actor,
        tool=tool,
        ran=tool if kind == "tool_finished" else None,
        is_over=kind in ENDS and closes(hook, given),
        over=over(hook, found),
    )


def _hook(given: Given, kind: Kind, session: str, tool: Tool) -> Hook:
    body, turn = given.body, part_of_id(given.body.get("generation_id"))
    return Hook(
        kind=kind,
        sender="cursor",
        session=session,
        turn=turn,
        is_named=bool(turn),
        said=first_line(body.get("prompt")) if kind == "prompt" else "",
        reason=text(body.get("reason") or body.get("source")),
        error=first_line(body.get("error_message")),
        tool=tool.name,
        summary=summary(tool.input),
        mark=mark(tool.input),
        took=number(body.get("duration")),
    )


def _events(hook: Hook, given: Given, name: str) -> list[Event]:
    """A file that was edited says nothing of the turn: the next one is edited already."""
    found = events(hook, given)
    return found[:1] if name == "afterFileEdit" else found


def _waiting(hook: Hook, given: Given) -> list[Event]:
    """The tool waits for a person: so does the turn."""
    return [*events(hook, given)[:1], *events(replace(hook, kind="waiting", begins=True), given)]


def _tool(name: str, body: Mapping[str, Any]) -> Tool:
    if name in ("beforeMCPExecution", "afterMCPExecution"):
        return Tool(identity(body.get("tool_name")) or "mcp", body.get("tool_input"))
    if name == "afterFileEdit":
        return Tool("edit", {"file_path": body.get("file_path")})
    command = body.get("command")
    return Tool("shell", None if command is None else {"command": command})


def _folder(body: Mapping[str, Any]) -> Any:
    roots = body.get("workspace_roots")
    return body.get("cwd") or (roots[0] if isinstance(roots, list) and roots else "")
