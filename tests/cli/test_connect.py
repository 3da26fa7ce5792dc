"""`hub connect`: the settings of agents get hub's hooks, and are as before when they are taken back."""

import contextlib
import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from running import hub_app
from samples import sample

from hub.adapters.senders import AGENTS
from hub.cli import connect, settings
from hub.cli.main import main

FILES = {
    "claude-code": ".claude/settings.json",
    "codex": ".codex/hooks.json",
    "gemini": ".gemini/settings.json",
    "copilot": ".copilot/hooks/hub.json",
    "cursor": ".cursor/hooks.json",
}
SAMPLES = {
    "claude-code": "claude-settings-command",
    "codex": "codex-hooks",
    "gemini": "gemini-settings",
    "copilot": "copilot-hooks",
}
HUB = "/home/user/.local/bin/hub"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connect, "own_command", lambda: [HUB])
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["connect", *words])
    return status, out.getvalue(), err.getvalue()


def file_of(home: Path, agent: str) -> Path:
    return home / FILES[agent]


def given(home: Path, agent: str, text: str, mode: int = 0o640) -> Path:
    file = file_of(home, agent)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("agent", SAMPLES)
def test_what_is_written_is_what_the_agent_takes(home: Path, agent: str) -> None:
    """Each hook of the sample, word by word."""
    asks = [] if agent in ("copilot", "gemini") else ["--ask"]
    assert run(agent, *asks)[0] == 0
    found, wanted = json.loads(file_of(home, agent).read_text()), sample(SAMPLES[agent])
    for event, entries in wanted["hooks"].items():
        assert found["hooks"][event][: len(entries)] == entries, event
    assert {k: v for k, v in found.items() if k != "hooks"} == {k: v for k, v in wanted.items() if k != "hooks"}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("asks", [(), ("--ask",)])
def test_twice_is_once_and_removed_is_gone(home: Path, agent: str, asks: tuple[str, ...]) -> None:
    file = file_of(home, agent)
    run(agent, *asks)
    first = file.read_bytes()
    changed = file.stat().st_ino
    assert run(agent, *asks)[0] == 0
    assert (file.read_bytes(), file.stat().st_ino) == (first, changed)
    run(agent, *(() if asks else ("--ask",)))
    run(agent, *asks)
    assert file.read_bytes() == first
    assert ("--ask" in first.decode()) == (bool(asks) and agent != "gemini")
    assert run(agent, "--remove")[0] == 0
    assert not file.exists() or json.loads(file.read_text()) == {}
    assert run(agent, "--remove")[0] == 0


OTHERS: dict[str, Any] = {
    "model": "opus",
    "ünïcödé": "🐝",
    "hooks": {
        "Stop": [{"matcher": "", "hooks": [{"type": "command", "command": "notify-send done"}]}],
        "PreToolUse": [
            {"matcher": "Bash", "hooks": [{"type": "command", "command": "/opt/hub hook claude-code --url x"}]}
        ],
        "Empty": [],
    },
    "permissions": {"allow": ["Bash(ls)"], "n": 1.5},
}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("indent", [2, 4, "\t"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_what_is_there_stays(home: Path, agent: str, indent: Any, end: str) -> None:
    text = json.dumps(OTHERS, indent=indent, ensure_ascii=False) + end
    file = given(home, agent, text)
    assert run(agent, "--ask")[0] == 0
    found = json.loads(file.read_text())
    assert {name: found[name] for name in OTHERS if name != "hooks"} == {
        n: v for n, v in OTHERS.items() if n != "hooks"
    }
    for event, entries in OTHERS["hooks"].items():
        assert found["hooks"][event][: len(entries)] == entries
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    run(agent, "--remove")
    assert file.read_text() == text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("agent", ["claude-code", "codex", "gemini", "cursor"])
@pytest.mark.parametrize("asks", [(), ("--ask",)])
def test_lists_that_stood_empty_stand_empty_again(home: Path, agent: str, asks: tuple[str, ...]) -> None:
    run(agent, "--ask")
    events = [*json.loads(file_of(home, agent).read_text())["hooks"]]
    run(agent, "--remove")
    text = json.dumps({"a": 1, "hooks": {event: [] for event in events[::2]}})
    file = given(home, agent, text)
    run(agent, *asks)
    first = json.loads(file.read_text())
    run(agent, "--ask")
    run(agent, *asks)
    assert json.loads(file.read_text()) == first, "twice is once"
    assert all(first["hooks"].values()), "and hub's are in all of them"
    run(agent, "--remove")
    assert json.loads(file.read_text()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "// a remark\n{}",
        "[]",
        "null",
        '{"a": 1, "a": 2}',
        '{"hooks": []}',
        '{"hooks": {"Stop": {}}}',
        "[" * 100_000,
        "\ufeff{}",
    ],
)
@pytest.mark.parametrize("words", [(), ("--ask",), ("--remove",)])
def test_what_is_no_settings_is_left_as_it_is(home: Path, text: str, words: tuple[str, ...]) -> None:
    file = given(home, "claude-code", text)
    status, out, err = run("claude-code", *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert str(file) in err
    assert file.read_text() == text


def test_what_is_not_utf8_or_cannot_be_read(home: Path) -> None:
    file = given(home, "claude-code", "")
    file.write_bytes(b'{"a": "\xff"}')
    assert run("claude-code")[0] == 1
    assert file.read_bytes() == b'{"a": "\xff"}'
    file.unlink()
    file.mkdir()
    assert run("claude-code")[0] == 1


def test_the_settings_may_lie_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(home / "claude here"))
    monkeypatch.setenv("CODEX_HOME", str(home / "codex here"))
    run("claude-code")
    assert (home / "claude here/settings.json").exists()
    assert "trusted" in run("codex")[1]
    assert (home / "codex here/hooks.json").exists()


def test_a_link_stays_a_link(home: Path) -> None:
    real = home / "dotfiles.json"
    real.write_text("{}")
    file = file_of(home, "claude-code")
    file.parent.mkdir()
    file.symlink_to(real)
    run("claude-code")
    assert file.is_symlink()
    assert "hook" in real.read_text()


def test_an_older_place_of_hub_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "own_command", lambda: ["/old place/bin/hub"])
    for agent in AGENTS:
        run(agent, "--ask")
    monkeypatch.setattr(connect, "own_command", lambda: [sys.executable, *settings.MODULE])
    for agent in AGENTS:
        run(agent, "--ask")
        assert "old place" not in file_of(home, agent).read_text()
        run(agent, "--remove")
        assert not file_of(home, agent).exists() or file_of(home, agent).read_text().strip() == "{}"


def test_hub_is_named_by_a_path_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    program = tmp_path / "bin" / "hub"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "")
    assert connect.own_command() != [str(program)]
    program.chmod(0o755)
    assert connect.own_command() == [str(program)]


def test_who_is_not_known_is_said() -> None:
    status, _, err = run("emacs")
    assert status == 2
    assert "claude-code" in err


# ---- doctor


def lines(*words: str) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(["doctor", "--json", *words])
    return {line["check"]: line for line in map(json.loads, out.getvalue().splitlines())}


async def test_doctor_says_who_was_never_heard(home: Path, tmp_path: Path) -> None:
    import asyncio

    async with hub_app(tmp_path / "state") as hub:
        run("claude-code")
        given(home, "gemini", "{")
        before = await asyncio.to_thread(lines, "--url", hub.url)
        assert "never heard" in before["claude-code"]["text"]
        assert "never heard" in before["codex"]["text"]
        assert (before["codex"]["ok"], before["gemini"]["ok"]) == (True, False)
        await hub.post("hooks/claude-code", sample("claude-03-pre-tool-use"))
        after = await asyncio.to_thread(lines, "--url", hub.url)
        assert "last heard at" in after["claude-code"]["text"]
        assert "never heard" not in after["claude-code"]["text"]
        assert "never heard" in after["codex"]["text"]


def test_doctor_without_a_hub(home: Path, tmp_path: Path) -> None:
    run("claude-code")
    found = lines("--state-dir", str(tmp_path / "nothing"))
    assert found["claude-code"]["text"] == f"Connected by {home}/.claude/settings.json."
