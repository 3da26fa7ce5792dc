"""A Redis or Valkey: where its URL leads, and what can be wrong with either, in words and by name."""

import errno
import logging
import os
import re
import ssl
from typing import Any

from redis.asyncio import connection as library
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as ConnectionTrouble

from .rarely import Rarely
from .url import parse

log = logging.getLogger("hub")

KEYS = "emivxzabcdr"  # in the order in which the functions take them
# Of which kind each key is, those of `peers.lua` behind them.
KINDS = dict(zip(KEYS, ("stream", *4 * ["hash"], "zset", *2 * ["hash"], *2 * ["zset"], "stream"), strict=True))
KINDS |= dict.fromkeys("lpoq", "hash")


class Trouble(Exception):
    """What keeps a hub from its stream: one of the three that follow."""


class Away(Trouble):
    """The server cannot be asked just now; `str()` is one sentence on why. `there`: it is, and may answer soon."""

    def __init__(self, sentence: str, *, there: bool = False) -> None:
        super().__init__(sentence)
        self.there = there


class Refused(Trouble):
    """The server has answered that it does not do this: nothing was done. `str()` is one sentence on why, `name` one of
    MEANINGS, or ''."""

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name


class Moved(Trouble):
    """The stream is of another epoch, or the library is not there (any more): nothing was done. Attach, once again."""


class Server:
    """Where a URL leads: `redis://`, `rediss://` or `unix://`; `?prefix=` is what the names of all keys begin with.

    Raises UsageError. No part of the URL is in what this says, but the place.
    """

    def __init__(self, url: str) -> None:
        self.prefix, self._options = parse(url)
        self._class: Any = self._options.pop("connection_class", library.Connection)
        path = self._options.get("path")
        self.place = path or f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"
        self.keys = [self.key(name) for name in KEYS]
        self._tls, self._may_have_tls = issubclass(self._class, library.SSLConnection), not path
        self.reached = False  # it was, once
        self._rarely = Rarely()

    def key(self, name: str) -> str:
        """The whole name of a key of this stream."""
        return f"{{{self.prefix}}}:{name}"

    def wire(self, patience: float) -> Any:
        """Return a connection of the library's that is not made yet."""
        settings: Any = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": None, "client_name": "hub"}
        return self._class(**self._options, **settings, socket_connect_timeout=patience)

    def trouble(self, error: BaseException) -> Trouble:
        """What an error of the library, or of the network, means for a hub."""
        if isinstance(error.__cause__, RedisError):  # what went wrong when it had just connected
            error = error.__cause__
        if isinstance(error, ResponseError) and "max number of clients" not in str(error):
            return self._answered(str(error), type(error))
        if isinstance(error, AuthenticationError | AuthorizationError):
            return Refused(f"Redis at {self.place} does not let the hub in: {_words(error)}.")
        if isinstance(error, BusyLoadingError):
            return Away(f"Redis at {self.place} is loading its data (LOADING).", there=True)
        if isinstance(error, TimeoutError) or "imeout" in type(error).__name__:
            hint = "; if it does not speak TLS, its URL begins with redis://" * (self._tls and not self.reached)
            return Away(f"Redis at {self.place} does not answer{hint}.", there=True)
        if "max number of clients" in str(error):
            return Away(f"Redis at {self.place} takes no more clients: raise its maxclients.", there=True)
        if _is_cut(error):
            return Away(f"Redis at {self.place} has closed the connection{self._hint()}.")
        return Away(f"Redis at {self.place} cannot be reached: {self._why(error)}.")

    def _why(self, error: BaseException) -> str:
        """Why it cannot be reached; as long as it never was, with what may be wrong in its URL."""
        words = _words(error)
        if "certificate verify failed" in words:
            return f"{words}; ?ssl_ca_certs=FILE in its URL names the certificates that are good"
        return words + self._hint() * isinstance(error, InvalidResponse)

    def _hint(self) -> str:
        is_right = self._tls or self.reached or not self._may_have_tls
        return "" if is_right else "; if it speaks TLS, its URL begins with rediss://"

    def foreign_library(self) -> Refused:
        """The functions of the hubs are not the hubs'."""
        return Refused(
            f"Redis at {self.place} has a function library named hub that is another program's: "
            "take it away there (FUNCTION DELETE hub), or give the hubs a server of their own.",
            "LIBRARY",
        )

    def _answered(self, text: str, kind: type[BaseException]) -> Trouble:
        code, _, rest = text.partition(" ")
        if code in ("EPOCH", "WRONGTYPE") or text.startswith("Function not found"):
            return Moved("The stream is of another epoch now.")
        if code == "FOREIGN":
            key = rest.partition(" script:")[0]
            meaning = f"has something of another program in {key}, a key of the hubs: type DEL {key} there"
            return Refused(f"Redis at {self.place} {meaning}, and they go on.", code)
        if code == "UNBLOCKED":
            return Away(f"Redis at {self.place} has become a replica.")
        name = "NOPERM" if DENIED in text or DENIED_7_0 in text else NAMES.get(kind.__name__, code)
        if meaning := MEANINGS.get(name, ""):
            return Refused(f"Redis at {self.place} {meaning}{_lacks(text)} ({name}).", name)
        if INTERNAL.search(text):
            if self._rarely.may(text):
                log.error(
                    "Redis at %s could not do what the hub has asked, which is a bug of the hub: %s; "
                    "whoever has asked is refused, clients stay connected",
                    self.place,
                    text,
                )
            return Refused(f"Redis at {self.place} could not do what the hub has asked: the hub's log has the error.")
        return Refused(f"Redis at {self.place} refuses: {text.splitlines()[0][:200].rstrip(' .')}.")


# What the library takes the code away from.
NAMES = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "NoPermissionError": "NOPERM"}
DENIED, DENIED_7_0 = "ACL failure in script", "executing the script can't"  # inside of a function
LACKS = re.compile(r"run the '([a-z|_-]+)' command|access (?:a|one of the) (key|channel)")
# What nobody outside can do anything with.
INTERNAL = re.compile(r"user_(script|function)|\bscript\b|\bLua\b|\bX[A-Z]{3}")
CUT = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
MEANINGS = {
    "BUSY": "is busy with a script, or a function, of another program",
    "OOM": "is out of memory: give it more, or keep less",
    "READONLY": "is a replica and takes nothing",
    "NOREPLICAS": "has not enough replicas to take anything",
    "MISCONF": "cannot write to its disk: make room there, and look at its log",
    "NOPERM": "does not allow the hub's user what a hub does: see its ACL",
}


def _lacks(text: str) -> str:
    """What an ACL lacks, if the server has said so: a command, or what it may be used on."""
    if (found := LACKS.search(text)) is None:
        return ""
    return f", which lacks {found[1].upper()}" if found[1] else f", which lacks a {found[2]} of the hubs"


def _is_cut(error: BaseException) -> bool:
    """Whether there was a connection, which has ended: the library has many words for that."""
    reasons = [each.errno for each in (error, error.__cause__, error.__context__) if isinstance(each, OSError)]
    known = [reason for reason in reasons if reason]
    return bool(CUT & set(known)) or (not known and isinstance(error, ConnectionTrouble | ConnectionError | EOFError))


def _words(error: BaseException) -> str:
    """What an error says: the system's own words, without the library's around them."""
    for each in (error, error.__cause__, error.__context__):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"certificate verify failed ({each.verify_message})"
        if isinstance(each, ssl.SSLError):
            return f"TLS fails ({str(each).splitlines()[0][:200]})"
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno) if each.errno > 0 else str(each.strerror)
    if isinstance(error, InvalidResponse):
        return "it does not answer as a Redis"
    return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(" .")
