"""`hub hook`, as agents run it: a process with JSON on stdin, whose exit status is 0 whatever happens."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from running import HubInside, environment, hub_app, hub_process, until
from samples import EXPECTED, HOOKS, adapter_of, is_within, sample
from terminals import on_terminal

from hub.adapters.senders import SILENT
from hub.processes import age, machine, process, program

STOP = json.dumps(sample("claude-15-stop")).encode()
PERMISSION = json.dumps(sample("claude-05-permission-request")).encode()


class Done(NamedTuple):
    status: int | None
    out: bytes
    err: bytes
    seconds: float


async def hooked(url: str, *words: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
    """Run `hub hook …` with this on stdin."""
    pipe, began = asyncio.subprocess.PIPE, time.monotonic()
    command = (sys.executable, "-m", "hub", "hook", *words, *(("--url", url) if url else ()))
    env = environment() | dict(environ or {})
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd="/")
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    return Done(process.returncode, out, err, time.monotonic() - began)


def is_silent(done: Done) -> bool:
    return done[:3] == (0, b"", b"")


async def told(hub: HubInside, after: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in (await hub.get("api/events", after=after, limit="1000")).json["events"]]


async def test_each_sample_becomes_its_events(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        for name in HOOKS:
            before, body, adapter = str(hub.hub.cursor), sample(name), adapter_of(name)
            if "_request" in body or adapter == "systemd":
                continue
            done = await hooked(hub.url, adapter, stdin=json.dumps(body).encode())
            assert (done.status, done.err) == (0, b""), name
            assert done.out == (b"" if adapter in SILENT else b"{}\n"), name
            found = await told(hub, before)
            wanted = [
                want for want in EXPECTED[name] if want["data"].get("status") not in ("running", "waiting_approval")
            ]
            assert all(any(is_within(want, each) for each in found) for want in wanted), (name, found)


async def test_an_event_and_a_body_as_words(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        body = json.dumps({"sessionId": "s", "cwd": "/x", "reason": "complete"}).encode()
        await hooked(hub.url, "copilot", "sessionEnd", stdin=body)
        agent = hub.hub.state.get("agent:status_change", "copilot:s")
        assert agent is not None
        assert agent.data["status"] == "stopped"
        notified = {"type": "agent-turn-complete", "thread-id": "t", "turn-id": "u", "input-messages": ["Hi"]}
        assert is_silent(await hooked(hub.url, "codex", json.dumps(notified)))
        task = hub.hub.state.get("task:progress", "codex:t/u")
        assert task is not None
        assert task.data["name"] == "Hi"


async def test_a_unit_that_has_failed(tmp_path: Path) -> None:
    given = sample("systemd-onfailure-env")
    async with hub_app(tmp_path) as hub:
        assert (await hooked(hub.url, "systemd", *given["argv"], environ=given["env"])).status == 0
        task = hub.hub.state.get("task:progress", "systemd:backup.service")
        assert task is not None
        assert is_within(EXPECTED["systemd-onfailure-env"][0]["data"], task.data)
        await hooked(hub.url, "systemd", "other.service")
        task = hub.hub.state.get("task:progress", "systemd:other.service")
        assert task is not None
        assert (task.data["status"], task.data["error"]) == ("failed", "failed")


# ---- nothing in doubt


@pytest.mark.parametrize(
    "stdin",
    [b"", b"garbage", b"{", b"[]", b"null", b"\xff\x00", b'"text"', b"[" * 100_000, STOP[:-1], b"{" * 3_000_000],
)
async def test_what_is_no_hook_is_not_sent(tmp_path: Path, stdin: bytes) -> None:
    async with hub_app(tmp_path) as hub:
        before = hub.hub.cursor
        done = await hooked(hub.url, "claude-code", stdin=stdin)
        assert is_silent(done), done
        assert hub.hub.cursor == before


def deep(levels: int) -> bytes:
    return STOP[:-1] + b', "tool_input": ' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    "stdin",
    [
        deep(60),
        deep(50_000),
        STOP[:-1] + b', "last_assistant_message": "' + b"x" * 3_000_000 + b'"}',
        STOP[:-1] + b', "tool_input": [' + b"1," * 1_500_000 + b"1]}",
    ],
    ids=["60 levels", "50,000 levels", "3 MB of text", "3 MB of numbers"],
)
async def test_what_is_deep_or_large_is_cut_and_nothing_is_said(tmp_path: Path, stdin: bytes) -> None:
    async with hub_app(tmp_path) as hub:
        agent = None
        while agent is None:  # it is given up after its two seconds, where they are not enough
            done = await hooked(hub.url, "claude-code", stdin=stdin)
            assert is_silent(done), done
            agent = hub.hub.state.get("agent:status_change", f"claude-code:{sample('claude-15-stop')['session_id']}")
        assert agent.data["status"] == "idle"


@pytest.mark.parametrize("words", [(), ("emacs",), ("claude-code", "--frobnicate"), ("claude-code", "a", "b")])
async def test_a_mistyped_line_is_no_answer(words: tuple[str, ...]) -> None:
    assert is_silent(await hooked("", *words, stdin=STOP))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "hub hook ADAPTER"),
        (("emacs",), "ADAPTER must be one of claude-code, codex"),
        (("claude",), "did you mean claude-code?"),
        (("claude-code",), "hub: The agent runs this, with JSON on stdin; hub connect claude-code writes it"),
        (("github",), "hub: This takes the JSON of github on stdin"),
        (("--help",), "who sends: claude-code, codex, gemini, copilot, cursor, systemd, github, alertmanager, grafana"),
    ],
)
async def test_who_types_it_on_a_terminal_is_told_what_it_is_for(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    async with on_terminal(tmp_path, "hook", *words) as shown:
        status, text = await shown.ended()
    assert status == 0
    assert "".join(said.split()) in "".join(text.split())  # however it is broken into lines


async def test_there_is_no_hub(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert is_silent(await hooked(url, "claude-code", stdin=STOP))
    assert is_silent(await hooked(url, "claude-code", "--ask", stdin=PERMISSION))
    assert is_silent(await hooked("", "claude-code", stdin=STOP, environ={"HUB_STATE_DIR": str(tmp_path)}))
    assert is_silent(await hooked("http://[bad", "claude-code", stdin=STOP))


async def test_what_answers_is_no_hub() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nNo!")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert is_silent(await hooked(url, "claude-code", stdin=STOP))


async def test_a_frozen_hub_is_given_up(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        hub.signal(signal.SIGSTOP)
        try:
            done = await hooked(hub.url, "claude-code", stdin=STOP)
        finally:
            hub.signal(signal.SIGCONT)
        assert is_silent(done), done


async def test_weakened_a_frozen_hub_would_be_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that is up is what ends it: with more of it, it is still there when the hub goes on."""
    code = "from hub.cli import hook, main; hook.PATIENCE = 60.0; main.main(['hook', 'claude-code', '--url', '{}'])"
    async with hub_process(tmp_path) as hub:
        hub.signal(signal.SIGSTOP)
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-c", code.format(hub.url))
        waiting = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment(), cwd="/")
        assert waiting.stdin
        assert waiting.stdout
        waiting.stdin.write(STOP)
        waiting.stdin.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting.wait(), 3.0)
        hub.signal(signal.SIGCONT)
        assert (await waiting.stdout.read()).strip() == b"{}"
        await waiting.wait()


async def test_stdin_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        reading, writing = os.pipe()
        try:
            command = (sys.executable, "-m", "hub", "hook", "claude-code", "--url", hub.url)
            process = await asyncio.create_subprocess_exec(*command, stdin=reading, env=environment(), cwd="/")
            assert await asyncio.wait_for(process.wait(), 30) == 0
        finally:
            os.close(reading)
            os.close(writing)


# ---- questions


async def test_the_answer_of_a_person_is_what_it_prints(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        task = asyncio.create_task(hooked(hub.url, "claude-code", "--ask", "--timeout", "60", stdin=PERMISSION))
        await until(lambda: list(hub.hub.questions.records()), "a question")
        (question,) = hub.hub.questions.records()
        await hub.post("api/commands/hub:answer", {"question": question["id"], "answer": "allow"})
        done = await task
        assert (done.status, json.loads(done.out)) == (0, sample("claude-response-allow"))


async def test_one_that_is_killed_takes_its_question_back(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "hub", "hook", "claude-code", "--ask", "--url", hub.url)
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment(), cwd="/")
        sending = asyncio.create_task(process.communicate(PERMISSION))
        await until(lambda: list(hub.hub.questions.records()), "a question")
        process.kill()
        assert (await sending)[0] == b""
        await hub.recorded("question.withdrawn")


async def test_a_hub_that_is_killed_decides_nothing(tmp_path: Path) -> None:
    async with hub_process(tmp_path, status=-9) as hub:
        task = asyncio.create_task(hooked(hub.url, "claude-code", "--ask", stdin=PERMISSION))
        while b'"open"' not in await (await hub.http.get(f"{hub.url}api/state?topics=hub:question")).read():
            await asyncio.sleep(0.01)
        hub.signal(signal.SIGKILL)
        assert is_silent(await task)


async def test_a_large_question_of_an_agent_is_not_asked(tmp_path: Path) -> None:
    """It could not be put back together."""
    body = sample("claude-13-ask-user-question")
    body["tool_input"]["questions"][0]["options"][0]["description"] = "x" * 300_000
    async with hub_app(tmp_path) as hub:
        done = await hooked(hub.url, "claude-code", "--ask", stdin=json.dumps(body).encode())
        assert is_silent(done)
        assert not await hub.records("question.asked")


# ---- processes


def test_the_program_above_this_one() -> None:
    assert program() not in (None, os.getpid())
    here = process(os.getpid())
    assert here is not None
    assert (here.pid, here.parent, here.has_ended) == (os.getpid(), os.getppid(), False)
    assert process(2**22 + 1) is None
    assert age() > 0


async def test_a_script_that_is_run_by_a_shell_is_passed_over(tmp_path: Path) -> None:
    """It has the name of its file, and ends when the hook has ended: it is not the agent."""
    script = tmp_path / "wrapper"
    script.write_text('#!/bin/sh\n"$@"\ntrue\n')
    script.chmod(0o755)
    code = "from hub.processes import program; print(program())"
    words = (str(script), sys.executable, "-c", code)
    shell = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, env=environment())
    assert int((await shell.communicate())[0]) == os.getpid()


@pytest.mark.parametrize("in_between", [True, False])
async def test_an_agent_that_was_killed_while_its_hook_began_is_told(tmp_path: Path, in_between: bool) -> None:
    """Nobody is above the hook any more; but whoever began its group of processes is no more, and is told."""
    code = "import sys; sys.stdin.read(); from hub.processes import program; print(program())"
    hook = ("true; " if in_between else "exec ") + f'{sys.executable} -c "$CODE"'
    begin = "import os, subprocess; subprocess.Popen(['/bin/sh', '-c', os.environ['HOOK']]).wait()"
    pipe, env = asyncio.subprocess.PIPE, environment() | {"CODE": code, "HOOK": hook}
    words = (sys.executable, "-c", begin)
    agent = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env, start_new_session=True)
    while not children(agent.pid):
        await asyncio.sleep(0.01)
    agent.kill()
    out, _ = await agent.communicate()
    assert int(out) == agent.pid


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
@pytest.mark.parametrize("is_there", [True, False])
async def test_claudes_hook_without_its_words_is_that_hook(tmp_path: Path, is_there: bool, weakened: bool) -> None:
    """As a version runs it that knows no `args`. It starts no hub, and whatever goes wrong holds up nobody."""
    state = tmp_path / "state"
    words = (sys.executable, "-m", "hub")
    env = environment() | {"HUB_STATE_DIR": str(state), "HUB_PORT": "0"}
    if not weakened:
        env["CLAUDE_PROJECT_DIR"] = str(tmp_path)
    async with AsyncExitStack() as stack:
        if is_there:
            hub = await stack.enter_async_context(hub_process(tmp_path))
        process = await asyncio.create_subprocess_exec(*words, stdin=-1, stdout=-1, stderr=-1, env=env, cwd=tmp_path)
        assert process.stdin
        assert process.stdout
        process.stdin.write(STOP)
        process.stdin.close()
        if weakened and not is_there:
            assert b"hub is listening" in await process.stdout.readline()
            process.terminate()
        out, err = await process.communicate()
        if weakened:
            assert process.returncode == (2 if is_there else 0)
            return
        assert (process.returncode, out, err) == (0, b"{}\n" if is_there else b"", b"")
        if is_there:
            async with hub.http.get(f"{hub.url}hooks") as answer:
                assert "claude-code" in await answer.json()


async def test_of_which_machine_its_agent_is_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    async with hub_app(tmp_path) as hub:
        accept = hub.hub.accept

        async def noted(records: Any, uid: int | None, *, many: bool, machine: str) -> Any:
            said.append(machine)
            return await accept(records, uid, many=many, machine=machine)

        monkeypatch.setattr(hub.hub, "accept", noted)
        await hooked(hub.url, "claude-code", stdin=STOP)
    assert said == [machine()] != [""]


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")


async def test_shells_are_passed_over(tmp_path: Path) -> None:
    code = "from hub.processes import program; print(program())"
    inner = f"{sys.executable} -c '{code}'; true"
    pipe = asyncio.subprocess.PIPE
    words = ("/bin/sh", "-c", f'timeout 60 env /bin/sh -c "{inner}; true"; true')
    shell = await asyncio.create_subprocess_exec(*words, stdout=pipe, env=environment())
    assert int((await shell.communicate())[0]) == os.getpid()
