"""Running hubs for tests over real sockets: as a process of its own, and inside the test; and who talks to them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from forks import PIPE, Forked, fork

import hub as package
from hub import Hub, create_app
from hub.stats import snapshot
from hub.web import keys, streams

PATIENCE = 30.0  # seconds until a test gives up; none of them judges by it
JSON = {"Content-Type": "application/json"}


async def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Return as soon as the condition holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true") from None


def sockets() -> int:
    """How many sockets this process has open, those of the hub inside it included."""
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one of the listing itself is gone by now
            count += os.readlink(fd).startswith("socket:")
    return count


# ---- hubs


def environment() -> dict[str, str]:
    """Of a process that is to run the hub that these tests have imported, wherever it stands."""
    assert package.__file__
    return {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}


@dataclass
class HubProcess:
    """A running `python -m hub`."""

    process: Forked
    state_dir: Path
    url: str
    http: ClientSession
    stderr: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def log(self) -> str:
        return b"".join(self.stderr).decode()

    def signal(self, number: int = signal.SIGTERM) -> None:
        send_signal(self.process, number)

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


def send_signal(process: asyncio.subprocess.Process | Forked, number: int) -> None:
    """Send it to a process that may have ended.

    `Process.send_signal` looks first whether it has, and so takes the status away from the loop's own watch, which then
    tells 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def run_hub(cwd: Path, *args: str) -> tuple[int, str, str]:
    """Run `python -m hub …` to its end; its exit status, stdout and stderr."""
    process = await _python(cwd, *args)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def _python(cwd: Path, *args: str) -> Forked:
    """In a folder of the test's; and without the terminal of who runs the tests, which a SIGHUP would be the end of."""
    return await fork(*args, cwd=cwd, env=environment(), stdout=PIPE, stderr=PIPE, start_new_session=True)


@asynccontextmanager
async def hub_process(tmp_path: Path, *flags: str, status: int = 0) -> AsyncIterator[HubProcess]:
    """`python -m hub` on a free port. It is ended with SIGTERM, if the test has not done so, and must say `status`."""
    state_dir = tmp_path / "state"
    process = await _python(tmp_path, "--port", "0", "--state-dir", str(state_dir), *flags)
    assert process.stdout
    assert process.stderr
    async with ClientSession() as http:
        hub = HubProcess(process, state_dir, "", http)
        reading = asyncio.create_task(_collect(process.stderr, hub.stderr))
        try:
            async with asyncio.timeout(PATIENCE):
                line = (await process.stdout.readline()).decode()
            assert "http" in line, f"the hub said {line!r} and not where it listens: {hub.log}"
            hub.url = line.split()[-1]
            yield hub
            if process.returncode is None and status >= 0:  # one that was killed is only waited for: to signal it again
                with suppress(ProcessLookupError):  # it ends by itself at this moment
                    process.terminate()  # would reap it here, and asyncio on Python 3.11 would not learn its status
            assert await hub.ended() == status, hub.log
        finally:
            hub.signal(signal.SIGKILL)
            await process.wait()
            await reading


async def _collect(stream: asyncio.StreamReader, into: list[bytes]) -> None:
    while data := await stream.read(65536):
        into.append(data)


@dataclass
class HubInside:
    """A hub in this process, on a real socket."""

    hub: Hub
    app: web.Application
    runner: web.AppRunner
    url: str
    http: ClientSession

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].partition("/")[0])

    def clients(self, transport: str) -> int:
        """As hub_clients{transport}."""
        return int(self.counted("hub_clients", transport))

    def counted(self, name: str, *labels: str) -> Any:
        """A metric as hub:stats shows it."""
        registry = self.hub.metrics.registry  # all of them take long: those that are taken at a scrape are asked last
        value: Any = (snapshot(registry.restricted_registry([name])) or snapshot(registry))[name]
        for label in labels:
            value = value.get(label, 0) if value else 0
        return value

    async def records(self, action: str) -> list[dict[str, Any]]:
        """The audit records of this action, oldest first."""
        return [record for record in await self.hub.audit.tail(1000) if record["action"] == action]

    async def recorded(self, action: str) -> list[dict[str, Any]]:
        """As `records`, once there are any."""
        while not (found := await self.records(action)):
            await asyncio.sleep(0.005)
        return found

    async def post(self, path: str, body: Any = None, headers: Mapping[str, str] = JSON) -> "Answer":
        """POST bytes as they are, or anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", path, data=data, headers=headers)

    async def get(self, path: str, **query: str) -> "Answer":
        return await self.ask("GET", path, params=query)

    async def ask(self, method: str, path: str, **request: Any) -> "Answer":
        async with self.http.request(method, self.url + path, **request) as response:
            text = await response.text()
            return Answer(response.status, response.headers, text)

    async def publish(self, count: int, event: str = "a:x", pad: str = "") -> None:
        """Publish so many events with `n` counting from the newest number on."""
        for _ in range(count):
            n = self.hub.cursor.seq + 1
            await self.hub.publish(event, {"n": n, "pad": pad} if pad else {"n": n})
            await asyncio.sleep(0)  # as publishers with sockets of their own would


def open_streams(hub: HubInside) -> list[streams.Stream]:
    """The connections of its WebSocket and SSE clients, those included that are ending."""
    found = hub.app[streams.STREAMS]
    return list(found)


@asynccontextmanager
async def hub_app(
    state_dir: Path,
    *,
    prepare: Callable[[Hub], None] = lambda hub: None,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[HubInside]:
    """A hub inside the test, served as `hub.web.program.serve` does it. `prepare` adds commands and the like."""
    hub = Hub(port=0, state_dir=state_dir, **settings)
    prepare(hub)
    app = create_app(hub)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=hub.config.deadline, shutdown_timeout=1.0)
    try:  # also of a start that fails
        await runner.setup()
        assert runner.server is not None
        app[keys.GUARD].watch(runner.server)
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener, ssl_context=tls).start()
        url = f"http{'s' * bool(tls)}://127.0.0.1:{listener.getsockname()[1]}/"
        async with ClientSession() as http:
            yield HubInside(hub, app, runner, url, http)
    finally:
        await runner.cleanup()


Start = Callable[..., Awaitable[Any]]  # of a HubInside


@asynccontextmanager
async def starting(folder: Path, broker: str) -> AsyncIterator[Start]:
    """What starts hubs of one stream, each by its name; behind it they are stopped."""
    async with AsyncExitStack() as stack:

        async def start(name: str = "one", **settings: Any) -> HubInside:
            return await stack.enter_async_context(hub_app(folder / name, broker=broker, **settings))

        yield start


# ---- who talks to them


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def refused(self, status: int, code: str) -> dict[str, Any]:
        """Asserts that this is a refusal as PROTOCOL wants it, and returns the error object."""
        assert self.status == status, self.text
        assert self.headers["Content-Type"].startswith("application/json")
        return refused(self.json, code)


def refused(error: dict[str, Any], code: str) -> dict[str, Any]:
    """Asserts that this is an error object with that code and one sentence, and returns it."""
    assert error["code"] == code, error
    assert set(error) <= {"error", "code", "retryable", "details", "retry_after"}
    assert isinstance(error["retryable"], bool)
    assert isinstance(error["error"], str)
    assert error["error"].endswith(".")
    assert "\n" not in error["error"]
    assert "Traceback" not in error["error"]
    return error


class Talk:
    """A WebSocket client that knows PROTOCOL 1: frames come as dicts, and calls find their answers by id."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        self.ws = ws
        self.events: list[dict[str, Any]] = []  # what came while something else was waited for
        self.answers: dict[str | None, dict[str, Any]] = {}
        self.code: int | None = None
        self._calls = 0

    async def send(self, frame: Any) -> None:
        """Send text as it is, or anything else as JSON."""
        await self.ws.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def begin(self, command: str, call: str | None = None, /, **args: Any) -> str:
        """Send a call, with this id if one is given, and return its id without waiting."""
        self._calls += 1
        id = call or f"call-{self._calls}"
        payload = {"command": command, "args": args}
        await self.send({"type": "command", "id": id, "payload": payload})
        return id

    async def frame(self) -> dict[str, Any] | None:
        """The next text frame; None if the connection has ended, with `code` set."""
        message = await asyncio.wait_for(self.ws.receive(), PATIENCE)
        if message.type is WSMsgType.TEXT:
            parsed: dict[str, Any] = json.loads(message.data)
            return parsed
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR), message
        self.code = self.ws.close_code
        return None

    async def _more(self) -> None:
        frame = await self.frame()
        assert frame is not None, f"the connection ended with {self.code}"
        if frame["type"] == "event":
            self.events.append(frame)
        else:
            self.answers[frame["id"]] = frame

    async def answer(self, id: str | None) -> dict[str, Any]:
        """The response or error with this id."""
        while id not in self.answers:
            await self._more()
        return self.answers.pop(id)

    async def call(self, command: str, call: str | None = None, /, **args: Any) -> Any:
        """Call and return the result; asserts that it is a response."""
        answer = await self.answer(await self.begin(command, call, **args))
        assert answer["type"] == "response", answer
        return answer["payload"]

    async def fails(self, command: str, code: str, call: str | None = None, /, **args: Any) -> dict[str, Any]:
        """Call and return the error object; asserts that it is one with this code."""
        answer = await self.answer(await self.begin(command, call, **args))
        assert answer["type"] == "error", answer
        return refused(answer["payload"], code)

    async def event(self) -> dict[str, Any]:
        """The next event frame, `hub:gap` and `hub:mark` included."""
        while not self.events:
            await self._more()
        return self.events.pop(0)

    async def name(self) -> str:
        """The next event's name."""
        return str((await self.event())["payload"]["event"])

    async def numbers(self, count: int) -> list[int]:
        """The numbers of the next so many events."""
        return [seq(await self.event()) for _ in range(count)]

    async def end(self) -> int:
        """Read to the end of the connection, and return its close code."""
        while (frame := await self.frame()) is not None:
            if frame["type"] == "event":
                self.events.append(frame)
            else:
                self.answers[frame["id"]] = frame
        assert self.code is not None
        return self.code


@asynccontextmanager
async def talk(url: str, query: str = "", **options: Any) -> AsyncIterator[Talk]:
    """A WebSocket client of the hub at `url`, connected."""
    async with (
        ClientSession() as http,
        http.ws_connect(f"{url}ws{query}", max_msg_size=0, **options) as ws,
    ):
        yield Talk(ws)


def seq(frame: Mapping[str, Any]) -> int:
    """The number in an event's cursor."""
    return int(frame["cursor"].rpartition(":")[2])


def handshake(port: int, query: str = "") -> bytes:
    """A client's side of the upgrade (RFC 6455, section 4.1)."""
    return (
        f"GET /ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )


class Raw:
    """A WebSocket client down to the bytes: it reads only when asked to, and answers no ping."""

    def __init__(self, port: int, buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.setblocking(False)
        self.port = port
        self._left = b""

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.socket.close()

    async def write(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.socket, data), PATIENCE)

    async def read(self) -> bytes:
        """Some more bytes; none if the hub has closed the connection, also if it did so with a reset."""
        reading = asyncio.get_running_loop().sock_recv(self.socket, 65536)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reading, PATIENCE)
        return b""

    async def upgrade(self, query: str = "") -> None:
        await self.write(handshake(self.port, query))
        while b"\r\n\r\n" not in self._left:
            self._left += await self.read()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    @staticmethod
    def packed(opcode: int, payload: bytes, final: bool = True) -> bytes:
        """One masked frame (RFC 6455, section 5.2; the mask is zero, so the payload stays readable)."""
        size = len(payload)
        length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0xFE, size & 0xFFFF)
        if size > 0xFFFF:
            length = struct.pack("!BQ", 0xFF, size)
        return bytes([(0x80 if final else 0) | opcode]) + length + bytes(4) + payload

    async def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        await self.write(self.packed(opcode, payload, final))

    async def frame(self) -> tuple[int, bytes] | None:
        """The next frame as (opcode, payload); None at the end of the connection."""
        head = await self._take(2)
        if head is None:
            return None
        size = head[1]
        if size >= 126:
            more = await self._take(2 if size == 126 else 8)
            size = int.from_bytes(more or b"")
        payload = await self._take(size)
        return (head[0] & 0x0F, payload) if payload is not None else None

    async def _take(self, size: int) -> bytes | None:
        while len(self._left) < size:
            data = await self.read()
            if not data:
                return None
            self._left += data
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    async def close_code(self) -> int:
        """Read to the close frame, answer it, and return its code."""
        while (frame := await self.frame()) is not None:
            if frame[0] == 0x8:
                with contextlib.suppress(ConnectionError):
                    await self.send(0x8, frame[1][:2])
                return int.from_bytes(frame[1][:2])
        raise AssertionError("the connection ended without a close frame")


@dataclass
class Sent:
    """One Server-Sent Event, or a comment (then only that is set)."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    comment: str | None = None

    @property
    def json(self) -> Any:
        assert self.data is not None
        return json.loads(self.data)


class Stream:
    """An SSE client. Reads blocks as the HTML standard, section 9.2.6, has them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> Sent | None:
        """The next event or comment; None at the end of the stream."""
        sent = Sent()
        async with asyncio.timeout(PATIENCE):
            while (line := (await self.response.content.readline()).decode()) != "\n":
                if not line:
                    return None
                name, _, value = line.rstrip("\n").partition(":")
                known = {"": "comment", "id": "id", "event": "event", "data": "data"}
                setattr(sent, known[name], value.removeprefix(" "))
        return sent

    async def event(self) -> Sent:
        """The next event; comments are skipped."""
        while (sent := await self.block()) is not None:
            if sent.comment is None:
                return sent
        raise AssertionError("the stream ended")

    async def end(self) -> list[Sent]:
        """Everything up to the end of the stream."""
        found = []
        while (sent := await self.block()) is not None:
            found.append(sent)
        return found


@asynccontextmanager
async def stream(url: str, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """An SSE client of the hub at `url`, connected: what is published from here on, it gets."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with ClientSession() as http, http.get(f"{url}events{query}", headers=named) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        found = Stream(response)
        await found.block()  # the comment that the hub begins with
        yield found
