"""The tamper-evident log of a running hub: a command is written down, and durable, before it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import HubError
from ..wire.timestamps import now
from . import verify as verifier
from .commits import CLOSED, Commits, Done
from .records import entry, reduced
from .rotation import Limits
from .sums import Sums
from .verdict import DAMAGED, INTACT, Verdict, unreadable
from .writer import LogFile

log = logging.getLogger("hub")

END = 0.5  # seconds
LOOK = 5.0  # seconds between two looks whether somebody else has changed the log
REST = 20  # times as long as a look at all of it has taken, there is none


def _ignore(records: int, seconds: float) -> None:
    pass


class AuditLog:
    """The audit log of a running hub. All methods are called in the event loop; the disk is only touched in threads.

    `available`: whether the last attempt to write worked, if not, `reason` says why. `valid`: whether the chain was
    intact at the start and at every `verify`; never True again once broken. `looked`: when it was found intact last.
    `seq`, `head`: number and hash of the newest durable record. `unrecorded`: what happened without a record: lost
    notes; the caller adds the reads it answered all the same. `on_write(records, seconds)` is called in the loop after
    each group that became durable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limits: Limits = Limits(),  # noqa: B008 (it is immutable)
        on_write: Callable[[int, float], None] = _ignore,
    ) -> None:
        self.directory = Path(directory)
        self.unrecorded = 0
        self.looked = ""
        self.on_write = on_write
        self._failure: str | None = "The audit log is not started"
        self._failing = False  # and said so
        self._file = LogFile(self.directory, limits)
        self._commits = Commits(self._file, self._settle)
        self._sums = Sums(self._put)
        self._verifying: asyncio.Task[Verdict] | None = None

    @property
    def available(self) -> bool:
        return self._failure is None

    @property
    def valid(self) -> bool:
        return self._file.valid

    @property
    def reason(self) -> str | None:
        return self._failure or self._file.reason

    @property
    def seq(self) -> int:
        return self._file.link.seq

    @property
    def head(self) -> str:
        return self._file.link.hash

    async def start(self) -> None:
        """Lock the directory, recover, and be ready to record; what was recovered is on record when this returns.

        Raises Locked (another hub is there), Unsafe (not this account's files), or OSError if there can be no state
        directory; nothing is held then. A disk that fails later is no reason not to start: `available` is False then,
        and every second it is tried again.
        """
        self.looked = now()
        await self._commits.start()
        if not self.valid:
            self._tell_of_damage()

    async def watch(self) -> None:
        """Verify it again when somebody else has changed it, for ever. Stops `valid` from going on saying so of a log
        that was changed under the running hub."""
        wait = LOOK
        while True:
            await asyncio.sleep(wait)
            wait = LOOK
            if self.valid and await asyncio.to_thread(self._file.touched.look):
                began = time.monotonic()
                await self.verify()
                wait = max(LOOK, REST * (time.monotonic() - began))

    async def record(
        self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]
    ) -> None:
        """Durable on disk when this returns. Raises HubError `audit_unavailable` if it cannot be written.

        Then nothing of it is in the log. Cancelled while it waits, the record may be written all the same.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._commits.put(entry(action, actor, trust, details), future):
            raise _unavailable(self._failure or "The audit log is overloaded")
        await future

    def note(
        self,
        action: str,
        actor: Mapping[str, Any] | None,
        trust: str,
        details: Mapping[str, Any],
        *,
        key: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Record without waiting; never raises, a note that is lost is counted in `unrecorded`.

        Notes with the same key: at most `limit` a second (default LIMITS[key], else 10). What is beyond becomes one
        record when the second is over: the first of them, with `count` in its details. That record counts for the next
        second.
        """
        if key is None or not self._commits.is_open:
            self._put(action, actor, trust, details)
        else:
            self._sums.add(key, limit, (action, actor, trust, details))

    reduced = staticmethod(reduced)

    async def tail(self, limit: int = 100, before: int | None = None, room: int | None = None) -> list[dict[str, Any]]:
        """Return the newest records, of those before that number, oldest first: at most so many, and no more than fit
        into `room` bytes. Lines that are no records are left out."""
        return await asyncio.to_thread(self._file.tail, limit, before, room)

    async def verify(self) -> Verdict:
        """Verify everything on disk up to the newest durable record, in a thread, while writing goes on.

        One runs at a time: who asks meanwhile gets its answer, which is about the log as it was when it began.
        """
        if self._verifying is None:
            self._verifying = asyncio.create_task(self._verify())
            self._verifying.add_done_callback(self._verified)
        return await asyncio.shield(self._verifying)  # it ends for the others when one of them goes

    def sum_up(self) -> None:
        """Write what has been summed up so far, without waiting for the second to be over."""
        self._sums.write()

    async def stop(self) -> None:
        """Write what is waiting, sums included, then close the files and the lock.

        Never started, or stopped before, it only waits for that. It ends in any case, also if nothing can be written.
        """
        self._sums.write()
        await self._commits.stop()
        self._failure = CLOSED

    def end(self, action: str, details: Mapping[str, Any]) -> None:
        """As `stop`, behind one more record, from any thread and without the event loop: the process ends now.

        Waits for END seconds at most: the disk may be what hangs.
        """
        if self._commits.is_open:
            self._sums.write()
            self._put(action, None, "SYSTEM", details)
            thread = self._commits.close()
            assert thread is not None  # it was open
            thread.join(END)

    def _put(self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]) -> None:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            if self._commits.put(entry(action, actor, trust, details)):
                return
        self.unrecorded += 1

    def _settle(self, done: Done) -> None:
        """Answer who waits for the group."""
        self._tell(done.failure)
        self._failure = done.failure
        for _, future in done.group:
            if future is None:
                self.unrecorded += done.failure is not None
            elif not future.done():
                if done.failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(_unavailable(done.failure))
        if done.written:
            self.on_write(done.written, done.seconds)

    def _tell(self, failure: str | None) -> None:
        """Once in the hub's own log, when it begins and when it is over."""
        if failure == CLOSED:
            return
        if failure and not self._failing:
            log.error(
                "commands other than reads are refused: %s; that ends by itself when the audit log can be written",
                failure,
            )
        elif self._failing and not failure:
            log.warning("the audit log can be written again; commands are taken as before")
        self._failing = failure is not None

    async def _verify(self) -> Verdict:
        began = now()
        verdict = await asyncio.to_thread(self._judged)
        if verdict.status in DAMAGED:
            was_valid, self._file.valid, self._file.reason = self._file.valid, False, verdict.reason
            if was_valid:
                self._tell_of_damage()
        elif verdict.status == INTACT:
            self.looked = began
        return verdict

    def _tell_of_damage(self) -> None:
        log.error(
            "the chain of the audit log is broken: %s; hub audit verify says where, keep the files as they are",
            self._file.reason,
        )

    def _judged(self) -> Verdict:
        well = self._file.touched.looking()
        try:
            stored = self._file.stored()
        except OSError as error:
            return unreadable(self.directory, error)
        with contextlib.closing(stored):
            verdict = verifier.judged(stored)
        if verdict.status == INTACT:
            well()
        return verdict

    def _verified(self, task: asyncio.Task[Verdict]) -> None:
        self._verifying = None
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # whoever waits has it; if nobody does any more, nobody needs it


def _unavailable(why: str) -> HubError:
    return HubError("audit_unavailable", why.rstrip(".") + ".", retry_after=1)
