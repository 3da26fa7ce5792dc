"""Repeating: a call with an idempotency key runs once, whatever becomes of it, and is told what is known."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from running import until
from shops import SECRET, Shop, a_call, running, say

from hub.commands import idempotency, supervised
from hub.commands.call import Call
from hub.commands.idempotency import Idempotency, Turn
from hub.commands.registry import Registry
from hub.errors import CODES, CommandError, HubError
from hub.hub import Hub
from hub.stats import snapshot
from hub.stream.brokers.answers import MemoryAnswers
from hub.stream.brokers.broker import Answers, Past, unavailable


@pytest.fixture
async def hub(tmp_path: Path, shop: Shop) -> AsyncIterator[Hub]:
    async with running(tmp_path, shop) as found:
        yield found


def code(answer: Any) -> str:
    return str(answer[0])


def is_unknown(answer: Any, told: str = "command_failed") -> bool:
    return code(answer) == told and answer[2] == {"unknown": True}


async def noted(hub: Hub, action: str, count: int) -> list[Any]:
    """The details of so many records, once they are there: nobody waits for a note."""
    while True:
        found = [record["details"] for record in await hub.audit.tail(1000) if record["action"] == action]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("broker", ["sqlite:", "memory:"])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_repeat_gets_the_answer_and_runs_nothing(
    tmp_path: Path, shop: Shop, broker: str, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr("hub.commands.registry._is_repeatable", lambda call, command: False)
    async with running(tmp_path, shop, broker=broker) as hub:
        answers = [await say(hub, "buy", what="tea") for _ in range(3)]
    assert [answer["order"] for answer in answers] == ([1, 2, 3] if weakened else [1, 1, 1])


async def test_what_a_handler_refuses_with_is_its_answer(hub: Hub, shop: Shop) -> None:
    for name in ("refuse", "bug", "large"):
        call = a_call(hub, name)
        first = await say(hub, name, call)
        assert code(first) in ("command_failed", "internal", "too_large")
        assert await say(hub, name, a_call(hub, name)) == first  # of a bug: with the reference that the log has
        assert shop.runs[name] == 1


@pytest.mark.parametrize("refusal", ["busy", "rate_limited"])
async def test_who_was_busy_has_done_nothing(hub: Hub, shop: Shop, refusal: Any) -> None:
    shop.raises = HubError(refusal, "Too much to do.")
    assert code(await say(hub, "refuse")) == refusal
    shop.raises = None
    assert (await say(hub, "refuse"))[2] == {"run": 2}
    assert (await say(hub, "refuse"))[2] == {"run": 2}


def test_no_answer_that_says_come_again_is_kept() -> None:
    retryable = {code for code, meaning in CODES.items() if meaning.retryable}
    assert retryable == (idempotency.UNKNOWN | idempotency.UNDONE) - {"cancelled"}


@pytest.mark.parametrize("ended", sorted(idempotency.UNKNOWN))
@pytest.mark.parametrize("weakened", [False, True])
async def test_what_says_that_nobody_knows_is_told_as_unknown(
    hub: Hub, shop: Shop, ended: Any, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """To who called, too: the same call is not run again, so nothing says that it can help."""
    if weakened:
        monkeypatch.setattr(Turn, "told", lambda self, error: error)
    shop.raises = HubError(ended, "Gone.", retry_after=1)
    with pytest.raises(HubError) as told:
        await hub.commands.call(a_call(hub), "shop:refuse", {})
    assert (told.value.code, told.value.retryable) == (ended, weakened and ended != "cancelled")
    assert (told.value.details == {"unknown": True}, told.value.retry_after) == (not weakened, 1 if weakened else None)
    if not weakened:
        assert is_unknown(await say(hub, "refuse"), "provider_gone" if ended == "provider_gone" else "command_failed")
    assert shop.runs["refuse"] == 1


async def test_a_key_is_for_one_call(hub: Hub, shop: Shop) -> None:
    first = await say(hub, "buy", what="tea")
    others: Any = (("buy", {"what": "milk"}), ("drop", {}), ("wait", {}), ("refuse", {"what": "tea"}))
    for name, args in others:
        answer = await say(hub, name, **args)
        assert (code(answer), answer[2].keys()) == ("invalid_args", {"idempotency_key"})
    assert await say(hub, "buy", what="tea") == first
    assert shop.runs == {"buy": 1}
    assert [each["outcome"] for each in await noted(hub, "command.refused", 4)] == ["invalid_args"] * 4


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_key_of_a_command_that_minds_it_itself_is_of_no_other_either(
    hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Idempotency, "claim", lambda *args: asyncio.sleep(0))
    bought = await say(hub, "buy", what="tea")
    for _ in range(2):
        await hub.commands.call(a_call(hub, "own"), "hub:alone", {"any": "args"})
    bought_by_own = await say(hub, "buy", a_call(hub, "own"), what="tea")
    if weakened:
        assert bought_by_own["order"] == 2
        assert await hub.commands.call(a_call(hub), "hub:alone", {})
        return
    assert (code(bought_by_own), bought_by_own[2].keys()) == ("invalid_args", {"idempotency_key"})
    with pytest.raises(HubError) as refused:
        await hub.commands.call(a_call(hub), "hub:alone", {})
    assert refused.value.code == "invalid_args"
    assert await say(hub, "buy", what="tea") == bought
    assert shop.runs == {"buy": 1, "alone": 2}


async def test_a_key_is_one_accounts(hub: Hub, shop: Shop) -> None:
    assert [(await say(hub, "buy", a_call(hub, uid=uid), what="tea"))["order"] for uid in (1, 2, 1)] == [1, 2, 1]
    assert [(await say(hub, "buy", a_call(hub, key), what="tea"))["order"] for key in "aba"] == [3, 4, 3]


async def test_what_runs_each_time(hub: Hub, shop: Shop) -> None:
    assert [(await say(hub, "buy", a_call(hub, None), what="tea"))["order"] for _ in range(2)] == [1, 2]
    assert [await say(hub, "look") for _ in range(2)] == [1, 2]
    for number in (1, 2):
        assert await hub.commands.call(a_call(hub), "hub:alone", {}) == b"%d" % number


async def test_an_event_is_published_once(hub: Hub) -> None:
    answers = [await hub.commands.call(a_call(hub), "hub:publish", {"event": "a:b", "data": 1}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert hub.cursor.seq == 1


# ---- side by side


async def test_who_comes_while_it_runs_waits(hub: Hub, shop: Shop) -> None:
    tasks = [asyncio.create_task(say(hub, "wait")) for _ in range(5)]
    await until(lambda: shop.runs["wait"])
    assert code(await say(hub, "wait", other=1)) == "invalid_args"
    assert code(await say(hub, "buy", what="tea")) == "invalid_args"
    assert not any(task.done() for task in tasks)
    shop.gate.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert shop.runs == {"wait": 1}
    assert [each["outcome"] for each in await noted(hub, "command.repeated", 4)] == ["ok"] * 4


async def test_who_waits_can_be_cancelled_and_the_call_goes_on(hub: Hub, shop: Shop) -> None:
    first = asyncio.create_task(say(hub, "wait"))
    await until(lambda: shop.runs["wait"])
    waits = a_call(hub)
    second, third = asyncio.create_task(say(hub, "wait", waits)), asyncio.create_task(say(hub, "wait"))
    await until(lambda: waits._work)
    assert waits.cancel()
    assert code(await second) == "cancelled"
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    shop.gate.set()
    assert await first == 1
    assert await say(hub, "wait") == 1


async def test_who_waits_hears_at_once_that_nobody_knows(hub: Hub, shop: Shop) -> None:
    runs = a_call(hub)
    first = asyncio.create_task(say(hub, "wait", runs))
    await until(lambda: shop.runs["wait"])
    second = asyncio.create_task(say(hub, "wait"))
    await asyncio.sleep(0)
    assert runs.cancel()
    assert code(await first) == "cancelled"
    assert is_unknown(await second)
    assert shop.runs["wait"] == 1


async def test_a_stop_ends_who_waits(tmp_path: Path, shop: Shop) -> None:
    async with running(tmp_path, shop, stop_timeout=0.05) as hub:
        first = asyncio.create_task(say(hub, "wait"))
        await until(lambda: shop.runs["wait"])
        second = asyncio.create_task(say(hub, "wait"))
    assert code(await first) == "shutting_down"
    assert code(await second) == "shutting_down" or is_unknown(await second)
    async with running(tmp_path, shop) as hub:
        assert is_unknown(await say(hub, "wait"))
    assert shop.runs["wait"] == 1


# ---- what is not known


async def test_a_call_over_its_time(tmp_path: Path, shop: Shop) -> None:
    async with running(tmp_path, shop, call_timeout=0.1) as hub:
        assert code(await say(hub, "wait")) == "timeout"
        assert is_unknown(await say(hub, "wait"))
    assert shop.runs["wait"] == 1


async def test_a_call_that_was_given_up(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "GRACE", 0.05)
    async with running(tmp_path, shop, call_timeout=0.1) as hub:
        assert code(await say(hub, "stubborn")) == "timeout"
        assert is_unknown(await say(hub, "stubborn"))
        shop.gate.set()
    assert shop.runs["stubborn"] == 1


async def test_whoever_called_is_cancelled(hub: Hub, shop: Shop) -> None:
    task = asyncio.create_task(say(hub, "wait"))
    await until(lambda: shop.runs["wait"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_unknown(await say(hub, "wait"))
    assert shop.runs["wait"] == 1


# ---- over a restart


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_is_there_after_a_restart(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Hub, "start", forgetful(Hub.start))
    for life in (1, 2):
        async with running(tmp_path, shop) as hub:
            assert (await say(hub, "buy", what="tea"))["order"] == (life if weakened else 1)
            assert (await say(hub, "refuse", a_call(hub, "r")))[2] == {"run": life if weakened else 1}
    assert shop.runs == ({"buy": 2, "refuse": 2} if weakened else {"buy": 1, "refuse": 1})


def forgetful(start: Callable[[Hub], Any]) -> Callable[[Hub], Any]:
    async def begin(hub: Hub) -> None:
        hub.commands._repeats.answers = MemoryAnswers()
        await start(hub)

    return begin


# ---- while its provider is away


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_was_answered_is_told_also_while_nobody_provides_the_command(
    hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """So it is known whether it has run; what has not, runs when somebody provides it again."""

    def unknown(registry: Registry, call: Call, name: str) -> Any:
        raise registry._unknown(name)

    if weakened:
        monkeypatch.setattr(Registry, "_absent", unknown)
    shop.raises = HubError("provider_gone", "Gone.")
    commands = {name: hub.commands._commands.pop(f"shop:{name}") for name in ("buy", "refuse")}
    provided = {command.name: command for command in commands.values()}
    with monkeypatch.context() as patch:
        patch.setattr(hub.commands, "provided", provided)
        bought = await say(hub, "buy", what="tea")
        assert code(await say(hub, "refuse", a_call(hub, "r"))) == "provider_gone"
    again, refused = await say(hub, "buy", what="tea"), await say(hub, "refuse", a_call(hub, "r"))
    if weakened:
        assert (code(again), code(refused)) == ("unknown_command", "unknown_command")
        return
    assert (again, is_unknown(refused, "provider_gone")) == (bought, True)
    assert code(await say(hub, "buy", what="milk")) == "invalid_args"
    for other in (a_call(hub, None), a_call(hub, "new"), a_call(hub, uid=7)):
        assert code(await say(hub, "buy", other, what="tea")) == "unknown_command"
    looks_on = a_call(hub)
    looks_on.client.trust = "OBSERVER"
    assert code(await say(hub, "buy", looks_on, what="tea")) == "unknown_command"
    monkeypatch.setattr(hub.commands, "provided", provided)
    assert (await say(hub, "buy", a_call(hub, "new"), what="tea"))["order"] == 2
    assert shop.runs == {"buy": 2, "refuse": 1}


# ---- before it runs


async def test_a_refusal_before_it_ran_is_not_its_answer(hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code(await say(hub, "nothing")) == "unknown_command"
    assert code(await say(hub, "buy")) == "invalid_args"

    async def away(*args: Any) -> None:
        raise HubError("audit_unavailable", "Away.")

    with monkeypatch.context() as patch:
        patch.setattr(hub.audit, "record", away)
        assert code(await say(hub, "buy", what="tea")) == "audit_unavailable"
    assert (await say(hub, "buy", what="tea"))["order"] == 1


async def test_a_call_that_was_cancelled_before_it_ran(hub: Hub, shop: Shop) -> None:
    call = a_call(hub)
    task = asyncio.create_task(say(hub, "buy", call, what="tea"))
    while not call._open:  # its beginning is being recorded
        await asyncio.sleep(0)
    assert call.cancel()
    assert code(await task) == "cancelled"
    assert shop.runs["buy"] == 0
    assert (await say(hub, "buy", what="tea"))["order"] == 1


async def test_a_stop_takes_no_more(hub: Hub, shop: Shop) -> None:
    hub.commands.stopping = True
    assert code(await say(hub, "buy", what="tea")) == "shutting_down"
    hub.commands.stopping = False
    assert (await say(hub, "buy", what="tea"))["order"] == 1


async def test_a_dangerous_call_is_confirmed_once_and_its_repeat_needs_nothing(hub: Hub, shop: Shop) -> None:
    refused = await say(hub, "drop")
    assert code(refused) == "confirmation_required"
    confirm = refused[2]["confirm"]
    assert await say(hub, "drop", a_call(hub, confirm=confirm)) == 1
    assert await say(hub, "drop", a_call(hub, confirm=confirm)) == 1  # sent again as it was
    assert await say(hub, "drop") == 1
    assert code(await say(hub, "drop", a_call(hub, "another", confirm=confirm))) == "confirmation_required"
    assert shop.runs["drop"] == 1
    assert [each["outcome"] for each in await noted(hub, "command.refused", 2)] == ["confirmation_required"] * 2


# ---- the store


class Shaky:
    """Answers that fail when the test says so: at every `remember` of which `fails(answer)` is true."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.kept = answers, True
        self.fails: Callable[[bytes | None], bool] = lambda answer: False

    async def recall(self, place: bytes) -> Past | None:
        await asyncio.sleep(0)
        return await self.answers.recall(place)

    async def told(self, place: bytes) -> bytes | None:
        await asyncio.sleep(0)
        return await self.answers.told(place)

    async def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        await asyncio.sleep(0)
        if not self.fails(answer):
            await self.answers.remember(place, what, answer)
        else:
            if self.kept:  # and yet it is there
                await self.answers.remember(place, what, answer)
            raise unavailable("Away.")
        await asyncio.sleep(0)


@pytest.fixture
def shaky(hub: Hub) -> Shaky:
    found = Shaky(hub.commands._repeats.answers)
    hub.commands._repeats.answers = found
    return found


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_with_the_store_away_nothing_runs(
    hub: Hub, shop: Shop, shaky: Shaky, kept: bool, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Whether or not what the store refused has come through: it did not run, and so runs later."""
    if weakened:
        monkeypatch.setattr(Idempotency, "unbegun", lambda self, place: None)
    shaky.fails, shaky.kept = (lambda answer: answer is None), kept
    assert code(await say(hub, "buy", what="tea")) == "broker_unavailable"
    assert shop.runs["buy"] == 0
    shaky.fails = lambda answer: False
    answer = await say(hub, "buy", what="tea")
    if kept and weakened:
        assert is_unknown(answer)
        return
    assert (answer["order"], shop.runs["buy"]) == (1, 1)
    assert not hub.commands._repeats._unbegun


async def test_what_cannot_be_kept_is_answered_and_unknown_to_a_repeat(hub: Hub, shop: Shop, shaky: Shaky) -> None:
    shaky.fails, shaky.kept = (lambda answer: answer is not None), False
    assert (await say(hub, "buy", what="tea"))["order"] == 1
    assert is_unknown(await say(hub, "buy", what="tea"))
    assert shop.runs["buy"] == 1


async def test_an_answer_that_is_not_kept_any_more(
    hub: Hub, shop: Shop, shaky: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(hub, "buy", what="tea")

    async def gone(place: bytes) -> None:
        return None

    monkeypatch.setattr(shaky, "told", gone)
    answer = await say(hub, "buy", what="tea")
    assert is_unknown(answer)
    assert answer[1] == "This call has run, and its answer is not kept any more."


async def test_a_store_that_cannot_be_read(hub: Hub, shop: Shop, shaky: Shaky, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(place: bytes) -> None:
        raise unavailable("Away.")

    async def broken(place: bytes) -> None:
        raise ZeroDivisionError

    for recall, refusal in ((away, "broker_unavailable"), (broken, "internal")):
        with monkeypatch.context() as patch:
            patch.setattr(shaky, "recall", recall)
            assert code(await say(hub, "buy", what="tea")) == refusal
    assert (await say(hub, "buy", what="tea"))["order"] == 1
    assert not hub.commands.running
    assert not hub.commands._repeats._running


async def test_what_is_remembered_of_the_unbegun_is_bounded(
    hub: Hub, shaky: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_UNBEGUN", 3)
    shaky.fails = lambda answer: True
    for number in range(5):
        assert code(await say(hub, "buy", a_call(hub, str(number)), what="tea")) == "broker_unavailable"
    assert len(hub.commands._repeats._unbegun) == 3
    shaky.fails = lambda answer: False
    assert is_unknown(await say(hub, "buy", a_call(hub, "0"), what="tea"))
    assert (await say(hub, "buy", a_call(hub, "4"), what="tea"))["order"] == 1


async def test_a_store_that_is_moved_away_and_put_back(
    tmp_path: Path, hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered is known all the time; what is new does not run until it can be kept."""
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    file, away = tmp_path / "events.sqlite", tmp_path / "away"
    assert (await say(hub, "buy", what="tea"))["order"] == 1
    file.rename(away)
    await until(lambda: hub.broker.problem)
    assert (await say(hub, "buy", what="tea"))["order"] == 1
    assert code(await say(hub, "buy", a_call(hub, "new"), what="tea")) == "broker_unavailable"
    assert shop.runs["buy"] == 1
    away.rename(file)
    await until(lambda: not hub.broker.problem)
    assert (await say(hub, "buy", a_call(hub, "new"), what="tea"))["order"] == 2
    assert (await say(hub, "buy", what="tea"))["order"] == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_no_secret_no_key_and_no_args_are_in_the_store(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(idempotency, "redact_each", mock.AsyncMock(side_effect=lambda values, apart: (values, 0)))
    async with running(tmp_path, shop) as hub:
        first = await say(hub, "secret", a_call(hub, "the-key"), where="in-the-args")
        again = await say(hub, "secret", a_call(hub, "the-key"), where="in-the-args")
        assert SECRET in first["note"]
        assert (SECRET in again["note"]) is weakened
        assert again["n"] == 1
    kept = (tmp_path / "events.sqlite").read_bytes()
    assert (SECRET.encode() in kept) is weakened
    assert b"the-key" not in kept
    assert b"in-the-args" not in kept


# ---- on record


async def test_a_repeat_is_on_record_and_counted(hub: Hub, shop: Shop) -> None:
    for _ in range(3):
        await say(hub, "buy", what="tea")
        await say(hub, "refuse", a_call(hub, "r"))
    assert [each["outcome"] for each in await noted(hub, "command.repeated", 4)] == ["ok", "command_failed"] * 2
    assert len(await noted(hub, "command.called", 2)) == len(await noted(hub, "command.finished", 2)) == 2
    counted = snapshot(hub.metrics.registry)["hub_commands_total"]
    assert (counted["shop:buy"]["ok"], counted["shop:refuse"]["command_failed"]) == (3, 3)
    assert hub.commands.running == hub.commands._unsettled == set()


async def test_an_end_that_is_not_on_record_is_not_told_as_done(
    hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has run, and is not run again: the repeat has what it would have been answered."""

    async def away(action: str, *args: Any) -> None:
        if action == "command.finished":
            raise HubError("audit_unavailable", "Away.")

    with monkeypatch.context() as patch:
        patch.setattr(hub.audit, "record", away)
        assert code(await say(hub, "buy", what="tea")) == "audit_unavailable"
    assert (await say(hub, "buy", what="tea"))["order"] == 1
    assert shop.runs["buy"] == 1


# ---- in any order


class Schedule:
    """Calls with few keys, some cancelled at any moment, over a store that is sometimes away."""

    def __init__(self, seed: int, hub: Hub, shaky: Shaky) -> None:
        self.draw, self.hub = random.Random(seed), hub
        self.started: Counter[str] = Counter()
        self.answers: dict[str, list[Any]] = {}
        shaky.fails = lambda answer: self.draw.random() < 0.15

    async def handler(self, call: Call) -> Any:
        assert call.idempotency_key
        self.started[call.idempotency_key] += 1
        number = self.started[call.idempotency_key]
        for _ in range(self.draw.randint(0, 4)):
            await asyncio.sleep(self.draw.choice([0, 0, 0.002]))
        if self.draw.random() < 0.2:
            raise CommandError("No.", {"run": number})
        return {"run": number}

    async def caller(self, call: Call) -> None:
        assert call.idempotency_key
        try:
            answer = json.loads(await self.hub.commands.call(call, "a:run", {}))
        except HubError as error:
            answer = error
        self.answers.setdefault(call.idempotency_key, []).append(answer)

    async def meddle(self, task: asyncio.Task[None], call: Call) -> None:
        """Wait for any moment, then cancel the call, or its caller twice, or nothing."""
        for _ in range(self.draw.randint(0, 8)):
            await asyncio.sleep(self.draw.choice([0, 0, 0, 0.001, 0.003]))
        match self.draw.randrange(4):
            case 0:
                call.cancel()
            case 1:
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()

    async def run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        for _ in range(60):
            call = a_call(self.hub, self.draw.choice("abcdefgh"))
            task = asyncio.create_task(self.caller(call))
            tasks += [task, asyncio.create_task(self.meddle(task, call))]
            for _ in range(self.draw.randint(0, 12)):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """No handler has begun twice, and all who were answered were answered the same."""
        assert max(self.started.values()) == 1
        for key, answers in self.answers.items():
            for answer in answers:
                if isinstance(answer, HubError) and answer.code == "command_failed":
                    assert answer.details in ({"run": 1}, {"unknown": True})
                elif isinstance(answer, HubError):
                    assert answer.code in ("cancelled", "broker_unavailable")
                else:
                    assert answer == {"run": 1}, key
        assert not self.hub.commands._repeats._running
        assert not self.hub.commands.running


async def play(seed: int, directory: Path) -> None:
    hub = Hub(state_dir=directory, broker="memory:")
    shaky = Shaky(hub.commands._repeats.answers)
    hub.commands._repeats.answers = shaky
    schedule = Schedule(seed, hub, shaky)
    hub.command("a:run")(schedule.handler)
    await hub.start()
    try:
        await schedule.run()
    finally:
        await hub.stop()
    schedule.check()


@pytest.mark.parametrize("seed", range(25))
async def test_in_any_order_it_runs_once(seed: int, tmp_path: Path) -> None:
    await play(seed, tmp_path)


async def no_wait(turn: Turn, what: bytes) -> None:
    await asyncio.sleep(0)
    turn._calls._running.clear()


async def no_begin(turn: Turn) -> None:
    turn.begun = True


async def no_keeping(turn: Turn, answer: Any) -> None:
    turn._calls.unbegun(turn._place)


def no_leaving(calls: Idempotency, place: bytes) -> None:
    calls._running.pop(place, None)


@pytest.mark.parametrize(("name", "off"), [("wait", no_wait), ("begin", no_begin), ("end", no_keeping)])
async def test_weakened_some_call_runs_twice(
    name: str, off: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for who runs; nothing says that it has begun; what was answered is taken for not begun."""
    monkeypatch.setattr(Turn, name, off)
    monkeypatch.setattr(Idempotency, "left", no_leaving)
    for seed in range(100):
        try:
            await play(seed, tmp_path / str(seed))
        except AssertionError:
            return
    raise AssertionError("nobody has noticed")
