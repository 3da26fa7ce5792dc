"""`hub call`: run a command of the hub."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..client.paging import joined, next_page
from ..errors import UsageError
from ..stdio import say
from .grammar import add_command, json_text
from .http import Connection, add_where, connection
from .terminal import printable


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "call", run, "run a command")
    add_where(command)
    command.add_argument("command", metavar="COMMAND", help="its name; hub:commands lists them")
    command.add_argument("args", metavar="ARG", nargs="*", help="one JSON object, or key=value …")


def run(args: argparse.Namespace) -> int:
    """Run one command and print its result as JSON; of what comes in pages all of them."""
    command, given = args.command, call_args(args.args)
    with connection(args, answer_timeout=None) as hub:
        result = _ask(hub, command, given)
        while further := next_page(command, given, result):
            result = joined(command, result, _ask(hub, command, further))
    for line in json.dumps(result, indent=2, ensure_ascii=False).split("\n"):
        say(printable(line))
    return 0


def _ask(hub: Connection, command: str, args: Mapping[str, Any]) -> Any:
    return hub.ask("POST", f"/api/commands/{quote(command, safe=':')}", json.dumps(args).encode())


def call_args(words: Sequence[str]) -> dict[str, Any]:
    """The args of a call from `{"a": 1}` or from `a=1 b=text` (JSON if it can be). Raises UsageError."""
    if len(words) == 1 and words[0].lstrip().startswith(("{", "[")):
        args = json.loads(json_text(words[0]))
        if not isinstance(args, dict):
            raise UsageError("The args of a call are one JSON object.")
        return args
    args = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{word!r} is neither key=value nor a JSON object.")
        if key in args:
            raise UsageError(f"{key!r} is given twice.")
        args[key] = _value(text)
    return args


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
