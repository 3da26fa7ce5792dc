"""`hub publish`: one event, or the JSON texts of stdin, as they come, in batches that are tried again."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..client.discovery import Disconnected, NoHub
from ..errors import HubError, UsageError
from ..stdio import complain, say
from ..wire.ids import new_id
from ..wire.mistyped import mistyped
from ..wire.vocabulary import EVENTS
from .grammar import add_command, identifier, refusal, seconds
from .http import Silent, add_where, connection
from .interrupts import interruptible
from .terminal import printable
from .words import STDIN, fields, is_given, is_json, json_text, json_word, parsed, read_stdin

if TYPE_CHECKING:
    from .documents import Line
    from .lasting import Asks

PUBLISH_TRIES = 8
MOST_TOLD = 20  # lines that are not published, each with why
SILENT_TRIES = 3  # until a hub that says nothing at all is given up
ANSWER_TIMEOUT = 10.0  # seconds until it is asked again
LONGEST_WAIT = 5.0  # seconds before a publish that came too fast is tried again
COMES_BACK, LOOK = 10.0, 1.0  # seconds that a hub which has said that it stops is waited for, and between two looks
STATUS = "0 all is published, 1 the hub said no, or lines were left out, 2 the words are wrong, 3 no hub there"
EXAMPLES = """
    hub publish task:progress id=build progress=40
    hub publish task:progress id=build status=succeeded
    hub publish orders:paid '{"order": 7, "items": ["tea"]}'
    hub publish orders:paid order:=7 items:='["tea"]'
    tail -f readings.ndjson | hub publish sensor:reading
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "publish", run, "publish events", EXAMPLES, status=STATUS)
    command.usage = (
        "hub publish EVENT [JSON | - | key=value … | key:=JSON …] [--id ID] [--ttl SECONDS] [--strict] [FLAG …]"
    )
    command.add_argument("event", metavar="EVENT", help="the event's name, domain:action")
    words = command.add_argument(
        "words", metavar="DATA", nargs="*", help="its data; - (or nothing, behind | or <) reads one JSON, or one a line"
    )
    words.required = False  # as it is for argparse where it says what is missing
    command.add_argument("--id", type=identifier, help="the event's id; the hub keeps an id once")
    command.add_argument("--ttl", type=seconds, metavar="SECONDS", help="how long its state counts as fresh")
    command.add_argument("--strict", action="store_true", help="refuse a name, or a field, that looks mistyped")
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Publish one event, or stdin as it comes, without the lines that do not fit; prints the cursor of the last."""
    meant = _mistyped(args)
    if meant and args.strict:
        raise HubError("invalid_message", meant)
    hints, rest, cursor = [*filter(None, (meant, _flag_meant(args)))], Rest(), None
    batches = _batches_of(args, rest)
    try:
        with interruptible(), _hub_of(args) as hub:
            for batch in batches:
                answer = _what_fits(hub, batch, rest if _is_stream(args) else None, args)
                while hints and answer:
                    complain(printable(f"hub: {hints.pop(0)}"))
                cursor = answer["cursor"] if answer else cursor
    finally:
        if cursor is not None:  # also when what follows was refused: so far everything is published
            say(printable(cursor))
    rest.end()
    if cursor is None:
        raise UsageError("There is nothing on stdin to publish.")
    return 0


def _hub_of(args: argparse.Namespace) -> "AbstractContextManager[Asks]":
    if not _is_stream(args):
        return connection(args, answer_timeout=ANSWER_TIMEOUT)
    from .lasting import Lasting  # here, as what reads stdin: with words there is no use for it

    return Lasting(args, ANSWER_TIMEOUT)


class Rest:
    """The lines that are not published: the first of them are told, each with why."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, why: str) -> None:
        """Take one more."""
        self._count += 1
        if self._count <= MOST_TOLD:
            complain(printable(f"hub: {why}"))

    def end(self) -> None:
        """Raise HubError if there are any."""
        if self._count:
            many = "1 line was" if self._count == 1 else f"{self._count} lines were"
            raise HubError("invalid_message", f"{many} not published.")


def _mistyped(args: argparse.Namespace) -> str | None:
    """Return the question that a mistyped name raises, or a mistyped field of a known event."""
    has_fields = args.words and args.words != [STDIN] and args.event in EVENTS
    return mistyped(args.event, _keys(args.words) if has_fields else ())


def _keys(words: Sequence[str]) -> Sequence[str]:
    if not is_json(words):
        return [field.key for field in parsed(words)]
    data = json.loads(json_text(words[0]))
    return list(data) if isinstance(data, dict) else []


def _flag_meant(args: argparse.Namespace) -> str | None:
    """Return what is said of a `ttl` in the data, where the hub has no such field; another event may have one."""
    if args.event not in EVENTS or args.ttl is not None or is_json(args.words):
        return None
    given = next((field.text for field in parsed(args.words) if field.key == "ttl"), None)
    return given and f"ttl stands in the data now, where it means nothing; did you mean --ttl {given}?"


def _is_stream(args: argparse.Namespace) -> bool:
    """Whether stdin is read: where it is named, and a pipe or a file also where nothing else is."""
    return args.words == [STDIN] or (not args.words and is_given())


def _batches_of(args: argparse.Namespace, rest: Rest) -> "Iterator[list[Line]]":
    if _is_stream(args):
        from .documents import documents

        return documents(read_stdin, rest.add, whole=args.id is not None)
    if not args.words:
        return iter([[(1, "null")]])
    if is_json(args.words):
        return iter([[(1, json_word(args.words[0]))]])
    types = {key: {"type": [kind, "null"]} for key, kind in EVENTS.get(args.event, {}).items()}
    return iter([[(1, json.dumps(fields(args.words, types)))]])


def _what_fits(hub: "Asks", batch: "list[Line]", rest: Rest | None, args: argparse.Namespace) -> Any:
    """As `post`, of a stream without the lines whose data does not fit, which are the `rest`: the hub takes all of a
    batch or nothing. None if no line is left."""
    while batch:
        try:
            return post(hub, batch, args.event, id=args.id, ttl=args.ttl)
        except HubError as error:
            misfits = {} if rest is None else _misfits(error, batch)
            if rest is None and not args.words and "data" in (error.details or {}):
                said = f"{args.event} needs data, and there is none: put it behind the name, as id=build, or as JSON."
                raise HubError(error.code, said) from None
            if rest is None or not misfits:
                raise _of_all(error, batch) from None
            for number, why in misfits.items():
                rest.add(refusal(HubError(error.code, f"Line {number}:", why)))
            batch = [line for line in batch if line[0] not in misfits]
    return None


def _misfits(error: HubError, batch: "list[Line]") -> dict[int, Any]:
    """The lines that the hub does not take for what is in them, and what it says of each. A name, an id or a ttl that
    does not fit is that of all."""
    details = error.details or {}
    if len(batch) == 1:
        details = {"0": details or {"data": [error.message]}} if details or error.code == "too_large" else {}
    said = {batch[int(key)][0]: why for key, why in details.items() if key.isdecimal()}
    return {number: why for number, why in said.items() if "data" in why or error.code == "too_large"}


def post(hub: "Asks", batch: "list[Line]", event: str, *, id: str | None = None, ttl: float | None = None) -> Any:
    """Publish a batch and return the hub's answer; raises as `Connection.ask`, and Disconnected that says so where it
    may be published.

    Safe to try again, since every event has its id and the hub keeps an id once.
    """
    kind = "application/json" if len(batch) == 1 else "application/x-ndjson"
    body = "\n".join(_event(event, id, ttl, text) for _, text in batch).encode()
    lost: Disconnected | None = None  # an answer
    silences, stopped = 0, None
    for left in reversed(range(PUBLISH_TRIES)):
        try:
            return hub.ask("POST", "/api/events", body, kind)
        except NoHub:
            if lost is not None:
                raise _unknown(lost, batch) from None
            if stopped is None or not left or time.monotonic() > stopped + COMES_BACK:
                raise
            time.sleep(LOOK)
        except Disconnected as error:
            lost, silences = error, silences + isinstance(error, Silent)
            if not left or silences == SILENT_TRIES:
                raise _unknown(error, batch) from None
            if isinstance(error, Silent):
                complain(printable(f"hub: {error.message} It is asked again."))
        except HubError as error:
            if error.retry_after is None or not left:
                raise
            stopped = time.monotonic() if error.code == "shutting_down" else None
            time.sleep(min(error.retry_after, LONGEST_WAIT))
    raise AssertionError("the last try returns or raises")


def _event(name: str, id: str | None, ttl: float | None, data: str) -> str:
    """The JSON of one event. Its data goes in as it was written: it has been seen to be one value."""
    fields: dict[str, Any] = {"event": name, "id": new_id() if id is None else id}
    if ttl is not None:
        fields["ttl"] = ttl
    return f'{json.dumps(fields)[:-1]}, "data": {data}}}'


def _unknown(error: Disconnected, batch: "list[Line]") -> Disconnected:
    """The error where a hub was asked and no answer came."""
    what = "the event" if len(batch) == 1 else f"what stands in lines {batch[0][0]} to {batch[-1][0]}"
    return Disconnected(f"{error.message} It may have published {what} all the same.")


def _of_all(error: HubError, batch: "list[Line]") -> HubError:
    """The refusal of a batch names its events by their index; where it is the same with all, one is enough."""
    if len(batch) == 1 or not isinstance(error.details, dict) or not all(map(str.isdecimal, error.details)):
        return error
    return HubError(error.code, "The lines are not published:", next(iter(error.details.values()), None))
