"""Providing, taking back, calling, answering (in time, late, twice), cancelling and leaving, in any order.

Every call gets exactly one answer, of what has befallen it; nobody
hears of a call after it is over but by `hub:cancel`; a name is free exactly when nobody provides it.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from workers import Visitor

from hub import Hub
from hub.commands.provided import Provider
from hub.commands.providers import Providers

pytestmark = pytest.mark.once

NAMES = ("a:x", "a:y", "a:z")
PLACES = st.integers(0, 2)
PICK = st.integers(0, 1000)  # counted from the newest, as many as there are: what is drawn depends on nothing
TRIES = 2000  # milliseconds, about, that something may take


class Called:
    """One call, as the model knows it."""

    def __init__(self, number: int, caller: "Person", worker: "Person", keyed: bool) -> None:
        self.number, self.caller, self.worker, self.keyed = number, caller, worker, keyed
        self.befallen = set[str]()  # the outcomes that it may have
        self.frame: str | None = None  # its id at the worker
        self.answered = False  # by the worker, while it was open
        self.answers = list[Any]()


class Person(Visitor):
    """A client that tells the model at once what it hears."""

    def __init__(self, hub: Hub, model: "Serving") -> None:
        super().__init__(hub)
        self.model, self.stopped = model, list[str]()

    def _take(self, text: bytes) -> None:
        super()._take(text)
        frame = json.loads(text)
        if frame["type"] == "command":
            self.model.asked(self, frame["id"], **frame["payload"])
        elif frame["type"] != "event" and str(frame["id"]).startswith("n"):
            self.model.calls[int(frame["id"][1:])].answers.append(frame["payload"])


class Serving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.hub = Hub(port=0, state_dir=self.directory.name, ephemeral=True, rate=0)
        self.run(self.hub.start())
        self.workers = [self.person() for _ in range(3)]
        self.callers = [self.person() for _ in range(2)]
        self.owners: dict[str, Person] = {}
        self.calls = list[Called]()
        for place, name in enumerate(NAMES):
            self.provide(place, {name})

    def person(self) -> Person:
        async def made() -> Person:
            return Person(self.hub, self)

        return self.loop.run_until_complete(made())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def step(self, act: Callable[[], None], passes: int) -> None:
        """Do this, and let so much happen behind it."""

        async def work() -> None:
            act()
            for _ in range(passes):
                await asyncio.sleep(0)

        self.run(work())

    def asked(self, worker: Person, id: str, command: str, args: Any) -> None:
        if command == "hub:cancel":
            worker.stopped.append(args["id"])
            return
        call = self.calls[args["n"]]
        assert call.worker is worker, "the call of another"
        assert call.frame is None, "twice"
        assert not call.answers, "it is over"
        call.frame = id

    # ---- what happens

    @rule(place=PLACES, names=st.sets(st.sampled_from(NAMES), min_size=1))
    def provide(self, place: int, names: set[str]) -> None:
        worker = self.workers[place]
        answer = self.run(worker.provides(*sorted(names)))
        if any(self.owners.get(name, worker) is not worker for name in names):
            assert answer["code"] == "already_provided"
        else:
            self.owners |= dict.fromkeys(names, worker)
            assert set(answer["provides"]) == {name for name, owner in self.owners.items() if owner is worker}

    @rule(place=PLACES)
    def take_back(self, place: int) -> None:
        assert self.run(self.workers[place].provides()) == {"provides": []}
        self.forget(self.workers[place])

    @rule(place=st.integers(0, 4), offers=st.booleans(), passes=st.integers(0, 3))
    def somebody_leaves(self, place: int, offers: bool, passes: int) -> None:
        """Also right behind a `hub:provide`, which has no effect then. Another comes in its place."""
        people = self.workers if place < 3 else self.callers
        person = people[place % 3]

        def act() -> None:
            if offers:
                person.call("ask", "hub:provide", commands=[{"name": name} for name in NAMES])
            self.leave(person)

        self.step(act, passes)
        people[place % 3] = self.person()

    def leave(self, person: Person) -> None:
        person.leave()
        self.forget(person)
        for call in self.calls:
            if not call.answers and call.worker is person and not call.answered:
                call.befallen.add("provider_gone")
            elif not call.answers and call.caller is person and not call.keyed:
                call.befallen.add("cancelled")

    def forget(self, worker: Person) -> None:
        self.owners = {name: owner for name, owner in self.owners.items() if owner is not worker}

    @rule(name=st.sampled_from(NAMES))
    def call_in_vain(self, name: str) -> None:
        if name not in self.owners:
            assert self.run(self.callers[0].ask(name))["code"] == "unknown_command"

    @rule(
        place=st.integers(0, 1),
        picks=st.lists(PICK, min_size=1, max_size=3),
        passes=st.integers(0, 30),
        keyed=st.booleans(),
    )
    def call(self, place: int, picks: list[int], passes: int, keyed: bool) -> None:
        caller = self.callers[place]

        def act() -> None:
            for pick in picks:
                name = sorted(self.owners)[pick % len(self.owners)]
                self.calls.append(call := Called(len(self.calls), caller, self.owners[name], keyed))
                payload = {"command": name, "args": {"n": call.number}}
                key = {"idempotency_key": f"k{call.number}"} if keyed else {}
                caller.say(type="command", id=f"n{call.number}", payload=payload | key)

        if not self.owners:
            self.provide(0, set(NAMES))
        self.step(act, passes + 1)  # they are admitted

    @rule(pick=PICK, kind=st.sampled_from(["response", "error"]), passes=st.integers(0, 3))
    def answer(self, pick: int, kind: str, passes: int) -> None:
        """In time, late, or once more."""
        if not (asked := [call for call in self.calls if call.frame]):
            return
        call = asked[-1 - pick % len(asked)]

        def act() -> None:
            if not call.answers and call.worker.client in self.hub.clients:
                call.answered = not call.befallen
                call.befallen.add("ok" if kind == "response" else "command_failed")
            call.worker.say(type=kind, id=call.frame, payload={"error": "No.", "code": "internal"})

        self.step(act, passes)

    @rule(pick=PICK, passes=st.integers(0, 3))
    def cancel(self, pick: int, passes: int) -> None:
        if not self.calls:
            return
        call = self.calls[-1 - pick % len(self.calls)]

        def act() -> None:
            if not call.answers and call.caller.client in self.hub.clients:
                call.befallen.add("cancelled")
            call.caller.call(f"stop{call.number}", "hub:cancel", id=f"n{call.number}")

        self.step(act, passes)

    @rule()
    def settle(self) -> None:
        """All that has been done has had its effect."""

        async def work() -> None:
            for _ in range(TRIES):
                if all(call.answers if call.befallen else call.frame for call in self.calls):
                    return
                await asyncio.sleep(0.001)
            raise AssertionError("somebody waits for ever")

        self.run(work())
        self.look()

    # ---- what holds

    @invariant()
    def names_are_free_exactly_when_nobody_provides_them(self) -> None:
        provided = {name: command.describe()["provider"] for name, command in self.hub.commands.provided.items()}
        assert provided == {name: worker.client.id for name, worker in self.owners.items()}
        assert len(self.hub.providers) == len(set(self.owners.values()))

    def look(self) -> None:
        for call in self.calls:
            assert len(call.answers) == bool(call.befallen)
            for answer in call.answers:
                code = answer["code"] if "retryable" in answer else "ok"
                assert code in call.befallen, (code, call.befallen)
            stops = call.worker.stopped.count(call.frame or "")
            if call.answered or not call.answers:
                assert not stops or (call.answered and "cancelled" in call.befallen)
            elif call.frame and call.worker.client in self.hub.clients and not call.befallen & {"ok", "command_failed"}:
                assert stops == 1, "nobody has said that it is over"
            assert stops <= 1
        for worker in self.workers:
            strange = {id for id in worker.answers if id is None or id.startswith("call-")}
            assert not strange, "what comes too late is passed over"

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.run(self.end())
            self.loop.close()
            self.directory.cleanup()

    async def end(self) -> None:
        for person in (*self.workers, *self.callers):
            person.leave()
        await self.hub.stop()
        await self.loop.shutdown_default_executor()


STEPS = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.timeout(300)
def test_whatever_happens_in_whatever_order() -> None:
    run_state_machine_as_test(Serving, settings=STEPS)


def _nothing(*args: Any) -> None: ...


def _forgetting(providers: Providers, client: Any, reason: str) -> None:
    """The names go, and nothing else."""
    providers._take_back(client, reason)


@pytest.mark.parametrize(
    ("place", "name", "off"),
    [(Providers, "leave", _nothing), (Providers, "leave", _forgetting), (Provider, "forget", _nothing),
     (Providers, "_take_back", _nothing), (Provider, "sent", lambda provider, number: False)],
    ids=["a provider leaves", "its calls", "hub:cancel", "names that are free again", "late answers"],
)  # fmt: skip
def test_each_mechanism_is_missed(place: Any, name: str, off: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, name, off)
    monkeypatch.setattr("test_serving_machine.TRIES", 200)
    found = settings(STEPS, max_examples=60, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False)
    with pytest.raises((AssertionError, Flaky)):  # it is found; whether it can be found again, the clock decides
        run_state_machine_as_test(Serving, settings=found)
