"""Completion in a shell, by argcomplete (the extra `completion`): what there is at the running hub, and what it takes.

What is known of it is read from /openapi.json, which calls no command: pressing Tab leaves no record in the audit log.
"""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from ..wire.vocabulary import EVENTS
from .explain import DOCUMENT, choices, commands_in
from .http import connection

SECONDS = 2.0  # that a person waits for it


def complete(whole: argparse.ArgumentParser) -> None:
    """Answer the shell that asks, and leave; whatever goes wrong offers nothing."""
    import argcomplete

    for command, parser in _commands_of(whole).items():
        for action in parser._actions:
            if (command, action.dest) in COMPLETERS:
                action.completer = COMPLETERS[command, action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(whole, always_complete_options=False)


def _commands_of(whole: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    found = (action.choices for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return next(found, {})


def of_call(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The names of the commands; behind one what it takes, and behind `key=` the values that are known."""
    known, words = _known(parsed_args), parsed_args.words or []
    if not words:
        return list(known)
    key, equals, _value = prefix.partition("=")
    args = known.get(words[0], {})
    if equals:
        return [f"{key}={value}" for value in choices(args.get(key))]
    given = {word.partition("=")[0] for word in words[1:]}
    return [f"{name}=" for name in args if name not in given]


def of_events(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """The events that everybody knows."""
    return list(EVENTS)


def of_patterns(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """The events that everybody knows, and what matches all of a domain."""
    return [*dict.fromkeys(f"{name.partition(':')[0]}:*" for name in EVENTS), *EVENTS]


COMPLETERS = {("call", "words"): of_call, ("publish", "event"): of_events, ("tail", "patterns"): of_patterns}


def _known(args: argparse.Namespace) -> dict[str, Mapping[str, Any]]:
    """The schemas of the args of each command of the hub; none where none answers."""
    try:
        with connection(args, answer_timeout=SECONDS) as hub:
            found = commands_in(hub.ask("GET", DOCUMENT))
            return {name: command["args"].get("properties", {}) for name, command in found.items()}
    except Exception:  # a person has pressed Tab: there is nobody to tell
        return {}
