"""The command line: its parts as text in and text out, and the whole against a hub in a process of its own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import Outcome, Run, Running, cursor, started, tailing
from running import run_hub
from values import HOSTILE

from hub.cli import following
from hub.cli import main as cli_main
from hub.cli import serve as cli_serve
from hub.client import connections
from hub.client.discovery import Disconnected
from hub.client.sockets import WebSocket
from hub.config import flags
from hub.hub import VERSION

# ---- usage


@pytest.mark.parametrize(
    "words",
    [
        ["--nope"],
        ["nonsense"],
        ["--port", "x"],
        ["--port", "99999"],
        ["serve", "--heartbeat", "0"],
        ["serve", "--keep-seconds", "nan"],
        ["serve", "--audit-keep-seconds", "inf"],
        ["serve", "--auth", "magic"],
        ["publish"],
        ["publish", "--url", "127.0.0.1", "a:b"],
        ["publish", "a:b", "1", "2"],
        ["publish", "a:b", "--ttl", "long"],
        ["publish", "a:b", "--id", ""],
        ["publish", "a:b", "--id", "a\nb"],
        ["ask", "Go?", "--option", "yes", "--key", ""],
        ["ask", "Go?", "--option", "yes", "--key", "ä"],
        ["call", "hub:ping", "--key", "ä"],
        ["tail", "--count", "0"],
        ["tail", "--count", "-1"],
        ["audit"],
        ["audit", "tail", "--limit", "x"],
    ],
)
def test_what_is_not_understood_is_usage(run: Run, words: list[str]) -> None:
    outcome = run(*words)
    assert (outcome.status, outcome.out) == (2, "")
    assert re.fullmatch(r"hub: [^\n]+\.\n", outcome.err)


def test_a_setting_of_the_environment_that_does_not_fit_is_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_PORT", "many")
    outcome = run("serve")
    assert outcome.status == 2
    assert "HUB_PORT" in outcome.err


@pytest.mark.parametrize(
    "words", [["publish", "a:b", "{"], ["publish", "a:b", "NaN"], ["call", "a:b", "word"], ["call", "a:b", "[1]"]]
)
def test_what_is_no_json_is_one_sentence(run: Run, words: list[str]) -> None:
    outcome = run(*words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("hub: ")


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "words", [["call", "a:b", "x" * 90_000], ["publish", "a:b", "a=1", "x" * 90_000], ["tail", "-n", "\0" * 90_000]]
)
def test_what_is_quoted_fills_no_terminal(
    run: Run, words: list[str], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three megabytes of a wrong file on stdin were twelve of its escapes on stderr."""
    if weakened:
        monkeypatch.setattr(cli_main, "LONGEST", 10**9)
    outcome = run(*words)
    assert outcome.status == 2
    assert (len(outcome.err) < 5000) is not weakened
    assert outcome.err.endswith(".\n")  # what to do is not cut off


@pytest.mark.parametrize("words", [[], ["--port", "0"], ["serve", "--demo"]])
def test_without_a_command_the_hub_is_run(words: list[str]) -> None:
    assert cli_main.parser().parse_args(cli_main._with_default(words)).run is cli_serve.run


def test_help_lists_what_there_is(run: Run) -> None:
    outcome = run("--help")
    assert outcome.status == 0
    listed = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("    ")]
    assert listed == cli_main.NAMES
    assert run("help").out == outcome.out


@pytest.mark.parametrize("name", cli_main.NAMES)
def test_each_command_explains_itself(run: Run, name: str) -> None:
    outcome = run("help", name)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: hub {name}")
    assert outcome == run(name, "--help")


def test_each_setting_is_in_the_help_with_its_variable(run: Run) -> None:
    said = run("serve", "--help").out
    for setting in flags():
        assert f"--{setting.name.replace('_', '-')} " in said.replace(",", " ")
        assert f"(HUB_{setting.name.upper()}" in said


NO_PATTERN = "Not a pattern: parts separated by ':', each a name or a single *, at most 128 characters."
CLIENT_COMMANDS = [
    ["publish", "a:b"],
    ["tail"],
    ["call", "hub:ping"],
    ["ask", "Go?", "--option", "yes"],
    ["audit", "tail"],
    ["status"],
]


@pytest.mark.parametrize("words", CLIENT_COMMANDS)
def test_where_nothing_was_started_there_is_no_hub(run: Run, tmp_path: Path, words: list[str]) -> None:
    outcome = run(*words, "--state-dir", str(tmp_path))
    start = f"Start one with: hub --state-dir {tmp_path}"
    assert outcome == Outcome(3, "", f"hub: No hub is running here: there is no {tmp_path}/server.json. {start}\n")


@pytest.mark.parametrize("words", CLIENT_COMMANDS)
def test_where_nobody_answers_there_is_no_hub(run: Run, words: list[str]) -> None:
    with socket.socket() as bound:  # a port that is nobody else's, and refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        outcome = run(*words, "--url", url)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (3, "", 1)
    assert outcome.err.startswith(f"hub: No hub answers at {url} (")


# ---- a hub in a process of its own


def test_the_hub_says_where_it_is(hub: Running) -> None:
    found = json.loads((hub.state / "server.json").read_text())
    assert hub.line.startswith("hub ")
    assert found.keys() == {"url", "pid", "version", "started"}
    assert (found["url"], found["pid"]) == (hub.url, hub.process.pid)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["publsh"], "there is no command 'publsh'; did you mean publish? (see hub --help)."),
        (["xyzzy"], "there is no command 'xyzzy' (see hub --help)."),
        (["--url", "http://x:1", "call"], "Flags stand behind the command: hub call … --url … (see hub --help)."),
        (["tail", "--cout", "5"], "there is no --cout; did you mean --count? Usage: hub tail [PATTERN …] "),
        (["--prot=5"], "there is no --prot; did you mean --port? Usage: hub serve [FLAG …] (--help says more)."),
        (["audit", "tial"], "ACTION must be one of verify, tail, not 'tial'; did you mean tail? Usage: hub audit "),
        (["audit", "verify", "a", "b"], "'b' is one word too many. Usage: hub audit verify [FILE] [--state-dir DIR] "),
        (
            ["tail", "--port", "4803"],
            "--port is a flag of the hub itself; name a running one with --url http://127.0.0.1:4803. ",
        ),
        (
            ["call", "hub:ping", "--port=4803"],
            "--port is a flag of the hub itself; name a running one with --url http://127.0.0.1:4803. ",
        ),
        (["tail", "-n", "-1"], "argument -n: '-1' is not a whole number from 0 to 1000 (--after start gives all). "),
        (["publish", "a:b", "--ttl", "abc"], "argument --ttl: 'abc' is not a number of seconds. Usage: hub publish "),
        (["publish"], "the following arguments are required: EVENT. Usage: hub publish EVENT "),
        (["publish", "a:b", "id:build"], "'id:build' is neither key=value nor JSON; did you mean id=build?"),
        (
            ["publish", "a:b", "id:build", "x=1"],
            "'id:build' is neither key=value nor key:=JSON; did you mean id=build?",
        ),
        (["call", "a:b", "id:build"], "'id:build' is neither key=value nor a JSON object; did you mean id=build?"),
        (["publish", "a:b", "{id:build}"], "This is not JSON: {id:build} ("),
        (["ask", "Go on?", "yes", "no"], "Give each option with --option: hub ask 'Go on?' --option yes --option no\n"),
        (
            ["ask", "Go?", "--url", "h:1"],
            "Give each option with --option: hub ask 'Go?' --option yes --option no --url http://h:1\n",
        ),
        (
            ["ask", "Deploy", "it?", "--option", "yes"],
            "'it?' is one word too many: put the question in quotes. Usage: ",
        ),
        (["ask"], "there is no QUESTION. Usage: hub ask QUESTION --option TEXT … "),
    ],
)
def test_a_mistyped_word_gets_the_nearest_right_one_and_the_usage(run: Run, words: list[str], sentence: str) -> None:
    outcome = run(*words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith(f"hub: {sentence}")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["publish", "task:progress"],
            "task:progress needs data, and there is none: put it behind the name, as id=build, or as JSON.",
        ),
        (
            ["tail", "task*"],
            f"'task*': {NO_PATTERN} Did you mean task:*?",
        ),
        (["tail", "sensor"], "'sensor': No event name has only one part; sensor:* matches all of that domain."),
        (
            ["tail", "a b"],
            f"'a b': {NO_PATTERN}",
        ),
    ],
)
def test_what_the_hub_does_not_take_is_told_with_what_it_does(run: Run, words: list[str], sentence: str) -> None:
    assert run(*words) == Outcome(1, "", f"hub: {sentence}\n")


@pytest.mark.usefixtures("hub")
def test_several_options_in_one_are_asked_about(run: Run) -> None:
    outcome = run("ask", "Quick?", "--option", "yes, no", "--default", "yes, no", "--timeout", "1")
    said = "hub: There is one option, 'yes, no'; did you mean --option yes --option no?\n"
    assert outcome == Outcome(0, "yes, no\n", said)


@pytest.mark.parametrize("words", [["publish", "a:b"], ["status"], ["call", "hub:ping"]])
def test_a_variable_that_is_mistyped_is_told(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the words would go to another hub than was meant."""
    for name in ("HUB_STATEDIR", "HUB_PORT", "HUB_OF_SOMEBODY_ELSE"):  # the second is the hub's own
        monkeypatch.setenv(name, "5")
    outcome = run(*words, "--state-dir", str(tmp_path))
    first, second = outcome.err.splitlines()
    assert first == "hub: HUB_STATEDIR is no setting of the hub; did you mean HUB_STATE_DIR?"
    assert (outcome.status, second[:34]) == (3, "hub: No hub is running here: there")


@pytest.mark.usefixtures("hub")
async def test_what_a_program_says_stays_as_it_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_STATEDIR", "5")
    assert await run_hub(tmp_path, "run", "--", "true") == (0, "", "")  # not in a process that has threads: see Child
    assert run("hook", "claude-code", stdin=b"{}").err == ""


@pytest.mark.parametrize("name", ["ask", "publish", "run", "call"])
def test_the_help_says_what_the_exit_status_means(run: Run, name: str) -> None:
    outcome = run(name, "--help")
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("exit status: ")]
    assert (outcome.status, outcome.err) == (0, "")
    assert line.partition(" ")[2].partition(" ")[2][:2] in ("0 ", "th")


def test_one_help_looks_as_all_others(run: Run) -> None:
    assert "hub --version" in run("--help").out
    audit = run("audit", "--help").out
    assert "\nwords:\n" in audit
    assert "\nflags:\n" in audit
    assert "[--confirm VALUE] [--key KEY] [--json] [--text] " in run("call", "--help").out


def test_the_version_is_the_hubs_own(run: Run) -> None:
    assert run("--version") == Outcome(0, f"hub {VERSION}\n", "")


@pytest.mark.parametrize("url", ["http://h:99999", "http://h:abc", "http://[::1", "", "127.0.0.1"])
@pytest.mark.parametrize("words", CLIENT_COMMANDS)
def test_an_address_that_is_none_is_usage(
    run: Run, words: list[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run(*words, "--url", url)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    if url:
        monkeypatch.setenv("HUB_URL", url)
        outcome = run(*words)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert outcome.err.startswith("hub: HUB_URL: ")


@pytest.mark.parametrize("words", CLIENT_COMMANDS)
def test_a_name_that_no_host_can_have_is_one_sentence(run: Run, words: list[str]) -> None:
    outcome = run(*words, "--url", f"http://{'a' * 64}.example")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (3, "", 1)


def test_hub_url_names_the_hub(hub: Running, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path))
    assert run("call", "hub:ping").status == 3
    monkeypatch.setenv("HUB_URL", hub.url)
    assert run("publish", "cli:here", "1").status == 0
    assert run("publish", "cli:here", "1", "--url", hub.url.removeprefix("http://").rstrip("/")).status == 0
    assert run("tail", "--after", "nobody:1", "--count", "1").status == 0


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["publish", "hub:mine"], "hub:"),
        (["publish", "task:progress", '{"id": "a", "progress": 101}'], "data.progress"),
        (["publish", "oneword"], "event"),
        (["publish", "a:b", json.dumps("x" * 2_000_000)], "bytes at most"),
        (["call", "no:such"], "no:such"),
        (["call", "../../metrics"], "metrics"),
        (["call", "hub:history", "limit=0"], "limit"),
        (["tail", "--after", "nonsense"], "cursor"),
        (["tail", "agent"], "'agent'"),
        (["audit", "tail", "--limit", "100000000"], "limit"),
    ],
)
def test_when_the_hub_says_no_it_is_one_sentence(run: Run, words: list[str], sentence: str) -> None:
    before = cursor(run)
    outcome = run(*words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert outcome.err.startswith("hub: ")
    assert sentence in outcome.err
    assert cursor(run) == before


@pytest.mark.usefixtures("hub")
def test_a_call_prints_its_result(run: Run) -> None:
    outcome = run("call", "hub:ping", "a:=1", "b=text")
    assert outcome == Outcome(0, '{"pong":true,"args":{"a":1,"b":"text"}}\n', "")
    assert json.loads(run("call", "hub:ping", '{"x": "\\u001b"}').out)["args"] == {"x": "\x1b"}


def test_what_was_called_is_in_the_audit_log_and_the_chain_holds(hub: Running, run: Run, tmp_path: Path) -> None:
    run("call", "hub:ping", "mark=here")
    tail = run("audit", "tail", "--limit", "5")
    called = [json.loads(line) for line in tail.out.splitlines()]
    assert len(called) == 5
    assert {"mark": "here"} in [record["details"].get("args") for record in called]
    assert [record["seq"] for record in called] == sorted(record["seq"] for record in called)

    intact = run("audit", "verify")
    assert (intact.status, intact.err) == (0, "")
    assert intact.out.startswith("intact: ")
    copy = shutil.copytree(hub.state, tmp_path / "copy")
    assert run("audit", "verify", str(copy / "audit.jsonl")).status == 0
    text = (copy / "audit.jsonl").read_text()
    (copy / "audit.jsonl").write_text(text.replace('"mark":"here"', '"mark":"lies"'))
    tampered = run("audit", "verify", "--state-dir", str(copy))
    assert tampered.status == 1
    assert tampered.out.startswith("not intact: ")
    assert run("audit", "verify", str(tmp_path / "nothing")).status == 4


@pytest.mark.usefixtures("hub")
def test_a_tail_ends_well_when_interrupted(run: Run) -> None:
    before = cursor(run)
    with tailing("cli:*", "--after", before, "--text") as tail:
        now = run("publish", "cli:said", json.dumps(HOSTILE)).out
        assert tail.stdout is not None
        line = tail.stdout.readline()
        assert line.rstrip("\n").isprintable()
        assert json.loads(line.split(maxsplit=3)[3]) == HOSTILE
        tail.send_signal(signal.SIGINT)
        assert tail.communicate() == ("", f"hub: Go on from here with hub tail 'cli:*' --after {now}")
        assert tail.returncode == 0


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("weakened", [False, True])
def test_a_warning_cannot_drive_the_terminal(
    weakened: bool, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sentence a hub closes with stands in the warning that the stream has broken."""
    monkeypatch.setattr(connections.log, "filters", [])
    if weakened:
        monkeypatch.setattr(following, "_escaped", lambda record: True)
    opened = WebSocket.open

    async def breaks_once(*args: Any) -> WebSocket:
        monkeypatch.setattr(WebSocket, "open", opened)
        raise Disconnected(HOSTILE)

    before = cursor(run)
    run("publish", "cli:said", "1")
    monkeypatch.setattr(connections, "FIRST_DELAY", 0)
    monkeypatch.setattr(WebSocket, "open", breaks_once)
    assert run("tail", "cli:said", "--after", before, "--count", "1").status == 0
    [warning] = caplog.messages
    assert warning.isprintable() is not weakened


@pytest.mark.usefixtures("hub")
def test_a_tail_ends_quietly_when_nobody_reads_it(run: Run) -> None:
    before = cursor(run)
    run("publish", "cli:said", "1")
    with tailing("cli:*", "--after", before) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert '"data":1}' in tail.stdout.readline()
        tail.stdout.close()  # no further event is needed to notice
        assert tail.wait() == 0
        assert tail.stderr.read() == ""


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("words", [["call", "hub:commands"], ["audit", "tail"], ["publish", "a:b"]])
def test_output_that_nobody_reads_is_no_error(words: list[str]) -> None:
    there, here = os.pipe()
    os.close(there)
    command = [sys.executable, "-m", "hub", *words]
    done = subprocess.run(command, stdout=here, stderr=subprocess.PIPE, text=True, check=False)
    os.close(here)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_hub_on_the_same_folder_says_so(hub: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hub", "serve", "--port", "0", "--state-dir", str(hub.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("hub: ")
    assert (hub.state / "server.json").exists()


@pytest.mark.parametrize(
    ("words", "status"), [(["serve", "--port", "0"], 2), (["token", "--new"], 1), (["token", "--read-only"], 1)]
)
def test_a_folder_of_something_else_is_neither_closed_nor_used(tmp_path: Path, words: list[str], status: int) -> None:
    (tmp_path / "mine").touch()
    tmp_path.chmod(0o755)
    command = [sys.executable, "-m", "hub", *words, "--state-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert "name a new or an empty folder" in done.stderr
    assert (tmp_path.stat().st_mode & 0o777, os.listdir(tmp_path)) == (0o755, ["mine"])


@pytest.mark.parametrize("words", [["serve"], *CLIENT_COMMANDS, ["token"], ["audit", "verify"]])
def test_an_empty_state_dir_is_refused(run: Run, words: list[str]) -> None:
    outcome = run(*words, "--state-dir", "")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "--state-dir" in outcome.err


def test_a_relative_state_dir_is_fine(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("token", "--new", "--state-dir", "here").status == 0
    assert (tmp_path / "here" / "token").exists()


def test_a_hub_that_is_stopped_is_gone(tmp_path: Path, run: Run) -> None:
    with started(tmp_path, "--port", "0") as hub:
        assert run("call", "hub:ping", "--state-dir", str(tmp_path)).status == 0
        assert hub.stop() == 0
    assert run("call", "hub:ping", "--state-dir", str(tmp_path)).status == 3
    assert run("audit", "verify", str(tmp_path)).status == 0
