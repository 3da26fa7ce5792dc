"""`hub connect`: the settings of agents get hub's hooks, and are as before when they are taken back."""

import asyncio
import contextlib
import io
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given as having
from hypothesis import strategies as st
from running import environment, hub_app, hub_process
from samples import sample

from hub import processes
from hub.adapters.senders import AGENTS
from hub.cli import connect, installed, settings
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
    for name in (
        "CLAUDE_CONFIG_DIR",
        "CODEX_HOME",
        "HUB_URL",
        "HUB_STATE_DIR",
        "HUB_CA",
        "HUB_TOKEN",
        "XDG_STATE_HOME",
    ):
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
    assert not file.exists()
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


NAMES = st.sampled_from(["a", "hooks2", "version", "description", "ünï\u2028", "\\", '"'])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OTHER = st.sampled_from(
    [
        {"matcher": "", "hooks": [{"type": "command", "command": "notify-send done"}]},
        {"matcher": "Bash", "hooks": [{"type": "command", "command": "/opt/hub hook claude-code --url x"}]},
        {"command": "./audit.sh"},
        7,
    ]
)
EVENTS = ["Stop", "PreToolUse", "BeforeTool", "preToolUse", "stop", "PermissionRequest", "Mine", "SessionStart"]
HOOKS = st.dictionaries(st.sampled_from(EVENTS), st.lists(OTHER, max_size=2), max_size=4)
BLANKS = st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t", "  \n\n "])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Settings in any form: each blank between two tokens is another."""
    value: Any = draw(st.dictionaries(NAMES, PLAIN, max_size=3))
    if draw(st.booleans()):
        value = [*value.items()]
        value.insert(draw(st.integers(0, len(value))), ("hooks", draw(HOOKS)))
        value = dict(value)
    known = draw(st.sampled_from([None, {}, {"version": 1}, {"description": "Tell hub what Codex does."}]))
    if known is not None:
        value = known | {name: value["hooks"] for name in ("hooks",) if name in value}
    form = draw(st.sampled_from([None, 2, 4, "\t", "odd"]))
    if form != "odd":
        return json.dumps(value, indent=form, ensure_ascii=draw(st.booleans())) + draw(BLANKS)
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', json.dumps(value))
    return "".join(draw(BLANKS) + token for token in tokens) + draw(BLANKS)


@having(texts(), st.sampled_from(AGENTS), st.booleans(), st.booleans())
def test_what_is_put_in_and_taken_out_leaves_every_byte(text: str, agent: str, asks: bool, before: bool) -> None:
    with mock.patch.dict(os.environ, {"HOME": "/home/nobody"}):
        given = settings.settings_of(agent)
    hook = settings.Hook([HUB], ["--state-dir", "/srv/hub"])
    entries = given.entries(hook, asks)
    put = installed.put_in(text, given.new, entries)
    known, found = json.loads(text), json.loads(put)
    assert {**found, "hooks": None} == {**known, "hooks": None}, "what is there stays"
    for event, own in entries.items():
        assert found["hooks"][event] == [*known.get("hooks", {}).get(event, []), *own]
    assert installed.connected(found, agent) == hook.where
    assert installed.taken_out(put, given.new, agent) == text
    other = given.entries(hook, before)  # it was connected in another way before
    again = installed.taken_out(installed.put_in(text, given.new, other), given.new, agent)
    assert again is not None
    assert installed.put_in(again, given.new, entries) == put, "twice is once"
    written_anew = json.dumps(found, indent=2, ensure_ascii=False)  # as an agent does that writes its settings itself
    left = installed.taken_out(written_anew, given.new, agent)
    assert _without_empty(json.loads(left or json.dumps(given.new))) == _without_empty(known)


def _without_empty(found: dict[str, Any]) -> dict[str, Any]:
    """Empty lists of hooks say nothing, and no hooks neither."""
    hooks = {event: entries for event, entries in found.get("hooks", {}).items() if entries}
    return {name: value for name, value in found.items() if name != "hooks"} | ({"hooks": hooks} if hooks else {})


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    "text", ["{}", "{}\n", "{ }", '{"hooks": {}}', '{\n  "hooks": {}\n}\n', '{"version":1}', '{"a":[1, 2]}']
)
def test_a_file_that_was_there_is_as_it_was(home: Path, agent: str, text: str) -> None:
    file = given(home, agent, text)
    for words in ((), ("--ask",)):
        assert run(agent, *words)[0] == 0
        assert installed.connected(json.loads(file.read_text()), agent) == []
    assert run(agent, "--remove")[0] == 0
    assert file.read_text() == text


def test_a_file_that_was_not_there_is_gone_also_behind_a_link(home: Path) -> None:
    real = home / "dotfiles.json"
    file = file_of(home, "claude-code")
    file.parent.mkdir()
    file.symlink_to(real)
    run("claude-code")
    assert real.exists()
    run("claude-code", "--remove")
    assert file.is_symlink()
    assert not real.exists()


def test_what_else_a_person_wrote_meanwhile_stays(home: Path) -> None:
    """In a file that hub has made, and behind its own hooks."""
    file = file_of(home, "claude-code")
    run("claude-code")
    found = json.loads(file.read_text())
    mine = {"hooks": [{"type": "command", "command": "say done"}]}
    found["hooks"]["Stop"].append(mine)
    found["model"] = "opus"
    file.write_text(json.dumps(found, indent=2))
    run("claude-code", "--remove")
    assert json.loads(file.read_text()) == {"hooks": {"Stop": [mine]}, "model": "opus"}


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_what_a_person_changed_of_hubs_own_is_taken_out_too(home: Path, indent: int | None) -> None:
    """A matcher, a time, a command beside it; in a file that was written anew."""
    mine = {"type": "command", "command": "say done"}
    file = file_of(home, "claude-code")
    run("claude-code")
    found = json.loads(file.read_text())
    found["hooks"]["PreToolUse"][0]["matcher"] = "Bash"
    [group] = found["hooks"]["Stop"]
    group["hooks"][0] |= {"timeout": 77, "async": True}
    group["hooks"].append(mine)
    found["model"] = "opus"
    file.write_text(json.dumps(found, indent=indent))
    assert run("claude-code", "--remove")[0] == 0
    assert json.loads(file.read_text()) == {"hooks": {"Stop": [{"hooks": [mine]}]}, "model": "opus"}


def test_what_stays_is_said(home: Path) -> None:
    file = file_of(home, "claude-code")
    run("claude-code")
    found = json.loads(file.read_text())
    found["hooks"]["Stop"][0]["hooks"][0] = {"type": "command", "command": "timeout 5 hub hook claude-code"}
    file.write_text(json.dumps(found, indent=2))
    status, out, _ = run("claude-code", "--remove")
    assert (status, out) == (1, f"claude-code: a command of yours still calls hub for Stop; take it out of {file}.\n")
    assert json.loads(file.read_text()) == {"hooks": {"Stop": found["hooks"]["Stop"]}}


# ---- the hub that is meant


def commands(home: Path, agent: str = "claude-code") -> set[tuple[str, ...]]:
    """What each hook says behind its event."""
    found = json.loads(file_of(home, agent).read_text())["hooks"]
    own = [entry for entries in found.values() for entry in entries]
    words = [installed._words(entry["hooks"][0] if "hooks" in entry else entry) for entry in own]
    return {tuple(word for word in line if word not in settings.COPILOTS)[3:] for line in words}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("words", "variables", "where"),
    [
        ((), {}, ()),
        ((), {"HUB_STATE_DIR": "/srv/a hub"}, ("--state-dir", "/srv/a hub")),
        ((), {"HUB_STATE_DIR": "{home}/.local/state/hub"}, ()),
        ((), {"XDG_STATE_HOME": "/srv"}, ("--state-dir", "/srv/hub")),
        (("--state-dir", "orders"), {"HUB_URL": "localhost:4000"}, ("--state-dir", "{cwd}/orders")),
        ((), {"HUB_URL": "localhost:4000", "HUB_STATE_DIR": "/srv"}, ("--url", "http://localhost:4000")),
        (
            ("--url", "https://h.example", "--token-file", "t", "--ca", "c.pem"),
            {},
            ("--url", "https://h.example", "--token-file", "{cwd}/t", "--ca", "{cwd}/c.pem"),
        ),
    ],
)  # fmt: skip
def test_the_hooks_find_the_hub_that_was_meant(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    agent: str,
    words: tuple[str, ...],
    variables: dict[str, str],
    where: tuple[str, ...],
) -> None:
    """And only where they would not by themselves, is it written; all of it is taken back."""
    monkeypatch.chdir(home)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=home))
    assert run(agent, "--ask", *words)[0] == 0
    wanted = tuple(word.format(cwd=home) for word in where)
    ends = {
        line[-len(wanted) - 2 :] if line[-2:] == ("||", "true") else line[-len(wanted) :]
        for line in commands(home, agent)
    }
    assert not wanted or {end[: len(wanted)] for end in ends} == {wanted}
    assert wanted or not any("--url" in line or "--state-dir" in line for line in commands(home, agent))
    run(agent)  # to the same hub, without a question
    run(agent, "--remove")
    assert not file_of(home, agent).exists()


async def test_a_hook_that_was_written_reaches_that_hub(home: Path, tmp_path: Path) -> None:
    """As the agent starts it: from another folder, with none of the variables."""
    async with hub_process(tmp_path) as hub:
        connect_words = ("claude-code", "--state-dir", str(hub.state_dir))
        assert (await asyncio.to_thread(run, *connect_words))[0] == 0
        [group] = json.loads(file_of(home, "claude-code").read_text())["hooks"]["Stop"]
        [hook] = group["hooks"]
        words = (sys.executable, "-m", "hub", *hook["args"])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=environment(), cwd="/")
        out, _ = await process.communicate(json.dumps(sample("claude-15-stop")).encode())
        assert (process.returncode, out) == (0, b"{}\n")


def test_that_no_hub_is_there_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "x" * 40)
    status, out, err = run("claude-code")
    assert (status, err) == (0, "")
    assert "No hub runs there yet." in out
    assert "--token-file" in out
    assert "x" * 40 not in file_of(home, "claude-code").read_text()


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
    monkeypatch.setattr(connect, "own_command", lambda: [sys.executable, *processes.MODULE])
    for agent in AGENTS:
        run(agent, "--ask")
        assert "old place" not in file_of(home, agent).read_text()
        run(agent, "--remove")
        assert not file_of(home, agent).exists()


def test_hub_is_named_by_a_path_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    program = tmp_path / "bin" / "hub"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "")
    assert processes.own_command() != [str(program)]
    program.chmod(0o755)
    assert processes.own_command() == [str(program)]


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


@pytest.mark.parametrize("agent", AGENTS)
def test_whether_it_asks_is_said(home: Path, tmp_path: Path, agent: str) -> None:
    """By connect, and by doctor; also of what was connected anew without it. Gemini takes no answer."""
    for words in ((), ("--ask",), ()):
        said, asks = run(agent, *words)[1], bool(words) and agent != "gemini"
        assert (", and its permission prompts become questions in hub; they are used" in said) is asks
        assert "they are used by what starts from now on." in said
        text = lines("--state-dir", str(tmp_path / "nothing"))[agent]["text"]
        assert text == f"Connected by {file_of(home, agent)}{', asks here for permissions' if asks else ''}."


def test_doctor_without_a_hub(home: Path, tmp_path: Path) -> None:
    run("claude-code")
    found = lines("--state-dir", str(tmp_path / "nothing"))
    assert found["claude-code"]["text"] == f"Connected by {home}/.claude/settings.json."
    run("claude-code", "--state-dir", "/srv/a hub")
    found = lines("--state-dir", str(tmp_path / "nothing"))
    led = "--state-dir '/srv/a hub'"
    assert found["claude-code"]["text"] == f"Connected by {home}/.claude/settings.json, with {led}."
