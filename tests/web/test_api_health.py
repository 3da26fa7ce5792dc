"""What watches the hub, and what every answer has, also to half a request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from asked import api_hub, event
from running import HubInside, Raw, hub_app


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with api_hub(tmp_path) as running:
        yield running


async def test_health_readiness_and_metrics(hub: HubInside) -> None:
    assert (await hub.get("healthz")).json["status"] == "ok"
    assert (await hub.get("readyz")).json == {"status": "ok", "reasons": {}}
    await hub.post("api/events", event("task:progress", {"id": "x"}))
    await hub.post("api/events", event("made:up", {"id": "x"}))
    text = (await hub.get("metrics")).text
    assert 'hub_events_total{event="task:progress"} 1.0' in text
    assert 'hub_events_total{event="other"} 1.0' in text
    assert "made:up" not in text
    openmetrics = await hub.ask("GET", "metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_whoever_looks_up_the_position_leaves_no_record(hub: HubInside) -> None:
    before = hub.hub.audit.seq
    for count in range(3):
        ready = await hub.get("readyz")
        assert ready.headers["Hub-Cursor"] == str(hub.hub.cursor)
        assert hub.hub.cursor.seq == count
        await hub.post("api/events", event("a:b"))
    assert hub.hub.audit.seq == before


async def test_every_answer_has_the_security_headers(hub: HubInside) -> None:
    for path in ("", "api/state", "no/such/page", "metrics", "ws", "static/hub.css", "api/events?after=x"):
        answer = await hub.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert answer.headers["Cache-Control"] == "no-store", path


async def test_what_is_not_http_is_400_and_costs_nothing(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.write(b"this is not HTTP\r\n\r\n")
        assert (await raw.read()).split()[1] == b"400"
    assert (await hub.get("healthz")).status == 200


async def test_half_a_request_is_not_waited_for(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(b"GET /healthz HTTP/1.1\r\nHost: 127")
        while await raw.read():
            pass


async def test_a_head_that_trickles_does_not_move_the_deadline(tmp_path: Path) -> None:
    async with hub_app(tmp_path, deadline=0.2) as hub, Raw(hub.port) as raw:
        await raw.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        end = asyncio.create_task(raw.read())
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while not end.done():
                    await asyncio.wait([end], timeout=0.02)
                    await raw.write(b"x")
        assert end.done()


def patient_runner(*args: Any, **options: Any) -> web.AppRunner:
    return web.AppRunner(*args, **{**options, "keepalive_timeout": 3600.0})


NO_DEADLINES: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "heads": (
        test_half_a_request_is_not_waited_for,
        "running.web",
        SimpleNamespace(AppRunner=patient_runner, SockSite=web.SockSite),
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), NO_DEADLINES.values(), ids=NO_DEADLINES.keys())
async def test_without_the_deadline_a_slow_client_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], Any], switch: str, off: Any
) -> None:
    monkeypatch.setattr("running.PATIENCE", 1.0)
    monkeypatch.setattr(switch, off)
    with pytest.raises(TimeoutError):
        await check(tmp_path)
