"""`hub call`: what there is, what a command takes, and calls of it, with the words of a person or of a program."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from forks import DEVNULL, PIPE, Forked, fork
from marshmallow import fields, validate
from running import HubInside, environment, hub_app, send_signal, until
from terminals import CTRL_C, on_terminal

from hub import Call, Hub

ORDER: dict[str, fields.Field[Any]] = {
    "order": fields.Integer(strict=True, required=True, validate=validate.Range(min=1, max=9)),
    "why": fields.String(validate=validate.OneOf(["late", "wrong"])),
    "items": fields.List(fields.String()),
    "Note": fields.String(metadata={"description": "for whoever packs it"}),
    "weight": fields.Float(allow_none=True),
    "gift": fields.Boolean(),
    "where": fields.Dict(),
}


def prepare(hub: Hub) -> None:
    @hub.command("orders:cancel", ORDER, effect="write")
    async def cancel(call: Call) -> Any:
        """Cancel one order. Nobody is told."""
        return call.args

    @hub.command("orders:wipe", {"all": fields.Boolean(required=True)}, effect="dangerous")
    async def wipe(call: Call) -> Any:
        """Forget all orders."""
        return "wiped"

    @hub.command("orders:wait", {}, effect="write")
    async def wait(call: Call) -> Any:
        """Wait for ever."""
        await asyncio.Event().wait()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub", prepare=prepare) as running:
        yield running


Outcome = tuple[int | None, str, str]


@asynccontextmanager
async def calling(hub: HubInside, *words: str, stdin: int | None = DEVNULL) -> AsyncIterator[Forked]:
    """A running `hub call`."""
    env = {**environment(), "COLUMNS": "80"}
    process = await fork("call", *words, "--url", hub.url, stdin=stdin, stdout=PIPE, stderr=PIPE, env=env)
    try:
        yield process
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def call(hub: HubInside, *words: str, stdin: bytes | None = None) -> Outcome:
    async with calling(hub, *words, stdin=DEVNULL if stdin is None else PIPE) as process:
        out, err = await process.communicate(stdin)
        return process.returncode, out.decode(), err.decode()


async def answered(hub: HubInside, *words: str, stdin: bytes | None = None) -> Any:
    status, out, err = await call(hub, *words, stdin=stdin)
    assert (status, err, out.count("\n")) == (0, "", 1)
    return json.loads(out)


# ---- what there is, and what it takes


async def test_alone_it_lists_what_there_is(hub: HubInside) -> None:
    status, out, err = await call(hub)
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert found == (await hub.get("api/commands")).json
    status, out, _ = await call(hub, "--text")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == [command["name"] for command in found]
    assert "orders:cancel    write      Cancel one order" in lines
    said = " ".join(line[28:].strip() for line in lines)
    assert said == " ".join(command["summary"].partition(". ")[0].rstrip(".") for command in found)
    assert max(map(len, lines)) <= 80


HELP = """\
usage: hub call orders:cancel order=… [why=…] [items=…] [Note=…] [weight=…] [gift=…] [where:=JSON]

Cancel one order. Nobody is told.

args:
  order   whole number, 1 to 9, required
  why     one of late, wrong
  items   list of texts
  Note    text: for whoever packs it
  weight  number or null
  gift    true or false
  where   JSON object

effect: write
served by: the hub

example:
  hub call orders:cancel order=1 --url {url}
"""


async def test_help_is_made_of_the_schema(hub: HubInside) -> None:
    shown = HELP.format(url=hub.url.rstrip("/"))
    assert await call(hub, "orders:cancel", "--help") == (0, shown, "")
    assert await call(hub, "-h", "orders:cancel") == (0, shown, "")
    status, out, _ = await call(hub, "--help")
    assert (status, out.splitlines()[0][:16]) == (0, "usage: hub call ")


async def test_every_command_explains_itself_with_an_example_that_fits(hub: HubInside) -> None:
    for command in (await hub.get("api/commands")).json:
        status, out, err = await call(hub, command["name"], "--help")
        assert (status, err) == (0, "")
        assert command["summary"] in out
        assert all(f"  {arg} " in out for arg in command["args"].get("properties", {}))


# ---- what it is called with


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["order=5"], {"order": 5}),
        (['{"order": 5, "why": "late"}'], {"order": 5, "why": "late"}),
        (["order:=5", "weight=null", "gift=no"], {"order": 5, "weight": None, "gift": False}),
        (["order=5", "items=one", "items=two"], {"order": 5, "items": ["one", "two"]}),
        (
            ["order=5", "Note=5", "weight=1.5", 'where:={"a":[1]}'],
            {"order": 5, "Note": "5", "weight": 1.5, "where": {"a": [1]}},
        ),
        (["order=5", "--key", "k1", "Note=behind a flag"], {"order": 5, "Note": "behind a flag"}),
    ],
)
async def test_words_become_what_the_schema_says(hub: HubInside, words: list[str], args: dict[str, Any]) -> None:
    assert await answered(hub, "orders:cancel", *words) == args


async def test_what_is_looked_up_is_no_call(hub: HubInside) -> None:
    for words in ([], ["order:=5", 'items:=["a"]'], ['{"order": 5}'], ["order=5"], ["--help"], ["ordr=5"]):
        await call(hub, "orders:cancel", *words)
    assert {record["details"]["command"] for record in await hub.records("command.called")} == {"orders:cancel"}


@pytest.mark.parametrize("words", [[], ["-"]])
async def test_a_pipe_is_read(hub: HubInside, words: list[str]) -> None:
    assert await answered(hub, "orders:cancel", *words, stdin=b'{\n"order": 5}\n') == {"order": 5}
    assert await answered(hub, "hub:ping", *words, stdin=b"") == {"pong": True, "args": {}}


async def test_a_pipe_into_which_nothing_comes_keeps_no_read_waiting(hub: HubInside) -> None:
    said = "hub: Nothing comes on stdin, so it is called without args; - waits for them.\n"
    for name, err in (("hub:info", ""), ("hub:history", said)):
        async with calling(hub, name, stdin=PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert json.loads(await process.stdout.read())["cursor"]
            assert (await process.stderr.read()).decode() == err


async def test_what_writes_waits_for_its_pipe_and_says_so(hub: HubInside) -> None:
    async with calling(hub, "orders:cancel", stdin=PIPE) as process:
        assert process.stderr
        assert await process.stderr.readline() == b"hub: Waiting for the args on stdin.\n"
        out, err = await process.communicate(b'{"order": 5}')
        assert (process.returncode, out, err) == (0, b'{"order":5}\n', b"")


@pytest.mark.parametrize("stdin", [b"[1]", b"{", b"\xff", b"{} {}"])
async def test_a_pipe_with_anything_else_is_usage(hub: HubInside, stdin: bytes) -> None:
    status, out, err = await call(hub, "hub:ping", "-", stdin=stdin)
    assert (status, out, err.count("\n")) == (2, "", 1)


# ---- what is said of what does not fit


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["orders:cancle", "order=5"], "There is no command orders:cancle; did you mean orders:cancel?"),
        (["orders:cancle", "--help"], "There is no command orders:cancle; did you mean orders:cancel?"),
        (["hub:histroy"], "There is no command hub:histroy; did you mean hub:history?"),
        (["histroy"], "There is no command histroy; did you mean hub:history?"),
        (["wipe"], "There is no command wipe; did you mean orders:wipe?"),
        (["nothing:like:it", "--help"], "There is no command nothing:like:it; hub call --url {url} lists them."),
        (["orders:cancel", "ordr=5"], "ordr: Unknown field. Did you mean order?"),
        (["orders:cancel", "order=5", "note=x"], "note: Unknown field. Did you mean Note?"),
        (["orders:cancel", "order=5", "x1234=x"], "It takes order, why, items, Note, weight, gift, where."),
        (["hub:info", "x=1"], "x: Unknown field. It takes nothing."),
        (
            ["hub:publish"],
            "hub: The args of hub:publish do not fit: event, data: Missing data for required field. Type",
        ),
        (
            ["orders:cancel", "order=10", "why=x", "gift=x"],
            "order: Must be greater than or equal to 1 and less than or equal to 9; why: Must be one of: late, wrong; "
            "gift: Not a valid boolean. Type",
        ),
        (
            ["orders:cancel", "order=ten"],
            "order: Not a valid integer. Type hub call orders:cancel --help --url {url} for what it takes.",
        ),
    ],
)
async def test_what_does_not_fit_gets_what_does(hub: HubInside, words: list[str], sentence: str) -> None:
    status, out, err = await call(hub, *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert sentence.format(url=hub.url.rstrip("/")) in err


# ---- dangerous commands, and keys


async def test_a_dangerous_command_runs_only_if_somebody_says_so(hub: HubInside) -> None:
    status, out, err = await call(hub, "orders:wipe", "all=yes")
    assert (status, out) == (1, "")
    sentence, _, value = err.rstrip(".\n").rpartition(" --confirm ")
    assert sentence == "hub: orders:wipe is dangerous and has not run; say --yes, or within a minute"
    assert await answered(hub, "orders:wipe", "all=yes", "--confirm", value) == "wiped"
    assert (await call(hub, "orders:wipe", "all=yes", "--confirm", value))[0] == 1  # it is good once
    for odd in ("é", "a\nb", "", "x" * 129):
        assert (await call(hub, "orders:wipe", "all=yes", "--confirm", odd))[0] == 2
    assert await answered(hub, "orders:wipe", "all=yes", "--yes") == "wiped"
    assert len(await hub.records("command.called")) >= 2


@pytest.mark.parametrize(
    ("keys", "status", "last"),
    [
        (b"y\n", 0, '"wiped"'),
        (b"YES\n", 0, '"wiped"'),
        (b"\n", 1, "Run it? [y/N] \nhub: Not run."),
        (b"no\n", 1, "Run it? [y/N] no\nhub: Not run."),
        (CTRL_C, -signal.SIGINT, "Run it? [y/N] ^C"),
    ],
)
async def test_on_a_terminal_a_person_is_asked(
    hub: HubInside, tmp_path: Path, keys: bytes, status: int, last: str
) -> None:
    async with on_terminal(tmp_path, "call", "orders:wipe", "all=yes", "--url", hub.url) as terminal:
        shown = await terminal.shows("Run it? [y/N] ")
        assert shown == 'orders:wipe: Forget all orders. It is dangerous.\n  with {"all":true}\nRun it? [y/N] '
        terminal.press(keys)
        found, text = await terminal.ended()
    assert found == status
    assert text.rstrip("\n").endswith(last)
    outcomes = [record["details"]["command"] for record in await hub.records("command.called")]
    assert ("orders:wipe" in outcomes) is (status == 0)


async def test_on_a_terminal_what_is_dangerous_is_red(hub: HubInside, tmp_path: Path) -> None:
    coloured = {"TERM": "xterm", "CLICOLOR_FORCE": "1", "NO_COLOR": ""}
    async with on_terminal(tmp_path, "call", "--url", hub.url, variables=coloured) as terminal:
        lines = (await terminal.ended())[1].splitlines()
    (wipe,) = (line for line in lines if "orders:wipe" in line)
    assert "\x1b[31mdangerous\x1b[0m  Forget all orders" in wipe


async def test_on_a_terminal_the_result_is_for_people(hub: HubInside, tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "call", "orders:cancel", "order=5", "--url", hub.url) as terminal:
        assert await terminal.ended() == (0, '{\n  "order": 5\n}\n')


async def test_with_a_key_it_runs_once(hub: HubInside) -> None:
    words = ("orders:cancel", "order=5", "--key", "today")
    assert await answered(hub, *words) == await answered(hub, *words) == {"order": 5}
    assert len(await hub.recorded("command.repeated")) == 1
    status, _, err = await call(hub, "orders:cancel", "order=6", "--key", "today")
    assert (status, err.count("\n")) == (1, 1)
    assert "--help" not in err
    assert (await call(hub, "orders:cancel", "order=6", "--key", "\x7f"))[0] == 2


# ---- who leaves


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_who_leaves_cancels_the_call(hub: HubInside, number: int) -> None:
    async with calling(hub, "orders:wait") as process:
        await until(lambda: len(hub.hub.commands.running))
        process.send_signal(number)
        out, err = await process.communicate()
        assert (out, err) == (b"", b"")
        assert process.returncode == -number
    await until(lambda: not hub.hub.commands.running)
    finished = await hub.recorded("command.finished")
    assert finished[-1]["details"]["outcome"] == "cancelled"
