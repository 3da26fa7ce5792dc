"""TLS: who listens in or stands in the hub's place gets nothing, and nothing is slower for it."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from doors import bearer
from running import hub_app, hub_process, open_streams, run_hub, talk, until

from hub import Hub, HubClient
from hub.client.discovery import NoHub, verifying
from hub.client.items import Received
from hub.commands.call import Call
from hub.config import Config
from hub.web import streams
from hub.web.access import reader
from hub.web.keys import GUARD
from hub.web.tls import server_context


async def test_tls(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    async with hub_process(tmp_path, "--auth", "token", "--tls-cert", cert, "--tls-key", key) as hub:
        assert hub.url.startswith("https://127.0.0.1:")
        assert json.loads((hub.state_dir / "server.json").read_text())["url"] == hub.url
        async with HubClient(state_dir=hub.state_dir, ca=cert) as client:
            sent = await client.publish("a:b", {"big": "x" * 30_000})
            event = await anext(client)
            assert isinstance(event, Received)
            assert event.cursor == sent["cursor"]
        with pytest.raises(NoHub, match=r"(?i)certificate"):
            async with HubClient(hub.url, state_dir=hub.state_dir):
                pass
        where = ["--state-dir", str(hub.state_dir)]
        why = "(self-signed certificate): name the file of its certificate with --ca (in Python: ca), or HUB_CA"
        said = f"hub: The certificate of the hub at {hub.url.rstrip('/')} is not trusted {why}.\n"
        for words in (("publish", "a:b"), ("tail",)):
            assert await run_hub(tmp_path, *words, *where) == (3, "", said)
        assert (await run_hub(tmp_path, "publish", "a:b", *where, "--ca", cert))[0] == 0
        plain = hub.url.rstrip("/").replace("https", "http")
        said = f"hub: The hub at {plain} speaks https: name it as https{plain[4:]}.\n"
        for words in (("publish", "a:b"), ("call", "hub:ping"), ("status",)):
            assert await run_hub(tmp_path, *words, "--url", plain) == (3, "", said)
        status, _, err = await run_hub(tmp_path, "tail", "--url", plain)
        assert (status, "it hangs up; a hub with a certificate is named by https://" in err) == (3, True)
        _, link, _ = await run_hub(tmp_path, "token", "--link", *where, "--ca", cert)
        async with hub.http.get(link.strip(), ssl=verifying(cert), allow_redirects=False) as answer:
            assert answer.status == 303
            assert "; Secure" in answer.headers["Set-Cookie"]
        status, _, err = await run_hub(tmp_path, "publish", "a:b", *where, "--ca", key)
        assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_client_that_closes_while_its_call_runs_leaves_nothing_in_the_log(
    tmp_path: Path,
    certificate: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    weakened: bool,
) -> None:
    if weakened:
        monkeypatch.setattr(reader._Reader, "_is_tls", lambda self: False)
    release = asyncio.Event()

    def slow(hub: Hub) -> None:
        @hub.command("test:wait", effect="read")
        async def wait(call: Call) -> None:
            await release.wait()

    cert, key = certificate
    async with hub_app(tmp_path, prepare=slow, tls=server_context(Config(tls_cert=cert, tls_key=key))) as hub:
        _, writer = await asyncio.open_connection("127.0.0.1", hub.port, ssl=verifying(cert))
        head = f"POST /api/commands/test:wait HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nContent-Length: 2\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n{{}}".encode())
        await until(lambda: hub.hub.commands.running)
        connections = hub.app[GUARD].accepted.connections
        before = len(connections)
        writer.close()
        await until(lambda: len(connections) < before)
        release.set()
    assert [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == (
        ["returning true from eof_received() has no effect when using ssl"] * weakened
    )


@pytest.mark.parametrize("weakened", [False, True])
async def test_over_tls_an_event_does_not_wait_for_the_next_ping(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(streams, "_least", lambda transport: 0)
    cert, key = certificate
    context = server_context(Config(tls_cert=cert, tls_key=key))
    async with (
        hub_app(tmp_path, tls=context, heartbeat=3600.0) as hub,
        talk(hub.url, ssl=verifying(cert)) as client,
    ):
        (connection,) = open_streams(hub)
        for number in range(1, 9):
            await hub.publish(1)
            if not weakened:
                assert await client.numbers(1) == [number]
        if weakened:
            await until(lambda: connection.paused and connection.transport.get_write_buffer_size() == 0)


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_impostor_does_not_get_the_token(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Whoever answers at the hub's address, with a certificate that nobody has vouched for."""
    got: list[str | None] = []

    async def listen(request: web.Request) -> web.Response:
        got.append(request.headers.get("Authorization"))
        return web.json_response({"cursor": None})

    if weakened:
        monkeypatch.setattr("hub.client.client.verifying", lambda ca: ssl._create_unverified_context())
    app = web.Application()
    app.router.add_get("/{path:.*}", listen)
    runner = web.AppRunner(app)
    await runner.setup()
    context = server_context(Config(tls_cert=certificate[0], tls_key=certificate[1]))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        with suppress(NoHub):
            async with HubClient(f"https://127.0.0.1:{runner.addresses[0][1]}", token="secret"):
                pass
    finally:
        await runner.cleanup()
    assert got == (["Bearer secret"] if weakened else [])


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_sees_the_traffic_does_not_see_the_token(
    tmp_path: Path, certificate: tuple[str, str], weakened: bool
) -> None:
    cert, key = certificate
    context = None if weakened else server_context(Config(tls_cert=cert, tls_key=key))
    async with hub_app(tmp_path, tls=context, auth="token") as hub, overheard(hub.port) as (port, seen):
        url = f"http{'s' * (not weakened)}://127.0.0.1:{port}/api/state"
        headers = bearer(hub) | {"Host": f"127.0.0.1:{hub.port}", "Connection": "close"}
        async with hub.http.get(url, headers=headers, ssl=verifying(cert)) as answer:
            assert answer.status == 200
    assert (headers["Authorization"].encode() in b"".join(seen)) is weakened


@asynccontextmanager
async def overheard(target: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that leads to the target, and all that went through."""
    seen: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            seen.append(data)
            writer.write(data)
        writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        with suppress(ConnectionError):
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def test_a_certificate_that_does_not_fit_its_key(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, _ = certificate
    status, _, err = await run_hub(tmp_path, "--port", "0", "--tls-cert", cert, "--tls-key", cert)
    assert status == 2
    assert re.fullmatch(r"hub: [^\n]+\.\n", err)
