"""One-time links and sessions, each under the digest of its secret: in the memory of one hub, or for all workers."""

import contextlib
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...errors import HubError
from ...private import Unsafe, prepare_directory, read_private, write_whole
from ...tokens import FILES
from ...wire.vocabulary import Trust
from .peer import Peer

TICKETS = "tickets"  # the folder that workers have in common, with one of each kind
KINDS = "sessions", "links"
LARGEST = 1024  # bytes of what is in a file
SUFFIX = ".tmp"  # of one that is being written


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a session or a one-time link is good for, until when (monotonic), and for whom."""

    trust: Trust
    until: float
    whose: int | str | None = None

    def is_good(self) -> bool:
        return time.monotonic() <= self.until

    def is_for(self, peer: Peer) -> bool:
        """Stops another account's server on this machine: a browser sends its cookies to every port of a host, so that
        one may get to see a session's. And, elsewhere, whoever has read it on its way."""
        return self.whose == whose(peer)


def whose(peer: Peer) -> int | str:
    """Who a peer is to a session: the account on this machine, elsewhere the address."""
    return peer.address if peer.uid is None else peer.uid


class Tickets(Protocol):
    """The newest of one kind, looked up by digest, so that neither the time of a comparison nor what is kept gives a
    secret away."""

    def keep(self, digest: bytes, ticket: Ticket) -> None:
        """Keep one more; of those with the same trust the oldest goes if there are too many. Raises HubError
        `command_failed` if it cannot be.

        Stops whoever may only read from ending the operator's with many of his own."""

    def __contains__(self, digest: object) -> bool:
        """Return whether it is kept still, by its name alone."""

    def find(self, digest: bytes) -> Ticket | None: ...

    def take(self, digest: bytes) -> Ticket | None:
        """Return it to one of all who ask, once."""

    def end(self, trusts: set[Trust]) -> None:
        """Let go of those that stood for a token which is another by now."""


class OwnTickets:
    """Kept in memory: they end with the hub."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[bytes, Ticket] = {}  # the oldest first

    def keep(self, digest: bytes, ticket: Ticket) -> None:
        self._kept[digest] = ticket
        same = [digest for digest, kept in self._kept.items() if kept.trust == ticket.trust]
        for oldest in same[: -self._most]:
            del self._kept[oldest]

    def __contains__(self, digest: object) -> bool:
        return digest in self._kept

    def find(self, digest: bytes) -> Ticket | None:
        return self._kept.get(digest)

    def take(self, digest: bytes) -> Ticket | None:
        return self._kept.pop(digest, None)

    def end(self, trusts: set[Trust]) -> None:
        for digest in [digest for digest, ticket in self._kept.items() if ticket.trust in trusts]:
            del self._kept[digest]


class CommonTickets:
    """Kept in files of a folder that is this account's alone, for all workers of a port; their parent clears it.

    Each is signed with the token that it stands for: `held(trust)` is that of now. So one that a replaced token has
    opened is good nowhere from the step on in which the new token is there, whichever worker has looked first.
    """

    def __init__(self, folder: Path, most: int, held: Callable[[Trust], bytes | None]) -> None:
        self._folder, self._most, self._held = folder, most, held

    def keep(self, digest: bytes, ticket: Ticket) -> None:
        words = [ticket.trust, ticket.until, ticket.whose]
        try:
            for folder in (self._folder.parent, self._folder):
                prepare_directory(folder)
            signed = json.dumps([*words, self._signature(digest, words)]).encode()
            write_whole(self._path(ticket.trust, digest), signed, durable=False)
            self._let_go(ticket.trust)
        except (OSError, Unsafe) as error:
            raise HubError("command_failed", f"It cannot be kept for all workers: {error}.") from None

    def __contains__(self, digest: object) -> bool:
        assert isinstance(digest, bytes)
        return any(self._path(trust, digest).exists() for trust in FILES)

    def find(self, digest: bytes) -> Ticket | None:
        return next(filter(None, (self._read(self._path(trust, digest), digest) for trust in FILES)), None)

    def _read(self, path: Path, digest: bytes) -> Ticket | None:
        try:
            *words, signature = json.loads(read_private(path, LARGEST))
        except (OSError, Unsafe, ValueError):
            return None
        return Ticket(*words) if hmac.compare_digest(signature, self._signature(digest, words)) else None

    def take(self, digest: bytes) -> Ticket | None:
        ticket = self.find(digest)
        is_taken = [_is_removed(self._path(trust, digest)) for trust in FILES]
        return ticket if any(is_taken) else None

    def end(self, trusts: set[Trust]) -> None:
        for path in self._files():
            if path.suffix != SUFFIX and self._read(path, bytes.fromhex(path.name.rpartition("-")[2])) is None:
                with contextlib.suppress(OSError):  # it is good for nothing even if it stays
                    path.unlink()

    def _path(self, trust: Trust, digest: bytes) -> Path:
        """By its trust, too, so that those of one can be counted without a look into each."""
        return self._folder / f"{trust}-{digest.hex()}"

    def _signature(self, digest: bytes, words: list[str | float | int | None]) -> str:
        """Of nothing that a token can have if there is none: then it fits nothing that was ever written."""
        token = self._held(words[0]) or os.urandom(32)  # type: ignore[arg-type]
        return hmac.new(token, digest + json.dumps(words).encode(), hashlib.sha256).hexdigest()

    def _let_go(self, trust: Trust) -> None:
        files = [path for path in self._files() if path.name.startswith(f"{trust}-")]
        if len(files) > self._most:
            files.sort(key=_written)
            for path in files[: -self._most]:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return list(self._folder.iterdir())
        return []


def clear(folder: Path) -> None:
    """Let go of all that is kept in the folder. Raises OSError."""
    for path in folder.iterdir() if folder.is_dir() else ():
        path.unlink(missing_ok=True)


def _is_removed(path: Path) -> bool:
    """Remove a file; return whether this has done it, which comes true for one of all who try."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _written(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # another worker has let go of it
        return path.stat().st_mtime_ns
    return 0
