"""The tamper-evident log: a command is written down, chained to the record before it, before it runs.

`LogFile` is the file and its chain, with plain blocking calls. `AuditLog` is what the hub uses: one thread
writes, and whatever has queued up meanwhile shares one write and one fdatasync.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from . import verify as verifier
from .errors import HubError
from .messages import now
from .verify import CURRENT, HEAD, MAGIC, MAX_LINE, ZEROS, Link, Verdict

LOCK = "lock"
TRUST = "SYSTEM"  # of the records that the log itself writes
MAX_ARGS = 4096  # bytes of JSON; larger args are recorded by size and SHA-256
MAX_DETAILS = 65536  # bytes; the same for any other details
MAX_QUEUE = 65536  # records waiting for the disk
MAX_GROUP = 4096  # records a commit
MAX_KEYS = 1024  # keys of notes watched at a time
LIMIT = 10  # notes of one key a second
LIMITS = {"refused-client": 1}
RETRY = 1.0  # seconds
DAMAGED = (verifier.TAMPERED, verifier.SHORTER)

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
_quoted = json.encoder.encode_basestring_ascii


class Locked(RuntimeError):
    """Another hub has this state directory; the sentence names the directory and the process."""


class Unsafe(RuntimeError):
    """The state directory, or a file in it, is not the hub's alone; the sentence says which and why."""


class Entry(NamedTuple):
    """A record but for its place in the chain: the text before `previous_hash` and the text behind `seq`."""

    front: str
    back: str


def entry(action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]) -> Entry:
    """The record as text, stamped now. Raises TypeError or ValueError if the details are not JSON."""
    front = _encode({"action": action, "actor": actor, "details": details})
    if len(front) > MAX_DETAILS:
        front = _encode({"action": action, "actor": actor, "details": _measured(_encode(details))})
    return Entry(front[:-1], f'"timestamp":"{now()}","trust":{_quoted(trust)}}}')


def reduced(args: Any) -> Any:
    """The args for a record, already redacted: themselves up to 4 KiB, else `{"bytes": n, "sha256": hex}` of
    their JSON."""
    text = _encode(args)
    return args if len(text) <= MAX_ARGS else _measured(text)


def _measured(text: str) -> dict[str, Any]:
    return {"bytes": len(text), "sha256": sha256(text.encode()).hexdigest()}


def chained(entries: Sequence[Entry], link: Link) -> tuple[bytes, Link]:
    """The stored lines of these records behind that link, and the link to the last of them."""
    lines = []
    seq, newest = link
    for front, back in entries:
        seq += 1
        body = f'{front},"previous_hash":"{newest}","seq":{seq},{back}'
        newest = sha256(MAGIC + body.encode()).hexdigest()
        lines.append(f'{body[:-1]},"hash":"{newest}"}}\n')
    return "".join(lines).encode(), Link(seq, newest)


class LogFile:
    """audit.jsonl and its chain in one state directory. One thread at a time; every call may block on the
    disk.

    `link` is the newest durable record, `size` the bytes of audit.jsonl up to its end. `valid` turns False
    when what is found is not what was written, and is False again at every later start; `reason` says why.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = Link(0, ZEROS)
        self.size = 0
        self.valid = True
        self.reason: str | None = None
        self._known = False  # link and size are true
        self._left_over = False  # behind `size` there may be bytes of a write that failed
        self._file: int | None = None
        self._head: int | None = None
        self._notices: list[dict[str, Any]] = []  # what the next append has to tell first
        self._refused = 0  # records that could not be kept since the last append that worked

    def append(self, entries: Sequence[Entry]) -> int:
        """Write the records with one write and make them durable; returns how many were written, notices
        included.

        Raises OSError or Unsafe if they are not durable. None of them is in the file then; a later call tries
        anew.
        """
        try:
            self.open()
            told = [entry("audit.recovered", None, TRUST, details) for details in self._told()]
            if told or entries:
                self._commit([*told, *entries])
        except (OSError, Unsafe):
            self._refused += len(entries)
            self._take_back()
            raise
        self._notices, self._refused = [], 0
        return len(told) + len(entries)

    def open(self) -> None:
        """Find the end of the chain and be ready to write behind it. Raises OSError, or Unsafe for a planted
        file."""
        if self._file is not None and self._head is not None and self._is_untouched(self._file):
            return
        self.close()
        if not self._known:
            self._recover()
        self._file = open_private(self.directory / CURRENT)
        if not self._ends_as_known():
            self.close()
            self._recover()
            self._file = open_private(self.directory / CURRENT)
        self._head = self._open_head()
        sync_directory(self.directory)

    def close(self) -> None:
        """Close the files. Everything appended is durable already."""
        for descriptor in (self._file, self._head):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._file = self._head = None

    def _recover(self) -> None:
        self._known = False
        self.link, self.size, self._notices, verdict = recover(self.directory)
        self._known = True
        if verdict.status in DAMAGED:
            self.valid, self.reason = False, verdict.reason

    def _told(self) -> list[dict[str, Any]]:
        refused = [{"what": "could not be written", "refused": self._refused}] if self._refused else []
        return [*self._notices, *refused]

    def _commit(self, entries: Sequence[Entry]) -> None:
        assert self._file is not None
        data, link = chained(entries, self.link)
        self._left_over = True
        write_all(self._file, data)
        os.fdatasync(self._file)
        self._left_over = False
        self.link = link
        self.size += len(data)
        self._write_head()

    def _take_back(self) -> None:
        """After a failed write or fdatasync: nothing of it stays, and what is there is read again.

        A failed fdatasync may have dropped the pages, and calls the next one a success. So the same bytes are
        never synced a second time: they are cut off, and the file is opened anew. If even cutting fails, the
        next open does it.
        """
        if self._file is not None and self._left_over:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
                self._left_over = False
        self.close()

    def _is_untouched(self, descriptor: int) -> bool:
        """Nobody has cut, extended or deleted the file under the running hub (logrotate would)."""
        facts = os.fstat(descriptor)
        return facts.st_size == self.size and facts.st_nlink == 1

    def _ends_as_known(self) -> bool:
        """Cut what a failed write has left; then the newest durable record must be the last."""
        assert self._file is not None
        if self._left_over:
            os.ftruncate(self._file, self.size)
            self._left_over = False
        if not self._is_untouched(self._file):
            return False
        if self.size == 0:
            return True
        last = parsed(next(lines_backwards(self.directory / CURRENT, self.size), b""))
        return last is not None and Link(last["seq"], last["hash"]) == self.link

    def _open_head(self) -> int:
        """Created whole, by renaming: a head that is empty or half written never has that name."""
        path = self.directory / HEAD
        if not path.exists():
            spare = path.with_suffix(".tmp")
            spare.unlink(missing_ok=True)
            with private(spare) as descriptor:
                write_all(descriptor, self._head_text())
                os.fdatasync(descriptor)
            os.rename(spare, path)
        return open_private(path, os.O_WRONLY)

    def _write_head(self) -> None:
        """Overwritten in place and not synced, so that a commit costs one fdatasync and no more.

        It is always the same 128 bytes, which a disk writes whole. It is written behind the records that it
        names: after a power cut it may be older than the log, never newer, and recovery takes the log's word
        for the records behind it. If it cannot be written, the records are durable all the same.
        """
        assert self._head is not None
        with contextlib.suppress(OSError):
            os.pwrite(self._head, self._head_text(), 0)

    def _head_text(self) -> bytes:
        return f'{{"hash":"{self.link.hash}","seq":{self.link.seq}}}'.ljust(127).encode() + b"\n"


# ---- the start: what a crash, or somebody else, has left
# ----------------------------------------------------------


class Recovered(NamedTuple):
    """Where the chain goes on, the size of the whole records there, what to record about it, and the
    verdict."""

    link: Link
    size: int
    notices: list[dict[str, Any]]
    verdict: Verdict


def recover(directory: Path) -> Recovered:
    """Judge what is there and make it ready to go on. Nothing is deleted; what is bad stays visible to
    `verify`.

    Raises OSError if it cannot be read, or not be made ready. It may be interrupted anywhere and called
    again.
    """
    current = directory / CURRENT
    verdict = verifier.verify(directory)
    exists = current.exists()
    if (exists or verifier.closed_segments(directory)) and verdict.status == verifier.UNREADABLE:
        raise OSError(errno.EIO, verdict.reason)
    link = _newest_record(directory)
    head, notices = _head_of(directory, link)
    own = verifier.verify(current, alone=True) if exists and verdict.status in DAMAGED else verdict
    if own.status in DAMAGED:
        notices.append({"what": "damage", "reason": verdict.reason, "file": _close_segment(current, exists)})
        # Behind damage the chain continues the head: should the log contradict it, the break stays for ever.
        link = Link(max(link.seq, head.seq), head.hash) if head else link
        return Recovered(link, 0, notices, verdict)
    size, torn = _set_torn_aside(current, link.seq + 1) if exists else (0, [])
    return Recovered(link, size, [*notices, *torn], verdict)


def _newest_record(directory: Path) -> Link:
    """The last line that can be read as a record, in the newest file that has one."""
    for path in (directory / CURRENT, *reversed(verifier.closed_segments(directory))):
        for line in lines_backwards(path):
            if (record := parsed(line)) is not None:
                return Link(record["seq"], record["hash"])
    return Link(0, ZEROS)


def _head_of(directory: Path, newest: Link) -> tuple[Link | None, list[dict[str, Any]]]:
    """The head, and what to record if it is missing or unreadable; an unreadable one is set aside."""
    try:
        head = verifier.read_head(directory)
    except verifier.Broken as broken:
        name = f"audit-{newest.seq + 1}.torn"
        _keep(directory / name, (directory / HEAD).read_bytes())
        (directory / HEAD).unlink()
        return None, [{"what": "damage", "reason": broken.reason, "file": name}]
    missing = head is None and newest.seq > 0
    return head, [{"what": "damage", "reason": f"{HEAD} was missing"}] if missing else []


def _set_torn_aside(path: Path, seq: int) -> tuple[int, list[dict[str, Any]]]:
    """Move the bytes behind the last whole record to a file of their own; returns the size that is left."""
    with private(path) as descriptor:
        size = os.fstat(descriptor).st_size
        torn = next(lines_backwards(path), b"")
        if not torn or torn.endswith(b"\n"):
            return size, []
        name = f"audit-{seq}.torn"
        _keep(path.with_name(name), torn)
        os.ftruncate(descriptor, size - len(torn))
        os.fdatasync(descriptor)
    return size - len(torn), [{"what": "torn tail", "bytes": len(torn), "file": name}]


def _keep(path: Path, data: bytes) -> None:
    with private(path) as descriptor:
        write_all(descriptor, data)
        os.fdatasync(descriptor)


def _close_segment(path: Path, exists: bool) -> str | None:
    """Rename a damaged segment, as it is, after the record that it begins with."""
    if not exists or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE), b"")
        found = ((number, parsed(line)) for number, line in enumerate(lines))
        first = next((max(1, record["seq"] - number) for number, record in found if record), 1)
    while (closed := path.with_name(f"audit-{first}.jsonl")).exists():
        first += 1
    os.rename(path, closed)
    return closed.name


# ---- files
# --------------------------------------------------------------------------------------------------------


def open_private(path: Path, flags: int = os.O_RDWR | os.O_APPEND) -> int:
    """Open or create a file that is this account's alone (0600). Raises Unsafe for anything else at that
    place.

    Stops the planted link: whoever can make `audit.jsonl` a link to another file of the operator's has the
    hub write there, or reads the log at the other end. A file that another account owns, or a pipe, is the
    same attack.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe(f"{path} is a symbolic link; the hub does not write through links") from None
        raise
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(descriptor)
        raise Unsafe(f"{path} is not a regular file of this account")
    if facts.st_mode & 0o077:
        os.fchmod(descriptor, 0o600)
    return descriptor


@contextlib.contextmanager
def private(path: Path) -> Iterator[int]:
    """`open_private`, closed at the end."""
    descriptor = open_private(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def prepare_directory(directory: Path) -> None:
    """Create the state directory (0700), or close it to others. Raises Unsafe if another account owns it.

    Whoever owns the directory can exchange every file in it, whatever the mode of the file.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = directory.stat()
    if facts.st_uid != os.geteuid():
        raise Unsafe(f"The state directory {directory} belongs to another account")
    if facts.st_mode & 0o077:
        directory.chmod(0o700)


def lock(directory: Path) -> int:
    """Take the lock of a state directory; held until the descriptor is closed. Raises Locked if another hub
    has it."""
    descriptor = open_private(directory / LOCK, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Locked(f"Another hub (process {pid}) is using the state directory {directory}") from None
    with contextlib.suppress(OSError):  # the number is only for people
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: one write, or more if the system takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: Path) -> None:
    """Make created and renamed names durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lines_backwards(path: Path, size: int | None = None, block: int = 65536) -> Iterator[bytes]:
    """The lines of a file, last one first, each with its newline if it has one; none if there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, os.SEEK_END) if size is None else size
        rest: list[bytes] = []  # pieces of a line whose beginning is not read yet, last one first
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            *whole, last = file.read(end - start).split(b"\n")
            end = start
            yield from _joined([*(line + b"\n" for line in whole), last], rest)
        if rest:
            yield b"".join(reversed(rest))


def _joined(pieces: list[bytes], rest: list[bytes]) -> Iterator[bytes]:
    """The lines that a block completes. What it begins with may begin earlier, and waits in `rest`."""
    for piece in filter(None, reversed(pieces)):
        if piece.endswith(b"\n") and rest:
            yield b"".join(reversed(rest))
            rest.clear()
        rest.append(piece)


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a stored line, if it is one."""
    try:
        record = json.loads(line)
        if type(record["seq"]) is int and len(record["hash"]) == len(ZEROS) and line.endswith(b"\n"):
            return dict(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


# ---- the log of a running hub
# -------------------------------------------------------------------------------------


class Waiting(NamedTuple):
    """A record on its way to the disk, and who waits for it: nobody for a note."""

    entry: Entry
    future: asyncio.Future[None] | None


@dataclass(slots=True)
class Sum:
    """The notes of one key in the running second: how many were written, and what was not."""

    written: int = 0
    count: int = 0
    args: tuple[str, Mapping[str, Any] | None, str, Mapping[str, Any]] | None = None


def _ignore(records: int, seconds: float) -> None:
    pass


class AuditLog:
    """The audit log of a running hub. All methods are called in the event loop; the disk is only touched in a
    thread.

    `available`: whether the last attempt to write worked, if not, `reason` says why. `valid`: whether the
    chain was intact at the start; never True again once broken. `seq`, `head`: number and hash of the newest
    durable record. `unrecorded`: what happened without a record: lost notes; the caller adds the reads it
    answered all the same. `on_write(records, seconds)` is called in the loop after each group that became
    durable.
    """

    def __init__(self, directory: Path, *, on_write: Callable[[int, float], None] = _ignore) -> None:
        self.directory = Path(directory)
        self.available = False
        self.unrecorded = 0
        self._on_write = on_write
        self._file = LogFile(self.directory)
        self._failure: str | None = "The audit log is not started"
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._sums: dict[str, Sum] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock: int | None = None

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
        """Lock the directory, recover, and be ready to record; what was recovered is on record when this
        returns.

        Raises Locked (another hub is there) or Unsafe (not this account's files). A disk that fails is no
        reason not to start: `available` is False then, and every second it is tried again.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._take_directory)
        started = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="hub-audit", daemon=True)
        self._thread.start()
        with contextlib.suppress(HubError):
            await started

    async def record(
        self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]
    ) -> None:
        """Durable on disk when this returns. Raises HubError `audit_unavailable` if it cannot be written.

        Then nothing of it is in the log. Cancelled while it waits, the record may be written all the same.
        """
        if self._loop is None or self._thread is None or self._queue.qsize() >= MAX_QUEUE:
            raise self._unavailable()
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(Waiting(entry(action, actor, trust, details), future))
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

        Notes with the same key: at most `limit` a second (default LIMITS[key], else 10). What is beyond
        becomes one record when the second is over: the first of them, with `count` in its details. That
        record counts for the next second.
        """
        if key is None or self._thread is None:
            self._put(action, actor, trust, details)
            return
        total = self._sums.get(key)
        if total is None:
            total = self._open_sum(key)
        if total.written < (limit or LIMITS.get(key, LIMIT)):
            total.written += 1
            self._put(action, actor, trust, details)
        else:
            total.count += 1
            total.args = total.args or (action, actor, trust, dict(details))

    reduced = staticmethod(reduced)

    async def tail(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest records, oldest first, at most so many; lines that are no records are left out."""
        return await asyncio.to_thread(self._newest, limit, self._file.size)

    async def verify(self) -> Verdict:
        """Verify everything on disk up to the newest durable record, in a thread, while writing goes on."""
        verdict = await asyncio.to_thread(verifier.verify, self.directory, size=self._file.size)
        if verdict.status in DAMAGED:
            self._file.valid, self._file.reason = False, verdict.reason
        return verdict

    async def stop(self) -> None:
        """Write what is waiting, sums included, then close the files and the lock. A second call does
        nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        for key in list(self._sums):
            self._close_sum(key)
        self._queue.put(None)
        await asyncio.to_thread(thread.join)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.available, self._failure = False, "The audit log is closed"

    # -- sums
    # ----------------------------------------------------------------------------------------------------

    def _open_sum(self, key: str) -> Sum:
        if len(self._sums) >= MAX_KEYS:  # keys may come from outside: beyond this many, one sum for all
            key = ""
        if key not in self._sums and self._loop is not None:
            self._sums[key] = Sum()
            self._loop.call_later(1.0, self._second_over, key)
        return self._sums[key]

    def _second_over(self, key: str) -> None:
        if self._close_sum(key) and self._loop is not None and self._thread is not None:
            self._sums[key] = Sum(written=1)
            self._loop.call_later(1.0, self._second_over, key)

    def _close_sum(self, key: str) -> bool:
        """Write what was summed up, if anything was."""
        total = self._sums.pop(key, None)
        if total is None or total.args is None:
            return False
        action, actor, trust, details = total.args
        self._put(action, actor, trust, {**details, "count": total.count})
        return True

    def _put(
        self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]
    ) -> None:
        try:
            if self._loop is None or self._queue.qsize() >= MAX_QUEUE:
                raise ValueError("nobody is writing")
            self._queue.put(Waiting(entry(action, actor, trust, details), None))
        except (TypeError, ValueError, RecursionError):
            self.unrecorded += 1

    # -- in the thread
    # -------------------------------------------------------------------------------------------

    def _take_directory(self) -> None:
        prepare_directory(self.directory)
        self._lock = lock(self.directory)
        try:
            with contextlib.suppress(OSError):  # the first append tries again, and says what is wrong
                self._file.open()
        except Unsafe:
            os.close(self._lock)
            raise

    def _run(self, started: asyncio.Future[None]) -> None:
        self._commit([Waiting(Entry("", ""), started)], [])
        going = True
        while going:
            group, going = self._next_group()
            self._commit(group, [waiting.entry for waiting in group])
        self._file.close()

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Whatever waits, and whether more may come. While the log is unavailable, nothing, once a second."""
        group: list[Waiting] = []
        try:
            waiting = self._queue.get(timeout=RETRY if self._failure else None)
            while waiting is not None:
                group.append(waiting)
                if len(group) == MAX_GROUP:
                    return group, True
                waiting = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _commit(self, group: list[Waiting], entries: list[Entry]) -> None:
        """Make the group durable and let the loop know. Any failure is a failure of all of it: never half an
        answer."""
        begun = time.perf_counter()
        written, failure = 0, None
        try:
            written = self._file.append(entries)
        except OSError as error:
            failure = f"The audit log cannot be written: {error.strerror or error}"
        except Exception as error:
            failure = f"The audit log cannot be written: {error}"
        self._failure = failure
        seconds = time.perf_counter() - begun
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
            self._loop.call_soon_threadsafe(self._settle, group, failure, written, seconds)  # type: ignore[union-attr]

    def _newest(self, limit: int, size: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        closed = reversed(verifier.closed_segments(self.directory))
        for path, end in ((self.directory / CURRENT, size), *((path, None) for path in closed)):
            for line in lines_backwards(path, end):
                if len(found) >= limit:
                    return found[::-1]
                if (record := parsed(line)) is not None:
                    found.append(record)
        return found[::-1]

    # -- in the loop again
    # ---------------------------------------------------------------------------------------

    def _settle(self, group: list[Waiting], failure: str | None, written: int, seconds: float) -> None:
        self.available = failure is None
        for _, future in group:
            if future is None:
                self.unrecorded += failure is not None
            elif not future.done():
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(self._unavailable())
        if written:
            self._on_write(written, seconds)

    def _unavailable(self) -> HubError:
        return HubError("audit_unavailable", self._failure or "The audit log is overloaded", retry_after=1)
