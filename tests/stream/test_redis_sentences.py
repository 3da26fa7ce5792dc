"""What a hub says of a Redis that is not as it should be: one sentence each, in words of its own, on what to do."""

import asyncio
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import PATIENCE as START
from engines import Engine, broker, engine, redis_program
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    OutOfMemoryError,
    ResponseError,
    TimeoutError,
)
from running import run_hub, until
from stores import PLENTY, STATE, Store, draft

from hub.brokerurl import has_password
from hub.config import Config
from hub.errors import HubError, UsageError
from hub.stream.brokers import connection, rarely
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.connection import Connection
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Away, Moved, Server, Trouble

pytestmark = pytest.mark.once


# ---- its words

ERRORS: list[tuple[BaseException, str]] = [
    (ResponseError("ERR user_function:12: boom script: hub_x, on @user_function:12."), "hub's log has the error"),
    (ResponseError("ERR The ID specified in XADD is equal or smaller"), "hub's log has the error"),
    (ResponseError("ERR max number of clients reached."), "takes no more clients: raise its maxclients"),
    (ConnectionError("max number of clients reached"), "takes no more clients: raise its maxclients"),
    (ResponseError("BUSY Redis is busy running a script. Call SCRIPT KILL."), "busy with a script, or a function, of"),
    (ResponseError("FOREIGN {p}:e script: hub_try, on @user_function:9."), "type DEL {p}:e there, and they go on"),
    (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "out of memory"),
    (AuthenticationError("WRONGPASS invalid username-password pair."), "does not let the hub in"),
    (BusyLoadingError("Redis is loading the dataset in memory"), "is loading its data"),
    (TimeoutError("Timeout reading from socket"), "does not answer"),
    (InvalidResponse("Protocol Error: b'\\x15\\x03'"), "does not answer as a Redis; if it speaks TLS"),
    (ConnectionError("Connection closed by server."), "has closed the connection; if it speaks TLS"),
    (ConnectionError("Error UNKNOWN while writing to socket. Connection lost."), "has closed the connection; if"),
    (ConnectionResetError(104, "Connection reset by peer"), "has closed the connection; if"),
    (ConnectionResetError("Connection lost"), "has closed the connection; if it"),
    (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "cannot be reached: Connection refused"),
    (ssl.SSLError(1, "[SSL] odd"), "TLS fails ([SSL] odd)"),
    (OSError(), "cannot be reached: OSError"),
]


@pytest.mark.parametrize(("error", "words"), ERRORS, ids=[words for _, words in ERRORS])
def test_each_is_one_sentence_without_internal_texts(
    error: BaseException, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server("redis://h?prefix=p")
    server.trouble(error)
    found = str(server.trouble(error))
    assert words in found
    assert re.fullmatch(r"Redis at h:6379 [^.]*(\.[^ .][^.]*)*\.", found), found
    assert not re.search(r"user_function|script:|XADD|[Tt]raceback|\('|\bb'|Errno|Error \d", found)
    assert caplog.text.count("bug of the hub") == ("log has" in found)  # once, and there with the server's own words


def test_what_only_means_that_all_is_another_is_no_reason_of_its_own() -> None:
    server = Server("redis://h")
    for text in ("EPOCH the stream", "WRONGTYPE Operation against a key", "Function not found"):
        assert isinstance(server.trouble(ResponseError(text)), Moved)


# ---- its URL


@pytest.mark.parametrize("prefix", ["", "%7Ba", "a%7D", "a%20b", "x" * 65])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(
        UsageError, match="prefix in the URL of the broker must be 1 to 64 characters, without spaces and"
    ):
        Server(f"redis://h?prefix={prefix}")
    assert Server("redis://h?prefix=a:b-c").keys[0] == "{a:b-c}:e"


def test_of_tls_nothing_is_said_where_there_is_none() -> None:
    closed = ConnectionError("Connection closed by server.")
    assert str(Server("unix:///r.sock").trouble(closed)) == "Redis at /r.sock has closed the connection."
    assert "rediss://" in str(Server("redis://h").trouble(closed))


class Tls:
    """A Redis on two ports, one of them with TLS, and its certificate."""

    def __init__(self, folder: Path) -> None:
        self.cert, key = folder / "cert.pem", folder / "key.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        )
        names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(self.cert)]
        subprocess.run([*command.split(), *names], check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            self.plain, self.port = one.getsockname()[1], two.getsockname()[1]
        self.options = f"--port {self.plain} --tls-port {self.port} --tls-cert-file {self.cert} --tls-key-file {key}"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    found = Tls(tmp_path)
    with engine(redis_program(), *found.options.split(), "--tls-auth-clients", "no"):
        yield found


async def test_a_url_with_tls_and_a_server_without_and_the_other_way_round(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told(url: str) -> str:
        with pytest.raises(Trouble) as trouble:
            await Connection.make(Server(url))
        return str(trouble.value)

    assert (await told(f"redis://localhost:{tls.port}")).endswith("if it speaks TLS, its URL begins with rediss://.")
    assert "names the certificates that are good" in await told(f"rediss://localhost:{tls.port}")
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    assert (await told(f"rediss://localhost:{tls.plain}")).endswith("not speak TLS, its URL begins with redis://.")
    monkeypatch.setattr(connection, "PATIENCE", START)
    good = Server(f"rediss://localhost:{tls.port}?ssl_ca_certs={tls.cert}")
    (await Connection.make(good)).close()
    assert str(good.trouble(TimeoutError(""))) == f"Redis at localhost:{tls.port} does not answer."  # its URL is right


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
async def test_a_file_with_a_password_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "url"
    file.write_text("redis://hub:oh-so-secret@127.0.0.1:1")
    file.chmod(mode)
    status, out, err = await run_hub(tmp_path, "--port", "0", "--broker-file", str(file), "--state-dir", "state")
    assert (status, out, "oh-so" in err) == (2, "", False)
    assert (f"others can read it ({mode:04o}): chmod 600" in err) == (mode != 0o600)
    file.write_text("redis://127.0.0.1:1")  # no secret
    assert Config(broker_file=str(file)).broker == "redis://127.0.0.1:1"


@pytest.mark.parametrize("url", ["redis://:x@h", "redis://h?password=x", "redis://h?pass%77ord=x"])
def test_a_password_is_seen_however_it_is_written(url: str) -> None:
    assert has_password(url)


# ---- what it does with what it keeps


async def test_a_server_that_throws_away_is_told_at_the_start(
    redis_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def start() -> str:
        caplog.clear()
        it = Store(broker(redis_engine, prefix=uuid4().hex))
        await it.open()
        await it.broker.close()
        return caplog.text

    assert "maxmemory-policy" not in await start()
    redis_engine.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert "(maxmemory-policy allkeys-lru), and events with it; set it to noeviction" in await start()
    finally:
        redis_engine.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_limits_of_the_stream_are_told_in_words(redis_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    prefix = uuid4().hex
    for limits in (Limits(7, 8, 9.5), PLENTY):
        it = Store(broker(redis_engine, limits, prefix=prefix))
        await it.open()
        await it.broker.close()
    assert "limits of its own: 7 events, 8 bytes, 9.5 seconds; it keeps to them" in caplog.text
    assert "Limits(" not in caplog.text


async def test_epochs_that_come_and_go_are_told_once_a_minute_with_what_is_likely(
    redis_engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Store(broker(redis_engine, prefix=uuid4().hex))
    await it.open()
    seen = set[str]()
    redis_engine.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    async def begun(count: int) -> None:
        for _ in range(count):
            await it.put(draft("a"))
            seen.add(it.broker.epoch)
            redis_engine.ask("DEL", *it.broker.server.keys)  # as a server does that throws away
            await until(lambda: it.broker.epoch not in seen)

    def told() -> list[str]:
        return [each.message for each in caplog.records if "another epoch of the stream" in each.message]

    try:
        await begun(4)
        assert (len(told()), caplog.text.count("are gone from Redis")) == (1, 1)
        assert "maxmemory-policy is allkeys-lru, so it is likely to throw events away" in told()[0]
        redis_engine.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        monkeypatch.setattr(rarely, "MINUTE", 0.0)
        await begun(1)
        assert "(4 of them since this was told last)" in told()[1]
        assert "maxmemory-policy" not in told()[1]
    finally:
        redis_engine.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await it.broker.close()


FOREIGN_LIBRARY = "#!lua name=hub\nredis.register_function('beyond', function() return 'mine' end)"


async def test_a_function_library_of_another_program_is_told_and_left_alone(tmp_path: Path) -> None:
    with engine(redis_program()) as server:
        server.ask("FUNCTION", "LOAD", FOREIGN_LIBRARY)
        it = Store(RedisBroker(Server(server.url()), PLENTY, STATE))
        with pytest.raises(UsageError, match=r"named hub that is another program's: .*FUNCTION DELETE hub"):
            await it.open()
        assert server.ask("FCALL", "beyond", 0) == b"mine"
        server.ask("FUNCTION", "DELETE", "hub")
        await it.open()
        assert await it.put(draft("a")) == [1]
        (found,) = server.ask("FUNCTION", "LIST", "WITHCODE")
        words: list[Any] = [word for pair in found.items() for word in pair] if isinstance(found, dict) else found
        code = words[words.index(b"library_code") + 1]
        await it.broker.close()
        server.ask("FUNCTION", "LOAD", "REPLACE", code + b"\n-- of another version")
        again = Store(RedisBroker(Server(server.url()), PLENTY, STATE))
        await again.open()  # replaces it: it is a hub's
        await again.broker.close()


@pytest.mark.parametrize(
    ("reply", "weakened"), [*((reply, False) for reply in ("1", "'x'", "false", "{}", "{1, 2}", "{'x'}")), ("1", True)]
)
async def test_a_function_that_answers_something_else_is_of_another_program(
    reply: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it would wait for ever."""
    if weakened:
        monkeypatch.setattr(connection, "RETURNS", {})
    code = f"#!lua name=hub\nredis.register_function('hub_append', function() return {reply} end)"
    with engine(redis_program()) as server:
        it = Store(RedisBroker(Server(server.url()), PLENTY, STATE))
        await it.open()
        it.broker._running.cancel()  # nobody looks before
        await asyncio.wait([it.broker._running])
        its, odd = it.broker._appends, list[str]()
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: odd.append(context["message"]))
        server.ask("FUNCTION", "LOAD", "REPLACE", code)
        waiting = asyncio.ensure_future(it.put(draft("a")))
        await until(lambda: bool(odd) or waiting.done())
        assert (bool(odd), waiting.done()) == (weakened, not weakened)
        if weakened:
            its.detach(Away("It is over."))
            waiting.cancel()
        else:
            with pytest.raises(HubError, match=r"named hub that is another program's: .*FUNCTION DELETE hub"):
                await waiting
        await it.broker.close()


async def test_whoever_comes_while_the_stream_becomes_another_has_no_problem_to_tell(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Store(broker(redis_engine, prefix=uuid4().hex))
    await it.open()
    attach, tries, ends = it.broker._attach, 0, 0
    told = list[str]()

    def say(problem: str | None) -> None:
        told.extend([problem] if problem else [])

    async def moving() -> Any:
        nonlocal tries
        tries += 1
        if tries < ends:
            raise Moved("The stream is of another epoch now.")
        return await attach()

    monkeypatch.setattr(it.broker, "_attach", moving)
    monkeypatch.setattr(it.broker, "_say", say)
    it.broker._running.cancel()
    await asyncio.wait([it.broker._running])
    for count, problems in ((3, 0), (6, 2)):
        tries, ends = 0, count
        it.broker._drop(Moved("The stream is of another epoch now."))
        await it.broker._come_back()
        assert (tries, len(told)) == (ends, problems)
    await it.broker.close()
