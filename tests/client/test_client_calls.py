"""The calls and publishes of a HubClient, against a hub that does what the test says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from running import hub_app, until
from scripted import Peer, ScriptedHub, Silent, error_object, notice

from hub.client import calls, links
from hub.client.client import HubClient
from hub.client.connections import Backoff
from hub.client.discovery import Disconnected, NoHub
from hub.errors import HubError

pytestmark = pytest.mark.usefixtures("soon")


async def opened(client: HubClient, scripted: ScriptedHub, *commands: str) -> tuple[Peer, list["asyncio.Task[Any]"]]:
    """Calls under way, and the hub's end of their connection."""
    running = [asyncio.create_task(client.call(command, {"n": n})) for n, command in enumerate(commands)]
    return await scripted.peer(), running


async def test_answers_find_their_call_in_any_order(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (first, second) = await opened(client, scripted, "a:one", "a:two")
        assert peer.query == {"topics": "hub:none"}
        one, two = await peer.command(), await peer.command()
        assert (one[1:], two[1:]) == (("a:one", {"n": 0}), ("a:two", {"n": 1}))
        await peer.send(notice("hub:mark", cursor="e:9"))
        await peer.respond("never asked", 0)
        await peer.respond(two[0], [2])
        await peer.respond(one[0], None)
        assert (await first, await second) == (None, [2])
        assert scripted.peers.empty()


async def test_a_refused_call_raises_what_the_wire_said(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (call,) = await opened(client, scripted, "a:b")
        payload = error_object("invalid_args", details={"n": ["Not text."]}, retry_after=1.5)
        await peer.refuse((await peer.command())[0], payload)
        with pytest.raises(HubError, match="The hub says no") as caught:
            await call
        assert caught.value.payload() == payload


async def test_args_that_are_not_json_are_refused_here(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        with pytest.raises(HubError, match="not JSON") as caught:
            await client.call("a:b", {"n": float("nan")})
        assert (caught.value.code, scripted.peers.empty()) == ("invalid_message", True)


@pytest.mark.parametrize("how", ["cut", "close"])
async def test_calls_that_run_when_it_breaks_fail_and_are_not_run_again(scripted: ScriptedHub, how: str) -> None:
    async with HubClient(scripted.url) as client:
        peer, running = await opened(client, scripted, "a:one", "a:two")
        await peer.command()
        if how == "cut":
            peer.cut()
        else:
            await peer.close(1001, b"The hub is stopping")
        for call, name in zip(running, ["a:one", "a:two"], strict=True):
            with pytest.raises(Disconnected, match=f"call of {name} was running") as caught:
                await call
            assert isinstance(caught.value, HubError)
            assert (caught.value.code, caught.value.retryable) == ("shutting_down", True)
        peer, (call,) = await opened(client, scripted, "a:three")
        assert (await peer.command())[1] == "a:three"  # over a new connection, and before nothing old
        call.cancel()


@pytest.mark.parametrize("how", ["cut", "stopping", "busy"])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_call_with_a_key_is_made_again_over_a_broken_connection(
    scripted: ScriptedHub, how: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub knows it by its key, and has run it once: whoever calls need not find that out."""
    if weakened:
        monkeypatch.setattr(links, "FOR_A_WHILE", ())
    async with HubClient(scripted.url) as client:
        call = asyncio.create_task(client.call("a:b", {"n": 1}, key="k"))
        peer = await scripted.peer()
        first = await peer.frame()
        if how == "cut":
            peer.cut()
        else:
            code = "shutting_down" if how == "stopping" else "busy"
            await peer.refuse(first["id"], error_object(code) | {"retryable": True, "retry_after": 0})
        if weakened:
            with pytest.raises(HubError):
                await call
            return
        peer = await scripted.peer() if how == "cut" else peer
        again = await peer.frame()
        assert again == first
        assert again["payload"] == {"command": "a:b", "args": {"n": 1}, "idempotency_key": "k"}
        await peer.respond(again["id"], "done")
        assert await call == "done"


@pytest.mark.parametrize("code", ["timeout", "provider_gone"])
async def test_how_it_ended_is_the_end_of_a_call_with_a_key(scripted: ScriptedHub, code: str) -> None:
    """Whoever repeats it hears no more than that this is not known."""
    async with HubClient(scripted.url) as client:
        call = asyncio.create_task(client.call("a:b", key="k"))
        peer = await scripted.peer()
        await peer.refuse((await peer.command())[0], error_object(code) | {"retryable": True})
        with pytest.raises(HubError) as caught:
            await call
        assert caught.value.code == code


async def test_a_call_waits_no_longer_than_its_patience(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, patience=0) as client:
        scripted.handshakes = [503]
        with pytest.raises(NoHub, match="HTTP status 503"):
            await client.call("a:b")


async def test_a_cancelled_call_is_cancelled_in_the_hub(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (call,) = await opened(client, scripted, "a:b")
        id, _, _ = await peer.command()
        call.cancel()
        assert (await peer.command())[1:] == ("hub:cancel", {"id": id})


async def test_leaving_fails_what_still_runs(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (call,) = await opened(client, scripted, "a:b")
        await peer.command()
    with pytest.raises(Disconnected, match=r"The client was closed\."):
        await call


async def test_last_values_are_read_again(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        reading = asyncio.create_task(client.state(["a:*"]))
        peer = await scripted.peer()
        asked = (await peer.command())[1:]
        peer.cut()
        peer = await scripted.peer()
        id, *again = await peer.command()
        assert tuple(again) == asked == ("hub:state", {"topics": ["a:*"]})
        await peer.respond(id, {"cursor": "e:1", "items": [], "more": False})
        assert await reading == {"cursor": "e:1", "items": [], "more": False}


# ---- publishing


async def test_publish_returns_the_events_id_and_cursor(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        publishing = asyncio.create_task(client.publish("a:b", {"n": 1}, id="mine", ttl=5))
        peer = await scripted.peer()
        id, command, args = await peer.command()
        assert (command, args) == ("hub:publish", {"event": "a:b", "data": {"n": 1}, "id": "mine", "ttl": 5})
        await peer.respond(id, {"id": "mine", "cursor": "e:1"})
        assert await publishing == {"id": "mine", "cursor": "e:1"}


async def test_a_refused_publish_is_not_tried_again(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        publishing = asyncio.create_task(client.publish("hub:mine"))
        peer = await scripted.peer()
        id, _, _ = await peer.command()
        await peer.refuse(id, error_object("reserved_event"))
        with pytest.raises(HubError) as caught:
            await publishing
        assert caught.value.code == "reserved_event"
        assert scripted.peers.empty()


@pytest.mark.parametrize("patience", [0, 0.05])
async def test_a_publish_gives_up_when_the_connection_breaks_every_time(scripted: ScriptedHub, patience: float) -> None:
    async with HubClient(scripted.url, patience=patience) as client:
        publishing = asyncio.create_task(client.publish("a:b"))
        while not publishing.done():
            getting = asyncio.create_task(scripted.peer())
            await asyncio.wait({getting, publishing}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                await getting.result().command()
                getting.result().cut()
            getting.cancel()
        with pytest.raises(Disconnected, match="not known"):
            await publishing


async def test_a_publish_that_was_never_sent_says_that_there_is_no_hub(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url, patience=0) as client:
        scripted.handshakes = [503]
        with pytest.raises(NoHub):
            await client.publish("a:b")


@pytest.mark.parametrize("code", ["shutting_down", "broker_unavailable", "busy"])
async def test_a_publish_that_may_be_taken_later_is_sent_again(scripted: ScriptedHub, code: str) -> None:
    async with HubClient(scripted.url) as client:
        publishing = asyncio.create_task(client.publish("a:b"))
        peer = await scripted.peer()
        for retry_after in ({}, {"retry_after": 0.001}):
            id, _, args = await peer.command()
            await peer.refuse(id, error_object(code, **retry_after) | {"retryable": True})
        id, _, again = await peer.command()
        assert again == args
        await peer.respond(id, {"id": args["id"], "cursor": "e:1"})
        assert (await publishing)["cursor"] == "e:1"


# ---- waiting for a hub


async def test_who_comes_has_it_tried_at_once(scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody gives up because the next attempt was drawn to come late."""
    delays = [1e6, 1e6, 0.0]
    monkeypatch.setattr(Backoff, "next", lambda self: delays.pop(0))
    async with HubClient(scripted.url) as client:
        scripted.handshakes = [503, 101]
        first = asyncio.create_task(client.call("a:one"))
        await until(lambda: len(delays) == 2)
        second = asyncio.create_task(client.call("a:two"))
        delays.pop(0)
        peer = await scripted.peer()
        for _ in range(2):
            await peer.respond((await peer.command())[0], 1)
        assert [await first, await second] == [1, 1]


@pytest.mark.parametrize("patience", [0, 0.02])
async def test_those_who_wait_at_a_silent_port_wait_together(
    scripted: ScriptedHub, silent: Silent, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HubClient(scripted.url, patience=patience) as client:
        client._url = silent.url
        with monkeypatch.context() as patch:
            patch.setattr(calls, "LEAST_PATIENCE", 0.02)
            several = [asyncio.create_task(client.call("a:b")) for _ in range(4)]
            await asyncio.wait(several)
        assert {type(call.exception()) for call in several} == {NoHub}
        assert silent.connections == 1
        client._url = scripted.url
        peer, (call,) = await opened(client, scripted, "a:b")
        await peer.respond((await peer.command())[0], 1)
        assert await call == 1


async def test_who_stands_in_line_waits_no_longer_for_a_hub_that_is_away(
    scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HubClient(scripted.url, patience=0.1) as client:
        client._calls._slots = asyncio.Semaphore(1)
        scripted.handshakes = [503] * 1000
        several = [asyncio.create_task(client.call("a:b")) for _ in range(20)]
        await asyncio.wait(several[:1])
        tried = len(scripted.handshakes)
        await asyncio.wait(several)
        assert {type(call.exception()) for call in several} == {NoHub}
        assert len(scripted.handshakes) >= tried - 19  # once each at most: none waits for it as long as the first


# ---- what is too much


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_no_frame_can_hold_is_refused_here(
    scripted: ScriptedHub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub would end the connection (1009), and so the calls of others."""
    if weakened:
        monkeypatch.setattr(links, "SMALL", 10**9)
    async with HubClient(scripted.url) as client:
        peer, (other,) = await opened(client, scripted, "a:other")
        running, _, _ = await peer.command()
        large = [asyncio.create_task(client.call("a:large", {"text": "ä" * 35_000})) for _ in range(2)]
        if weakened:
            assert (await peer.command())[1] == "a:large"
            return
        for _ in large:
            id, command, _ = await peer.command()
            assert command == "hub:info"
            await peer.respond(id, {"limits": {"max_frame": 65_536}})
        for call in large:
            with pytest.raises(HubError, match="70") as caught:
                await call
            assert caught.value.code == "too_large"
        fits = asyncio.create_task(client.call("a:fits", {"text": "x" * 65_000}))
        id, command, _ = await peer.command()  # it is known now
        assert command == "a:fits"
        await peer.respond(id, 1)
        await peer.respond(running, 2)
        assert (await fits, await other) == (1, 2)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_the_hub_could_not_read_is_refused_here(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub could not say whose frame that was, and whoever waits for the answer would wait for ever."""
    if weakened:
        monkeypatch.setattr("hub.client.connections.text_of", json.dumps)
    async with hub_app(tmp_path) as hub, HubClient(hub.url) as client:
        kinds: list[Callable[[Any], Awaitable[Any]]] = [
            lambda data: client.publish("a:b", data),
            lambda data: client.call("hub:ping", {"data": data}),
            lambda data: client.ask("Go?", ["yes"], details=data, while_connected=True),
        ]
        for kind in kinds:
            for data in (nested(30), nested(31), nested(32), "\udce9", float("nan")):
                call = asyncio.ensure_future(kind(data))
                if weakened:
                    await until(lambda: client._calls._door.link)
                    await client.call("hub:info")
                    assert not call.done()
                    call.cancel()
                    break
                with pytest.raises(HubError) as caught:
                    await call
                assert caught.value.code == "invalid_message"
        assert (await client.call("hub:ping", {"data": nested(29)}))["pong"]  # the deepest


async def test_a_call_whose_size_could_not_be_asked_about_was_not_sent(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        calling = asyncio.create_task(client.call("a:large", {"text": "x" * 40_000}))
        peer = await scripted.peer()
        assert (await peer.command())[1] == "hub:info"
        peer.cut()
        peer = await scripted.peer()
        id, command, _ = await peer.command()
        await peer.respond(id, {"limits": {"max_frame": 65_536}})
        id, command, _ = await peer.command()
        assert command == "a:large"
        await peer.respond(id, 1)
        assert await calling == 1


async def test_no_more_than_so_many_run_at_once_but_questions(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        count = calls.AT_ONCE
        many = [asyncio.create_task(client.call("hub:ask", {"n": n})) for n in range(count)]
        peer = await scripted.peer()
        assert {(await peer.command())[1] for _ in many} == {"hub:ask"}
        many += [asyncio.create_task(client.publish("a:b", n)) for n in range(count + 1)]
        ids = [(await peer.command())[0] for _ in range(count)]
        assert client._calls._slots.locked()
        await peer.respond(ids[0], {})
        assert (await peer.command())[2]["data"] == count
        for call in many:
            call.cancel()


async def test_a_call_that_came_too_fast_is_made_again(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (call,) = await opened(client, scripted, "a:b")
        for code in ("rate_limited", "busy"):
            id, command, _ = await peer.command()
            assert command == "a:b"
            await peer.refuse(id, error_object(code, retry_after=0.001) | {"retryable": True})
        await peer.respond((await peer.command())[0], 1)
        assert await call == 1


async def test_a_call_that_may_have_run_is_not_made_again(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        peer, (call,) = await opened(client, scripted, "a:b")
        await peer.refuse((await peer.command())[0], error_object("timeout") | {"retryable": True})
        with pytest.raises(HubError) as caught:
            await call
        assert caught.value.code == "timeout"


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
async def test_any_number_of_publishes_is_taken(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 at once, of which the hub takes 400 in a second, after the first 800: no machine here is as slow."""
    if weakened:
        monkeypatch.setattr(calls, "AT_ONCE", 10**9)
        monkeypatch.setattr(links, "NEVER_RAN", ())
        monkeypatch.setattr(links.Asked, "is_to_be_made_again", lambda self, error: False)
    async with hub_app(tmp_path, rate=400) as hub, HubClient(hub.url) as client:
        publishes = [client.publish("a:b", n) for n in range(2000)]
        found = await asyncio.gather(*publishes, return_exceptions=True)
        failed = [error for error in found if isinstance(error, BaseException)]
        assert bool(failed) is weakened
        assert weakened or len({published["cursor"] for published in found}) == 2000  # type: ignore[index]
        assert weakened or hub.counted("hub_rate_limited_total") < 1000
