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
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from .client import Disconnected, Event, Gap, HubClient, NoHub, answer, checked_url, running_hub
from .config import Config, add_flags, given, state_directory
from .errors import HubError, UsageError

if TYPE_CHECKING:
    import logging

DONE, REFUSED, USAGE, NO_HUB = range(4)
INTERRUPTED = 130
CHUNK = 64 * 1024  # bytes read from stdin at once
BATCH_EVENTS, BATCH_BYTES = 1000, 512 * 1024  # of one request: what the hub takes, and half of it
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0  # seconds
PUBLISH_TRIES = 8
LONGEST_WAIT = 5.0  # seconds before a publish that came too fast is tried again
REASONS = {
    "slow": "this reader was too slow",
    "expired": "they are no longer kept",
    "epoch": "the hub began a new history",
}


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
        details = f" {_compact(error.details)}" if error.details else ""
        return _complain(f"{error.message}{details}", REFUSED)
    return status


def _complain(sentence: object, status: int) -> int:
    print(f"hub: {printable(str(sentence))}", file=sys.stderr)
    return status


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
    commands = whole.add_subparsers(
        metavar="COMMAND", title="commands (serve if none is named)", required=True
    )
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
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, allow_abbrev=False
    )
    command.set_defaults(run=run, error=command.error)
    return command


def _where(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", type=_url, help="the hub's address (default: the hub running here)")
    command.add_argument("--state-dir", type=Path, metavar="DIR", help="where to look for server.json")


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
    from .web.app import serve as run

    return run(config)


def publish(args: argparse.Namespace) -> int:
    """Publish one event, or stdin as it comes; prints the cursor of the last."""
    done, cursor = 0, None
    try:
        texts = (
            _stdin(whole=args.id is not None) if args.data == "-" else iter([[checked(args.data.encode())]])
        )
        with Connection(args.url or running_hub(args.state_dir)) as hub:
            for batch in texts:
                cursor = _post(hub, [_event(args, text) for text in batch])["cursor"]
                done += len(batch)
    except ValueError as error:
        args.error(f"{error}{_before(done)}")
    except HubError as error:
        error.message += _before(done)
        raise
    if cursor is None:
        args.error("there is nothing on stdin to publish")
    print(printable(str(cursor)))
    return DONE


def tail(args: argparse.Namespace) -> int:
    """Print events as they come, and gaps in their place, until interrupted."""
    import asyncio

    with suppress(KeyboardInterrupt, asyncio.CancelledError):  # being stopped is how a tail ends
        asyncio.run(_tail(args))
    return DONE


def call(args: argparse.Namespace) -> int:
    """Run one command and print its result as JSON."""
    try:
        body = json.dumps(call_args(args.args)).encode()
    except ValueError as error:
        args.error(str(error))
    with Connection(args.url or running_hub(args.state_dir), answer_timeout=None) as hub:
        result = hub.ask("POST", f"/api/commands/{quote(args.command, safe=':')}", body)
    for line in json.dumps(result, indent=2, ensure_ascii=False).split("\n"):
        print(printable(line))
    return DONE


def audit_verify(args: argparse.Namespace) -> int:
    """Check the stored chain; the exit status is the verdict's."""
    from .verify import verify

    verdict = verify(args.file or args.state_dir or state_directory())
    if verdict.valid:
        print(printable(f"intact: {verdict.records} records, head {verdict.head}"))
    else:
        at = f" (at record {verdict.broken_at})" if verdict.broken_at is not None else ""
        print(printable(f"not intact: {verdict.reason}{at}; {verdict.records} records before that are good"))
    return verdict.status


def audit_tail(args: argparse.Namespace) -> int:
    """Print the newest records, oldest first, one JSON a line."""
    with Connection(args.url or running_hub(args.state_dir)) as hub:
        for record in hub.ask("GET", f"/api/audit?limit={args.limit}"):
            print(printable(_compact(record)))
    return DONE


# ---- publish


def _stdin(whole: bool) -> Iterator[list[str]]:
    return documents(lambda size: os.read(0, size), whole)


def documents(read: Callable[[int], bytes], whole: bool = False) -> Iterator[list[str]]:
    """The JSON texts of a stream, as they come, in batches for one request: one a line, or one over all
    lines.

    Raises ValueError with the number of the line; what stands before it has been handed out.
    """
    groups, number, begun = _lines(read), 0, False
    for group in groups:
        ready: list[str] = []
        for index, line in enumerate(group):
            number += 1
            if not line.strip():
                continue
            if not begun and (whole or _unfinished(line)):
                yield [checked(b"\n".join([*group[index:], *chain.from_iterable(groups)]))]
                return
            begun = True
            try:
                ready.append(checked(line))
            except ValueError as error:
                yield from _batches(ready)
                raise ValueError(f"line {number}: {error}") from None
        yield from _batches(ready)


def _lines(read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The lines of a stream, grouped by when they arrived."""
    rest = b""
    while chunk := read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    yield [rest]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == BATCH_EVENTS or size + len(text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _unfinished(line: bytes) -> bool:
    """Whether this is the first line of a JSON text that goes on in the next."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip())
    except ValueError:
        pass
    return False


def checked(text: bytes) -> str:
    """The text, if it is one JSON value; else ValueError. The hub is stricter, and has the last word."""
    try:
        json.loads(decoded := text.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        shown = printable(text[:60].decode(errors="replace")) + "…" * (len(text) > 60)
        raise ValueError(f"this is not JSON: {shown} ({error})") from None
    return decoded


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _event(args: argparse.Namespace, data: str) -> str:
    """The JSON of one event. Its data goes in as it was written; `checked` has seen that it is one value."""
    fields = {"event": args.event, "id": args.id or str(uuid.uuid4())}
    if args.ttl is not None:
        fields["ttl"] = args.ttl
    return f'{json.dumps(fields)[:-1]}, "data": {data}}}'


def _post(hub: "Connection", events: list[str]) -> Any:
    """Publish a batch. Safe to try again, since every event has its id and the hub keeps an id once."""
    kind = "application/json" if len(events) == 1 else "application/x-ndjson"
    for _ in range(PUBLISH_TRIES - 1):
        try:
            return hub.ask("POST", "/api/events", "\n".join(events).encode(), kind)
        except Disconnected:
            pass  # an idle connection that the hub has closed meanwhile; if it is gone, connecting says so
        except HubError as error:
            if error.retry_after is None:
                raise
            time.sleep(min(error.retry_after, LONGEST_WAIT))
    return hub.ask("POST", "/api/events", "\n".join(events).encode(), kind)


def _before(count: int) -> str:
    return f" ({count} events before it were published)" if count else ""


class Connection:
    """One kept-alive HTTP connection to the hub, without aiohttp: `publish` starts in a third of the time."""

    def __init__(self, url: str, answer_timeout: float | None = ANSWER_TIMEOUT) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT)
        self._url, self._prefix, self._answer_timeout = url, parts.path, answer_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """The hub's answer. Raises Refusal, NoHub, or Disconnected if it broke off."""
        self._connect()
        try:
            self._http.request(method, self._prefix + path, body, {"Content-Type": kind} if body else {})
            response = self._http.getresponse()
            text = response.read()
        except (OSError, HTTPException) as error:
            self._http.close()
            raise Disconnected(f"The connection to the hub at {self._url} broke ({_why(error)}).") from None
        return answer(self._url, response.status, text)

    def _connect(self) -> None:
        if self._http.sock is None:
            try:
                self._http.connect()
            except OSError as error:
                raise NoHub(f"No hub answers at {self._url} ({_why(error)}).") from None
            self._http.sock.settimeout(self._answer_timeout)


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


# ---- tail


async def _tail(args: argparse.Namespace) -> None:
    import logging

    logging.basicConfig(format="hub: %(message)s")
    logging.getLogger("hub.client").addFilter(_escaped)
    _stop_when_unread()
    line, left = (envelope if args.json else readable), args.count
    topics = args.patterns or ("*",)
    async with HubClient(args.url, topics=topics, after=args.after, state_dir=args.state_dir) as hub:
        async for item in hub:
            print(line(item), flush=True)
            if left and isinstance(item, Event):
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


def readable(item: Event | Gap) -> str:
    """One line for a person: local time, name, data; or what is missing."""
    if isinstance(item, Gap):
        many = "events are" if item.count is None else f"{item.count} events are"
        why = REASONS.get(item.reason, item.reason)
        return printable(f"--- {many} missing before {item.before}: {why}")
    moment = datetime.fromisoformat(item.timestamp).astimezone()
    when = moment.replace(tzinfo=None).isoformat(" ", "milliseconds")
    return printable(f"{when} {item.name} {_compact(item.data)}")


def envelope(item: Event | Gap) -> str:
    """One line for a program: the envelope as it came."""
    return printable(_compact(item.envelope))


def printable(text: str) -> str:
    """`text` with everything that could drive a terminal (controls, bidi marks, line breaks) as JSON escapes.

    A JSON text stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f" for c in text)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ---- call


def call_args(words: Sequence[str]) -> dict[str, Any]:
    """The args of a call from `{"a": 1}` or from `a=1 b=text` (JSON if it can be). Raises ValueError."""
    if len(words) == 1 and words[0].lstrip().startswith(("{", "[")):
        args = json.loads(checked(words[0].encode()))
        if not isinstance(args, dict):
            raise ValueError("the args of a call are one JSON object")
        return args
    args = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise ValueError(f"{word!r} is neither key=value nor a JSON object")
        if key in args:
            raise ValueError(f"{key!r} is given twice")
        args[key] = _value(text)
    return args


def _value(text: str) -> Any:
    try:
        return json.loads(checked(text.encode()))
    except ValueError:
        return text
