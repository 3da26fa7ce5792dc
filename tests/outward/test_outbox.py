"""A channel that refuses a message, or fails: the others are told all the same, and it is told what is wrong."""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from clocks import SwiftLoop
from forks import PIPE, fork
from hypothesis import given
from hypothesis import strategies as st
from receivers import Receiver, receiver, write_config
from running import HubInside, environment, hub_app, until

from hub.configfile.shapes import Channel, Notify
from hub.outward import channels, outbox, pace
from hub.outward.channels import Failed, Refused
from hub.outward.outbox import PATIENCE, Outbox
from hub.outward.pace import MOST, WITHIN, as_one
from hub.outward.rules import Message

NTFY = """
[notify]
question_after = 0
retry_first = 0.05
[[notify.channel]]
name = "phone"
type = "ntfy"
url = "{}"
topic = "user-hub"
"""


def titles(got: Receiver) -> list[str]:
    return [one.json["title"] for one in got.got]


def is_asked(got: Receiver) -> bool:
    return any(title.endswith(" asks") for title in titles(got))


async def fail(hub: HubInside, id: str) -> None:
    await hub.hub.publish("task:progress", {"id": id, "status": "failed"})


def answering(got: Receiver, statuses: dict[str, int]) -> None:
    """Answer by what the title of a message begins with."""
    got.answer = lambda before: web.Response(status=statuses.get(titles(got)[-1].split()[0], 200))


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("status", [400, 403, 413])
async def test_what_is_refused_is_given_up_and_the_next_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(channels, "PASSING", range(400, 500))
    async with receiver() as got:
        answering(got, {"odd": status})
        write_config(tmp_path, NTFY.format(got.url))
        async with hub_app(tmp_path) as hub:
            for id in ("odd", "good"):
                await fail(hub, id)
            if weakened:
                await until(lambda: titles(got).count("odd failed") == 3)
                return
            await until(lambda: "good failed" in titles(got))
            assert titles(got) == ["odd failed", "good failed"]
            assert hub.counted("hub_notifications_total", "ntfy", "given_up") == 1
            said = f"The channel phone has not told 1 message, the last because the server answered {status}."
            assert (await hub.get("readyz")).json == {"status": "ok", "reasons": {"channel phone": said}}
            assert said in (await hub.get("", panel="hub")).text


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_question_is_told_while_an_old_message_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:  # as a channel is that tells one after the other
        monkeypatch.setattr(Outbox, "_heads", lambda self: iter(self.waiting[:1]))
    async with receiver() as got:
        answering(got, {"old": 503})
        write_config(tmp_path, NTFY.format(got.url))
        async with hub_app(tmp_path) as hub:
            await fail(hub, "old")
            await until(lambda: got.got)
            asked = asyncio.create_task(hub.hub.ask("Deploy?", ["yes"]))
            await until(lambda: is_asked(got) or len(got.got) == 4)
            asked.cancel()
            assert is_asked(got) is not weakened


async def test_a_command_that_fails_on_one_message_tells_the_others(tmp_path: Path) -> None:
    code = "import json, sys; sys.exit(json.load(sys.stdin)['title'] == 'odd failed')"
    argv = json.dumps([sys.executable, "-c", code])
    text = f'[notify]\nretry_first = 0.05\n[[notify.channel]]\nname = "c"\ntype = "command"\nargv = {argv}\n'
    write_config(tmp_path, text)
    async with hub_app(tmp_path) as hub:
        for id in ("odd", "a", "b"):
            await fail(hub, id)
        await until(lambda: hub.counted("hub_notifications_total", "command", "sent") == 2)
        assert hub.counted("hub_notifications_total", "command", "failed") >= 1
        assert hub.counted("hub_notifications_total", "command", "given_up") == 0
        assert [message.title for message in hub.hub.outward.notifier._boxes[0].waiting] == ["odd failed"]


async def examined(hub: HubInside) -> dict[str, str]:
    """What `hub doctor` finds to be wrong."""
    process = await fork("doctor", "--url", hub.url, stdout=PIPE, stderr=PIPE, env=environment())
    found = [json.loads(line) for line in (await process.communicate())[0].splitlines()]
    return {finding["check"]: finding["text"] for finding in found if not finding["ok"]}


async def test_what_fails_is_told_while_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By /readyz, which stays 200, on the page, and by `hub doctor`; channels and webhooks alike."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with receiver(lambda before: web.Response(status=503)) as got:
        hook = f'[[webhook]]\nname = "ci"\nurl = "{got.url}"\nretry_first = 0.05\n'
        write_config(tmp_path, NTFY.format(got.url) + hook)
        async with hub_app(tmp_path) as hub:
            assert (await hub.get("readyz")).json == {"status": "ok", "reasons": {}}
            await fail(hub, "a")
            await until(lambda: len(hub.hub.problems()) == 2)
            reasons = {
                "channel phone": "The channel phone fails: the server answered 503; it is tried again.",
                "webhook ci": "The webhook ci is failing: The receiver answered 503.",
            }
            ready = await hub.get("readyz")
            assert (ready.status, ready.json) == (200, {"status": "ok", "reasons": reasons})
            page = (await hub.get("", panel="hub")).text
            assert all(reason in page for reason in reasons.values())
            found = await examined(hub)
            assert found.keys() >= reasons.keys()
            assert all(found[part].startswith(reason) for part, reason in reasons.items())
            assert "ready" not in found
            got.answer = lambda before: web.Response()
            await until(lambda: not hub.hub.problems())


async def test_a_channel_that_wants_to_be_left_alone_is(tmp_path: Path) -> None:
    came: list[float] = []

    def busy(before: int) -> web.Response:
        came.append(time.monotonic())
        return web.Response(status=200 if before else 429, headers={"retry-after": "1"})

    async with receiver(busy) as got:
        write_config(tmp_path, NTFY.format(got.url))
        async with hub_app(tmp_path) as hub:
            await fail(hub, "a")
            await fail(hub, "b")
            await until(lambda: len(came) == 3)
            assert came[1] - came[0] >= 1


async def test_together_refused_they_are_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WITHIN", 0.2)
    async with receiver() as got:
        answering(got, {"7": 400, "t3": 400})
        write_config(tmp_path, NTFY.format(got.url))
        async with hub_app(tmp_path) as hub:
            for n in range(MOST + 7):
                await fail(hub, f"t{n}")
            [box] = hub.hub.outward.notifier._boxes
            await until(lambda: len(box.told) == MOST + 7)
            assert hub.counted("hub_notifications_total", "ntfy", "given_up") == 1
            assert titles(got).count("7 more messages") == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_gathers_begins_with_the_questions_in_their_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    monkeypatch.setattr(pace, "WITHIN", 2.0)
    if weakened:
        monkeypatch.setattr(pace, "is_told", lambda message: True)
        monkeypatch.setattr(outbox, "is_told", lambda message: True)
    async with receiver() as got:
        write_config(tmp_path, NTFY.format(got.url))
        async with hub_app(tmp_path) as hub:
            for n in range(8):
                await fail(hub, f"t{n}")
            await until(lambda: len(got.got) == MOST)
            asked = asyncio.create_task(hub.hub.ask("Deploy to production?", ["yes"]))
            await until(lambda: len(got.got) == MOST + 1)
            asked.cancel()
            said = got.got[-1].json
            assert said["title"] == "4 more messages"
            assert ("Deploy to production?; t5 failed; " in said["message"]) is not weakened


def test_a_channel_gets_few_one_by_one() -> None:
    """Five in ten seconds, whatever they are of; the rest as one, the questions first."""
    came = [(0.0, message(n, f"s{n}", is_question=n % 2 == 0)) for n in range(16)]
    told = [(at, numbers) for at, numbers, _ in played([0] * 16, came, 60.0).tries]
    assert [numbers for at, numbers in told if at < WITHIN] == [[0], [1], [2], [3], [4]]
    assert [numbers for at, numbers in told if at >= WITHIN] == [[6, 8, 10, 12, 14, 5, 7, 9, 11, 13, 15]]


def test_questions_keep_their_words() -> None:
    batch = [message(n, "s", is_question=True) for n in range(12)]
    batch = [replace(one, title="ada asks", message=f"Question {one.id}{'?' * 300}") for one in batch]
    said = as_one(batch, 0, lambda one: {"title": one.title, "click": "http://hub/#q-0"})
    assert (said["title"], said["click"]) == ("12 more questions", "http://hub/")
    for n in range(10):
        assert f"ada asks: Question {n}??" in said["message"]
    assert said["message"].endswith("…; and 2 more")
    assert len(said["message"]) < 2000


# ---- in any order, with the time that goes by at once


def message(number: int, subject: str, *, is_question: bool) -> Message:
    rule = "question" if is_question else "orders"
    return Message(
        id=str(number), seq=number, rule=rule, title="t", message="m", priority=3, subject=(subject,), event={}, size=10
    )  # fmt: skip


class Played:
    """A channel, and what became of each try. `moods`: of each message how often it fails, -1 if it is refused."""

    def __init__(self, moods: list[int]) -> None:
        self.moods = moods
        self.tries = list[tuple[float, list[int], bool]]()  # when, of which messages, whether they got through
        self.outcomes = defaultdict[str, int](int)
        self.box = Outbox(
            Channel(name="c", type="ntfy"), Notify(retry_first=1.0), lambda message: True, [],
            lambda message: {}, mock.Mock(), self._count,
        )  # fmt: skip

    def _count(self, type: str, outcome: str) -> None:
        self.outcomes[outcome] += 1

    async def send(self, channel: Channel, words: Any, post: Any) -> None:
        numbers = words["ids"]
        moods = [self.moods[number] for number in numbers]
        if all(mood == 0 for mood in moods):
            self.tries.append((asyncio.get_running_loop().time(), numbers, True))
            return
        self.tries.append((asyncio.get_running_loop().time(), numbers, False))
        for number in numbers:
            self.moods[number] -= self.moods[number] > 0
        raise (Refused if -1 in moods else Failed)("no")

    def told(self) -> dict[int, float]:
        """When each message was told. Each is once."""
        found: dict[int, float] = {}
        for at, numbers, is_through in self.tries:
            for number in numbers if is_through else ():
                assert number not in found, "told twice"
                found[number] = at
        return found

    async def play(self, came: list[tuple[float, Message]], seconds: float) -> None:
        running = asyncio.create_task(self.box.run())
        for at, one in came:
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            self.box.put(one)
        await asyncio.sleep(seconds)
        running.cancel()


def played(moods: list[int], came: list[tuple[float, Message]], seconds: float) -> Played:
    """What becomes of these messages until so many seconds behind the last."""
    with asyncio.Runner(loop_factory=SwiftLoop) as runner:
        loop = runner.get_loop()
        clock = SimpleNamespace(monotonic=loop.time)

        def one(self: Outbox, batch: Any) -> dict[str, Any]:
            return {"ids": [int(message.id) for message in batch]}

        found = Played(list(moods))
        with (
            mock.patch.object(outbox, "time", clock),
            mock.patch.object(channels, "send", found.send),
            mock.patch.object(Outbox, "_one", one),
        ):
            runner.run(found.play(came, seconds))
    return found


CAME = st.lists(
    st.tuples(st.floats(0, 20), st.sampled_from("abc"), st.booleans(), st.sampled_from([0, 0, 0, 1, 3, 8, -1])),
    min_size=1,
    max_size=12,
)


def _in_order(came: list[tuple[float, str, bool, int]]) -> Iterator[tuple[float, Message]]:
    at = 0.0
    for number, (later, subject, is_question, _) in enumerate(came):
        at += later
        yield at, message(number, subject, is_question=is_question)


@given(CAME)
def test_every_message_is_told_once_in_the_order_of_its_subject_or_given_up(
    came: list[tuple[float, str, bool, int]],
) -> None:
    moods, given_messages = [mood for *_, mood in came], list(_in_order(came))
    found = played(moods, given_messages, 12 * 3600.0)
    told = found.told()
    refused = {number for number, mood in enumerate(moods) if mood == -1}
    assert told.keys() == set(range(len(came))) - refused
    assert found.outcomes["given_up"] == len(refused)
    assert not found.box.waiting
    assert found.box._held == 0
    assert not found.box._repeats
    assert not found.box._failing
    for subject in "abc":
        times = [told[number] for number in sorted(told) if came[number][1] == subject]
        assert sorted(times) == times, "those about the same thing, in their order"
    for is_question in (False, True):
        starts = [at for at, numbers, _ in found.tries if came[numbers[0]][2] is is_question]
        assert all(later - first > WITHIN - 0.001 for first, later in zip(starts, starts[MOST:], strict=False))


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), min_size=1, max_size=20), st.data())
def test_nothing_waits_for_long_behind_what_fails(came: list[tuple[float, bool]], data: st.DataObject) -> None:
    """Whatever fails for ever: a message that does not is told soon."""
    moods = [data.draw(st.sampled_from([0, 10**6])) for _ in came]
    given_messages = list(_in_order([(later, f"s{number}", False, 0) for number, (later, _) in enumerate(came)]))
    found = played(moods, given_messages, 3600.0)
    for number, at in found.told().items():
        assert at - given_messages[number][0] <= 90.0
    assert found.told().keys() == {number for number, mood in enumerate(moods) if not mood}


def test_weakened_they_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "_heads", lambda self: iter(self.waiting[:1]))
    found = played([10**6, 0], list(_in_order([(0, "a", False, 0), (0, "b", False, 0)])), 3600.0)
    assert found.told() == {}


def test_what_fails_for_a_day_is_given_up() -> None:
    found = played([10**6], [(0.0, message(0, "a", is_question=False))], 2 * PATIENCE)
    assert found.outcomes["given_up"] == 1
    assert len(found.tries) == pytest.approx(PATIENCE / 300, rel=0.05)
    assert not found.box.waiting


def test_who_waits_for_an_answer_comes_first() -> None:
    """Behind an outage, too: then the others are told as one."""
    came = [(0.0, message(n, f"s{n}", is_question=n == 9)) for n in range(10)]
    found = played([3] * 10, came, 3600.0)
    through = [numbers for _, numbers, is_through in found.tries if is_through]
    assert through[0] == [9]
    assert len(found.told()) == 10
