"""Questions: one answer wins and is on record before anybody hears it, and how a question ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from asking import QUESTION, UID, asked, away, call, client_of, ends, refused, value
from logs import everything
from running import until

from hub import Call, Hub
from hub.commands import endings, questions, settling
from hub.commands.asked import account
from hub.commands.clients import Client
from hub.errors import HubError

# ---- asking and answering


async def test_a_question_is_a_last_value_and_its_answer_reaches_who_asked(hub: Hub, tmp_path: Path) -> None:
    async with asked(hub, details={"cwd": "/srv"}, default="no") as (id, waiting):
        (open,) = await call(hub, "hub:questions")
        assert open == value(hub, id)
        asked_at, deadline = open.pop("asked_at"), open.pop("deadline")
        assert deadline > asked_at
        assert open == {
            "id": id,
            **QUESTION,
            "default": "no",
            "details": {"cwd": "/srv"},
            "asked_by": account(UID),
            "status": "open",
            "answer": None,
            "by": None,
        }
        assert await call(hub, "hub:answer", question=id, answer="yes") == {"accepted": True}
        assert await waiting == {"question": id, "answer": "yes", "by": account(UID), "timed_out": False}
        assert await call(hub, "hub:answer", question=id, answer="no") == {"accepted": False}
    assert (value(hub, id)["status"], value(hub, id)["answer"]) == ("answered", "yes")
    assert await call(hub, "hub:questions") == []
    assert ends(tmp_path, id) == [("answered", "yes")]


async def test_of_many_answers_at_once_the_first_wins(hub: Hub, tmp_path: Path) -> None:
    async with asked(hub) as (id, waiting):
        answers = [call(hub, "hub:answer", question=id, answer=("yes", "no")[n % 2]) for n in range(20)]
        accepted = [answer["accepted"] for answer in await asyncio.gather(*answers)]
        assert sum(accepted) == 1
        assert (await waiting)["answer"] == ("yes", "no")[accepted.index(True) % 2]
    assert len(ends(tmp_path, id)) == 1


async def test_who_answers_from_elsewhere_is_named_by_the_address(hub: Hub) -> None:
    async with asked(hub) as (id, waiting):
        await call(hub, "hub:answer", by=client_of(None), question=id, answer="yes")
        assert (await waiting)["by"] == "10.1.2.3"
    assert account(2**31) == f"uid {2**31}"


async def test_what_is_none_of_the_options_is_no_answer(hub: Hub) -> None:
    async with asked(hub) as (id, _):
        error = await refused(hub, "invalid_args", "hub:answer", question=id, answer="maybe")
        assert error.details == {"answer": ["Must be one of: 'yes', 'no'."]}
        assert value(hub, id)["status"] == "open"
    assert await call(hub, "hub:answer", question="unknown", answer="maybe") == {"accepted": False}


async def test_who_only_reads_cannot_answer_or_ask(hub: Hub) -> None:
    observer = Client("http", "127.0.0.1:1", UID, "OBSERVER")
    async with asked(hub) as (id, _):
        await refused(hub, "forbidden", "hub:answer", by=observer, question=id, answer="yes")
        await refused(hub, "forbidden", "hub:ask", by=observer, **QUESTION)
        assert len(await call(hub, "hub:questions", by=observer)) == 1


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"options": []}, "options"),
        ({"options": [str(n) for n in range(17)]}, "options"),
        ({"options": ["a", "a"]}, "options"),
        ({"options": ["ghp_0123456789abcdefghijABCDEFGHIJ012345", "[redacted]"]}, "options"),
        ({"options": "yes"}, "options"),
        ({"default": "maybe"}, "default"),
        ({"timeout": 0.5}, "timeout"),
        ({"timeout": 604_801}, "timeout"),
        ({"while": "open"}, "while"),
        ({"question": ""}, "question"),
    ],
)
async def test_what_cannot_be_asked_is_refused(hub: Hub, args: dict[str, Any], field: str) -> None:
    error = await refused(hub, "invalid_args", "hub:ask", **{**QUESTION, **args})
    assert error.details
    assert list(error.details) == [field]
    assert ("secrets" in str(error.details)) == ("[redacted]" in args.get("options", ()))
    assert len(hub.questions) == 0


async def test_too_much_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await refused(hub, "too_large", "hub:ask", **QUESTION, details="x" * 70_000)
    monkeypatch.setattr(questions, "MOST", 1)
    async with asked(hub):
        await refused(hub, "busy", "hub:ask", **QUESTION)


async def test_only_so_many_ends_are_remembered(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "MOST", 2)
    monkeypatch.setattr(settling, "MOST", 2)
    for _ in range(4):
        async with asked(hub) as (id, waiting):
            await call(hub, "hub:answer", question=id, answer="yes")
            await waiting
    assert [name[0] == id for name in hub.questions.settling.ends] == [False, True]
    assert list(hub.questions.settling.endings._recorded) == list(hub.questions.settling.ends)


async def test_what_is_over_stays_as_it_has_ended(hub: Hub, tmp_path: Path) -> None:
    """Also where an end of it is found on record once more, or the stream is another one."""
    async with asked(hub) as (id, waiting):
        question = hub.questions._open[id]
        await call(hub, "hub:answer", question=id, answer="yes")
        await waiting
    await hub.questions.settling.complete(question, endings.Ending("answered", "no", "somebody"))
    hub.questions.go_on()
    assert (value(hub, id)["answer"], len(hub.questions), ends(tmp_path, id)) == ("yes", 0, [("answered", "yes")])


async def test_no_secret_is_asked(hub: Hub, tmp_path: Path) -> None:
    secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    async with asked(hub, question=f"Use {secret}?", options=["yes", secret], details={"token": "x"}) as (id, _):
        assert value(hub, id)["options"] == ["yes", "[redacted]"]
        assert value(hub, id)["details"] == {}
    assert secret not in str(everything(tmp_path))


# ---- how it ends


async def test_at_the_deadline_the_default_is_the_answer(hub: Hub, tmp_path: Path) -> None:
    id = (end := await call(hub, "hub:ask", **QUESTION, default="no", timeout=1))["question"]
    assert end == {"question": id, "answer": "no", "by": None, "timed_out": True}
    assert ends(tmp_path, id) == [("timed_out", "no")]


async def test_without_a_default_it_fails(hub: Hub, tmp_path: Path) -> None:
    async with asked(hub, timeout=1) as (id, waiting):
        with pytest.raises(HubError) as error:
            await waiting
        assert error.value.code == "timeout"
    assert ends(tmp_path, id) == [("timed_out", None)]


async def test_a_question_may_wait_longer_than_a_call(tmp_path: Path) -> None:
    hub = Hub(port=0, state_dir=tmp_path, call_timeout=0.1)
    await hub.start()
    assert (await call(hub, "hub:ask", **QUESTION, default="no", timeout=1))["answer"] == "no"
    await hub.stop()


async def test_a_call_that_is_cancelled_withdraws_its_question(hub: Hub, tmp_path: Path) -> None:
    client = client_of()
    client.calls["1"] = mine = Call(hub, client, "1")
    waiting = asyncio.ensure_future(hub.commands.call(mine, "hub:ask", QUESTION))
    await until(lambda: list(hub.questions.records()))
    (record,) = hub.questions.records()
    assert await call(hub, "hub:cancel", by=client, id="1") == {"cancelled": True}
    with pytest.raises(HubError, match="withdrawn") as error:
        await waiting
    assert error.value.code == "cancelled"
    assert ends(tmp_path, record["id"]) == [("withdrawn", None)]
    assert await call(hub, "hub:answer", question=record["id"], answer="yes") == {"accepted": False}


@pytest.mark.parametrize("first", ["answer", "cancel"])
async def test_whoever_cancels_hears_what_is_on_record_and_so_does_who_asked(
    hub: Hub, first: str, tmp_path: Path
) -> None:
    client = client_of()
    client.calls["1"] = mine = Call(hub, client, "1")
    waiting = asyncio.ensure_future(hub.commands.call(mine, "hub:ask", QUESTION))
    await until(lambda: list(hub.questions.records()))
    (record,) = hub.questions.records()
    ways = {
        "answer": call(hub, "hub:answer", question=record["id"], answer="yes"),
        "cancel": call(hub, "hub:cancel", by=client, id="1"),
    }
    both = [asyncio.ensure_future(ways.pop(first)), asyncio.ensure_future(*ways.values())]  # both are on their way
    told = {name: value for result in await asyncio.gather(*both) for name, value in result.items()}
    assert told["accepted"] is not told["cancelled"]
    if told["accepted"]:
        assert json.loads(await waiting)["answer"] == "yes"
    else:
        with pytest.raises(HubError, match="withdrawn"):
            await waiting
    assert ends(tmp_path, record["id"]) == [("answered", "yes") if told["accepted"] else ("withdrawn", None)]


async def test_what_cannot_be_recorded_is_not_withdrawn_yet(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "RETRY", 0.01)
    client = client_of()
    client.calls["1"] = mine = Call(hub, client, "1")
    waiting = asyncio.ensure_future(hub.commands.call(mine, "hub:ask", QUESTION))
    await until(lambda: list(hub.questions.records()))
    with monkeypatch.context() as patch:
        away("audit", patch, hub)
        await refused(hub, "audit_unavailable", "hub:cancel", by=client, id="1")
        assert not waiting.done()
    with pytest.raises(HubError, match="withdrawn"):  # it was tried again
        await waiting


@pytest.mark.parametrize("weakened", [False, True])
async def test_of_two_who_ask_the_same_the_last_that_leaves_withdraws_it(
    hub: Hub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Client("websocket", f"127.0.0.1:{port}", UID) for port in (1, 2))
    for client in (first, second):
        hub.clients.join(client)
    async with asked(hub, by=first, key="k", **{"while": "connected"}) as (id, waiting):
        again = asyncio.ensure_future(call(hub, "hub:ask", by=second, key="k", **QUESTION, **{"while": "connected"}))
        await until(lambda: len(hub.questions._open[id].askers) == 2)
        if weakened:
            hub.questions._open[id].askers.remove(first)
        hub.clients.leave(second, "lost")
        await asyncio.sleep(0)
        accepted = await call(hub, "hub:answer", question=id, answer="yes")
        assert accepted == {"accepted": not weakened}
        if not weakened:
            assert await waiting == await again
        await asyncio.wait({again})


async def test_who_cancels_withdraws_it_from_all_who_wait(hub: Hub, tmp_path: Path) -> None:
    waiting = []
    for client in (clients := [client_of(), client_of()]):
        client.calls["1"] = mine = Call(hub, client, "1", idempotency_key="k")
        waiting.append(asyncio.ensure_future(hub.commands.call(mine, "hub:ask", QUESTION)))
    await until(lambda: len(hub.questions._awaited) == 2 and len(list(hub.questions.records())) == 1)
    (record,) = hub.questions.records()
    assert await call(hub, "hub:cancel", by=clients[0], id="1") == {"cancelled": True}
    for one in waiting:
        with pytest.raises(HubError, match=r"cancelled|withdrawn") as error:
            await one
        assert error.value.code == "cancelled"
    assert value(hub, record["id"])["status"] == "withdrawn"
    assert ends(tmp_path, record["id"]) == [("withdrawn", None)]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_request_that_leaves_takes_no_question_from_who_still_waits(
    hub: Hub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(questions.Questions, "_is_awaited", lambda *args, besides: False)
    leaving = client_of()
    async with asked(hub, key="k") as (id, waiting):
        mine = Call(hub, leaving, "1", idempotency_key="k")
        again = asyncio.ensure_future(hub.commands.call(mine, "hub:ask", QUESTION))
        await until(lambda: len(hub.questions._awaited) == 2)
        leaving.gone = True
        mine.cancel()
        with pytest.raises(HubError, match="cancelled"):
            await again
        assert await call(hub, "hub:answer", question=id, answer="yes") == {"accepted": not weakened}
        if not weakened:
            assert (await waiting)["answer"] == "yes"


@pytest.mark.parametrize("bound", [True, False])
async def test_a_question_outlives_its_asker_unless_it_is_bound_to_it(hub: Hub, bound: bool, tmp_path: Path) -> None:
    client = Client("websocket", "127.0.0.1:1", UID)
    hub.clients.join(client)
    more = {"while": "connected"} if bound else {}
    async with asked(hub, by=client, **more) as (id, waiting):
        hub.clients.leave(client, "lost")
        if bound:
            with pytest.raises(HubError, match="withdrawn"):
                await waiting
        else:
            await call(hub, "hub:answer", question=id, answer="yes")
            assert (await waiting)["answer"] == "yes"
    assert ends(tmp_path, id) == [("withdrawn", None) if bound else ("answered", "yes")]


async def test_the_same_key_is_the_same_question(hub: Hub) -> None:
    async with asked(hub, key="k") as (id, waiting):
        again = asyncio.ensure_future(call(hub, "hub:ask", key="k", **QUESTION))
        error = await refused(hub, "invalid_args", "hub:ask", key="k", **{**QUESTION, "question": "Else?"})
        assert "idempotency_key" in error.message
        async with asked(hub, by=client_of(None), key="k") as (other, _):
            assert other != id  # of somebody else
        await call(hub, "hub:answer", question=id, answer="yes")
        assert await again == await waiting == await call(hub, "hub:ask", key="k", **QUESTION)


async def test_a_key_is_forgotten_with_time_and_when_the_question_is_withdrawn(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(hub, key="k") as (id, _):
        await call(hub, "hub:answer", question=id, answer="yes")
        monkeypatch.setattr(endings, "REPEATED", -1.0)
        async with asked(hub, key="k") as (again, waiting):
            assert again == id
            assert value(hub, id)["status"] == "open"
    monkeypatch.undo()
    client = Client("websocket", "127.0.0.1:1", UID)
    hub.clients.join(client)
    bound = {"by": client, "key": "b", "while": "connected"}
    async with asked(hub, **bound) as (id, waiting):
        hub.clients.leave(client, "lost")
        with pytest.raises(HubError, match="withdrawn"):
            await waiting
    with pytest.raises(HubError, match="has gone"):  # its call may have been on its way when it went
        await call(hub, "hub:ask", **{**QUESTION, **bound})
    async with asked(hub, key="b", **{"while": "connected", "by": client_of()}) as (again, _):
        assert again == id


async def test_python_code_asks(hub: Hub) -> None:
    asking = asyncio.ensure_future(hub.ask("Deploy?", ["yes", "no"], timeout=30, details={"n": 1}))
    await until(lambda: list(hub.questions.records()))
    (record,) = hub.questions.records()
    await call(hub, "hub:answer", question=record["id"], answer="no")
    assert await asking == (record["id"], "no", account(UID), False)


@pytest.mark.parametrize("key", [None, "k"])
async def test_python_code_that_is_cancelled_takes_back_what_nobody_can_hear(hub: Hub, key: str | None) -> None:
    asking = asyncio.ensure_future(hub.ask("Deploy?", ["yes", "no"], key=key))
    await until(lambda: list(hub.questions.records()))
    (record,) = hub.questions.records()
    asking.cancel()
    await asyncio.wait({asking})
    if key is None:
        await until(lambda: value(hub, record["id"])["status"] == "withdrawn")
    else:
        await call(hub, "hub:answer", question=record["id"], answer="no")
        assert (await hub.ask("Deploy?", ["yes", "no"], key=key)).answer == "no"
