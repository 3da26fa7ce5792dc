"""Names: what a Host may say, how an origin is written, and what a request's target adds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import UsageError
from hub.web.access.origin import Names, authority, origin_of, shown, target_authority

OWN = (
    *("localhost:8080", "LocalHost:8080", "localhost.:8080", "127.0.0.1:8080", "127.9.8.7:8080", "127.0.0.1.:8080"),
    *("[::1]:8080", "[0:0:0:0:0:0:0:1]:8080", "[::ffff:127.0.0.1]:8080", "[::FFFF:7F00:1]:8080"),
)
FOREIGN = (
    *("evil.test:8080", "localhost", "localhost:80", "localhost:08080", "localhost.evil.test:8080", "localhost..:8080"),
    *("127.0.0.1.evil.test:8080", "0.0.0.0:8080", "[::]:8080", "[::2]:8080", "[::ffff:192.0.2.1]:8080", "::1:8080"),
    *("127.1:8080", "0x7f.0.0.1:8080", "2130706433:8080", "[::1%25lo]:8080", "[::1:8080", "a@localhost:8080", ""),
    *("localhost:8080/", "localhost:8080, localhost:8080", "ｌocalhost:8080", "localhost:８080", "localhost:8080\n"),
)


@pytest.mark.parametrize("host", OWN)
def test_every_spelling_of_this_machine_is_an_own_host(host: str) -> None:
    assert Names().is_own(host, "http", 8080)
    assert not Names().is_own(host, "http", 8081)


@pytest.mark.parametrize("host", FOREIGN)
def test_nothing_else_is_an_own_host(host: str) -> None:
    assert not Names().is_own(host, "http", 8080)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_without_a_port_it_is_the_schemes(scheme: str, port: int) -> None:
    assert Names().is_own("localhost", scheme, port)
    assert Names().is_own("localhost", scheme, 8080) is False


@pytest.mark.parametrize(
    ("allowed", "host", "own"),
    [
        *(("hub.test", "HUB.test.:8080", True), ("hub.test", "hub.test:9", False), ("hub.test", "hub.test", False)),
        *(("Hub.Test.:9", "hub.test:9", True), ("hub.test:9", "hub.test:8080", False)),
        *(("hub.test:80", "hub.test", True), ("hub.test", "www.hub.test:8080", False)),
        ("[2001:db8::1]", "[2001:DB8:0::1]:8080", True),
    ],
)
def test_a_host_that_is_allowed(allowed: str, host: str, own: bool) -> None:
    assert Names([allowed]).is_own(host, "http", 8080) is own


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("http", "LocalHost:8080", "http://localhost:8080"),
        ("http", "[::1]:8080", "http://[::1]:8080"),
        ("http", "localhost:80", "http://localhost"),
        ("https", "hub.test:443", "https://hub.test"),
        ("https", "hub.test:80", "https://hub.test:80"),
    ],
)
def test_an_own_origin_is_written_as_a_browser_does(scheme: str, host: str, origin: str) -> None:
    assert origin_of(scheme, host) == origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Other.test:443/", "https://other.test"),
        ("http://other.test:443", "http://other.test:443"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("https://app.example/", "https://app.example"),
        ("http://[0:0:0:0:0:0:0:1]:8080/", "http://[::1]:8080"),
    ],
)
def test_an_origin_that_is_allowed_is_written_as_a_browser_does(text: str, origin: str) -> None:
    assert Names(allow_origin=[text]).allowed_origins == {origin}


NO_NAMES = (
    "a:65536",
    "a:99999",
    "http://a:99999",
    "",
    "*",
    "a b",
    "http://",
    "http://a/b",
    "http://*",
    "a:b",
    "é",
    "[::1",
    "a:0",
)


@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_host_cannot_be_allowed(value: str) -> None:
    with pytest.raises(UsageError, match=r"^--allow-host needs "):
        Names(allow_host=[value])


@pytest.mark.parametrize("value", [*NO_NAMES, "null", "localhost", "localhost:80"])
def test_what_is_no_origin_cannot_be_allowed(value: str) -> None:
    with pytest.raises(UsageError, match=r"^--allow-origin needs "):
        Names(allow_origin=[value])


@pytest.mark.parametrize(
    ("target", "found"),
    [
        *(("/page?next=http://evil.test", None), ("*", None), ("http://evil.test/page", "evil.test")),
        *(("HTTP://127.0.0.1:80/?x=http://evil.test", "127.0.0.1:80"), ("evil.test:443", "evil.test:443")),
        *(("http://localhost:80@evil.test/", "localhost:80@evil.test"), ("http://a?/b", "a"), ("http:///page", "")),
    ],
)
def test_the_host_in_a_target(target: str, found: str | None) -> None:
    assert target_authority(target) == found


@given(st.text(max_size=60))
def test_an_authority_is_read_the_same_again(text: str) -> None:
    if found := authority(text):
        name, port = found
        assert authority(f"{name}:{port}" if port else name) == found


@given(st.text())
def test_what_is_shown_is_short_and_plain(text: str) -> None:
    assert shown(text).isascii()
    assert shown(text).isprintable()
    assert len(shown(text)) <= 1002
