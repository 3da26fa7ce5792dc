"""Questions over stops, kills and starts, and where the audit log or the store is away."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asking import QUESTION, UID, asked, away, call, client_of, ends, refused, value
from running import until

from hub import Call, Hub
from hub.commands import questions, settling
from hub.commands.clients import Client
from hub.commands.endings import Endings, Repeats
from hub.commands.question import EVENT
from hub.commands.questions import Questions
from hub.errors import HubError


async def test_an_open_question_outlives_the_hub(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    waiting = asyncio.ensure_future(call(hub, "hub:ask", key="k", **QUESTION, timeout=60))
    bound = asyncio.ensure_future(call(hub, "hub:ask", **{**QUESTION, "while": "connected"}))
    late = asyncio.ensure_future(call(hub, "hub:ask", **QUESTION, default="yes", timeout=1))
    await until(lambda: len(list(hub.questions.records())) == 3)
    records = {record["default"] or record["id"][:6]: record for record in hub.questions.records()}
    await hub.stop()
    for one in (waiting, bound, late):
        with pytest.raises(HubError) as error:
            await one
        assert error.value.code == "shutting_down"
    await asyncio.sleep(1.0)  # the deadline passes while no hub runs
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    await until(lambda: len(hub.questions) == 1)
    assert ends(tmp_path, records["yes"]["id"]) == [("timed_out", "yes")]
    assert ends(tmp_path, records["while-"]["id"]) == [("withdrawn", None)]
    (open,) = hub.questions.records()
    again = asyncio.ensure_future(call(hub, "hub:ask", key="k", **QUESTION))
    assert await call(hub, "hub:answer", question=open["id"], answer="yes") == {"accepted": True}
    assert (await again)["question"] == open["id"]
    await hub.stop()
    with pytest.raises(HubError, match="stopping"):
        await hub.ask("Now?", ["yes"])


async def never(*args: Any) -> None:
    await asyncio.Event().wait()


async def die_behind_the_record(directory: Path, patch: pytest.MonkeyPatch, *, again: bool = False) -> str:
    """Ask with a key, answer yes, and end when that is on record and not kept. `again`: it was asked and withdrawn
    before. Return the question's id."""
    hub = Hub(port=0, state_dir=directory)
    await hub.start()
    if again:
        asking = Call(hub, client_of(), "1", idempotency_key="k")
        first = asyncio.ensure_future(hub.commands.call(asking, "hub:ask", QUESTION))
        await until(lambda: list(hub.questions.records()))
        asking.cancel()
        await asyncio.wait({first})
        await until(lambda: not len(hub.questions))
    waiting = asyncio.ensure_future(call(hub, "hub:ask", key="k", **QUESTION))
    await until(lambda: list(hub.questions.records()))
    (record,) = hub.questions.records()
    patch.setattr(hub.bus, "keep", never)
    answering = asyncio.ensure_future(call(hub, "hub:answer", question=record["id"], answer="yes"))
    await until(lambda: ("answered", "yes") in ends(directory, record["id"]))
    await hub.stop()
    await asyncio.wait({waiting, answering})
    id: str = record["id"]
    return id


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_on_record_is_the_answer_behind_a_kill(
    weakened: bool, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had heard of it, but who reads the audit log has: another answer must not win any more."""
    with pytest.MonkeyPatch.context() as patch:
        id = await die_behind_the_record(tmp_path, patch, again=again)
    if weakened:
        monkeypatch.setattr(Endings, "newest", lambda all: asyncio.sleep(0, {}))
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    try:
        assert (await call(hub, "hub:answer", question=id, answer="no"))["accepted"] is weakened
        assert (await call(hub, "hub:ask", key="k", **QUESTION))["answer"] == ("no" if weakened else "yes")
        assert len(ends(tmp_path, id)) == 1 + weakened + again
    finally:
        await hub.stop()


async def test_an_end_on_record_is_kept_when_the_store_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "RETRY", 0.01)
    with pytest.MonkeyPatch.context() as patch:
        id = await die_behind_the_record(tmp_path, patch)
    hub, tries = Hub(port=0, state_dir=tmp_path), list[str]()
    keep = hub.bus.keep

    async def fails_twice(name: str, key: str, data: Any) -> None:
        tries.append(data["status"])
        if len(tries) < 3:
            raise HubError("broker_unavailable", "The store is away.")
        await keep(name, key, data)

    monkeypatch.setattr(hub.bus, "keep", fails_twice)
    await hub.start()
    try:
        assert not (await call(hub, "hub:answer", question=id, answer="no"))["accepted"]  # it waits for its turn
        assert (value(hub, id)["answer"], tries) == ("yes", ["answered"] * 3)
    finally:
        await hub.stop()


async def test_an_end_on_record_waits_for_the_next_start_if_the_store_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "RETRY", 0.01)
    with pytest.MonkeyPatch.context() as patch:
        id = await die_behind_the_record(tmp_path, patch)
    hub, tries = Hub(port=0, state_dir=tmp_path), list[str]()

    async def fails(name: str, key: str, data: Any) -> None:
        tries.append(data["status"])
        raise HubError("broker_unavailable", "The store is away.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub.bus, "keep", fails)
        await hub.start()
        await until(lambda: len(tries) > 2)
        await hub.stop()
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    try:
        await until(lambda: not len(hub.questions))
        assert (value(hub, id)["answer"], ends(tmp_path, id)) == ("yes", [("answered", "yes")])
    finally:
        await hub.stop()


async def test_an_answer_that_is_on_its_way_when_the_hub_stops_is_kept(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, gate = hub.bus.keep, asyncio.Event()

    async def slow(name: str, key: str, data: Any) -> None:
        await gate.wait()
        await keep(name, key, data)

    async with asked(hub) as (id, waiting):
        monkeypatch.setattr(hub.bus, "keep", slow)
        answering = asyncio.ensure_future(call(hub, "hub:answer", question=id, answer="yes"))
        await until(lambda: ends(tmp_path, id))
        hub.questions.release()
        with pytest.raises(HubError, match="stopping"):
            await waiting
        gate.set()
        assert await answering == {"accepted": True}
    assert value(hub, id)["answer"] == "yes"


async def test_a_question_asked_again_is_not_ended_by_what_ended_it_before(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    for _ in range(2):
        asking = Call(hub, client_of(), "1", idempotency_key="k")
        waiting = asyncio.ensure_future(hub.commands.call(asking, "hub:ask", QUESTION))
        await until(lambda: list(hub.questions.records()))
        if not asking.cancel():
            raise AssertionError
        await asyncio.wait({waiting})
        await until(lambda: not len(hub.questions))
    waiting = asyncio.ensure_future(call(hub, "hub:ask", key="k", **QUESTION))
    await until(lambda: list(hub.questions.records()))
    await hub.stop()
    await asyncio.wait({waiting})
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    try:
        assert [record["status"] for record in hub.questions.records()] == ["open"]
    finally:
        await hub.stop()


@pytest.mark.parametrize("weakened", [False, True])
async def test_many_other_last_values_push_no_open_question_out(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Questions, "keep", lambda all, event: None)
    hub = Hub(port=0, state_dir=tmp_path, state_items=20)
    await hub.start()
    async with asked(hub, key="k", timeout=600) as (id, _):
        for number in range(100):
            await hub.publish("task:progress", {"id": str(number)})
        await asyncio.sleep(0.05)
        assert (hub.state.get(EVENT, id) is None) is weakened
        await hub.stop()
    hub = Hub(port=0, state_dir=tmp_path, state_items=20)
    await hub.start()
    assert [record["id"] for record in hub.questions.records()] == ([] if weakened else [id])
    await hub.stop()


async def test_what_is_over_stays_so_across_a_restart(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    async with asked(hub) as (id, waiting):
        await call(hub, "hub:answer", question=id, answer="no")
        await waiting
    await hub.stop()
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    assert hub.questions.records() == []
    found = hub.state.get(EVENT, id)
    assert found
    assert found.data["answer"] == "no"
    await hub.stop()


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_over_is_known_by_its_key_when_other_last_values_have_its_place(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across a restart, too: else a person would be asked a second time, and may say something else."""
    if weakened:
        monkeypatch.setattr(Repeats, "find", lambda *args: asyncio.sleep(0))
    hub = Hub(port=0, state_dir=tmp_path, state_items=20)
    await hub.start()
    async with asked(hub, key="k") as (id, waiting):
        await call(hub, "hub:answer", question=id, answer="no")
        answer = await waiting
    async with asked(hub, key="taken back", by=(asker := client_of()), **{"while": "connected"}) as (_, waiting):
        hub.questions.withdraw_of(asker)
        with pytest.raises(HubError, match="withdrawn"):
            await waiting
    for number in range(100):
        await hub.publish("task:progress", {"id": str(number)})
    await hub.stop()
    hub = Hub(port=0, state_dir=tmp_path, state_items=20)
    await hub.start()
    assert hub.state.get(EVENT, id) is None
    if weakened:
        async with asked(hub, key="k") as (again, _):
            assert again == id
    else:
        assert await call(hub, "hub:ask", key="k", **QUESTION) == answer
        await refused(hub, "invalid_args", "hub:ask", key="k", **{**QUESTION, "question": "Else?"})
    async with asked(hub, key="taken back", **{"while": "connected"}) as (_, waiting):
        assert not waiting.done()
    await hub.stop()


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_key_is_of_one_question_whatever_it_ends_with(
    hub: Hub, weakened: bool, bound: bool, is_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a person would be asked twice."""
    if weakened:
        monkeypatch.setattr(questions, "twin", lambda id: "another")
    way: dict[str, Any] = {"while": "connected"}
    one, other = (way, {}) if bound else ({}, way)
    async with asked(hub, key="k", **one) as (id, waiting):
        if is_over:
            await call(hub, "hub:answer", question=id, answer="no")
            await waiting
        if weakened:
            async with asked(hub, key="k", **other) as (second, _):
                assert second != id
        else:
            await refused(hub, "invalid_args", "hub:ask", key="k", **QUESTION, **other)


async def test_what_is_over_is_not_kept_among_the_last_values(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, state_items=20)
    await hub.start()
    async with asked(hub) as (id, waiting):
        answering = asyncio.ensure_future(call(hub, "hub:answer", question=id, answer="yes"))
        question, event = hub.questions._open[id], hub.state.get(EVENT, id)
        assert event
        while not question.turn.locked():
            await asyncio.sleep(0)
        hub.questions.keep(event)  # pushed out while its end is on its way
        assert await answering == {"accepted": True}
        await waiting
    assert value(hub, id)["status"] == "answered"
    for number in range(50):
        await hub.publish("task:progress", {"id": str(number)})
    assert hub.state.get(EVENT, id) is None
    assert hub.cursor.seq == 52  # asked, answered, and the tasks
    await hub.stop()


async def test_questions_that_fill_the_last_values_do_not_go_round_for_ever(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, state_items=2)
    await hub.start()
    asking = [asyncio.ensure_future(hub.ask("Deploy?", ["yes", "no"])) for _ in range(5)]
    await until(lambda: len(list(hub.questions.records())) == 5)
    await asyncio.sleep(0.05)
    assert hub.cursor.seq == 5
    await hub.stop()
    await asyncio.wait(asking)


async def test_who_comes_back_holds_the_question(hub: Hub) -> None:
    before, again = Client("websocket", "127.0.0.1:1", UID), Client("websocket", "127.0.0.1:2", UID)
    for client in (before, again):
        hub.clients.join(client)
    bound: dict[str, Any] = {"key": "b", "while": "connected"}
    async with asked(hub, by=before, **bound) as (id, _):
        waiting = asyncio.ensure_future(call(hub, "hub:ask", by=again, **QUESTION, **bound))
        await asyncio.sleep(0.05)
        hub.clients.leave(before, "lost")
        await asyncio.sleep(0.05)
        assert await call(hub, "hub:answer", question=id, answer="yes") == {"accepted": True}
        assert (await waiting)["answer"] == "yes"


@pytest.mark.parametrize("opening", [True, False])
async def test_a_stop_keeps_nobody_waiting(hub: Hub, opening: bool) -> None:
    asking = asyncio.ensure_future(hub.ask("Deploy?", ["yes", "no"]))
    while not (len(hub.questions) if opening else list(hub.questions.records())):
        await asyncio.sleep(0)
    for _ in range(2):
        hub.questions.release()
    with pytest.raises(HubError, match="stopping"):
        await asking
    await hub.questions.settling.stop(1.0)
    (record,) = hub.questions.records()
    assert value(hub, record["id"])["status"] == "open"


@pytest.mark.parametrize("what", ["audit", "broker"])
async def test_what_cannot_be_recorded_or_kept_has_not_happened(hub: Hub, what: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "RETRY", 0.01)
        async with asked(hub, timeout=30) as (id, waiting):
            away(what, patch, hub)
            await refused(hub, f"{what}_unavailable", "hub:answer", question=id, answer="yes")
            await refused(hub, f"{what}_unavailable", "hub:ask", **QUESTION)
            assert not waiting.done()
            patch.undo()
            assert await call(hub, "hub:answer", question=id, answer="no") == {"accepted": True}
            assert (await waiting)["answer"] == "no"
        await until(lambda: not len(hub.questions))  # what was perhaps kept is taken back


@pytest.mark.parametrize("patience", [30.0, 0.0])
@pytest.mark.parametrize("what", ["audit", "broker"])
async def test_a_deadline_that_cannot_be_recorded_is_tried_again(
    hub: Hub, what: str, patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked hears what comes on record then: the protection is that it waits; after a while it hears why."""
    monkeypatch.setattr(settling, "RETRY", 0.01)
    monkeypatch.setattr(settling, "PATIENCE", patience)
    end, tried = hub.questions.settling.end, list[str]()

    async def counted(*args: Any) -> Any:
        tried.append(what)
        return await end(*args)

    monkeypatch.setattr(hub.questions.settling, "end", counted)
    async with asked(hub, timeout=1, default="no") as (id, waiting):
        with pytest.MonkeyPatch.context() as patch:
            away(what, patch, hub)
            await until(lambda: len(tried) > 3)
            assert waiting.done() is (patience == 0)
        if patience:
            assert (await waiting)["timed_out"]
        else:
            with pytest.raises(HubError) as error:
                await waiting
            assert error.value.code == f"{what}_unavailable"
        await until(lambda: not len(hub.questions))
    assert ends(tmp_path, id) == [("timed_out", "no")]  # once, however often it was tried


async def test_a_bug_is_logged(hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(hub.questions.settling, "record", broken)
    with pytest.raises(HubError) as error:
        await call(hub, "hub:ask", **QUESTION)
    assert error.value.code == "internal"
    assert "a question could not be led on" in caplog.text
