"""Every command that lasts, ended by signals that fall into it anywhere: one sentence at most, never a traceback."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import PIPE, Forked, fork
from running import HubInside, environment, hub_app, until

from hub import Call, Hub
from hub.cli import coroutines
from hub.cli.interrupts import TAKEN, TOGETHER, Interrupted, Wish, interruptible

# Each signal interrupts whatever it falls into, as Python does by itself.
EACH_INTERRUPTS = """
import signal
from hub.cli import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.TAKEN = ()
"""
EVERY = 0.0005  # seconds between two signals
MOST = 400  # signals; more than TOGETHER is long
TRIES = 60  # until one falls into what has no place for it


def orders(hub: Hub) -> None:
    @hub.command("orders:wait", {}, effect="write")
    async def wait(call: Call) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub", prepare=orders) as running:
        yield running


async def _follows(hub: HubInside, process: Forked) -> None:
    await until(lambda: hub.clients("websocket") == 1)


async def _runs(hub: HubInside, process: Forked) -> None:
    await until(lambda: len(hub.hub.commands.running) == 1)


async def _publishes(hub: HubInside, process: Forked) -> None:
    assert process.stdin
    process.stdin.write(b"1\n")
    await until(lambda: hub.hub.cursor.seq == 1)


# The command line, until when it is waited, whether it ends as done, and what it says.
CASES: dict[str, tuple[tuple[str, ...], Callable[[HubInside, Forked], Awaitable[None]], bool, str]] = {
    "tail": (("tail",), _follows, True, "hub: Go on from here with "),
    "tail resumed": (("tail", "--resume", "x"), _follows, True, "hub: Go on from here with "),
    "forward": (("forward", "--to", "127.0.0.1:9"), _follows, True, "hub: No hub answers at "),
    "ask": (("ask", "Go?", "--option", "yes"), _runs, False, "hub: The question stays open. Come back"),
    "publish": (("publish", "a:b", "-"), _publishes, False, ""),
    "call": (("call", "orders:wait"), _runs, False, ""),
}


@contextlib.asynccontextmanager
async def running(hub: HubInside, folder: Path, *words: str, before: str = "") -> AsyncIterator[Forked]:
    variables = {**environment(), "HUB_STATE_DIR": str(folder / "state"), "HUB_URL": hub.url}
    process = await fork(*words, before=before, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder, env=variables)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def hailed(process: Forked, number: int) -> tuple[int, str]:
    """Signal it again and again until it has ended; its status, and what it has said."""
    stdin, process.stdin = process.stdin, None  # stays open: its end would be the end of what reads it
    said = asyncio.ensure_future(process.communicate())
    for _ in range(MOST):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        done, _ = await asyncio.wait([said], timeout=EVERY)
        if done:
            break
    _, err = await said
    assert stdin
    stdin.close()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("case", CASES)
async def test_a_hail_of_signals_is_one_wish(case: str, number: int, hub: HubInside, tmp_path: Path) -> None:
    words, begun, is_done, sentence = CASES[case]
    async with running(hub, tmp_path, *words) as process:
        await begun(hub, process)
        ended, err = await hailed(process, number)
    if number == signal.SIGTERM and case.startswith("tail"):
        sentence = ""
    expected = {-number} if case == "call" else {128 + number}  # of one that ends as done: if that takes so long
    assert ended in expected | ({0} if is_done else set()), err
    assert err.startswith(sentence)
    assert err.count("\n") <= bool(sentence) + (case == "forward")  # and then what it forwards


@pytest.mark.parametrize("case", CASES)
async def test_a_hail_of_signals_is_one_wish_weakened(case: str, hub: HubInside, tmp_path: Path) -> None:
    words, begun, _, _ = CASES[case]
    said, tries = "", 0
    while "Traceback" not in said:
        tries += 1
        assert tries < TRIES, said
        async with running(hub, tmp_path, *words, before=EACH_INTERRUPTS) as process:
            await begun(hub, process)
            _, said = await hailed(process, signal.SIGINT)
        await until(lambda: not hub.clients("websocket"))


async def test_who_does_not_want_to_wait_need_not(hub: HubInside, tmp_path: Path) -> None:
    """The second Ctrl-C, some time after the first, of something that takes long to end."""
    stuck = "import time;from hub.cli import ask;ask.complain = lambda line: time.sleep(60)"
    async with running(hub, tmp_path, *CASES["ask"][0], before=stuck) as process:
        await _runs(hub, process)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(TOGETHER)
        while process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        assert (process.returncode, (await process.communicate())[1]) == (130, b"")


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_one_that_falls_into_the_end_of_the_interpreter(weakened: bool, hub: HubInside, tmp_path: Path) -> None:
    """There Python has given back the signals: it would be the end of the process, and its status."""
    code = "from hub.cli import interrupts\n" + "interrupts.is_heard = lambda: False\n" * weakened
    code += "from hub.__main__ import start\nstart()"
    statuses = set[int | None]()
    for _ in range(TRIES if weakened else 3):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, "tail", "--url", hub.url), stderr=PIPE, env=environment(), cwd=tmp_path
        )
        await until(lambda: hub.clients("websocket") == 1)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        await process.stderr.readline()  # it has said how to go on, and goes
        while process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.sleep(EVERY)
        statuses.add(process.returncode)
        await until(lambda: not hub.clients("websocket"))
        if -signal.SIGINT in statuses:
            break
    assert (-signal.SIGINT in statuses) is weakened
    assert weakened or statuses <= {0, 130}, "130: of a machine so slow that somebody does not wait"


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_one_that_falls_into_the_imports(weakened: bool, tmp_path: Path) -> None:
    code = """
import os, signal, sys, types
import hub.cli
from hub.__main__ import start

class Main(types.ModuleType):
    def __getattr__(self, name):
        os.kill(os.getpid(), signal.SIGINT)
        raise AttributeError(name)

sys.modules["hub.cli.main"] = Main("hub.cli.main")
"""
    before = "signal.signal = lambda *args: None\n" * weakened
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"{code}{before}start()", stderr=PIPE, env=environment(), cwd=tmp_path
    )
    _, err = await process.communicate()
    assert process.returncode == -signal.SIGINT
    assert (b"KeyboardInterrupt" in err) is weakened


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in TAKEN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_before_the_loop_runs_is_not_lost(handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[Wish]()

    async def main(wish: Wish) -> None:
        ran.append(wish)

    def run(main: Coroutine[Any, Any, None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(main)

    real = asyncio.run
    monkeypatch.setattr(asyncio, "run", run)
    with pytest.raises(Interrupted):
        coroutines.run(main)
    assert not ran


@pytest.mark.parametrize("number", TAKEN)
def test_the_first_signal_interrupts_and_what_comes_with_it_is_passed_over(handlers: None, number: int) -> None:
    with pytest.raises(Interrupted) as stop, interruptible():
        os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.status == 128 + number


def test_without_a_signal_all_is_as_it_was() -> None:
    async def main(wish: Wish) -> int | None:
        return wish.by

    before = [*map(signal.getsignal, TAKEN)]
    assert coroutines.run(main) is None
    with interruptible():
        assert [*map(signal.getsignal, TAKEN)] != before
    assert [*map(signal.getsignal, TAKEN)] == before
