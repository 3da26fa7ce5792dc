"""The command line: its parts as text in and text out, and the whole against a hub in a process of its own."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from values import HOSTILE

from hub.cli import following
from hub.cli import main as cli_main
from hub.cli import serve as cli_serve
from hub.cli.main import main
from hub.cli.publish import MOST_TOLD
from hub.client import connections
from hub.client.client import HubClient
from hub.client.discovery import Disconnected
from hub.client.items import Gap, Received
from hub.client.sockets import WebSocket
from hub.config import flags
from hub.errors import HubError
from hub.hub import VERSION

# ---- usage


@dataclass
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line in this process, with `stdin` as its input."""

    def run(*words: str, stdin: bytes = b"") -> Outcome:
        with _as_stdin(stdin):
            status = main(words)
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run


@contextlib.contextmanager
def _as_stdin(data: bytes) -> Iterator[None]:
    """Descriptor 0 is a file that gives `data` and then ends; without any it leads nowhere."""
    kept = os.dup(0)
    file = os.memfd_create("stdin") if data else os.open(os.devnull, os.O_RDONLY)
    if data:
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


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
    assert outcome == Outcome(
        3, "", f"hub: No hub is running here: there is no {tmp_path}/server.json. Start one with: hub\n"
    )


@pytest.mark.parametrize("words", CLIENT_COMMANDS)
def test_where_nobody_answers_there_is_no_hub(run: Run, words: list[str]) -> None:
    with socket.socket() as bound:  # a port that is nobody else's, and refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        outcome = run(*words, "--url", url)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (3, "", 1)
    assert outcome.err.startswith(f"hub: No hub answers at {url} (")


# ---- a hub in a process of its own


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    line: str
    state: Path

    @property
    def url(self) -> str:
        return self.line.split()[-1]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()


@contextlib.contextmanager
def started(state: Path, *words: str) -> Iterator[Running]:
    """A hub that listens; it is stopped if the test has not done so."""
    command = [sys.executable, "-m", "hub", "--state-dir", str(state), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Running(process, process.stdout.readline(), state)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def _module_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("hub"), "--port", "0") as running:
        yield running


@pytest.fixture
def hub(_module_hub: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A running hub that the command line finds."""
    monkeypatch.setenv("HUB_STATE_DIR", str(_module_hub.state))
    return _module_hub


def cursor(run: Run) -> str:
    """Where the hub is now."""
    return str(json.loads(run("call", "hub:info").out)["cursor"])


@contextlib.contextmanager
def tailing(*words: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-W", "error", "-m", "hub", "tail", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_hub_says_where_it_is(hub: Running) -> None:
    found = json.loads((hub.state / "server.json").read_text())
    assert hub.line.startswith("hub ")
    assert found.keys() == {"url", "pid", "version", "started"}
    assert (found["url"], found["pid"]) == (hub.url, hub.process.pid)


@pytest.mark.usefixtures("hub")
def test_what_is_published_is_in_the_tail(run: Run) -> None:
    before = cursor(run)
    published = run("publish", "cli:said", '{"text": "hé"}', "--id", "first")
    assert (published.status, published.err) == (0, "")
    again = run("publish", "cli:said", '{"text": "hé"}', "--id", "first")
    assert again == published  # an id is kept once, and has one cursor
    run("publish", "other:said")
    run("publish", "cli:said", "[1,2]")
    tail = run("tail", "cli:*", "--after", before, "--count", "2", "--text")
    assert (tail.status, tail.err) == (0, "")
    assert [line.split(maxsplit=2)[2] for line in tail.out.splitlines()] == [
        'cli:said                      {"text":"hé"}',
        "cli:said                      [1,2]",
    ]
    first, _ = (
        json.loads(line) for line in run("tail", "cli:*", "--after", before, "--count", "2", "--json").out.splitlines()
    )
    assert (first["id"], first["cursor"] + "\n") == ("first", published.out)
    assert first["payload"] == {"event": "cli:said", "data": {"text": "hé"}}


@pytest.mark.usefixtures("hub")
def test_a_ttl_makes_a_state_go_stale(run: Run) -> None:
    before = cursor(run)
    run("publish", "agent:status_change", '{"id": "cli", "status": "active"}', "--ttl", "0.05")
    tail = run("tail", "hub:stale", "--after", before, "--count", "1", "--json")
    seq = int(before.rpartition(":")[2]) + 1
    assert json.loads(tail.out)["payload"]["data"] == {"event": "agent:status_change", "key": "cli", "seq": seq}


@pytest.mark.usefixtures("hub")
def test_lines_on_stdin_are_events_in_order(run: Run) -> None:
    before, count = cursor(run), 2500
    published = run("publish", "cli:line", "-", stdin=b"".join(b"%d\n" % n for n in range(count)))
    assert (published.status, published.err) == (0, "")
    tail = run("tail", "cli:line", "--after", before, "--count", str(count), "--json")
    lines = [json.loads(line) for line in tail.out.splitlines()]
    assert [line["payload"]["data"] for line in lines] == list(range(count))
    assert lines[-1]["cursor"] + "\n" == published.out


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("good", "bad"), [(b'{"id":"a"}', b"5"), (b'{"id":"a"}', b"nope")])
def test_a_bad_line_is_told_and_the_others_are_published(run: Run, good: bytes, bad: bytes) -> None:
    before, lines = cursor(run), [good] * 2500
    lines[1999] = bad
    published = run("publish", "task:progress", "-", stdin=b"\n".join(lines))
    why, end = published.err.splitlines()
    assert "line 2000" in why.lower()
    assert (published.status, end) == (1, "hub: 1 line was not published.")
    tail = run("tail", "--after", before, "--count", "2499", "--json")
    assert tail.out.splitlines()[-1].count(f'"cursor":"{published.out.strip()}"') == 1
    assert published.out.strip() == cursor(run)


@pytest.mark.usefixtures("hub")
def test_of_many_bad_lines_the_first_are_told_and_all_are_counted(run: Run) -> None:
    before = cursor(run)
    published = run("publish", "task:progress", "-", stdin=b'{"id":"a"}\nx\n5\n' * 150)
    lines = published.err.splitlines()
    assert (published.status, len(lines), lines[-1]) == (1, MOST_TOLD + 1, "hub: 300 lines were not published.")
    assert len(run("tail", "--after", before, "--count", "150", "--json").out.splitlines()) == 150
    assert published.out.strip() == cursor(run)


@pytest.mark.usefixtures("hub")
def test_a_name_that_fits_no_line_is_told_once(run: Run) -> None:
    for name, sent in (("oneword", b"1\n2\n"), ("oneword", b"1"), ("hub:own", b"1\n2\n")):
        published = run("publish", name, "-", stdin=sent)
        assert (published.status, published.out, published.err.count("\n")) == (1, "", 1)
        assert "event: " in published.err or "hub:" in published.err.removeprefix("hub:")


@pytest.mark.usefixtures("hub")
def test_without_a_pipe_there_is_an_event_without_data(run: Run) -> None:
    before, command = cursor(run), [sys.executable, "-m", "hub", "publish", "cli:bare"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    tail = run("tail", "cli:bare", "--after", before, "--count", "1", "--json")
    assert json.loads(tail.out)["payload"]["data"] is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("sent", [b"", b"\n \n"])
def test_an_empty_pipe_publishes_nothing(run: Run, sent: bytes) -> None:
    before = cursor(run)
    published = subprocess.run(
        [sys.executable, "-m", "hub", "publish", "cli:piped"], input=sent, capture_output=True, check=False
    )
    sentence = b"hub: There is nothing on stdin to publish.\n"
    assert (published.returncode, published.stdout, published.stderr) == (2, b"", sentence)
    assert cursor(run) == before


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("words", "sent", "data"),
    [
        (["publish", "cli:piped"], b'{"n": 1}', [{"n": 1}]),
        (["publish", "cli:piped"], b"1\n2\n", [1, 2]),
        (["publish", "cli:piped", "5"], b"1", [5]),
    ],
)
def test_a_pipe_is_read_where_no_data_is_given(run: Run, words: list[str], sent: bytes, data: list[Any]) -> None:
    before = cursor(run)
    command = [sys.executable, "-m", "hub", *words]
    assert subprocess.run(command, input=sent, capture_output=True, check=True).stderr == b""
    tail = run("tail", "cli:piped", "--after", before, "--count", str(len(data)), "--json")
    assert [json.loads(line)["payload"]["data"] for line in tail.out.splitlines()] == data


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("sent", "data"), [(b'{"n": 1}', {"n": 1}), (b"", None), (None, None)])
def test_a_socket_is_read_once_something_comes(run: Run, sent: bytes | None, data: Any) -> None:
    """Node gives one to each child, and closes most of them only when it ends itself."""
    before = cursor(run)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if sent is not None:
            ours.sendall(sent)
            ours.shutdown(socket.SHUT_WR)
        command = [sys.executable, "-m", "hub", "publish", "cli:piped"]
        subprocess.run(command, stdin=theirs.fileno(), capture_output=True, check=True)
    (line,) = run("tail", "cli:piped", "--after", before, "--count", "1", "--json").out.splitlines()
    assert json.loads(line)["payload"]["data"] == data


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
        (["ask"], "the following arguments are required: QUESTION, --option. Usage: hub ask QUESTION --option TEXT "),
    ],
)
def test_a_mistyped_word_gets_the_nearest_right_one_and_the_usage(run: Run, words: list[str], sentence: str) -> None:
    outcome = run(*words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith(f"hub: {sentence}")


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
def test_fields_of_a_known_event_are_what_its_schema_says(run: Run) -> None:
    before = cursor(run)
    assert run("publish", "task:progress", "id=5", "progress=40", "message=null", 'error:="x"').status == 0
    assert run("publish", "cli:own", "--id", "own-1", "progress=40", "more:=[1]", "text=a=b").status == 0
    tail = run("tail", "--after", before, "--count", "2", "--json")
    assert [json.loads(line)["payload"]["data"] for line in tail.out.splitlines()] == [
        {"id": "5", "progress": 40, "message": "null", "error": "x"},
        {"progress": "40", "more": [1], "text": "a=b"},
    ]


@pytest.mark.usefixtures("hub")
def test_a_mistyped_event_is_published_all_the_same(run: Run) -> None:
    sentence = "hub: Nobody knows task:progres; did you mean task:progress?\n"
    before = cursor(run)
    strict = run("publish", "--strict", "task:progres", "1")
    assert strict == Outcome(1, "", sentence)
    assert cursor(run) == before
    published = run("publish", "task:progres", "-", stdin=b"1\n2\n")
    assert (published.status, published.err) == (0, sentence)
    assert published.out.strip() == cursor(run)
    refused = run("publish", "task:progres", "1", "--ttl", "-1")
    assert (refused.status, refused.err.count("\n")) == (1, 1)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("words", "is_meant"),
    [
        (["task:progress", "id=a", "ttl:=3"], True),
        (["task:progress", "id=a", "ttl=3"], True),
        (["task:progress", "id=a", "ttl=3", "--ttl", "3"], False),
        (["dns:record", "ttl=3"], False),
        (["task:progress", '{"id": "a", "ttl": 3}'], False),
        (["task:progress", "id=a"], False),
    ],
)
def test_a_flag_that_stands_in_the_data_is_asked_about(run: Run, words: list[str], is_meant: bool) -> None:
    published = run("publish", *words)
    question = "hub: ttl stands in the data now, where it means nothing; did you mean --ttl 3?\n"
    assert (published.status, published.err) == (0, question if is_meant else "")


@pytest.mark.usefixtures("hub")
@pytest.mark.usefixtures("hub")
def test_a_file_is_read_without_being_named(run: Run) -> None:
    before = cursor(run)
    assert run("publish", "cli:file", stdin=b'{"n": 1}').status == 0
    assert run("publish", "cli:file").status == 0  # nothing is there to be read
    tail = run("tail", "cli:file", "--after", before, "--count", "2", "--json")
    assert [json.loads(line)["payload"]["data"] for line in tail.out.splitlines()] == [{"n": 1}, None]
    assert json.loads(run("call", "hub:ping", stdin=b'{"n": 1}').out)["args"] == {"n": 1}


@pytest.mark.usefixtures("hub")
def test_an_empty_stdin_is_a_mistake(run: Run) -> None:
    assert run("publish", "a:b", "-") == Outcome(2, "", "hub: There is nothing on stdin to publish.\n")


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
def test_a_refused_batch_names_its_lines(run: Run) -> None:
    before = cursor(run)
    stdin = b'\n{"id":"a"}\n{"id":5}\n\n[]\n'
    outcome = run("publish", "task:progress", "-", stdin=stdin)
    assert (outcome.status, outcome.err.count("\n")) == (1, 3)
    assert "Line 3: data.id: " in outcome.err
    assert "Line 5: data: " in outcome.err
    assert outcome.out.strip() == cursor(run) != before


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


# ---- HubClient against the same hub


async def test_a_client_follows_calls_and_publishes(hub: Running) -> None:
    async with HubClient(topics=["client:*"]) as client:
        published = await client.publish("client:said", {"n": 1}, id="client-1")
        assert await client.publish("client:said", {"n": 1}, id="client-1") == published
        item = await anext(client)
        assert isinstance(item, Received)
        assert (item.name, item.data, item.id, item.cursor) == (
            "client:said",
            {"n": 1},
            "client-1",
            published["cursor"],
        )
        assert await client.call("hub:ping", {"x": 1}) == {"pong": True, "args": {"x": 1}}
        with pytest.raises(HubError) as caught:
            await client.call("no:such")
        assert caught.value.code == "unknown_command"
        answers = await asyncio.gather(*[client.call("hub:ping", {"n": n}) for n in range(100)])
        assert [answer["args"]["n"] for answer in answers] == list(range(100))


async def test_a_client_lives_through_a_restart_of_the_hub(tmp_path: Path) -> None:
    async def until(client: HubClient, last: str) -> list[str]:
        seen = []
        async for item in client:
            if isinstance(item, Received):
                seen.append(item.data)
                if item.data == last:
                    break
        return seen

    with started(tmp_path, "--port", "0") as first:
        async with HubClient(state_dir=tmp_path, topics=["client:*"]) as client:
            await client.publish("client:said", "one")
            assert await until(client, "one") == ["one"]
            assert await asyncio.to_thread(first.stop) == 0
            with started(tmp_path, "--port", "0"):
                await client.publish("client:said", "two")
                assert await until(client, "two") == ["two"]


async def test_a_client_behind_the_window_is_told_what_it_misses(hub: Running) -> None:
    async with HubClient(after="nobody:5", topics=["client:*"]) as client:
        gap = await anext(client)
        assert isinstance(gap, Gap)
        assert (gap.after, gap.count, gap.reason) == ("nobody:5", None, "epoch")
