"""The audit log for people: a record a line, in columns, and for programs as it is."""

import json
import os
import pwd
import re
from pathlib import Path
from typing import Any

import pytest
from running import hub_app, run_hub
from terminals import on_terminal
from values import HOSTILE

from hub.cli.audit import in_columns
from hub.cli.terminal import compact

ME = pwd.getpwuid(os.geteuid()).pw_name
WHO = {"client": "c", "peer": "127.0.0.1:5", "uid": os.geteuid()}


def record(action: str, actor: Any, **details: Any) -> dict[str, Any]:
    return {"action": action, "actor": actor, "details": details, "seq": 1, "timestamp": "2026-01-02T03:04:05.678Z"}


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (record("command.called", WHO, id="1", command="a:b", args={"x": 1}), ["command.called", ME, 'a:b {"x":1}']),
        (record("command.called", WHO, id="1", command="a:b", args={}), ["command.called", ME, "a:b"]),
        (
            record("command.finished", WHO, command="a:b", outcome="ok", ms=1.5),
            ["command.finished", ME, "a:b", "ok 1.5 ms"],
        ),
        (
            record("command.refused", WHO, command="a:b", outcome="forbidden"),
            ["command.refused", ME, "a:b", "forbidden"],
        ),
        (record("hub.started", None, version="1"), ["hub.started", "hub", '{"version":"1"}']),
        (
            record("client.refused", {"client": None, "peer": "10.0.0.1", "uid": None}, reason="host"),
            ["client.refused", "10.0.0.1", '{"reason":"host"}'],
        ),
        (record("provider.left", {**WHO, "uid": 4000000000}), ["provider.left", "uid 4000000000"]),
    ],
)
def test_a_record_is_time_action_who_what_and_outcome(given: dict[str, Any], columns: list[str]) -> None:
    time, *found = re.split(r" {2,}", in_columns(given).strip())
    assert re.fullmatch(r"[-\d]{10} [:.\d]{12}", time)
    assert found == columns


def test_no_record_drives_the_terminal() -> None:
    hostile = record(HOSTILE, {**WHO, "uid": None, "peer": HOSTILE}, command=HOSTILE, outcome=HOSTILE, ms=HOSTILE)
    assert in_columns(hostile).isprintable()
    assert in_columns({**hostile, "timestamp": HOSTILE}).isprintable()


async def test_columns_on_a_terminal_and_json_in_a_pipe(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub") as hub:
        await hub.post("api/commands/hub:ping", {"mark": "here"})
        words = ("audit", "tail", "--limit", "3", "--url", hub.url)
        status, out, err = await run_hub(tmp_path, *words)
        assert (status, err) == (0, "")
        assert [compact(json.loads(line)) for line in out.splitlines()] == out.splitlines()
        async with on_terminal(tmp_path, *words) as shown:
            status, text = await shown.ended()
    assert (status, text.count("\n")) == (0, 3)
    assert text.splitlines()[1].endswith("audit:tail  ok " + text.splitlines()[1].rpartition("ok ")[2])
