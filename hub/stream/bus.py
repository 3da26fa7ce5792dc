"""EventBus: the one way in for events (check, redact, number) and the one pump that hands them on, in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from aiosignal import Signal

from ..errors import Code, HubError
from ..redaction import holds_secret, redact_each
from ..wire.ids import is_id, new_id
from ..wire.names import MAX_NAME, Cursor, is_name
from ..wire.strictjson import LARGEST_EVENT, dumpb, plain
from ..wire.timestamps import MAX_TTL
from ..wire.validation import MAX_PROBLEMS, misfit, problems_in, told
from .brokers.broker import Broker, Receipt
from .events import Draft, Event, weights
from .eventtypes import EventTypes
from .listeners import Listener, Listeners
from .passes import HEAVY_REST, Passes

SMALL = LARGEST_EVENT // 2 - 1024  # bytes of data with which an event cannot be too large, whatever its key and id

_FIELDS = {"event", "data", "id", "ttl"}


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a publish: how many were new, how many known already, the newest cursor, the ids in order."""

    accepted: int
    duplicates: int
    cursor: Cursor
    ids: list[str]


class EventBus:
    """Publishing, and listening to what was published.

    `on_event` carries every batch, in order, to the hub's own parts and then to the application's listeners;
    `position` is the newest number that has gone through. A publish returns when its events have, so that whoever
    published can read them back at once.
    """

    def __init__(self, broker: Broker, types: EventTypes) -> None:
        self.broker, self.types = broker, types
        self.on_event: Signal[Sequence[Event]] = Signal(self)
        self.on_accepted: Callable[[Sequence[Draft]], None] = lambda drafts: None
        self.on_redacted: Callable[[int], None] = lambda count: None
        self.on_rejected: Callable[[Code, int], None] = lambda reason, count: None
        self.listeners = Listeners()
        self.heavy = Passes(rest=HEAVY_REST)  # whose turn it is with what is LARGE
        self.position = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def publish(self, records: Sequence[Mapping[str, Any]], *, many: bool = False) -> Published:
        """Accept all of `records` (`{event, data, id?, ttl?}`, as `strictjson.loads` gives them) or none.

        Raises HubError `invalid_message`, `reserved_event` or `too_large`, with `details` by field, or by index if
        they are `many`; `broker_unavailable` if they cannot be kept.
        """
        try:
            drafts = await self._drafts(records, many)
            receipts = await self._append(drafts) if drafts else []
        except HubError as error:
            self.on_rejected(error.code, len(records))
            raise
        return await self._published(drafts, receipts)

    def on(self, pattern: str, listener: Listener) -> None:
        """Call `listener(event)` for every event that matches, in order. Raises ValueError for a bad pattern."""
        self.listeners.add(pattern, listener)

    def once(self, pattern: str, listener: Listener) -> None:
        """As `on`, for the first such event only."""
        self.listeners.add(pattern, listener, once=True)

    def off(self, pattern: str, listener: Listener) -> None:
        """Undo `on` or `once`."""
        self.listeners.remove(pattern, listener)

    async def announce(self, name: str, data: Mapping[str, Any]) -> None:
        """Publish numbered events of the hub's own domain, by their ids, all or none."""
        await self._append([Draft(name, id, dumpb(one)) for id, one in data.items()])

    async def keep(self, name: str, key: str, data: Any, id: str | None = None) -> None:
        """Publish a last value of the hub's own; returns when it has gone through. Raises `broker_unavailable`.

        With an `id` all hubs of the stream together publish it once."""
        drafts = [Draft(name, id or new_id(), dumpb(data), key, None, id is not None)]
        await self._published(drafts, await self._append(drafts))

    async def _append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Have them kept, and count those that were not known: here and nowhere else, so that what several hubs of a
        stream have counted adds up to what there is. Raises HubError."""
        receipts = await self.broker.append(drafts)
        self.on_accepted([draft for draft, receipt in zip(drafts, receipts, strict=True) if not receipt.duplicate])
        return receipts

    async def _published(self, drafts: Sequence[Draft], receipts: Sequence[Receipt]) -> Published:
        newest, duplicates = (self.position if not receipts else 0), 0
        for seq, duplicate in receipts:
            newest, duplicates = max(newest, seq), duplicates + duplicate
        if self.position < newest:
            await self._passed(newest)
        cursor = Cursor(self.broker.epoch, newest)
        return Published(len(drafts) - duplicates, duplicates, cursor, [draft.id for draft in drafts])

    # ---- the way in

    async def _drafts(self, records: Sequence[Mapping[str, Any]], many: bool) -> list[Draft]:
        """Check every record by itself, and clean them together: nearly always there is nothing to take out."""
        drafts: list[Draft] = []
        problems = _Problems(many)
        ids: set[str] = set()
        for index, record in enumerate(records):
            try:
                draft = self._draft(record)
                if draft.given:
                    if draft.id in ids:
                        raise _misfit({"id": ["The same id twice in one batch."]})
                    ids.add(draft.id)
                drafts.append(draft)
            except HubError as error:
                if problems.add(index, error):
                    break
        problems.end(index + 1 if records else 0)
        await self._fill(drafts, [record["data"] for record in records], problems)
        return drafts

    def _draft(self, record: Mapping[str, Any]) -> Draft:
        name, data, id, ttl = _read(record)
        key = self.types.check(name, data)
        if ttl is not None and key is None:
            raise _misfit({"ttl": [f"Only an event with a key can grow stale, and {name} has none."]})
        return Draft(name, id or new_id(), b"", key, ttl, id is not None)

    async def _fill(self, drafts: Sequence[Draft], data: list[Any], problems: "_Problems") -> None:
        """Put the data in, without its secrets. A key is kept and shown as the data is: cleaned."""
        cleaned, count = await redact_each(data, self.heavy.apart)
        if count:
            self.on_redacted(count)
            for index, draft in enumerate(drafts):
                if cleaned[index] is not data[index]:
                    try:
                        draft.key = self.types.key(draft.name, cleaned[index])
                    except HubError as error:
                        problems.add(index, error)
            problems.end(len(drafts))
        for index, draft in enumerate(drafts):
            draft.body = dumpb(cleaned[index])
            if len(draft.body) > SMALL:
                self._weigh(index, draft, problems)
        problems.end(len(drafts))

    def _weigh(self, index: int, draft: Draft, problems: "_Problems") -> None:
        """What counts is what goes out: it may be far larger than what came in."""
        envelope, item = weights(draft, Cursor(self.broker.epoch, self.broker.head + 1))
        if max(envelope, item) > LARGEST_EVENT:
            how = "as a last value, beside its key, " if item > envelope else ""
            size = max(envelope, item)
            sentence = f"The event would go out {how}as {size} bytes, and {LARGEST_EVENT} is the most."
            problems.add(index, HubError("too_large", sentence))

    # ---- the way out

    async def pump(self, batch: Sequence[Event]) -> None:
        """The only place from which events go on; the broker calls it with every batch, in order.

        The listeners of `on_event` never wait, so a batch goes through in one step of the event loop.
        """
        await self.on_event.send(batch)
        self.move(batch[-1].seq)

    def move(self, position: int) -> None:
        """Go on behind this number: whoever waits for one up to there has waited long enough. Never waits."""
        self.position = position
        while self._waiting and self._waiting[0][0] <= self.position:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    async def _passed(self, seq: int) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, future))
        await future


class _Problems:
    """What does not fit in a publish: of a single event the error itself, of `many` every one, by its index."""

    def __init__(self, many: bool) -> None:
        self._many = many
        self._found: dict[str, Any] = {}
        self._code: Code | None = None
        self._left = MAX_PROBLEMS

    def add(self, index: int, error: HubError) -> bool:
        """Take one more; return whether no more are told, so that none need be looked for."""
        if not self._many:
            raise error
        self._code = self._code or error.code
        self._found[str(index)] = details = error.details or {"event": [error.message]}
        self._left -= problems_in(details)
        return self._left <= 0

    def end(self, count: int) -> None:
        """Raises HubError if there were any among so many events; behind MAX_PROBLEMS nobody has looked."""
        if self._code is not None:
            of = f"of the first {count}" if self._left <= 0 else f"of {count}"
            some = f"{len(self._found)} {of} events do not fit, so none was published; the details say why."
            raise HubError(self._code, some, told(self._found))


def record(event: str, data: Any, id: str | None, ttl: float | None) -> dict[str, Any]:
    """What Python code publishes, in the form that `EventBus.publish` takes; the data is copied."""
    given = {"id": id, "ttl": ttl}
    return {"event": event, "data": plain(data), **{k: v for k, v in given.items() if v is not None}}


def _read(record: Mapping[str, Any]) -> tuple[str, Any, str | None, float | None]:
    """The four fields of a record, checked by hand: this is on the path of every event. Nearly all have but two."""
    if type(record) is dict and len(record) == 2 and "data" in record and _is_usual(record.get("event")):
        return record["event"], record["data"], None, None
    if not isinstance(record, dict):
        raise _misfit({"_schema": ["An event is an object with event and data."]})
    name, id, ttl = record.get("event"), record.get("id"), record.get("ttl")
    problems = {}
    if not isinstance(name, str) or not is_name(name):
        problems["event"] = ["Missing, or not a name: domain:action, letters, digits, _ . -, at most 128 characters."]
    elif _has_secret(name):
        problems["event"] = ["It holds what looks like a secret."]
    if "data" not in record:
        problems["data"] = ["Missing data for required field."]
    if "id" in record and not is_id(id):
        problems["id"] = ["Not an id: 1 to 128 printable characters."]
    elif isinstance(id, str) and holds_secret(id):
        problems["id"] = ["It holds what looks like a secret."]
    if "ttl" in record and not (isinstance(ttl, int | float) and not isinstance(ttl, bool) and 0 < ttl <= MAX_TTL):
        problems["ttl"] = [f"Not a number of seconds above 0 and up to {MAX_TTL}."]
    if not record.keys() <= _FIELDS:
        problems.update((key, ["Unknown field."]) for key in islice(record.keys() - _FIELDS, MAX_PROBLEMS))
    if problems:
        raise _misfit(problems)
    assert isinstance(name, str)
    if name.startswith("hub:"):
        raise HubError("reserved_event", "Events in the domain hub: are the hub's own; choose another domain.")
    return name, record["data"], id, ttl


@lru_cache(maxsize=1024)  # names are short and few
def _has_secret(name: str) -> bool:
    return holds_secret(name)


def _is_usual(name: Any) -> bool:
    return type(name) is str and len(name) <= MAX_NAME and _may_be_published(name)


@lru_cache(maxsize=1024)
def _may_be_published(name: str) -> bool:
    return is_name(name) and not name.startswith("hub:") and not holds_secret(name)


def _misfit(details: Mapping[str, Any]) -> HubError:
    return misfit("invalid_message", "The event does not fit", details)
