"""What a real agent tells hub, without an account anywhere: python tests/foreign/agents.py claude-code PROGRAM

By hand, with a program that is installed (the npm packages @anthropic-ai/claude-code, @openai/codex, @google/gemini-cli
and @github/copilot). It runs in a home of its own, on a terminal of its own, with hooks that `hub connect --ask` has
written. Its model stands here, on loopback: it wants to run one command, and says that all is done. What it asks is
allowed in the hub. Each hook is printed as it came; the exit status is 0 if the command ran and the turn is over.
"""

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from running import HubInside, environment, hub_app

from hub.adapters.turns import OVER
from hub.commands.asked import Person
from hub.web import hooks
from hub.web.answers import body as real

COMMAND, DONE = "touch made.txt", "All done."
ROUTED = {
    "reasoning": "",
    "model_choice": "flash",
    "complexity_reasoning": "",
    "complexity_score": 1,
}  # asked by Gemini
START, TURN = 8.0, 60.0  # seconds until an agent takes what is typed, and for a turn
# What a terminal is asked, and what it answers.
TERMINAL = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c", b"\x1b[?u": b"\x1b[?0u"}


class Agent(NamedTuple):
    """How one is run: its variables, words and settings, where `{}` is the model's address."""

    variables: Mapping[str, str]
    words: tuple[str, ...] = ()
    files: Mapping[str, str] = {}


CODEX = """model = "made-up"
model_provider = "here"
[model_providers.here]
name = "here"
base_url = "{}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
[projects."{project}"]
trust_level = "trusted"
"""
CLAUDE = {"hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": {"approved": ["sk-ant-made-up"]}}
TRUSTED = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
AGENTS = {
    "claude-code": Agent(
        {
            "ANTHROPIC_BASE_URL": "{}",
            "ANTHROPIC_API_KEY": "sk-ant-made-up",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
    ),
    "codex": Agent(
        {"OPENAI_API_KEY": "made-up"},
        ("--dangerously-bypass-hook-trust", "-a", "on-request"),
        {".codex/config.toml": CODEX},
    ),
    "gemini": Agent(
        {"GOOGLE_GEMINI_BASE_URL": "{}", "GEMINI_API_KEY": "made-up"},
        ("--skip-trust",),
        {".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'},
    ),
    "copilot": Agent(
        {
            "COPILOT_PROVIDER_BASE_URL": "{}",
            "COPILOT_PROVIDER_TYPE": "anthropic",
            "COPILOT_PROVIDER_API_KEY": "made-up",
            "COPILOT_MODEL": "claude-sonnet-4",
            "COPILOT_AUTO_UPDATE": "false",
        },
        ("-p", "make a file"),
    ),
}

# ---- the model


async def told(request: web.Request, events: list[dict[str, Any]], *, named: bool = True) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())
    return response


async def anthropic(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    tools = [tool.get("name") for tool in body.get("tools", ())]
    shell = next((name for name in ("Bash", "bash") if name in tools), None)
    is_wanted = shell is not None and '"tool_result"' not in json.dumps(body["messages"][-1:])
    block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{time.time_ns()}", "name": shell, "input": {}}
    words = json.dumps({"command": COMMAND, "description": "Make a file"})
    delta = {"type": "input_json_delta", "partial_json": words} if is_wanted else {"type": "text_delta", "text": DONE}
    message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    end = {"stop_reason": "tool_use" if is_wanted else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    if not body.get("stream"):
        return web.json_response({**message, **end, "content": [{"type": "text", "text": DONE}], "usage": usage})
    start = block if is_wanted else {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]
    return await told(request, events)


async def openai(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    words = {"cmd": COMMAND, "sandbox_permissions": "require_escalated", "justification": "to try it"}
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "exec_command", "arguments": json.dumps(words)}
    says = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": DONE}]}
    item = says if "function_call_output" in json.dumps(body["input"]) else call
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "usage": usage}},
    ]
    return await told(request, events)


async def google(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    text = json.dumps(body)
    is_wanted = '"run_shell_command"' in text and '"functionResponse"' not in text
    call = {"functionCall": {"name": "run_shell_command", "args": {"command": COMMAND}}}
    part: dict[str, Any] = call if is_wanted else {"text": DONE}
    if body.get("generationConfig", {}).get("responseMimeType") == "application/json":
        part = {"text": json.dumps(ROUTED)}
    answer = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}]}
    is_stream = "stream" in request.path
    return await told(request, [answer], named=False) if is_stream else web.json_response(answer)


# ---- the agent


@contextlib.asynccontextmanager
async def model() -> Any:
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/messages", anthropic)
    app.router.add_post("/v1/responses", openai)
    app.router.add_post("/v1beta/models/{name}", google)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def prepare(agent: Agent, home: Path, address: str) -> None:
    """What stands in its home before it is connected."""
    project = home / "project"
    project.mkdir()
    given = {
        name: text.replace('"{}/', f'"{address}/').replace("{project}", str(project))
        for name, text in agent.files.items()
    }
    files = {**given, ".claude.json": json.dumps({**CLAUDE, "projects": {str(project): TRUSTED}})}
    for name, text in files.items():
        file = home / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def start(program: str, agent: Agent, home: Path, address: str) -> tuple[int, int]:
    """The process, and its terminal."""
    variables = {name: value.replace("{}", address) for name, value in agent.variables.items()}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home / "project")
        env = {**environment(), "HOME": str(home), "TERM": "xterm-256color", **variables}
        os.execvpe(program, [program, *agent.words], env)
    os.set_blocking(terminal, False)
    return pid, terminal


def answering(terminal: int) -> Callable[[], None]:
    def read() -> None:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(terminal)
        for asked, answer in TERMINAL.items():
            if asked in data:
                os.write(terminal, answer)

    return read


async def typed(terminal: int, text: str) -> None:
    for letter in text:
        os.write(terminal, letter.encode())
        await asyncio.sleep(0.02)


async def turn(hub: HubInside, terminal: int, agent: Agent) -> bool:
    """Play one turn, and say whether it is over."""
    if not agent.words or agent.words[0] != "-p":
        await asyncio.sleep(START)
        await typed(terminal, "make a file")
        await asyncio.sleep(1)
        await typed(terminal, "\r")
    ends = time.monotonic() + TURN
    while time.monotonic() < ends:
        await asyncio.sleep(0.2)
        for question in list(hub.hub.questions.records()):
            print(f"?  {question['question']}", flush=True)
            await hub.hub.questions.answer(question["id"], "allow", Person("by hand"))
        tasks = [event.data for event in hub.hub.state.of("task:progress")]
        if any(task["status"] == "waiting_approval" and str(task["id"]).startswith("gemini:") for task in tasks):
            await typed(terminal, "\r")  # it takes no answer from elsewhere
        if tasks and all(task["status"] in OVER for task in tasks):
            return all(task["status"] == "succeeded" for task in tasks)
    return False


async def main(name: str, program: str) -> int:
    agent = AGENTS[name]

    async def body(request: web.Request, most: int | None = None) -> bytes:
        data = await real(request, most)
        print(f"<  {request.path_qs} {data.decode('utf-8', 'replace')}", flush=True)
        return data

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(hooks, "body", body):
        home = Path(folder)
        async with model() as address, hub_app(home / "hub") as hub:
            prepare(agent, home, address)
            flags = ("--ask", "--url", hub.url.rstrip("/"))
            connect = (sys.executable, "-m", "hub", "connect", name, *flags)
            env = {**environment(), "HOME": str(home)}
            await (await asyncio.create_subprocess_exec(*connect, env=env)).wait()
            pid, terminal = start(program, agent, home, address)
            asyncio.get_running_loop().add_reader(terminal, answering(terminal))
            try:
                is_over = await turn(hub, terminal, agent)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                await asyncio.to_thread(os.waitpid, pid, 0)
            has_run = (home / "project" / "made.txt").exists()
    print(f"{name}: the command has {'run' if has_run else 'not run'}, the turn is {'over' if is_over else 'not over'}")
    return 0 if has_run and is_over else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], os.path.realpath(sys.argv[2]))))
