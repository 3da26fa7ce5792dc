"""The hub for an agent that speaks the Model Context Protocol: a few tools over stdio, through HubClient.

The protocol itself, in all its versions, is the SDK's (the extra `mcp`). Nothing is new in the hub: a tool is a call of
this account, checked and recorded like any other.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from ..errors import HubError, in_words
from ..wire.argschema import ArgSchema
from ..wire.mistyped import mistyped
from .client import HubClient
from .discovery import NoHub

PATIENCE = 2.0  # seconds in which a hub must be there for a call
PROGRESS_SECONDS = 5.0  # between two words to a client that waits for a person
WAIT = 600.0  # seconds that a question waits if nothing is said
MAX_WAIT = 604_800
MOST_ARGS = 256 * 1024  # bytes of a tool's arguments: no hub would take them, and to check them takes long

Args = Mapping[str, Any]
_TEXTS = {"type": "array", "items": {"type": "string"}}


class Refused(Exception):
    """What was asked for cannot be had; the sentence is for the agent."""


class Tool(NamedTuple):
    """A tool: how it is described, what it takes, and what it does."""

    summary: str
    schema: dict[str, Any]
    run: Callable[["Tools", Args, Any], Awaitable[dict[str, Any]]]
    read_only: bool = False


class Tools:
    """The tools of one client. `make()` is a HubClient; `writes`: whether commands that write can be called."""

    def __init__(self, make: Callable[[], HubClient], *, writes: bool) -> None:
        self._make, self._writes = make, writes
        self._entering = asyncio.Lock()
        self._client: HubClient | None = None
        self._checks = {name: ArgSchema(tool.schema) for name, tool in TOOLS.items()}

    def listed(self) -> list[types.Tool]:
        """The tools, also where there is no hub."""
        return [
            types.Tool(
                name=name,
                description=tool.summary,
                input_schema=tool.schema,
                annotations=types.ToolAnnotations(read_only_hint=tool.read_only, destructive_hint=False),
            )
            for name, tool in TOOLS.items()
        ]

    async def call(self, name: str, args: Args, session: Any) -> types.CallToolResult:
        """Run a tool. Whatever cannot be is a result that says so in one sentence, and no error of the protocol."""
        try:
            result = await self._called(name, args, session)
        except Refused as error:
            return _failed(str(error))
        except NoHub as error:
            return _failed(f"No hub is there: {error} Try again later.")
        except HubError as error:
            return _failed(f"{error.message} ({error.code})")
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content=result)

    async def close(self) -> None:
        """Leave the hub; what was asked and has no answer is withdrawn."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__()

    async def _called(self, name: str, args: Args, session: Any) -> dict[str, Any]:
        tool = TOOLS.get(name)
        if tool is None:
            raise Refused(f"There is no tool {name[:80]!r}; there are {', '.join(TOOLS)}.")
        if (size := len(json.dumps(args))) > MOST_ARGS:
            sentence = f"The arguments of {name} have {size:,} bytes, and a hub takes 64 KiB in one call"
            raise Refused(f"{sentence}. Send less, and say where the rest can be read.")
        problems = self._checks[name].problems(args)
        if problems:
            raise Refused(f"The arguments of {name} do not fit: {in_words(problems)}")
        return await tool.run(self, args, session)

    async def _hub(self) -> HubClient:
        """The client, entered. Raises NoHub within PATIENCE."""
        async with self._entering:
            if self._client is None:
                client = self._make()
                try:
                    async with asyncio.timeout(PATIENCE):
                        await client.__aenter__()
                except TimeoutError:
                    raise NoHub("it does not answer.") from None
                self._client = client
        return self._client

    async def _call(self, command: str, args: Args) -> Any:
        return await (await self._hub()).call(command, args)

    # ---- the tools

    async def publish(self, args: Args, session: Any) -> dict[str, Any]:
        """Publish one event; of what looks mistyped there is a `hint` beside id and cursor."""
        hub, event, data = await self._hub(), args["event"], args.get("data")
        published = await hub.publish(event, data, id=args.get("id"), ttl=args.get("ttl"))
        hint = mistyped(event, data if isinstance(data, dict) else ())
        return {**published, "hint": hint} if hint else published

    async def ask(self, args: Args, session: Any) -> dict[str, Any]:
        hub, wait = await self._hub(), float(args.get("timeout", WAIT))
        try:
            async with _progress(session, args["question"], wait):
                answered = await hub.ask(
                    args["question"],
                    args["options"],
                    default=args.get("default"),
                    timeout=wait,
                    details=args.get("details"),
                    while_connected=True,
                )
        except HubError as error:
            if error.code != "timeout":
                raise
            raise Refused(f"Nobody answered within {wait:g} s. Do not go on as if the answer were yes.") from None
        return {"answer": answered.answer, "by": answered.by, "timed_out": answered.timed_out}

    async def state(self, args: Args, session: Any) -> dict[str, Any]:
        return dict(await self._call("hub:state", args))

    async def history(self, args: Args, session: Any) -> dict[str, Any]:
        return dict(await self._call("hub:history", args))

    async def commands(self, args: Args, session: Any) -> dict[str, Any]:
        return {"commands": await self._call("hub:commands", args)}

    async def command(self, args: Args, session: Any) -> dict[str, Any]:
        """Call a command. The hub is asked for its effect first; a dangerous one would want to be confirmed, and
        nothing here ever confirms."""
        name = args["command"]
        if name in ("hub:answer", "hub:ask"):
            other = "the tool ask asks" if name == "hub:ask" else "a question is answered by a person"
            raise Refused(f"{name} cannot be called from here: {other}.")
        found = await self._call("hub:commands", {"name": name})
        if not found:
            raise Refused(f"There is no command {name[:80]!r}; the tool commands lists those that there are.")
        [described] = found
        if described["effect"] == "dangerous":
            raise Refused(f"{name} is dangerous, and can only be called by a person.")
        if described["effect"] != "read" and not self._writes:
            raise Refused(f"{name} writes, and only commands that read can be called (hub mcp --allow write).")
        result = await self._call(name, args.get("args", {}))
        return result if isinstance(result, dict) else {"result": result}


def _schema(required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TOPICS = {**_TEXTS, "description": "patterns, such as task:*; all if left out"}
_AFTER = {"type": "string", "description": "a cursor from an earlier answer: what came behind it"}
TOOLS: Mapping[str, Tool] = {
    "publish": Tool(
        "Tell the person at this machine, and every program that follows, that something happened: one event. Use "
        "task:progress {id, status, progress, message} for how far your work is, and any domain:action for the rest.",
        _schema(
            ("event",),
            event={"type": "string", "description": "its name, domain:action"},
            data={"description": "any JSON"},
            id={"type": "string", "description": "the same id is taken once, however often it is sent"},
            ttl={"type": "number", "description": "seconds after which it counts as stale unless it comes again"},
        ),
        Tools.publish,
    ),
    "ask": Tool(
        "Ask the person at this machine and wait for the answer. Use it before anything that cannot be undone, and "
        "when only a person can decide. It may take minutes. If nobody answers it is an error: do not go on as if "
        "the answer were yes.",
        _schema(
            ("question", "options"),
            question={"type": "string", "description": "one clear question, with what depends on it"},
            options={**_TEXTS, "minItems": 1, "maxItems": 16, "description": "the answers to choose from"},
            default={"type": "string", "description": "the option that counts when nobody answers in time"},
            timeout={"type": "number", "minimum": 1, "maximum": MAX_WAIT, "description": "seconds to wait, 600"},
            details={"description": "any JSON that helps to decide"},
        ),
        Tools.ask,
    ),
    "state": Tool(
        "Read the last values: what each agent, task, question and the like is at now.",
        _schema(topics=_TOPICS, after=_AFTER),
        Tools.state,
        read_only=True,
    ),
    "history": Tool(
        "Read kept events in order: with `after` the oldest behind it, else the newest.",
        _schema(topics=_TOPICS, after=_AFTER, limit={"type": "integer", "minimum": 1, "maximum": 1000}),
        Tools.history,
        read_only=True,
    ),
    "commands": Tool(
        "List the commands that can be called here, with the JSON Schema of their arguments.",
        _schema(name={"type": "string", "description": "only this one"}),
        Tools.commands,
        read_only=True,
    ),
    "call": Tool(
        "Call one of the commands and return its result.",
        _schema(("command",), command={"type": "string"}, args={"type": "object"}),
        Tools.command,
    ),
}


@contextlib.asynccontextmanager
async def _progress(session: Any, question: str, wait: float) -> AsyncIterator[None]:
    """Meanwhile tell a client that has asked for it that a person is waited for: else it may give up."""

    async def tell() -> None:
        began = time.monotonic()
        while True:
            passed = time.monotonic() - began
            await session.report_progress(min(passed, wait), wait, f"Waiting for an answer to: {question[:200]}")
            await asyncio.sleep(PROGRESS_SECONDS)

    telling = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await telling


def _failed(sentence: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=sentence)], is_error=True)


async def serve(make: Callable[[], HubClient], version: str, *, writes: bool) -> None:
    """Serve the tools over stdin and stdout until stdin ends."""
    tools = Tools(make, writes=writes)

    async def on_list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed())

    async def on_call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await tools.call(params.name, params.arguments or {}, context.session)

    server: Server[Any] = Server(
        "hub", version=version, on_list_tools=on_list_tools, on_call_tool=on_call_tool, instructions=INSTRUCTIONS
    )
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        await tools.close()


INSTRUCTIONS = (
    "hub is the live wire of this person's machine. Publish how your work goes, and ask before what cannot be undone."
)
