"""Publishes on their way to a Redis: those of one pass of the loop in one call, each whole."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from ...errors import HubError
from ..events import Draft
from .broker import Receipt, unavailable
from .connection import Connection
from .entries import packed
from .server import Away, Moved, Trouble

MOST_EVENTS, MOST_BYTES = 1000, 1024 * 1024  # of a call: it holds the server for some 12 ms
MOST_CALLS = 4  # on their way at once

Receipts = asyncio.Future[list[Receipt]]
OnTrouble = Callable[[Exception], None]


class _Append:
    """One publish: what is sent of it, and who waits."""

    __slots__ = ("again", "count", "receipts", "size", "words")

    def __init__(self, drafts: Sequence[Draft], receipts: Receipts) -> None:
        self.words = [word for draft in drafts for word in packed(draft)]
        self.size, self.count = sum(map(len, self.words)), len(drafts)
        self.receipts, self.again = receipts, False


class Appends:
    """Sends publishes through `attach`ed connections, and answers each when its events have gone through the pump here.

    What was sent, and not answered before the connection was cut, may have been kept: it is refused, and never sent
    again. What the server says that it has not done, because its stream is of another epoch, or has not what this hub
    has seen, is sent once more.
    `on_trouble(error)` hears of each error but that of a cut.
    """

    def __init__(self, on_trouble: OnTrouble) -> None:
        self._on_trouble = on_trouble
        self._connection: Connection | None = None
        self._epoch, self._head = "", 0
        self._queue: deque[_Append] = deque()
        self._again: list[_Append] = []
        self._calls = 0  # on their way
        self._passing: deque[tuple[int, _Append, list[Receipt]]] = deque()  # answered; the last number of each
        self._sending: asyncio.Handle | None = None
        self._waiting: set[Receipts] = set()  # all publishes that have not been answered

    async def put(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Publish. Raises HubError `broker_unavailable`."""
        loop = asyncio.get_running_loop()
        receipts: Receipts = loop.create_future()
        self._queue.append(_Append(drafts, receipts))
        self._waiting.add(receipts)
        receipts.add_done_callback(self._waiting.discard)
        self._send_soon()
        return await receipts

    def attach(self, connection: Connection, epoch: str, head: int) -> None:
        """Send through this one, to a stream of this epoch, of which the hub has seen the events up to `head`."""
        self._connection, self._epoch, self._head = connection, epoch, head
        self._queue.extendleft(reversed(self._again))
        self._again.clear()
        self._send_soon()

    def detach(self, reason: Exception) -> None:
        """The connection has been cut. What was answered and has not been seen may be gone with the server."""
        self._connection = None
        passing, self._passing = self._passing, deque()
        for _, append, _ in passing:
            _refuse(append, _unknown(reason))

    def refuse(self, error: HubError) -> None:
        """Refuse what waits to be sent: it cannot be."""
        waiting = [*self._again, *self._queue]
        self._again.clear()
        self._queue.clear()
        for append in waiting:
            _refuse(append, error)

    def passed(self, head: int) -> None:
        """The events up to this number have gone through the pump."""
        self._head = head
        while self._passing and self._passing[0][0] <= head:
            _, append, receipts = self._passing.popleft()
            if not append.receipts.done():  # else whoever published has gone
                append.receipts.set_result(receipts)

    async def drain(self) -> None:
        """Return when nothing is on its way any more."""
        while self._waiting:
            await asyncio.wait(self._waiting)

    # ---- calls

    def _send_soon(self) -> None:
        if self._sending is None and self._queue and self._calls < MOST_CALLS and self._connection is not None:
            self._sending = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = None
        if self._connection is None or not self._queue:
            return
        group, count, size = [self._queue.popleft()], 0, 0
        count, size = group[0].count, group[0].size
        while self._queue and self._queue[0].count + count <= MOST_EVENTS and self._queue[0].size + size <= MOST_BYTES:
            group.append(self._queue.popleft())
            count, size = count + group[-1].count, size + group[-1].size
        words = [word for append in group for word in append.words]
        self._calls += 1
        connection = self._connection
        answer = connection.run("hub_append", self._epoch, self._head, *words)
        answer.add_done_callback(lambda answer: self._answered(group, answer, connection))
        self._send_soon()

    def _answered(self, group: list[_Append], answer: "asyncio.Future[list[int]]", connection: Connection) -> None:
        self._calls -= 1
        error = answer.exception()
        if error is None and connection is not self._connection:  # cut in this very pass
            error = Away("The connection to Redis was cut.")
        if error is None:
            self._receive(group, answer.result())
        elif isinstance(error, Moved) and not any(append.again for append in group):
            for append in group:
                append.again = True
            self._again += group
            self._on_trouble(error)
        else:
            refusal = _unknown(error) if isinstance(error, Away) else unavailable(str(error))
            for append in group:
                _refuse(append, refusal)
            if isinstance(error, Trouble) and not isinstance(error, Away):
                self._on_trouble(error)
        self._send_soon()

    def _receive(self, group: list[_Append], reply: list[int]) -> None:
        seq, known = reply[0], dict(zip(reply[1::2], reply[2::2], strict=True))
        place = 0
        for append in group:
            receipts = list[Receipt]()
            for _ in range(append.count):
                first = known.get(place)
                seq, place = seq + (first is None), place + 1
                receipts.append(Receipt(seq if first is None else first, first is not None))
            self._passing.append((max(receipt.seq for receipt in receipts), append, receipts))
        self.passed(self._head)


def _unknown(reason: BaseException) -> HubError:
    return unavailable(f"{reason} What was on its way may have been kept: repeat it with its id.")


def _refuse(append: _Append, error: HubError) -> None:
    if not append.receipts.done():
        append.receipts.set_exception(error)
        append.receipts.exception()  # whoever published may have gone
