"""HubHandler: the log of a program as events of the hub, for the standard library's `logging`."""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import HubError
from ..redaction import redact_text
from ..wire.ids import new_id
from .client import HubClient, PromptClient
from .connections import Backoff
from .discovery import named_hub
from .ownership import is_near

EVENT = "log:record"
KEPT = 1000  # records that wait for a hub
LONGEST = 4000  # characters of a message and of a traceback: one of each is not more than half a frame
FLUSH_SECONDS = 2.0
PATIENCE = 2.0  # seconds for one attempt to publish
POLL_SECONDS = 0.005
NEVER_TAKEN = ("invalid_args", "invalid_message", "reserved_event", "too_large")  # not now, and not later

log = logging.getLogger(__name__)

Event = tuple[str, dict[str, Any]]  # its id and its data


class HubHandler(logging.Handler):
    """Publish each record as an event `log:record`: `{level, logger, message, created, process, thread, file, line}`,
    with `exception` if there is one.

        logging.getLogger().addHandler(HubHandler())

    It never waits and never raises: a thread of its own publishes, in the order in which it was logged, to the hub that
    `url` and the other words name as in HubClient. Whether a hub is there makes no difference to the program: `kept`
    records wait for it, then the oldest goes for each new one. How many have gone so is said by the next event, and by
    the attribute `dropped`. `flush`, and the end of the program, try once more where no hub was, and wait for what is
    under way, two seconds at most; what is left behind that is counted. What its own thread logs is not published.
    """

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        *,
        event: str = EVENT,
        kept: int = KEPT,
        url: str | None = None,
        state_dir: str | Path | None = None,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        super().__init__(level)
        named_hub(url, None)  # a word that is no address is told here
        where = {"url": url, "state_dir": state_dir, "token": token, "ca": ca}
        self._make = partial(_Publisher, event, kept, where)
        self._publisher = self._make()

    @property
    def dropped(self) -> int:
        """How many records could not be kept, or were refused, so far; behind `close`, also those that were left."""
        return self._publisher.lost

    def handle(self, record: logging.LogRecord) -> bool:
        """As every handler, but of what its own thread logs take no notice: nor wait for the handler's lock, which a
        `flush` may hold that waits for that thread."""
        return False if self._publisher.is_own_thread() else super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, to be published by the thread. Never waits; what has no room is counted."""
        try:
            if not self._publisher.is_of_this_process():  # a fork has taken everything but the thread along
                self._publisher = self._make()
            self._publisher.put(self._data(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything is published, for `FLUSH_SECONDS` at most. Where no hub was there it is looked for once
        more, at once: one that was restarted may be back."""
        self._publisher.flush()

    def close(self) -> None:
        """Flush, and end the thread."""
        self._publisher.close()
        super().close()

    def _data(self, record: logging.LogRecord) -> dict[str, Any]:
        data: dict[str, Any] = {
            "level": record.levelname,
            "logger": record.name,
            "message": _short(record.getMessage()),
            "created": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "process": record.process,
            "thread": record.threadName,
            "file": record.pathname,
            "line": record.lineno,
        }
        if record.exc_info or record.exc_text:
            text = record.exc_text or (self.formatter or _FORMATTER).formatException(record.exc_info)  # type: ignore[arg-type]
            data["exception"] = _short(text)
        return data


_FORMATTER = logging.Formatter()


def _short(text: str) -> str:
    """Begin and end of a long text; and what UTF-8 has no bytes for is escaped. What is cut is cleaned before: of half
    a secret no hub knows that it is one."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) > LONGEST:
        text = redact_text(text)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


class _Publisher:
    """What waits to be published, and the thread that does it, begun with the first record."""

    def __init__(self, event: str, kept: int, where: Mapping[str, Any]) -> None:
        self._event, self._where = event, where
        self._is_near = is_near(named_hub(where["url"], where["state_dir"]))
        self._pid = os.getpid()
        self._waiting, self._kept = deque[Event](), kept
        self._put = self._gone = 0  # records that came, that had to go; counted by those who log, one after the other
        self._thread: threading.Thread | None = None
        self._cancel: Callable[[], Any] = lambda: None
        self._wake: Callable[[], Any] | None = None  # while the thread waits for something to do
        self._closed = False
        self._given_up = -1  # records that had come when a flush was given up: without more it is not tried again
        # What follows is the thread's.
        self._taken: Event | None = None  # being published
        self._done = self._refused = 0  # records that were published or refused; that were refused
        self._told = 0  # lost ones that an event has told of
        self._failures = 0  # attempts to reach the hub that came to nothing
        self._hurry: Callable[[], Any] | None = None  # while it waits before it tries again

    @property
    def lost(self) -> int:
        left = self._put - self._gone - self._done if self._closed else 0  # behind the end nobody publishes them
        return self._gone + self._refused + left

    def is_own_thread(self) -> bool:
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def is_of_this_process(self) -> bool:
        return self._pid == os.getpid()

    def put(self, data: dict[str, Any]) -> None:
        """Keep one for the thread; the oldest goes if there are too many."""
        self._put += 1
        if len(self._waiting) >= self._kept:
            with suppress(IndexError):  # the thread has just taken the last
                self._waiting.popleft()
                self._gone += 1
        self._waiting.append((new_id(), data))
        wake, self._wake = self._wake, None
        if wake is not None:
            with suppress(RuntimeError):  # the thread is ending
                wake()
        elif not self._closed and (self._thread is None or not self._thread.is_alive()):
            with suppress(RuntimeError):  # the interpreter is ending, and begins no thread any more
                self._begin()

    def flush(self) -> None:
        """Return when nothing waits any more, or an attempt to reach the hub has failed behind this, or it is time."""
        ends, failures = time.monotonic() + FLUSH_SECONDS, self._failures
        while self._is_busy() and self._put > self._given_up and self._failures == failures:
            if time.monotonic() > ends:
                self._given_up = self._put
            if (hurry := self._hurry) is not None:
                with suppress(RuntimeError):  # the thread is ending
                    hurry()
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        self.flush()
        self._closed = True
        if self._thread is not None and self.is_of_this_process():
            with suppress(RuntimeError):  # it has ended already
                self._cancel()
            self._thread.join(FLUSH_SECONDS)

    def _is_busy(self) -> bool:
        alive = self._thread is not None and self.is_of_this_process() and self._thread.is_alive()
        return alive and self._put > self._gone + self._done

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="hub-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._work())

    async def _work(self) -> None:
        loop, task, backoff = asyncio.get_running_loop(), asyncio.current_task(), Backoff(is_near=self._is_near)
        assert task is not None
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        while True:
            try:
                async with PromptClient(**self._where, patience=PATIENCE) as client:
                    await self._publish(client, backoff)
            except Exception as error:
                self._failures += 1
                log.debug("the log cannot be published: %s", error)
            await self._pause(backoff.next())

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, or until a flush wants it now."""
        hurried = asyncio.Event()
        self._hurry = partial(asyncio.get_running_loop().call_soon_threadsafe, hurried.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await hurried.wait()
        self._hurry = None

    async def _publish(self, client: HubClient, backoff: Backoff) -> None:
        while True:
            if self._taken is None:
                self._taken = await self._next()
            id, data = self._taken
            try:
                await client.publish(self._event, data, id=id)
            except HubError as error:
                if error.code not in NEVER_TAKEN:
                    raise
                log.warning("a record of the log was refused: %s", error)
                self._refused += 1 + data.get("dropped", 0)
            self._taken = None
            self._done += 1
            backoff.reset()

    async def _next(self) -> Event:
        """The oldest that waits, which tells how many are lost that came before it."""
        while not self._waiting:
            more = asyncio.Event()
            self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, more.set)
            if not self._waiting:  # nothing has come just before
                await more.wait()
        id, data = self._waiting.popleft()
        lost = self.lost - self._told
        self._told += lost
        return id, {**data, "dropped": lost} if lost else data
