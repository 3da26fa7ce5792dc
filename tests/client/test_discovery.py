"""Finding the hub that runs here, and what its answers over HTTP mean."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from strangers import BECOME, STRANGER, needs_root

from hub.client import discovery
from hub.client.discovery import NoHub, Refusal, answer, checked_url, credentials, named_hub, parts, running_hub
from hub.errors import HubError


def announce(folder: Path, text: str) -> Path:
    (folder / "server.json").write_text(text)
    return folder


def test_the_running_hub_is_found_in_its_state_directory(tmp_path: Path) -> None:
    announce(tmp_path, server())
    assert running_hub(tmp_path) == "http://127.0.0.1:3141"


def server(url: str = "http://127.0.0.1:3141/", pid: int | None = None) -> str:
    """What a running hub writes there."""
    return json.dumps({"url": url, "pid": os.getpid() if pid is None else pid, "version": "1", "started": ""})


@pytest.mark.parametrize("weakened", [False, True])
def test_a_hub_that_has_gone_is_not_followed(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    if weakened:
        monkeypatch.setattr(discovery, "_is_own_process", lambda pid: True)
    for pid in (gone.pid, 0, -1, 10**30):
        announce(tmp_path, server(pid=pid))
        with contextlib.nullcontext() if weakened else pytest.raises(NoHub, match=rf"^No hub .*process {pid} .*\.$"):
            running_hub(tmp_path)


WAITS = BECOME + "print(flush=True);sys.stdin.read(1)"


@needs_root
@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("whose", ["file", "directory", "process", "link"])
def test_what_another_account_has_planted_is_not_followed(
    whose: str, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WAITS], stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()
        announce(folder, server(pid=process.pid if whose == "process" else None))
        if whose == "link":
            (folder / "server.json").rename(tmp_path / "theirs")
            (folder / "server.json").symlink_to(tmp_path / "theirs")
        elif whose != "process":
            os.chown(folder if whose == "directory" else folder / "server.json", STRANGER, STRANGER)
        if weakened:
            monkeypatch.setattr(discovery, "_of_this_account", lambda directory, path: Path(path).read_bytes())
            monkeypatch.setattr(discovery, "_is_own_process", lambda pid: True)
            assert running_hub(folder) == "http://127.0.0.1:3141"
        else:
            with pytest.raises(NoHub, match=r"^No hub [^\n]+\.$"):
                running_hub(folder)
        process.kill()


def test_without_proc_a_process_that_takes_our_signals_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "owner", lambda pid: None)
    assert [discovery._is_own_process(pid) for pid in (os.getpid(), 0, 10**30)] == [True, False, False]


def test_what_was_typed_counts_more_than_hub_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_URL", "http://127.0.0.1:1/")
    assert named_hub("http://127.0.0.1:2", tmp_path) == "http://127.0.0.1:2"
    assert named_hub(None, tmp_path) is None
    assert named_hub(None, None) == "http://127.0.0.1:1"
    monkeypatch.setenv("HUB_URL", "")
    assert named_hub(None, None) is None


def test_without_a_home_there_is_no_hub_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUB_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # no account has this number
    with pytest.raises(NoHub, match=r"^No hub can be found: .* no home .*\.$"):
        running_hub()
    assert credentials("http://127.0.0.1:3141") == {}


def test_a_token_is_for_the_hub_that_runs_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 32)
    (tmp_path / "token").chmod(0o600)
    here, sent = "http://127.0.0.1:3141", {"Authorization": f"Bearer {'t' * 32}"}
    assert credentials(here, tmp_path) == sent  # named, and nothing says that it runs elsewhere
    for text, may in ((server(), True), (server(pid=0), False), ("{}", False)):
        announce(tmp_path, text)
        assert credentials(here, tmp_path) == (sent if may else {})
    announce(tmp_path, server(pid=0))
    assert credentials("http://127.0.0.1:1", tmp_path) == sent
    (tmp_path / "token").write_text("short")
    with pytest.raises(HubError, match=r"cannot be read: .*\.$"):
        credentials("http://127.0.0.1:1", tmp_path)


def test_without_server_json_there_is_no_hub(tmp_path: Path) -> None:
    with pytest.raises(NoHub, match=r"No hub is running here: there is no .*server\.json\."):
        running_hub(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"url": 5}', '{"url": "ftp://x"}', "\x00", "[" * 100_000])
def test_a_server_json_that_says_nothing_is_no_hub(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoHub, match="not readable"):
        running_hub(announce(tmp_path, text))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "127.0.0.1",
            "h:3141?a=1",
            "h:31 41",
            "u:p@h:1",
            "ftp://x",
            "",
            "http://",
            "http://:3141",
            "http:///x",
            "http://h:99999",
            "http://h:abc",
        ),
        *("http://h:0", "http://h:-1", "http://[::1", "http://::1]:3141", "http://h h", "http://h\n", "http://h/?a=1"),
        *("http://h:", "http://h/x y", "http://[h]:1", "http://a]:1", "http://[]", "http://h:1:2", "http://h:100000"),
        *("http://h/#a", "http://user:secret@h", "http://h:٣", "http://\x1b"),
    ],
)
def test_an_address_that_is_none_is_said_in_one_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"^The address of a hub is [^\n\x1b]+\.$") as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://h", "https://h:1", "http://[::1]:65535/under/a/prefix/"])
def test_an_address_is_kept_as_it_was_written(url: str) -> None:
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize("bare", ["localhost:3141", "127.0.0.1:1/", "[::1]:3141/under/a/prefix"])
def test_an_address_may_be_typed_without_its_scheme(bare: str) -> None:
    assert checked_url(bare) == f"http://{bare.rstrip('/')}"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:3141", (False, "127.0.0.1", 3141, "")),
        ("HTTPS://Hub.Example/a/b", (True, "hub.example", None, "/a/b")),
        ("http://[::1]:1/", (False, "::1", 1, "/")),
        ("http://[fe80::1%eth0]", (False, "fe80::1%eth0", None, "")),
    ],
)
def test_an_address_is_taken_apart_as_everybody_does(url: str, told: tuple[object, ...]) -> None:
    assert parts(url) == told
    others = urlsplit(url)
    assert (others.scheme == "https", others.hostname, others.port, others.path) == told


def test_an_answer_is_its_json() -> None:
    assert answer("u", 200, b'[1, "x"]') == [1, "x"]


def test_a_refusal_keeps_the_hubs_words() -> None:
    body = {
        "error": "Slow down.",
        "code": "made_up_later",
        "retryable": True,
        "retry_after": 2,
        "details": {"a": 1},
    }
    with pytest.raises(Refusal) as caught:
        answer("u", 429, json.dumps(body).encode())
    error = caught.value
    assert (error.code, error.message, error.retryable) == ("made_up_later", "Slow down.", True)
    assert (error.retry_after, error.details, error.status) == (2, {"a": 1}, 429)
    assert error.payload() == body


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"Not Found"), (404, b"{}"), (302, b"null")])
def test_what_does_not_answer_as_a_hub_is_none(status: int, body: bytes) -> None:
    with pytest.raises(NoHub, match=f"does not answer as a hub \\(HTTP status {status}\\)"):
        answer("http://u", status, body)
