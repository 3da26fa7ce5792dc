"""Questions to a person, from what a tool wants to do; and what a person's choice is in a sender's words."""

import os.path
from collections.abc import Callable, Mapping
from typing import Any

from ..redaction import redact_text
from .reading import INPUT, before, clean, cleaned, cut, mapping, text
from .shape import (
    ALLOW,
    DENY,
    LONGEST_LABEL,
    LONGEST_QUESTION,
    MOST_LABELS,
    OWN_WORDS,
    PERMISSION,
    TERMINAL,
    Given,
    Question,
    Tool,
)
from .turns import Hook, task_of

Answer = Mapping[str, Any] | None
DENIED = "Denied in hub by {}"
NOTE = 60  # characters that are left for saying that there are more


def permission(
    hook: Hook, given: Given, tool: Tool, cwd: Any, allow: Mapping[str, Any], deny: Callable[[str], Mapping[str, Any]]
) -> Question | None:
    """Whether a tool may run; None if nobody may be asked, and where nothing says what it would do: stops an answer to
    what cannot be seen. `deny(sentence)` says no."""
    if tool.input is None:
        return None

    def decision(chosen: int, by: str) -> Answer:
        return {ALLOW: allow, DENY: deny(DENIED.format(by))}.get(PERMISSION[chosen])

    return _question(hook, given, f"{tool.name}: {_whole(tool.input)}", PERMISSION, tool, cwd, decision)


def choice(
    hook: Hook,
    given: Given,
    asked: str,
    labels: Any,
    more: tuple[str, ...],
    tool: Tool,
    cwd: Any,
    decision: Callable[[str], Answer],
) -> Question | None:
    """One of these labels, or one of hub's own words. None for what hub cannot ask as it stands."""
    if not _are_labels(labels) or not 0 < len(asked) <= LONGEST_QUESTION // 2:
        return None
    options = (*labels, *more, TERMINAL)
    return _question(hook, given, asked, options, tool, cwd, lambda chosen, by: decision(options[chosen]))


def _are_labels(labels: Any) -> bool:
    """Whether a person can choose one of them without any doubt. Stops a label that reads as one of hub's own."""
    if not isinstance(labels, list) or not 0 < len(labels) <= MOST_LABELS:
        return False
    if not all(isinstance(label, str) and 0 < len(label) <= LONGEST_LABEL for label in labels):
        return False
    plain = [label.strip().casefold() for label in labels]
    is_plain = all(map(str.isprintable, labels))  # else one could be shown as another
    return is_plain and all(plain) and len(set(plain)) == len(plain) and not OWN_WORDS.intersection(plain)


def _question(
    hook: Hook,
    given: Given,
    asked: str,
    options: tuple[str, ...],
    tool: Tool,
    cwd: Any,
    decision: Callable[[int, str], Answer],
) -> Question | None:
    if not given.asks:
        return None
    place = os.path.basename(text(cwd, 1000).rstrip("/"))
    where = f"{hook.sender} in {place}" if place else hook.sender
    details = {"agent": hook.actor, "cwd": text(cwd, 1000), "tool": tool.name, "input": cut(tool.input)}
    asks = within(visible(redact_text(f"{where}: {asked}")), LONGEST_QUESTION)  # written out, a secret is none
    return Question(asks, options, details, task_of(hook, given), decision)


def _whole(given: Any) -> str:
    """All that the tool is to do, as far as a person can read it: not its first line only, behind which the rest hides.
    That something is missing is said."""
    named = next((mapping(given)[name] for name in ("command", "file_path", "url") if mapping(given).get(name)), None)
    if isinstance(text := named or given, str):
        return within(clean(text), INPUT)
    shown = cut(given)
    return _written(shown) if shown == given else f"{_written(shown)} (more than this, which is not shown)"


def within(text: str, most: int) -> str:
    """So many characters of a text. Stops what is to be allowed from standing behind the end of what is shown: it is
    said that there is more, and how much."""
    if len(text) <= most:
        return text
    found, is_whole = cleaned(text)
    if is_whole and len(found) <= most:
        return found
    shown = before(found, most - NOTE)
    return f"{shown} … ({len(text) - len(shown)} more characters are not shown)"


def visible(text: str) -> str:
    """The text with what cannot be seen written out. Stops a command that is drawn as another one: by a carriage
    return, an escape sequence, or by turning the direction of writing (Unicode Technical Report 36)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


def _written(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
