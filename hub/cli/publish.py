"""`hub publish`: one event, or the JSON texts of stdin, as they come, in batches that are tried again."""

import argparse
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from ..client.discovery import Disconnected
from ..errors import HubError, UsageError
from ..stdio import say
from ..wire.names import new_id
from ..wire.strictjson import loads
from .grammar import add_command, json_text
from .http import Connection, add_where, connection
from .terminal import printable

CHUNK = 64 * 1024  # bytes read from stdin at once
BATCH_EVENTS, BATCH_BYTES = 1000, 512 * 1024  # of one request: what the hub takes, and half of it
PUBLISH_TRIES = 8
LONGEST_WAIT = 5.0  # seconds before a publish that came too fast is tried again

Line = tuple[int, str]  # its number, and its JSON text


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "publish", run, "publish events")
    add_where(command)
    command.add_argument("event", metavar="EVENT", help="the event's name, domain:action")
    command.add_argument(
        "data", metavar="JSON", nargs="?", help="its data; - (or nothing, in a pipe) reads one JSON, or one a line"
    )
    command.add_argument("--id", help="the event's id; the hub keeps an id once")
    command.add_argument("--ttl", type=float, metavar="SECONDS", help="how long its state counts as fresh")


def run(args: argparse.Namespace) -> int:
    """Publish one event, or stdin as it comes; prints the cursor of the last."""
    batches, cursor = _batches_of(args), None
    try:
        with connection(args) as hub:
            for batch in batches:
                cursor = post(hub, batch, args.event, id=args.id, ttl=args.ttl)["cursor"]
    finally:
        if cursor is not None:  # also when a later line was refused: so far everything is published
            say(printable(cursor))
    if cursor is None:
        raise UsageError("There is nothing on stdin to publish.")
    return 0


def _batches_of(args: argparse.Namespace) -> Iterator[list[Line]]:
    if args.data == "-":
        return documents(_stdin, whole=args.id is not None)
    if args.data is None and stat.S_ISFIFO(os.fstat(0).st_mode):
        return _or_null(documents(_stdin, whole=args.id is not None))
    return iter([[(1, "null" if args.data is None else json_text(args.data))]])


def _or_null(batches: Iterator[list[Line]]) -> Iterator[list[Line]]:
    """An event without data, if a pipe that nobody asked for has none: many programs are started with an empty one."""
    yield next(batches, [(1, "null")])
    yield from batches


def _stdin(size: int) -> bytes:
    try:
        return os.read(0, size)
    except OSError as error:
        raise UsageError(f"Stdin cannot be read ({error.strerror}).") from None


def documents(read: Callable[[int], bytes], whole: bool = False) -> Iterator[list[Line]]:
    """The JSON texts of a stream, as they come, in batches for a request: one a line, or one over all lines.

    Raises UsageError with the number of the line; what stands before it has been handed out.
    """
    groups, number, begun = _lines(read), 0, False
    for group in groups:
        ready: list[Line] = []
        for index, line in enumerate(group):
            number += 1
            if not line.strip():
                continue
            if not begun and (whole or _unfinished(line)):
                text = b"\n".join([*group[index:], *chain.from_iterable(groups)])
                yield [(number, _strict(text, "on stdin"))]
                return
            begun = True
            try:
                ready.append((number, _strict(line, f"in line {number}")))
            except UsageError:
                yield from _batches(ready)
                raise
        yield from _batches(ready)


def _lines(read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The lines of a stream, grouped by when they arrived."""
    rest = b""
    while chunk := read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    yield [rest]


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == BATCH_EVENTS or size + len(line[1]) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line[1])
    if batch:
        yield batch


def _unfinished(line: bytes) -> bool:
    """Whether this is the first line of a JSON text that goes on in the next."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _strict(text: bytes, where: str) -> str:
    """The text, if the hub's own reader takes it: so a line that it would refuse is told by its number."""
    try:
        loads(text)
    except HubError as error:
        raise UsageError(f"{error.message.rstrip('.')}, {where}.") from None
    return text.decode()


def post(hub: Connection, batch: list[Line], event: str, *, id: str | None = None, ttl: float | None = None) -> Any:
    """Publish a batch and return the hub's answer; raises as `Connection.ask`.

    Safe to try again, since every event has its id and the hub keeps an id once.
    """
    kind = "application/json" if len(batch) == 1 else "application/x-ndjson"
    body = "\n".join(_event(event, id, ttl, text) for _, text in batch).encode()
    for left in reversed(range(PUBLISH_TRIES)):
        try:
            return hub.ask("POST", "/api/events", body, kind)
        except Disconnected:
            if not left:
                raise  # else it was idle, and closed by the hub; if the hub is gone, connecting says so
        except HubError as error:
            if error.retry_after is None or not left:
                raise _by_line(error, batch) from None
            time.sleep(min(error.retry_after, LONGEST_WAIT))
    raise AssertionError("the last try returns or raises")


def _event(name: str, id: str | None, ttl: float | None, data: str) -> str:
    """The JSON of one event. Its data goes in as it was written: it has been seen to be one value."""
    fields: dict[str, Any] = {"event": name, "id": id or new_id()}
    if ttl is not None:
        fields["ttl"] = ttl
    return f'{json.dumps(fields)[:-1]}, "data": {data}}}'


def _by_line(error: HubError, batch: list[Line]) -> HubError:
    """The refusal of a batch names its events by their index; say the line instead."""
    if len(batch) > 1 and error.details:
        named = {f"line {batch[int(key)][0]}": value for key, value in error.details.items() if key.isdecimal()}
        error.details = named or error.details
    return error
