"""Who listens to what, in which order: the table of contents of the running hub."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .collectors import Gauges
from .errors import Outcome
from .stderr import dropped
from .stream.events import Event

if TYPE_CHECKING:
    from .audit.log import AuditLog
    from .commands.clients import Client, Clients
    from .commands.elsewhere import Across
    from .commands.providers import Providers
    from .commands.questions import Questions
    from .commands.registry import Registry
    from .life import Life
    from .metrics import Metrics
    from .outward.outward import Outward
    from .stream.broadcaster import Broadcaster
    from .stream.brokers.broker import Broker
    from .stream.bus import EventBus
    from .stream.ends import Ends
    from .stream.liveness import Liveness
    from .stream.recent import Recent
    from .stream.state import State
    from .wire.vocabulary import Disconnection

log = logging.getLogger("hub")

OnEvents = Callable[[Sequence[Event]], Awaitable[None]]
OnBatch = Callable[[Sequence[Event]], object]


def connect(
    *,
    bus: "EventBus",
    state: "State",
    recent: "Recent",
    liveness: "Liveness",
    ends: "Ends",
    broadcaster: "Broadcaster",
    commands: "Registry",
    clients: "Clients",
    providers: "Providers",
    questions: "Questions",
    across: "Across",
    audit: "AuditLog",
    outward: "Outward",
    metrics: "Metrics",
    life: "Life",
    moved: Iterable[Callable[[], None]],
) -> None:
    """Tie the parts together: every hook of the hub is set here. Called once, before the hub starts.

    Those that hear of events never wait, so that whoever sees an event's number also finds it in the state and in
    the window.
    """
    # Every batch of events, in this order. A snapshot of the last values is true at the newest number that went
    # through; then the clients get it, the page hears that there is news, and last the application.
    own: list[OnBatch] = [
        state.apply,
        broadcaster.deliver,
        questions.apply,
        liveness.apply,
        lambda batch: outward.wake(),
        recent.apply,
        *([ends.hand_on] if ends.hands_on else []),
        lambda batch: [listener() for listener in moved],
    ]
    bus.on_event.append(_each(own, metrics))
    bus.on_event.append(bus.listeners.offer)
    bus.on_event.freeze()

    # What becomes an event again.
    state.on_stale = stale(bus)
    state.on_dropped = questions.keep
    liveness.before_ends = ends.take

    # Who comes, and what ends in the very step in which one goes.
    clients.on_join.append(lambda client: metrics.connected(client.transport))
    clients.on_leave.append(out_of_the_stream(broadcaster))
    clients.on_leave.append(end_reading)
    clients.on_leave.append(providers.leave)
    clients.on_leave.append(lambda client, reason: questions.withdraw_of(client))
    clients.on_leave.append(lambda client, reason: metrics.disconnected(reason))

    commands.on_stopping = questions.release
    across.on_alive = questions.alive

    # What is counted: on the way in,
    bus.on_accepted = metrics.events
    bus.on_redacted = metrics.redacted
    bus.on_rejected = metrics.rejected
    bus.listeners.on_failure = lambda: metrics.failed("listener")
    # on the way out,
    broadcaster.connect(metrics.delivered, metrics.gap)
    broadcaster.on_flush = deliveries(metrics)
    # in every call, whether it ran or not,
    commands.on_call.append(calls(metrics))
    commands.on_call.freeze()
    commands.on_refused = lambda command, code: metrics.command(command, code, None)
    # in every question,
    questions.settling.on_settled = metrics.question
    # in all that is told to others,
    outward.notifier.on_sent = metrics.notification
    outward.webhooks.on_delivery = metrics.webhook
    # on the disk,
    audit.on_write = metrics.audit_written
    # and at each scrape.
    metrics.watch(gauges(clients, providers, broadcaster, bus.broker, state, questions, outward, audit, life))


def stale(bus: "EventBus") -> OnEvents:
    """The end of a lease is an event like any other, with a number of its own; it names the one that it ends, because
    a newer one of the key may be on its way. Its id does, too: so several hubs of one stream say it once."""

    async def announce(ended: Sequence[Event]) -> None:
        words = {f"stale-{event.seq}": {"event": event.name, "key": event.key, "seq": event.seq} for event in ended}
        await bus.announce("hub:stale", words)

    return announce


def out_of_the_stream(broadcaster: "Broadcaster") -> "Callable[[Client, Disconnection], None]":
    """Nothing is written to a client from the step on in which it leaves."""

    def leave(client: "Client", reason: "Disconnection") -> None:
        if client.subscriber is not None:
            broadcaster.leave(client.subscriber)

    return leave


def end_reading(client: "Client", reason: "Disconnection") -> None:
    """Nobody is there any more for whom the hub would look through what it keeps. All other calls of commands of the
    hub's own process run to their end."""
    for call in client.calls.values():
        if call.command is not None and call.command.turns != "none":
            call.cancel()


def deliveries(metrics: "Metrics") -> Callable[[Sequence[Event], float], None]:
    """From accepted to written, once for each event: for the client in the middle of those written in this flush."""

    def observe(events: Sequence[Event], took: float) -> None:
        metrics.deliveries(events, time.monotonic() - took / 2)

    return observe


def calls(metrics: "Metrics") -> Callable[[str, Outcome, float], Awaitable[None]]:
    async def count(command: str, outcome: Outcome, seconds: float) -> None:
        metrics.command(command, outcome, seconds)

    return count


def gauges(
    clients: "Iterable[Client]",
    providers: "Providers",
    broadcaster: "Broadcaster",
    broker: "Broker",
    state: "State",
    questions: "Questions",
    outward: "Outward",
    audit: "AuditLog",
    life: "Life",
) -> Callable[[], Gauges]:
    """What is true at the moment of a scrape."""

    def now() -> Gauges:
        return Gauges(
            clients=Counter(client.transport for client in clients),
            providers=len(providers),
            lagging_clients=broadcaster.lagging,
            history_events=broker.head - broker.tail + 1,
            history_bytes=broker.bytes,
            state_items=len(state),
            state_bytes=state.bytes,
            state_evicted=state.dropped,
            questions_open=len(questions),
            webhook_lag_events=outward.webhooks.lag,
            broker_up=life.running and not broker.problem,
            audit_records=audit.seq,
            audit_unrecorded=audit.unrecorded,
            audit_chain_valid=audit.valid,
            log_dropped=dropped(),
        )

    return now


def _each(own: Sequence[OnBatch], metrics: "Metrics") -> OnEvents:
    """A part of the hub's own that fails is a bug: logged and counted. aiosignal would stop there; we go on."""

    async def guarded(batch: Sequence[Event]) -> None:
        for listener in own:
            try:
                listener(batch)
            except (Exception, asyncio.CancelledError):
                metrics.failed("hub")
                log.exception(
                    "the hub failed on the events %s to %s, which is a bug of the hub; "
                    "they are kept, but a part of it has missed them: restart it",
                    batch[0].cursor,
                    batch[-1].cursor,
                )

    return guarded
