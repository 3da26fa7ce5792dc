"""What a command line looks like; whatever is none is said in one sentence."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..client.discovery import checked_url
from ..config import nearest
from ..errors import UsageError
from ..stdio import say


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.rstrip('.')} (see {self.prog} --help).")

    def print_help(self, file: Any = None) -> None:
        say(self.format_help().rstrip())

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The namespace of a command line, with the command's function `run`."""
        args, more = self.parse_known_args(words)
        if more:
            args.parser.refuse(more[0])
        return args

    def refuse(self, word: str) -> NoReturn:
        """Raise for a word that has no place here."""
        if not word.startswith("-"):
            self.error(f"{word!r} is one word too many")
        name = word.partition("=")[0]
        self.error(f"there is no {name}{nearest(name, self._option_string_actions)}")


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> Parser:
    """Add a command that `run` does, and return its parser."""
    command: Parser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run, parser=command)
    return command


# ---- the values of flags


def url(text: str) -> str:
    """The address of a hub."""
    try:
        return checked_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def folder(text: str) -> Path:
    """A folder that has a name; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def json_text(text: str) -> str:
    """The text, if it is JSON; the hub is stricter, and has the last word. Raises UsageError."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"This is not JSON: {text[:60]}{'…' * (len(text) > 60)} ({error}).") from None
    return text
