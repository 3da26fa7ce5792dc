"""Every block of the README is run: the tour word for word beside a hub, with the output that stands there; programs
from a file. What is run elsewhere, or cannot be, is named here with the reason."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from marshmallow import validate
from running import PATIENCE, environment, hub_app, hub_process, run_hub, send_signal, talk

from hub.configfile.reading import parse
from hub.stream.eventtypes import EventTypes

pytestmark = pytest.mark.once

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
COLUMNS = 100

# What is not run here, by what the block begins with, and why.
ELSEWHERE = {
    "$ git clone": "it installs from the network; `.ci/run` installs the wheel in every environment",
    "$ .ci/run": "it runs this",
    "$ .venv/bin/hub --auth token --host 0.0.0.0": "it listens for everybody; web/test_tls.py",
    "$ python tests/bench/bench.py": "it measures for minutes; tests/bench is never part of the suite",
    "$ .venv/bin/hub run -- make": "it needs something to make; cli/test_run.py; the cron line: web/test_pings.py",
    "$ redis-server": "two hubs, and a store of their own: below",
    "$ HUB_BROKER=": "it needs a Redis elsewhere; stream/test_redis.py, printed/test_redis_conf.py",
    "templates/ ": "it is a map; test_architecture.py",
    '{"mcpServers"': "the settings of an agent; cli/test_mcp.py",
    "const schema = ": "test_serving.py",
    "import { Gap, HubClient }": "test_serving.py",
    "import asyncio\n\nfrom hub import CommandError": "test_serving.py",
}
# What stands in the output and is another thing each time; the same in the README and here.
VARIES = (
    (r"\b[0-9a-f]{8}(?=:\d)", "EPOCH"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{32}\b", "QUESTION"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
    (r"(localhost|127\.0\.0\.1):\d+", "HUB"),
)


class Block(NamedTuple):
    """A block of the README: `language` is empty for one that is indented."""

    language: str
    text: str


def blocks(readme: str = README) -> Iterator[Block]:
    """All of them, in order."""
    for match in re.finditer(r"^```(\w*)\n([\s\S]*?)^```$|((?:^    .*\n|^\n(?=    ))+)", readme, re.MULTILINE):
        if match[3] is None:
            yield Block(match[1], match[2])
        elif text := match[3].strip("\n"):
            yield Block("", re.sub(r"^    ", "", text, flags=re.MULTILINE))


class Step(NamedTuple):
    """A command line, and what it prints."""

    line: str
    output: str


def steps(text: str) -> list[Step]:
    """The command lines of a block, which begin with `$ `, with their output; without any `$ ` all lines are some.
    `\\` joins two lines."""
    text = text.replace("\\\n", "")
    if not text.startswith("$ "):
        return [Step(line, "") for line in text.splitlines()]
    found = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [Step(line, output.strip("\n")) for line, _, output in (part.partition("\n") for part in found)]


def is_run_here(block: Block) -> bool:
    return not any(block.text.startswith(begin) for begin in ELSEWHERE)


def matches(wanted: str, printed: str) -> bool:
    """Whether this is what the README shows: `…` stands for anything."""
    for pattern, name in VARIES:
        wanted, printed = (re.sub(pattern, name, text) for text in (wanted, printed))
    pattern = ".*?".join(re.escape(part) for part in wanted.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def unlike(step: Step, printed: str) -> str:
    return f"$ {step.line}\n{printed}\n--- but the README says\n{step.output}"


def test_what_is_shown_is_what_is_printed_but_for_what_varies() -> None:
    shown = "intact: 9 records, …\n2026-11-30 18:35:55.706  a:b  {}\n7df25528:3"
    assert matches(shown, "intact: 9 records, head\n2027-01-01 00:00:00.000  a:b  {}\n00000000:3")
    for other in (shown.replace("9", "8", 1), shown.replace(":3", ":4"), shown.replace("{}", "[]"), f"{shown}\nmore"):
        assert not matches(shown, other)


def test_blocks_and_steps_are_found() -> None:
    text = "Text\n\n    $ one \\\n      more\n    out\n\n    put\n    $ two\n\n```js\n    x\n```\n    three\n    four\n"
    first, second, third = blocks(text)
    assert steps(first.text) == [Step("one   more", "out\n\nput"), Step("two", "")]
    assert (second, steps(third.text)) == (Block("js", "    x\n"), [Step("three", ""), Step("four", "")])


# ---- a terminal


class Terminal:
    """A command line on a terminal of its own, and what it has written there."""

    def __init__(self, line: str, folder: Path, variables: dict[str, str]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        own = {**environment(), "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(COLUMNS), **variables}
        self.process = subprocess.Popen(
            ["sh", "-c", line], cwd=folder, env=own, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._seen = b""

    @property
    def text(self) -> str:
        """Everything up to now, without the last line break; the terminal's own line breaks are taken back."""
        return self._seen.decode().replace("\r\n", "\n").strip("\n")

    def read(self) -> bool:
        """Read some more, if it comes soon; whether there may be more still."""
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self._seen += os.read(self._master, 65536)
            except OSError:  # EIO: nobody has it open any more
                return False
        return True

    def shows(self, wanted: str) -> bool:
        """Whether it shows this before it ends, or nothing comes any more."""
        ends = time.monotonic() + PATIENCE
        while self.read() and not matches(wanted, self.text) and time.monotonic() < ends:
            pass
        return matches(wanted, self.text)

    def ended(self) -> int:
        """Its exit status, when it has ended by itself."""
        while self.read():
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


# ---- the tour

GOES_ON = re.compile(
    r"hub tail|curl -sN|hub ask |redis-server|hub --state-dir"
)  # until it is ended, or somebody does what it waits for
CURSOR, QUESTION = re.compile(VARIES[0][0]), re.compile(VARIES[2][0])


class Person:
    """Somebody who types what stands in the README, with a hub that runs beside."""

    def __init__(self, folder: Path, port: int, state: Path) -> None:
        self.folder, self.port = folder, port
        self.variables = {"HUB_STATE_DIR": str(state), "HOME": str(folder)}
        self.open: list[tuple[Step, Terminal]] = []  # what goes on, in a terminal that was left
        self.epoch = self.id = ""
        program = folder / ".venv" / "bin" / "hub"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hub "$@"\n')
        program.chmod(0o755)

    def types(self, step: Step) -> None:
        """Type one line, and look whether what comes is what the README says."""
        line = step.line.replace("localhost:3141", f"localhost:{self.port}").replace("--port 3142", "--port 0")
        line = QUESTION.sub(self.id, CURSOR.sub(self.epoch, line))
        terminal = Terminal(line, self.folder, self.variables)
        if GOES_ON.search(line):
            self.open.append((step, terminal))
            self._begun(line, terminal)
            return
        status, text = terminal.ended(), terminal.text
        terminal.close()
        assert status == 0, f"$ {line}\n{text}"
        assert matches(step.output or "…", text), unlike(step, text)
        if found := CURSOR.search(text):
            self.epoch = found[0]

    def _begun(self, line: str, terminal: Terminal) -> None:
        """Go on when it has begun, as a person would see."""
        begun = "…\n…" if "curl" in line else "…hub is listening on …" if "--broker" in line else "hub: …"
        begun = "… to accept connections…" if "redis-server" in line else begun
        assert terminal.shows(begun), f"$ {line}\n{terminal.text}"
        if "hub ask " not in line:
            return
        while not (found := self._questions()):
            assert terminal.process.poll() is None, terminal.text
        (question,) = found
        self.id = question["id"]

    def _questions(self) -> list[dict[str, str]]:
        terminal = Terminal(".venv/bin/hub call hub:questions --json", self.folder, self.variables)
        terminal.ended()
        terminal.close()
        found: list[dict[str, str]] = json.loads(terminal.text)
        return found

    def leaves(self) -> None:
        """Look at what was left in other terminals, and close them."""
        for step, terminal in self.open:
            assert terminal.shows(step.output or "…"), (
                f"$ {step.line}\n{terminal.text}\n--- but the README says\n{step.output}"
            )

    def close(self) -> None:
        for _, terminal in self.open:
            terminal.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
async def test_the_tour_word_for_word(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        await asyncio.to_thread(_tour, tmp_path, hub.port, hub.state_dir)


def _tour(folder: Path, port: int, state: Path) -> None:
    person = Person(folder, port, state)
    try:
        for block in blocks():
            if block.language == "" and is_run_here(block) and not block.text.startswith("{"):
                for step in steps(block.text):
                    person.types(step)
        person.leaves()
    finally:
        person.close()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server on this machine")
async def test_the_first_try_of_several_hubs_word_for_word(tmp_path: Path) -> None:
    await asyncio.to_thread(_first_try, tmp_path)


def _first_try(folder: Path) -> None:
    person = Person(folder, 0, folder / "state")
    person.variables |= {"HUB_PORT": "0", "HUB_STATE_DIR": ""}
    (block,) = [block for block in blocks() if block.text.startswith("$ redis-server")]
    try:
        for step in steps(block.text):
            person.types(step)
        person.leaves()
    finally:
        person.close()


async def test_a_frame_is_one_that_the_hub_answers(tmp_path: Path) -> None:
    frames = [block.text for block in blocks() if block.text.startswith('{"type"')]
    assert frames
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        for frame in frames:
            await client.send(frame)
            assert (await client.answer(json.loads(frame)["id"]))["type"] == "response"


# ---- programs


@contextlib.asynccontextmanager
async def program(text: str, folder: Path, state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of the README, from a file, as the person who runs the hub would start it."""
    (folder / "program.py").write_text(text)
    pipe, own = asyncio.subprocess.PIPE, {**environment(), "HUB_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "program.py", cwd=folder, env=own, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        send_signal(process, signal.SIGKILL)
        await process.communicate()


def programs(word: str) -> str:
    """The one program of the README in which this stands."""
    (found,) = [block.text for block in blocks() if block.language == "python" and word in block.text]
    return found


async def test_the_application_runs_beside_a_hub(tmp_path: Path) -> None:
    text = programs("create_app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "127.0.0.1:8080/" in text
    text = text.replace(":8080/", f":{port}/").replace('host="127.0.0.1")', f'host="127.0.0.1", port={port})')
    async with hub_process(tmp_path) as hub, program(text, tmp_path, hub.state_dir) as process:
        assert process.stdout
        await process.stdout.readline()
        for where in (("--state-dir", "orders"), ("--url", f"localhost:{port}/hub/")):
            words = ("call", "orders:cancel", "order=7", *where)
            assert await run_hub(tmp_path, *words) == (0, '{"cancelled":7}\n', "")
        process.send_signal(signal.SIGINT)
        await process.wait()
        assert not (tmp_path / "orders" / "server.json").exists()


async def test_the_client_prints_what_comes(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, program(programs("print(item)"), tmp_path, hub.state_dir) as process:
        assert process.stdout
        assert b"'status': 'succeeded'" in await asyncio.wait_for(process.stdout.readline(), PATIENCE)


async def test_the_script_and_its_log_are_events(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, program(programs("SyncHubClient"), tmp_path, hub.state_dir) as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        words = ("call", "hub:history", "topics=task:*", "topics=log:*", "--url", hub.url)
        history = json.loads((await run_hub(tmp_path, *words))[1])
        assert {event["payload"]["event"] for event in history["events"]} == {"task:progress", "log:record"}


async def test_a_hub_is_emptied_as_it_says(tmp_path: Path) -> None:
    assert "`events.*` in it: then the events are gone, and audit log, token" in README
    async with hub_process(tmp_path, "--auth", "token") as hub:
        assert (await run_hub(tmp_path, "publish", "a:b", "1", "--state-dir", "state"))[0] == 0
        token = (hub.state_dir / "token").read_text()
    files = list((tmp_path / "state").glob("events.*"))
    assert len(files) > 1
    for path in files:
        path.unlink()
    async with hub_process(tmp_path, "--auth", "token") as hub:
        found = await run_hub(tmp_path, "call", "hub:history", "--state-dir", "state")
        assert json.loads(found[1])["events"] == []
        assert (hub.state_dir / "token").read_text() == token
        records = (await run_hub(tmp_path, "audit", "tail", "--limit", "100", "--state-dir", "state"))[1].splitlines()
        assert [json.loads(line)["action"] for line in records].count("hub.started") == 2
    assert (await run_hub(tmp_path, "audit", "verify", "--state-dir", "state"))[0] == 0


def test_the_settings_in_a_file_are_good(tmp_path: Path) -> None:
    (text,) = [block.text for block in blocks() if block.language == "toml"]
    for name, secret in (("ntfy.token", "tk_made_up"), ("ci.secret", f"whsec_{'A' * 32}")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(secret)
    assert str(parse(text, tmp_path / "hub.toml")).endswith("is good: 1 channel, 1 webhook.")


def test_the_events_of_the_table_are_those_that_are_checked() -> None:
    """Each with all its fields, the required ones bold, all that a field may be, and its key."""
    _, _, section = README.partition("\n## The events that every hub knows\n")
    rows = dict(re.findall(r"^\| `([\w:]+)`(.*)$", section.partition("\n## ")[0], re.MULTILINE))
    assert rows.pop("hub:question")
    for known in EventTypes():
        row = rows.pop(known.name)
        key, fields = row.split(" | ")[:2]
        assert (f"by `{known.key}`" in key) is isinstance(known.key, str)
        for name, field in known.schema.fields.items():
            assert (f"**`{name}`**" in fields) is field.required, (known.name, name)
            choices = [each.choices for each in field.validators if isinstance(each, validate.OneOf)]
            for word in (name, *(str(choice) for found in choices for choice in found)):
                assert f"`{word}`" in row, (known.name, word)
    assert not rows


def test_every_way_through_it_leads_somewhere() -> None:
    text = re.sub(r"^```[\s\S]*?^```$", "", README, flags=re.MULTILINE)
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (Path(__file__).parents[1] / link).exists(), link


def test_no_block_is_left_out() -> None:
    """What is in another language, and every program, is run by somebody."""
    ours = ("create_app", "print(item)", "SyncHubClient", "[notify]")
    left = [block.text for block in blocks() if block.language and is_run_here(block)]
    assert [text for text in left if not any(word in text for word in ours)] == []
    assert all(any(block.text.startswith(begin) for block in blocks()) for begin in ELSEWHERE)
