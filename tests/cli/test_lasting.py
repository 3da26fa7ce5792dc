"""A stream into `hub publish`, and a hub that goes away and comes back meanwhile."""

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import environment, hub_app

from hub.cli import lasting
from hub.cli.http import Connection
from hub.cli.lasting import Lasting
from hub.client.discovery import NoHub
from hub.errors import HubError

FOUND = NoHub("There is no server.json.")  # where a hub is looked for
ANSWERED: dict[str, Any] = {"cursor": "e:1"}
GONE = NoHub("No hub answers.")


class Scripted(Connection):
    """Answers, or raises, what it is given; what it answers last, for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.closed = list(answers), False

    def ask(self, *words: Any, **more: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes where it is slept."""
    now = [0.0]
    time = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr("hub.cli.lasting.time", time)
    return now


def found(monkeypatch: pytest.MonkeyPatch, *hubs: Scripted | NoHub) -> Lasting:
    """One whose hub is found there, time after time."""
    waiting = list(hubs)

    def find(args: argparse.Namespace, **more: Any) -> Scripted:
        hub = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(hub, NoHub):
            raise hub
        return hub

    monkeypatch.setattr(lasting, "connection", find)
    return Lasting(argparse.Namespace(), 10.0)


def ask(hub: Lasting) -> Any:
    return hub.ask("POST", "/api/events", b"1")


def test_one_that_has_answered_is_waited_for(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And looked for anew: it may have another address, and another token."""
    before, behind = Scripted(ANSWERED, GONE), Scripted(GONE, {"cursor": "e:2"})
    hub = found(monkeypatch, before, FOUND, FOUND, behind)
    assert ask(hub) == ANSWERED
    assert ask(hub) == {"cursor": "e:2"}
    assert before.closed
    assert capsys.readouterr().err == "hub: No hub answers. It is waited for, 30 s at most.\n"


def test_one_that_has_refused_has_answered_too(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = HubError("shutting_down", "The hub is stopping.", retry_after=1)
    hub = found(monkeypatch, Scripted(stopping, GONE), Scripted(ANSWERED))
    with pytest.raises(HubError) as refused:
        ask(hub)
    assert refused.value.code == "shutting_down"
    assert ask(hub) == ANSWERED


def test_but_not_for_ever(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = found(monkeypatch, Scripted(ANSWERED, GONE))
    ask(hub)
    for _ in range(2):  # from anew each time
        begun = clock[0]
        with pytest.raises(NoHub):
            ask(hub)
        assert lasting.PATIENCE < clock[0] - begun <= lasting.PATIENCE + 2 * lasting.PAUSE


def test_where_none_was_nobody_waits(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoHub):
        ask(found(monkeypatch, Scripted(GONE)))
    assert clock == [0.0]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_stream_outlasts_a_restart_of_its_hub(tmp_path: Path, weakened: bool) -> None:
    off = (
        "lasting.Lasting = lambda args, timeout: http.connection(args, answer_timeout=timeout)" if weakened else "pass"
    )
    words = f"import sys; from hub.cli import http, lasting, main; {off}; sys.exit(main.main())"
    command = [sys.executable, "-c", words, "publish", "a:b", "--state-dir", str(tmp_path)]
    pipe, data = subprocess.PIPE, list[Any]()
    async with hub_app(tmp_path) as hub:
        await _is_there(hub.url, tmp_path)
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(), stdin=pipe, stderr=pipe, stdout=pipe
        )
        assert process.stdin
        assert process.stderr
        process.stdin.write(b"1\n")
        while not (await hub.get("api/events", topics="a:b")).json["events"]:
            await asyncio.sleep(0.02)
    process.stdin.write(b"2\n")
    said = await process.stderr.readline()  # as soon as it knows
    async with hub_app(tmp_path) as hub:  # at another port
        await _is_there(hub.url, tmp_path)
        if not weakened:  # else it has ended
            process.stdin.write(b"3\n")
            process.stdin.write_eof()
        await process.communicate()
        data = [event["payload"]["data"] for event in (await hub.get("api/events", topics="a:b")).json["events"]]
    assert (process.returncode, data) == ((3, [1]) if weakened else (0, [1, 2, 3]))
    assert (b"It is waited for" in said) is not weakened


async def _is_there(url: str, state_dir: Path) -> None:
    (state_dir / "server.json").write_text(f'{{"url": "{url}", "pid": {os.getpid()}}}')
