"""The promise of PROTOCOL 3, as a property: whatever happens in whatever order, each client's view equals the
model's, or the gap that stands there names what is missing."""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from stores import STATE
from wires import Wire

from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers.broker import Broker, Limits
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.brokers.sqlite import SqliteBroker
from hub.stream.bus import EventBus
from hub.stream.catchup import CatchUp
from hub.stream.eventtypes import EventTypes
from hub.stream.subscriber import Group
from hub.stream.window import Window
from hub.wire.names import Cursor, Patterns

NAMES = ["a:x", "a:y", "b:x", "b:y:z"]
PATTERNS = st.sets(st.sampled_from(["*", "a:*", "b:*", "*:x", "a:y", "c:d"]), min_size=1, max_size=3)


@dataclass(eq=False)
class View:
    """One connection and what its client may conclude from what it got: everything up to `position` is known."""

    wire: Wire
    wants: Callable[[str], bool]
    position: int
    read: int = 0
    sizes: list[int] = field(default_factory=list)


class Promise(RuleBasedStateMachine):
    """Publishers, clients with patterns, slow readers, reconnects; a window and a store that are too small."""

    def make(self) -> Broker:
        return MemoryBroker(20, 10**6)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.names: list[str] = []  # of event seq - 1: the model is just this list
        self.views: list[View] = []
        self.left: list[Cursor] = []
        self.tails = [1]
        self.run(self._start())

    async def _start(self) -> None:
        self.broker = self.make()
        self.broadcaster = Broadcaster(Window(8, 10**6), self.broker)
        self.bus = EventBus(self.broker, EventTypes())

        async def deliver(batch: Any) -> None:
            self.broadcaster.deliver(batch)

        self.bus.on_event.append(deliver)
        self.bus.on_event.freeze()
        await self.broker.open(self.bus.pump)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            for view in self.views:
                view.wire.read_on()
            self.run(self._come_level())
            for view in self.views:
                self._judge(view)
                self._know_up_to(view, len(self.names), "the end")
        finally:
            self.run(self._end())
            self.loop.close()

    async def _come_level(self) -> None:
        """They take turns at the store, so how long it takes depends on how many there are."""
        for _ in range(100):
            await self._spin(400)
            if not self.broadcaster.lagging:
                break

    async def _end(self) -> None:
        for view in self.views:
            self.broadcaster.leave(view.wire)
        await self.broker.close()

    # ---- what happens

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=12))
    def publish(self, names: list[str]) -> None:
        published = self.run(self.bus.publish([{"event": name, "data": i} for i, name in enumerate(names)], many=True))
        self.names += names
        assert published.cursor.seq == len(self.names)

    @rule(passes=st.integers(1, 12))
    def time_passes(self, passes: int) -> None:
        self.run(self._spin(passes))

    @rule(patterns=PATTERNS)
    def connect(self, patterns: set[str]) -> None:
        self.run(self._join(Wire(), patterns, None))

    @rule(patterns=PATTERNS, seq=st.integers(0, 60))
    def connect_behind_any_cursor(self, patterns: set[str], seq: int) -> None:
        self.run(self._join(Wire(), patterns, Cursor(self.broker.epoch, min(seq, len(self.names)))))

    @rule(patterns=PATTERNS)
    def connect_with_a_foreign_cursor(self, patterns: set[str]) -> None:
        self.run(self._join(Wire(), patterns, Cursor("elsewhere", 5)))

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        if self.views:
            view = data.draw(st.sampled_from(self.views))
            self._judge(view)
            self.run(self._leave(view))
            self.views.remove(view)
            patterns = set(view.wire.subscriber.patterns.texts)
            self.run(self._join(Wire(), patterns, Cursor(self.broker.epoch, view.position)))

    @rule(data=st.data(), patterns=PATTERNS, again=st.booleans())
    def subscribe(self, data: st.DataObject, patterns: set[str], again: bool) -> None:
        if self.views:
            view = data.draw(st.sampled_from(self.views))
            if not view.wire.reading or view.wire in self.broadcaster._catchup.behind:
                return  # what lies unread was chosen by the old patterns; the client cannot tell the two apart
            if again:
                self.run(self._join(view.wire, patterns, Cursor(self.broker.epoch, len(self.names) // 2), view))
            else:
                self.run(self._narrow(view, patterns))

    @rule(data=st.data())
    def stop_reading(self, data: st.DataObject) -> None:
        if self.views:
            data.draw(st.sampled_from(self.views)).wire.reading = False

    @rule(data=st.data())
    def read_again(self, data: st.DataObject) -> None:
        if self.views:
            data.draw(st.sampled_from(self.views)).wire.read_on()

    @rule()
    def heartbeat(self) -> None:
        self.run(self._mark())

    async def _spin(self, passes: int) -> None:
        for _ in range(passes):
            await asyncio.sleep(0)

    async def _leave(self, view: View) -> None:
        self.broadcaster.leave(view.wire.subscriber)

    async def _mark(self) -> None:
        self.broadcaster.mark()

    async def _narrow(self, view: View, patterns: set[str]) -> None:
        cursor = self.broadcaster.narrow(view.wire.subscriber, Patterns(patterns))
        self._judge(view)
        self._know_up_to(view, cursor.seq, "the answer of hub:subscribe")
        view.wants = view.wire.subscriber.patterns.match

    async def _join(self, wire: Wire, patterns: set[str], after: Cursor | None, view: View | None = None) -> None:
        if view:
            self._judge(view)
            self.views.remove(view)
        position = len(self.names) if after is None else after.seq
        fresh = View(wire, Patterns(patterns).match, position, len(wire.received))
        if view and self.broadcaster.position < len(self.names):
            # What is accepted but not written yet leaves with the old patterns, before the stream starts again.
            self.broadcaster.flush()
            self._judge(view)
            fresh.read = view.read
        self.views.append(fresh)
        at = self.broadcaster.join(wire.subscriber, Patterns(patterns), after)
        assert at.epoch == self.broker.epoch

    # ---- what must hold

    @invariant()
    def every_view_is_right(self) -> None:
        self.tails.append(self.broker.tail)
        for view in self.views:
            self._judge(view)

    def _judge(self, view: View) -> None:
        for message in view.wire.received[view.read :]:
            data = message["payload"]["data"]
            match message["payload"]["event"]:
                case "hub:gap":
                    self._gap(view, data)
                case "hub:mark":
                    self._know_up_to(view, Cursor.parse(data["cursor"]).seq, "a mark")
                case name:
                    seq = Cursor.parse(message["cursor"]).seq
                    assert seq > view.position, "sent twice, or out of order"
                    self._know_up_to(view, seq - 1, f"event {seq}")
                    assert name == self.names[seq - 1]
                    assert view.wants(name), "not asked for"
                    view.position = seq
        view.read = len(view.wire.received)

    def _gap(self, view: View, gap: dict[str, Any]) -> None:
        before = Cursor.parse(gap["before"]).seq
        if gap["reason"] == "epoch":
            assert (gap["after"], gap["count"]) == ("elsewhere:5", None)
            view.position = before - 1
            return
        after = Cursor.parse(gap["after"]).seq
        self._know_up_to(view, after, "a gap")
        assert gap["count"] == before - after - 1 > 0
        assert before <= self.broker.tail, "told as missing although it is kept"
        view.position = before - 1

    def _know_up_to(self, view: View, seq: int, what: str) -> None:
        """Nothing that this client wants lies between what it knows and `seq`."""
        missing = [s for s in range(view.position + 1, seq + 1) if view.wants(self.names[s - 1])]
        assert not missing, f"{missing} lost silently before {what}"
        view.position = max(view.position, seq)


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only turns of the loop decide when a flush is due: the same steps must do the same each time."""
    monkeypatch.setattr("hub.stream.broadcaster.time", SimpleNamespace(monotonic=lambda: 0.0))


class OnDisk(Promise):
    """The same with the store on disk."""

    def make(self) -> Broker:
        self.folder = tempfile.TemporaryDirectory(prefix="hub-contract-")
        return SqliteBroker(Path(self.folder.name), Limits(20, 10**6, 86400.0), STATE)

    async def _end(self) -> None:
        await super()._end()
        self.folder.cleanup()


PATIENT = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.timeout(300)
@pytest.mark.once
def test_the_promise_holds() -> None:
    run_state_machine_as_test(Promise, settings=PATIENT)


@pytest.mark.timeout(300)
@pytest.mark.once
def test_the_promise_holds_on_disk() -> None:
    run_state_machine_as_test(OnDisk, settings=settings(PATIENT, max_examples=40))


def gap_untold(patch: pytest.MonkeyPatch) -> None:
    def silently(self: CatchUp, subscriber: Any, first: int) -> None:
        subscriber.position = first - 1

    patch.setattr(CatchUp, "_tell_missing", silently)


def joins_without_flush(patch: pytest.MonkeyPatch) -> None:
    original = Broadcaster.join

    def join(self: Broadcaster, *args: Any) -> Cursor:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "flush", lambda: None)
            return original(self, *args)

    patch.setattr(Broadcaster, "join", join)


def slow_ones_skip_to_the_head(patch: pytest.MonkeyPatch) -> None:
    original = CatchUp._follow

    def skip(self: CatchUp, subscriber: Any) -> None:
        subscriber.position = self._window.head
        original(self, subscriber)

    patch.setattr(CatchUp, "_follow", skip)


def store_not_asked(patch: pytest.MonkeyPatch) -> None:
    async def window_only(self: CatchUp, subscriber: Any) -> Any:
        return self._pages.at_hand(max(subscriber.position, self._window.tail - 1))

    patch.setattr(CatchUp, "_next", window_only)


def marks_too_far(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Group, "frames", lambda self, events: [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "weaken", [gap_untold, joins_without_flush, slow_ones_skip_to_the_head, store_not_asked, marks_too_far]
)
def test_the_property_sees_each_mechanism_missing(weaken: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        weaken(patch)
        once = settings(PATIENT, max_examples=2000, phases=[Phase.generate], print_blob=False)
        with pytest.raises(BaseException) as found:  # noqa: PT011
            run_state_machine_as_test(Promise, settings=once)
    assert isinstance(found.value, AssertionError)
