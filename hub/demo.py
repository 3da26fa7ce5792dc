"""Plays a made-up life to see the page at work, and lets people change it: it asks, and goes on as they answer.

`--demo` loads it. It asks as the hub itself, so it works in every trust mode; where nobody may answer, or nobody does,
the default is the answer after a while.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from .errors import HubError
from .roles import Data, Step
from .scenes import ASKER, scene
from .story import SEED, Story, about, leftovers, life
from .wire.timestamps import stamp

if TYPE_CHECKING:
    from .hub import Hub
    from .stream.events import Event

__all__ = ["life", "play", "setup"]

PATIENCE = 900.0  # seconds that a question waits for its answer
RETRY = 5.0  # seconds until it is asked again, if that was not possible


def setup(hub: "Hub") -> None:
    """Let the hub publish this life for as long as it runs."""
    story, started = Story(SEED), asyncio.Event()

    @hub.on("governance:vote_cast")
    def hear(event: "Event") -> None:
        data = event.data
        if isinstance(data.get("agent"), str) and isinstance(data.get("option"), str):
            story.voted(data["vote_id"], data["agent"], data["option"])

    async def begin(hub: "Hub") -> None:
        started.set()

    async def live(life: Callable[["Hub", Story], Awaitable[None]]) -> None:
        await started.wait()  # before that, the questions of the run before are not known again
        await life(hub, story)

    hub.on_start.append(begin)
    hub.spawn(lambda: live(play))
    hub.spawn(lambda: live(ask))


async def play(hub: "Hub", story: Story, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
    """Publish step after step; ends only when cancelled. What an earlier life has left open is ended, or goes on."""
    story.resume(event.data for event in hub.state.of("governance:vote_cast"))
    for left in leftovers(event.data for event in hub.state.of("task:progress")):
        await hub.publish("task:progress", {**left, "status": "cancelled", "message": "the demo began anew"})
    begun: dict[str, float] = {}
    for step in story.steps():
        await sleep(step.wait)
        await hub.publish(step.event, timed(step, begun, time.time()), ttl=step.ttl)


def timed(step: Step, begun: dict[str, float], now: float) -> Data:
    """The step's data; of a task that runs, or has, with its times, as it has `begun` by the clock."""
    data, status = step.data, step.data.get("status")
    if step.event != "task:progress" or (status != "running" and data["id"] not in begun):
        return data
    began = begun.setdefault(data["id"], now - step.age)
    timed = {**data, "started_at": stamp(began)}
    if status == "running":
        return timed
    del begun[data["id"]]
    return {**timed, "ended_at": stamp(now), "duration_ms": round((now - began) * 1000)}


async def ask(hub: "Hub", story: Story) -> None:
    """Ask one question after the other, and tell the story each answer; ends only when cancelled.

    A question that was open when the hub stopped is asked on: it is the same one.
    """
    for number in itertools.count(_next(event.data for event in hub.state.of("hub:question"))):
        what = scene(number)
        story.asked(number)
        details = {"agent": ASKER, "task": about(number)}
        given: dict[str, Any] = {"default": what.default, "timeout": PATIENCE, "details": details}
        try:
            told = await hub.ask(what.question, list(what.outcomes), key=f"demo-{number}", **given)
        except HubError:  # withdrawn, or the store is away
            await asyncio.sleep(RETRY)
        else:
            story.decided(number, told.answer)


def _next(questions: Iterable[Any]) -> int:
    """The number of the question that is still open, or the one behind all that were asked."""
    known = {number: one["status"] for one in questions if (number := _number_of(one["details"])) is not None}
    is_open = [number for number, status in known.items() if status == "open"]
    return min(is_open) if is_open else max(known, default=-1) + 1


def _number_of(details: Any) -> int | None:
    """The number of a question of this life's, by what it is about; None for any other."""
    if not isinstance(details, dict) or details.get("agent") != ASKER:
        return None
    number = str(details.get("task")).removeprefix(about(0).rstrip("0"))
    return int(number) if number.isdecimal() and len(number) < 10 else None
