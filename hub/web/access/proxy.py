"""What a trusted reverse proxy says of the request that it forwards (RFC 7239, and the older X-Forwarded-* headers)."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDictProxy

from ...errors import UsageError
from ...sockdiag import unmapped
from .connections import Accepted
from .peer import Peer

_FORWARDING = frozenset(
    {
        *("forwarded", "via", "x-real-ip", "cf-connecting-ip", "cf-ray", "cdn-loop", "true-client-ip"),
        *("fastly-client-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host"),
        *("x-original-forwarded-for", "x-envoy-external-address"),
    }
)  # and all that begins with x-forwarded
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PAIR = re.compile(r'([a-zA-Z]+)=(?:"([^"\\,;]*)"|([^",;\s]*))', re.ASCII)
_NODE = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+)(?::\d{1,5})?|([0-9a-fA-F:.]+)", re.ASCII)


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that it has forwarded this; a header that says so counts whatever is in it."""
    names = [name.lower() for name in headers]
    return any(name in _FORWARDING or name.startswith("x-forwarded") for name in names)


class Forwarded(NamedTuple):
    """`address` of the client, "" if the proxy names none; `scheme` it used, if said; every host it named."""

    address: str
    scheme: str | None
    hosts: list[str]


class Proxies:
    """The proxies of `--trusted-proxy`: addresses or networks. Raises UsageError for anything else."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        try:
            self._networks = [ipaddress.ip_network(unmapped(text)) for text in texts]
        except ValueError as error:
            raise UsageError(f"--trusted-proxy needs an address or a network: {str(error)!a}.") from None

    def check(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops whoever writes forwarding headers himself, to pass for another address, scheme or host.

        A trusted proxy's request is nobody's of this machine, also without such a header: a proxy may add none.
        """
        if not self.trusts(connection.peer.address):
            forwarded = is_forwarded(request.headers)
            return "A proxy forwarded this request; --trusted-proxy names it." if forwarded else None
        try:
            found = self.read(request.headers)
        except ValueError as error:
            return f"The trusted proxy's headers cannot be read: {error}."
        connection.loopback, connection.host, connection.hosts = False, None, tuple(found.hosts)
        connection.peer = Peer(found.address or connection.peer.address, 0, None, "NONE")
        connection.scheme = found.scheme or connection.scheme
        return None

    def trusts(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)

    def read(self, headers: CIMultiDictProxy[str]) -> Forwarded:
        """What the headers say, from their end on: a proxy appends, so all before the first hop that is not trusted is
        only what the client claims. Raises ValueError for what cannot be read, or could have been read in two ways: a
        proxy writes one of `Forwarded` and `X-Forwarded-For` and passes the other on as the client wrote it."""
        standard, older = headers.getall("Forwarded", ()), headers.getall("X-Forwarded-For", ())
        if standard and older:
            raise ValueError("both Forwarded and X-Forwarded-For")
        elements = [_pairs(text) for text in _parts(standard)] or [{"for": text} for text in _parts(older)]
        client: Mapping[str, str] = {}
        address = ""
        for element in reversed(elements):
            client, address = element, _address(element.get("for", ""))
            if not self.trusts(address):
                break
        schemes = [client["proto"]] if "proto" in client else _parts(headers.getall("X-Forwarded-Proto", ()))
        hosts = _parts(headers.getall("X-Forwarded-Host", ()))
        hosts += [element["host"] for element in elements if "host" in element]
        return Forwarded(address, _scheme(schemes[-1]) if schemes else None, hosts)


def _parts(values: Iterable[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",")]


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(";"):
        pair = _PAIR.fullmatch(part.strip())
        if pair is None or pair[1].lower() in found:
            raise ValueError("not an element of Forwarded")
        found[pair[1].lower()] = pair[2] or pair[3] or ""
    return found


def _address(text: str) -> str:
    node = _NODE.fullmatch(text)
    if node is None:
        raise ValueError("not an address")
    return unmapped(str(ipaddress.ip_address(next(filter(None, node.groups())))))


def _scheme(text: str) -> str:
    if text.lower() not in _SCHEMES:
        raise ValueError("not a scheme")
    return _SCHEMES[text.lower()]
