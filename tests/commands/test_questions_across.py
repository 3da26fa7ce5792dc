"""Questions asked on one hub and answered on another: two hubs on one Redis."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from engines import Engine
from running import HubInside, Talk, hub_app, talk, until

from hub.commands import questions, settling
from hub.errors import HubError
from hub.stream.brokers import redispeers
from hub.stream.brokers.broker import Kept

QUESTION: dict[str, Any] = {"question": "Now?", "options": ["yes", "no"], "timeout": 60}


@pytest.fixture
async def hubs(redis_engine: Engine, tmp_path: Path) -> AsyncIterator[list[HubInside]]:
    url = redis_engine.url(prefix=uuid4().hex)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(hub_app(tmp_path / name, broker=url, stop_timeout=0.1))
            for name in ("one", "two")
        ]


@pytest.fixture
async def talks(hubs: list[HubInside]) -> AsyncIterator[list[Talk]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(talk(hub.url, "?topics=no:thing")) for hub in hubs]


async def ask(talk: Talk, key: str | None = None, **more: Any) -> str:
    """Begin to ask, and return the id of the call."""
    payload: dict[str, Any] = {"command": "hub:ask", "args": {**QUESTION, **more}}
    id = f"ask-{uuid4().hex}"
    await talk.send({"type": "command", "id": id, "payload": payload | ({"idempotency_key": key} if key else {})})
    return id


async def opened(*hubs: HubInside, count: int = 1) -> list[dict[str, Any]]:
    """The open questions, once each of these hubs has so many."""
    await until(lambda: all(len(list(hub.hub.questions.records())) == count for hub in hubs), "that it is open")
    return list(hubs[0].hub.questions.records())


def published(hub: HubInside) -> list[str]:
    return [event.data["status"] for event in hub.hub.window.events() if event.name == "hub:question"]


async def ended(hub: HubInside, how: str = "answered") -> list[Any]:
    return [record["details"]["answer"] for record in await hub.records(f"question.{how}")]


async def test_an_answer_of_another_hub_is_on_record_on_both(hubs: list[HubInside], talks: list[Talk]) -> None:
    call = await ask(talks[0])
    (record,) = await opened(*hubs)
    assert await talks[1].call("hub:questions") == await talks[0].call("hub:questions") == [record]
    await talks[1].fails("hub:answer", "invalid_args", question=record["id"], answer="perhaps")
    assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
    answer = (await talks[0].answer(call))["payload"]
    assert (answer["question"], answer["answer"], answer["timed_out"]) == (record["id"], "yes", False)
    assert [await ended(hub) for hub in hubs] == [["yes"], ["yes"]]
    for each in talks:
        assert await each.call("hub:answer", question=record["id"], answer="no") == {"accepted": False}
    assert [published(hub) for hub in hubs] == [["open", "answered"]] * 2
    assert [len(hub.hub.questions) for hub in hubs] == [0, 0]


async def test_the_page_of_one_hub_answers_what_was_asked_on_another(hubs: list[HubInside], talks: list[Talk]) -> None:
    call = await ask(talks[0], question="Shall it be shown elsewhere?")
    (record,) = await opened(*hubs)
    async with hubs[1].http.get(hubs[1].url) as page:
        assert "Shall it be shown elsewhere?" in await page.text()
    form = {"question": record["id"], "answer": "no"}
    origin = {"Origin": hubs[1].url.rstrip("/")}
    async with hubs[1].http.post(f"{hubs[1].url}answer", data=form, headers=origin, allow_redirects=False) as sent:
        assert sent.status == 303
    assert (await talks[0].answer(call))["payload"]["answer"] == "no"


async def test_the_same_key_is_the_same_question_on_all_hubs(hubs: list[HubInside], talks: list[Talk]) -> None:
    calls = [await ask(each, "k") for each in talks]
    (record,) = await opened(*hubs)
    twice = await ask(talks[1], "k")
    await until(lambda: len(hubs[1].hub.questions._awaited) == 2)
    assert await talks[0].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
    answers = [(await each.answer(call))["payload"] for each, call in zip(talks, calls, strict=True)]
    assert answers[0] == answers[1] == (await talks[1].answer(twice))["payload"]
    assert published(hubs[0]) == ["open", "answered"]
    again = (await talks[1].answer(await ask(talks[1], "k")))["payload"]
    assert again == answers[0]
    other = (await talks[1].answer(await ask(talks[1], "k", question="Another?")))["payload"]
    assert other["code"] == "invalid_args"


async def awaited(hub: HubInside, id: str) -> list[bytes]:
    """The hubs on which somebody waits for its end, as the server knows."""
    found: list[bytes] = await cast("Any", hub.hub.broker.peers)._asks.send(
        "HKEYS", cast("Any", hub.hub.broker.peers)._keys[0][:-1] + f"w:{id}"
    )
    return found


@pytest.mark.parametrize("weakened", [False, True])
async def test_of_those_who_wait_on_all_hubs_the_last_that_cancels_withdraws_it(
    hubs: list[HubInside], talks: list[Talk], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(redispeers.RedisJudge, "awaits", lambda self, id: None)
    calls = [await ask(talks[0], "k")]
    (record,) = await opened(*hubs)
    calls.append(await ask(talks[1], "k"))
    await until(lambda: len(hubs[1].hub.questions._awaited) == 1)
    assert await talks[0].call("hub:cancel", id=calls[0]) == {"cancelled": True}
    first = (await talks[0].answer(calls[0]))["payload"]
    assert (first["code"], "withdrawn" in first["error"]) == ("cancelled", weakened)
    if not weakened:
        assert published(hubs[1]) == ["open"]
        assert await talks[1].call("hub:cancel", id=calls[1]) == {"cancelled": True}
    last = (await talks[1].answer(calls[1]))["payload"]
    assert (last["code"], "withdrawn" in last["error"]) == ("cancelled", True)
    assert published(hubs[0]) == ["open", "withdrawn"]
    assert await awaited(hubs[0], record["id"]) == []


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("what", ["comes back", "dies", "has gone"])
async def test_whoever_waits_counts_while_there_is_somebody_to_hear_it(
    hubs: list[HubInside], talks: list[Talk], what: str
) -> None:
    call = await ask(talks[0], "k")
    (record,) = await opened(*hubs)
    other = await ask(talks[1], "k")
    await until(lambda: len(hubs[1].hub.questions._awaited) == 1)
    if what == "comes back":  # under another link
        peers: Any = hubs[1].hub.broker.peers
        link = peers.link
        peers._asks.close()
        await until(lambda: peers.link not in ("", link))
        assert await talks[1].call("hub:ping")
        await until(lambda: peers._joined.is_set())
    elif what == "dies":
        peers = hubs[1].hub.broker.peers
        peers._running.cancel()
        await until(lambda: not hubs[0].hub.questions._links)
    else:
        await talks[1].ws.close()
        await until(lambda: hubs[1].clients("websocket") == 0)
        async with asyncio.timeout(30):
            while len(await awaited(hubs[0], record["id"])) > 1:
                await asyncio.sleep(0.005)
    assert await talks[0].call("hub:cancel", id=call) == {"cancelled": True}
    mine = (await talks[0].answer(call))["payload"]
    assert ("withdrawn" in mine["error"]) == (what != "comes back")
    if what == "comes back":
        assert await talks[0].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
        assert (await talks[1].answer(other))["payload"]["answer"] == "yes"


@pytest.mark.parametrize("weakened", [False, True])
async def test_of_answers_on_all_hubs_one_wins(
    hubs: list[HubInside], talks: list[Talk], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def anything(*args: Any) -> tuple[str, bytes]:
        return "mine", b""

    if weakened:
        monkeypatch.setattr(redispeers.RedisJudge, "settle", anything)
    call = await ask(talks[0])
    (record,) = await opened(*hubs)
    found = await asyncio.gather(
        *(
            hub.hub.questions.answer(record["id"], answer, person())
            for hub, answer in zip(hubs, ("yes", "no"), strict=True)
        )
    )
    await talks[0].answer(call)
    assert sorted(found) == ([True, True] if weakened else [False, True])


def person() -> Any:
    from hub.commands.asked import Person

    return Person("somebody")


async def die(hub: HubInside) -> None:
    """Be heard of no more, as after a kill."""
    peers: Any = hub.hub.broker.peers
    peers._running.cancel()
    hub.hub.questions.release()
    await until(lambda: not peers.link)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redispeers, "LEASE", 1.0)
    monkeypatch.setattr(redispeers, "RENEW", 0.1)


@pytest.mark.usefixtures("brief")
async def test_a_deadline_outlives_the_hub_that_asked(hubs: list[HubInside], talks: list[Talk]) -> None:
    await ask(talks[0], "k", default="no", timeout=1)
    await opened(*hubs)
    await die(hubs[0])
    answer = (await talks[1].answer(await ask(talks[1], "k", default="no", timeout=1)))["payload"]
    assert (answer["answer"], answer["by"], answer["timed_out"]) == ("no", None, True)
    assert await ended(hubs[1], "timed_out") == ["no"]


@pytest.mark.usefixtures("brief")
async def test_what_is_asked_while_connected_ends_with_the_hub(hubs: list[HubInside], talks: list[Talk]) -> None:
    await ask(talks[0], **{"while": "connected"})
    await ask(talks[1], **{"while": "connected"})
    await opened(*hubs, count=2)
    await die(hubs[0])
    await opened(hubs[1], count=1)
    assert await ended(hubs[1], "withdrawn") == [None]


async def test_what_is_asked_while_connected_goes_with_who_comes_back(hubs: list[HubInside], talks: list[Talk]) -> None:
    await ask(talks[0], "k", **{"while": "connected"})
    (record,) = await opened(*hubs)
    call = await ask(talks[1], "k", **{"while": "connected"})
    await until(lambda: hubs[1].hub.questions._open[record["id"]].askers)
    assert await talks[1].call("hub:ping")
    async with asyncio.timeout(30):  # the other hub is told of that behind the call
        peers: Any = hubs[1].hub.broker.peers
        while not (await peers._asks.send("HGET", peers._keys[0][:-1] + "o", record["id"])).startswith(
            peers.id.encode()
        ):
            await asyncio.sleep(0.005)
    await talks[0].ws.close()
    await until(lambda: hubs[0].clients("websocket") == 0)
    await hubs[0].hub.publish("a:x", 1)
    await until(lambda: hubs[1].hub.cursor == hubs[0].hub.cursor)
    assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
    assert (await talks[1].answer(call))["payload"]["answer"] == "yes"


@pytest.mark.usefixtures("brief")
async def test_an_end_that_a_dead_hub_has_taken_is_the_end(hubs: list[HubInside], talks: list[Talk]) -> None:
    call = await ask(talks[1], timeout=2)
    (record,) = await opened(*hubs)
    end = {**record, "status": "answered", "answer": "no", "by": "somebody"}
    peers: Any = hubs[0].hub.broker.peers
    assert (
        await peers.judge.settle(record["id"], record["asked_at"], "answered", 1e12 / 1000, json.dumps(end).encode())
    )[0] == "mine"
    assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": False}
    await die(hubs[0])
    answer = (await talks[1].answer(call))["payload"]
    assert (answer["answer"], answer["by"]) == ("no", "somebody")
    assert await ended(hubs[1]) == ["no"]


async def test_what_cannot_be_recorded_can_be_answered_elsewhere(
    hubs: list[HubInside], talks: list[Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await ask(talks[0])
    (record,) = await opened(*hubs)
    with monkeypatch.context() as patch:
        patch.setattr(hubs[1].hub.audit, "record", full)
        with pytest.raises(HubError, match="full"):
            await hubs[1].hub.questions.answer(record["id"], "yes", person())
    assert await talks[0].call("hub:answer", question=record["id"], answer="no") == {"accepted": True}
    assert (await talks[0].answer(call))["payload"]["answer"] == "no"


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_is_given_out_only_where_it_is_on_record(
    hubs: list[HubInside], talks: list[Talk], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def believed(*args: Any) -> None:
        """As it was before there were others."""

    asking = asyncio.ensure_future(hubs[0].hub.ask("Now?", ["yes", "no"], key="k"))
    (record,) = await opened(*hubs)
    if weakened:
        monkeypatch.setattr(hubs[0].hub.questions.settling.endings, "on_record", believed)
    monkeypatch.setattr(hubs[0].hub.audit, "record", full)
    assert await hubs[1].hub.questions.answer(record["id"], "yes", person())
    if weakened:
        assert (await asking).answer == "yes"
    else:
        with pytest.raises(HubError, match="full"):
            await asking


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_end_that_the_stream_has_lost_is_the_end_again(
    hubs: list[HubInside], talks: list[Talk], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await ask(talks[0], "k")
    (record,) = await opened(*hubs)
    opening = next(event for event in hubs[0].hub.window.events() if event.name == "hub:question")
    assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
    await talks[0].answer(call)
    mine, peers = hubs[0].hub.questions, cast("Any", hubs[0].hub.broker.peers)
    if weakened:
        monkeypatch.setattr(mine.settling, "ends", {})
    await peers._asks.send("DEL", peers._keys[0][:-1] + "i")  # the end is not recognised any more
    hubs[0].hub.state.restore([Kept(opening, 0)], hubs[0].hub.cursor.seq)
    mine.go_on()
    if weakened:
        assert [one["id"] for one in mine.records()] == [record["id"]]
    else:
        await until(lambda: published(hubs[1]) == ["open", "answered", "answered"])
        await until(lambda: not len(mine))
        again = await mine.answer(record["id"], "no", person())
        assert not again


@pytest.mark.once
async def test_of_very_many_ends_the_old_ones_are_forgotten(hubs: list[HubInside], talks: list[Talk]) -> None:
    call = await ask(talks[0])
    (record,) = await opened(*hubs)
    peers = cast("Any", hubs[0].hub.broker.peers)
    key, at = peers._keys[0][:-1] + "q", int((await peers._asks.send("TIME"))[0])
    old = [word for number in range(4096) for word in (f"old-{number}", f"- {1000 * (at - 4000)} ")]
    await peers._asks.send("HSET", key, *old, "young", f"- {1000 * at} ")
    assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": True}
    await talks[0].answer(call)
    assert await peers._asks.send("HLEN", key) == 2


async def full(*args: Any) -> None:
    raise HubError("audit_unavailable", "It is full.")


@pytest.mark.once
async def test_a_hub_that_has_not_read_of_a_question_asks_for_it(
    hubs: list[HubInside], talks: list[Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is faster than the hub is answered all the same; but it waits no longer than REACH."""
    gate, broker = asyncio.Event(), cast("Any", hubs[1].hub.broker)
    pump = broker._pump

    async def held(events: Any) -> None:
        await gate.wait()
        await pump(events)

    broker._pump = held
    call = await ask(talks[0], "k")
    (record,) = await opened(hubs[0])
    with monkeypatch.context() as patch:
        patch.setattr(questions, "REACH", 0.01)
        assert await talks[1].call("hub:answer", question=record["id"], answer="yes") == {"accepted": False}
    other = (await talks[1].answer(await ask(talks[1], "k", question="Another?")))["payload"]
    assert other["code"] == "invalid_args"
    answering = await talks[1].begin("hub:answer", question=record["id"], answer="yes")
    assert await talks[1].call("hub:ping")  # it has heard of the answer by then
    gate.set()
    assert (await talks[1].answer(answering))["payload"] == {"accepted": True}
    assert (await talks[0].answer(call))["payload"]["answer"] == "yes"


async def answered(hub: HubInside, id: str) -> None:
    """Answer until that is heard."""
    async with asyncio.timeout(30):
        while not await hub.hub.questions.answer(id, "yes", person()):
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("brief")
@pytest.mark.once
async def test_an_end_that_a_dead_hub_has_left_is_not_taken_back_where_it_cannot_be_recorded(
    hubs: list[HubInside], talks: list[Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(talks[0], "k")
    (record,) = await opened(*hubs)
    end = {**record, "status": "answered", "answer": "no", "by": "somebody"}
    peers: Any = hubs[0].hub.broker.peers
    await peers.judge.settle(record["id"], record["asked_at"], "answered", 1e9, json.dumps(end).encode())
    await die(hubs[0])
    monkeypatch.setattr(settling, "RETRY", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(hubs[1].hub.audit, "record", full)
        with pytest.raises(HubError, match="full"):
            await answered(hubs[1], record["id"])
    await until(lambda: published(hubs[1])[-1:] == ["answered"])
    assert await ended(hubs[1]) == ["no"]
