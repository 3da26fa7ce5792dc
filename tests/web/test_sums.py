"""What several workers have counted, as one: each metric put together by what it is, and none of them falling."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from crews import Pair, answering, crew, lines, pair, pids, published, registry, scraped
from engines import Engine
from running import HubProcess, talk, until

from hub.web import seats
from hub.web.sums import Summed, families, of_worker


def test_what_several_have_counted_is_summed_by_its_kind() -> None:
    assert {
        'hub_calls_total{outcome="ok"} 3.0',
        "hub_clients 3.0",
        "hub_state_items 3.0",
        "hub_broker_up 0.0",
        'hub_seconds_bucket{le="1.0"} 1.0',
        'hub_seconds_bucket{le="+Inf"} 2.0',
        "hub_seconds_sum 3.0",
    } <= lines(Summed([families(registry(0).collect()), families(registry(3).collect())]))
    said = [of_worker(number, families(registry(number).collect())) for number in (3, 4)]
    assert {
        "hub_clients 7.0",
        "hub_state_items 4.0",
        "hub_broker_up 3.0",
        'hub_audit_records_total{worker="3"} 3.0',
        'hub_audit_records_total{worker="4"} 4.0',
    } <= lines(Summed(said))


async def shown(both: Pair) -> set[str]:
    return {line for line in lines(await both.here.counted()) if not line.startswith("#")}


async def comes(both: Pair, wanted: set[str]) -> None:
    """Wait until this is shown: a worker may be late to answer, on a slow machine."""
    while not wanted <= await shown(both):
        await asyncio.sleep(0)  # what is shown of one that is late waits for nothing, so nobody else would come to it


UP = {'hub_workers{state="up"} 2.0', 'hub_workers{state="stale"} 0.0', 'hub_workers{state="down"} 0.0'}
STALE = {'hub_workers{state="up"} 1.0', 'hub_workers{state="stale"} 1.0', 'hub_workers{state="down"} 0.0'}
DOWN = {'hub_workers{state="up"} 1.0', 'hub_workers{state="stale"} 0.0', 'hub_workers{state="down"} 1.0'}
BOTH = {'hub_calls_total{outcome="ok"} 3.0', "hub_seconds_count 2.0", 'hub_audit_records_total{worker="2"} 2.0'}


async def test_one_that_does_not_answer_or_has_ended_is_not_forgotten() -> None:
    with pair() as both:
        assert DOWN | {"hub_clients 1.0"} <= await shown(both)  # it has said nothing yet
        async with answering(both.there):
            await comes(both, UP | BOTH | {"hub_clients 3.0", "hub_broker_up 1.0"})
        assert STALE | BOTH | {"hub_clients 3.0"} <= await shown(both)
        both.snapshots.end(2)
        assert DOWN | BOTH | {"hub_clients 1.0", "hub_audit_chain_valid 1.0"} <= await shown(both)
        both.snapshots.begin(2)
        again = both.worker(2, registry(5))  # of the audit log it says how long it is by now
        assert await shown(both) >= DOWN | BOTH
        after = {
            'hub_calls_total{outcome="ok"} 8.0',
            "hub_seconds_count 3.0",
            'hub_audit_records_total{worker="2"} 5.0',
        }
        async with answering(again):
            await comes(both, UP | after | {"hub_clients 6.0"})
        both.snapshots.end(2)
        both.snapshots.begin(2)
        async with answering(both.worker(2, registry(1))):
            await comes(both, {'hub_calls_total{outcome="ok"} 9.0'})


async def test_who_does_not_answer_is_asked_and_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, times = seats._asked, list[str]()

    async def noted(address: bytes, what: str, *more: Any, **options: Any) -> Any:
        times.append(what)
        return await asked(address, what, *more, **options)

    monkeypatch.setattr(seats, "_asked", noted)
    monkeypatch.setattr(seats, "PATIENCE", 0.05)
    with pair() as both:
        async with answering(both.there):
            await comes(both, UP)
        times.clear()
        for _ in range(20):
            assert await shown(both) >= STALE
        assert times == ["count"]
        async with answering(both.there):  # it hears what it was asked meanwhile, and so it is asked again
            await comes(both, UP)


async def test_a_log_that_was_broken_when_its_worker_ended_is_not_forgotten() -> None:
    with pair() as both:
        async with answering(both.worker(2, registry(0))):
            assert "hub_audit_chain_valid 0.0" in await shown(both)
        both.snapshots.end(2)
        assert {"hub_audit_chain_valid 0.0", "hub_broker_up 1.0"} <= await shown(both)


# ---- as processes


class Watch:
    """Scrapes, and compares each with the one before: what is counted must not fall, whichever worker answers."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.last = dict[str, float]()
        self.fallen = set[str]()

    async def look(self) -> dict[str, float]:
        """One more. Over a new connection, as the system may have handed the one before to a worker that stands."""
        while True:
            try:
                async with asyncio.timeout(3):
                    now = await scraped(self.hub)
                break
            except (TimeoutError, ClientError):
                continue
        counted = {name: value for name, value in now.items() if name.partition("{")[0].endswith(COUNTED)}
        assert len(counted) > 100
        self.fallen |= {name for name, value in self.last.items() if counted.get(name, -1.0) < value}
        self.last |= counted
        return now

    async def until(self, **states: int) -> dict[str, float]:
        async with asyncio.timeout(60):
            while True:
                now = await self.look()
                if all(now[f'hub_workers{{state="{state}"}}'] == count for state, count in states.items()):
                    return now


COUNTED = ("_total", "_bucket", "_count")
WEAK = """
from hub.web import seats

def only_own(said):
    def own(self, number, answered):
        state, found = said(self, number, answered)
        return state, found if number == self._seat.number else []

    return own

def setup(hub):
    {}
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "weakened",
    [
        "",
        "seats.before = lambda said: []",
        "seats.lasting = lambda said: []",
        "seats.Workers._said = only_own(seats.Workers._said)",
    ],
    ids=["as it is", "begun anew", "forgotten", "each for itself"],
)
async def test_no_counter_falls_whatever_becomes_of_a_worker(
    redis_engine: Engine, tmp_path: Path, weakened: str
) -> None:
    (tmp_path / "weak.py").write_text(WEAK.format(weakened or "pass"))
    async with crew(redis_engine, tmp_path, "--load", "weak") as hub, talk(hub.url) as client:
        watch, number = Watch(hub), 0

        async def lives() -> None:
            nonlocal number
            for _ in range(12):
                number += 1
                await published(hub, number)

        await watch.until(up=2)
        await lives()
        if not weakened:
            assert (await watch.look())[EVENTS] == number
            first = pids(hub)[0]
            os.kill(first, signal.SIGSTOP)
            now = await watch.until(up=1, stale=1, down=0)
            assert (now[EVENTS], now['hub_clients{transport="websocket"}']) == (number, 1)
            os.kill(first, signal.SIGCONT)
            await watch.until(up=2, stale=0)
            await client.call("hub:ping")
        for _ in range(5 if weakened else 1):  # each time it is longer until it is started again
            for pid in pids(hub) if not watch.fallen else ():
                await watch.look()
                os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: pid not in pids(hub), "that it has ended")  # type: ignore[misc]
                await watch.look()
                await watch.until(up=2)
        await lives()
        if not weakened:
            assert (await watch.look())[EVENTS] == number
        assert bool(watch.fallen) is bool(weakened), watch.fallen


EVENTS = 'hub_events_total{event="agent:status_change"}'
