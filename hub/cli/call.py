"""`hub call`: run a command of the hub, explain one, or list what there is."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import quote

from ..client.discovery import Disconnected, Refusal
from ..client.paging import joined, next_page
from ..errors import HubError, UsageError
from ..spelling import meant, suggestion
from ..stdio import complain, say
from ..wire.names import is_name
from .answered import was_not_first, what_counts
from .explain import DOCUMENT, Described, commands_in, explained
from .grammar import add_command, key, refusal
from .http import Connection, add_where, connection, pasted
from .terminal import Colour, add_form, coloured, compact, has_colour, is_for_people, is_terminal, printable
from .words import (
    QUIET_SECONDS,
    STDIN,
    equals_meant,
    fields,
    is_given,
    is_json,
    json_text,
    parsed,
    read_stdin,
    says_something,
)

CHUNK = 64 * 1024  # bytes read from stdin at once
LARGEST = 64 * 1024 * 1024  # bytes of args; no hub takes as many
COLOURS: dict[str, Colour] = {"write": "yellow", "dangerous": "red"}
NARROW = 20  # columns of a sentence at least
STATUS = "0 it has run, 1 the hub said no, 2 the words are wrong, 3 no hub there, or no answer"
EXAMPLES = """
    hub call                                      what there is
    hub call hub:history --help                   what it takes
    hub call hub:history topics='task:*' limit=3
    hub call orders:cancel order:=7 --key today   run once, however often it is called with this key
    echo '{"limit": 3}' | hub call hub:history
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "call",
        run,
        "run a command, explain it, or list what there is",
        EXAMPLES,
        own_help=True,
        status=STATUS,
    )
    command.usage = (
        "hub call [COMMAND [JSON | key=value … | key:=JSON … | --help]] [--yes] [--confirm VALUE] [--key KEY] "
        "[--json] [--text] [FLAG …]"
    )
    command.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="its name, and its args; - (or nothing, behind | or <) reads them as JSON",
    )
    command.add_argument("-h", "--help", action="store_true", help="explain the command, from what it takes")
    command.add_argument("--yes", action="store_true", help="run a dangerous command without being asked")
    command.add_argument(
        "--confirm", metavar="VALUE", type=key, help="run a dangerous command with the value it was refused with"
    )
    command.add_argument("--key", metavar="KEY", type=key, help="with the same key it runs once and answers again")
    add_form(command)
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Run one command and print its result as JSON; of what comes in pages all of them. An answer to a question that is
    not the first is told who was, and is status 1.

    Who leaves before the answer cancels the call. Raises as `Connection.ask`, with what to type instead.
    """
    if not args.words and args.help:
        args.parser.print_help()
        return 0
    _check(args.words[1:])
    with connection(args, answer_timeout=None) as hub:
        if not args.words:
            _list(hub, is_for_people(args))
            return 0
        command = Command(hub, args.words[0], args)
        if args.help:
            _print(explained(command.described(), args))
            return 0
        given = command.args(args.words[1:])
        result = command.call(given)
        late = what_counts(hub, given.get("question")) if was_not_first(command.name, result) else ""
    text = json.dumps(result, indent=2, ensure_ascii=False) if is_for_people(args) else compact(result)
    _print(text.split("\n"))
    if late:
        complain(printable(f"hub: {late}"))
    return 1 if late else 0


def _check(words: Sequence[str]) -> None:
    """Raise UsageError for what cannot be args of anything, before any hub is looked for."""
    if is_json(words) and words[0] != STDIN:
        _object(words[0])
    elif not is_json(words):
        parsed(words)


def _print(lines: Any) -> None:
    for line in lines:
        say(printable(line))


# ---- what there is


def _list(hub: Connection, for_people: bool) -> None:
    """A row a command: its name, its effect, what it does; for a program a line of JSON."""
    from textwrap import wrap  # here: a call has no use for it

    commands = hub.ask("GET", "/api/commands")
    if not for_people:
        _print(map(compact, commands))
        return
    width = max(len(command["name"]) for command in commands)
    room, on = max(shutil.get_terminal_size().columns - width - 13, NARROW), has_colour(sys.stdout)
    for command in commands:
        first, *more = wrap(printable(command["summary"].partition(". ")[0].rstrip(".")), room) or [""]
        name = coloured(f"{command['name']:<{width}}", "cyan", on=on)
        effect = coloured(f"{command['effect']:<9}", COLOURS.get(command["effect"]), on=on)
        say(f"{name}  {effect}  {first}".rstrip())
        _print(" " * (width + 13) + line for line in more)


# ---- one of them


class Command:
    """One command of a running hub: what is known of it there, and the way to call it as the `flags` say."""

    def __init__(self, hub: Connection, name: str, flags: argparse.Namespace) -> None:
        self._hub, self.name, self._flags = hub, name, flags

    @cached_property
    def _all(self) -> Mapping[str, Described]:
        return commands_in(self._hub.ask("GET", DOCUMENT))

    @cached_property
    def _found(self) -> Described | None:
        if self.name in self._all or not is_name(self.name):
            return self._all.get(self.name)
        found = self._hub.ask("GET", f"/api/commands?name={quote(self.name)}")
        return found[0] if found else None

    def described(self) -> Described:
        """As `hub:commands` shows it. Raises HubError, with the name that was probably meant."""
        if self._found is None:
            near = suggestion(self.name, self._all)
            lists = f"; {pasted(self._flags, 'call')} lists them."
            raise HubError("unknown_command", f"There is no command {self.name}{near or lists}")
        return self._found

    @property
    def _schema(self) -> Mapping[str, Any]:
        schema = self._found["args"] if self._found else {}
        return schema if isinstance(schema, dict) else {}

    @property
    def _types(self) -> Mapping[str, Any]:
        types = self._schema.get("properties", {})
        return types if isinstance(types, dict) else {}

    # ---- what it is called with

    def args(self, words: Sequence[str]) -> dict[str, Any]:
        """The args that the words say, or stdin. Raises UsageError."""
        if list(words) == [STDIN] or (not words and is_given() and self._reads()):
            return _read()
        if is_json(words):
            return _object(words[0])
        has_text = not all(field.is_json for field in parsed(words))
        return fields(words, self._types if has_text else {})

    def _reads(self) -> bool:
        """Whether it takes args from a pipe that nobody has named: many programs are started with one into which
        nothing comes. What only reads, and needs none, goes on without."""
        if self._found is None or not (self._types or self._schema.get("additionalProperties") is not False):
            return False
        if says_something(QUIET_SECONDS):
            return True
        if self._found["effect"] == "read" and not self._schema.get("required"):
            complain("hub: Nothing comes on stdin, so it is called without args; - waits for them.")
            return False
        complain("hub: Waiting for the args on stdin.")
        return True

    # ---- the call

    def call(self, given: Mapping[str, Any]) -> Any:
        """Its result, all pages of it. Raises HubError, NoHub."""
        try:
            result = self._confirmed(given)
            while further := next_page(self.name, given, result):
                result = joined(self.name, result, self._ask(further, {}))
        except Disconnected as error:
            known = "the same call with the same --key says" if self._flags.key else "is not known"
            raise Disconnected(f"{error.message.rstrip('.')}; whether {self.name} has run {known}.") from None
        except Refusal as error:
            if error.code == "unknown_command":
                self.described()
            if error.code != "invalid_args" or "idempotency_key" in (error.details or {}):
                raise
            raise HubError(error.code, f"{refusal(error)} {self._hint(given)}") from None
        return result

    def _confirmed(self, given: Mapping[str, Any]) -> Any:
        """The answer of one call. A dangerous one is asked for a second time if a person says so."""
        headers, flags = {"Hub-While": "connected"}, self._flags
        if flags.key:
            headers["Idempotency-Key"] = flags.key
        if flags.confirm:
            headers["Hub-Confirm"] = flags.confirm
        try:
            return self._ask(given, headers)
        except Refusal as error:
            if error.code != "confirmation_required" or not error.details:
                raise
            value = str(error.details["confirm"])
        if not flags.yes:
            self._check_wanted(given, value)
        return self._ask(given, {**headers, "Hub-Confirm": value})

    def _check_wanted(self, given: Mapping[str, Any], value: str) -> None:
        """Ask whoever sits at the terminal. Raises HubError for a no, and with the `value` that confirms it where
        nobody does."""
        if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            sentence = f"{self.name} is dangerous and has not run; say --yes, or within a minute --confirm {value}."
            raise HubError("confirmation_required", sentence)
        complain(printable(f"{self.name}: {self.described()['summary']} It is dangerous."))
        complain(printable(f"  with {compact(given)}"))
        print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise HubError("confirmation_required", "Not run.")

    def _ask(self, args: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        self._hub.close()  # a person, or a pipe, may have been waited for
        path = f"/api/commands/{quote(self.name, safe=':')}"
        return self._hub.ask("POST", path, json.dumps(args).encode(), headers=headers)

    def _hint(self, given: Mapping[str, Any]) -> str:
        """What else to type where the args do not fit."""
        unknown = next((key for key in given if key not in self._types), None)
        if unknown is None or self._schema.get("additionalProperties") is not False:
            return f"Type {pasted(self._flags, 'call', self.name, '--help')} for what it takes."
        if near := meant(unknown, self._types):
            return f"Did you mean {near}?"
        return f"It takes {', '.join(self._types)}." if self._types else "It takes nothing."


def _object(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith(("{", "[")):
        raise UsageError(f"{text!r} is neither key=value nor a JSON object{equals_meant(text) or '.'}")
    args = json.loads(json_text(text))
    if not isinstance(args, dict):
        raise UsageError("The args of a call are one JSON object.")
    return args


def _read() -> dict[str, Any]:
    text = b""
    while chunk := read_stdin(CHUNK):
        text += chunk
        if len(text) > LARGEST:
            raise UsageError(f"There are more than {LARGEST} bytes on stdin.")
    try:
        return _object(text.decode()) if text.strip() else {}
    except UnicodeDecodeError:
        raise UsageError("What is on stdin is not UTF-8.") from None
