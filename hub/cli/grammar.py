"""What a command line looks like; whatever is none is said in one sentence."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..client.discovery import checked_url
from ..errors import HubError, UsageError, in_words
from ..spelling import suggestion
from ..stdio import say
from ..wire.ids import is_id

if TYPE_CHECKING:
    from pathlib import Path


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        raise UsageError(f"{message.rstrip('.')}{end} Usage: {self.synopsis()} (--help says more).")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar
            choices = ", ".join(map(str, action.choices))
            near = suggestion(str(value), map(str, action.choices))
            self.error(f"{name} must be one of {choices}, not {value!r}{near}")

    def print_help(self, file: Any = None) -> None:
        say(self.format_help().rstrip())

    def format_help(self) -> str:
        self.usage = self.synopsis().replace("%", "%%")
        return super().format_help()

    def synopsis(self) -> str:
        """Return the usage on one line: in full, but for the flags that stand in groups of their own."""
        if self.usage is not None:
            return self.usage
        own = [*self._positionals._group_actions, *self._optionals._group_actions]
        more = any(group._group_actions for group in self._action_groups[2:])
        return " ".join([self.prog, *filter(None, map(_shown, own)), *["[FLAG …]"] * more])

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The namespace of a command line, with the command's function `run`."""
        if "--" in words and words.index("--") == len(words) - 1:
            words = words[:-1]  # nothing is behind it, so it says nothing; argparse would take it for a word
        args, more = self.parse_known_args(words)
        flags = [word for word in more if word.startswith("-") and word != "-"]
        last = args.parser._positionals._group_actions[-1:]
        if flags or not (last and last[0].nargs == "*"):
            for word in flags or more:
                args.parser.refuse(word, words)
        if more:  # words behind a flag: argparse takes only those before it for the list
            setattr(args, last[0].dest, [*getattr(args, last[0].dest), *more])
        return args

    def refuse(self, word: str, words: Sequence[str]) -> NoReturn:
        """Raise for a word that has no place among these."""
        if not word.startswith("-"):
            self.error(f"{word!r} is one word too many")
        name, _, port = word.partition("=")
        if name == "--port" and "--url" in self._option_string_actions:
            port = port or next(iter(words[words.index(word) + 1 :]), "PORT")
            self.error(f"--port is a flag of the hub itself; name a running one with --url http://127.0.0.1:{port}")
        self.error(f"there is no {name}{suggestion(name, self._option_string_actions)}")


def formatter(prog: str) -> argparse.HelpFormatter:
    """Return argparse's own, told how wide the terminal is: to find out by itself it imports what packs archives, for
    each flag that is added."""
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdigit() else os.get_terminal_size().columns
    except OSError:
        width = 80
    return argparse.RawDescriptionHelpFormatter(prog, width=width - 2)


def _shown(action: argparse.Action) -> str:
    """Return one argument as the usage has it; `--help` goes without saying."""
    if action.dest == "help":
        return ""
    named = " ".join([*action.option_strings[-1:], *_values(action)])
    is_optional = not action.required if action.option_strings else action.nargs in ("?", "*")
    return f"[{named}]" if is_optional else named


def _values(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return []
    choices = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    return [f"{action.metavar or choices}{' …' if action.nargs in ('*', '+', argparse.REMAINDER) else ''}"]


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    examples: str = "",
    *,
    own_help: bool = False,
    status: str = "",
) -> Parser:
    """Add a command that `run` does, and return its parser. `examples`: command lines, as one would type them;
    `own_help`: it has another `--help` of its own; `status`: what its exit status says."""
    lines = "".join(f"\n  {line.strip()}" for line in examples.strip().splitlines())
    more = [f"exit status: {status}"] * bool(status) + [f"examples:{lines}"] * bool(lines)
    command: Parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog="\n\n".join(more) or None,
        formatter_class=formatter,
        allow_abbrev=False,
        add_help=not own_help,
    )
    command._positionals.title, command._optionals.title = "words", "flags"
    command.set_defaults(run=run, parser=command)
    return command


# ---- the values of flags


def url(text: str) -> str:
    """The address of a hub."""
    try:
        return checked_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def folder(text: str) -> "Path":
    """A folder, or a file, that has a name; an empty one would be the current folder."""
    from pathlib import Path  # here: `hub publish` has no time for it

    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def identifier(text: str) -> str:
    """What an event is known by."""
    if not is_id(text):
        raise argparse.ArgumentTypeError("it must be 1 to 128 printable characters")
    return text


def key(text: str) -> str:
    """What a call is known by: it is sent in the head of a request."""
    if not (is_id(text) and text.isascii()):
        raise argparse.ArgumentTypeError("it must be 1 to 128 printable ASCII characters")
    return text


def positive(text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


# ---- what is said of a refusal


def refusal(error: HubError) -> str:
    """The sentence of a refusal, and what its details say of the fields, if it does not say that itself."""
    said = in_words(error.details)
    return error.message if said in error.message else f"{error.message} {said}"
