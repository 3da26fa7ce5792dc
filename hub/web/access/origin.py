"""Under which names a hub is addressed, and which pages are its own: what a Host and an Origin may say."""

import ipaddress
import re
from collections.abc import Iterable

from ...errors import UsageError
from ...sockdiag import is_loopback

MAX_PORT = 65535
DEFAULT_PORT = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(?:(\[[0-9a-f:.]+\])|([a-z0-9._-]+?)\.?)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._:\[\]-]+)", re.ASCII)


class Names:
    """A hub's own names and those that `--allow-host` and `--allow-origin` add.

    Raises UsageError if an `allow_host` is no host or an `allow_origin` no origin.
    """

    def __init__(self, allow_host: Iterable[str] = (), allow_origin: Iterable[str] = ()) -> None:
        self.allowed_hosts = frozenset(_allowed_host(text) for text in allow_host)
        self.allowed_origins = frozenset(_allowed_origin(text) for text in allow_origin)

    def is_own(self, host: str, scheme: str, port: int, address: str = "") -> bool:
        """Whether the text of a Host header addresses the hub that is reached by `scheme` at its own `port`.

        Any loopback address does, and the `address` of the connection's own end: a page whose name was pointed at this
        machine sends that name, never an address.
        """
        found = authority(host)
        if found is None:
            return False
        name, given = found[0], found[1] or DEFAULT_PORT[scheme]
        if (name, given) in self.allowed_hosts:
            return True
        literal = name.strip("[]")
        own = name == "localhost" or is_loopback(literal) or (name, None) in self.allowed_hosts
        return (own or (address != "" and literal == address)) and given == port


def authority(text: str) -> tuple[str, int | None] | None:
    """`Host[:port]` as (name, port): lower case, no trailing dot, addresses in one spelling. Else None."""
    found = _AUTHORITY.fullmatch(text.lower()) if text.isascii() else None
    if found is None:
        return None
    bracketed, name, port = found.groups()
    if bracketed:
        try:
            address = ipaddress.IPv6Address(bracketed[1:-1])
        except ValueError:
            return None
        name = str(address.ipv4_mapped or f"[{address}]")
    return (name, int(port) if port else None) if int(port or 0) <= MAX_PORT else None


def target_authority(target: str) -> str | None:
    """The host in a request's target, which then counts beside the Host header (RFC 9112, 3.2.2); None if none is."""
    if target[:1] in ("/", "*"):
        return None
    return re.split("[/?#]", target.partition("://")[2] or target, maxsplit=1)[0]


def shown(text: str) -> str:
    """A text from outside, short and without control characters."""
    return ascii(text[:100])


def origin_of(scheme: str, host: str) -> str:
    """The origin of a page that a request with this Host has got, as a browser writes it: without a default port."""
    return f"{scheme}://{host.lower().removesuffix(f':{DEFAULT_PORT[scheme]}')}"


def _allowed_host(text: str) -> tuple[str, int | None]:
    if found := authority(text):
        return found
    raise UsageError(f"--allow-host needs NAME or NAME:PORT, not {shown(text)}.")


def _allowed_origin(text: str) -> str:
    """As a browser would write it. `null` is nobody's origin, so it cannot be allowed."""
    origin = text.lower().rstrip("/")
    found = _ORIGIN.fullmatch(origin)
    if found is None or authority(found[2]) is None:
        raise UsageError(f"--allow-origin needs SCHEME://HOST[:PORT], not {shown(text)}.")
    if found[2].startswith("["):
        address, behind = found[2][1:].split("]")
        origin = f"{found[1]}://[{ipaddress.IPv6Address(address)}]{behind}"
    return origin.removesuffix(f":{DEFAULT_PORT.get(found[1])}")
