"""What the other accounts of this machine may take of the hub: so many connections, so many requests, one drawing."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest
from doors import bearer, guard_of
from running import HubInside, hub_app, hub_process, sockets, until
from strangers import BECOME, as_stranger, needs_root

from hub import tokens
from hub.web import api, health
from hub.web.access import connections

pytestmark = needs_root

# Opens so many connections; then, when it is told to, asks on each, and prints the statuses in order (0: cut off).
CROWD = f"""{BECOME}
sockets = [socket.socket() for _ in range(int(sys.argv[2]))]
for s in sockets:
    s.connect(("127.0.0.1", int(sys.argv[1])))
print(flush=True)
request = sys.stdin.buffer.readline().strip().replace(b"|", b"\\r\\n")
def ask(s):
    try:
        s.sendall(request)
        return int((s.recv(9999).split() + [b"0", b"0"])[1])
    except ConnectionError:
        return 0
if request:
    print(*map(ask, sockets), flush=True)
    sys.stdin.read()
"""


class Crowd:
    """Connections of another account."""

    def __init__(self, hub: HubInside, child: asyncio.subprocess.Process) -> None:
        self.hub, self.child = hub, child

    async def ask(self, target: str, *lines: str) -> list[int]:
        """What each gets for this request; they stay open where the hub lets them."""
        head = "|".join([f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{self.hub.port}", *lines, "", ""])
        assert self.child.stdin
        assert self.child.stdout
        self.child.stdin.write(f"{head}\n".encode())
        return [int(word) for word in (await self.child.stdout.readline()).split()]


@asynccontextmanager
async def crowd(hub: HubInside, count: int) -> AsyncIterator[Crowd]:
    """So many connections, which the hub has seen."""
    before = guard_of(hub).accepted.connections.copy()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CROWD, str(hub.port), str(count)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    await child.stdout.readline()
    cut = "hub_connections_refused_total", "too_many"
    open_now = guard_of(hub).accepted.connections
    await until(lambda: len(open_now.keys() - before) + hub.counted(*cut) >= count, "the crowd")
    yield Crowd(hub, child)
    await child.communicate(b"")  # also closes its stdin, on Python 3.11 too


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second passes: what is counted does not depend on the machine."""
    monkeypatch.setattr("hub.commands.ratelimit.time", mock.Mock(monotonic=lambda: 1000.0))
    monkeypatch.setattr("hub.web.health.time", mock.Mock(monotonic=lambda: 1000.0))


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
async def test_other_accounts_take_no_descriptors_away(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(connections, "STRANGERS", 10**9)
    async with hub_app(tmp_path) as hub:
        before = sockets()
        async with crowd(hub, 150) as strangers:
            await until(lambda: sockets() - before == (150 if weakened else 64), "the end of those that were cut off")
            assert (await hub.get("api/state")).status == 200  # the operator gets in
            assert hub.counted("hub_connections_refused_total", "too_many") == (0 if weakened else 86)
            statuses = await strangers.ask("/api/state")
            assert statuses == [403] * 150 if weakened else statuses == [403] * 64 + [0] * 86
        await until(lambda: not guard_of(hub).accepted.strangers)
        assert (await hub.recorded("client.refused"))[0]["details"]["reason"] in ("too_many", "user")


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
async def test_who_comes_back_at_once_is_cut_off_too(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(connections, "STRANGERS", 10**9)
    async with hub_app(tmp_path) as hub:
        for _ in range(3):  # none of them is there at the same time as another
            async with crowd(hub, 30):
                pass
            await until(lambda: not guard_of(hub).accepted.strangers)
        assert hub.counted("hub_connections_refused_total", "too_many") == (0 if weakened else 26)


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("target", ["/metrics", "/healthz"])
async def test_other_accounts_get_20_a_second(
    tmp_path: Path, target: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(api, "STRANGER_RATE", 0.0)
    async with hub_app(tmp_path) as hub:
        async with crowd(hub, 50) as strangers:
            assert await strangers.ask(target) == ([200] * 50 if weakened else [200] * 20 + [429] * 30)
            left = 50 if weakened else 20
            await until(lambda: len(guard_of(hub).accepted.strangers) == left, "the end of who asked too often")
        for _ in range(50):  # the operator is none of them
            assert (await hub.get(target[1:])).status == 200
        assert hub.counted("hub_rate_limited_total") == (0 if weakened else 30)


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
async def test_other_accounts_share_a_drawing_of_the_metrics(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = mock.Mock(wraps=health._draw)
    monkeypatch.setattr(health, "_draw", draw)
    if weakened:
        monkeypatch.setattr(health, "SHARED_SECONDS", 0.0)
    async with hub_app(tmp_path) as hub:
        async with crowd(hub, 10) as strangers:
            assert await strangers.ask("/metrics") == [200] * 10
        assert draw.call_count == (10 if weakened else 1)
        async with crowd(hub, 5) as strangers:
            assert await strangers.ask("/metrics", "Accept: application/openmetrics-text") == [200] * 5
        assert draw.call_count == (15 if weakened else 2)
        for accept in ("text/plain", "application/openmetrics-text;version=1.0.0;q=0.5,*/*", "text/plain;version=x"):
            answer = await hub.ask("GET", "metrics", headers={"Accept": accept})  # the operator sees what is true now
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(accept.partition(";")[0])
        assert draw.call_count == (18 if weakened else 5)


async def test_in_token_mode_who_has_the_token_is_no_stranger(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        async with crowd(hub, 3) as strangers:
            assert len(guard_of(hub).accepted.strangers) == 3
            assert await strangers.ask("/api/state") == [401] * 3
        async with crowd(hub, 3) as strangers:
            assert await strangers.ask("/api/state", f"Authorization: {bearer(hub)['Authorization']}") == [200] * 3
            assert not guard_of(hub).accepted.strangers
            assert len(guard_of(hub).accepted.connections) >= 3


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
async def test_an_account_with_the_token_is_not_cut_off_however_often_it_comes(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script does that makes a connection for each request: the right token is never kept waiting."""
    if weakened:
        monkeypatch.setattr(connections, "SHOWN_SECONDS", 0.0)
    async with hub_app(tmp_path, auth="token") as hub:
        token = f"Authorization: {bearer(hub)['Authorization']}"
        for _ in range(4):
            async with crowd(hub, 20) as strangers:
                answers = await strangers.ask("/api/state", token)
                await until(lambda: not guard_of(hub).accepted.strangers)
            if 0 in answers:
                break
        assert (0 in answers) is weakened
        assert hub.counted("hub_connections_refused_total", "too_many") == (16 if weakened else 0)
        async with crowd(hub, 70) as strangers:  # without a word they count, of whatever account
            assert (await strangers.ask("/api/state", token)).count(0) == (70 if weakened else 6)


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_replaced_token_lets_nobody_come_as_often_as_it_likes(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(connections.Watch, "forget", lambda watch: None)
    async with hub_app(tmp_path, auth="token") as hub:
        token = f"Authorization: {bearer(hub)['Authorization']}"
        async with crowd(hub, 60) as strangers:
            assert await strangers.ask("/api/state", token) == [200] * 60
        tokens.replace(hub.hub.config.state_dir)
        assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == 200
        async with crowd(hub, 10) as strangers:
            assert await strangers.ask("/api/state", token) == ([401] * 10 if weakened else [401] * 4 + [0] * 6)


async def test_in_token_mode_who_may_be_the_operator_is_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub_app(tmp_path / "a", auth="token", trusted_proxy=("127.0.0.0/8",)) as hub, crowd(hub, 3):
        assert not guard_of(hub).accepted.strangers
    monkeypatch.setattr(connections, "owner", lambda transport: None)
    async with hub_app(tmp_path / "b", auth="token") as hub, crowd(hub, 3) as nameless:
        assert not guard_of(hub).accepted.strangers
        assert await nameless.ask("/api/state", f"Authorization: {bearer(hub)['Authorization']}") == [200] * 3


async def test_there_is_nothing_to_ask_of_metrics_and_health(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        for path in ("metrics", "healthz", "readyz"):
            (await hub.get(path, name="x")).refused(400, "invalid_args")
        lines = f"GET /metrics?a=1 HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: close\r\n\r\n"
        assert " 400 " in (await as_stranger(hub.port, lines.encode())).splitlines()[0]


async def test_a_flood_of_nonsense_of_another_account_is_a_line_a_second(tmp_path: Path) -> None:
    """Also of connections that are cut off before they are read."""
    lines = ["MARK", "\x16MARK", "GET / HTTP/9", "GET /MARK HTTP/1.1\r\nMARK", "GET / HTTP/1.1\r\nContent-Length: MARK"]
    then = (
        "\nfor n in range(500):\n"
        "  s=socket.socket();s.connect(('127.0.0.1',int(sys.argv[1])))\n"
        "  try:\n"
        f"    s.sendall({lines!r}[n%5].encode()+b'\\r\\n\\r\\n');s.recv(100)\n"
        "  except ConnectionError:pass\n"
        "  s.close()\n"
    )
    async with hub_process(tmp_path) as hub:
        start = asyncio.get_running_loop().time()
        await as_stranger(hub.port, b"", then)
        seconds = asyncio.get_running_loop().time() - start
        async with hub.http.get(f"{hub.url}metrics") as answer:
            text = await answer.text()
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("hub_connections_refused_total{")]
    assert sum(map(float, counts)) >= 500
    assert len(hub.log.splitlines()) <= 3 + seconds
    assert "MARK" not in hub.log
    assert "Traceback" not in hub.log
