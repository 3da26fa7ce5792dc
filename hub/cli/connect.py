"""`hub connect`: write hub's hooks into an agent's own settings file, or take them back."""

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ..adapters.senders import AGENTS
from ..client.discovery import NoHub, NotRunning
from ..errors import HubError
from ..processes import own_command
from ..statedir import state_directory
from ..stdio import say
from .grammar import add_command
from .http import add_where, address, named_address, start_of
from .installed import asked_by, left, put_in, taken_out
from .settings import Hook, Settings, settings_of
from .terminal import printable


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "connect",
        run,
        "see an agent in the hub: write its hooks into its settings",
        """hub connect claude-code
        hub connect claude-code --ask               and answer its permission prompts in the hub
        hub connect claude-code --state-dir orders  to a hub that keeps its files elsewhere
        hub connect claude-code --remove""",
    )
    command.add_argument("agent", metavar="AGENT", choices=AGENTS, help=f"{', '.join(AGENTS)}")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--ask", action="store_true", help="its permission prompts become questions, too")
    what.add_argument("--remove", action="store_true", help="take back what hub has written there")
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Say what was written, and where. What is there stays; twice is once. Raises HubError for a file that is no JSON,
    which is left as it is."""
    settings = settings_of(args.agent)
    text = _text(settings.file)
    try:
        if text is not None:
            read(text)
        before = taken_out(text, settings.new, args.agent)
    except ValueError as error:
        raise HubError("invalid_json", f"{settings.file} is left as it is: {error}.") from None
    if args.remove:
        _write(settings.file, text, before)
        gone = "were not" if before == text else "are no longer"
        if stay := left(before, args.agent):
            events = ", ".join(stay)
            say(
                printable(
                    f"{args.agent}: a command of yours still calls hub for {events}; take it out of {settings.file}."
                )
            )
            return 1
        say(printable(f"{args.agent}: hub's hooks {gone} in {settings.file}."))
        return 0
    hook = Hook(own_command(), _where(args))
    entries = settings.entries(hook, args.ask)
    _write(settings.file, text, put_in(before, settings.new, entries))
    asks = ", and its permission prompts become questions in hub" if asked_by(entries, args.agent) else ""
    used = "they are used by what starts from now on."
    say(printable(f"{args.agent}: hub's hooks are in {settings.file}{asks}; {used}"))
    _remark(args, settings)
    return 0


def _remark(args: argparse.Namespace, settings: Settings) -> None:
    """Say what else there is to know."""
    if args.ask and args.agent == "gemini":
        say("Gemini CLI takes no answer to its permission prompts, so hub only shows that it waits.")
    if settings.remark:
        say(settings.remark)
    if os.environ.get("HUB_TOKEN") and not args.token_file:
        say("The hooks do not know HUB_TOKEN; name a file that has the token with --token-file.")
    try:
        address(args)
    except NotRunning:
        start = printable(start_of(args))
        say(f"No hub runs there yet. Start one with: {start} (or name another one with --state-dir or --url).")
    except NoHub as error:
        say(printable(str(error)))


def _where(args: argparse.Namespace) -> list[str]:
    """The flags that lead the hooks to the hub that is meant here, wherever the agent is started; none where they find
    it by themselves. Raises UsageError."""
    ca = args.ca or os.environ.get("HUB_CA")
    url = named_address(args)
    folder = args.state_dir or (None if url else state_directory())
    usual = state_directory({name: value for name, value in os.environ.items() if name == "HOME"})
    found = {
        "--url": url,
        "--state-dir": folder and os.path.abspath(folder),
        "--token-file": args.token_file and os.path.abspath(args.token_file),
        "--ca": ca and os.path.abspath(ca),
    }
    if found["--state-dir"] == str(usual) and not url:
        del found["--state-dir"]
    return [word for flag, value in found.items() if value for word in (flag, value)]


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


def _write(file: Path, text: str | None, written: str | None) -> None:
    """With the mode that the file has, where a link leads to; whole, or not at all. None takes it away. Raises
    HubError."""
    if written == text:
        return
    place = Path(os.path.realpath(file))
    spare = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if written is None:
            place.unlink()
            return
        if text is not None and read(text) == read(written):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        mode = place.stat().st_mode & 0o7777 if text is not None else 0o600
        _create(spare, written.encode("utf-8", "surrogatepass"), mode)
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
