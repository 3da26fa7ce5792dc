"""What a provider sends: its answers, and what is none and ends no call."""

import re
from pathlib import Path
from typing import Any

import pytest
from running import refused
from stores import passes
from workers import Visitor

from hub import Hub
from hub.commands.provided import Provider
from hub.wire import messages


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "response", "id": "ID", "payload": NaN}',
        '{"type": "response", "id": "ID", "payload": {"a": 1, "a": 2}}',
        '{"id": "ID", "payload": "\\ud800", "type": "response"}',
        '{"type": "error", "id": "ID", "payload": ' + "[" * 40 + "]" * 40 + "}",
        '{"type": "response", "id": "ID", "payload": {"text": "cut off',
        '{"jsonrpc": "2.0", "id": "ID", "result": 5}',
        '{"type": "result", "id": "ID", "payload": 5}',
        '{"id": "ID", "payload": 5}',
        '{"type": "response", "id": "ID", "result": 5}',
    ],
)
async def test_an_odd_answer_is_one_at_once(
    worker: Visitor, caller: Visitor, frame: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller would wait until the time of the call is over."""
    if weakened:
        for name in ("_unread", "_odd", "_answer"):
            monkeypatch.setattr(messages, name, lambda *args: None)
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, _, _ = await worker.request()
    worker.session.receive(frame.replace("ID", id))
    if weakened:
        await passes(50)
        assert "1" not in caller.answers
    else:
        error = refused(await caller.answer("1"), "command_failed")
        assert error["error"].startswith("The provider of a:b has answered with a frame that does not fit: ")
        assert worker.answers[id]["code"] in ("invalid_json", "invalid_message")


async def test_an_odd_frame_about_nothing_that_was_asked_ends_no_call(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, _, _ = await worker.request()
    for frame in (
        f'{{"type": "command", "id": "{id}", "payload": NaN}}',
        f'{{"type": "command", "id": "{id}", "payload": {{"command": 5}}}}',
        '{"type": "command", "payload": {"command": "hub:ping"}}',
        '{"type": "command", "payload": NaN}',
        '{"type": "event", "payload": {"event": "hub:progress", "data": NaN}}',
        '{"type": "event", "payload": {}}',
        '{"type": "response", "id": "call-99", "payload": NaN}',
        '{"type": "response", "id": "mine", "payload": NaN}',
    ):
        worker.session.receive(frame)
    worker.say(type="response", id=id, payload="well")
    assert await caller.answer("1") == "well"


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "frame",
    [
        "Hello, Ada!",
        "{'type': 'response', 'payload': 5}",
        "[5]",
        '{"greeting": "Hello"}',
        '{"type": "response", "payload": 5}',
        '{"type": "response", "id": 1, "payload": 5}',
        '{"type": "error", "id": null, "payload": {"error": "What?"}}',
        '{"type": "response", "payload": {"text": "cut off',
    ],
)
async def test_what_names_no_call_answers_the_only_one(
    worker: Visitor, caller: Visitor, frame: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the first program that somebody writes."""
    if weakened:
        monkeypatch.setattr(messages, "_nameless", lambda problem: None)
    await worker.provides("a:b")
    worker.session.receive(frame)  # nothing was asked
    for number in (1, 2):  # the second one, too
        caller.call("1", "a:b")
        id, _, _ = await worker.request(number)
        worker.session.receive(frame)
        if weakened:
            worker.say(type="response", id=id, payload="well")
            assert await caller.answer("1") == "well"
        else:
            error = refused(await caller.answer("1"), "command_failed")
            assert error["error"].startswith("The provider of a:b has answered with a frame that does not fit: ")
            assert worker.answers[None]["code"] in ("invalid_json", "invalid_message")


NAMELESS = '{"type": "error", "id": null, "payload": {"error": "unknown command hub:cancel"}}'


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("frame", [NAMELESS, "done 3"])
@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_where_it_can_be_of_another_it_ends_nobodys_call(
    hub: Hub,
    worker: Visitor,
    caller: Visitor,
    frame: str,
    is_cancelled: bool,
    weakened: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several calls nobody knows which is meant, nor whether what was cancelled is answered late."""
    if weakened:

        def only(self: Provider, answer: messages.Answer) -> bool:
            if answer.id is not None:
                return self._answered(answer, answer.id)
            return len(self._waiting) == 1 and self._answered(answer, next(iter(self._waiting)))

        monkeypatch.setattr(Provider, "answered", only)
    await worker.provides("a:b")
    other = Visitor(hub)
    caller.call("1", "a:b")
    id, _, _ = await worker.request()
    other.call("2", "a:b")
    another, _, _ = await worker.request(2)
    worker.session.receive(frame)
    if is_cancelled:
        other.leave()
        assert (await worker.request(3))[1] == "hub:cancel"
    else:
        worker.say(type="response", id=another, payload="first")
        assert await other.answer("2") == "first"
    worker.session.receive(frame)
    if not weakened:
        refused(await worker.answer(None), "unexpected_type" if frame is NAMELESS else "invalid_json")
    worker.say(type="response", id=id, payload="well")
    found = await caller.answer("1")
    assert found == "well" if not weakened else found["code"] == "command_failed"
    if is_cancelled and not weakened:  # it may come later still
        caller.call("1", "a:b")
        id, _, _ = await worker.request(4)
        worker.session.receive(frame)
        worker.say(type="response", id=id, payload="well")
        assert await caller.answer("1") == "well"


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "frame",
    [
        "",
        " ",
        "ping",
        "PONG\n",
        '"ping"',
        "keep-alive",
        "{}",
        '{"type": "ping"}',
        '{"type": "pong", "t": NaN}',
        "{'type': 'ping'}",
        '{"type": 6}',
        '{"type": "subscribe", "topics": ["*"]}',
        '{"event": "a:x", "data": {}}',
        '{"command": "hub:ping"}',
        '{"jsonrpc": "2.0", "method": "progress"}',
    ],
)
async def test_what_a_provider_sends_beside_its_answers_ends_no_call(
    worker: Visitor, caller: Visitor, frame: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own heartbeat, for one."""
    if weakened:
        nameless = messages._nameless("It does not fit.")
        for name in ("_odd", "_unread"):
            monkeypatch.setattr(messages, name, lambda *args: nameless)
        monkeypatch.setattr(messages, "_BEAT", re.compile("(?!)"))
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, _, _ = await worker.request()
    worker.session.receive(frame)
    assert worker.answers[None]["code"] in ("invalid_json", "invalid_message")
    worker.say(type="response", id=id, payload="well")
    found = await caller.answer("1")
    assert found == "well" if not weakened else found["code"] == "command_failed"


@pytest.mark.parametrize(
    ("payload", "sentence", "details"),
    [
        ({"error": "No such order.", "code": "command_failed"}, "No such order.", None),
        ({"error": "No.", "code": "command_failed", "details": {"order": ["gone"]}}, "No.", {"order": ["gone"]}),
        (
            {"error": "Ask ghp_abcdefghijklmnopqrst0123456789ABCDEF now.", "code": "command_failed"},
            "Ask [redacted] now.",
            None,
        ),
        ({"error": "Line\n  two.", "code": "command_failed"}, "Line two.", None),
        ({"error": "x" * 5000, "code": "command_failed"}, "x" * 1000 + "…", None),
        ({"error": "Go away.", "code": "forbidden"}, "The provider of a:b has failed (forbidden).", None),
        ({"error": "Go away.", "code": "Go away"}, "The provider of a:b has failed.", None),
        ({"error": " ", "code": "command_failed"}, "The provider of a:b has failed (command_failed).", None),
        ("nothing of the kind", "The provider of a:b has failed.", None),
    ],
)
async def test_its_refusal_is_never_more_than_command_failed(
    worker: Visitor, caller: Visitor, payload: Any, sentence: str, details: Any
) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    worker.say(type="error", id=id, payload=payload)
    answer = await caller.answer("1")
    assert (answer["code"], answer["error"]) == ("command_failed", sentence)
    assert answer.get("details") == details


async def test_an_answer_that_does_not_fit_fails_the_call_and_is_told(worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    worker.say(type="response", id=id, payload=1, more=2)
    refused(await caller.answer("1"), "command_failed")
    refused(await worker.answer(id), "invalid_message")


async def test_only_what_was_sent_to_it_can_be_answered(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    await worker.provides("a:b")
    other = Visitor(hub)
    await other.provides("a:c")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    for visitor in (other, caller):
        visitor.say(type="response", id=id, payload="forged")
        refused(await visitor.answer(id), "unexpected_type")
    for strange in ("call-0", "call-2", "call-01", "call-²", "1", "call-" + "1" * 50, "call--1"):
        worker.say(type="response", id=strange, payload="forged")
        refused(await worker.answer(strange), "unexpected_type")
    worker.say(type="response", id=id, payload="true")
    assert await caller.answer("1") == "true"
    worker.say(type="response", id=id, payload="twice")
    worker.say(type="error", id=id, payload={})
    assert await worker.ask("hub:ping")
    assert worker.answers == {}  # what comes too late is passed over


async def test_answers_are_no_flood(hub: Hub, tmp_path: Path) -> None:
    slow = Hub(port=0, state_dir=tmp_path / "slow", rate=1)
    await slow.start()
    worker, callers = Visitor(slow), [Visitor(slow) for _ in range(8)]
    await worker.provides("a:b")
    for caller in callers:
        caller.call("1", "a:b")
    await worker.request(8)
    for id, *_ in worker.asked:
        worker.say(type="response", id=id, payload=None)
    assert [await caller.answer("1") for caller in callers] == [None] * 8
    await slow.stop()


async def test_how_far_it_is_reaches_who_called_and_nobody_else(hub: Hub, worker: Visitor, caller: Visitor) -> None:
    other = Visitor(hub)
    await worker.provides("a:b")
    caller.call("1", "a:b")
    id, *_ = await worker.request()
    for n in range(3):
        worker.progress(id, n=n, token="x")
    worker.progress("call-2", n=9)  # which it was never sent
    worker.say(type="response", id=id, payload="done")
    worker.progress(id, n=10)  # too late
    assert await caller.answer("1") == "done"
    assert await worker.ask("hub:ping")
    assert caller.told == [{"call": "1", "n": n} for n in range(3)]
    assert other.told == worker.told == []
    assert refused(worker.answers.pop(None), "unexpected_type")
    assert worker.answers == {}
