"""`hub --demo` keeps nothing: the operator's own hub is afterwards what it was. While it runs, it is found as any."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cli.test_run import running
from cli.test_run_left import AWAY, end, ended
from running import HubProcess, hub_app, hub_process, run_hub, until

from hub import demo
from hub.config import Config
from hub.errors import Occupied, UsageError
from hub.leftovers import FOLDER, leave
from hub.private import lock, prepare_directory
from hub.web.serverfile import announced
from hub.web.unkept import unkept


def kept(directory: Path) -> dict[str, bytes]:
    """What is in a folder, but for the number in the lock."""
    files = {path.name: path for path in directory.iterdir() if path.name != "lock"}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine has what is not kept."""
    found = tmp_path / "scratch"
    found.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(found))
    monkeypatch.setenv("TMPDIR", str(found))
    return found


async def test_the_demo_leaves_ones_own_hub_as_it_was(tmp_path: Path, scratch: Path) -> None:
    async with hub_process(tmp_path) as hub:
        assert (await run_hub(tmp_path, "publish", "a:mine", "1", "--url", hub.url))[0] == 0
    before, where = kept(tmp_path / "state"), ("--state-dir", "state")
    async with hub_process(tmp_path, "--demo", "--auth", "token") as hub:
        status = json.loads((await run_hub(tmp_path, "status", *where))[1])  # by server.json, and with its token
        assert status["url"] == hub.url.rstrip("/")
        assert (await run_hub(tmp_path, "publish", "a:theirs", "2", *where))[0] == 0
        assert (await run_hub(tmp_path, "tail", "a:*", "--after", "start", "--count", "1", *where))[1].count("theirs")
        words = ("ask", "Well?", "--option", "yes", "--option", "no", "--timeout", "1", "--default", "no", *where)
        assert (await run_hub(tmp_path, *words))[:2] == (10, "no\n")
        assert len(os.listdir(scratch)) == 1
    assert os.listdir(scratch) == []
    assert {name: data for name, data in kept(tmp_path / "state").items() if name != "token"} == before
    async with hub_process(tmp_path) as hub, hub.http.get(f"{hub.url}api/events") as answer:
        assert [event["payload"]["event"] for event in (await answer.json())["events"]] == ["a:mine"]


async def test_a_folder_that_was_made_for_it_goes_with_it(tmp_path: Path, scratch: Path) -> None:
    async with hub_process(tmp_path, "--demo", "--auth", "token") as hub:
        assert sorted(os.listdir(hub.state_dir)) == ["lock", "server.json", "token"]
    assert os.listdir(tmp_path) == ["scratch"]


@pytest.mark.parametrize("flags", [(), ("--auth", "token")], ids=["local", "token"])
async def test_a_folder_that_was_empty_is_empty_again(tmp_path: Path, scratch: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    async with hub_process(tmp_path, "--demo", *flags) as hub:
        assert "lock" in os.listdir(hub.state_dir)
    assert os.listdir(tmp_path / "state") == []


async def task(hub: HubProcess) -> Any:
    async with hub.http.get(f"{hub.url}api/state", params={"topics": "task:progress"}) as answer:
        found = {item["key"]: item["data"] for item in (await answer.json())["items"]}
    return found.get("run:j", {}).get("status")


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_ends_while_the_demo_runs_is_told_to_ones_own_hub(
    tmp_path: Path, scratch: Path, weakened: bool
) -> None:
    """By the demo, also of a program that does not find out by itself that another hub has come."""
    state, handed = tmp_path / "state", tmp_path / "state" / FOLDER
    code = "from hub.stream import ends\ndef setup(hub):\n    " + (
        "ends.leave = lambda *given: False" if weakened else "pass"
    )
    (tmp_path / "weak.py").write_text(code)
    async with contextlib.AsyncExitStack() as stack:
        async with hub_process(tmp_path) as own:
            words = ("--state-dir", str(state), "--name", "j", "--", *AWAY)
            before = "from hub.cli import reports; reports._is_one = lambda epochs: True"
            program = await stack.enter_async_context(running(*words, before=before))
            while await task(own) != "running":
                pass
        async with hub_process(tmp_path, "--demo", "--load", "weak") as played:
            await end(program, 0)
            while await task(played) != "succeeded":
                pass
            if not weakened:
                await until(lambda: len(os.listdir(handed)) == 1)
        async with hub_process(tmp_path) as own:
            while (found := await task(own)) == "running":
                pass
            assert found == ("failed" if weakened else "succeeded")


async def test_nothing_is_handed_on_where_no_other_hub_has_been(tmp_path: Path, scratch: Path) -> None:
    with unkept(Config(state_dir=tmp_path / "state", demo=True)) as config:
        assert config.ends == "ignore"
    (tmp_path / "lock").touch()
    with unkept(Config(state_dir=tmp_path, demo=True)) as config:
        assert config.ends == "leave"


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_was_left_for_ones_own_hub_stays_wherever_the_demo_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Also in the state directory itself, when that is where this machine has what is not kept."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "lock").touch()
    assert leave(tmp_path, ended(1))
    with unkept(Config(state_dir=tmp_path, demo=True)) as config:
        use: Any = "take" if weakened else config.ends
        async with hub_app(config.state_dir, shared_dir=str(tmp_path), broker="memory:", ends=use) as hub:
            await until(lambda: hub.hub.cursor.seq or not weakened)
    assert len(os.listdir(tmp_path / FOLDER)) == (not weakened)


Room = Callable[[Config], AbstractContextManager[Config]]


@contextlib.contextmanager
def as_any(config: Config) -> Iterator[Config]:
    """Weakened: a hub as any other."""
    yield config


@pytest.mark.parametrize("room", [unkept, as_any], ids=["", "weakened"])
async def test_nothing_of_a_made_up_life_is_kept(room: Room, tmp_path: Path, scratch: Path) -> None:
    with room(Config(port=0, state_dir=tmp_path / "state", demo=True)) as config:
        given: dict[str, Any] = {
            name: getattr(config, name) for name in ("demo", "shared_dir", "broker", "tells", "ends")
        }
        async with hub_app(config.state_dir, prepare=demo.setup, **given) as hub:
            with announced(hub.hub, hub.url):
                await hub.publish(1)
                assert (tmp_path / "state" / "server.json").exists()
    async with hub_app(tmp_path / "state") as hub:
        assert hub.hub.cursor.seq == 0 if room is unkept else hub.hub.cursor.seq > 0


def test_people_are_told_by_a_file_that_is_named_only(tmp_path: Path, scratch: Path) -> None:
    with unkept(Config(state_dir=tmp_path, demo=True)) as config:
        assert (config.tells, config.common_dir) == (False, tmp_path)
    with unkept(Config(state_dir=tmp_path, demo=True, config="hub.toml")) as config:
        assert config.tells


@pytest.mark.parametrize("settings", [{"broker": "redis://store"}, {"workers": 2}])
def test_a_store_of_several_would_keep_it(settings: dict[str, Any], tmp_path: Path) -> None:
    given = Config(state_dir=tmp_path / "state", demo=True, **settings)
    with pytest.raises(UsageError, match="which no store keeps"), unkept(given):
        pass
    assert os.listdir(tmp_path) == []


def test_where_it_cannot_be_it_is_not(tmp_path: Path, scratch: Path) -> None:
    prepare_directory(tmp_path / "taken")
    held = lock(tmp_path / "taken")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "others").touch()
    (tmp_path / "open").chmod(0o755)
    refused = {"taken": (Occupied, "is using"), "file": (UsageError, "cannot be used"), "open": (UsageError, "is open")}
    for name, (kind, why) in refused.items():
        with pytest.raises(kind, match=why), unkept(Config(state_dir=tmp_path / name, demo=True)):
            pass
    os.close(held)
    assert os.listdir(scratch) == []
