"""What every test gets: none of the person's own settings or state. And the word on skips.

A skipped test has tested nothing. With `CI` or `HUB_NO_SKIP` set a skip is a failure; elsewhere the skipped
tests are listed by name. With `HUB_RESULTS` set, the counts are appended to that file for `.ci/run`: once, by the
process that reports, however many run the tests.

`once` marks what says the same on every Python, or searches at random: tox leaves it to one of them (`-m "not once"` in
the others). A weakened build, whose test has "weakened" in its name or as an argument, is tried once, too.
"""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from engines import Engine, Weaken
    from running import Start

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
NO_SKIP = bool(os.environ.get("CI") or os.environ.get("HUB_NO_SKIP"))
LONGEST_ID = 100  # characters
LONGEST = ("test_release.py", "test_weather.py")
# Whose tests are marked `counted`: they take every branch that is to be taken (setup.cfg), and run where that is
# counted (`branches` in tox.ini). It costs as much again as the test itself: what `uncounted.txt` names, whose branches
# others take in less time, is left out.
COUNTED = (
    "audit", "client", "commands", "faults", "stream", "web/access", "web/page/test_forms",
    "web/test_half_closed.py", "web/test_sizes.py", "web/ws", "wire", "cli/test_documents.py", "cli/test_places.py",
    "cli/test_terminal.py", "test_contract.py", "test_flow.py", "test_redaction.py", "test_sockdiag.py",
    "test_spellings.py", "test_stderr.py",
)  # fmt: skip
EVERYTHING = ""  # in the place of a test's name

# No example is judged by the clock. Under CI, and where branches are counted, the examples are always the same.
settings.register_profile("hub", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("hub")


def pytest_sessionstart() -> None:
    """A shell's background job ignores SIGINT and SIGQUIT, and so would all programs that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def redis_engine() -> Iterator["Engine"]:
    """A Redis for all tests that do it no harm; each takes a prefix of its own."""
    from engines import engine, redis_program

    try:
        program = redis_program()
    except LookupError as error:
        pytest.skip(str(error))
    with engine(program) as found:
        yield found


@pytest.fixture(scope="session")
def valkey_engine() -> Iterator["Engine"]:
    """The same, of a Valkey."""
    from engines import engine, valkey_program

    with engine(valkey_program()) as found:
        yield found


@pytest.fixture
def prefix() -> str:
    """Of the keys of one stream."""
    return uuid4().hex


@pytest.fixture
async def start(redis_engine: "Engine", prefix: str, tmp_path: Path) -> AsyncIterator["Start"]:
    """Starts hubs of one stream, each by its name, which are stopped behind the test."""
    from running import starting

    async with starting(tmp_path, redis_engine.url(prefix=prefix)) as found:
        yield found


@pytest.fixture
def weaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> "Weaken":
    """Takes a protection out of the library of functions, in the weakened build."""
    from engines import weakened_library

    from hub.stream.brokers import link

    def change(old: str, new: str) -> None:
        if weakened:
            monkeypatch.setattr(link, "resources", weakened_library(tmp_path, old, new))

    return change


@pytest.fixture
def no_token_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is over a rate stays over it, however long this machine takes for a test."""
    from hub.commands import ratelimit

    stands = time.monotonic()
    monkeypatch.setattr(ratelimit, "time", SimpleNamespace(monotonic=lambda: stands))


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may touch the hub that the person at this machine is running."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HUB_")]:
            patch.delenv(name)
        patch.setenv("HUB_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """The argument's name, which pytest numbers, for a text that is data: it may differ from process to process.

    As pytest does it by itself from 9.2 on.
    """
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a protection is worth is seen once. Branches are counted where all of them are to be taken. And what takes
    longest begins first: else one process would be at it when all others have ended."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        name = item.nodeid.partition("[")[0].partition("::")[2]
        if "weakened" in name or (isinstance(item, pytest.Function) and _is_weakened(item)):
            item.add_marker("once")
        if name not in (left := _uncounted(item.path)) and EVERYTHING not in left:
            item.add_marker("counted")


def _is_weakened(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("weakened") is True


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of which no test is asked for is not read: that takes as long as hundreds of tests."""
    asked = config.option.markexpr
    if collection_path.suffix != ".py" or asked not in ("counted", "not counted"):
        return None
    left = _uncounted(collection_path)
    return True if (EVERYTHING in left if asked == "counted" else not left) else None


@cache
def _uncounted(path: Path) -> frozenset[str]:
    """The tests of this file that do not run where branches are counted, by their names."""
    where = path.relative_to(Path(__file__).parent).as_posix()
    if not where.startswith(COUNTED):
        return frozenset({EVERYTHING})
    lines = Path(__file__).with_name("uncounted.txt").read_text("utf-8").splitlines()
    return frozenset(line.removeprefix(where).removeprefix("::") for line in lines if line.startswith(where))


def pytest_collection_finish() -> None:
    """Thousands of tests are there to stay: looking through them again and again finds no garbage. Not on Python 3.11,
    with the oldest libraries: the hypothesis of then warns of what it does not find through the collector."""
    if sys.version_info >= (3, 12):
        gc.collect()
        gc.freeze()


def _judge(report: Report) -> Report:
    """The same report, failed if it is a skip and none is allowed. An expected failure is none: it ran."""
    if report.skipped and not hasattr(report, "wasxfail") and NO_SKIP:
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may be skipped here: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr
    return (where[2] if isinstance(where, tuple) else str(where)).removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself, or is marked so."""
    return _judge((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself while it is imported."""
    return _judge((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what was not tested, and leaves the counts for `.ci/run`."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # one of several processes: the one that has started them reports
    stats = terminalreporter.stats
    missed = [f"{report.nodeid}: {_reason(report)}" for report in stats.get("skipped", ())]
    if missed:
        terminalreporter.section("not tested here")
        for line in missed:
            terminalreporter.line(line)
    if os.environ.get("HUB_RESULTS"):
        failed = len(stats.get("failed", ())) + len(stats.get("error", ()))
        name = os.environ.get("HUB_RESULTS_NAME", "pytest")
        lines = [f"{name} {len(stats.get('passed', ()))} {failed} {len(missed)}"]
        lines += [f"not tested: {name}: {line}" for line in missed]
        with Path(os.environ["HUB_RESULTS"]).open("a") as file:
            file.write("\n".join(lines) + "\n")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for this machine, and its key: the paths of both."""
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key
