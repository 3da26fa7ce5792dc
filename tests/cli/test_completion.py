"""What a shell is offered when somebody presses Tab: as argcomplete asks, against a running hub."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from forks import PIPE, fork
from marshmallow import fields, validate
from running import HubInside, environment, hub_app

from hub import Call, Hub

PACK: dict[str, fields.Field[Any]] = {
    "order": fields.Integer(strict=True, required=True),
    "why": fields.String(validate=validate.OneOf(["late", "wrong"])),
    "gift": fields.Boolean(),
}


def prepare(hub: Hub) -> None:
    @hub.command("orders:pack", PACK)
    async def pack(call: Call) -> None:
        """Pack an order."""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub", prepare=prepare) as running:
        yield running


async def offered(folder: Path, line: str, url: str, before: str = "") -> tuple[list[str], bytes]:
    """What completes this line, in which the cursor is at the end; and what has been printed meanwhile."""
    answer = folder / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " ",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "HUB_URL": url,
    }
    answer.touch()
    env = {**environment(), **asked}
    process = await fork(cwd=folder, env=env, stdout=PIPE, stderr=PIPE, before=f"import sys;{before}")
    out, err = await process.communicate()
    assert process.returncode == 0
    return [word.strip() for word in answer.read_text().split("\n") if word], out + err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hub pu", ["publish"]),
        ("hub publish task", ["task:progress"]),
        ("hub tail 'age", ["agent:*", "agent:status_change", "agent:tool_call"]),
        ("hub call orders", ["orders:pack"]),
        ("hub call hub:ans", ["hub:answer"]),
        ("hub call orders:pack ", ["order=", "why=", "gift="]),
        ("hub call orders:pack why=late ", ["order=", "gift="]),
        ("hub call orders:pack why=", ["why=late", "why=wrong"]),
        ("hub call orders:pack gift=t", ["gift=true"]),
        ("hub call orders:pack order=", []),
        ("hub call no:such ", []),
        ("hub call orders:pack --ye", ["--yes"]),
    ],
)
async def test_a_line_is_completed(hub: HubInside, tmp_path: Path, line: str, words: list[str]) -> None:
    assert await offered(tmp_path, line, hub.url) == (words, b"")


async def test_pressing_tab_leaves_no_record(hub: HubInside, tmp_path: Path) -> None:
    assert len((await offered(tmp_path, "hub call hub:", hub.url))[0]) > 10
    assert await hub.records("command.called") == []


async def test_without_a_hub_or_argcomplete_nothing_is_offered_and_nothing_said(tmp_path: Path) -> None:
    assert await offered(tmp_path, "hub call ", "http://127.0.0.1:1") == ([], b"")
    gone = "sys.modules['argcomplete']=None;"
    assert await offered(tmp_path, "hub pu", "http://127.0.0.1:1", gone) == ([], b"")
