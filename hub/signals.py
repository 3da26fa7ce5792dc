"""Who listens to what, in which order: the table of contents of the running hub."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from .commands.clients import Client
from .stream.events import Event

if TYPE_CHECKING:
    from .hub import Hub

log = logging.getLogger("hub")

OnEvents = Callable[[Sequence[Event]], Awaitable[None]]


def connect(hub: "Hub") -> None:
    """Tie the parts together. Called once, before the hub starts.

    Every batch of events goes to the last values, to the clients, to the metrics, and last to the application's
    listeners, in that order; none of the four waits for anything, so that whoever sees an event's number also finds
    it in the state and in the window.
    """
    for listener in (state, broadcaster, metrics):
        hub.bus.on_event.append(_own(hub, listener(hub)))
    hub.bus.on_event.append(hub.bus.listeners.offer)
    hub.bus.on_event.freeze()

    hub.bus.on_redacted = hub.metrics.redacted
    hub.bus.on_rejected = hub.metrics.rejected
    hub.broadcaster.connect(hub.metrics.delivered, hub.metrics.gap)
    hub.broadcaster.on_flush = deliveries(hub)
    hub.state.on_stale = stale(hub)

    hub.clients.on_join.append(joined(hub))
    hub.clients.on_leave += [out_of_the_stream(hub), left(hub)]

    hub.commands.on_refused = refusals(hub)
    hub.commands.on_call.append(calls(hub))
    hub.commands.on_call.freeze()


def state(hub: "Hub") -> OnEvents:
    """A snapshot of the last values is true at the newest number that went through here."""

    async def apply(batch: Sequence[Event]) -> None:
        hub.state.apply(batch)

    return apply


def broadcaster(hub: "Hub") -> OnEvents:
    """From here events reach the clients."""

    async def deliver(batch: Sequence[Event]) -> None:
        hub.broadcaster.deliver(batch)

    return deliver


def metrics(hub: "Hub") -> OnEvents:
    async def count(batch: Sequence[Event]) -> None:
        hub.metrics.events(batch)

    return count


def joined(hub: "Hub") -> Callable[[Client], None]:
    def count(client: Client) -> None:
        hub.metrics.connected(client.transport)

    return count


def out_of_the_stream(hub: "Hub") -> Callable[[Client, str], None]:
    """Nothing is written to a client from the step on in which it leaves."""

    def leave(client: Client, reason: str) -> None:
        if client.subscriber is not None:
            hub.broadcaster.leave(client.subscriber)

    return leave


def left(hub: "Hub") -> Callable[[Client, str], None]:
    def count(client: Client, reason: str) -> None:
        hub.metrics.disconnected(reason)

    return count


def calls(hub: "Hub") -> Callable[[str, str, float], Awaitable[None]]:
    async def count(command: str, outcome: str, seconds: float) -> None:
        hub.metrics.command(command, outcome, seconds)

    return count


def refusals(hub: "Hub") -> Callable[[str, str], None]:
    def count(command: str, code: str) -> None:
        hub.metrics.command(command, code, None)

    return count


def deliveries(hub: "Hub") -> Callable[[Sequence[Event], float], None]:
    """From accepted to written, once for each event: for the client in the middle of those written in this flush."""

    def observe(events: Sequence[Event], took: float) -> None:
        written = time.monotonic() - took / 2
        for event in events:
            hub.metrics.delivery(written - event.accepted)

    return observe


def stale(hub: "Hub") -> Callable[[Event], Awaitable[None]]:
    """The end of a lease is an event like any other, with a number of its own; it names the one that it ends, because
    a newer one of the key may be on its way."""

    async def announce(ended: Event) -> None:
        await hub.bus.announce("hub:stale", {"event": ended.name, "key": ended.key, "seq": ended.seq})

    return announce


def _own(hub: "Hub", listener: OnEvents) -> OnEvents:
    """A part of the hub's own that fails is a bug: logged and counted. aiosignal would stop there; we go on."""

    async def guarded(batch: Sequence[Event]) -> None:
        try:
            await listener(batch)
        except Exception:
            hub.bugs += 1
            log.exception("the hub failed on the events %s to %s", batch[0].cursor, batch[-1].cursor)

    return guarded
