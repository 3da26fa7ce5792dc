"""The way in for events, the pump, and the application's listeners."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import fields

from hub.errors import HubError
from hub.stream import bus as module
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.bus import EventBus, record
from hub.stream.events import Event
from hub.stream.eventtypes import EventTypes
from hub.stream.listeners import Listeners


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    bus = EventBus(MemoryBroker(100, 10**6), EventTypes())
    bus.on_event.append(bus.listeners.offer)
    bus.on_event.freeze()
    await bus.broker.open(bus.pump)
    yield bus
    await bus.broker.close()
    await bus.listeners.drain(1)


async def kept(bus: EventBus) -> list[Event]:
    return await bus.broker.read(0, 1000)


async def test_one_event(bus: EventBus) -> None:
    published = await bus.publish([{"event": "a:b", "data": {"x": 1}}])
    assert (published.accepted, published.duplicates, published.cursor.seq) == (1, 0, 1)
    (event,) = await kept(bus)
    assert (event.name, event.data, event.id) == ("a:b", {"x": 1}, published.ids[0])
    assert bus.position == 1  # it has been through the pump: who published it can read it back


async def test_publishes_side_by_side_keep_one_order(bus: EventBus) -> None:
    published = await asyncio.gather(*(bus.publish([{"event": "a:b", "data": i}]) for i in range(50)))
    assert [p.cursor.seq for p in published] == list(range(1, 51))
    assert [event.data for event in await kept(bus)] == list(range(50))


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"data": 1}, "event"),
        ({"event": "a", "data": 1}, "event"),
        ({"event": 5, "data": 1}, "event"),
        ({"event": "a:b"}, "data"),
        ({"event": "a:b", "data": 1, "id": ""}, "id"),
        ({"event": "a:b", "data": 1, "id": None}, "id"),
        ({"event": "a:b", "data": 1, "id": 7}, "id"),
        ({"event": "task:progress", "data": {"id": "x"}, "ttl": 0}, "ttl"),
        ({"event": "task:progress", "data": {"id": "x"}, "ttl": "9"}, "ttl"),
        ({"event": "task:progress", "data": {"id": "x"}, "ttl": True}, "ttl"),
        ({"event": "task:progress", "data": {"id": "x"}, "ttl": 1e12}, "ttl"),
        ({"event": "a:b", "data": 1, "ttl": 5}, "ttl"),
        ({"event": "a:b", "data": 1, "cursor": "e:1"}, "cursor"),
        ({"event": "task:progress", "data": {}}, "id"),
        ([], "_schema"),
        ("text", "_schema"),
        (None, "_schema"),
    ],
    ids=str,
)
async def test_what_does_not_fit_is_refused_and_nothing_published(bus: EventBus, record: Any, path: str) -> None:
    rejected: list[tuple[str, int]] = []
    bus.on_rejected = lambda *args: rejected.append(args)
    with pytest.raises(HubError) as refused:
        await bus.publish([record])
    assert refused.value.code == "invalid_message"
    assert path in json.dumps(refused.value.details)
    assert rejected == [("invalid_message", 1)]
    assert await kept(bus) == []


@pytest.mark.parametrize("name", ["hub:stale", "hub:x:y", "hub:gap"])
async def test_the_hubs_own_domain_is_reserved(bus: EventBus, name: str) -> None:
    with pytest.raises(HubError) as refused:
        await bus.publish([{"event": name, "data": 1}])
    assert refused.value.code == "reserved_event"
    await bus.publish([{"event": "hubs:x", "data": 1}])


async def test_a_batch_is_all_or_nothing(bus: EventBus) -> None:
    good = {"event": "a:b", "data": 1}
    with pytest.raises(HubError) as refused:
        await bus.publish([good, {"event": "bad", "data": 1}, good, {"event": "a:b"}], many=True)
    assert refused.value.code == "invalid_message"
    assert refused.value.details is not None
    assert sorted(refused.value.details) == ["1", "3"]
    assert await kept(bus) == []
    assert (await bus.publish([good] * 3, many=True)).accepted == 3
    assert (await bus.publish([], many=True)).cursor.seq == 3


async def test_an_id_is_accepted_once_while_it_is_kept(bus: EventBus) -> None:
    first = await bus.publish([{"event": "a:b", "data": 1, "id": "mine"}])
    await bus.publish([{"event": "a:b", "data": 2}])
    again = await bus.publish([{"event": "a:b", "data": 3, "id": "mine"}])
    assert (again.accepted, again.duplicates, again.cursor) == (0, 1, first.cursor)
    assert [event.data for event in await kept(bus)] == [1, 2]
    await bus.publish([{"event": "a:b", "data": 0}] * 100, many=True)
    late = await bus.publish([{"event": "a:b", "data": 3, "id": "mine"}])
    assert (late.accepted, late.cursor.seq) == (1, 103)


async def test_the_same_id_twice_in_a_batch_is_refused(bus: EventBus) -> None:
    twice = {"event": "a:b", "data": 1, "id": "mine"}
    with pytest.raises(HubError) as refused:
        await bus.publish([twice, twice], many=True)
    assert refused.value.details == {"1": {"id": ["The same id twice in one batch."]}}
    assert await kept(bus) == []


async def test_secrets_are_gone_before_anything_is_kept(bus: EventBus) -> None:
    redacted: list[int] = []
    bus.on_redacted = redacted.append
    data = {"id": "t", "apiKey": "x", "deep": [{"github_token": "y"}], "max_tokens": 5}
    await bus.publish([{"event": "task:progress", "data": data}])
    (event,) = await kept(bus)
    assert event.data == {"id": "t", "deep": [{}], "max_tokens": 5}
    assert redacted == [2]
    assert data["apiKey"] == "x"


async def test_without_redaction_a_secret_would_be_kept(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def as_it_is(data: list[Any], apart: Any) -> tuple[list[Any], int]:
        return data, 0

    monkeypatch.setattr(module, "redact_each", as_it_is)
    await bus.publish([{"event": "a:b", "data": {"apiKey": "x"}}])
    assert b"apiKey" in (await kept(bus))[0].json


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_key_of_a_last_value_is_cleaned(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """It is kept, sent and shown beside the data. What a type demands of its fields holds for what was published."""
    bus.types.add("run:done", {"id": fields.String(required=True), "token": fields.String(required=True)}, "id")
    if weakened:
        monkeypatch.setattr(bus.types, "key", lambda name, data: data["id"] and "ghp_abcdef0123")
    await bus.publish([{"event": "run:done", "data": {"id": "run ghp_abcdef0123", "token": "x"}}])
    (event,) = await kept(bus)
    assert event.data == {"id": "run [redacted]"}
    assert event.key == ("ghp_abcdef0123" if weakened else "run [redacted]")
    with pytest.raises(HubError):
        await bus.publish([{"event": "run:done", "data": {"id": "run"}}])


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("field", ["id", "event"])
async def test_a_secret_in_an_id_or_a_name_is_refused(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch, field: str, weakened: bool
) -> None:
    """They cannot be replaced: a publisher finds its event by its id, and a client subscribes to the name."""
    if weakened:
        monkeypatch.setattr(module, "holds_secret", lambda text: False)
        monkeypatch.setattr(module, "_has_secret", lambda name: False)
    record = {"event": "a:b", "data": 1, "id": "mine", field: "sk-proj-abcDEF0123456789:x"}
    if weakened:
        await bus.publish([record])
        assert b"abcDEF0123456789" in (await kept(bus))[0].json
        return
    with pytest.raises(HubError) as refused:
        await bus.publish([record])
    assert (refused.value.code, set(refused.value.details or ())) == ("invalid_message", {field})
    assert "abcDEF" not in str(refused.value.payload())
    assert await kept(bus) == []


async def test_data_from_python_is_copied(bus: EventBus) -> None:
    data = {"list": [1]}
    await bus.publish([record("a:b", data, None, None)])
    data["list"].append(2)
    assert (await kept(bus))[0].data == {"list": [1]}


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=4, unique_by=lambda id: id or object()),
        max_size=8,
    )
)
def test_numbers_have_no_holes_and_ids_no_second_event(batches: list[list[str | None]]) -> None:
    async def run() -> None:
        bus = EventBus(MemoryBroker(5, 10**6), EventTypes())
        bus.on_event.freeze()
        await bus.broker.open(bus.pump)
        seen: list[str] = []
        for batch in batches:
            records = [{"event": "a:b", "data": 1, **({"id": id} if id else {})} for id in batch]
            before = bus.broker.head
            remembered = set(seen[bus.broker.tail - 1 :])
            published = await bus.publish(records, many=True)
            fresh = [id for id in published.ids if id not in remembered]
            assert published.accepted == len(fresh) == bus.broker.head - before
            assert published.accepted + published.duplicates == len(batch)
            seen += fresh
        await bus.broker.close()

    asyncio.run(run())


async def one_that_trusts(listeners: Listeners, follower: Any, event: Event) -> None:
    result = follower.listener(event)
    if result is not None:
        await result


class TestListeners:
    async def test_everyone_hears_what_matches_in_order(self, bus: EventBus) -> None:
        heard: list[Any] = []

        async def slowly(event: Event) -> None:
            await asyncio.sleep(0)
            heard.append(("agents", event.data))

        bus.on("*", lambda event: heard.append(("all", event.data)))
        bus.on("agent:*", slowly)
        for i in range(5):
            await bus.publish([{"event": "agent:x" if i % 2 else "task:x", "data": i}])
        await bus.listeners.drain(1)
        assert [data for who, data in heard if who == "all"] == [0, 1, 2, 3, 4]
        assert [data for who, data in heard if who == "agents"] == [1, 3]

    async def test_once_and_off(self, bus: EventBus) -> None:
        heard: list[Any] = []

        def listener(event: Event) -> None:
            heard.append(event.data)

        bus.once("a:*", listener)
        bus.on("b:*", listener)
        await bus.publish([{"event": name, "data": name} for name in ("a:x", "a:y", "b:x")], many=True)
        await bus.listeners.drain(1)
        bus.off("b:*", listener)
        bus.off("b:*", listener)
        await bus.publish([{"event": "b:y", "data": "late"}])
        await bus.listeners.drain(1)
        assert heard == ["a:x", "b:x"]

    async def test_one_that_raises_or_hangs_holds_up_nobody(
        self, bus: EventBus, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[Any] = []
        failures: list[int] = []
        bus.listeners._limit = 0.01
        bus.listeners.on_failure = lambda: failures.append(1)

        def broken(event: Event) -> None:
            raise RuntimeError("mine") if event.data != 1 else SystemExit("mine")

        async def stuck(event: Event) -> None:
            await asyncio.Event().wait()

        for listener in (broken, stuck, lambda event: heard.append(event.data)):
            bus.on("*", listener)
        for i in range(3):
            await bus.publish([{"event": "a:b", "data": i}])
        await bus.listeners.drain(5)
        assert heard == [0, 1, 2]
        assert len(failures) == 6
        assert "a listener of Patterns(*) failed" in caplog.text

    async def test_without_a_task_for_each_it_would(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def all_in_a_row(listeners: Listeners, batch: Sequence[Event]) -> None:
            for follower in listeners._all:
                for event in batch:
                    await listeners._tell(follower, event)

        monkeypatch.setattr(Listeners, "_tell", one_that_trusts)
        weakened = EventBus(MemoryBroker(100, 10**6), EventTypes())
        weakened.on_event.append(functools.partial(all_in_a_row, weakened.listeners))
        weakened.on_event.freeze()
        await weakened.broker.open(weakened.pump)
        with pytest.raises(HubError, match="mine"):
            await self.test_one_that_raises_or_hangs_holds_up_nobody(weakened, caplog)

    async def test_one_that_is_far_behind_misses_the_oldest_and_the_log_says_so(
        self, bus: EventBus, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[Any] = []
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            await gate.wait()
            heard.append(event.data)

        bus.listeners._most = 3
        bus.on("*", slow)
        await bus.publish([{"event": "a:b", "data": 0}])
        await asyncio.sleep(0)  # it has begun with the first
        await bus.publish([{"event": "a:b", "data": i} for i in range(1, 9)], many=True)
        gate.set()
        await bus.listeners.drain(1)
        assert heard == [0, 6, 7, 8]
        assert "missed 5 events" in caplog.text

    async def test_a_bad_pattern(self, bus: EventBus) -> None:
        with pytest.raises(ValueError, match="agent"):
            bus.on("agent", lambda event: None)
