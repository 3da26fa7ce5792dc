"""What of an agent's settings is hub's own: put into them, known again, and taken out."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from ..processes import MODULE
from .edits import Edit, Part, Style, beginning, edited, parts, stood_empty, without
from .settings import COPILOTS, Entry

# The flags that lead to a hub, and how what hub writes behind each begins.
WHERE: Mapping[str, tuple[str, ...]] = {
    "--url": ("http://", "https://"),
    "--state-dir": ("/",),
    "--token-file": ("/",),
    "--ca": ("/",),
}
LEAST = 5  # events that hub writes hooks for, at any agent
STAYS = r"hub['\"]?\s+hook\s+{}(?![\w-])"  # how a command that only begins otherwise tells the hub of an agent


def is_own(hook: Any, agent: str) -> bool:
    """Whether hub has written this command, in whatever place it was installed then; whatever a person has changed
    beside it."""
    return isinstance(hook, dict) and _is_line(_words(hook), agent)


def _commands(entry: Any) -> list[Any]:
    """The commands of an entry: those of a group, or itself."""
    inner = entry.get("hooks") if isinstance(entry, dict) else None
    return inner if isinstance(inner, list) else [entry]


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
    known |= {word for pair in _where(words) for word in pair}
    is_hub = bool(words) and os.path.basename(words[0]) == "hub" and words[1:3] == ["hook", agent]
    return is_hub and known >= {*words[3:]}


def _where(words: list[str]) -> Iterator[tuple[str, str]]:
    """The flags that lead to a hub, as hub itself writes them: with whole addresses and paths."""
    for flag, value in pairwise(words):
        if flag in WHERE and value.startswith(WHERE[flag]):
            yield flag, value


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
    edits, gone, whole = list[Edit](), list[Part](), list[Part]()
    for event in events:
        entries = parts(text, event.value)
        own = list[Part]()
        for entry in entries:
            commands = _commands(json.loads(text[entry.start : entry.end]))
            mine = [is_own(command, agent) for command in commands]
            if mine and all(mine):
                own.append(entry)
            elif any(mine):
                edits += _without(text, entry, mine)
        if own and len(own) == len(entries):
            whole.append(event)
            if not stood_empty(text, event.value, entries):
                gone.append(event)
                continue
        edits += without(text, event.value, entries, own)
    if not gone and len(whole) >= LEAST:  # not all of them stood empty: somebody has written the file anew meanwhile
        edits, gone = [edit for edit in edits if not any(_is_in(edit, event) for event in whole)], whole
        is_anew = True
    else:
        is_anew = False
    if not gone or len(gone) < len(events) or (stood_empty(text, hooks.value, events) and not is_anew):
        return edited(text, [*edits, *without(text, hooks.value, events, gone)])
    others = edited(text, without(text, top, members, [hooks]))
    index = members.index(hooks)
    is_apart = "\n" in text[members[index - 1].end if index else top : hooks.start]
    return None if is_apart and json.loads(others) == new else others


def _without(text: str, group: Part, mine: list[bool]) -> list[Edit]:
    """Take these commands out of a group, and leave the others in it."""
    inner = next(member for member in parts(text, group.value) if member.name == "hooks")
    known = parts(text, inner.value)
    return without(text, inner.value, known, [part for part, is_mine in zip(known, mine, strict=True) if is_mine])


def _is_in(edit: Edit, event: Part) -> bool:
    return event.start <= edit.start and edit.end <= event.end


def left(text: str | None, agent: str) -> list[str]:
    """The events for which a command still tells hub of this agent, that a person has changed."""
    hooks = json.loads(text).get("hooks") if text is not None else None
    pattern = re.compile(STAYS.format(re.escape(agent)))
    events = hooks.items() if isinstance(hooks, dict) else ()
    return [event for event, entries in events if pattern.search(" ".join(_texts(entries)))]


def _texts(entries: Any) -> Iterator[str]:
    for entry in entries if isinstance(entries, list) else ():
        for command in _commands(entry):
            if isinstance(command, dict):
                args = command.get("args")
                yield " ".join(map(str, (command.get("bash"), command.get("command"), *(args or ()))))


def _events(text: str, hooks: Part) -> list[Part]:
    found = parts(text, hooks.value) if text[hooks.value] == "{" else None
    if found is None or not all(text[event.value] == "[" for event in found):
        raise ValueError("its hooks are not in the form that this agent has")
    return found


def connected(settings: Any, agent: str) -> list[str] | None:
    """The words that lead the agent's hooks to a hub, none where they find it by themselves; None if no hook of it is
    hub's."""
    own = next(_own_of(settings.get("hooks") if isinstance(settings, dict) else None, agent), None)
    return None if own is None else [word for pair in _where(own) for word in pair]


def asked_by(hooks: Any, agent: str) -> bool:
    """Whether hub's hooks among these ask a person where the agent asks for a permission."""
    return any("--ask" in words for words in _own_of(hooks, agent))


def _own_of(hooks: Any, agent: str) -> Iterator[list[str]]:
    """The words of each hook that is hub's."""
    lists = hooks.values() if isinstance(hooks, dict) else ()
    for entry in (entry for entries in lists if isinstance(entries, list) for entry in entries):
        yield from (_words(command) for command in _commands(entry) if is_own(command, agent))
