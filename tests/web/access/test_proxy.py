"""What a trusted proxy's headers mean, and which of them mean nothing."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from hub.errors import UsageError
from hub.web.access.proxy import Forwarded, Proxies

TRUSTED = ("10.0.0.0/8", "::1", "127.0.0.1")


def read(*headers: tuple[str, str]) -> Forwarded:
    return Proxies(TRUSTED).read(CIMultiDictProxy(CIMultiDict(headers)))


@pytest.mark.parametrize(
    ("header", "value", "address"),
    [
        ("X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
        ("X-Forwarded-For", "127.0.0.1, 192.0.2.1", "192.0.2.1"),  # the first was the client's own idea
        ("X-Forwarded-For", "192.0.2.9, 192.0.2.1, 10.1.2.3,127.0.0.1", "192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1:4711", "192.0.2.1"),
        ("X-Forwarded-For", "::ffff:192.0.2.1", "192.0.2.1"),
        ("X-Forwarded-For", "2001:DB8::1", "2001:db8::1"),
        ("X-Forwarded-For", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("Forwarded", "for=192.0.2.9, for=192.0.2.1;by=10.0.0.1, for=10.0.0.1", "192.0.2.1"),
        ("Forwarded", 'For="[2001:db8::1]:4711"', "2001:db8::1"),
        ("X-Real-IP", "192.0.2.1", ""),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_trusted(header: str, value: str, address: str) -> None:
    assert read((header, value)).address == address


def test_several_lines_are_one_list() -> None:
    assert read(("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-For", "192.0.2.1")).address == "192.0.2.1"


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-For", "")],
        [("X-Forwarded-For", "unknown")],
        [("X-Forwarded-For", "192.0.2.1,")],
        [("X-Forwarded-For", "999.0.2.1")],
        [("Forwarded", "for=_hidden")],
        [("Forwarded", "by=10.0.0.1")],
        [("Forwarded", "for=192.0.2.1;for=127.0.0.1")],
        [("Forwarded", 'for="192.0.2.1')],
        [("Forwarded", "for=192.0.2.1"), ("X-Forwarded-For", "192.0.2.1")],
        [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "gopher")],
    ],
)
def test_what_cannot_be_read_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(*headers)


@pytest.mark.parametrize(
    ("headers", "scheme", "hosts"),
    [
        ([("X-Forwarded-Proto", "https")], "https", []),
        ([("X-Forwarded-Proto", "http, wss")], "https", []),
        ([("X-Forwarded-Host", "a.test, b.test")], None, ["a.test", "b.test"]),
        ([("Forwarded", 'for=192.0.2.1;proto=https;host="hub.test:8443"')], "https", ["hub.test:8443"]),
    ],
)
def test_scheme_and_hosts(headers: list[tuple[str, str]], scheme: str | None, hosts: list[str]) -> None:
    found = read(*headers)
    assert (found.scheme, found.hosts) == (scheme, hosts)


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "", "*"])
def test_a_proxy_is_named_by_its_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--trusted-proxy needs .*\.$"):
        Proxies((text,))


def test_nobody_is_trusted_by_default() -> None:
    assert not Proxies().trusts("127.0.0.1")
    assert not Proxies(TRUSTED).trusts("no address")
