"""The keys of a stream are put back from a copy while the server runs, which is the same run of it then: whoever has
seen more is told, and no number means two events in one epoch."""

from typing import Any

import pytest
from engines import Engine, Weaken
from running import HubInside, Start, talk, until

from hub.stream.brokers.witness import Witness

pytestmark = pytest.mark.once


class Copy:
    """The keys of a stream as they were."""

    def __init__(self, server: Engine, prefix: str) -> None:
        self._server = server
        self._keys = {key: server.ask("DUMP", key) for key in server.ask("KEYS", f"{{{prefix}}}:*")}

    def put_back(self) -> None:
        """In one step, as a program does that is meant to keep others from what is in between."""
        with self._server.client() as client, client.pipeline() as together:
            for key, data in self._keys.items():
                together.execute_command("RESTORE", key, 0, data, "REPLACE")
            together.execute()


def epoch(hub: HubInside) -> str:
    return hub.hub.broker.epoch


def gap(frame: dict[str, Any]) -> tuple[str, str, str]:
    assert frame["payload"]["event"] == "hub:gap", frame
    data = frame["payload"]["data"]
    return data["after"], data["before"], data["reason"]


async def noted(*hubs: HubInside) -> None:
    """Wait until each has looked once more."""
    for hub in hubs:
        its: Any = hub.hub.broker
        await until(lambda: its._seen.newest[0] == its.head, "a mark")  # noqa: B023


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_that_was_restarted_behind_it(
    redis_engine: Engine, prefix: str, start: Start, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start()
    await one.publish(3)
    await noted(one)
    copy, old = Copy(redis_engine, prefix), epoch(one)
    await one.publish(3)
    await one.runner.cleanup()
    copy.put_back()
    if weakened:
        monkeypatch.setattr(Witness, "load", lambda self: None)
    again = await start()
    if weakened:  # the client's cursor is good, and means another event
        assert str((await again.hub.publish("a:x", "new")).cursor) == f"{old}:4"
        return
    assert (again.hub.cursor.seq, again.hub.broker.lineage) == (3, {old: 3})
    async with talk(again.url, f"?after={old}:5") as beyond, talk(again.url, f"?after={old}:2") as within:
        assert gap(await beyond.event()) == (f"{old}:5", f"{epoch(again)}:1", "epoch")
        assert await beyond.numbers(3) == [1, 2, 3]
        assert await within.numbers(1) == [3]
        assert str((await again.hub.publish("a:x", "new")).cursor) == f"{epoch(again)}:4"
        assert await beyond.numbers(1) == await within.numbers(1) == [4]


@pytest.mark.parametrize("weakened", [False, True])
async def test_hubs_that_run_meanwhile(
    redis_engine: Engine, prefix: str, start: Start, weaken: Weaken, weakened: bool
) -> None:
    weaken("tonumber(args[2]) > found.seq", "false")
    one, two = await start("one"), await start("two")
    await one.publish(3)
    await noted(one, two)
    copy, old = Copy(redis_engine, prefix), epoch(one)
    await one.publish(3)
    await until(lambda: two.hub.cursor.seq == 6)
    async with talk(one.url) as first, talk(two.url) as second:
        for client in (first, second):
            await client.call("hub:ping")
        copy.put_back()
        if weakened:
            await looked(one, two)
            assert str((await one.hub.publish("a:x", "new")).cursor) == f"{old}:4"
            for client in (first, second):
                await client.call("hub:ping")
                assert client.events == []
            return
        for client in (first, second):
            assert gap(await client.event()) == (f"{old}:6", f"{epoch(one)}:4", "epoch")
        assert (epoch(one), one.hub.broker.lineage) == (epoch(two), {old: 3})
        await two.publish(1)
        for client in (first, second):
            assert await client.numbers(1) == [4]


async def looked(*hubs: HubInside) -> None:
    """Wait until each has looked twice more."""
    for hub in hubs:
        its: Any = hub.hub.broker
        for _ in range(2):
            at = its._look_at
            await until(lambda: its._look_at > at, "a look")  # noqa: B023


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_published_finds_it_out_before_anything_is_kept(
    redis_engine: Engine, prefix: str, start: Start, weaken: Weaken, weakened: bool
) -> None:
    weaken("found.epoch ~= args[1] or tonumber(args[2]) > found.seq", "false")
    one = await start()
    await one.publish(3)
    await noted(one)
    copy, old = Copy(redis_engine, prefix), epoch(one)
    await one.publish(3)
    copy.put_back()
    cursor = (await one.hub.publish("a:x", "new")).cursor
    assert (cursor.epoch == old, cursor.seq) == (weakened, 4)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("more", [2, 7])
async def test_of_two_hubs_one_has_seen_more(
    redis_engine: Engine, prefix: str, start: Start, more: int, weaken: Weaken, weakened: bool
) -> None:
    """The other one goes on from the copy, in good faith; less far than this one had come, or farther."""
    weaken("return at ~= ms", "return false")
    one, two = await start("one"), await start("two")
    await one.publish(3)
    await noted(one, two)
    copy, old = Copy(redis_engine, prefix), epoch(one)
    await one.runner.cleanup()
    await two.publish(5)
    await noted(two)
    await two.runner.cleanup()
    copy.put_back()
    one = await start("one")
    assert (epoch(one), one.hub.cursor.seq) == (old, 3)
    await one.publish(more)
    async with talk(one.url) as other:
        await other.call("hub:ping")
        two = await start("two")
        if weakened:
            assert (epoch(two) == old, two.hub.broker.lineage) == ((True, {}) if more == 7 else (False, {old: 3}))
            return
        assert two.hub.broker.lineage == {old: 3}
        async with talk(two.url, f"?after={old}:6") as back, talk(two.url, f"?after={old}:3") as level:
            assert gap(await back.event()) == (f"{old}:6", f"{epoch(two)}:1", "epoch")
            assert await back.numbers(3 + more) == list(range(1, 4 + more))
            assert await level.numbers(more) == list(range(4, 4 + more))
        assert gap(await other.event()) == (f"{old}:{3 + more}", f"{epoch(two)}:4", "epoch")
        assert await other.numbers(more) == list(range(4, 4 + more))


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_copy_of_an_earlier_epoch(
    redis_engine: Engine, prefix: str, start: Start, weaken: Weaken, weakened: bool
) -> None:
    """It knows nothing of the epoch that the hubs are in."""
    weaken("or mine ~= '' and not is_earlier(found, mine)", "")
    one, two = await start("one"), await start("two")
    await one.publish(3)
    await noted(one, two)
    copy, old = Copy(redis_engine, prefix), epoch(one)
    its: Any = one.hub.broker
    redis_engine.ask("HSET", its.server.key("m"), "run", "another")
    its._link.close()
    await until(lambda: epoch(one) == epoch(two) != old)
    later = epoch(one)
    await one.publish(3)
    async with talk(one.url) as client:
        await client.call("hub:ping")
        copy.put_back()
        assert gap(await client.event())[::2] == (f"{later}:6", "epoch")
        await until(lambda: epoch(one) == epoch(two) != later)
    assert one.hub.broker.lineage == ({} if weakened else {later: 0, old: 3})
