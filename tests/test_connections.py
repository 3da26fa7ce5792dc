"""The life of whole connections as a state machine, over real sockets and on both event loops: everything that a client
can do or have done to it, in any order. After every step every member of every group is live, and every byte that
anybody got is a part of a frame meant for it; in the end nobody has lost an event silently."""

import asyncio
import contextlib
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from fcntl import ioctl
from importlib.util import find_spec
from pathlib import Path
from termios import TIOCOUTQ
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from running import HubInside, Raw, hub_app, open_streams
from visitors import BINARY, CLOSE, PING, TEXT, SSEVisitor, Stranger, Stream, Visitor, WebSocketVisitor

from hub.errors import HubError
from hub.stream.broadcaster import Broadcaster
from hub.stream.subscriber import Group, Subscriber
from hub.web import streams
from hub.wire.vocabulary import Disconnection

pytestmark = pytest.mark.once

LOOPS = ["asyncio", *(["uvloop"] if find_spec("uvloop") else [])]
NAMES = ["a:x", "a:y", "b:x", "b:y:z"]
TOPICS = st.lists(st.sampled_from(["*", "a:*", "b:*", "*:x", "a:y", "c:d"]), min_size=1, max_size=3, unique=True)
WHO = st.integers(0, 30)
UNMASKED = b"\x81\x02{}"
VIOLATIONS = {
    "unmasked": UNMASKED,
    "binary": Raw.packed(BINARY, b"{}"),
    "not UTF-8": Raw.packed(TEXT, b"\xff"),
    "too large": b"\x81\xff" + (1 << 40).to_bytes(8) + bytes(4),
    "a flood of nothing": Raw.packed(TEXT, b"", False) + Raw.packed(0, b"", False) * 1100,
}
HEARTBEAT = 3600.0


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop


def not_live(hub: HubInside) -> list[str]:
    """What is wrong with the members of the groups, and with those that are led to them."""
    found = []
    broadcaster = hub.hub.broadcaster
    for group in broadcaster._groups.values():
        for member in group.members:
            assert isinstance(member, streams.Stream)
            if member.ended or member.ending:
                found.append("a member of a group has ended")
                continue  # and has let go of what it knew
            if member.paused or (member.straight and member.transport.get_write_buffer_size()):
                found.append(f"{member.client.peer} has something left over")
            if member.group is not group or member.task is not None:
                found.append(f"{member.client.peer} is elsewhere, too")
            if member.client not in hub.hub.clients:
                found.append(f"{member.client.peer} is no client")
            if member.straight and member.straight.fileno() < 0:
                found.append(f"{member.client.peer} has no socket")
    for subscriber in broadcaster._catchup.behind:
        if subscriber.ended or subscriber.task is None or subscriber.task.done() or subscriber.group is not None:
            found.append(f"{subscriber} is behind and led by nobody")
    for client in hub.hub.clients:
        place = client.subscriber
        if place and (place.group is None) == (place not in broadcaster._catchup.behind):
            found.append(f"{client.peer} is a client and not in the stream, or twice")
    return found


class Connections(RuleBasedStateMachine):
    """Clients of every kind, and strangers, around one hub."""

    loop_name = "asyncio"
    ephemeral = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=loop_factory(self.loop_name))
        self.stack = contextlib.AsyncExitStack()
        self.stream = Stream()
        self.visitors: list[Visitor] = []
        self.ahead = 0.0  # seconds that the heartbeats have been told the clock is ahead
        self.failed: list[str] = []  # what the event loop itself complained of
        self.run(self._start())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.failed.append(str(context)))
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-connections-"))
        limits: dict[str, Any] = {"window_events": 40, "keep_events": 120, "window_bytes": 4 * 2**20}
        self.hub = await self.stack.enter_async_context(
            hub_app(Path(folder), ephemeral=self.ephemeral, rate=0, heartbeat=HEARTBEAT, stop_timeout=0.5, **limits)
        )

    def teardown(self) -> None:
        try:
            self.judge()
        finally:
            self.release()

    def judge(self) -> None:
        self.run(self._come_to_rest())
        for visitor in self.visitors:
            visitor.end(self.hub.hub.cursor.seq)

    def release(self) -> None:
        for visitor in self.visitors:
            visitor.socket.close()
        self.run(self.stack.aclose())
        self.runner.close()

    # ---- who there is

    def clients(self, *kinds: type[Visitor]) -> list[Any]:
        kinds = kinds or (WebSocketVisitor, SSEVisitor)
        return [v for v in self.visitors if isinstance(v, kinds) and not v.ended and not v.broken and not v.goodbye]

    def one(self, who: int, *kinds: type[Visitor]) -> Any:
        found = self.clients(*kinds)
        return found[who % len(found)] if found else None

    # ---- what happens

    @rule(
        topics=st.none() | TOPICS,
        back=st.none() | st.integers(0, 60),
        behind=st.sampled_from(["", "", "ping", "subscribe", "subscribe and close", "unmasked", "half", "many"]),
        small=st.booleans(),
    )
    def connect(self, topics: list[str] | None, back: int | None, behind: str, small: bool) -> None:
        visitor = WebSocketVisitor(self.hub.port, self.stream, buffer=4096 if small else None)
        frames = {
            "ping": lambda: visitor.ask("hub:ping", {}),
            "subscribe": lambda: visitor.ask("hub:subscribe", {"topics": ["b:*"]}),
            "subscribe and close": lambda: (
                visitor.ask("hub:subscribe", {"topics": ["b:*"]}) + Raw.packed(CLOSE, b"\x03\xe8")
            ),
            "unmasked": lambda: visitor.ask("hub:subscribe", {"topics": ["b:*"]}) + UNMASKED,
            "half": lambda: visitor.ask("hub:ping", {})[:-3],
            "many": lambda: b"".join(visitor.ask("hub:ping", {"n": n}) for n in range(200)),
        }
        early = frames[behind]() if behind else b""
        after = self._after(back)
        self.run(self._connect(visitor, lambda: visitor.upgrade(topics, after and str(after), early)))
        visitor.broken |= behind in ("unmasked", "half", "subscribe and close")
        visitor.joined(topics, after.seq if after else self.hub.hub.cursor.seq)

    @rule(topics=st.none() | TOPICS, back=st.none() | st.integers(0, 60), small=st.booleans())
    def connect_to_events(self, topics: list[str] | None, back: int | None, small: bool) -> None:
        visitor = SSEVisitor(self.hub.port, self.stream, buffer=4096 if small else None)
        after = self._after(back)
        self.run(self._connect(visitor, lambda: visitor.ask_for(topics, after and str(after))))
        visitor.joined(topics, after.seq if after else self.hub.hub.cursor.seq)

    @rule(asks=st.booleans())
    def a_stranger_comes(self, asks: bool) -> None:
        stranger = Stranger(self.hub.port, self.stream, asks=asks)
        self.visitors.append(stranger)
        self.run(stranger.connect())
        stranger.greet()

    def _after(self, back: int | None) -> Any:
        cursor = self.hub.hub.cursor
        return None if back is None else cursor._replace(seq=max(0, cursor.seq - back))

    async def _connect(self, visitor: Visitor, ask: Callable[[], None]) -> None:
        """Until the hub has it: no event comes meanwhile."""
        before = self.hub.counted("hub_connections_total")
        known = sum(before.values())
        await visitor.connect()
        ask()
        self.visitors.append(visitor)
        ends = time.monotonic() + 5
        while sum(self.hub.counted("hub_connections_total").values()) == known:
            assert time.monotonic() < ends, "the hub does not take it"
            await asyncio.sleep(0)

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=12), size=st.sampled_from([0, 0, 200, 20_000]))
    def publish(self, names: list[str], size: int) -> None:
        self.run(self._publish(names, size))

    async def _publish(self, names: list[str], size: int) -> None:
        head = self.hub.hub.cursor.seq
        self.stream.names.update({head + n: name for n, name in enumerate(names, 1)})
        await self.hub.hub.bus.publish([{"event": name, "data": "x" * size} for name in names], many=True)

    @rule(passes=st.integers(1, 40))
    def time_passes(self, passes: int) -> None:
        self.run(self._spin(passes))

    @rule(who=WHO, topics=TOPICS)
    def subscribe(self, who: int, topics: list[str]) -> None:
        if visitor := self.one(who, WebSocketVisitor):
            visitor.call("hub:subscribe", {"topics": topics})

    @rule(who=WHO, topics=TOPICS, back=st.integers(0, 30))
    def start_again(self, who: int, topics: list[str], back: int) -> None:
        visitor = self.one(who, WebSocketVisitor)
        if visitor and visitor.view:
            after = max(0, visitor.view.position - back)
            cursor = self.hub.hub.cursor._replace(seq=after)
            if visitor.call("hub:subscribe", {"topics": topics, "after": str(cursor)}):
                visitor.view.restarted(after)

    @rule(who=WHO, topics=TOPICS)
    def unsubscribe(self, who: int, topics: list[str]) -> None:
        visitor = self.one(who, WebSocketVisitor)
        if visitor and visitor.view and not visitor.waits and visitor.call("hub:unsubscribe", {"topics": topics}):
            visitor.view.unsubscribing(topics)

    @rule(
        who=WHO, command=st.sampled_from(["hub:ping", "hub:history", "hub:clients", "no:such"]), times=st.integers(1, 8)
    )
    def call(self, who: int, command: str, times: int) -> None:
        if visitor := self.one(who, WebSocketVisitor):
            for _ in range(times):
                visitor.call(command, {"limit": 1000} if command == "hub:history" else {})

    @rule(who=WHO, times=st.integers(1, 8))
    def ask_for_much_and_not_read_it(self, who: int, times: int) -> None:
        """Answers are left over in the hub, while events go on."""
        if visitor := self.one(who, WebSocketVisitor):
            visitor.reading = False
            self.publish(["b:x"] * 12, 20_000)
            for _ in range(times):
                visitor.call("hub:history", {"limit": 1000})
            self.run(self._until_left_over())
            self.publish(["a:x"], 0)

    async def _until_left_over(self) -> None:
        """Nothing more is done for a client whose answers lie unread."""
        while any(stream.answering() and not stream.paused for stream in open_streams(self.hub)):
            await asyncio.sleep(0.001)

    @rule(
        who=WHO,
        back=st.none() | st.integers(0, 30),
        then=st.sampled_from(["close", "unmasked", "reset", "half-close"]),
        passes=st.integers(0, 3),
    )
    def subscribe_and_go(self, who: int, back: int | None, then: str, passes: int) -> None:
        """In one packet, so that the call is on its way when the client ends."""
        if visitor := self.one(who, WebSocketVisitor):
            tail = {"close": Raw.packed(CLOSE, b"\x03\xe8"), "unmasked": UNMASKED}.get(then, b"")
            after = {} if back is None else {"after": str(self._after(back))}
            visitor.say(visitor.ask("hub:subscribe", {"topics": ["*"], **after}) + tail)
            visitor.broken = True
            self.run(self._spin(passes))
            if then == "reset":
                visitor.reset()
            elif then == "half-close":
                visitor.half_close()

    @rule(who=WHO, what=st.sampled_from(sorted(VIOLATIONS)))
    def violate(self, who: int, what: str) -> None:
        if visitor := self.one(who, WebSocketVisitor):
            visitor.say(VIOLATIONS[what])
            visitor.broken = True

    @rule(who=WHO, how=st.sampled_from(["leave", "reset", "half-close", "goodbye", "in the middle of a frame"]))
    def go(self, who: int, how: str) -> None:
        if visitor := self.one(who):
            visitor.broken = True
            if how == "goodbye" and isinstance(visitor, WebSocketVisitor):
                visitor.say(Raw.packed(CLOSE, b"\x03\xe8"))
            elif how == "half-close":
                visitor.half_close()
            else:
                if how == "in the middle of a frame":
                    visitor.say(Raw.packed(TEXT, b"x" * 100)[:50])
                visitor.reset() if how == "reset" else visitor.leave()

    @rule(who=WHO)
    def stop_reading(self, who: int) -> None:
        if visitor := self.one(who):
            visitor.reading = False

    @rule(who=WHO)
    def read_on(self, who: int) -> None:
        if visitor := self.one(who):
            visitor.reading = True

    @rule(who=WHO, most=st.sampled_from([1, 100, 4000, 70_000]), passes=st.integers(0, 2))
    def read_a_little(self, who: int, most: int, passes: int) -> None:
        if visitor := self.one(who):
            visitor.read(most)
            self.run(self._spin(passes))

    @rule(who=WHO, times=st.integers(1, 50))
    def ping(self, who: int, times: int) -> None:
        if visitor := self.one(who, WebSocketVisitor):
            visitor.say(Raw.packed(PING, b"p" * 100) * times)

    @rule(periods=st.sampled_from([1.0, 1.0, 1.6]))
    def heartbeat(self, periods: float) -> None:
        """With the longer one those are gone that have not answered since the last."""
        self.run(self._beat(periods))

    async def _beat(self, periods: float) -> None:
        self.ahead += periods * HEARTBEAT
        for stream in open_streams(self.hub):
            stream.beat(time.monotonic() + self.ahead, HEARTBEAT)
        self.hub.hub.broadcaster.mark()

    @rule(passes=st.integers(1, 20))
    def the_store_is_away(self, passes: int) -> None:
        self.run(self._away(passes))

    async def _away(self, passes: int) -> None:
        async def away(after: int, limit: int, size: int | None = None) -> Any:
            raise HubError("broker_unavailable", "Gone.")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.hub.hub.broker, "read", away)
            await self._spin(passes)

    @rule(who=WHO)
    def close(self, who: int) -> None:
        """As when the token is replaced."""
        found = open_streams(self.hub)
        if found:
            self.run(self._close(found[who % len(found)]))

    async def _close(self, stream: streams.Stream) -> None:
        stream.close(1008, "Go", "token")

    async def _spin(self, passes: int) -> None:
        for _ in range(passes):
            for visitor in self.visitors:
                if visitor.reading and not visitor.ended:
                    visitor.read()
            await asyncio.sleep(0)

    async def _come_to_rest(self) -> None:
        """Everybody reads, until nothing has come for a while, nothing is asked, and nobody is behind."""
        ends, quiet = time.monotonic() + 20, 0
        for visitor in self.visitors:
            visitor.reading = True
            if visitor.broken and not visitor.ended:  # nothing is promised to it, and nobody waits for it
                visitor.read()
                visitor.ended = True
                visitor.socket.close()
            elif not visitor.ended:  # through a small window half a megabyte takes a minute
                visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        while quiet < 30:
            assert time.monotonic() < ends, f"this does not come to rest: {not_live(self.hub)}"
            came = sum(visitor.read() for visitor in self.visitors if not visitor.ended)
            if came:
                ends = time.monotonic() + 20
            await asyncio.sleep(0 if came else 0.001)
            waiting = any(v.waits for v in self.clients()) or self.hub.hub.broadcaster.lagging or self._on_the_way()
            quiet = 0 if came or waiting or self.hub.hub.commands.running else quiet + 1
            assert not_live(self.hub) == []

    def _on_the_way(self) -> bool:
        """Whether the kernel has bytes for a client that it could not take yet: a window that was shut opens late. Of
        one that the hub has let go already, the end itself is on its way."""
        there = {stream.transport.get_extra_info("peername") for stream in open_streams(self.hub)}
        if any(v.socket.getsockname() not in there for v in self.clients()):
            return True
        numbers = [stream.transport.get_extra_info("socket").fileno() for stream in open_streams(self.hub)]
        return any(struct.unpack("i", ioctl(number, TIOCOUTQ, bytes(4)))[0] for number in numbers if number >= 0)

    # ---- what must hold

    @invariant()
    def all_are_live(self) -> None:
        assert not_live(self.hub) == []
        assert self.failed == []


def machine(loop: str, ephemeral: bool) -> type[Connections]:
    return type("Connections", (Connections,), {"loop_name": loop, "ephemeral": ephemeral})


PATIENT = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ephemeral", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize("loop", LOOPS)
def test_whatever_clients_do_each_gets_what_is_its_own(loop: str, ephemeral: bool) -> None:
    run_state_machine_as_test(machine(loop, ephemeral), settings=PATIENT)


# ---- weakened builds: each mechanism switched off is found


def the_dead_come_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Broadcaster, "_refuse_ended", staticmethod(lambda subscriber: None))


def paused_ones_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Subscriber, "pause", lambda subscriber: setattr(subscriber, "paused", True))


def an_end_is_heard_late(patch: pytest.MonkeyPatch) -> None:
    """A client leaves when its connection is lost, and not in the step that ends it."""

    def end(self: streams.Stream, why: Disconnection) -> None:
        self.ending = self.ending or why

    def connection_lost(self: streams.Stream, exc: Exception | None) -> None:
        self.hub.clients.leave(self.client, self.ending or "lost")
        lost(self, exc)

    lost = streams.Stream.connection_lost
    patch.setattr(streams.Stream, "end", end)
    patch.setattr(streams.Stream, "connection_lost", connection_lost)


def one_that_breaks_costs_the_others(patch: pytest.MonkeyPatch) -> None:
    """A flush ends where somebody cannot be written to."""
    an_end_is_heard_late(patch)

    def write(self: Group, data: bytes) -> list[Subscriber]:
        for member in list(self.members):
            if member.straight is None or member.straight.send(data) != len(data):
                member.write(data)
        return []

    patch.setattr(Group, "write", write)


# What the search finds for each at its shortest: searching anew in each run takes minutes.
SHORTEST: dict[Callable[[pytest.MonkeyPatch], None], Callable[[Connections], Any]] = {
    the_dead_come_back: lambda all: all.subscribe_and_go(0, 0, "close", 0),
    paused_ones_stay: lambda all: (all.ask_for_much_and_not_read_it(0, 7), all.ask_for_much_and_not_read_it(0, 1)),
    an_end_is_heard_late: lambda all: all.close(0),
    one_that_breaks_costs_the_others: lambda all: (all.violate(0, "unmasked"), all.publish(["a:x"], 0)),
}


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("weaken", SHORTEST)
@pytest.mark.parametrize("loop", LOOPS)
def test_each_mechanism_is_missed(
    weaken: Callable[[pytest.MonkeyPatch], None], loop: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong without it may need a race with the kernel: it is played until it is met, or the time is over."""
    if not weakened:
        _play(SHORTEST[weaken], loop)
        return
    weaken(monkeypatch)
    while True:
        try:
            _play(SHORTEST[weaken], loop)
        except AssertionError:
            return


def _play(steps: Callable[[Connections], Any], loop: str) -> None:
    connections = machine(loop, True)()
    try:
        for _ in range(2):
            connections.connect(None, None, "", False)
        steps(connections)
        for _ in range(100):
            connections.time_passes(1)
            connections.all_are_live()
        connections.judge()
    finally:
        connections.release()


def by_hand(minutes: float) -> None:
    """For so long, each way in turn, with other examples each time."""
    ends, examples = time.monotonic() + 60 * minutes, 0
    longer = settings(PATIENT, max_examples=100, stateful_step_count=60, database=None, print_blob=True)
    while time.monotonic() < ends:
        for loop in LOOPS:
            for ephemeral in (True, False):
                run_state_machine_as_test(machine(loop, ephemeral), settings=longer)
                examples += 100
        print(f"{examples} examples, {(ends - time.monotonic()) / 60:.0f} minutes to go", flush=True)


if __name__ == "__main__":
    by_hand(float(sys.argv[1]))
