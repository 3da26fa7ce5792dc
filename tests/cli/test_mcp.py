"""`hub mcp`, spoken to by the SDK's own client, and by hand in the other versions of the protocol."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from forks import PIPE, Forked, fork
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, TextContent, jsonrpc_message_adapter
from running import PATIENCE, HubInside, environment, hub_app, hub_process, run_hub, until

from hub import Hub

TOOLS = {"publish", "ask", "state", "history", "commands", "call"}


@asynccontextmanager
async def agent(folder: Path, *flags: str) -> AsyncIterator[ClientSession]:
    """The SDK's client, and `hub mcp` at the other end; as `alone` starts it, but from an interpreter that is there."""
    process = await fork("mcp", *flags, cwd=folder, env=environment(), stdin=PIPE, stdout=PIPE, sdk=True)
    assert process.stdin
    heard, reading = anyio.create_memory_object_stream[SessionMessage | Exception]()
    writing, said = anyio.create_memory_object_stream[SessionMessage]()

    async def hear() -> None:
        assert process.stdout
        async for line in process.stdout:
            await heard.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
        heard.close()

    async def say() -> None:
        assert process.stdin
        async for message in said:
            process.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()

    carrying = [asyncio.create_task(hear()), asyncio.create_task(say())]
    try:
        async with ClientSession(reading, writing) as session:
            await session.initialize()
            yield session
    finally:
        process.stdin.close()
        for task in carrying:
            task.cancel()
        await asyncio.wait(carrying)
        for end in (heard, reading, writing, said):
            end.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@asynccontextmanager
async def alone(folder: Path, *flags: str) -> AsyncIterator[ClientSession]:
    """The SDK's client, and the program that it has started."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "hub", "mcp", *flags], env=environment(), cwd=folder
    )
    async with stdio_client(command) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        yield session


def result(answer: Any) -> Any:
    """What a tool answered, the same in both forms."""
    assert isinstance(answer, CallToolResult)
    assert not answer.is_error, answer
    [content] = answer.content
    assert isinstance(content, TextContent)
    assert json.loads(content.text) == answer.structured_content
    return answer.structured_content


def refused(answer: Any) -> str:
    assert isinstance(answer, CallToolResult)
    assert answer.is_error
    assert answer.structured_content is None
    [content] = answer.content
    assert isinstance(content, TextContent)
    return content.text


async def answered(hub: HubInside, answer: str) -> None:
    """A person answers the open question on the page: by its form."""
    await until(lambda: hub.hub.questions.records())
    [question] = hub.hub.questions.records()
    data = {"question": question["id"], "answer": answer}
    headers = {"origin": hub.url.rstrip("/")}
    sent = await hub.ask("POST", "answer", data=data, headers=headers, allow_redirects=False)
    assert sent.status == 303, sent


def prepare(hub: Hub) -> None:
    @hub.command("house:look", effect="read")
    async def look(call: Any) -> list[int]:
        return [1, 2]

    @hub.command("house:paint")
    async def paint(call: Any) -> dict[str, Any]:
        return {"painted": call.args}

    @hub.command("house:burn", effect="dangerous")
    async def burn(call: Any) -> None:
        raise AssertionError("it has run")


async def test_it_lists_its_tools_publishes_and_reads(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "s", prepare=prepare) as hub, alone(tmp_path, "--url", hub.url) as session:
        tools = (await session.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        assert all(tool.description and tool.input_schema["type"] == "object" for tool in tools)
        published = result(await session.call_tool("publish", {"event": "task:progress", "data": {"id": "x"}}))
        assert set(published) == {"id", "cursor"}
        state = result(await session.call_tool("state", {"topics": ["task:*"]}))
        assert [item["key"] for item in state["items"]] == ["x"]
        history = result(await session.call_tool("history", {"topics": ["task:*"]}))
        assert [event["id"] for event in history["events"]] == [published["id"]]
        names = {command["name"] for command in result(await session.call_tool("commands", {}))["commands"]}
        assert {"hub:info", "house:burn"} <= names
        assert result(await session.call_tool("call", {"command": "hub:ping", "args": {"a": 1}})) == {
            "pong": True,
            "args": {"a": 1},
        }
        assert result(await session.call_tool("call", {"command": "house:look"})) == {"result": [1, 2]}


async def test_a_person_answers_on_the_page(tmp_path: Path) -> None:
    told: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with hub_app(tmp_path / "s") as hub, agent(tmp_path, "--url", hub.url) as session:
        args: dict[str, Any] = {"question": "Deploy to production?", "options": ["yes", "no"], "timeout": 120}
        asking = asyncio.create_task(session.call_tool("ask", args, progress_callback=note))
        await until(lambda: told)
        await answered(hub, "no")
        answer = result(await asking)
        assert (answer["answer"], answer["timed_out"]) == ("no", False)
        assert answer["by"]
        assert told[0] == "Waiting for an answer to: Deploy to production?"


async def test_no_answer_is_an_error_that_says_not_to_go_on(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "s") as hub, agent(tmp_path, "--url", hub.url) as session:
        args = {"question": "Deploy?", "options": ["yes", "no"], "timeout": 1}
        assert refused(await session.call_tool("ask", args)) == (
            "Nobody answered within 1 s. Do not go on as if the answer were yes."
        )
        assert result(await session.call_tool("ask", {**args, "default": "no"})) == {
            "answer": "no", "by": None, "timed_out": True,
        }  # fmt: skip


@pytest.mark.parametrize("end", ["cancelled", "killed"])
async def test_a_question_goes_with_who_asked_it(tmp_path: Path, end: str) -> None:
    async with hub_app(tmp_path / "s") as hub:
        process = await spoken(tmp_path, "--url", hub.url)
        await send(process, {"id": 7, "method": "tools/call", "params": ASK})
        await until(lambda: hub.hub.questions.records())
        if end == "killed":
            process.kill()
        else:
            await send(process, {"method": "notifications/cancelled", "params": {"requestId": 7}})
        await until(lambda: not hub.hub.questions.records())
        if end != "killed":
            process.kill()
        await process.wait()


async def test_what_is_too_large_is_said_in_one_sentence(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "s") as hub, agent(tmp_path, "--url", hub.url) as session:
        for size, said in ((100_000, "bytes; the hub takes 65536."), (2_000_000, "a hub takes 64 KiB in one call.")):
            sentence = refused(await session.call_tool("publish", {"event": "a:b", "data": "x" * size}))
            assert said in sentence, sentence
        result(await session.call_tool("publish", {"event": "a:b", "data": "and goes on"}))


async def test_what_can_be_called_is_what_was_allowed(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "s", prepare=prepare) as hub:
        async with agent(tmp_path, "--url", hub.url) as session:
            paint = {"command": "house:paint", "args": {"colour": "red"}}
            assert "only commands that read" in refused(await session.call_tool("call", paint))
        async with agent(tmp_path, "--url", hub.url, "--allow", "write") as session:
            assert result(await session.call_tool("call", paint)) == {"painted": {"colour": "red"}}
            assert "is dangerous" in refused(await session.call_tool("call", {"command": "house:burn"}))
            assert "by a person" in refused(await session.call_tool("call", {"command": "hub:answer"}))
            assert "no command 'a:b'" in refused(await session.call_tool("call", {"command": "a:b"}))
            said = refused(await session.call_tool("publish", {"evnt": "a:b"}))
            assert said.endswith(" do not fit: event: Missing data for required field; evnt: Unknown field.")
            assert "(reserved_event)" in refused(await session.call_tool("publish", {"event": "hub:x"}))
            assert "no tool" in refused(await session.call_tool("nope", {}))
        assert not [r for r in await hub.records("command.called") if r["details"]["command"] == "house:burn"]


MISTYPED: list[tuple[str, Any, str | None]] = [
    ("task:progres", {"id": "a"}, "Nobody knows task:progres; did you mean task:progress?"),
    ("task:progress", {"id": "a", "mesage": "x"}, "task:progress has no field mesage; did you mean message?"),
    ("task:progress", {"id": "a", "status": "queued"}, None),
    ("orders:paid", [1], None),
]


async def test_what_looks_mistyped_is_published_and_asked_about(tmp_path: Path) -> None:
    """As on the command line."""
    async with hub_app(tmp_path / "s") as hub, agent(tmp_path, "--url", hub.url) as session:
        for event, data, hint in MISTYPED:
            published = result(await session.call_tool("publish", {"event": event, "data": data}))
            assert published.pop("hint", None) == hint
            assert published.keys() == {"id", "cursor"}
        assert hub.hub.cursor.seq == len(MISTYPED)


async def test_without_a_hub_it_says_so_at_once_and_works_when_one_comes(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    async with agent(tmp_path, "--state-dir", state) as session:
        assert {tool.name for tool in (await session.list_tools()).tools} == TOOLS
        event = {"event": "a:x"}
        assert refused(await session.call_tool("publish", event)).startswith("No hub is there: ")
        for _ in range(2):
            async with hub_process(tmp_path) as hub:
                assert result(await session.call_tool("publish", event))["cursor"]
                hub.signal(signal.SIGTERM)
                await hub.ended()
            assert refused(await session.call_tool("publish", event)).startswith("No hub is there: ")


async def test_a_hub_that_is_frozen_is_not_waited_for(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        hub.signal(signal.SIGSTOP)
        async with agent(tmp_path, "--url", hub.url) as session:
            began = time.monotonic()
            assert refused(await session.call_tool("publish", {"event": "a:x"})).startswith("No hub is there: ")
            assert time.monotonic() - began < PATIENCE
        hub.signal(signal.SIGCONT)


# ---- by hand

ASK = {"name": "ask", "arguments": {"question": "Deploy?", "options": ["yes"]}}


async def spoken(folder: Path, *flags: str, version: str = "2025-06-18") -> Forked:
    """`hub mcp` behind a handshake of this version."""
    process = await fork("mcp", *flags, cwd=folder, env=environment(), stdin=PIPE, stdout=PIPE, sdk=True)
    info = {"name": "test", "version": "1"}
    await send(process, {"id": 1, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": info,
    }})  # fmt: skip
    assert (await received(process))["result"]["protocolVersion"] == version
    await send(process, {"method": "notifications/initialized"})
    return process


async def send(process: Forked, message: dict[str, Any]) -> None:
    assert process.stdin
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    await process.stdin.drain()


async def received(process: Forked) -> Any:
    assert process.stdout
    return json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
async def test_older_handshakes(tmp_path: Path, version: str) -> None:
    async with hub_app(tmp_path / "s") as hub:
        process = await spoken(tmp_path, "--url", hub.url, version=version)
        publish = {"name": "publish", "arguments": {"event": "a:x"}}
        await send(process, {"id": 2, "method": "tools/call", "params": publish})
        assert (await received(process))["result"]["structuredContent"]["cursor"]
        assert process.stdin
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


async def test_requests_without_a_handshake(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "s") as hub:
        process = await fork(
            "mcp", "--url", hub.url, cwd=tmp_path, env=environment(), stdin=PIPE, stdout=PIPE, sdk=True
        )
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        publish = {"name": "publish", "arguments": {"event": "a:x"}, "_meta": meta}
        await send(process, {"id": 1, "method": "tools/call", "params": publish})
        assert (await received(process))["result"]["structuredContent"]["cursor"]
        process.kill()
        await process.wait()


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError('no mcp')\n")
    env = {**environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", "mcp", cwd=tmp_path, env=env, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert (process.returncode, stderr.decode()) == (
        2,
        "hub: hub mcp needs the extra mcp: pip install '.[mcp]' in the folder of hub, the checkout (no mcp).\n",
    )


async def test_its_words_are_checked(tmp_path: Path) -> None:
    status, out, err = await run_hub(tmp_path, "mcp", "--allow", "dangerous")
    assert (status, out) == (2, "")
    assert "must be one of read, write" in err
