"""The URL of the broker: what cannot be meant is refused in one sentence, and no password is in any."""

import re
from pathlib import Path

import pytest
from running import run_hub

from hub.config import Config
from hub.errors import UsageError
from hub.stream.brokers import url as module
from hub.stream.brokers.schemes import make_broker
from hub.stream.brokers.server import Server
from hub.stream.brokers.url import parse

PORT, DATABASE = "The port in the URL of the broker must be", "The database in the URL of the broker must be a number"
REFUSED = [
    ("redis://[", "cannot be read: it looks like"),
    ("redis://127.0.0.1:99999", PORT),
    ("redis://127.0.0.1:abc", PORT),
    ("redis://h:0", PORT),
    ("redis://h?prefx=a", "does not know, 'prefx'; did you mean prefix?"),
    ("redis://h?ssl_ca_certs=a", "that redis: does not know, 'ssl_ca_certs'."),
    ("redis://h?%0a%1b=a", r"does not know, '\\n\\x1b'."),
    (f"redis://h?{'x' * 1000}=a", f"does not know, '{'x' * 40}'."),
    ("redis://h?prefix=a&prefix=b", "has the option prefix more than once"),
    ("redis://h?prefix", "they look like ?prefix=NAME"),
    ("redis://h/abc", DATABASE),
    ("redis://h/1/2", DATABASE),
    ("redis:h", DATABASE),
    ("redis://h?db=x", DATABASE),
    ("redis://h/1?db=2", "names its database twice"),
    ("rediss://h?ssl_min_version=x", "has a value that cannot be used"),
    ("rediss://h?ssl_cert_reqs=foo", "begins with ssl_ has a value, or names a file, that cannot be used."),
    ("rediss://h?ssl_ciphers=none-such", "names a file, that cannot be used."),
    ("rediss://h?ssl_ca_certs=/nowhere/ca", "names a file, that cannot be used (No such file or directory)."),
    ("rediss://h?ssl_certfile=/nowhere/c", "names a file, that cannot be used (No such file or directory)."),
    ("unix://", "names no socket"),
    ("unix://r1/r.sock", "begins with three slashes: unix:///run"),
    ("unix:r.sock", "begins with three slashes: unix:///run"),
]


def sentence(url: str) -> str:
    with pytest.raises(UsageError) as refused:
        parse(url)
    assert re.fullmatch(r"[ -~]{1,300}[.?]", str(refused.value))
    return str(refused.value)


@pytest.mark.parametrize(("url", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(url: str, words: str) -> None:
    assert words.replace("\\\\", "\\") in sentence(url)


@pytest.mark.parametrize(
    ("url", "prefix", "place"),
    [
        ("redis://", "hub", "localhost:6379"),
        ("redis://[::1]:7/3?prefix=a", "a", "::1:7"),
        ("rediss://u:p%2F%40@h?db=2&ssl_cert_reqs=none&ssl_check_hostname=no", "hub", "h:6379"),
        ("unix:///r.sock?db=1", "hub", "/r.sock"),
        ("unix://u:p@/r.sock", "hub", "/r.sock"),
        ("unix:/r.sock", "hub", "/r.sock"),
    ],
)
def test_what_is_meant_is_taken(url: str, prefix: str, place: str) -> None:
    found = Server(url)
    assert (found.prefix, found.place) == (prefix, place)
    found.wire(1.0)


SLIPS = [
    f"{scheme}://hub:{password}@{rest}"
    for scheme, rest in (("redis", "h:1/0"), ("rediss", "h"), ("unix", "/r.sock"))
    for password in (
        "s3cret/x",
        "s3cret?x",
        "s3cret?x=1",
        "s3cret?s3cret=1",
        "s3cret#x",
        "123456/s3cret",
        "123456?s3cret=1",
    )
]


@pytest.mark.parametrize("url", SLIPS)
def test_no_part_of_a_password_is_told(url: str) -> None:
    said = sentence(url)
    assert "s3cret" not in said
    assert "123456" not in said


def test_weakened_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_check_server", lambda parts: None)
    monkeypatch.setattr(module, "_options", lambda parts: {})
    monkeypatch.setattr(module, "_check_database", lambda parts, options: None)
    assert "1234" in Server("redis://hub:1234/s3cret@h").place


@pytest.mark.parametrize("url", ["", "s3cret", "S3:cret"])
def test_what_is_no_url_is_refused_and_not_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^The broker must be named by a URL; this hub knows sqlite:,"):
        make_broker(Config(state_dir=tmp_path, broker=url))


def test_a_scheme_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^There is no broker for amqp:…; this hub knows sqlite:,"):
        make_broker(Config(state_dir=tmp_path, broker="amqp://u:p@h"))


# ---- the file that it is in, and the settings that say the same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty: write the URL into it"),
        (" \n\n", "is empty: write the URL into it"),
        ("redis://a\nredis://b\n", "must have one URL in one line"),
        ("redis://a redis://b", "must have one URL in one line"),
        ("redis://a\0b", "must have one URL in one line"),
    ],
)
def test_a_file_without_its_one_url_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "url"
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as refused:
        Config(broker_file=str(file))
    assert str(file) in str(refused.value)
    assert "redis://" not in str(refused.value)
    file.write_text("\n redis://a \n\n")
    assert Config(broker_file=str(file)).broker == "redis://a"


CONTRADICTIONS = [
    (["--ephemeral", "--broker", "unix:///r.sock"], {}, "--broker (HUB_BROKER) elsewhere"),
    (["--ephemeral", "--broker", "sqlite:"], {}, "--broker (HUB_BROKER) elsewhere"),
    (["--ephemeral"], {"HUB_BROKER": "redis://h"}, "--broker (HUB_BROKER) elsewhere"),
    (["--ephemeral", "--broker-file", "f"], {}, "--broker-file (HUB_BROKER_FILE) elsewhere"),
    (["--broker", "redis://h", "--broker-file", "f"], {}, "both say where events are kept"),
    (["--broker-file", "f"], {"HUB_BROKER": "redis://h"}, "both say where events are kept"),
]


@pytest.mark.parametrize(("flags", "environ", "words"), CONTRADICTIONS)
async def test_two_settings_that_say_where_events_are_kept_are_refused(
    tmp_path: Path, flags: list[str], environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    status, out, err = await run_hub(tmp_path, "--port", "0", "--state-dir", "state", *flags)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "state").exists()


def test_the_same_to_an_embedder(tmp_path: Path) -> None:
    for settings in ({"ephemeral": True}, {"broker_file": str(tmp_path)}):
        with pytest.raises(UsageError, match="give one of them"):
            Config(broker="redis://h", **settings)
    assert Config(ephemeral=True, broker="memory:").broker == "memory:"


def test_a_flag_goes_before_the_variable_of_the_same_setting() -> None:
    assert Config.from_environment({"HUB_BROKER": "redis://a"}, broker="redis://b").broker == "redis://b"
    assert Config.from_environment({"HUB_EPHEMERAL": "1"}, ephemeral=False, broker="redis://b").broker == "redis://b"
