"""How programs ended is left and removed in a folder of this account alone, and nothing else there is touched."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.test_run_left import ended

from hub import leftovers
from hub.leftovers import FOLDER, leave, left, remove
from hub.private import Unsafe


def name(id: str, ending: str = ".json", age: float = 0.0) -> str:
    return f"{time.time_ns() - int(age * 1e9):020}-{id}{ending}"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def used(state: Path) -> list[bytes | None]:
    """All that is done with the folder, and what was found there."""
    leave(state, ended(1))
    found = read(state)
    for each, _ in found:
        remove(state, each)
    return [data for _, data in found]


def read(state: Path) -> list[tuple[str, bytes | None]]:
    """What is read there; nothing from a folder that is refused."""
    with contextlib.suppress(Unsafe):
        return list(left(state))
    return []


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a hub has been; two files are as many as it keeps."""
    monkeypatch.setattr(leftovers, "MOST", 2)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "lock").touch()
    return tmp_path / "state"


def test_it_is_bounded(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "MOST", 5)
    assert not leave(state, ended(0, message="x" * leftovers.LARGEST))
    for number in range(9):
        assert leave(state, ended(number))
    found = [json.loads(data or b"null")["id"] for _, data in left(state)]
    assert found == [f"end-{number}" for number in range(4, 9)]
    assert {path.stat().st_mode & 0o777 for path in [state / FOLDER, *(state / FOLDER).iterdir()]} == {0o700, 0o600}
    monkeypatch.setattr(leftovers, "OLDEST", -1.0)
    assert [data for _, data in left(state)] == [None] * 5


@pytest.mark.parametrize("weakened", [False, True])
def test_no_secret_is_written_down(state: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(leftovers, "redact", lambda value: (value, 0))
    secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    end = ended(0, message=f"made {secret}")
    end["data"] |= {"id": f"run:{secret}", "name": secret}
    assert leave(state, end)
    ((_, data),) = left(state)
    assert (secret.encode() in (data or b"")) is weakened
    if not weakened:
        cleaned = {"id": "run:[redacted]", "name": "[redacted]", "message": "made [redacted]"}
        assert json.loads(data or b"null")["data"] == end["data"] | cleaned
    assert end["data"]["name"] == secret, "the record that was given is another's"


def test_what_cannot_be_left_is_not(state: Path) -> None:
    assert not leave(state / "none", ended(0))
    assert not leave(state, ended(0) | {"id": "../../x"})
    (state / FOLDER).touch()
    assert not leave(state, ended(0))
    with pytest.raises(Unsafe, match="ends is a symbolic link, or no folder"):
        list(left(state))
    remove(state, name("x"))


def test_the_folder_of_another_account_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "private_folder", failing(PermissionError))
    with pytest.raises(Unsafe, match="ends is closed to this account"):
        list(left(state))


def test_what_a_kill_has_left_half_goes_with_its_age(state: Path) -> None:
    (state / FOLDER).mkdir(mode=0o700)
    for age in (0.0, 2 * leftovers.OLDEST):
        (state / FOLDER / name("x", ".tmp", age)).touch(mode=0o600)
    assert [(each.partition("-")[2], data) for each, data in left(state)] == [("x.tmp", None)]


def test_what_cannot_be_read_or_was_taken_by_another_is_passed_over(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leave(state, ended(1))
    for error in (PermissionError, FileNotFoundError):
        with monkeypatch.context() as patch:
            patch.setattr(leftovers, "read_private", failing(error))
            assert list(left(state)) == []
    assert len(list(left(state))) == 1


def failing(error: type[OSError]) -> Any:
    def read(*words: Any) -> bytes:
        raise error

    return read


@pytest.mark.parametrize("weakened", [False, True])
def test_a_planted_link_is_not_followed(state: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = state.parent / "docs"
    docs.mkdir(mode=0o700)
    (docs / name("x", age=60)).write_text("mine")
    (state / FOLDER).symlink_to(docs)
    before = contents(docs)
    if weakened:
        monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    found = used(state)
    assert (contents(docs) == before, found == []) == (not weakened, not weakened)


@contextlib.contextmanager
def any_folder(path: Path) -> Iterator[int]:
    """Weakened: whoever may write there."""
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770])
@pytest.mark.parametrize("weakened", [False, True])
def test_a_folder_that_is_open_to_others_is_not_touched(
    state: Path, mode: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / FOLDER).mkdir()
    (state / FOLDER / name("x", age=60)).write_text("mine")
    (state / FOLDER).chmod(mode)
    before = contents(state / FOLDER)
    if weakened:
        monkeypatch.setattr(leftovers, "private_folder", any_folder)
    found = used(state)
    assert (contents(state / FOLDER) == before, found == []) == (not weakened, not weakened)


@pytest.mark.parametrize("weakened", [False, True])
def test_files_of_other_names_and_kinds_are_not_touched(
    state: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state / FOLDER
    folder.mkdir(mode=0o700)
    names = ["data.json", name("x", ".txt", 60), f"x{name('x', age=60)}", name("", age=60), "x.tmp"]
    for each in names:
        (folder / each).write_text("mine")
    (folder / name("folder", age=60)).mkdir()
    (folder / name("link", age=60)).symlink_to("data.json")
    before = contents(folder)
    if weakened:
        monkeypatch.setattr(leftovers, "NAME", re.compile("[0-9]{20}.*"))
    found = used(state)
    assert (contents(folder) == before, len(found) == 1) == (not weakened, not weakened)
