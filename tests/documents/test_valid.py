"""Both documents are what their makers call valid; and schemathesis finds nothing that the hub does otherwise.

These tests have an environment of their own, `tox -e documents`: what they need is nothing that the hub needs.
"""

import asyncio
import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from documented import Part, document, operations
from marshmallow import fields
from running import HubInside, hub_app, talk

from hub import Call, Event, Hub
from hub.commands.asked import Person
from hub.commands.call import Command

HERE = Path(__file__).parent
UNSENT = ("/events", "/ws", "/openapi.json")  # what schemathesis leaves out: without an end, and the document itself


def prepare(hub: Hub) -> None:
    """What an application adds; and somebody who answers every question at once."""

    @hub.command("test:look", {"order": fields.Integer(strict=True, required=True)}, effect="read")
    async def look(call: Call) -> Any:
        """Look at an order."""
        return call.args["order"]

    @hub.on("hub:question")
    async def answer(event: Event) -> None:
        if event.data["status"] == "open":
            await hub.questions.answer(event.data["id"], event.data["options"][0], Person("somebody"))


async def run(folder: Path, *command: str | Path, **environment: str) -> tuple[int, str]:
    """Run a program to its end, in a folder that it may write into; its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment}, cwd=folder
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def needs(module: str) -> str:
    """The name of a Python module, if it is there."""
    if find_spec(module) is None:
        pytest.skip(f"there is no {module} here (tox -e documents)")
    return module


def needs_node(package: str) -> tuple[str, str]:
    """Node, and where this package of npm begins, if both are there: tox puts it on NODE_PATH."""
    program = shutil.which("node") or "node"
    try:
        look = [program, "-p", f"require.resolve('{package}/package.json')"]
        found = subprocess.run(look, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"there is no Node with the package {package} here (tox -e documents)")
    main = json.loads(Path(found).read_text("utf-8"))
    return program, str(Path(found).parent / (main.get("bin", {}).get("tsc") or main["main"]))


# ---- valid


async def openapi_problems(found: Part, folder: Path) -> str:
    path = folder / "openapi.json"
    path.write_text(json.dumps(found))
    status, said = await run(folder, sys.executable, "-m", needs("openapi_spec_validator"), "--schema", "3.1", path)
    return said if status else ""


async def asyncapi_problems(found: Sequence[Part], folder: Path) -> list[str]:
    """Of each what is wrong with it. One process reads them all: it takes seconds to start."""
    paths = [folder / f"{number}.json" for number in range(len(found))]
    for path, one in zip(paths, found, strict=True):
        path.write_text(json.dumps(one))
    status, said = await run(folder, needs_node("@asyncapi/parser")[0], HERE / "parse.cjs", *paths)
    assert status == 0, said
    return ["".join(line for line in said.splitlines(keepends=True) if line.startswith(f"{path}: ")) for path in paths]


def without_a_response(found: Part) -> None:
    del found["components"]["responses"]["Refused400"]


def with_two_of_a_name(found: Part) -> None:
    found["paths"]["/healthz"]["get"]["operationId"] = found["paths"]["/readyz"]["get"]["operationId"]


def without_a_message(found: Part) -> None:
    del found["components"]["messages"]["HubAskCommand"]


def with_an_answer_by_nothing(found: Part) -> None:
    del found["operations"]["HubAsk"]["reply"]["channel"]
    found["operations"]["HubAsk"]["action"] = "answer"


async def served(tmp_path: Path, name: str) -> Part:
    """A document of a hub with everything that there can be in one."""
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    async with hub_app(tmp_path / "state", prepare=prepare) as hub, talk(hub.url) as provider:
        await provider.call("hub:provide", commands=[{"name": "test:serve", "args": schema, "effect": "dangerous"}])
        return await document(hub, name)


@pytest.mark.parametrize("damage", [None, without_a_response, with_two_of_a_name])
async def test_openapi_is_valid(tmp_path: Path, damage: Callable[[Part], None] | None) -> None:
    found = await served(tmp_path, "openapi")
    if damage:
        damage(found)
    assert bool(await openapi_problems(found, tmp_path)) is bool(damage)


async def test_asyncapi_is_valid(tmp_path: Path) -> None:
    damages = (without_a_message, with_an_answer_by_nothing)
    whole = await served(tmp_path, "asyncapi")
    damaged = [copy.deepcopy(whole) for _ in damages]
    for damage, found in zip(damages, damaged, strict=True):
        damage(found)
    nothing, *problems = await asyncapi_problems([whole, *damaged], tmp_path)
    assert nothing == ""
    assert all(problems), problems


# ---- and true


async def schemathesis(hub: HubInside, *options: str) -> tuple[int, str]:
    """Let it send what fits the document, and what does not; its exit status, 1 if the hub has not done as it says."""
    command = (sys.executable, "-m", needs("schemathesis.cli"), "--config-file", HERE / "schemathesis.toml", "run")
    more = (f"{hub.url}openapi.json", "--no-color", *options)
    return await run(hub.hub.config.state_dir, *command, *more, SCHEMATHESIS_HOOKS="hooks", PYTHONPATH=str(HERE))


@pytest.mark.timeout(240)  # it takes half a minute by itself
async def test_the_hub_does_what_the_document_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with hub_app(tmp_path, prepare=prepare, rate=0) as hub:
        described = operations(await document(hub))
        status, said = await schemathesis(hub, "--phases", "coverage,fuzzing", "--max-examples", "3")
    assert status == 0, said
    assert f"Tested: {len(described) - len(UNSENT)}\n" in said, said
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def anything(call: Call) -> Any:
    return {"cancelled": "perhaps"}


@pytest.mark.parametrize("weakness", ["another answer", "any args"])
async def test_weakened_it_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakness: str) -> None:
    if weakness == "any args":
        monkeypatch.setattr(Command, "check", lambda self, args: {"id": "x", **args})
    async with hub_app(tmp_path, rate=0) as hub:
        if weakness == "another answer":
            commands = hub.hub.commands._commands
            commands["hub:cancel"] = replace(commands["hub:cancel"], handler=anything)
        options = ("--phases", "coverage,fuzzing", "--max-examples", "3", "--include-path", "/api/commands/hub:cancel")
        status, said = await schemathesis(hub, *options)
    assert status == 1, said
    assert "violates schema" in said or "should have been rejected" in said, said
