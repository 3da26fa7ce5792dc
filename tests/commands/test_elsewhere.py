"""Commands whose provider is connected to another hub: two hubs on one Redis."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engines import engine, redis_program
from running import JSON, HubInside, Start, Talk, hub_app, talk, until

from hub import Call
from hub.commands import elsewhere, registry
from hub.stream.brokers import redispeers


@pytest.fixture
async def there(start: Start) -> HubInside:
    found: HubInside = await start("there", stop_timeout=0.1)
    return found


@pytest.fixture
async def here(start: Start) -> HubInside:
    found: HubInside = await start("here")
    return found


@pytest.fixture
async def worker(there: HubInside) -> AsyncIterator[Talk]:
    async with talk(there.url, "?topics=no:thing") as found:
        yield found


@pytest.fixture
async def caller(here: HubInside) -> AsyncIterator[Talk]:
    async with talk(here.url, "?topics=no:thing") as found:
        yield found


async def provided(worker: Talk, *hubs: HubInside, **more: Any) -> None:
    """Have it provide `jobs:run`, and wait until all these hubs know."""
    await worker.call("hub:provide", commands=[{"name": "jobs:run", "summary": "Run it.", **more}])
    await until(lambda: all("jobs:run" in hub.hub.commands.provided for hub in hubs), "that it is listed")


async def asked(worker: Talk) -> tuple[str, dict[str, Any]]:
    """The next call that it is sent: the id of its frame, and what is called."""
    while True:
        frame = await worker.frame()
        assert frame is not None
        if frame["type"] == "command":
            return frame["id"], frame["payload"]


async def say(worker: Talk, id: str, payload: Any, type: str = "response") -> None:
    await worker.send({"type": type, "id": id, "payload": payload})


async def of_call(hub: HubInside, id: str) -> list[tuple[str, str | None]]:
    """What its audit log has of a call with this id."""
    records = await hub.hub.audit.tail(1000)
    return [
        (record["action"], record["details"].get("outcome")) for record in records if record["details"].get("id") == id
    ]


async def test_a_call_is_answered_and_on_record_on_both_hubs(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk
) -> None:
    await provided(worker, here, args={"type": "object", "required": ["n"]})
    (listed,) = await caller.call("hub:commands", name="jobs:run")
    assert [listed] == await worker.call("hub:commands", name="jobs:run")
    assert (listed["summary"], listed["effect"], listed["args"]["required"]) == ("Run it.", "write", ["n"])
    await caller.fails("jobs:run", "invalid_args")
    id = await caller.begin("jobs:run", "the-one", n=1)
    number, payload = await asked(worker)
    assert payload == {"command": "jobs:run", "args": {"n": 1}}
    await say(worker, number, {"event": "hub:progress", "data": {"call": number, "percent": 50}}, "event")
    await say(worker, number, {"done": [1, "ü"]})
    progress = await caller.event()
    assert progress["payload"] == {"event": "hub:progress", "data": {"call": "the-one", "percent": 50}}
    assert (await caller.answer(id))["payload"] == {"done": [1, "ü"]}
    for hub in (here, there):
        assert await of_call(hub, "the-one") == [("command.called", None), ("command.finished", "ok")]
    assert [hub.counted("hub_commands_total", "other", "ok") for hub in (here, there)] == [1, 0]  # where it was called
    records = [(await hub.records("command.finished"))[-1] for hub in (here, there)]
    assert records[0]["actor"] == records[1]["actor"]


async def test_what_a_provider_refuses_with_reaches_the_caller(here: HubInside, caller: Talk, worker: Talk) -> None:
    await provided(worker, here)
    id = await caller.begin("jobs:run")
    number, _ = await asked(worker)
    await say(worker, number, {"error": "Not today.", "code": "command_failed", "details": {"a": 1}}, "error")
    error = (await caller.answer(id))["payload"]
    assert (error["error"], error["code"], error["details"]) == ("Not today.", "command_failed", {"a": 1})


async def test_one_provider_a_name_on_all_hubs(here: HubInside, there: HubInside, caller: Talk, worker: Talk) -> None:
    both = [
        each.begin("hub:provide", commands=[{"name": "jobs:run"}, {"name": name}])
        for each, name in ((caller, "a:b"), (worker, "c:d"))
    ]
    ids = [await each for each in both]
    answers = [await each.answer(id) for each, id in zip((caller, worker), ids, strict=True)]
    codes = sorted(str(answer["payload"].get("code")) for answer in answers)
    assert codes == ["None", "already_provided"]
    lost, won = (caller, worker) if answers[0]["type"] == "error" else (worker, caller)
    names = [
        {name for name in ("a:b", "c:d", "jobs:run") if name in hub.hub.commands.provided} for hub in (here, there)
    ]
    await won.call("hub:provide", commands=[])
    await until(lambda: not here.hub.commands.provided and not there.hub.commands.provided)
    await lost.call("hub:provide", commands=[{"name": "jobs:run"}])
    assert len(names[0] | names[1]) == 2


async def test_a_cancelled_call_ends_at_its_provider(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk
) -> None:
    await provided(worker, here)
    id = await caller.begin("jobs:run", "mine")
    number, _ = await asked(worker)
    assert await caller.call("hub:cancel", id=id) == {"cancelled": True}
    assert (await caller.answer(id))["payload"]["code"] == "cancelled"
    _, payload = await asked(worker)
    assert payload == {"command": "hub:cancel", "args": {"id": number}}
    await until(lambda: not there.hub.commands.running)
    async with asyncio.timeout(30):
        while len(ends := await of_call(there, "mine")) < 2:
            await asyncio.sleep(0.005)
    assert ends[-1] == ("command.finished", "cancelled")


async def test_a_dangerous_one_is_confirmed_where_it_is_called(here: HubInside, caller: Talk, worker: Talk) -> None:
    await provided(worker, here, effect="dangerous")
    confirm = (await caller.fails("jobs:run", "confirmation_required"))["details"]["confirm"]
    payload = {"command": "jobs:run", "args": {}, "confirm": confirm}
    await caller.send({"type": "command", "id": "sure", "payload": payload})
    number, _ = await asked(worker)
    await say(worker, number, "done")
    assert (await caller.answer("sure"))["payload"] == "done"


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_one_hub_has_handed_out_is_good_once_on_all(
    here: HubInside, there: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[str]()

    async def drop(call: Call) -> None:
        ran.append(call.id)

    async def believed(*args: Any) -> None:
        """Whatever comes."""

    for hub in (here, there):
        hub.hub.commands.add("test:drop", drop, effect="dangerous")
    confirm = (await here.post("api/commands/test:drop", {})).refused(428, "confirmation_required")["details"][
        "confirm"
    ]
    other = (await there.post("api/commands/test:drop", {"n": 1}, {"Hub-Confirm": confirm, **JSON})).json
    assert other["code"] == "confirmation_required"
    if weakened:
        monkeypatch.setattr(redispeers.RedisPeers, "confirm", believed)
    codes = [
        (await hub.post("api/commands/test:drop", {}, {"Hub-Confirm": confirm, **JSON})).status
        for hub in (there, here, there)
    ]
    assert codes == ([200, 200, 200] if weakened else [200, 428, 428])
    assert len(ran) == codes.count(200)


async def test_a_repeated_call_reaches_it_once(here: HubInside, caller: Talk, worker: Talk) -> None:
    await provided(worker, here)
    payload = {"command": "jobs:run", "args": {}, "idempotency_key": "k"}
    await caller.send({"type": "command", "id": "one", "payload": payload})
    await caller.send({"type": "command", "id": "two", "payload": payload})
    number, _ = await asked(worker)
    await say(worker, number, 1)
    assert [(await caller.answer(id))["payload"] for id in ("one", "two")] == [1, 1]
    assert not worker.answers


@pytest.mark.parametrize("how", ["provider", "hub", "cut", "lease"])
async def test_what_ends_with_a_provider_ends_its_calls(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redispeers, "LEASE", 1.0 if how == "lease" else 5.0)
    monkeypatch.setattr(redispeers, "RENEW", 0.1)
    peers: Any = there.hub.broker.peers
    await provided(worker, here)
    id = await caller.begin("jobs:run")
    await asked(worker)
    if how == "provider":
        await worker.ws.close()
    elif how == "hub":
        await there.hub.stop()
    elif how == "lease":  # it is not heard of any more
        peers._running.cancel()
    else:
        peers._asks.close()
    assert (await caller.answer(id))["payload"]["code"] == "provider_gone"
    if how == "cut":  # it comes back, and so do its commands
        await until(lambda: peers.link and "jobs:run" in here.hub.commands.provided)
        id = await caller.begin("jobs:run")
        assert (await asked(worker))[1]["command"] == "hub:cancel"  # of the call before
        await say(worker, (await asked(worker))[0], 2)
        assert (await caller.answer(id))["payload"] == 2
    else:
        await until(lambda: "jobs:run" not in here.hub.commands.provided)
        await caller.fails("jobs:run", "unknown_command")


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_dangerous_by_now_does_not_run_unconfirmed(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provided(worker, here)
    peers: Any = here.hub.broker.peers  # which hears the news late
    peers._ears = peers._ears._replace(offers=lambda offers: None)
    await worker.call("hub:provide", commands=[{"name": "jobs:run", "effect": "dangerous"}])
    if weakened:
        monkeypatch.setattr(there.hub.across, "_check", lambda words: None)
    id = await caller.begin("jobs:run")
    if weakened:
        await say(worker, (await asked(worker))[0], "done")
        assert (await caller.answer(id))["payload"] == "done"
    else:
        assert (await caller.answer(id))["payload"]["code"] == "provider_gone"


async def test_weakened_a_name_would_have_two_providers(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def believed(given: object) -> bool:
        return True

    for hub in (here, there):
        monkeypatch.setattr(hub.hub.providers, "claim", believed)
    for each in (caller, worker):
        assert await each.call("hub:provide", commands=[{"name": "jobs:run"}]) == {"provides": ["jobs:run"]}


async def test_weakened_a_call_would_wait_for_a_hub_that_has_gone(
    here: HubInside, there: HubInside, caller: Talk, worker: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provided(worker, here)
    id = await caller.begin("jobs:run")
    await asked(worker)
    monkeypatch.setattr(elsewhere, "_end", lambda sent: None)
    peers: Any = there.hub.broker.peers
    before = peers.link
    peers._asks.close()
    provided_by: Any = here.hub.commands.provided
    await until(lambda: "jobs:run" in provided_by and provided_by["jobs:run"].link != before)
    assert await caller.call("hub:ping")
    assert id not in caller.answers


@pytest.mark.parametrize("what", ["restarted", "emptied"])
async def test_commands_are_there_again_when_the_server_is(tmp_path: Path, what: str) -> None:
    with engine(redis_program()) as server:
        async with (
            hub_app(tmp_path / "here", broker=server.url()) as here,
            hub_app(tmp_path / "there", broker=server.url()) as there,
            talk(here.url, "?topics=no:thing") as caller,
            talk(there.url, "?topics=no:thing") as worker,
        ):
            await provided(worker, here)
            id = await caller.begin("jobs:run")
            await asked(worker)
            if what == "emptied":
                await asyncio.to_thread(server.ask, "FLUSHALL")
                await asyncio.to_thread(server.ask, "FUNCTION", "FLUSH")
            else:
                await asyncio.to_thread(server.restart)
            assert (await caller.answer(id))["payload"]["code"] == "provider_gone"
            await until(lambda: "jobs:run" in here.hub.commands.provided, "that it is listed again")
            assert (await asked(worker))[1]["command"] == "hub:cancel"
            id = await caller.begin("jobs:run")
            await say(worker, (await asked(worker))[0], 1)
            assert (await caller.answer(id))["payload"] == 1


async def test_a_hub_with_a_name_knows_what_is_its_own(start: Start) -> None:
    """A name may have all that an id may have: what is a hub's is found by all of it."""
    hubs = [await start(name, hub_id=f"east-{name}.x") for name in ("one", "two")]
    async with talk(hubs[0].url, "?topics=no:thing") as worker:
        await provided(worker, *hubs)
        peers: Any = hubs[0].hub.broker.peers
        assert await peers.claim({"jobs:run": b"again"}) is None
    await until(lambda: not any(hub.hub.commands.provided for hub in hubs), "that it is taken back")


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_command_is_there_on_all_hubs_as_soon_as_it_is_provided(
    here: HubInside, caller: Talk, worker: Talk, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that a command is unknown does not call again."""
    peers: Any = here.hub.broker.peers
    monkeypatch.setattr(redispeers, "RENEW", 60.0)
    monkeypatch.setattr(peers, "_hear", lambda channel, message: None)  # the news has not come yet
    renewed = peers._renew

    async def never(asks: Any) -> None:
        await asyncio.Event().wait()

    if weakened:
        monkeypatch.setattr(registry.Registry, "_look", passed_over)
        monkeypatch.setattr(peers, "_renew", never)
    await worker.call("hub:provide", commands=[{"name": "jobs:run", "summary": "Run it."}])
    if weakened:
        await caller.fails("jobs:run", "unknown_command")
        monkeypatch.setattr(peers, "_renew", renewed)
        return
    ids = [await caller.begin("jobs:run") for _ in range(3)]
    for _ in ids:
        await say(worker, (await asked(worker))[0], 1)
    assert [(await caller.answer(id))["payload"] for id in ids] == [1, 1, 1]
    await caller.fails("jobs:rum", "unknown_command")


async def passed_over(*args: Any) -> None:
    """Nobody is asked."""


@pytest.mark.parametrize("weakened", [False, True])
async def test_while_the_others_are_not_heard_no_command_is_called_unknown(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(registry.Registry, "_look", passed_over)
    code = "unknown_command" if weakened else "broker_unavailable"
    with engine(redis_program()) as server:
        async with (
            hub_app(tmp_path / "here", broker=server.url()) as here,
            hub_app(tmp_path / "there", broker=server.url()) as there,
            talk(here.url, "?topics=no:thing") as caller,
            talk(there.url, "?topics=no:thing") as worker,
        ):
            await provided(worker, here)
            await asyncio.to_thread(server.kill)
            await until(lambda: "jobs:run" not in here.hub.commands.provided, "that it is not heard of any more")
            answer = await caller.fails("jobs:run", code)
            assert answer["retryable"] is not weakened
            await asyncio.to_thread(server.start)
            await until(lambda: "jobs:run" in here.hub.commands.provided, "that it is listed again")


@pytest.mark.parametrize("weakened", [False, True])
async def test_behind_a_silence_of_the_server_no_command_is_called_unknown(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be back before the hub whose command it is."""
    monkeypatch.setattr(redispeers, "RENEW", 0.05)
    monkeypatch.setattr(redispeers, "SETTLED", 0.0)
    with engine(redis_program()) as server:
        async with hub_app(tmp_path, broker=server.url()) as hub, talk(hub.url, "?topics=no:thing") as caller:
            peers: Any = hub.hub.broker.peers
            await caller.fails("jobs:run", "unknown_command")
            monkeypatch.setattr(redispeers, "SETTLED", 0.0 if weakened else 600.0)
            server.send_signal(signal.SIGSTOP)
            silent = peers._renewed
            await until(lambda: time.monotonic() - peers._renewed > 0.5, "that it was silent for long")
            server.send_signal(signal.SIGCONT)
            await until(lambda: peers._renewed > silent + 0.5 and peers._asks is not None, "that it is back")
            await caller.fails("jobs:run", "unknown_command" if weakened else "broker_unavailable")


async def test_a_user_who_may_hear_nobody_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with engine(redis_program()) as server:
        server.ask("ACL", "SETUSER", "hub", "on", ">pw", "+@all", "-subscribe", "~*", "&*")
        url = server.url(username="hub", password="pw")
        async with hub_app(tmp_path, broker=url) as hub, talk(hub.url) as caller:
            await hub.hub.publish("a:x", None)  # the stream itself does well
            await caller.fails("jobs:run", "broker_unavailable")
    (told,) = [record.getMessage() for record in caplog.records if "do not reach the other hubs" in record.message]
    assert "see its ACL, which lacks SUBSCRIBE (NOPERM); hub print redis" in told
