"""`hub ask`: the answer on stdout, and as the exit status."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from forks import PIPE, Forked, fork
from running import HubProcess, environment, hub_process, run_hub, send_signal, until
from terminals import CTRL_C, on_terminal

from hub.cli.ask import RETRY
from hub.commands.asked import account


@contextlib.asynccontextmanager
async def asking(state: Path, *words: str) -> AsyncIterator[Forked]:
    """A `hub ask` that waits."""
    where = ("--state-dir", str(state))
    process = await fork("ask", *words, *where, stdout=PIPE, stderr=PIPE, env=environment())
    try:
        yield process
    finally:
        send_signal(process, signal.SIGKILL)
        await process.communicate()


async def call(state: Path, *words: str) -> Any:
    status, out, err = await run_hub(state, "call", *words, "--state-dir", str(state))
    assert (status, err) == (0, "")
    return json.loads(out)


async def open_question(state: Path) -> dict[str, Any]:
    while not (found := await call(state, "hub:questions")):
        await asyncio.sleep(0.02)
    (question,) = found
    assert isinstance(question, dict)
    return question


async def outcome(process: Forked) -> tuple[int | None, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


OPTIONS = ("--option", "yes", "--option", "no", "--option", "ghp_0123456789abcdefghijABCDEFGHIJ012345")


@pytest.mark.parametrize(("option", "status"), [(0, 0), (1, 10), (2, 11)])
async def test_the_answer_is_printed_and_is_the_status(option: int, status: int, tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, asking(hub.state_dir, "Deploy?", *OPTIONS) as process:
        question = await open_question(hub.state_dir)
        answer = question["options"][option]
        words = ("hub:answer", f"question={question['id']}", f"answer={answer}")
        assert await call(hub.state_dir, *words) == {"accepted": True}
        assert await outcome(process) == (status, f"{answer}\n", "")
        by = account(os.geteuid())
        said = f"hub: Yours is not the answer: {by} has answered {question['options'][option]!r} before.\n"
        late = await run_hub(tmp_path, "call", *words, "--state-dir", str(hub.state_dir))
        assert late == (1, '{"accepted":false}\n', said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--timeout", "1", "--default", "no"), "the time was up, so 'no' counts."),
        (("--timeout", "1"), "the time was up."),
        (("--while-connected",), "the question was withdrawn."),
    ],
)
async def test_an_answer_that_comes_too_late_is_told_what_counts(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    async with hub_process(tmp_path) as hub:
        async with asking(hub.state_dir, "Deploy?", *OPTIONS, *flags) as process:
            question = await open_question(hub.state_dir)
            if "--timeout" in flags:
                await process.communicate()
        while await call(hub.state_dir, "hub:questions"):
            await asyncio.sleep(0.02)
        where = ("--state-dir", str(hub.state_dir))
        words = ("call", "hub:answer", f"question={question['id']}", "answer=yes", *where)
        late = await run_hub(tmp_path, *words)
        assert late == (1, '{"accepted":false}\n', f"hub: Yours is not the answer: {said}\n")
        other = await run_hub(tmp_path, "call", "hub:answer", "question=x", "answer=yes", *where)
        assert other[0] == 1
        assert other[2] == "hub: Yours is not the answer: there is no such question, or it has been over for long.\n"


async def test_nobody_answers(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        async with asking(hub.state_dir, "Deploy?", *OPTIONS, "--timeout", "1") as process:
            said = "hub: Nobody has answered in time, and the question has no default.\n"
            assert await outcome(process) == (4, "", said)
        async with asking(hub.state_dir, "Deploy?", *OPTIONS, "--timeout", "1", "--default", "no") as process:
            assert await outcome(process) == (10, "no\n", "")


async def test_the_answer_is_printed_as_it_is_into_a_pipe_and_escaped_on_a_terminal(tmp_path: Path) -> None:
    words = ("Deploy?", "--option", "a\n\x1b[31mb", "--default", "a\n\x1b[31mb", "--timeout", "1")
    async with hub_process(tmp_path) as hub:
        async with asking(hub.state_dir, *words) as process:
            assert await outcome(process) == (0, "a\n\x1b[31mb\n", "")
        async with on_terminal(tmp_path, "ask", *words, "--state-dir", str(hub.state_dir)) as asked:
            status, text = await asked.ended()
        assert (status, text.splitlines()[-1]) == (0, r"a\n\u001b[31mb")


async def test_two_dashes_at_the_end_say_nothing(tmp_path: Path) -> None:
    words = ("Deploy?", "--option", "b", "--default", "b", "--timeout", "1")
    async with hub_process(tmp_path) as hub:
        command = ("ask", *words, "--state-dir", str(hub.state_dir), "--")
        assert await run_hub(tmp_path, *command) == (0, "b\n", "")


async def test_on_a_terminal_it_says_how_it_is_answered(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        where = ("--state-dir", str(hub.state_dir))
        async with on_terminal(tmp_path, "ask", "Deploy?", "--option", "do it", "--option", "no", *where) as asked:
            said = (await asked.shows("'answer=do it'")).strip()
            question = await open_question(hub.state_dir)
            begin, _, typed = said.partition(" by hub ")
            assert begin == "hub: It waits for an answer, on the page or"
            words = shlex.split(typed)  # as pasted: this hub is not the one that is found without a flag
            assert words == ["call", "hub:answer", f"question={question['id']}", "answer=do it", *where]
            assert await run_hub(tmp_path, *words) == (0, '{"accepted":true}\n', "")
            status, text = await asked.ended()
            assert (status, text.splitlines()[-1]) == (0, "do it")


@pytest.mark.parametrize("words", [["--timeout", "soon"], ["--timeout", "inf"], ["--option"]])
async def test_what_makes_no_sense_is_one_sentence(words: list[str], tmp_path: Path) -> None:
    async with asking(tmp_path, "Deploy?", *OPTIONS, *words) as process:
        status, out, err = await outcome(process)
        assert (status, out, err.count("\n")) == (2, "", 1)


async def test_what_the_hub_refuses_is_one_sentence(tmp_path: Path) -> None:
    async with (
        hub_process(tmp_path) as hub,
        asking(hub.state_dir, "Deploy?", *OPTIONS, "--default", "maybe") as process,
    ):
        status, out, err = await outcome(process)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "default" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_question_is_answered_across_a_restart(number: int, tmp_path: Path) -> None:
    status = -number if number == signal.SIGKILL else 0
    async with hub_process(tmp_path, status=status) as hub, asking(hub.state_dir, "Deploy?", *OPTIONS) as process:
        question = await open_question(hub.state_dir)
        hub.signal(number)
        await hub.ended()
        async with hub_process(tmp_path) as again:
            words = ("hub:answer", f"question={question['id']}", "answer=no")
            assert await call(again.state_dir, *words) == {"accepted": True}
            assert await outcome(process) == (10, "no\n", "")


async def test_a_deadline_that_passes_while_the_hub_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    words = ("Deploy?", *OPTIONS, "--default", "no", "--timeout", "5")
    async with hub_process(tmp_path, status=-signal.SIGKILL) as hub, asking(hub.state_dir, *words) as process:
        deadline = datetime.fromisoformat((await open_question(hub.state_dir))["deadline"])
        hub.signal(signal.SIGKILL)
        await hub.ended()
        attempts = timedelta(seconds=2 * RETRY)  # two more, at least, of one that has no patience
        await until(lambda: process.returncode is not None or datetime.now(UTC) > deadline + attempts)
        async with hub_process(tmp_path):
            assert await outcome(process) == (10, "no\n", "")


async def is_withdrawn(hub: HubProcess, id: str) -> bool:
    state = await call(hub.state_dir, "hub:state", "topics=hub:question")
    return bool([item for item in state["items"] if item["key"] == id and item["data"]["status"] == "withdrawn"])


async def test_one_that_ends_with_its_asker_is_taken_back(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, asking(hub.state_dir, "Deploy?", *OPTIONS, "--while-connected") as process:
        question = await open_question(hub.state_dir)
        send_signal(process, signal.SIGKILL)
        await process.wait()
        while not await is_withdrawn(hub, question["id"]):
            await asyncio.sleep(0.02)
    await until(lambda: process.returncode is not None)


async def test_interrupted_it_says_that_the_question_stays_open_and_how_to_come_back(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        where = ("--state-dir", str(hub.state_dir))
        async with on_terminal(tmp_path, "ask", "Deploy it?", *OPTIONS[:4], "--default", "no", *where) as asked:
            question = await open_question(hub.state_dir)
            asked.press(CTRL_C)
            status, text = await asked.ended()
        said = text.splitlines()[-1]
        assert status == 130
        assert said.startswith("hub: The question stays open. Come back for its answer with hub ask 'Deploy it?' --opt")
        assert (await open_question(hub.state_dir))["id"] == question["id"]
        words = ("hub:answer", f"question={question['id']}", "answer=no")
        assert await call(hub.state_dir, *words) == {"accepted": True}
        program, *again = shlex.split(said.partition(" with ")[2])
        assert (program, again[-2:]) == ("hub", [*where])
        assert await run_hub(tmp_path, *again) == (10, "no\n", "")
        assert await call(hub.state_dir, "hub:questions") == []


async def test_interrupted_it_says_that_the_question_is_taken_back(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, asking(hub.state_dir, "Deploy?", *OPTIONS, "--while-connected") as process:
        question = await open_question(hub.state_dir)
        send_signal(process, signal.SIGINT)
        assert await outcome(process) == (130, "", "hub: The question is taken back.\n")
        while not await is_withdrawn(hub, question["id"]):
            await asyncio.sleep(0.02)
