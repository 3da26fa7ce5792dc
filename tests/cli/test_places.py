"""Where the place of a tail is kept: a private file, one holder, no way out of the folder."""

import argparse
import contextlib
import fcntl
from pathlib import Path
from typing import Any

import pytest
from running import hub_app

from hub.cli import following, places
from hub.cli.beginnings import begin
from hub.cli.following import Following
from hub.cli.interrupts import Wish
from hub.cli.main import parser
from hub.cli.places import Place, place, place_name
from hub.cli.writing import Unwritten
from hub.client.client import HubClient
from hub.errors import UsageError
from hub.private import FILE


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\n", ".hidden", "a" * 65, "é", "a\0b", "-" * 65])
def test_a_name_is_no_way_out(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        place_name(name)


def test_names_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "a.b", "a.c", "a.cursor", "a.lock", "A", "_", "-"):
        with Place(tmp_path, place_name(name)) as place:
            place.keep(f"e:{len(name)}")
            assert place.read() == f"e:{len(name)}"


def test_a_place_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Place(tmp_path, "a"):
        with pytest.raises(UsageError, match="is running"), Place(tmp_path, "a"):
            raise AssertionError("entered")
        monkeypatch.setattr(fcntl, "flock", lambda *args: None)  # weakened
        with Place(tmp_path, "a"):
            pass
    with Place(tmp_path, "a"):
        pass


def test_a_place_is_private_whatever_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    with Place(tmp_path / "state", "a") as place:
        path = tmp_path / "state" / "tails" / "a.cursor"
        path.symlink_to(elsewhere)
        with pytest.raises(UsageError, match="symbolic link"):
            place.read()
        place.keep("e:1")
        assert (elsewhere.read_text(), path.is_symlink(), path.stat().st_mode & 0o777) == ("mine", False, FILE)


@pytest.mark.parametrize("text", ["", "no cursor", "e:1\ne:2", "e:-1", "\xff"])
def test_what_is_no_place_is_said(text: str, tmp_path: Path) -> None:
    with Place(tmp_path, "a") as place:
        assert place.read() is None
        (tmp_path / "tails" / "a.cursor").write_text(text, "latin-1")
        with pytest.raises(UsageError, match="remove it"):
            place.read()


def test_where_no_place_can_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/hub")):
        with pytest.raises(UsageError, match="No place can be kept"), Place(folder, "a"):
            raise AssertionError("entered")


class Full:
    """A stdout that takes a number of lines."""

    ROOM = 2

    def __init__(self, stream: Any) -> None:
        self.room = self.ROOM

    def cancelled_when_unread(self, task: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def write(self, line: str) -> None:
        if not self.room:
            raise Unwritten(OSError(28, "No space left on device"))
        self.room -= 1


@pytest.fixture(params=[False, True], ids=["", "weakened"])
def weakened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Weakened: what was handed out counts as written."""
    if request.param:
        monkeypatch.setattr(Following, "cursor", property(lambda self: self._hub.cursor))
    return bool(request.param)


async def test_the_place_is_behind_what_was_written(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "Output", Full)
    args = parser().read(["tail", "--resume", "a", "--after", "start"])
    async with hub_app(tmp_path) as hub:
        await hub.publish(4)
        with Place(tmp_path, "a") as place:
            async with HubClient(hub.url) as client:
                with pytest.raises(Unwritten):
                    await Following(args, client, place, Wish(lambda number: None)).run(
                        await begin(args, client, HubClient)
                    )
            assert place.read() == f"{hub.hub.cursor.epoch}:{3 if weakened else 2}"


@pytest.mark.parametrize("words", [["--after", "start"], ["-n", "3"]])
async def test_a_tail_that_has_written_nothing_begins_there_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "Output", Full)
    monkeypatch.setattr(Full, "ROOM", 0)
    args = parser().read(["tail", "--resume", "a", *words])
    async with hub_app(tmp_path) as hub:
        await hub.publish(3)
        with Place(tmp_path, "a") as place:
            async with HubClient(hub.url) as client:
                items = await begin(args, client, lambda after: HubClient(hub.url, after=after))
                with pytest.raises(Unwritten):
                    await Following(args, client, place, Wish(lambda number: None)).run(items)
            assert place.read() == f"{hub.hub.cursor.epoch}:0"


async def test_a_place_that_cannot_be_kept_ends_the_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(places, "write_whole", full)
    args = parser().read(["tail", "--resume", "a"])
    async with hub_app(tmp_path / "hub") as hub:
        with Place(tmp_path / "state", "a") as place:
            async with HubClient(hub.url) as client:
                with pytest.raises(Exception, match="The place of a cannot be kept"):
                    await Following(args, client, place, Wish(lambda number: None)).run(client)


@pytest.mark.parametrize("text", ["", "../x", "a b", "x" * 200])
def test_what_cannot_name_a_place_is_said_in_one_sentence(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        place(text)
    assert "\n" not in str(error.value)
