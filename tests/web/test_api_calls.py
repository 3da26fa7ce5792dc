"""POST /api/commands over real sockets: results, refusals, limits, and what the audit log has of them."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asked import api_hub, event, prepare, request
from running import HubInside, Raw, hub_app, talk, until

from hub.commands.ratelimit import Bucket
from hub.errors import HubError


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with api_hub(tmp_path) as running:
        yield running


async def test_a_command(hub: HubInside) -> None:
    answer = await hub.post("api/commands/test:add", {"a": 40, "b": 2})
    assert (answer.status, answer.json) == (200, 42)
    assert (await hub.post("api/commands/hub:info", b"")).json["protocol"] == 1
    names = [row["name"] for row in (await hub.get("api/commands")).json]
    assert "test:add" in names


async def test_unknown_command(hub: HubInside) -> None:
    (await hub.post("api/commands/no:such", {})).refused(404, "unknown_command")
    (await hub.post("api/commands/nonsense", {})).refused(404, "unknown_command")
    (await hub.get("no/such/page")).refused(404, "unknown_command")


async def test_bad_args(hub: HubInside) -> None:
    assert (await hub.post("api/commands/test:add", {"a": "1"})).refused(422, "invalid_args")["details"].keys() == {"a"}
    error = (await hub.post("api/commands/test:add", {"c": 1})).refused(422, "invalid_args")
    assert error["details"].keys() == {"a", "c"}
    wrong: tuple[Any, ...] = ([], 7, "x", None)
    for args in wrong:
        (await hub.post("api/commands/test:add", args)).refused(422, "invalid_args")


WRONG_METHODS = [
    ("PUT", "api/events"),
    ("DELETE", "api/events"),
    ("OPTIONS", "api/events"),
    ("GET", "api/commands/hub:ping"),
    ("POST", "api/state"),
    ("POST", "metrics"),
    ("POST", "events"),
    ("POST", "ws"),
    ("DELETE", "healthz"),
    ("POST", ""),
]


@pytest.mark.parametrize(("method", "path"), WRONG_METHODS)
async def test_a_wrong_method(hub: HubInside, method: str, path: str) -> None:
    answer = await hub.ask(method, path)
    answer.refused(405, "invalid_message")
    assert answer.headers["Allow"]
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", ["api/events", "api/state", "api/commands", "metrics", "healthz", "events"])
async def test_head_has_no_body_and_ends(hub: HubInside, path: str) -> None:
    """What aiohttp lets HEAD do for free must not start a stream behind the head of the answer."""
    async with Raw(hub.port) as raw:
        await raw.write(request(hub, f"HEAD /{path}") + request(hub, "GET /no/such/page", "Connection: close"))
        got = b""
        while data := await raw.read():
            got += data
        assert got.count(b"HTTP/1.1 ") == 2
        assert got.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 404 ")


async def test_a_command_that_refuses(hub: HubInside) -> None:
    error = (await hub.post("api/commands/test:refuse", {"order": 7})).refused(500, "command_failed")
    assert error["error"] == "There is no such order."
    assert error["details"] == {"order": 7}


@pytest.mark.parametrize("name", ["test:bug", "test:unwritable", "test:odd"])
async def test_a_bug_is_internal_with_a_reference_that_the_log_has(
    hub: HubInside, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "hub"):
        answer = await hub.post(f"api/commands/{name}", {})
    sentence = answer.refused(500, "internal")["error"]
    assert "secret plan" not in answer.text
    assert "ZeroDivision" not in answer.text
    reference = sentence.rstrip(".").split()[-1]
    [line] = [record for record in caplog.records if reference in record.getMessage()]
    assert line.exc_info
    async with talk(hub.url) as client:
        await client.fails(name, "internal")
        await client.call("hub:ping")


async def test_a_bug_says_nothing(hub: HubInside) -> None:
    assert "secret plan" not in (await hub.post("api/commands/test:bug", {})).text


async def test_a_command_over_its_time(hub: HubInside) -> None:
    assert (await hub.post("api/commands/test:hang", {})).refused(504, "timeout")["retryable"] is True


async def test_more_calls_than_allowed_at_once_are_busy(tmp_path: Path) -> None:
    """256 at once a client, and over HTTP a client is a peer address."""
    settings: dict[str, Any] = {"max_calls": 3, "call_timeout": 2.0, "stop_timeout": 0.1}
    async with hub_app(tmp_path, prepare=prepare, **settings) as hub:
        calls = [asyncio.create_task(hub.post("api/commands/test:hang", {})) for _ in range(3)]
        await until(lambda: len(hub.hub.commands.running) == 3)
        answer = await hub.post("api/commands/hub:ping", {})
        assert int(answer.headers["Retry-After"]) >= 1
        answer.refused(429, "busy")
        for call in list(hub.hub.commands.running):
            call.cancel()
        for call_answer in await asyncio.gather(*calls):
            call_answer.refused(409, "cancelled")
        assert (await hub.post("api/commands/hub:ping", {})).status == 200


@pytest.mark.usefixtures("no_token_comes_back")
async def test_over_the_rate(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=3) as hub:
        for _ in range(6):
            assert (await hub.post("api/events", event())).status == 200
        answer = await hub.post("api/events", event())
        error = answer.refused(429, "rate_limited")
        assert error["retryable"] is True
        assert 0 < error["retry_after"] <= 1
        assert int(answer.headers["Retry-After"]) == 1
        assert hub.hub.cursor.seq == 6
        assert hub.counted("hub_rate_limited_total") == 1


async def test_without_the_limit_everything_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the mechanism switched off."""
    monkeypatch.setattr(Bucket, "take", lambda bucket: 0.0)
    with pytest.raises(AssertionError):
        await test_over_the_rate(tmp_path)


async def test_while_the_hub_stops_calls_are_refused(hub: HubInside) -> None:
    await hub.hub.commands.stop(0)
    answer = await hub.post("api/commands/hub:ping", {})
    assert answer.refused(503, "shutting_down")["retryable"] is True
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await hub.get("readyz")).status == 503
    assert (await hub.get("healthz")).status == 200


async def test_a_call_over_http_is_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/commands/test:add", {"a": 1})
    await hub.post("api/commands/test:refuse", {})
    await hub.post("api/commands/no:such", {})
    called = [record["details"]["command"] for record in await hub.records("command.called")]
    assert called == ["test:add", "test:refuse"]
    finished = [record["details"] for record in await hub.records("command.finished")]
    assert [(d["command"], d["outcome"]) for d in finished] == [("test:add", "ok"), ("test:refuse", "command_failed")]
    refusals = await hub.recorded("command.refused")
    assert refusals[0]["details"]["outcome"] == "unknown_command"
    newest = (await hub.get("api/audit", limit="1")).json
    assert [record["action"] for record in newest] == ["command.called"]
    assert newest[0]["details"]["command"] == "audit:tail"


@pytest.mark.usefixtures("no_token_comes_back")
async def test_a_call_over_the_rate_is_in_the_audit_log(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=1) as hub:
        for _ in range(2):
            await hub.post("api/commands/hub:ping", {})
        (await hub.post("api/commands/hub:ping", {})).refused(429, "rate_limited")
        async with asyncio.timeout(5):
            details = (await hub.recorded("command.refused"))[0]["details"]
        assert (details["command"], details["outcome"]) == ("hub:ping", "rate_limited")


async def test_publishing_is_not_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/events", event())
    await hub.post("api/commands/hub:publish", event())
    assert await hub.records("command.called") == []
    assert hub.hub.cursor.seq == 2


async def test_large_and_secret_args_are_not_in_the_audit_log(hub: HubInside) -> None:
    await hub.post("api/commands/hub:ping", {"pad": "x" * 5000})
    await hub.post("api/commands/hub:ping", {"deep": [{"password": "hunter2"}]})
    large, secret = [record["details"]["args"] for record in await hub.records("command.called")]
    assert set(large) == {"bytes", "sha256"}
    assert secret == {"deep": [{}]}


# ---- weakened builds: the same checks with one mechanism switched off


SWITCHES: dict[str, tuple[Callable[[HubInside], Any], str, Any]] = {
    "any exception's text": (
        test_a_bug_says_nothing,
        "hub.commands.runner.internal",
        lambda where: HubError("internal", f"{sys.exc_info()[1]!r}."),
    ),
    "secrets are kept": (
        test_large_and_secret_args_are_not_in_the_audit_log,
        "hub.commands.registry.redact_each",
        mock.AsyncMock(side_effect=lambda values, apart: (values, 0)),
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_the_check_fails_without_the_mechanism(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, check: Callable[[HubInside], Any], switch: str, off: Any
) -> None:
    monkeypatch.setattr(switch, off)
    with pytest.raises(AssertionError):
        await check(hub)


@pytest.mark.parametrize("bound", [True, False])
async def test_a_call_that_is_bound_to_its_connection_ends_with_it(hub: HubInside, bound: bool) -> None:
    headers = ["Content-Length: 2", *["Hub-While: connected"] * bound]
    async with Raw(hub.port) as raw:
        await raw.write(request(hub, "POST /api/commands/test:hang", *headers) + b"{}")
        await until(lambda: hub.hub.commands.running)
        (call,) = hub.hub.commands.running
    if not bound:  # it goes on, also when the hub has noticed
        async with Raw(hub.port) as other:
            await other.write(request(hub, "POST /api/commands/test:hang", *headers, "Hub-While: connected") + b"{}")
            await until(lambda: len(hub.hub.commands.running) == 2)
        await until(lambda: len(hub.hub.commands.running) == 1)
        assert hub.hub.commands.running == {call}
        assert call.cancel()
    await until(lambda: not hub.hub.commands.running)
    outcomes = [record["details"]["outcome"] for record in await hub.recorded("command.finished")]
    assert set(outcomes) == {"cancelled"}


async def test_a_call_is_bound_to_nothing_else(hub: HubInside) -> None:
    answer = await hub.post("api/commands/hub:ping", {}, {"Content-Type": "application/json", "Hub-While": "raining"})
    assert answer.refused(422, "invalid_message")["details"] == {"Hub-While": ["It can only be: connected."]}
