"""`hub forward`: everything once, in order, whatever is away meanwhile; and what is not handed on."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from forks import PIPE, fork
from marshmallow import fields
from running import JSON, HubInside, environment, hub_app, hub_process, open_streams, run_hub, until

from hub import Hub
from hub.cli import forwarding
from hub.cli.forward import FOLDER
from hub.cli.forwarding import Forwarding, There, forward
from hub.cli.main import parser
from hub.cli.places import Place
from hub.client import connections
from hub.client.client import HubClient
from hub.client.discovery import NoHub
from hub.client.items import Received
from hub.errors import HubError
from hub.web.serverfile import announced

NAME = "to"


@contextlib.asynccontextmanager
async def forwarding_to(there: str, here: HubInside, folder: Path, *words: str) -> AsyncIterator[Place]:
    """A forward inside this process from one hub to the address of another."""
    args = parser().read(["forward", "--to", there.rstrip("/"), "--url", here.url, "--after", "start", *words])
    with Place(folder, NAME, FOLDER) as place:
        running = asyncio.create_task(forward(args, place))
        try:
            yield place
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def kept(hub: HubInside) -> list[dict[str, Any]]:
    """All events."""
    return await history(hub.http, hub.url)


async def history(http: ClientSession, url: str) -> list[dict[str, Any]]:
    async with http.get(f"{url}api/events?limit=1000") as answer:
        return list((await answer.json())["events"])


def told(events: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    return [(event["id"], event["payload"]["event"], event["payload"]["data"]) for event in events]


async def test_each_event_once_and_in_order(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        await here.publish(250)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await here.publish(50)
            await until(lambda: there.hub.cursor.seq == 300)
            await until(lambda: place.read() == str(here.hub.cursor))
        await here.publish(30)
        async with forwarding_to(there.url, here, tmp_path):
            await until(lambda: there.hub.cursor.seq == 330)
        assert told(await kept(there)) == told(await kept(here))


async def test_what_happens_while_it_is_away_is_forwarded_when_it_is_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with hub_app(tmp_path / "here") as here:
        async with hub_app(tmp_path / "there" / "state") as there:
            port = there.port
            async with forwarding_to(there.url, here, tmp_path) as place:
                await here.publish(5)
                await until(lambda: place.read() == f"{here.hub.cursor.epoch}:5")
        async with forwarding_to(f"http://127.0.0.1:{port}", here, tmp_path) as place:
            await here.publish(300)
            said = ""
            while "What happens here is forwarded when it takes events." not in said:
                await asyncio.sleep(0.01)
                said += capfd.readouterr().err
            assert f"No hub answers at http://127.0.0.1:{port}" in said
            assert place.read() == f"{here.hub.cursor.epoch}:5"
            async with hub_process(tmp_path / "there", "--port", str(port)) as process:
                await until(lambda: place.read() == str(here.hub.cursor))
                found = await history(process.http, process.url)
        assert told(found) == told(await kept(here))
        assert "takes events again." in capfd.readouterr().err


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_an_address_where_no_hub_is_is_told_at_the_start_and_once(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also while there is nothing to forward: it may be the wrong one."""
    if weakened:
        monkeypatch.setattr(There, "check", AsyncMock())
    tried = asyncio.Event()
    wait = There._wait

    async def noted(there: There, error: Exception, seconds: float) -> None:
        if there._away and not weakened:  # as it is from the start
            tried.set()
        await wait(there, error, seconds)

    monkeypatch.setattr(There, "_wait", noted)
    async with (
        hub_app(tmp_path / "here") as here,
        forwarding_to("http://127.0.0.1:9", here, tmp_path) as place,
    ):
        await until(lambda: place.read() is not None, "it has begun")
        said = capfd.readouterr().err
        if not weakened:
            await here.publish(1)
            await tried.wait()
    away = "hub: No hub answers at http://127.0.0.1:9 "
    assert said.startswith(away) is not weakened
    assert ("What happens here is forwarded when it takes events.\nhub: Forwarding every event" in said) is not weakened
    assert "No hub answers" not in capfd.readouterr().err


@pytest.mark.parametrize("how", ["closed", "cut"])
async def test_which_hub_has_gone_is_said(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        await here.publish(1)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
            for stream in open_streams(here):
                stream.cut() if how == "cut" else stream.close(1001, "come back", "shutdown")
            await until(lambda: "Trying again" in caplog.text)
    where = here.url.rstrip("/")
    wanted = f"The hub at {where} closed the connection (1001: come back)."
    assert (wanted if how == "closed" else f"The connection to the hub at {where} broke.") in caplog.text


async def test_a_forward_that_is_killed_repeats_nothing_and_leaves_nothing_out(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        words = ("forward", "--to", there.url.rstrip("/"), "--url", here.url, "--after", "start")
        environ = {**environment(), "HUB_STATE_DIR": str(tmp_path / "state")}
        for round in range(3):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hub", *words, cwd=tmp_path, env=environ, stderr=asyncio.subprocess.DEVNULL
            )
            for _ in range(20):
                await here.publish(10)
            await until(lambda round=round: there.hub.cursor.seq > round * 200 + 20)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL if round < 2 else signal.SIGTERM)
            assert await process.wait() == (-signal.SIGKILL if round < 2 else 0)
        async with forwarding_to(there.url, here, tmp_path):
            await until(lambda: there.hub.cursor.seq == 600)
        assert told(await kept(there)) == told(await kept(here))


async def test_a_place_that_runs_ahead_would_lose_events_weakened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `test_what_happens_while_it_is_away…` asserts of the place holds because it is kept behind the answer."""
    hand_on = Forwarding._take

    async def too_early(self: Forwarding, items: Any) -> None:
        async def noted() -> AsyncIterator[Any]:
            async for item in items:
                self._place.keep(item.cursor)
                yield item

        await hand_on(self, noted())

    monkeypatch.setattr(Forwarding, "_take", too_early)
    async with hub_app(tmp_path / "here") as here:
        await here.publish(3)
        async with forwarding_to("http://127.0.0.1:9", here, tmp_path) as place:
            await until(lambda: place.read() == f"{here.hub.cursor.epoch}:3")


async def test_what_does_not_fit_there_is_told_and_the_rest_is_forwarded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def strict(hub: Hub) -> None:
        hub.event_type("shop:paid", {"order": fields.Integer(strict=True, required=True)})

    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there", prepare=strict) as there:
        for data in ({"order": 1}, {"order": "two"}, {"order": 3}, 4):
            await here.hub.publish("shop:paid", data)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
            assert [event["payload"]["data"]["order"] for event in await kept(there)] == [1, 3]
            await here.hub.publish("shop:paid", "alone", id="the-fifth")
            await until(lambda: place.read() == str(here.hub.cursor))
    said = capfd.readouterr().err
    assert said.count("is not forwarded") == 3
    assert "hub: shop:paid the-fifth is not forwarded: " in said


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_the_hubs_own_events_and_processes_of_this_machine_stay(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event in which a hub looks for a process, for the hub there has others of the same numbers."""
    if weakened:
        monkeypatch.setattr(forwarding, "WHAT", {})
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        named = {"id": "builder", "status": "running", "pid": os.getpid()}
        await here.hub.publish("agent:status_change", {**named, "status": "active"}, ttl=0.1)
        await until(lambda: here.hub.cursor.seq == 2)  # hub:stale
        await here.hub.publish("task:progress", named)
        await here.publish(1)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
        pid = {"pid": os.getpid()} if weakened else {}
        assert [(name, data) for _, name, data in told(await kept(there))] == [
            ("agent:status_change", {"id": "builder", "status": "active", **pid}),
            ("task:progress", {"id": "builder", "status": "running", **pid}),
            ("a:x", {"n": 4}),
        ]
        assert len(there.hub.liveness) == (2 if weakened else 0)


async def test_patterns_and_a_place_that_does_not_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "IDLE", 0.02)
    async with hub_app(tmp_path / "here", heartbeat=1.0) as here, hub_app(tmp_path / "there") as there:
        await here.publish(1, "b:y")
        async with forwarding_to(there.url, here, tmp_path, "b:*") as place:
            await until(lambda: there.hub.cursor.seq == 1)
            await here.publish(40)
            await until(lambda: place.read() == f"{here.hub.cursor.epoch}:41", "the place")  # by a mark


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_what_does_not_match_was_passed_all_the_same(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before a mark has come."""
    if weakened:
        monkeypatch.setattr(HubClient, "settle", lambda client: asyncio.sleep(0))
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        async with forwarding_to(there.url, here, tmp_path, "b:*") as place:
            await until(lambda: here.clients("websocket") == 1)
            await here.publish(1, "b:y")
            await until(lambda: there.hub.cursor.seq == 1)
            await here.publish(100, "a:x")
        assert place.read() == (f"{here.hub.cursor.epoch}:1" if weakened else str(here.hub.cursor))


async def test_what_is_no_longer_kept_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with (
        hub_app(tmp_path / "here", keep_events=1000, window_events=100) as here,
        hub_app(tmp_path / "there") as there,
    ):
        await here.publish(1)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
        for _ in range(2):
            await here.hub.accept([{"event": "a:x", "data": n} for n in range(1000)], None, many=True)
        await until(lambda: here.hub.broker.tail > 2)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
    assert f"behind {here.hub.cursor.epoch}:1 are no longer kept here, and not forwarded." in capfd.readouterr().err


async def test_the_other_hub_gets_its_own_token_and_never_that_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub_app(tmp_path / "here") as here, hub_process(tmp_path, "--auth", "token") as there:
        monkeypatch.setenv("HUB_TOKEN", (there.state_dir / "token").read_text().strip())
        await here.publish(1)
        words = ("forward", "--to", there.url.rstrip("/"), "--url", here.url, "--state-dir", str(tmp_path / "own"))
        status, _, said = await run_hub(tmp_path, *words, "--after", "start")
        assert (status, "token" in said) == (1, True), said
        own = ("--to-token-file", str(there.state_dir / "token"))
        async with forwarding_to(there.url, here, tmp_path, *own) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
        headers = {**JSON, "Authorization": f"Bearer {os.environ['HUB_TOKEN']}"}
        async with there.http.get(f"{there.url}api/events", headers=headers) as answer:
            assert len((await answer.json())["events"]) == 1


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "hub: {url} wants its token: "),
        ("wrong", "hub: {url} does not take this token (any more): "),
        ("token.read", "hub: The token for {url} only reads; it takes one that may publish: "),
    ],
)
async def test_whom_the_other_hub_lets_publish_nothing_is_told_at_once(
    token: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first event, and of the flags for that hub, not for the one here."""
    async with hub_app(tmp_path / "here") as here, hub_process(tmp_path, "--auth", "token") as there:
        assert (await run_hub(tmp_path, "token", "--read-only", "--state-dir", str(there.state_dir)))[0] == 0
        (there.state_dir / "wrong").write_text("wrong")
        given = () if token is None else ("--to-token-file", str(there.state_dir / token))
        url = there.url.rstrip("/")
        words = ("forward", "--to", url, "--url", here.url, "--state-dir", str(tmp_path / "own"), *given)
        status, out, err = await run_hub(tmp_path, *words)
    how = "name the file of it with --to-token-file, or put it into HUB_FORWARD_TOKEN.\n"
    assert (status, out, err) == (1, "", said.format(url=url) + how)


async def test_weakened_it_would_be_told_at_the_first_event_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def nothing(there: There) -> None:
        pass

    monkeypatch.setattr(There, "check", nothing)
    async with (
        hub_app(tmp_path / "here") as here,
        hub_process(tmp_path, "--auth", "token") as there,
        forwarding_to(there.url, here, tmp_path) as place,
    ):
        await until(lambda: place.read() is not None, "it has begun")
    assert "hub: Forwarding every event from " in capfd.readouterr().err


@pytest.mark.parametrize("status", [429, 404], ids=["busy", "no hub"])
async def test_what_does_not_say_whom_it_lets_in_is_asked_again_with_an_event(
    status: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.json_response({"error": "Busy.", "code": "busy", "retryable": True}, status=429)

    app = web.Application()
    if status == 429:
        app.router.add_post("/api/commands/hub:info", busy)
    async with (
        hub_app(tmp_path / "here") as here,
        TestServer(app) as other,
        forwarding_to(str(other.make_url("/")), here, tmp_path) as place,
    ):
        await until(lambda: place.read() is not None, "it has begun")
    assert "hub: Forwarding every event from " in capfd.readouterr().err


async def test_a_damaged_place_names_what_loses_nothing(tmp_path: Path) -> None:
    """Begun behind `--after start`, with ids that the other hub knows, there is nothing left out nor twice."""
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "there") as there:
        await here.publish(3)
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
        await here.publish(2)
        file = tmp_path / FOLDER / f"{NAME}.cursor"
        file.write_text("damaged")
        words = ("--to", there.url.rstrip("/"), "--url", here.url, "--state-dir", str(tmp_path), "--name", NAME)
        status, _, said = await run_hub(tmp_path, "forward", *words)
        assert (status, said) == (
            2,
            f"hub: The place in {file} cannot be read (this is no cursor); remove it, and begin with --after start, "
            "which leaves out nothing that is kept; the other hub knows by its id what it has.\n",
        )
        file.unlink()
        async with forwarding_to(there.url, here, tmp_path) as place:
            await until(lambda: place.read() == str(here.hub.cursor))
        assert told(await kept(there)) == told(await kept(here))


# ---- a made-up life, here or there


@contextlib.asynccontextmanager
async def found_in(state: Path, folder: str = "", **settings: Any) -> AsyncIterator[HubInside]:
    """A hub that programs find in this state directory."""
    async with hub_app(state / folder, shared_dir=str(state), **settings) as hub:
        with announced(hub.hub, hub.url.rstrip("/")):
            yield hub


def a_demo_in(state: Path) -> contextlib.AbstractAsyncContextManager[HubInside]:
    return found_in(state, "demo", demo=True, broker="memory:")


@contextlib.asynccontextmanager
async def forwarding_from(state: Path, there: HubInside, *words: str) -> AsyncIterator[Place]:
    """A forward of the hub that is found there."""
    args = parser().read(["forward", "--to", there.url.rstrip("/"), "--state-dir", str(state), *words])
    with Place(state, NAME, FOLDER) as place:
        running = asyncio.create_task(forward(args, place))
        try:
            yield place
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "LOOK", 0.01)
    monkeypatch.setattr(connections, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connections, "LONGEST_DELAY", 0.05)


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_nothing_of_a_demo_is_forwarded(
    weakened: bool, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if weakened:
        monkeypatch.setattr(forwarding, "is_made_up", lambda cursor: False)
    state = tmp_path / "here"
    async with hub_app(tmp_path / "there") as there, contextlib.AsyncExitStack() as stack:
        async with found_in(state) as here:
            await here.publish(3)
            place = await stack.enter_async_context(forwarding_from(state, there, "--after", "start"))
            await until(lambda: place.read() == str(here.hub.cursor), "all is there")
        async with a_demo_in(state) as demo:
            await demo.publish(5, "b:y")
            said = ""
            while "Only a demo runs" not in said and there.hub.cursor.seq == 3:
                await asyncio.sleep(0.01)
                said += capfd.readouterr().err
            assert place.read() == str(here.hub.cursor) or weakened
        assert ("Only a demo runs" not in said) == weakened
        if not weakened:
            async with found_in(state) as here:
                await here.publish(2)
                await until(lambda: place.read() == str(here.hub.cursor), "it goes on")
                assert told(await kept(there)) == told(await kept(here))
            said += capfd.readouterr().err
            where = (
                "hub: Only a demo runs here: nothing of it is forwarded, and the hub that was there is waited for.\n"
            )
            assert said.count(where) == said.count("demo") == 1
            assert "no longer kept" not in said


async def test_from_now_on_is_also_what_happens_before_the_hub_that_is_back_is_noticed(
    quick: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "here"
    async with hub_app(tmp_path / "there") as there, contextlib.AsyncExitStack() as stack:
        async with hub_app(state) as here:
            await here.publish(4)
        async with a_demo_in(state) as demo:
            await demo.publish(1)
            place = await stack.enter_async_context(forwarding_from(state, there))
            while "Only a demo runs here" not in capfd.readouterr().err:
                await asyncio.sleep(0.01)
            assert place.read() is None
        async with hub_app(state, shared_dir=str(state)) as here:
            await here.publish(2)
            with announced(here.hub, here.url.rstrip("/")):
                await until(lambda: place.read() == str(here.hub.cursor), "it goes on")
                assert told(await kept(there)) == told(await kept(here))[4:]


async def test_who_waits_for_the_hub_can_be_stopped(quick: None, tmp_path: Path) -> None:
    async with hub_app(tmp_path / "there") as there, a_demo_in(tmp_path / "here"):
        words = ("forward", "--to", there.url.rstrip("/"), "--state-dir", str(tmp_path / "here"))
        process = await fork(*words, env=environment(), stderr=PIPE)
        assert process.stderr
        assert b"Only a demo runs here" in await process.stderr.readline()
        process.terminate()
        await process.communicate()
        assert process.returncode == 0


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_hub_that_refuses_meanwhile(retryable: bool, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for, if that can help."""
    errors = iter([HubError("shutting_down" if retryable else "forbidden", "No."), NoHub("None.")])

    async def asked(another: Any) -> bool:
        for error in errors:
            raise error
        return False

    monkeypatch.setattr(forwarding, "_is_made_up", asked)
    args = parser().read(["forward", "--to", "127.0.0.1:9", "--url", "127.0.0.1:8"])
    back = forwarding._until_back(args, partial(HubClient))
    if retryable:
        await back
    else:
        with pytest.raises(HubError, match="No"):
            await back


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_what_a_demo_has_taken_does_not_count(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if weakened:
        monkeypatch.setattr(forwarding, "is_made_up", lambda cursor: False)
    async with hub_app(tmp_path / "here") as here, hub_app(tmp_path / "b", demo=True, broker="memory:") as there:
        await here.publish(2)
        async with forwarding_to(there.url, here, tmp_path) as place:
            if weakened:
                await until(lambda: place.read() == str(here.hub.cursor), "they are taken for forwarded")
                return
            said = ""
            while "What happens here is forwarded when it takes events." not in said:
                await asyncio.sleep(0.01)
                said += capfd.readouterr().err
            assert f"hub: Only a demo runs at {there.url.rstrip('/')}. What" in said
            assert place.read() == f"{here.hub.cursor.epoch}:0"


async def test_two_of_one_place_are_refused(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "here") as here:
        with Place(tmp_path, "to-127.0.0.1_9", FOLDER):
            words = ("--to", "127.0.0.1:9", "--url", here.url, "--state-dir", str(tmp_path))
            status, _, said = await run_hub(tmp_path, "forward", *words)
    assert (status, said) == (2, "hub: Another hub forward --name to-127.0.0.1_9 is running.\n")


async def test_to_itself_nothing_is_forwarded(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "here") as here:
        words = ("--to", here.url, "--url", here.url, "--state-dir", str(tmp_path))
        status, _, said = await run_hub(tmp_path, "forward", *words)
        assert (status, here.hub.cursor.seq) == (2, 0)
    assert "has the same stream" in said


def test_an_event_is_published_as_it_was() -> None:
    event = Received("a:x", {"pid": 1, "ü": "\u2028"}, "id", "2026-01-01T00:00:00.000Z", "e:1", {})
    assert forwarding._line(event) == '{"event":"a:x","id":"id","data":{"pid":1,"ü":"\u2028"}}'
