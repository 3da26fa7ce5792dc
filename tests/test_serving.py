"""Programs that serve commands: those of the README, as they stand there, and one that is killed at work."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, environment, hub_app, hub_process, refused, send_signal, talk, until

STATIC = Path(__file__).parents[1] / "templates" / "static"
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
_, _, SECTION = README.partition("\n### Commands that another program serves\n")

WORKER = """
import asyncio, os
from hub import HubClient

async def work(call):
    if call.args.get("hang"):
        await call.progress({"pid": os.getpid()})
        await asyncio.Event().wait()
    return "done"

async def main():
    async with HubClient() as client:
        await client.provide("a:work", work)
        await client.serve()

asyncio.run(main())
"""


def block(language: str) -> str:
    """The first block of this language in the README's section."""
    return SECTION.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture(scope="session")
def node() -> str:
    """Node with a WebSocket of its own: from 22 on by default, before with the flag."""
    program = shutil.which("node") or shutil.which("nodejs")
    if program is None:
        pytest.skip("there is no Node on this machine")
    found = subprocess.run([program, "--experimental-websocket", "-e", "WebSocket"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("this Node has no WebSocket of its own")
    return program


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


@asynccontextmanager
async def program(*command: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**environment(), "HUB_URL": url, "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def test_the_readmes_program_in_python(hub: HubInside) -> None:
    async with program(sys.executable, "-c", block("python"), url=hub.url):
        await until(lambda: len(hub.hub.providers))
        async with talk(hub.url, "?topics=no:thing") as caller:
            assert await caller.call("greet:hello", name="Ada") == "Hello, Ada!"
            assert caller.events.pop()["payload"]["data"]["percent"] == 50
            error = await caller.fails("greet:hello", "command_failed", name="nobody")
            assert error["error"] == "There is nobody to greet."
            await caller.fails("greet:hello", "invalid_args", name="")
        answer = await hub.post("api/commands/greet:hello", {"name": "Ada"})
        assert (answer.status, answer.json) == (200, "Hello, Ada!")
    await until(lambda: not len(hub.hub.providers))
    (await hub.post("api/commands/greet:hello", {"name": "Ada"})).refused(404, "unknown_command")


async def test_the_readmes_program_in_javascript(hub: HubInside, node: str, tmp_path: Path) -> None:
    script = tmp_path / "provider.mjs"
    text = block("js")
    assert "127.0.0.1:3141" in text
    script.write_text(text.replace("127.0.0.1:3141", f"127.0.0.1:{hub.port}"))
    async with program(node, "--experimental-websocket", "--no-warnings", str(script), url=hub.url):
        await until(lambda: len(hub.hub.providers))
        async with talk(hub.url, "?topics=no:thing") as caller:
            assert await caller.call("greet:bonjour", name="Ada") == "Bonjour, Ada !"
            await caller.fails("greet:bonjour", "invalid_args")
            for client in [client for client in hub.hub.clients if hub.hub.providers.names(client)]:
                assert client.subscriber
                client.subscriber.cut()
            assert not len(hub.hub.providers)
            await until(lambda: len(hub.hub.providers))  # it comes back
            assert await caller.call("greet:bonjour", name="Ada") == "Bonjour, Ada !"


async def test_the_readmes_client_in_javascript(hub: HubInside, node: str, tmp_path: Path) -> None:
    text = SECTION.partition("\n### From a browser")[2].partition("```js\n")[2].partition("```")[0]
    assert "127.0.0.1:3141" in text
    (tmp_path / "package.json").write_text('{"type": "module"}')  # which Node 22 finds out by itself
    (tmp_path / "main.js").write_text(text.replace("127.0.0.1:3141", f"127.0.0.1:{hub.port}"))
    for name in ("hub.js", "frames.js", "link.js", "serving.js"):
        (tmp_path / name).write_text((await hub.get(f"static/{name}")).text)
    flags = ("--experimental-websocket", "--no-warnings")
    process = await asyncio.create_subprocess_exec(node, *flags, str(tmp_path / "main.js"), stdout=subprocess.PIPE)
    assert process.stdout
    try:
        assert await process.stdout.readline() == b"task:progress 100\n"
        for client in list(hub.hub.clients):
            assert client.subscriber
            client.subscriber.cut()
        await hub.hub.publish("task:progress", {"id": "build", "progress": 50})
        assert await process.stdout.readline() == b"task:progress 50\n"  # it came back for it
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def test_a_node_without_a_websocket_is_told_how_it_gets_one(hub: HubInside, node: str, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    script = "delete globalThis.WebSocket; new (await import('./hub.js')).HubClient(process.argv[1]);"
    for name in ("hub.js", "frames.js", "link.js", "serving.js"):
        (tmp_path / name).write_text((await hub.get(f"static/{name}")).text)
    words = (node, "--input-type=module", "-e", script, hub.url)
    process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, stderr=subprocess.PIPE)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"Error: There is no WebSocket here: take Node 22 or newer, start Node 20 with --experimental-web" in err


async def test_a_worker_that_is_killed_leaves_its_caller_with_provider_gone(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=no:thing") as caller:
        async with program(sys.executable, "-c", WORKER, url=hub.url):
            await until(lambda: len(hub.hub.providers))
            id = await caller.begin("a:work", hang=True)
            os.kill((await caller.event())["payload"]["data"]["pid"], signal.SIGKILL)
            assert refused((await caller.answer(id))["payload"], "provider_gone")["retryable"]
            await caller.fails("a:work", "unknown_command")
        async with program(sys.executable, "-c", WORKER, url=hub.url):
            await until(lambda: len(hub.hub.providers))
            assert await caller.call("a:work") == "done"


async def test_when_the_hub_is_restarted_the_worker_comes_back(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as first:
        port = first.port
        async with program(sys.executable, "-c", WORKER, url=first.url):
            await _served(first.url)
            first.signal()
            assert await first.ended() == 0
            async with hub_process(tmp_path, "--port", str(port)) as second:
                await _served(second.url)


async def test_where_a_connection_fails_the_readmes_program_in_javascript_comes_back(node: str, tmp_path: Path) -> None:
    """Of such a one Node 22 tells the error, and no close."""
    async with hub_process(tmp_path) as first:
        port, script = first.port, tmp_path / "provider.mjs"
        script.write_text(block("js").replace("127.0.0.1:3141", f"127.0.0.1:{port}"))
        async with program(node, "--experimental-websocket", "--no-warnings", str(script), url=first.url):
            await _served(first.url, "greet:bonjour", "Bonjour, Ada !", name="Ada")
            first.signal()
            assert await first.ended() == 0
            await fails_once(port)
            async with hub_process(tmp_path, "--port", str(port)) as second:
                await _served(second.url, "greet:bonjour", "Bonjour, Ada !", name="Ada")


async def fails_once(port: int) -> None:
    """Let whoever connects there fail, once."""
    failed = asyncio.Event()

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        failed.set()

    async with await asyncio.start_server(fail, "127.0.0.1", port):
        await failed.wait()


async def test_the_client_in_javascript_is_told_why_it_is_not_let_in(node: str, tmp_path: Path) -> None:
    async with hub_app(tmp_path / "hub", auth="token") as hub:
        (tmp_path / "package.json").write_text('{"type": "module"}')
        for name in ("hub.js", "frames.js", "link.js", "serving.js"):
            (tmp_path / name).write_bytes((STATIC / name).read_bytes())
        (tmp_path / "main.js").write_text(
            f"""import {{ HubClient }} from "./hub.js";
            try {{ for await (const item of new HubClient("{hub.url}")); }}
            catch (error) {{ console.log(error.code, error.message); }}"""
        )
        async with program(
            node, "--experimental-websocket", "--no-warnings", str(tmp_path / "main.js"), url=""
        ) as told:
            assert told.stdout
            assert (await told.stdout.readline()).startswith(b"forbidden This hub wants its token: ")


async def _served(url: str, command: str = "a:work", what: str = "done", /, **args: str) -> None:
    async with talk(url, "?topics=no:thing") as caller:
        answer: Any = None
        while answer != what:
            answer = (await caller.answer(await caller.begin(command, **args)))["payload"]
            await asyncio.sleep(0.02)  # who asks without end is a flooder
