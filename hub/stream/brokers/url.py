"""The URL of a Redis or Valkey: what may stand in it.

A password in which a / ? # or @ is written as it is moves the borders of what follows, so no value that is refused is
in what this says: it may be a part of it.
"""

import re
import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.asyncio import connection as library
from redis.exceptions import RedisError

from ...errors import UsageError
from ...spelling import suggestion

PREFIX = "hub"
LONGEST_SHOWN = 40  # characters of the name of an option
OPTIONS = ("prefix", "db", "username", "password", "socket_keepalive", "socket_read_size", "health_check_interval")
OF_TLS = tuple(
    f"ssl_{name}"
    for name in "ca_certs ca_path ca_data certfile keyfile password cert_reqs check_hostname min_version ciphers "
    "include_verify_flags exclude_verify_flags".split()
)
ESCAPED = "; in a password /, ?, # and @ are written as %2F, %3F, %23 and %40"


def parse(url: str) -> tuple[str, dict[str, Any]]:
    """What the names of all keys begin with, and what the library makes a connection of. Raises UsageError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageError("The URL of the broker cannot be read: it looks like rediss://HOST:6379.") from None
    if parts.scheme == "unix":
        _check_socket(parts)
    else:
        _check_server(parts)
    options = _options(parts)
    _check_database(parts, options)
    prefix = options.pop("prefix", PREFIX)
    if not re.fullmatch(r"[^\s{}]{1,64}", prefix):  # it is what all keys of one stream are kept together by
        raise UsageError("The prefix in the URL of the broker must be 1 to 64 characters, without spaces and braces.")
    try:
        found: dict[str, Any] = {**library.parse_url(parts._replace(query=urlencode(options)).geturl())}
    except ValueError:
        raise UsageError("An option in the URL of the broker has a value that cannot be used.") from None
    if parts.scheme == "rediss":
        _check_tls(found)
    return prefix, found


def _check_socket(parts: SplitResult) -> None:
    if not parts.path and not parts.hostname:
        raise UsageError("The URL of the broker names no socket: it looks like unix:///run/redis/redis.sock.")
    if parts.hostname or not parts.path.startswith("/"):
        raise UsageError(
            "The URL of the broker names its socket by the whole path, which begins with three slashes: "
            "unix:///run/redis/redis.sock."
        )


def _check_server(parts: SplitResult) -> None:
    try:
        is_good = parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(f"The port in the URL of the broker must be a number between 1 and 65535{ESCAPED}.")


def _options(parts: SplitResult) -> dict[str, str]:
    """The options by their names, each once."""
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        pairs = [("", "")]
    if parts.fragment or any(not name or "@" in name for name, _ in pairs):
        raise UsageError(f"The options in the URL of the broker cannot be read: they look like ?prefix=NAME{ESCAPED}.")
    known = OPTIONS + OF_TLS * (parts.scheme == "rediss")
    found = dict[str, str]()
    for name, value in pairs:
        if name not in known:
            # What stands behind a ? with an @ further on may be a password.
            shown = "" if "@" in parts.query else f", {name[:LONGEST_SHOWN]!a}"
            near = suggestion(name[:LONGEST_SHOWN], known) if shown else ESCAPED
            raise UsageError(
                f"The URL of the broker has an option that {parts.scheme}: does not know{shown}{near or '.'}"
            )
        if name in found:
            raise UsageError(f"The URL of the broker has the option {name} more than once: which one is meant?")
        found[name] = value
    return found


def _check_tls(options: dict[str, Any]) -> None:
    """Read the files once, and see whether the rest can be meant: later it would look as if the server were away."""
    try:
        library.SSLConnection(**{name: value for name, value in options.items() if name in OF_TLS}).ssl_context.get()
    except (RedisError, OSError, ValueError, TypeError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else ""
        raise UsageError(
            "An option in the URL of the broker that begins with ssl_ has a value, or names a file, "
            f"that cannot be used{why}."
        ) from None


def _check_database(parts: SplitResult, options: dict[str, str]) -> None:
    path = "" if parts.scheme == "unix" else parts.path.removeprefix("/")
    if path and "db" in options:
        raise UsageError("The URL of the broker names its database twice, behind the / and as ?db=.")
    if not re.fullmatch(r"[0-9]{1,9}", options.get("db", path) or "0"):
        raise UsageError(f"The database in the URL of the broker must be a number, as in redis://HOST/0{ESCAPED}.")
