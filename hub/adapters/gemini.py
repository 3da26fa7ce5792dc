"""Gemini CLI: it names no turns, and takes nothing but a denial: so it is only watched."""

from collections.abc import Mapping
from typing import Any

from .identities import part_of_id
from .reading import first_line, identity, mapping, moment, summary, text
from .shape import Given, Taken, passed_over
from .turns import TURN, Hook, Kind, events
from .waits import mark

KINDS: Mapping[str, Kind] = {
    "SessionStart": "session_start",
    "BeforeAgent": "prompt",
    "BeforeTool": "tool_started",
    "AfterTool": "tool_finished",
    "AfterAgent": "stop",
    "Notification": "notification",
    "PreCompress": "compaction",
    "SessionEnd": "session_end",
}


def take(given: Given) -> Taken:
    """What one of its hooks becomes."""
    body = given.body
    kind = KINDS.get(text(body.get("hook_event_name")) or given.event)
    session = part_of_id(body.get("session_id"))
    if kind is None or not session:
        return passed_over({})
    if kind == "notification" and body.get("notification_type") == "ToolPermission":
        kind = "waiting"
    said = body.get("prompt") if kind == "prompt" else _waited_for(body) if kind == "waiting" else body.get("message")
    if kind == "tool_finished" and mapping(body.get("tool_response")).get("error"):
        kind = "tool_failed"
    hook = Hook(
        kind=kind,
        sender="gemini",
        session=session,
        turn=TURN,
        said=first_line(said),
        reason=text(body.get("reason") or body.get("source") or body.get("notification_type") or body.get("trigger")),
        tool=identity(body.get("tool_name")) or ("" if kind == "waiting" else "tool"),
        summary=summary(body.get("tool_input")),
        mark=mark(_waiting_input(body) if kind == "waiting" else body.get("tool_input")),
        at=moment(body.get("timestamp")),
    )
    return Taken(events(hook, given), session=hook.agent)


def _waiting_input(body: Mapping[str, Any]) -> Any:
    """As much of the tool's input as stands in what it waits for."""
    command = mapping(body.get("details")).get("command")
    return {"command": command} if isinstance(command, str) else None


def _waited_for(body: Mapping[str, Any]) -> str:
    """What it wants to do; its message says only of which kind that is."""
    details = mapping(body.get("details"))
    named = (text(details.get(name)) for name in ("command", "filePath", "fileName", "url"))
    what, kind = next(filter(None, named), ""), text(details.get("title") or details.get("type"))
    return f"{kind}: {what}" if what and kind else what or text(body.get("message"))
