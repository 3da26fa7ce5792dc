"""Every command that lasts, ended by signals that fall into it anywhere: one sentence at most, never a traceback."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from forks import PIPE, Forked, fork
from running import HubInside, environment, hub_app, until

from hub import Call, Hub
from hub.cli import coroutines, interrupts
from hub.cli.interrupts import TOGETHER, Wish

# Each signal interrupts whatever it falls into, as Python does by itself.
EACH_INTERRUPTS = """
import signal
from hub.cli import coroutines, interrupts
interrupts.take = lambda: None
interrupts.done = lambda status: None
interrupts.Wish.take = lambda self, *numbers: None
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


async def _follows(hub: HubInside) -> None:
    await until(lambda: hub.clients("websocket") == 1)


async def _runs(hub: HubInside) -> None:
    await until(lambda: len(hub.hub.commands.running) == 1)


# The command line, until when it is waited, how it ends, and what it says.
CASES: dict[str, tuple[tuple[str, ...], Callable[[HubInside], Awaitable[None]], int, str]] = {
    "tail": (("tail",), _follows, 0, "hub: Go on from here with "),
    "tail resumed": (("tail", "--resume", "x"), _follows, 0, "hub: Go on from here with "),
    "forward": (("forward", "--to", "127.0.0.1:9"), _follows, 0, "hub: Forwarding every event"),
    "ask": (("ask", "Go?", "--option", "yes"), _runs, 130, "hub: The question stays open. Come back"),
    "call": (("call", "orders:wait"), _runs, 130, ""),
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
    said = asyncio.ensure_future(process.communicate())
    for _ in range(MOST):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        done, _ = await asyncio.wait([said], timeout=EVERY)
        if done:
            break
    _, err = await said
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("case", CASES)
async def test_a_hail_of_signals_is_one_wish(case: str, number: int, hub: HubInside, tmp_path: Path) -> None:
    words, begun, status, sentence = CASES[case]
    async with running(hub, tmp_path, *words) as process:
        await begun(hub)
        ended, err = await hailed(process, number)
    if number == signal.SIGTERM:
        status, sentence = (
            (-signal.SIGTERM, "") if case in ("ask", "call") else (0, sentence if case == "forward" else "")
        )
    assert ended in {status, 128 + number}, err  # the latter of one that takes so long that somebody does not wait
    assert err.startswith(sentence)
    assert err.count("\n") <= bool(sentence)


@pytest.mark.parametrize("case", CASES)
async def test_a_hail_of_signals_is_one_wish_weakened(case: str, hub: HubInside, tmp_path: Path) -> None:
    words, begun, _, _ = CASES[case]
    said, tries = "", 0
    while "Traceback" not in said:
        tries += 1
        assert tries < TRIES, said
        async with running(hub, tmp_path, *words, before=EACH_INTERRUPTS) as process:
            await begun(hub)
            _, said = await hailed(process, signal.SIGINT)
        await until(lambda: not hub.clients("websocket"))


async def test_who_does_not_want_to_wait_need_not(hub: HubInside, tmp_path: Path) -> None:
    """The second Ctrl-C, some time after the first, of something that takes long to end."""
    stuck = "import time;from hub.cli import ask;ask.complain = lambda line: time.sleep(60)"
    async with running(hub, tmp_path, *CASES["ask"][0], before=stuck) as process:
        await _runs(hub)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(TOGETHER)
        while process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        assert (process.returncode, (await process.communicate())[1]) == (130, b"")


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


def test_a_signal_before_the_loop_runs_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[Wish]()

    async def main(wish: Wish) -> None:
        ran.append(wish)

    def begin(wish: Wish, *numbers: int) -> None:
        take(wish, *numbers)
        os.kill(os.getpid(), signal.SIGINT)

    take = Wish.take
    monkeypatch.setattr(Wish, "take", begin)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            coroutines.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert not ran


def test_without_a_signal_all_is_as_it_was() -> None:
    async def main(wish: Wish) -> int | None:
        return wish.by

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert coroutines.run(main) is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's `hub publish … &` is not meant by the Ctrl-C that ends the script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.take()
        interrupts.give_back()
        interrupts.done(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
