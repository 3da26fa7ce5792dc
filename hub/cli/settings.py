"""The settings of agents: where each has its hooks, what hub writes there, and what of it is hub's own."""

import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
from .edits import Edit, Part, Style, beginning, edited, parts, stood_empty, without

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


# ---- what is hub's own


# The flags that lead to a hub, and how what hub writes behind each begins.
WHERE: Mapping[str, tuple[str, ...]] = {
    "--url": ("http://", "https://"),
    "--state-dir": ("/",),
    "--token-file": ("/",),
    "--ca": ("/",),
}
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
    is_hub = bool(words) and os.path.basename(words[0]) == "hub" and words[1:3] == ["hook", agent]
    return is_hub and known >= {*_without_where(words[3:])}


def _without_where(words: list[str]) -> list[str]:
    """The words without those that lead to a hub, as hub itself writes them: with whole addresses and paths."""
    found, at = list[str](), 0
    while at < len(words):
        whole = WHERE.get(words[at])
        if whole and at + 1 < len(words) and words[at + 1].startswith(whole):
            at += 2
        else:
            found.append(words[at])
            at += 1
    return found


def put_in(text: str | None, new: Mapping[str, Any], entries: Mapping[str, list[Entry]]) -> str:
    """The text of the settings with these entries, behind those that are there. `new` is what stands in a new file."""
    if text is None:
        return json.dumps({**new, "hooks": entries}, indent=2, ensure_ascii=False) + "\n"
    style, top = Style(text), beginning(text)
    members = parts(text, top)
    hooks = next((member for member in members if member.name == "hooks"), None)
    if hooks is None:
        events = [style.member(event, _list(style, own)) for event, own in entries.items()]
        whole = style.member("hooks", style.whole("{}", events, 1))
        # On a line of its own it would be taken for a file that hub has made.
        return edited(text, style.added(top, members, [whole], 1, is_close=json.loads(text) == new))
    known = {event.name: event for event in parts(text, hooks.value)}
    edits, more = list[Edit](), list[str]()
    for event, own in entries.items():
        if event in known:
            at = known[event].value
            edits += style.added(at, parts(text, at), [style.value(entry, 3) for entry in own], 3)
        else:
            more.append(style.member(event, _list(style, own)))
    return edited(text, [*edits, *style.added(hooks.value, list(known.values()), more, 2)])


def _list(style: Style, entries: list[Entry]) -> str:
    return style.whole("[]", [style.value(entry, 3) for entry in entries], 2)


def taken_out(text: str | None, new: Mapping[str, Any], agent: str) -> str | None:
    """The text of the settings as it was before `put_in`; None if there was no file. Raises ValueError if their hooks
    have another form than an agent's."""
    if text is None:
        return None
    top = beginning(text)
    members = parts(text, top)
    hooks = next((member for member in members if member.name == "hooks"), None)
    if hooks is None:
        return text
    events = _events(text, hooks)
    edits, gone = list[Edit](), list[Part]()
    for event in events:
        entries = parts(text, event.value)
        own = [entry for entry in entries if is_own(json.loads(text[entry.start : entry.end]), agent)]
        if own and len(own) == len(entries) and not stood_empty(text, event.value, entries):
            gone.append(event)
        else:
            edits += without(text, event.value, entries, own)
    if not gone or len(gone) < len(events) or stood_empty(text, hooks.value, events):
        return edited(text, [*edits, *without(text, hooks.value, events, gone)])
    others = edited(text, without(text, top, members, [hooks]))
    index = members.index(hooks)
    is_apart = "\n" in text[members[index - 1].end if index else top : hooks.start]
    return None if is_apart and json.loads(others) == new else others


def _events(text: str, hooks: Part) -> list[Part]:
    found = parts(text, hooks.value) if text[hooks.value] == "{" else None
    if found is None or not all(text[event.value] == "[" for event in found):
        raise ValueError("its hooks are not in the form that this agent has")
    return found


def is_connected(settings: Any, agent: str) -> bool:
    """Whether any hook of the agent is hub's."""
    hooks = settings.get("hooks") if isinstance(settings, dict) else None
    lists = hooks.values() if isinstance(hooks, dict) else ()
    return any(is_own(entry, agent) for entries in lists if isinstance(entries, list) for entry in entries)
