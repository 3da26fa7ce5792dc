"""hub.d.ts says what hub.js has, and what a program may do with it."""

import re
from pathlib import Path

import pytest
from documents.test_valid import needs_node, run

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "templates" / "static"
FLAGS = "--noEmit --strict --target es2022 --module es2022 --moduleResolution bundler --lib es2022,dom --types".split()
FLAGS += [""]  # no types of others
MEMBER = re.compile(r"^  (?:async |readonly )?(\[?\w[\w.]*\]?)[?:;(<]", re.MULTILINE)


def members(name: str) -> set[str]:
    """What is public in HubClient, as this file has it."""
    text = (STATIC / name).read_text("utf-8").partition("export class HubClient")[2].partition("\n}")[0]
    return set(MEMBER.findall(text))


def test_what_is_there_is_what_is_said() -> None:
    assert members("hub.js") == members("hub.d.ts")
    assert {"publish", "next", "cursor", "constructor"} <= members("hub.d.ts")


@pytest.mark.parametrize("damage", ["", "hub.publish(1)"])
async def test_a_program_in_typescript(tmp_path: Path, damage: str) -> None:
    """What must be an error stands in it as one; so one more is found."""
    node, compiler = needs_node("typescript")
    program = (HERE / "use.ts").read_text("utf-8").replace("../../templates", str(STATIC.parent))
    (tmp_path / "use.ts").write_text(f"{program}{damage}\n")
    status, said = await run(tmp_path, node, compiler, *FLAGS, tmp_path / "use.ts")
    assert bool(status) is bool(damage), said
