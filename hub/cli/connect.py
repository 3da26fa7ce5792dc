"""`hub connect`: write hub's hooks into an agent's own settings file, or take them back."""

import argparse
import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from ..adapters.senders import AGENTS
from ..errors import HubError
from ..stdio import say
from .grammar import add_command
from .settings import MODULE, Settings, settings_of, with_own, without_own
from .terminal import printable

INDENT = re.compile(r"^[{\[]\s*?\n([ \t]+)")


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "connect",
        run,
        "see an agent in the hub: write its hooks into its settings",
        """hub connect claude-code
        hub connect claude-code --ask               and answer its permission prompts in the hub
        hub connect claude-code --remove""",
    )
    command.add_argument("agent", metavar="AGENT", choices=AGENTS, help=f"{', '.join(AGENTS)}")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--ask", action="store_true", help="its permission prompts become questions, too")
    what.add_argument("--remove", action="store_true", help="take back what hub has written there")


def run(args: argparse.Namespace) -> int:
    """Say what was written, and where. What is there stays; twice is once. Raises HubError for a file that is no JSON,
    which is left as it is."""
    settings = settings_of(args.agent)
    text = _text(settings.file)
    try:
        known = settings.new if text is None else read(text)
        kept = without_own(known, args.agent)
    except ValueError as error:
        raise HubError("invalid_json", f"{settings.file} is left as it is: {error}.") from None
    if args.remove:
        _remove(settings, text, kept)
        gone = "were not" if text is None or kept == known else "are no longer"
        say(printable(f"{args.agent}: hub's hooks {gone} in {settings.file}."))
        return 0
    _write(settings.file, text, with_own(kept, settings.entries(own_command(), args.ask)))
    say(printable(f"{args.agent}: hub's hooks are in {settings.file}; they are used by what starts from now on."))
    if args.ask and args.agent == "gemini":
        say("Gemini CLI takes no answer to its permission prompts, so hub only shows that it waits.")
    if settings.remark:
        say(settings.remark)
    return 0


def _text(file: Path) -> str | None:
    """What is in the file; None if there is none. Raises HubError."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeError:
        raise HubError("invalid_json", f"{file} is left as it is: it is not UTF-8.") from None
    except OSError as error:
        raise HubError("invalid_json", f"{file} cannot be read ({error.strerror}).") from None


def read(text: str) -> dict[str, Any]:
    """The settings. Raises ValueError for what is no JSON object, or would not be the same when written again."""
    try:
        found = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON (line {error.lineno}: {error.msg})") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("an object in it has the same key twice")
    return found


def _remove(settings: Settings, text: str | None, kept: dict[str, Any]) -> None:
    """Take hub's own back; a file in which nothing else stands goes with it."""
    if text is None:
        return
    if settings.new and kept == settings.new:
        settings.file.unlink()
    else:
        _write(settings.file, text, kept)


def _write(file: Path, text: str | None, found: dict[str, Any]) -> None:
    """In the form that the file has, with its mode, where a link leads to; whole, or not at all. Raises HubError."""
    if text is not None and read(text) == found:
        return
    match = INDENT.match(text or "")
    indent = match[1] if match else 2
    written = json.dumps(found, indent=indent, ensure_ascii=False) + "\n" * (text is None or text.endswith("\n"))
    place = Path(os.path.realpath(file))
    spare = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _create(
            spare,
            written.encode("utf-8", "surrogatepass"),
            place.stat().st_mode & 0o7777 if text is not None else 0o600,
        )
        os.rename(spare, place)
    except OSError as error:
        raise HubError("command_failed", f"{file} cannot be written ({error.strerror}).") from None
    finally:
        spare.unlink(missing_ok=True)


def _create(file: Path, data: bytes, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(data)
        os.fchmod(opened.fileno(), mode)


def own_command() -> list[str]:
    """The words that run this hub, from any folder."""
    from shutil import which

    beside = Path(sys.executable).with_name("hub")
    for found in (sys.argv[0], str(beside), which("hub") or ""):
        if os.path.basename(found) == "hub" and os.path.isfile(found) and os.access(found, os.X_OK):
            return [os.path.abspath(found)]
    return [sys.executable, *MODULE]
