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
MODULE = ["-P", "-m", "hub"]  # behind Python where there is no program; not what lies in the folder of an agent
OWN_QUESTION = "AskUserQuestion"


class Settings(NamedTuple):
    """The settings of one agent: the file, what stands in a new one, what is written for each event; and whether an
    agent does anything by itself before it uses them."""

    file: Path
    new: Mapping[str, Any]
    entries: Callable[[list[str], bool], dict[str, list[Entry]]]
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


def _claude(hub: list[str], asks: bool) -> dict[str, list[Entry]]:
    def group(seconds: int, *more: str, **matcher: str) -> Entry:
        words = [*hub, "hook", "claude-code", *more]
        hook = {"type": "command", "command": words[0], "args": words[1:], "timeout": seconds}
        return {**matcher, "hooks": [hook]}

    found = {event: [group(SECONDS)] for event in CLAUDES}
    if asks:
        found["PreToolUse"].append(group(ASKING, "--ask", matcher=OWN_QUESTION))
    waiting = group(ASKING, "--ask") if asks else group(SECONDS)
    return found | {"PermissionRequest": [waiting], "Elicitation": [waiting]}


def _codex(hub: list[str], asks: bool) -> dict[str, list[Entry]]:
    def group(seconds: int, *more: str, **shown: str) -> Entry:
        return {"hooks": [{"type": "command", "command": _line(hub, "codex", *more), "timeout": seconds, **shown}]}

    found = {event: [group(SHORT if event in ("Interrupt", "SessionEnd") else 2 * SECONDS)] for event in CODEXS}
    asking = group(CODEX_ASKING, "--ask", statusMessage="Waiting for an answer in hub")
    return found | {"PermissionRequest": [asking if asks else group(2 * SECONDS)]}


def _gemini(hub: list[str], asks: bool) -> dict[str, list[Entry]]:
    hook = {"type": "command", "name": "hub", "command": _line(hub, "gemini"), "timeout": 1000 * SECONDS}
    return {event: [{"hooks": [dict(hook)]}] for event in GEMINIS}


def _copilot(hub: list[str], asks: bool) -> dict[str, list[Entry]]:
    """A hook of its that fails would deny."""

    def hook(seconds: int, *words: str) -> Entry:
        return {"type": "command", "bash": f"{_line(hub, 'copilot', *words)} || true", "timeoutSec": seconds}

    found = {event: [hook(2 * SECONDS, event)] for event in COPILOTS}
    return found | ({"permissionRequest": [hook(ASKING, "permissionRequest", "--ask")]} if asks else {})


def _cursor(hub: list[str], asks: bool) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {event: [{"command": _line(hub, "cursor")}] for event in CURSORS}
    if asks:
        for event in ("beforeShellExecution", "beforeMCPExecution"):
            found[event] = [{"command": _line(hub, "cursor", "--ask"), "timeout": ASKING}]
    return found


def _line(hub: list[str], *words: str) -> str:
    return shlex.join([*hub, "hook", *words])


# ---- what is hub's own


WRITTEN = frozenset({"type", "command", "args", "timeout", "name", "statusMessage", "bash", "timeoutSec"})


def is_own(entry: Any, agent: str) -> bool:
    """Whether hub has written this, in whatever place it was installed then."""
    if not isinstance(entry, dict):
        return False
    if "hooks" in entry:
        inner = entry["hooks"]
        is_group = entry.keys() == {"hooks"} or (entry.get("matcher") in (OWN_QUESTION, "") and len(entry) == 2)
        return is_group and isinstance(inner, list) and len(inner) == 1 and is_own(inner[0], agent)
    return entry.keys() <= WRITTEN and _is_line(_words(entry), agent)


def _words(hook: Entry) -> list[str]:
    args = hook.get("args", [])
    try:
        if "args" in hook:
            return [str(hook.get("command")), *map(str, args if isinstance(args, list) else ())]
        return shlex.split(str(hook.get("bash") or hook.get("command")))
    except ValueError:
        return []


def _is_line(words: list[str], agent: str) -> bool:
    if words[-2:] == ["||", "true"]:
        words = words[:-2]
    if words[1:4] == MODULE:
        words = ["hub", *words[4:]]
    known = {"--ask", *COPILOTS, "permissionRequest"}
    return (
        bool(words) and os.path.basename(words[0]) == "hub" and words[1:3] == ["hook", agent] and known >= {*words[3:]}
    )


def without_own(settings: Mapping[str, Any], agent: str) -> dict[str, Any]:
    """The settings without what is hub's own. Raises ValueError if their hooks have another form than an agent's."""
    hooks = settings.get("hooks", {})
    if not isinstance(hooks, dict) or not all(isinstance(entries, list) for entries in hooks.values()):
        raise ValueError("its hooks are not in the form that this agent has")
    kept = {event: [entry for entry in entries if not is_own(entry, agent)] for event, entries in hooks.items()}
    left = {event: entries for event, entries in kept.items() if entries or _was_there(hooks[event])}
    found = {name: value for name, value in settings.items() if name != "hooks"}
    if left or (not hooks and "hooks" in settings):
        return {name: left if name == "hooks" else value for name, value in settings.items()}
    return found


def with_own(settings: Mapping[str, Any], entries: Mapping[str, list[Entry]]) -> dict[str, Any]:
    """The settings with these entries, behind those that are there."""
    hooks = {event: list(known) for event, known in settings.get("hooks", {}).items()}
    for event, own in entries.items():
        stood_empty = hooks.get(event) == []
        hooks[event] = [*hooks.get(event, ()), *(map(_marked, own) if stood_empty else own)]
    return {**settings, "hooks": hooks}


def _marked(entry: Entry) -> Entry:
    """The same, marked as standing in a list that was empty, so that it is left when hub's own is taken back: with
    what every agent takes as said anyway."""
    return {"matcher": "", **entry} if "hooks" in entry else {"type": "command", **entry}


def _was_there(entries: list[Any]) -> bool:
    """Whether the list stood there, empty: it does still, or what is hub's in it is marked."""
    return not entries or any(
        entry.get("matcher") == "" if "hooks" in entry else entry.get("type") == "command" and "bash" not in entry
        for entry in entries
        if isinstance(entry, dict)
    )


def is_connected(settings: Any, agent: str) -> bool:
    """Whether any hook of the agent is hub's."""
    hooks = settings.get("hooks") if isinstance(settings, dict) else None
    lists = hooks.values() if isinstance(hooks, dict) else ()
    return any(is_own(entry, agent) for entries in lists if isinstance(entries, list) for entry in entries)
