"""How a program has ended is known also when the hub was away just then: to the next one, once."""

import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli.test_run import becomes, ran, reported, running, started
from forks import Forked
from running import HubInside, hub_app, hub_process, until
from terminals import on_terminal

from hub.errors import HubError
from hub.leftovers import FOLDER, leave, left
from hub.redaction import redact_text
from hub.stream import ends, liveness
from hub.stream.bus import EventBus
from hub.stream.ends import Ends

TASK = "task:progress"
AWAY = "sh", "-c", 'read status; exit "$status"'


def kept(state: Path) -> list[Path]:
    return sorted((state / FOLDER).iterdir()) if (state / FOLDER).exists() else []


async def end(process: Forked, status: int) -> None:
    assert process.stdin
    process.stdin.write(f"{status}\n".encode())
    await process.communicate()
    assert process.returncode == status


async def away(state: Path, status: int, name: str = "j") -> None:
    """A program runs, and ends with this while the hub is away."""
    async with contextlib.AsyncExitStack() as stack:
        async with hub_app(state) as hub:
            words = ("--state-dir", str(state), "--name", name, "--", *AWAY)
            process = await stack.enter_async_context(running(*words))
            (state / "server.json").write_text(json.dumps({"url": hub.url, "pid": os.getpid()}))
            await becomes(hub, f"run:{redact_text(name)}", "running")
        await end(process, status)


@contextlib.asynccontextmanager
async def back(state: Path) -> AsyncIterator[HubInside]:
    async with hub_app(state) as hub:
        await until(lambda: not len(hub.hub.liveness) and not kept(state), "all is taken")
        yield hub


@pytest.mark.parametrize(
    ("status", "how"), [(0, ("succeeded", None)), (5, ("failed", "exit status 5"))], ids=["good", "bad"]
)
async def test_the_next_hub_is_told(tmp_path: Path, status: int, how: tuple[str, str | None]) -> None:
    await away(tmp_path, status)
    assert len(kept(tmp_path)) == 1
    async with back(tmp_path) as hub:
        told = [(task["status"], task.get("error")) for task in await reported(hub)]
        assert told == [("running", None), how]
    async with back(tmp_path) as hub:
        assert len(await reported(hub)) == 2, "once"


async def test_an_end_finds_its_start_also_if_its_name_holds_a_secret(tmp_path: Path) -> None:
    """The name as the hub has cleaned it; what is left names the task by the same id."""
    secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    await away(tmp_path, 0, f"with {secret}")
    (file,) = kept(tmp_path)
    assert secret not in file.read_text()
    async with back(tmp_path) as hub:
        tasks = await reported(hub)
        assert [(task["name"], task["status"]) for task in tasks] == [
            ("with [redacted]", "running"),
            ("with [redacted]", "succeeded"),
        ]


async def test_weakened_it_would_be_told_that_its_process_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(ends: Ends) -> None:
        pass

    monkeypatch.setattr(Ends, "take", nothing)
    await away(tmp_path, 0)
    async with hub_app(tmp_path) as hub:
        assert (await becomes(hub, "run:j", "failed"))["error"] == "process ended"


@pytest.mark.parametrize("weakened", [False, True])
async def test_another_hub_in_its_place_is_not_the_one_that_knows_of_the_start(tmp_path: Path, weakened: bool) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    before = "from hub.cli import reports; reports._is_one = lambda epochs: True" if weakened else ""
    async with contextlib.AsyncExitStack() as stack:
        async with hub_app(first) as hub:
            words = ("--state-dir", str(first), "--name", "j", "--", *AWAY)
            process = await stack.enter_async_context(running(*words, before=before))
            announced = first / "server.json"
            announced.write_text(json.dumps({"url": hub.url, "pid": os.getpid()}))
            await becomes(hub, "run:j", "running")
        async with hub_app(other) as hub:
            announced.write_text(json.dumps({"url": hub.url, "pid": os.getpid()}))
            await end(process, 0)
            assert [task["status"] for task in await reported(hub)] == ["succeeded"]
    assert len(kept(first)) == (0 if weakened else 1)
    if not weakened:
        async with back(first) as hub:
            assert [task["status"] for task in await reported(hub)] == ["running", "succeeded"]


async def test_one_that_was_away_all_the_time_is_told_of_it(tmp_path: Path) -> None:
    async with hub_app(tmp_path):
        pass
    assert (await ran("--state-dir", str(tmp_path), "--name", "j", "--", "sh", "-c", "exit 4"))[0] == 4
    async with back(tmp_path) as hub:
        [task] = await reported(hub)
        assert (task["id"], task["error"]) == ("run:j", "exit status 4")


async def test_a_hub_that_was_frozen_is_told(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with hub_process(tmp_path) as hub, running("--state-dir", str(state), "--name", "j", "--", *AWAY) as process:

        async def tasks() -> list[dict[str, Any]]:
            async with hub.http.get(hub.url + "api/events", params={"topics": TASK}) as response:
                return [event["payload"]["data"] for event in (await response.json())["events"]]

        while not await tasks():
            pass
        hub.signal(signal.SIGSTOP)
        try:
            await end(process, 0)
        finally:
            hub.signal(signal.SIGCONT)
        while (found := await tasks())[-1]["status"] == "running":
            pass
        await until(lambda: not kept(state))
        assert [task["status"] for task in found] == ["running", "succeeded"]


async def test_who_looks_at_it_is_told_that_it_will_be(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with hub_app(state):
        pass
    async with on_terminal(tmp_path, "run", "--state-dir", str(state), "--", "sh", "-c", "exit 9") as shown:
        status, text = await shown.ended()
    assert status == 9
    assert text.startswith("hub: The next hub here is told how this has ended. No hub is running here")


async def test_nothing_is_left_for_a_hub_that_is_elsewhere_or_never_was(tmp_path: Path) -> None:
    assert (await ran("--state-dir", str(tmp_path), "--", "true"))[0] == 0
    assert os.listdir(tmp_path) == []
    (tmp_path / "lock").touch()
    assert (await ran("--url", "http://127.0.0.1:9", "--", "true"))[0] == 0
    assert kept(tmp_path) == []


@pytest.fixture(params=["", "weakened"])
def before(request: pytest.FixtureRequest) -> str:
    """Weakened: whoever has named an address has left nothing."""
    weakened = "from hub.cli import notes; notes.Notes._look = lambda self: None;"
    return weakened if request.param else ""


@pytest.mark.parametrize("how", ["--url", "localhost", "HUB_URL", "--state-dir", "HUB_STATE_DIR"])
async def test_the_hub_at_an_address_is_told(
    how: str, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is this account's, or its state directory was named, too."""
    state = tmp_path / "hub"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path if how != "--state-dir" else tmp_path / "other"))
    monkeypatch.delenv("HUB_STATE_DIR", raising=False)
    async with hub_app(state) as hub:
        url = hub.url.rstrip("/")
        if how in ("--url", "localhost", "HUB_URL"):
            (state / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
            (state / "server.json").chmod(0o600)
        url = url.replace("127.0.0.1", "localhost") if how == "localhost" else url
        words = () if how == "HUB_URL" else ("--url", url, *(("--state-dir", str(state)) * (how == "--state-dir")))
        if how in ("HUB_URL", "HUB_STATE_DIR"):
            monkeypatch.setenv(how, url if how == "HUB_URL" else str(state))
        process = await started(*words, "--name", "j", "--", *AWAY, before=before)
        await becomes(hub, "run:j", "running")
        (state / "server.json").unlink(missing_ok=True)
    assert process.stdin
    out, err = await process.communicate(b"0\n")
    assert (process.returncode, out, len(kept(state))) == (0, b"", not before)
    assert (b"nothing could be left for it; name its state directory with --state-dir" in err) == bool(before)
    assert err.count(b"\n") == bool(before)
    monkeypatch.delenv("HUB_URL", raising=False)
    async with hub_app(state) as hub:
        assert (await becomes(hub, "run:j", "failed" if before else "succeeded")).get("error") == (
            "process ended" if before else None
        )


async def test_nothing_is_left_for_a_hub_at_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that this account has is none of its business."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("HUB_STATE_DIR", raising=False)
    async with hub_app(tmp_path / "hub"):
        pass
    (tmp_path / "hub" / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:8", "pid": os.getpid()}))
    (tmp_path / "hub" / "server.json").chmod(0o600)
    async with hub_app(tmp_path / "another") as hub:
        process = await started("--url", hub.url, "--name", "j", "--", *AWAY)
        await becomes(hub, "run:j", "running")
    out, err = await process.communicate(b"3\n")
    assert (process.returncode, out, kept(tmp_path / "hub")) == (3, b"", [])
    assert err.startswith(b"hub: The hub that was told of the start of this is not told how it ended, and nothing")


# ---- what is left


def ended(number: int, **more: Any) -> dict[str, Any]:
    data = {"id": "run:j", "status": "succeeded", "started_at": f"2026-12-01T10:{number:02}:00.000Z", **more}
    return {"event": TASK, "id": f"end-{number}", "data": data}


NO_ENDS: list[Any] = [
    None,
    [],
    ended(1) | {"event": "orders:paid"},
    ended(1) | {"id": 5},
    ended(1) | {"data": "x"},
    ended(1, status="running"),
    ended(1, id="claude-code:x"),
    ended(1, progress=1000),
]


async def test_what_is_no_end_is_not_published(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FOLDER).mkdir(mode=0o700)
    for number, record in enumerate(NO_ENDS):
        path = tmp_path / FOLDER / f"{time.time_ns() + number:020}-x.json"
        path.write_text(json.dumps(record))
        path.chmod(0o600)
    async with back(tmp_path) as hub:
        assert await reported(hub) == []
    assert caplog.text.count("it is removed") == len(NO_ENDS)


BAD = {
    "half a surrogate": r'"message":"\ud800"',
    "no number": '"message":NaN',
    "too large a number": '"message":1e999',
    "a key twice": '"message":"a","message":"b"',
    "too deep": '"message":' + "[" * 5000 + "]" * 5000,
}


async def unguarded(ends: Ends) -> None:
    """Weakened: each file is believed to be good."""
    for _, data in left(ends._directory):
        await ends._publish(ends._directory, data)


def put(state: Path, data: str) -> None:
    (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
    path = state / FOLDER / f"{time.time_ns():020}-x.json"
    path.write_text(data)
    path.chmod(0o600)


@pytest.mark.parametrize("lenient", [False, True], ids=["", "lenient"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_file_ends_nothing_but_itself(
    tmp_path: Path, bad: str, lenient: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read as strictly as what comes over the wire; what passes all the same ends nothing either."""
    async with hub_app(tmp_path):
        pass
    if lenient:
        monkeypatch.setattr(ends, "loads", json.loads)
    put(tmp_path, f'{{"event":"{TASK}","id":"bad","data":{{"id":"run:a","status":"succeeded",{bad}}}}}')
    assert leave(tmp_path, ended(1))
    async with back(tmp_path) as hub:
        assert hub.hub.problems() == {}
        if not lenient:
            assert [task["id"] for task in await reported(hub)] == ["run:j"]
    assert lenient or caplog.text.count("; it is removed") == 1


@pytest.mark.parametrize("spoil", ["link", "file", "open"])
async def test_a_folder_that_is_refused_is_told_once(
    tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liveness, "LEFT_SECONDS", 0.01)
    folder, looks, take = tmp_path / FOLDER, list[int](), Ends.take
    (tmp_path / "docs").mkdir()
    if spoil == "link":
        folder.symlink_to("docs")
    elif spoil == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)

    async def counted(ends: Ends) -> None:
        looks.append(1)
        await take(ends)

    monkeypatch.setattr(Ends, "take", counted)
    async with hub_app(tmp_path) as hub:
        await until(lambda: len(looks) > 2, "several looks")
        assert hub.hub.problems() == {}
    (said,) = [each.message for each in caplog.records if "how programs ended" in each.message]
    assert f"{folder} is " in said
    assert "move it away" in said


async def test_weakened_it_would_end_the_watch_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "loads", json.loads)
    monkeypatch.setattr(Ends, "take", unguarded)
    data = {"id": "run:a", "status": "succeeded", "message": "\ud800"}
    put(tmp_path, json.dumps({"event": TASK, "id": "bad", "data": data}))
    async with hub_app(tmp_path) as hub:
        await until(hub.hub.problems)
        assert kept(tmp_path)


@pytest.mark.parametrize(("began", "status"), [(5, "running"), (1, "succeeded")], ids=["anew", "the same"])
async def test_a_run_that_has_begun_since_is_not_hidden(tmp_path: Path, began: int, status: str) -> None:
    async with hub_app(tmp_path) as hub:
        await hub.hub.publish(TASK, ended(began, status="running")["data"])
    assert leave(tmp_path, ended(1))
    async with back(tmp_path) as hub:
        assert (await reported(hub))[-1]["status"] == status


async def test_it_stays_until_it_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_app(tmp_path):
        pass
    assert leave(tmp_path, ended(1))
    monkeypatch.setattr(liveness, "RETRY_SECONDS", 0.01)
    publish, tries = EventBus.publish, []

    async def fails_once(bus: EventBus, records: Any, *, many: bool = False) -> Any:
        tries.append(len(kept(tmp_path)))
        if len(tries) == 1:
            raise HubError("broker_unavailable", "The disk is full.")
        return await publish(bus, records, many=many)

    monkeypatch.setattr(EventBus, "publish", fails_once)
    async with back(tmp_path) as hub:
        assert tries == [1, 1]
        assert len(await reported(hub)) == 1


async def test_it_is_taken_also_while_the_hub_runs_and_no_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a program of which the hub had not heard before."""
    monkeypatch.setattr(liveness, "LEFT_SECONDS", 0.05)
    async with hub_app(tmp_path) as hub:
        assert leave(tmp_path, ended(1))
        await becomes(hub, "run:j", "succeeded")


@pytest.mark.parametrize("when", ["soon", "as it listens"])
async def test_who_found_no_hub_just_before_it_listened_is_known_soon(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "LEFT_SECONDS", 1e6)
    monkeypatch.setattr(liveness, "SOON_SECONDS", 0.01 if when == "soon" else 1e6)
    async with hub_app(tmp_path) as hub:
        assert leave(tmp_path, ended(1))
        if when != "soon":
            hub.hub.liveness.look_soon()
        await becomes(hub, "run:j", "succeeded")


LATE = """
from hub.leftovers import leave
from hub.stream import ends, liveness

def setup(hub):
    liveness.SOON_SECONDS = hub.liveness._pause = 1e6
    if {weakened}:
        liveness.Liveness.look_soon = lambda self: None
    async def late(hub):
        assert leave(hub.config.state_dir, {record})
    hub.on_start.append(late)
"""


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_looks_again_when_it_listens(tmp_path: Path, weakened: bool) -> None:
    (tmp_path / "late.py").write_text(LATE.format(weakened=weakened, record=ended(1)))
    async with hub_process(tmp_path, "--load", "late") as hub:
        if not weakened:
            await until(lambda: not kept(hub.state_dir))
        async with hub.http.get(hub.url + "api/state", params={"topics": TASK}) as answer:
            assert len((await answer.json())["items"]) == (not weakened)
        assert len(kept(hub.state_dir)) == weakened
