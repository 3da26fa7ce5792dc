"""The log on stderr: no text from outside forges a line, drives a terminal, or leaves a secret there."""

import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import hub_process
from values import HOSTILE

from hub import stderr
from hub.config import Config
from hub.stderr import JSONLines, TextLines

FORGED = "x\n2026-01-01 00:00:00,000 INFO all is well\nTraceback (most recent call last):\n2026 INFO again"
SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [ -~]*", re.ASCII)

EDGES = {
    "text": (TextLines, lambda line: bool(RECORD.fullmatch(line) or re.fullmatch(r"  [ -~]*", line, re.ASCII))),
    "json": (JSONLines, lambda line: set(json.loads(line)) >= {"timestamp", "level", "logger", "message"}),
}


def logged(formatter: logging.Formatter, message: str, error: Exception | None = None) -> str:
    """What stands on stderr behind one call of the log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("hub")
    logger.addHandler(handler)
    logger.error("a listener of %s failed", message, exc_info=error)
    return stream.getvalue()


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("kind", EDGES)
@given(st.text() | st.sampled_from([FORGED, HOSTILE]), st.text() | st.sampled_from([FORGED, HOSTILE]))
def test_one_call_is_one_record(kind: str, message: str, text: str) -> None:
    formatter, is_line = EDGES[kind]
    for error in (None, raised(text)):
        first, *more = logged(formatter(), message, error).removesuffix("\n").split("\n")
        assert all(map(is_line, [first, *more]))
        assert [line for line in more if kind == "json" or RECORD.fullmatch(line)] == []


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("error", [None, raised(FORGED + HOSTILE)], ids=["message", "exception"])
def test_a_forged_line_is_none(weakened: bool, error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(stderr, "escaped", lambda text: text)
    text = logged(TextLines(), "x" if error else FORGED + HOSTILE, error)
    assert ("\x1b" in text) is weakened
    # Of an exception the indentation alone keeps the lines apart; that holds in the weakened build, too.
    forged = [line for line in text.split("\n")[1:] if RECORD.fullmatch(line)]
    assert bool(forged) is (weakened and error is None)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("formatter", [TextLines, JSONLines])
def test_a_secret_is_not_logged(
    formatter: Callable[[], logging.Formatter], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(stderr, "redact_text", lambda text: text)
    text = logged(formatter(), SECRET) + logged(formatter(), "x", raised(f"cannot log in with {SECRET}"))
    assert text.count(SECRET) == 2 * weakened


WEAK = "import hub.stderr; hub.stderr.escaped = lambda text: text; from fails import setup"
FAILS = """
def setup(hub):
    @hub.command("test:fail")
    async def fail(call):
        raise ValueError(call.args["text"])
"""


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("kind", EDGES)
async def test_what_a_client_sends_cannot_forge_the_log_of_a_hub(tmp_path: Path, kind: str, weakened: bool) -> None:
    """Through a handler that puts it into an exception, which the hub logs."""
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "weak.py").write_text(WEAK)
    async with hub_process(tmp_path, "--load", "weak" if weakened else "fails", "--log-format", kind) as hub:
        body = {"text": FORGED + HOSTILE}
        async with hub.http.post(f"{hub.url}api/commands/test:fail", json=body) as answer:
            assert answer.status == 500
    is_line: Callable[[str], Any] = EDGES[kind][1]
    lines = hub.log.removesuffix("\n").split("\n")
    assert "all is well" in hub.log
    assert all(map(is_line, lines)) is not (weakened and kind == "text")


def test_the_level_is_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    root, level = logging.getLogger(), logging.getLogger().level
    before = list(root.handlers)
    try:
        stderr.set_up_logging(Config(log_level="warning", log_format="json"))
        root.info("not this")
        root.warning("this")
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(capsys.readouterr().err)["message"] == "this"
