"""What `hub publish` sends: the JSON texts of stdin, as they come, in batches that are tried again."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from ..client.discovery import Disconnected
from ..errors import HubError, UsageError
from ..wire.names import new_id
from ..wire.strictjson import loads
from .http import Connection

CHUNK = 64 * 1024  # bytes read from stdin at once
BATCH_EVENTS, BATCH_BYTES = 1000, 512 * 1024  # of one request: what the hub takes, and half of it
PUBLISH_TRIES = 8
LONGEST_WAIT = 5.0  # seconds before a publish that came too fast is tried again

Line = tuple[int, str]  # its number, and its JSON text


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
    except ValueError:
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
