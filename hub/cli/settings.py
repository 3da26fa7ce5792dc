"""The settings of agents: where each has its hooks, what hub writes there, and what of it is hub's own."""

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError

Entry = dict[str, Any]
SECONDS, SHORT, ASKING, CODEX_ASKING = 5, 3, 300, 120  # seconds that an agent waits for a hook
CLAUDES = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "SubagentStart",
    "SubagentStop",
    "TaskCreated",
    "TaskCompleted",
    "Notification",
    "Stop",
    "StopFailure",
    "PreCompact",
    "SessionEnd",
)
CODEXS = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "SubagentStart",
    "SubagentStop",
    "Stop",
    "Interrupt",
    "SessionEnd",
)
GEMINIS = ("SessionStart", "BeforeAgent", "BeforeTool", "AfterTool", "AfterAgent", "Notification", "SessionEnd")
COPILOTS = (
    "sessionStart",
    "userPromptSubmitted",
    "preToolUse",
    "postToolUse",
    "postToolUseFailure",
    "subagentStart",
    "subagentStop",
    "errorOccurred",
    "notification",
    "agentStop",
    "sessionEnd",
)
CURSORS = ("beforeSubmitPrompt", "beforeShellExecution", "beforeMCPExecution", "afterFileEdit", "stop")
OWN_QUESTION = "AskUserQuestion"


class Hook(NamedTuple):
    """How a hook is run: the words that begin hub, and those that lead it to the hub that is meant."""

    program: list[str]
    where: list[str]

    def words(self, agent: str, *more: str) -> list[str]:
        """Its command line."""
        return [*self.program, "hook", agent, *more, *self.where]

    def line(self, agent: str, *more: str) -> str:
        """Its command line, for a shell."""
        return shlex.join(self.words(agent, *more))


class Settings(NamedTuple):
    """The settings of one agent: the file, what stands in a new one, what is written for each event; and whether an
    agent does anything by itself before it uses them."""

    file: Path
    new: Mapping[str, Any]
    entries: Callable[[Hook, bool], dict[str, list[Entry]]]
    remark: str = ""


def settings_of(agent: str) -> Settings:
    """Where an agent has its hooks. Raises UsageError if this account has no home."""
    match agent:
        case "claude-code":
            return Settings(_folder("CLAUDE_CONFIG_DIR", ".claude") / "settings.json", {}, _claude)
        case "codex":
            new = {"description": "Tell hub what Codex does."}
            remark = "Codex runs them once you have trusted them: it asks when it starts next."
            return Settings(_folder("CODEX_HOME", ".codex") / "hooks.json", new, _codex, remark=remark)
        case "gemini":
            return Settings(_folder("", ".gemini") / "settings.json", {}, _gemini)
        case "copilot":
            file = _folder("", ".copilot") / "hooks" / "hub.json"
            return Settings(file, {"version": 1}, _copilot)
        case _:
            return Settings(_folder("", ".cursor") / "hooks.json", {"version": 1}, _cursor)


def _folder(variable: str, name: str) -> Path:
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return Path.home() / name
    except RuntimeError:
        raise UsageError("This account has no home, so no agent has settings there.") from None


# ---- what is written


def _claude(hub: Hook, asks: bool) -> dict[str, list[Entry]]:
    def group(seconds: int, *more: str, **matcher: str) -> Entry:
        words = hub.words("claude-code", *more)
        hook = {"type": "command", "command": words[0], "args": words[1:], "timeout": seconds}
        return {**matcher, "hooks": [hook]}

    found = {event: [group(SECONDS)] for event in CLAUDES}
    if asks:
        found["PreToolUse"].append(group(ASKING, "--ask", matcher=OWN_QUESTION))
    waiting = group(ASKING, "--ask") if asks else group(SECONDS)
    return found | {"PermissionRequest": [waiting], "Elicitation": [waiting]}


def _codex(hub: Hook, asks: bool) -> dict[str, list[Entry]]:
    def group(seconds: int, *more: str, **shown: str) -> Entry:
        return {"hooks": [{"type": "command", "command": hub.line("codex", *more), "timeout": seconds, **shown}]}

    found = {event: [group(SHORT if event in ("Interrupt", "SessionEnd") else 2 * SECONDS)] for event in CODEXS}
    asking = group(CODEX_ASKING, "--ask", statusMessage="Waiting for an answer in hub")
    return found | {"PermissionRequest": [asking if asks else group(2 * SECONDS)]}


def _gemini(hub: Hook, asks: bool) -> dict[str, list[Entry]]:
    hook = {"type": "command", "name": "hub", "command": hub.line("gemini"), "timeout": 1000 * SECONDS}
    return {event: [{"hooks": [dict(hook)]}] for event in GEMINIS}


def _copilot(hub: Hook, asks: bool) -> dict[str, list[Entry]]:
    """A hook of its that fails would deny."""

    def hook(seconds: int, *words: str) -> Entry:
        return {"type": "command", "bash": f"{hub.line('copilot', *words)} || true", "timeoutSec": seconds}

    found = {event: [hook(2 * SECONDS, event)] for event in COPILOTS}
    return found | ({"permissionRequest": [hook(ASKING, "permissionRequest", "--ask")]} if asks else {})


def _cursor(hub: Hook, asks: bool) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {event: [{"command": hub.line("cursor")}] for event in CURSORS}
    if asks:
        for event in ("beforeShellExecution", "beforeMCPExecution"):
            found[event] = [{"command": hub.line("cursor", "--ask"), "timeout": ASKING}]
    return found
