"""What `hub print redis` prints, in real servers: hubs share a stream through its user, and nobody else gets in."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
from engines import PATIENCE, redis_program, valkey_program
from prints import printed
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry
from running import hub_app, talk, until
from strangers import STRANGER, needs_root

from hub.errors import UsageError
from hub.stream.brokers import connection, redis

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a server takes is not what is asked here."""
    for module in (connection, redis):
        monkeypatch.setattr(module, "PATIENCE", PATIENCE)


Change = Callable[[str], str]


def same(text: str) -> str:
    return text


class Server:
    """A server with the printed file, but for its folder; and what the file says that a hub is told."""

    def __init__(self, program: str, folder: Path, change: Change = same) -> None:
        self.text = change(printed("redis", "--domain", "localhost").replace("/var/lib/hub-redis", str(folder)))
        self.url, self.tls_url = re.findall(r"HUB_BROKER=(\S+)", self.text)
        self.path, self._program = folder / "redis.conf", program
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    def start(self) -> None:
        """Start it, and wait until it answers its user."""
        self.path.write_text(self.text)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, str(self.path)], stdout=log, stderr=log)
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except (RedisError, OSError):  # it is not there yet
                if self._process.poll() is not None or time.monotonic() > ends:
                    raise AssertionError(self._log.read_text()) from None
                time.sleep(0.01)

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def client(self, **options: Any) -> Any:
        """One with the user of the file."""
        return Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), **options)


@contextmanager
def server(program: str, change: Change = same) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket has 107 characters at most
        found = Server(program, Path(folder), change)
        found.start()
        try:
            yield found
        finally:
            found.end()


@pytest.fixture(scope="module", params=[redis_program, valkey_program], ids=["redis", "valkey"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param()) as found:
        yield found


async def test_hubs_share_a_stream_through_its_user(running: Server, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "one", broker=running.url) as one,
        hub_app(tmp_path / "two", broker=running.url) as two,
    ):
        async with talk(two.url) as client:
            for n in range(3):
                body = {"event": "task:progress", "data": {"id": f"{n}", "progress": n}, "id": f"e{n}", "ttl": 600}
                assert (await one.post("api/events", body)).status == 200
                assert (await client.event())["id"] == f"e{n}"
        assert (await two.post("api/events", body)).json["duplicates"] == 1
        again = {"Idempotency-Key": "k"}
        for hub in (one, two):
            assert (await hub.post("api/commands/hub:ping", {})).status == 200
            async with hub.http.post(
                f"{hub.url}api/commands/hub:seen", json={"event": "task:progress", "key": "1"}, headers=again
            ) as answer:
                assert answer.status == 200
        assert (await two.get("readyz")).status == 200
        running.end()
        await until(lambda: one.hub.broker.problem and two.hub.broker.problem, "noticing it")
        running.start()  # what was answered is there again
        await until(lambda: one.hub.broker.problem is None and two.hub.broker.problem is None, "coming back")
        kept = (await two.get("api/events", topics="task:*")).json
        assert len(kept.get("events", ())) == 3, kept
        assert (await two.post("api/events", body)).json["duplicates"] == 1


async def test_commands_and_questions_go_from_hub_to_hub_through_its_user(running: Server, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "one", broker=running.url) as one,
        hub_app(tmp_path / "two", broker=running.url) as two,
        talk(one.url, "?topics=no:events") as provider,
        talk(two.url, "?topics=no:events") as caller,
        talk(two.url, "?topics=no:events") as asker,
    ):
        await provider.call("hub:provide", commands=[{"name": "greet:hello", "effect": "read"}])
        while "greet:hello" not in (await two.get("api/commands")).text:
            await asyncio.sleep(0.02)
        call = await caller.begin("greet:hello")
        asked = await provider.frame()
        assert asked is not None
        await provider.send({"type": "response", "id": asked["id"], "payload": "hello"})
        assert (await caller.answer(call))["payload"] == "hello"
        question = await asker.begin("hub:ask", question="Deploy?", options=["yes", "no"])
        while not (await one.post("api/commands/hub:questions", {})).json:
            await asyncio.sleep(0.02)
        (open_one,) = (await one.post("api/commands/hub:questions", {})).json
        given = {"question": open_one["id"], "answer": "yes"}
        assert (await one.post("api/commands/hub:answer", given)).json == {"accepted": True}
        assert (await asker.answer(question))["payload"]["answer"] == "yes"


def test_nobody_else_gets_in(running: Server) -> None:
    address = running.url.partition("@")[2]
    with Redis(unix_socket_path=address, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    for user, password in (("default", ""), ("hub", "wrong"), ("default", running.url.split(":")[2].partition("@")[0])):
        client = Redis(unix_socket_path=address, username=user, password=password or "x", retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(AuthenticationError):
            client.ping()


WORDS = """
GET other, SET hub:x 1, SET {hub} 1, XADD {other}:e * a 1, PUBLISH other x, SUBSCRIBE other, KEYS *, SCAN 0, FLUSHALL
FLUSHDB, CONFIG GET *, CONFIG SET dir /, ACL LIST, ACL WHOAMI, SHUTDOWN, MONITOR, REPLICAOF NO ONE, SAVE
MODULE LIST, FUNCTION FLUSH, FUNCTION DELETE hub, EVAL return 0, CLIENT LIST, CLIENT KILL ID 1, SWAPDB 0 0
RENAME {hub}:a b, COPY {hub}:a b, MIGRATE h 1 k 0 1, SORT {hub}:a, DUMP {hub}:a
"""


def may(client: Any, words: str) -> bool:
    try:
        client.execute_command(*words.split())
    except NoPermissionError:
        return False
    except RedisError:
        pass  # it was let in that far
    return True


def test_its_user_does_what_a_hub_does_and_no_more(running: Server) -> None:
    with running.client() as client:
        allowed = [words for words in re.split(r", |\n", WORDS.strip()) if may(client, words)]
    assert allowed == []


def test_no_function_of_its_user_reaches_beyond(running: Server) -> None:
    code = "#!lua name=beyond\nredis.register_function('beyond', function() return redis.call('GET', 'other') end)"
    with running.client() as client:
        client.execute_command("FUNCTION", "LOAD", "REPLACE", code)
        with pytest.raises(ResponseError, match=r"(?i)permission|can't access"):
            client.execute_command("FCALL", "beyond", 0)


def test_it_keeps_what_it_is_told(running: Server) -> None:
    assert oct(Path(running.url.partition("@")[2]).stat().st_mode)[-3:] == "770"
    assert re.findall(r"^(appendonly|appendfsync|maxmemory-policy) (\w+)$", running.text, re.MULTILINE) == [
        ("appendonly", "yes"), ("appendfsync", "everysec"), ("maxmemory-policy", "noeviction"),
    ]  # fmt: skip
    with running.client(decode_responses=True) as client:
        facts = client.info()
        assert (facts["aof_enabled"], facts["maxmemory_policy"], facts["maxmemory"]) == (1, "noeviction", 2**30)


async def test_weakened_without_a_right_a_hub_cannot_work(tmp_path: Path) -> None:
    with (
        server(redis_program(), lambda text: text.replace("+@sortedset ", "")) as it,
        pytest.raises(UsageError, match="NOPERM"),
    ):
        async with hub_app(tmp_path, broker=it.url):
            pass


async def test_weakened_a_default_user_without_rights_loses_everything_at_a_restart(tmp_path: Path) -> None:
    """It is what the server reads its own files as."""
    with server(
        redis_program(), lambda text: text.replace("off resetpass allkeys allchannels allcommands", "off")
    ) as it:
        async with hub_app(tmp_path, broker=it.url) as hub:
            assert (await hub.post("api/events", {"event": "a:b", "data": 1})).status == 200
        it.end()
        it.start()
        async with hub_app(tmp_path, broker=it.url) as hub:
            assert (await hub.get("api/events")).json["events"] == []


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody else is given meanwhile."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert


async def test_hubs_of_other_machines_come_over_tls(tmp_path: Path, port: int, certificate: Path) -> None:
    def over_tls(text: str) -> str:
        """As the file says: the lines that are there for it, in place of those of the socket."""
        lines = [line.lstrip("#") if re.match("#(tls|bind)", line) else line for line in text.splitlines()]
        text = "\n".join(line for line in lines if not line.startswith("unixsocket"))
        for there, here in (("6379", str(port)), ("bind *", "bind 127.0.0.1"), ("/etc/hub-redis", str(tmp_path))):
            assert there in text
            text = text.replace(there, here)
        (secure,) = re.findall(r"HUB_BROKER=(rediss:\S+)", text)
        return re.sub(r"HUB_BROKER=unix:\S+", f"HUB_BROKER={secure}?ssl_ca_certs={certificate}", text)

    with server(redis_program(), over_tls) as it:
        async with hub_app(tmp_path / "state", broker=it.url) as hub:
            assert (await hub.post("api/events", {"event": "a:b", "data": 1})).status == 200
        with pytest.raises(UsageError, match=r"(?i)certificate"):
            async with hub_app(tmp_path / "state", broker=it.tls_url):
                pass


CONNECTS = (
    "import os,socket,sys;path,group=sys.argv[1],int(sys.argv[2]);os.setgroups([group] if group else []);"
    "os.setgid(65533);os.setuid(65533);socket.socket(socket.AF_UNIX).connect(path)"
)


@needs_root
@pytest.mark.parametrize("weakened", [False, True])
def test_the_accounts_of_its_group_reach_the_socket_and_no_others(weakened: bool) -> None:
    """With the folder as the head of the file makes it; without its first digit the socket is of the server's group."""
    (mode,) = re.findall(r"install -d -m (\d+) -o redis -g hub", printed("redis"))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        place = Path(folder, "hub-redis")
        place.mkdir()
        os.chown(place, STRANGER, 4711)
        place.chmod(int(mode, 8) & (0o777 if weakened else 0o7777))
        path = place / "redis.sock"
        command = [redis_program(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "770", "--save", ""]
        process = subprocess.Popen(command, cwd=place, user=STRANGER, group=STRANGER, extra_groups=[], stdout=DEVNULL)
        try:
            ends = time.monotonic() + PATIENCE
            while not path.exists() and time.monotonic() < ends:
                time.sleep(0.01)

            def reaches(group: int) -> bool:
                return (
                    subprocess.run([sys.executable, "-c", CONNECTS, path, str(group)], stderr=DEVNULL).returncode == 0
                )

            assert (reaches(4711), reaches(0)) == (not weakened, False)
        finally:
            process.kill()
            process.wait()
