"""`hub tail`: where it begins, where it goes on, and what it says of that."""

import asyncio
import contextlib
import json
import os
import re
import select
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from forks import PIPE, Forked, fork
from running import HubInside, environment, hub_app, run_hub, send_signal, until
from shells import MAIN, by_shell
from terminals import CTRL_C, on_terminal

from hub.cli.beginnings import moment, newest


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub") as running:
        yield running


class Tail:
    """A running `hub tail`."""

    def __init__(self, process: Forked) -> None:
        self.process = process

    async def line(self) -> dict[str, Any]:
        assert self.process.stdout
        line: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return line

    async def ended(self) -> tuple[int | None, str, str]:
        out, err = await self.process.communicate()
        return self.process.returncode, (out or b"").decode(), err.decode()


@contextlib.asynccontextmanager
async def tailing(
    hub: HubInside, folder: Path, *words: str, stdout: int = PIPE, before: str = ""
) -> AsyncIterator[Tail]:
    variables = {**environment(), "HUB_STATE_DIR": str(folder / "state")}
    words = ("tail", *words, "--url", hub.url)
    process = await fork(*words, before=before, stdout=stdout, stderr=PIPE, cwd=folder, env=variables)
    try:
        yield Tail(process)
    finally:
        send_signal(process, signal.SIGKILL)
        await process.communicate()


async def tailed(hub: HubInside, folder: Path, *words: str, said: str = "") -> list[Any]:
    """The `n` of the events that a tail has printed to its end, with this on stderr."""
    async with tailing(hub, folder, *words) as tail:
        status, out, err = await tail.ended()
    assert (status, err) == (0, said)
    return numbers(out)


def numbers(out: str) -> list[Any]:
    return [json.loads(line)["payload"]["data"]["n"] for line in out.splitlines()]


# ---- where it begins


async def test_n_begins_with_the_newest_that_match(hub: HubInside, tmp_path: Path) -> None:
    for _ in range(6):
        await hub.publish(1, "a:x")
        await hub.publish(1, "b:y")
    assert await tailed(hub, tmp_path, "-n", "3", "--count", "3", "a:*") == [7, 9, 11]
    assert await tailed(hub, tmp_path, "-n", "1000", "--count", "6", "b:y") == [2, 4, 6, 8, 10, 12]


async def test_n_goes_on_without_a_hole_or_a_repeat(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(50)

    async def publish() -> None:
        while True:
            await hub.publish(1)
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())
    found = await tailed(hub, tmp_path, "-n", "20", "--count", "400")
    publishing.cancel()
    assert found == list(range(found[0], found[0] + 400))
    assert found[0] > 30


async def test_n_finds_what_is_rare_in_a_long_history(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", keep_events=6000, window_events=100) as hub:
        await hub.publish(1500, "b:y")  # 1000 of them are not kept
        await hub.publish(3, "c:z")
        await hub.publish(4000)
        await hub.publish(2, "c:z")
        await hub.publish(1500)
        assert await tailed(hub, tmp_path, "c:*", "-n", "4", "--count", "4") == [1502, 1503, 5504, 5505]
        assert await tailed(hub, tmp_path, "c:*", "-n", "9", "--count", "5") == [1501, 1502, 1503, 5504, 5505]


async def test_n_of_what_is_no_longer_kept_is_from_now_on(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", keep_seconds=1.0) as hub:
        await hub.publish(3)
        await until(lambda: hub.hub.broker.tail > 3)
        async with tailing(hub, tmp_path, "-n", "2", "--count", "1") as tail:
            await until(lambda: hub.clients("websocket") == 1)
            await hub.publish(1)
            assert numbers((await tail.ended())[1]) == [4]


async def test_n_and_what_is_in_pages(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(9, pad="x" * 400_000)
    assert await tailed(hub, tmp_path, "-n", "8", "--count", "8") == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("count", ["0", "5"])
async def test_n_of_nothing_is_from_now_on(count: str, hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(3)
    async with tailing(hub, tmp_path, "c:*", "-n", count, "--count", "1") as tail:
        await until(lambda: hub.clients("websocket"))
        await hub.publish(1, "c:z")
        assert numbers((await tail.ended())[1]) == [4]


async def test_start_is_all_that_is_kept(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", keep_events=1000, window_events=100) as hub:
        await hub.publish(3000)
        async with tailing(hub, tmp_path, "--after", "start") as tail:
            found = [(await tail.line())["payload"]["data"]["n"]]
            while found[-1] < 3000:
                found.append((await tail.line())["payload"]["data"]["n"])
        assert found == list(range(found[0], 3001))
        assert found[0] > 1


async def test_since_is_everything_from_then_on(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(3)
    when = (await hub.get("api/events", limit="1")).json["events"][0]["timestamp"]
    await until(lambda: datetime.now(UTC) > datetime.fromisoformat(when) + timedelta(milliseconds=2))
    then = datetime.now(UTC).isoformat()
    await hub.publish(3)
    assert await tailed(hub, tmp_path, "--since", then, "--count", "3") == [4, 5, 6]
    assert await tailed(hub, tmp_path, "--since", "1h", "--count", "6") == [1, 2, 3, 4, 5, 6]


async def test_since_finds_its_place_in_a_long_history(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", keep_events=9000, window_events=100) as hub:
        await hub.publish(12_000)
        when = (await hub.get("api/events", limit="1")).json["events"][0]["timestamp"]
        await until(lambda: datetime.now(UTC) > datetime.fromisoformat(when) + timedelta(milliseconds=2))
        then = datetime.now(UTC).isoformat()
        await hub.publish(3000)
        before = hub.hub.audit.seq
        found = await tailed(hub, tmp_path, "--since", then, "--count", "3000")
        assert found == list(range(12_001, 15_001))
        assert hub.hub.audit.seq == before


async def test_since_tells_what_may_be_missing(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", keep_events=1000, window_events=100) as hub:
        await hub.publish(3000)
        async with tailing(hub, tmp_path, "--since", "1h", "--count", "1") as tail:
            gap, event = (await tail.ended())[1].splitlines()
        assert json.loads(gap)["payload"]["data"]["reason"] == "expired"
        assert json.loads(event)["cursor"] == json.loads(gap)["payload"]["data"]["before"]


def test_times_as_people_write_them() -> None:
    now = datetime.now(UTC)
    for text, ago in (("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800)):
        assert abs((now - moment(text)).total_seconds() - ago) < 60
    assert (
        moment("2026-11-30T17:00:00Z") == moment("2026-11-30T19:00:00+02:00") == datetime(2026, 11, 30, 17, tzinfo=UTC)
    )
    assert moment("2026-11-30T17:00") == datetime(2026, 11, 30, 17).astimezone(UTC)
    assert newest("1000") == 1000


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "soon"],
        ["--since", "5"],
        ["--since", "999999999d"],
        ["--since", "5m", "--after", "start"],
        ["-n", "1001"],
        ["-n", "-1"],
        ["-n", "x"],
        ["--resume", "../a"],
        ["--resume", ""],
        ["--json", "--text"],
    ],
)
async def test_what_makes_no_sense_is_one_sentence(words: list[str], tmp_path: Path) -> None:
    status, out, err = await run_hub(tmp_path, "tail", *words, "--state-dir", str(tmp_path))
    assert (status, out) == (2, "")
    assert re.fullmatch(r"hub: [^\n]+\.\n", err)


async def test_following_leaves_no_record(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(5)
    before = hub.hub.audit.seq
    for words in (["--after", "start"], ["--since", "1h"], ["-n", "5"], ["--resume", "a", "--after", "start"]):
        await tailed(hub, tmp_path, "--count", "5", *words)
    async with tailing(hub, tmp_path, "--count", "1") as tail:
        await until(lambda: hub.clients("websocket") == 1)
        await hub.publish(1)
        await tail.ended()
    assert hub.hub.audit.seq == before
    await hub.get("api/events")  # but a command that reads is one
    assert hub.hub.audit.seq > before


# ---- on a terminal


async def test_on_a_terminal_it_says_what_it_follows_and_how_to_come_back(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(2)
    async with on_terminal(tmp_path, "tail", "a:*", "-n", "2", "--url", hub.url) as tail:
        await tail.shows('{"n":2}')
        tail.press(CTRL_C)
        status, text = await tail.ended()
    first, *lines, last = text.splitlines()
    assert first == f"hub: Following a:* at {hub.url.rstrip('/')}, beginning with the newest 2. Ctrl-C ends."
    assert [line.split(maxsplit=2)[2] for line in lines[:2]] == [f'{"a:x":28}  {{"n":{n}}}' for n in (1, 2)]
    where = f"--url {hub.url.rstrip('/')}"
    assert (status, last) == (0, f"hub: Go on from here with hub tail 'a:*' --after {hub.hub.cursor} {where}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "every event at URL, from now on"),
        (["--after", "start"], "every event at URL, beginning with all that is kept"),
        (["--after", "CURSOR"], "every event at URL, behind CURSOR"),
        (["--since", "2026-11-30T17:00"], "every event at URL, since 2026-11-30 17:00:00"),
        (
            ["tasks:*"],
            "tasks:* at URL, from now on. Ctrl-C ends.\nhub: The hub's own events have no tasks; did you mean task:*?",
        ),
    ],
)
async def test_it_says_since_when(words: list[str], said: str, hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(1)
    url, cursor = hub.url.rstrip("/"), str(hub.hub.cursor)
    words = [word.replace("CURSOR", cursor) for word in words]
    async with on_terminal(tmp_path, "tail", *words, "--url", url) as tail:
        await tail.shows("Following " + said.replace("CURSOR", cursor).replace("URL", url))


async def test_what_is_followed_with_a_typing_error_is_followed(hub: HubInside, tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "tail", "tasks:*", "--url", hub.url, "--json") as tail:
        await tail.shows("did you mean task:*")
        await until(lambda: hub.clients("websocket") == 1)
        await hub.publish(1, "tasks:mine")
        await tail.shows('"payload":{"event":"tasks:mine","data":{"n":1}}}')


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("tsk:*", "task:*"),
        ("task:progres", "task:progress"),
        ("Task:x", "task:x"),
        ("agent:tol_call", "agent:tool_call"),
    ],
)
async def test_what_was_perhaps_meant_is_said_into_a_pipe_too(
    word: str, meant: str, hub: HubInside, tmp_path: Path
) -> None:
    named = word if word.startswith(("task", "agent")) else word.partition(":")[0]
    async with tailing(hub, tmp_path, word, "--count", "1") as tail:
        await until(lambda: hub.clients("websocket") == 1)
        await hub.publish(1, word.replace("*", "x"))
        status, out, err = await tail.ended()
    said = f"hub: The hub's own events have no {named}; did you mean {meant}?\n"
    assert (status, numbers(out), err) == (0, [1], said)


@pytest.mark.parametrize("word", ["task:*", "task:progress", "task:done", "cl:*", "*:progress", "hub:question"])
async def test_what_makes_sense_is_followed_without_a_word(word: str, hub: HubInside, tmp_path: Path) -> None:
    async with tailing(hub, tmp_path, word) as tail:
        await until(lambda: hub.clients("websocket") == 1)
        send_signal(tail.process, signal.SIGTERM)
        assert await tail.ended() == (0, "", "")


async def test_colours_and_columns_can_be_had_in_a_pipe(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(1)
    words = ("--after", "start", "--count", "1", "--text")
    async with tailing(hub, tmp_path, *words) as tail:
        assert re.fullmatch(r'[-\d]{10} [:.\d]{12}  a:x {25}  {"n":1}\n', (await tail.ended())[1])
    async with on_terminal(tmp_path, "tail", *words, "--url", hub.url, variables={"TERM": "xterm"}) as shown:
        assert "\x1b[36ma:x\x1b[0m" in (await shown.ended())[1]


# ---- coming back


async def test_resume_misses_nothing_and_repeats_nothing(hub: HubInside, tmp_path: Path) -> None:
    words, found, begun = ("--resume", "nightly"), list[Any](), ["--after", "start"]
    for count in (3, 1, 7):
        await hub.publish(5)
        found += await tailed(hub, tmp_path, *words, *begun, "--count", str(count))
        begun.clear()
    assert found == list(range(1, 12))
    place = tmp_path / "state" / "tails" / "nightly.cursor"
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert place.read_text() == f"{hub.hub.cursor.epoch}:11\n"


@pytest.mark.parametrize("words", [("--after", "start"), ("-n", "2"), ("--since", "1h")])
async def test_what_counts_only_the_first_time_is_said(words: tuple[str, str], hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(4)
    await tailed(hub, tmp_path, "--resume", "nightly", *words, "--count", "1")
    kept = (tmp_path / "state/tails/nightly.cursor").read_text().strip()
    said = f"hub: nightly goes on behind {kept}; {words[0]} is for its first time.\n"
    assert (await tailed(hub, tmp_path, "--resume", "nightly", *words, "--count", "1", said=said))[0] in (2, 4)


async def test_the_first_run_notes_where_it_began(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(2)
    async with tailing(hub, tmp_path, "--resume", "nightly") as tail:
        await until(lambda: hub.clients("websocket") == 1)
        send_signal(tail.process, signal.SIGTERM)
        assert await tail.ended() == (0, "", "")
    await hub.publish(2)
    assert await tailed(hub, tmp_path, "--resume", "nightly", "--count", "2") == [3, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_resume_goes_on_where_a_tail_was_stopped(number: int, hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(4000, pad="x" * 500)
    found = list[Any]()
    for _ in range(4):
        async with tailing(hub, tmp_path, "--resume", "nightly", "--after", "start") as tail:
            first = await tail.line()
            send_signal(tail.process, number)
            _, out, _ = await tail.ended()
        found += [first["payload"]["data"]["n"], *numbers(out)]
    assert found == list(range(1, len(found) + 1))


async def test_resume_goes_on_where_a_tail_was_killed(hub: HubInside, tmp_path: Path) -> None:
    """It dies while it waits for its reader; a line that is only begun is not one."""
    await hub.publish(600, pad="x" * 500)
    found = list[Any]()
    for _ in range(3):
        with unread_pipe() as pipe:
            async with tailing(hub, tmp_path, "--resume", "nightly", "--after", "start", stdout=pipe.writer) as tail:
                await until(lambda: pipe.is_full() and is_waiting(tail.process.pid))
                send_signal(tail.process, signal.SIGKILL)
                await tail.process.wait()
            found += numbers(pipe.read().rpartition("\n")[0])
    assert found == list(range(1, len(found) + 1))


def is_waiting(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


class UnreadPipe:
    """A pipe that takes until it is full."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def is_full(self) -> bool:
        return not select.select([], [self.writer], [], 0)[1]

    def has_some(self) -> bool:
        return bool(select.select([self.reader], [], [], 0)[0])

    def read(self) -> str:
        found = b""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reader, 65536):
                found += data
        return found.decode()


@contextlib.contextmanager
def unread_pipe() -> Iterator[UnreadPipe]:
    pipe = UnreadPipe()
    try:
        yield pipe
    finally:
        os.close(pipe.reader)
        os.close(pipe.writer)


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_does_not_match_was_passed_all_the_same(number: int, weakened: bool, tmp_path: Path) -> None:
    """No mark has come yet when it ends, and of what it has seen go by nothing is kept any more."""
    before = "from hub.client.client import HubClient;HubClient.settle = HubClient.__aexit__" * weakened
    async with hub_app(tmp_path / "hub", keep_events=100) as hub:
        await hub.publish(1, "b:y")
        async with tailing(hub, tmp_path, "b:*", "--resume", "nightly", before=before) as tail:
            await until(lambda: hub.clients("websocket") == 1)
            await hub.publish(2000, "a:x")
            send_signal(tail.process, number)
            await tail.ended()
        seen = hub.hub.cursor
        await hub.publish(1, "b:y")
        place = (tmp_path / "state/tails/nightly.cursor").read_text()
        assert place == (f"{seen.epoch}:1\n" if weakened else f"{seen}\n")
        async with tailing(hub, tmp_path, "b:*", "--resume", "nightly", "--count", "1") as tail:
            assert ((await tail.line())["payload"]["event"] == "hub:gap") is weakened


async def test_marks_move_the_place(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", heartbeat=0.1) as hub:
        await hub.publish(1, "b:y")
        async with tailing(hub, tmp_path, "b:*", "--resume", "nightly") as tail:
            await until(lambda: hub.clients("websocket") == 1)
            await hub.publish(5, "a:x")
            await hub.publish(1, "b:y")
            await tail.line()
            send_signal(tail.process, signal.SIGINT)
            _, _, err = await tail.ended()
    where = f"--url {hub.url.rstrip('/')}"
    assert err == f"hub: Go on from here with hub tail 'b:*' --resume nightly {where}\n"
    assert (tmp_path / "state/tails/nightly.cursor").read_text() == f"{hub.hub.cursor}\n"


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
@pytest.mark.parametrize("is_first", [False, True], ids=["again", "first"])
async def test_a_demo_takes_no_place(is_first: bool, weakened: bool, hub: HubInside, tmp_path: Path) -> None:
    """Else all that is kept came again from the hub that is back."""
    place = tmp_path / "state" / "tails" / "nightly.cursor"
    await hub.publish(3)
    if not is_first:
        assert await tailed(hub, tmp_path, "--resume", "nightly", "--after", "start", "--count", "3") == [1, 2, 3]
    kept = None if is_first else place.read_text()
    before = "from hub.cli import following; following.is_made_up = lambda cursor: False;" * weakened
    async with hub_app(tmp_path / "demo", demo=True, broker="memory:") as demo:
        await demo.publish(2)
        words = ("--resume", "nightly", *(("--after", "start") * is_first), "--count", "2")
        async with tailing(demo, tmp_path, *words, before=before) as tail:
            status, out, err = await tail.ended()
        assert numbers(await shown(demo, tmp_path)) == [1, 2], "without --resume it is shown"
    if weakened:
        assert (status, place.read_text()) == (0, f"{demo.hub.cursor}\n")
    else:
        assert (status, out, place.read_text() if place.exists() else None) == (3, "", kept)
        assert err == (
            "hub: Only a demo runs there, and nightly keeps its place in the hub that was there; "
            "leave out --resume to see the demo.\n"
        )


async def shown(hub: HubInside, folder: Path) -> str:
    async with tailing(hub, folder, "--after", "start", "--count", "2") as tail:
        return (await tail.ended())[1]


async def test_two_at_once_with_one_name_are_refused(hub: HubInside, tmp_path: Path) -> None:
    async with tailing(hub, tmp_path, "--resume", "nightly"):
        await until(lambda: hub.clients("websocket") == 1)
        async with tailing(hub, tmp_path, "--resume", "nightly") as second:
            assert await second.ended() == (2, "", "hub: Another hub tail --resume nightly is running.\n")
        async with tailing(hub, tmp_path, "--resume", "other", "--after", "start", "--count", "1") as other:
            await hub.publish(1)
            assert (await other.ended())[0] == 0


async def test_with_a_closed_stdout_no_place_moves(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(3)
    words = ("--state-dir", str(tmp_path / "state"), "--url", hub.url)
    assert await tailed(hub, tmp_path, "--resume", "nightly", "--after", "start", "--count", "1") == [1]
    command = by_shell(">&-", MAIN, "tail", "--resume", "nightly", "--count", "1", *words)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment())
    _, err = await process.communicate()
    said = b"hub: Stdout is closed, and --resume keeps its place behind what was written.\n"
    assert (process.returncode, err) == (2, said)
    assert await tailed(hub, tmp_path, "--resume", "nightly", "--count", "2") == [2, 3]


# ---- who reads it


@pytest.mark.parametrize("words", [("--after", "start"), ("-n", "1000")])
async def test_one_whose_reader_has_enough_ends_quietly(words: tuple[str, str], hub: HubInside, tmp_path: Path) -> None:
    """The reader goes in the middle of a long backlog: whether a write says so first, or the watch."""
    await hub.publish(4000, pad="x" * 200)
    for _ in range(3):
        with unread_pipe() as pipe:
            async with tailing(hub, tmp_path, *words, stdout=pipe.writer) as tail:
                os.close(pipe.writer)
                await until(pipe.has_some)
                os.close(pipe.reader)
                assert await tail.ended() == (0, "", "")
            pipe.reader, pipe.writer = os.pipe()


async def test_one_that_nobody_reads_can_be_stopped(hub: HubInside, tmp_path: Path) -> None:
    await hub.publish(300, pad="x" * 1000)
    with unread_pipe() as pipe:
        async with tailing(hub, tmp_path, "--after", "start", stdout=pipe.writer) as tail:
            await until(pipe.is_full)
            send_signal(tail.process, signal.SIGTERM)
            assert await tail.ended() == (0, "", "")
