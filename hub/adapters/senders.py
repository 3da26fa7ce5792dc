"""Who sends, and what each of them sends becomes: the table of the adapters."""

from collections.abc import Callable, Mapping
from typing import Any

from ..wire.vocabulary import Adapter
from . import alerts, claude_code, codex, copilot, cursor, gemini, github, systemd
from .shape import Given, Taken

ADAPTERS: Mapping[Adapter, Callable[[Given], Taken]] = {
    "claude-code": claude_code.take,
    "codex": codex.take,
    "gemini": gemini.take,
    "copilot": copilot.take,
    "cursor": cursor.take,
    "systemd": systemd.take,
    "github": github.take,
    "alertmanager": alerts.sender("alertmanager"),
    "grafana": alerts.sender("grafana"),
}
AGENTS: tuple[Adapter, ...] = ("claude-code", "codex", "gemini", "copilot", "cursor")
WAITS: Mapping[Adapter, float] = {"codex": 110.0}  # seconds that a question waits; its terminal shows nothing meanwhile
WAIT = 290.0
SILENT = frozenset({"codex"})  # who is told nothing at all where nothing is decided


def sender_of(body: Mapping[str, Any], named: Adapter) -> Adapter:
    """Who has sent this. The body says so rather than the address: Copilot runs Claude's hooks, too."""
    if named not in AGENTS:
        return named
    name = body.get("hook_event_name")
    if "cursor_version" in body:
        return "cursor"
    if "sessionId" in body:
        return "copilot"
    if "turn_id" in body or "thread-id" in body or "/.codex/" in str(body.get("transcript_path")):
        return "codex"
    if isinstance(name, str) and name.startswith(("Before", "After")):
        return "gemini"
    return named
