"""The command line: start a hub, and publish, follow, call and verify from a shell.

Exit status: 0 done, 1 the hub said no, 2 usage, 3 no hub there; of `audit verify` what PROTOCOL 6 says.
Errors are one sentence on stderr. What takes long to import is imported by the command that needs it.
"""

import argparse
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..client.discovery import Disconnected, NoHub, Refusal, checked_url, credentials, running_hub
from ..client.items import Received
from ..config import Config, add_flags, given, state_directory
from ..errors import HubError, UsageError
from .http import Connection
from .publish import documents, post
from .terminal import compact, envelope, printable, readable

if TYPE_CHECKING:
    import logging

    from ..wire.vocabulary import Trust

DONE, REFUSED, USAGE, NO_HUB = range(4)
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser().parse_args(_with_default(words))
        status = _run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _run(args: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without UTF-8 must not end a stream of events
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = args.run(args)
    except UsageError as error:
        return _complain(error, USAGE)
    except (NoHub, Disconnected) as error:
        return _complain(error, NO_HUB)
    except HubError as error:
        more = [f"{path}: {text}" for path, text in _problems(error.details) if text not in error.message]
        return _complain(" ".join([error.message, "; ".join(more)]).rstrip(), REFUSED)
    return status


def _complain(sentence: object, status: int) -> int:
    print(f"hub: {printable(str(sentence))}", file=sys.stderr)
    return status


def _problems(details: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What the details of an error say of each field, as marshmallow reports it: its path and the problem."""
    if isinstance(details, Mapping):
        for key, inner in details.items():
            yield from _problems(inner, path if key == "_schema" else f"{path}.{key}".lstrip("."))
    else:
        for text in details if isinstance(details, list) else [details] if details else []:
            yield path, str(text)


# ---- what the command line looks like


def _with_default(words: list[str]) -> list[str]:
    """`python -m hub --port 0` means `serve`."""
    is_serve = not words or (words[0].startswith("-") and words[0] not in ("-h", "--help"))
    return ["serve", *words] if is_serve else words


def parser() -> argparse.ArgumentParser:
    """The whole grammar; each command's namespace has its function `run` and its own parser's `error`."""
    whole = argparse.ArgumentParser(
        prog="hub", description="A hub of events and commands on this machine.", allow_abbrev=False
    )
    commands = whole.add_subparsers(metavar="COMMAND", title="commands (serve if none is named)", required=True)
    add_flags(_command(commands, "serve", serve, "run the hub"))

    one = _command(commands, "publish", publish, "publish events")
    _where(one)
    one.add_argument("event", metavar="EVENT", help="the event's name, domain:action")
    one.add_argument(
        "data",
        metavar="JSON",
        nargs="?",
        default="null",
        help="its data; - reads one JSON, or one a line, from stdin",
    )
    one.add_argument("--id", help="the event's id; the hub keeps an id once")
    one.add_argument("--ttl", type=float, metavar="SECONDS", help="how long its state counts as fresh")

    one = _command(commands, "tail", tail, "follow events")
    _where(one)
    one.add_argument("patterns", metavar="PATTERN", nargs="*", help="as agent:* (default: every event)")
    one.add_argument("--after", metavar="CURSOR", help="begin behind this position, not now")
    one.add_argument("--count", type=_positive, metavar="N", help="end after N events")
    one.add_argument("--json", action="store_true", help="one envelope a line")

    one = _command(commands, "call", call, "run a command")
    _where(one)
    one.add_argument("command", metavar="COMMAND", help="its name; hub:commands lists them")
    one.add_argument("args", metavar="ARG", nargs="*", help="one JSON object, or key=value …")

    one = _command(commands, "token", token, "print the token that lets others in, or make a new one")
    _where(one)
    one.add_argument("--read-only", action="store_true", help="the one that only reads; made if there is none")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--new", action="store_true", help="replace it; whoever has the old one is out")
    what.add_argument("--link", action="store_true", help="ask the hub for a link that lets one browser in, once")

    audit = commands.add_parser("audit", help="the audit log", allow_abbrev=False)
    audits = audit.add_subparsers(metavar="ACTION", required=True)
    one = _command(audits, "verify", audit_verify, "check the chain, with or without a running hub")
    one.add_argument("file", metavar="FILE", nargs="?", type=Path, help="audit.jsonl or its folder")
    one.add_argument("--state-dir", type=Path, metavar="DIR", help="the hub's state directory")
    one = _command(audits, "tail", audit_tail, "show the newest records")
    _where(one)
    one.add_argument("--limit", type=_positive, default=20, metavar="N", help="how many (20)")
    return whole


def _command(commands: Any, name: str, run: Callable[[Any], int], help: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run, error=command.error)
    return command


def _where(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", type=_url, help="the hub's address (default: the hub running here)")
    command.add_argument("--state-dir", type=Path, metavar="DIR", help="where to look for server.json and the token")
    command.add_argument("--token-file", type=Path, metavar="FILE", help="the hub's token (default: HUB_TOKEN)")
    command.add_argument("--ca", metavar="FILE", help="certificates to trust for an https hub (default: HUB_CA)")


def _url(text: str) -> str:
    try:
        return checked_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


# ---- the commands


def serve(args: argparse.Namespace) -> int:
    """Run a hub until it is told to stop."""
    try:
        config = Config.from_environment(**given(args))
    except UsageError as error:
        args.error(str(error))
    from ..web.app import serve as run

    return run(config)


def _hub(args: argparse.Namespace, **options: Any) -> Connection:
    """A connection to the hub that the options name, with what it takes to get in."""
    url = args.url or running_hub(args.state_dir)
    headers = credentials(url, args.state_dir, _token(args))
    return Connection(url, **options, headers=headers, ca=args.ca)


def _token(args: argparse.Namespace) -> str | None:
    """What is in `--token-file`; the token itself never stands on a command line, which everybody can read."""
    if args.token_file is None:
        return None
    try:
        text = args.token_file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read {args.token_file}: {error}.") from None
    if not text:
        raise UsageError(f"There is no token in {args.token_file}.")
    return str(text)


def publish(args: argparse.Namespace) -> int:
    """Publish one event, or stdin as it comes; prints the cursor of the last."""
    if args.data == "-":
        batches = documents(lambda size: os.read(0, size), whole=args.id is not None)
    else:
        batches = iter([[(1, _json_text(args.data))]])
    cursor = None
    try:
        with _hub(args) as hub:
            for batch in batches:
                cursor = post(hub, batch, args.event, id=args.id, ttl=args.ttl)["cursor"]
    finally:
        if cursor is not None:  # also when a later line was refused: so far everything is published
            print(printable(cursor))
    if cursor is None:
        raise UsageError("There is nothing on stdin to publish.")
    return DONE


def tail(args: argparse.Namespace) -> int:
    """Print events as they come, and gaps in their place, until interrupted."""
    import asyncio

    with suppress(KeyboardInterrupt, asyncio.CancelledError):  # being stopped is how a tail ends
        asyncio.run(_tail(args))
    return DONE


def call(args: argparse.Namespace) -> int:
    """Run one command and print its result as JSON."""
    body = json.dumps(call_args(args.args)).encode()
    with _hub(args, answer_timeout=None) as hub:
        result = hub.ask("POST", f"/api/commands/{quote(args.command, safe=':')}", body)
    for line in json.dumps(result, indent=2, ensure_ascii=False).split("\n"):
        print(printable(line))
    return DONE


def token(args: argparse.Namespace) -> int:
    """Print a token from its file, or a one-time link from the hub."""
    from .. import tokens
    from ..private import Unsafe

    found: str | None
    directory = args.state_dir or state_directory()
    trust: Trust = "OBSERVER" if args.read_only else "OPERATOR"
    try:
        if args.link:
            found = _link(args, tokens.ensure(directory, trust) if args.read_only else _token(args))
        elif args.new:
            found = tokens.replace(directory, trust)
        else:
            found = tokens.ensure(directory, trust) if args.read_only else tokens.read(directory, trust)
    except (OSError, Unsafe) as error:
        raise HubError("forbidden", f"{error}.") from None
    if found is None:
        raise HubError("forbidden", f"There is no token in {directory}; hub serve --auth token makes it.")
    print(printable(found))
    return DONE


def _link(args: argparse.Namespace, token: str | None) -> str:
    url = args.url or running_hub(args.state_dir)
    try:
        with Connection(url, headers=credentials(url, args.state_dir, token), ca=args.ca) as hub:
            return f"{url}/{hub.ask('POST', '/login')['link']}"
    except Refusal as refusal:
        if refusal.status == 404:
            raise HubError("forbidden", "This hub needs no link: it is not in token mode.") from None
        raise


def audit_verify(args: argparse.Namespace) -> int:
    """Check the stored chain; the exit status is the verdict's."""
    from ..audit.verify import verify

    verdict = verify(args.file or args.state_dir or state_directory())
    if verdict.valid:
        more = f"; {verdict.reason}" if verdict.reason else ""
        print(printable(f"intact: {verdict.records} records, head {verdict.head}{more}"))
    else:
        at = f" (at record {verdict.broken_at})" if verdict.broken_at is not None else ""
        print(printable(f"not intact: {verdict.reason}{at}; {verdict.records} records before that are good"))
    return verdict.status


def audit_tail(args: argparse.Namespace) -> int:
    """Print the newest records, oldest first, one JSON a line."""
    with _hub(args) as hub:
        for record in hub.ask("GET", f"/api/audit?limit={args.limit}"):
            print(printable(compact(record)))
    return DONE


def _json_text(text: str) -> str:
    """The text, if it is JSON; the hub is stricter, and has the last word. Raises UsageError."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"This is not JSON: {text[:60]}{'…' * (len(text) > 60)} ({error}).") from None
    return text


# ---- tail


async def _tail(args: argparse.Namespace) -> None:
    import logging

    from ..client import connections
    from ..client.client import HubClient

    logging.basicConfig(format="hub: %(message)s")
    connections.log.addFilter(_escaped)  # a hub's words stand in its warnings, and must not drive the terminal either
    _stop_when_unread()
    line, left = (envelope if args.json else readable), args.count
    topics = args.patterns or ("*",)
    where = {"state_dir": args.state_dir, "token": _token(args), "ca": args.ca}
    async with HubClient(args.url, topics=topics, after=args.after, **where) as hub:
        async for item in hub:
            print(line(item), flush=True)
            if left and isinstance(item, Received):
                left -= 1
                if not left:
                    return


def _stop_when_unread() -> None:
    """Let `tail | head -1` end when the other side has gone, not only at the next event."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop(pipe: int) -> None:
        loop.remove_reader(pipe)
        if task is not None:
            task.cancel()

    try:
        pipe = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            loop.add_reader(pipe, stop, pipe)  # the end that is written to: readable means that it is broken
    except (OSError, ValueError):
        pass  # not a file at all, or not one that can be watched


def _escaped(record: "logging.LogRecord") -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


# ---- call


def call_args(words: Sequence[str]) -> dict[str, Any]:
    """The args of a call from `{"a": 1}` or from `a=1 b=text` (JSON if it can be). Raises UsageError."""
    if len(words) == 1 and words[0].lstrip().startswith(("{", "[")):
        args = json.loads(_json_text(words[0]))
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
