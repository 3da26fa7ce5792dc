"""`hub publish`: what it takes from words and from stdin, against a hub in a process of its own."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest
from commandline import Outcome, Run, cursor

from hub.cli.publish import MOST_TOLD


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
    sentence = "hub: task:progress has no field progres; did you mean progress?\n"
    published = run("publish", "task:progress", "id=a", "progres=60")
    assert (published.status, published.err) == (0, sentence)
    assert run("publish", "--strict", "task:progress", "id=a", "progres=60") == Outcome(1, "", sentence)
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
def test_a_refused_batch_names_its_lines(run: Run) -> None:
    before = cursor(run)
    stdin = b'\n{"id":"a"}\n{"id":5}\n\n[]\n'
    outcome = run("publish", "task:progress", "-", stdin=stdin)
    assert (outcome.status, outcome.err.count("\n")) == (1, 3)
    assert "Line 3: data.id: " in outcome.err
    assert "Line 5: data: " in outcome.err
    assert outcome.out.strip() == cursor(run) != before
