"""`hub run`: nothing of a program is changed, and a hub is told of it, if there is one."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from forks import PIPE, Forked, fork
from running import HubInside, environment, hub_app, hub_process, run_hub, send_signal, until
from terminals import CTRL_C, on_terminal

from hub.stream import liveness

NOWHERE = ("--url", "http://127.0.0.1:9")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub") as running:
        yield running


async def started(*words: str | bytes, before: str = "") -> Forked:
    """`hub run …`, with code that runs before it."""
    texts, env = map(os.fsdecode, words), environment()
    return await fork("run", *texts, env=env, before=before, stdin=PIPE, stdout=PIPE, stderr=PIPE)


def command(*words: str | bytes, before: str = "") -> list[str | bytes]:
    """The same, as an interpreter of its own."""
    return [sys.executable, "-c", f"{before}import sys;from hub.cli.main import main;sys.exit(main())", "run", *words]


async def ran(*words: str | bytes, stdin: bytes = b"", before: str = "") -> tuple[int, bytes, bytes]:
    process = await started(*words, before=before)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out, err


@contextlib.asynccontextmanager
async def running(*words: str, before: str = "") -> AsyncIterator[Forked]:
    process = await started(*words, before=before)
    try:
        yield process
    finally:
        send_signal(process, signal.SIGKILL)
        await process.communicate()


async def reported(hub: HubInside) -> list[dict[str, Any]]:
    """What was told of tasks, in order."""
    events = (await hub.get("api/events", topics="task:progress", limit="1000")).json["events"]
    return [event["payload"]["data"] for event in events]


# ---- what the hub is told


async def test_a_program_is_a_task(hub: HubInside) -> None:
    words = ("--url", hub.url, "--", "sh", "-c", "echo one; read x; echo $x; echo")
    assert await ran(*words, stdin=b"two\n") == (0, b"one\ntwo\n\n", b"")
    first, *_, last = await reported(hub)
    assert {name: first[name] for name in ("id", "name", "status")} == {
        "id": "run:sh",
        "name": "sh",
        "status": "running",
    }
    assert {name: last[name] for name in ("id", "name", "status")} == {
        "id": "run:sh",
        "name": "sh",
        "status": "succeeded",
    }
    assert (last["message"], last["started_at"]) == ("two", first["started_at"])
    assert last["ended_at"] >= last["started_at"]
    assert isinstance(last["duration_ms"], int)
    assert "error" not in last


async def test_what_it_says_last_tells_why_it_failed(hub: HubInside) -> None:
    script = "echo compiling; echo 'make: *** [all] Error 1' >&2; exit 2"
    words = ("--name", "make", "--url", hub.url, "--", "sh", "-c", script)
    assert await ran(*words) == (2, b"compiling\n", b"make: *** [all] Error 1\n")
    last = (await reported(hub))[-1]
    assert (last["error"], last["message"]) == ("exit status 2", "make: *** [all] Error 1")


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("exit 3", 3, "exit status 3"),
        ("exit 255", 255, "exit status 255"),
        ("kill -TERM $$", 143, "signal 15 (SIGTERM)"),
        ("kill -KILL $$", 137, "signal 9 (SIGKILL)"),
        ("kill -INT $$", 130, "signal 2 (SIGINT)"),
        ("kill -40 $$", 168, "signal 40"),
    ],
)
async def test_how_it_fails_is_its_own(script: str, status: int, error: str, hub: HubInside) -> None:
    assert await ran("--name", "job", "--url", hub.url, "--", "sh", "-c", script) == (status, b"", b"")
    last = (await reported(hub))[-1]
    assert (last["id"], last["status"], last["error"]) == ("run:job", "failed", error)


@pytest.mark.parametrize(
    ("program", "status", "sentence"),
    [
        ("no such", 127, "There is no program 'no such'. To have a shell run it: sh -c 'no such'"),
        ("/no/such", 127, "There is no program /no/such."),
        ("/etc/passwd", 126, "/etc/passwd cannot be run (Permission denied)."),
    ],
)
async def test_what_cannot_be_run_is_one_sentence(program: str, status: int, sentence: str, hub: HubInside) -> None:
    assert await ran("--url", hub.url, "--", program) == (status, b"", f"hub: {sentence}\n".encode())
    last = (await reported(hub))[-1]
    assert (last["status"], last["error"], last["message"]) == ("failed", f"exit status {status}", sentence)


async def test_it_runs_on_while_its_messages_are_told(hub: HubInside) -> None:
    async with running("--url", hub.url, "--", "sh", "-c", "while read x; do echo $x; done") as process:
        assert process.stdin
        for line in ("first", "second"):
            process.stdin.write(f"{line}\n".encode())
            while (await reported(hub) or [{}])[-1].get("message") != line:
                await asyncio.sleep(0.01)
        process.stdin.close()
        assert await process.wait() == 0
    assert [task["status"] for task in await reported(hub)] == ["running"] * (len(await reported(hub)) - 1) + [
        "succeeded"
    ]


async def test_a_lease_lasts_as_long_as_it_runs(hub: HubInside) -> None:
    async with running("--ttl", "3", "--url", hub.url, "--", "cat") as process:
        while len(await reported(hub)) < 4:  # without a word from the program
            await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        send_signal(process, signal.SIGKILL)
        assert (await becomes(hub, "run:cat", "failed"))["error"] == "process ended"
        assert asyncio.get_running_loop().time() - began < 1, "the kernel says so"
        await until(lambda: hub.hub.state.is_stale("task:progress", "run:cat"), "that nobody has heard of it")
    found = (await hub.get("api/events", topics="hub:stale")).json["events"]
    assert [event["payload"]["data"]["key"] for event in found] == ["run:cat"]


async def last_of(hub: HubInside, id: str) -> dict[str, Any]:
    return next((task for task in reversed(await reported(hub)) if task["id"] == id), {})


async def becomes(hub: HubInside, id: str, status: str) -> dict[str, Any]:
    while (found := await last_of(hub, id)).get("status") != status:
        await asyncio.sleep(0.01)
    return found


async def test_one_that_is_killed_has_failed(hub: HubInside) -> None:
    async with running("--url", hub.url, "--", "cat") as process:
        await becomes(hub, "run:cat", "running")
        began = asyncio.get_running_loop().time()
        send_signal(process, signal.SIGKILL)
        assert (await becomes(hub, "run:cat", "failed"))["error"] == "process ended"
        assert asyncio.get_running_loop().time() - began < 1


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_one_that_is_killed_before_the_hub_has_looked_has_failed(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has said of which machine its number is, so that is believed of a process that nobody has seen alive."""
    monkeypatch.setattr(liveness, "is_new", lambda pid: False)
    accept = hub.hub.accept
    async with running("--url", hub.url, "--", "cat") as process:

        async def late(records: Any, uid: int | None, *, many: bool, machine: str) -> Any:
            send_signal(process, signal.SIGKILL)
            await process.wait()
            return await accept(records, uid, many=many, machine="" if weakened else machine)

        monkeypatch.setattr(hub.hub, "accept", late)
        await becomes(hub, "run:cat", "running" if weakened else "failed")
        assert len(hub.hub.liveness) == 0 or not weakened


async def test_weakened_without_a_watch_it_would_run_for_good(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_own", lambda pid: None)
    async with running("--url", hub.url, "--", "cat") as process:
        await becomes(hub, "run:cat", "running")
        send_signal(process, signal.SIGKILL)
        await process.wait()
        assert len(hub.hub.liveness) == 0
        assert (await last_of(hub, "run:cat"))["status"] == "running"


async def test_one_that_is_killed_while_the_hub_is_down_has_failed(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack, hub_app(tmp_path) as hub:
        process = await stack.enter_async_context(running("--url", hub.url, "--", "cat"))
        await becomes(hub, "run:cat", "running")
    async with hub_app(tmp_path) as hub:
        assert (await becomes(hub, "run:cat", "failed"))["error"] == "process ended"
    assert process.returncode == -signal.SIGKILL


async def two_at_once(hub: HubInside, before: str = "") -> list[dict[str, Any]]:
    """The first runs on; the second fails, and then the first succeeds. What was told of them, in order."""
    words = ("--url", hub.url, "--", "sh", "-c")
    async with running(*words, "read x; exit 0") as first:
        await becomes(hub, "run:sh", "running")
        assert (await ran(*words, "exit 3", before=before))[0] == 3
        assert first.stdin
        first.stdin.write(b"\n")
        assert await first.wait() == 0
    return await reported(hub)


async def test_two_of_one_name_at_once_are_two_tasks(hub: HubInside) -> None:
    told = await two_at_once(hub)
    ends = [(task["id"], task["name"], task["status"]) for task in told if task["status"] != "running"]
    assert ends == [("run:sh-2", "sh-2", "failed"), ("run:sh", "sh", "succeeded")]
    assert (await ran("--url", hub.url, "--", "sh", "-c", "exit 4"))[0] == 4
    assert (await reported(hub))[-1]["id"] == "run:sh"  # it is free again


async def test_weakened_the_end_of_one_would_hide_the_other(hub: HubInside) -> None:
    told = await two_at_once(hub, "import hub.cli.distinct as d;d.MOST=1;")
    assert {task["id"] for task in told} == {"run:sh"}
    assert told[-1]["status"] == "succeeded"


async def test_a_killed_one_keeps_no_name(hub: HubInside) -> None:
    async with running("--name", "job", "--url", hub.url, "--", "cat") as process:
        await becomes(hub, "run:job", "running")
        send_signal(process, signal.SIGKILL)
        await process.communicate()
    assert await ran("--name", "job", "--url", hub.url, "--", "true") == (0, b"", b"")
    assert (await reported(hub))[-1]["id"] == "run:job"


async def test_another_hub_has_names_of_its_own(hub: HubInside) -> None:
    async with running(*NOWHERE, "--", "sh", "-c", "echo; read x") as elsewhere:
        assert elsewhere.stdout
        await elsewhere.stdout.readline()
        await ran("--url", hub.url, "--", "sh", "-c", "exit 0")
    assert {task["id"] for task in await reported(hub)} == {"run:sh"}


# ---- what the program and its readers see


async def test_bytes_are_passed_on_as_they_are() -> None:
    data = random.Random(1).randbytes(3_000_000)
    assert await ran(*NOWHERE, "--", "cat", stdin=data) == (0, data, b"")
    assert await ran(*NOWHERE, "--", "sh", "-c", "cat >&2", stdin=data) == (0, b"", data)


async def test_it_is_passed_on_at_once() -> None:
    async with running(*NOWHERE, "--", "sh", "-c", "printf 'name? '; read x; printf \"hello $x\"") as process:
        assert process.stdin
        assert process.stdout
        assert await process.stdout.readexactly(6) == b"name? "
        process.stdin.write(b"Ada\n")
        assert await process.stdout.read() == b"hello Ada"


def test_stdout_and_stderr_in_one_keep_their_order(tmp_path: Path) -> None:
    script = "for i in $(seq 200); do echo $i; echo $i >&2; done"
    done = subprocess.run(
        command(*NOWHERE, "--", "sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
    )
    assert done.stdout.split() == [b"%d" % (n // 2) for n in range(2, 402)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
async def test_a_signal_is_handed_on(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.02; done"
    async with running(*NOWHERE, "--", "sh", "-c", script) as process:
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        send_signal(process, number)
        assert (await process.stdout.read(), await process.wait()) == (b"got\n", 7)


COUNTING = """
import os, signal, sys
count = 0
def more(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, more)
print('ready', flush=True)
sys.stdin.readline()
print(count, 'times', os.isatty(0), os.isatty(1), os.isatty(2))
"""


async def test_on_a_terminal_the_program_has_the_terminal(hub: HubInside, tmp_path: Path) -> None:
    words = ("run", "--name", "t", "--url", hub.url, "--", sys.executable, "-c", COUNTING)
    async with on_terminal(tmp_path, *words) as shown:
        await shown.shows("ready")
        shown.press(CTRL_C)
        await shown.shows("^C")
        shown.press(b"\n")
        status, text = await shown.ended()
    assert (status, text.splitlines()[-1]) == (0, "1 times True True True")
    assert (await reported(hub))[-1]["status"] == "succeeded"


@pytest.mark.parametrize("script", ["exec sleep 60", "trap 'exit 130' INT; while :; do sleep 0.05; done"])
async def test_what_its_own_person_ends_by_a_key_has_not_failed(hub: HubInside, tmp_path: Path, script: str) -> None:
    words = ("run", "--name", "t", "--url", hub.url, "--", "sh", "-c", f"echo ready; {script}")
    async with on_terminal(tmp_path, *words) as shown:
        await shown.shows("ready")
        shown.press(CTRL_C)
        status, _ = await shown.ended()
    assert status == 130, "a shell is told as ever"
    last = (await reported(hub))[-1]
    assert (last["status"], last["message"]) == ("cancelled", "interrupted")
    assert "error" not in last


async def test_arguments_are_the_programs(hub: HubInside) -> None:
    words = [b"-n", b"--json", b"--", b"\xff\xfe", b"", b"--help"]
    for flags in ((*NOWHERE, "--"), NOWHERE):
        given = [word for word in words if word.isascii() or "--" in flags]
        assert await ran(*flags, "printf", "%s\\n", *given) == (0, b"\n".join([*given, b""]), b"")
    assert (await ran("--url", hub.url, "--", b"/no/\xff\x1b"))[0] == 127
    assert (await reported(hub))[-1]["id"] == "run:��"


@pytest.mark.parametrize("weakened", [False, True])
def test_the_program_inherits_what_a_program_has(weakened: bool) -> None:
    """Neither blocked nor ignored signals (the C library keeps two for itself, 32 and 33), nor open files of ours."""
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"
    before = "from hub.cli import child;child.IGNORED=[];" if weakened else ""
    words = command(*NOWHERE, "--", "sh", "-c", script, before=before)
    done = subprocess.run(words, stdin=subprocess.PIPE, capture_output=True, env=environment(), check=True)
    blocked, ignored, files = (line.split()[-1] for line in done.stdout.splitlines())
    assert (int(blocked, 16), bool(int(ignored, 16) % 2**31), int(files)) == (0, weakened, 4)


async def test_a_script_without_a_first_line_is_run_as_a_shell_does(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $0 $1; exit 4\n")
    script.chmod(0o755)
    assert await ran(*NOWHERE, "--", str(script), "x") == (4, f"{script} x\n".encode(), b"")


async def test_what_it_leaves_in_the_background_may_write_on(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with running(*NOWHERE, "--", "sh", "-c", f"(read x < {fifo}; echo $x) & echo early") as process:
        assert process.stdout
        assert await process.stdout.readline() == b"early\n"
        await until(lambda: process.returncode == 0, "that it ends")
        await asyncio.to_thread(fifo.write_text, "late\n")
        assert await process.stdout.read() == b"late\n"


# ---- whatever stdout is


def test_who_has_read_enough_ends_it_as_without_us() -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            '("$@"; echo $? >&2) | head -1',
            "sh",
            *command(*NOWHERE, "--", "sh", "-c", "echo y; sleep 0.1; yes"),
        ],
        capture_output=True,
        env=environment(),
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"141\n")


@pytest.mark.parametrize(
    "redirected", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", ">/dev/null"]
)
@pytest.mark.parametrize("where", ["here", "nowhere"])
async def test_closed_and_full_streams_change_no_status(redirected: str, where: str, hub: HubInside) -> None:
    """`exit 5` behind a write that fails or not, as the shell that writes has it."""
    url = hub.url if where == "here" else NOWHERE[1]
    words = command("--name", "job", "--url", url, "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {redirected}', "sh", *words), env=environment(), stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (5, False)
    if where == "here":
        assert (await reported(hub))[-1]["error"] == "exit status 5"


def test_a_full_disk_does_not_end_it(tmp_path: Path) -> None:
    """A file that cannot grow, which the program would not have been told of by a signal either."""
    limit = "import resource,signal;resource.setrlimit(resource.RLIMIT_FSIZE,(4096,4096));"
    words = command(*NOWHERE, "--", "sh", "-c", "seq 5000; exit 6", before=limit)
    with (tmp_path / "file").open("wb") as file:
        done = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, env=environment())
    assert (done.returncode, done.stderr) == (6, b"hub: The output could not be written (File too large).\n")
    assert (tmp_path / "file").stat().st_size == 4096


# ---- whatever the hub is


async def test_without_a_hub_nothing_is_said(tmp_path: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": environment()["PYTHONPATH"]}
    for flags in (NOWHERE, ("--state-dir", str(tmp_path)), (), ("--url", "http://no.such.invalid")):
        process = await asyncio.create_subprocess_exec(
            *command(*flags, "--", "sh", "-c", "echo x; exit 9"), env=bare, stdout=-1, stderr=-1, cwd=tmp_path
        )
        assert (*await process.communicate(), process.returncode) == (b"x\n", b"", 9)


async def test_on_a_terminal_who_has_told_nobody_is_told(hub: HubInside, tmp_path: Path) -> None:
    for url, said in ((hub.url, ""), (NOWHERE[1], "hub: No hub knows how this has ended. No hub answers at http")):
        async with on_terminal(tmp_path, "run", "--url", url, "--", "sh", "-c", "echo x; exit 9") as shown:
            status, text = await shown.ended()
        first, *more = text.splitlines()
        assert (status, first, len(more)) == (9, "x", bool(said))
        assert "".join(more).startswith(said)


async def test_a_hub_that_accepts_and_is_silent_holds_up_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with running("--url", url, "--", "cat") as process:
            assert process.stdin
            assert process.stdout
            for n in range(1000):
                process.stdin.write(b"%d\n" % n)
                assert await process.stdout.readline() == b"%d\n" % n
            process.stdin.close()
            assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_a_hub_that_ends_in_the_middle_changes_nothing(number: signal.Signals, tmp_path: Path) -> None:
    status = 0 if number == signal.SIGTERM else -signal.SIGKILL
    async with hub_process(tmp_path, status=status) as hub:
        words = ("--url", hub.url, "--state-dir", str(hub.state_dir))
        async with running(*words, "--", "sh", "-c", "echo a; read x; echo b; exit 8") as process:
            assert process.stdin
            assert process.stdout
            assert await process.stdout.readline() == b"a\n"
            hub.signal(number)
            if number != signal.SIGSTOP:
                await hub.ended()
            process.stdin.write(b"\n")
            assert await process.communicate() == (b"b\n", b"")
            assert process.returncode == 8
        hub.signal(signal.SIGKILL)


async def test_a_hub_that_comes_back_is_told(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    async with running(*state, "--", "cat") as process, hub_process(tmp_path):
        assert process.stdin
        process.stdin.write(b"here\n")

        async def told() -> list[dict[str, Any]]:
            _, out, _ = await run_hub(tmp_path, "call", "hub:state", *state)
            return [item["data"] for item in json.loads(out)["items"]]

        while not (found := await told()) or "message" not in found[0]:
            await asyncio.sleep(0.05)
        assert (found[0]["status"], found[0]["message"]) == ("running", "here")
        process.stdin.close()
        await process.wait()
        assert (await told())[0]["status"] == "succeeded"


# ---- usage


SENSELESS = [
    [],
    ["--"],
    ["--name", "x"],
    ["--name", "", "--", "true"],
    ["--name", "a\nb", "--", "true"],
    ["--name", "x" * 101, "--", "true"],
    ["--nme", "x", "--", "true"],
    ["--ttl", "0", "--", "true"],
    ["--ttl", "x", "--", "true"],
]


@pytest.mark.parametrize("words", SENSELESS)
async def test_what_makes_no_sense_runs_nothing(words: Sequence[str]) -> None:
    status, out, err = await ran(*words)
    assert (status, out, err.count(b"\n")) == (2, b"", 1)
    assert err.startswith(b"hub: ")
