"""Finding the hub that runs here, and what its answers over HTTP mean."""

import json
from pathlib import Path

import pytest

from hub.client.discovery import NoHub, Refusal, answer, checked_url, running_hub


def announce(folder: Path, text: str) -> Path:
    (folder / "server.json").write_text(text)
    return folder


def test_the_running_hub_is_found_in_its_state_directory(tmp_path: Path) -> None:
    announce(tmp_path, '{"url": "http://127.0.0.1:3141/", "pid": 1, "version": "1", "started": ""}')
    assert running_hub(tmp_path) == "http://127.0.0.1:3141"


def test_without_server_json_there_is_no_hub(tmp_path: Path) -> None:
    with pytest.raises(NoHub, match=r"No hub is running here: there is no .*server\.json\."):
        running_hub(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"url": 5}', '{"url": "ftp://x"}', "\x00"])
def test_a_server_json_that_says_nothing_is_no_hub(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoHub, match="not readable"):
        running_hub(announce(tmp_path, text))


@pytest.mark.parametrize("url", ["127.0.0.1:3141", "ftp://x", ""])
def test_an_address_that_is_not_http_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        checked_url(url)


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
