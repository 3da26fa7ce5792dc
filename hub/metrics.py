"""What Prometheus sees: every name of the contract, on a registry of the hub's own.

Counting is cheap, because it happens on the way of every event: children are kept, gauges are read when
somebody scrapes. No label value comes from outside: what is not known here is counted as `other`.
"""

from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from functools import cache
from itertools import product
from typing import Protocol, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from .collectors import (
    OTHER,
    TRANSPORTS,
    UP_TO_5_S,
    UP_TO_30_S,
    Accepted,
    AtScrape,
    Collected,
    DeliverySeconds,
    Gauges,
    known,
)
from .errors import CODES, Code, Outcome
from .wire.vocabulary import (
    Adapter,
    ChannelType,
    Delivery,
    Disconnection,
    Failure,
    GapReason,
    HookOutcome,
    Notified,
    Refusal,
    Settled,
    Transport,
)

GAPS: tuple[str, ...] = get_args(GapReason)
OUTCOMES = ("ok", *CODES)
REFUSALS: tuple[str, ...] = get_args(Refusal)
DISCONNECTIONS: tuple[str, ...] = get_args(Disconnection)
FAILURES: tuple[str, ...] = get_args(Failure)
DELIVERIES: tuple[str, ...] = get_args(Delivery)
SETTLED: tuple[str, ...] = get_args(Settled)


class Named(Protocol):
    """As much of an event as is counted."""

    @property
    def name(self) -> str: ...


class Metrics:
    """The counters of one hub, and `registry` for whoever serves them. `gather` is what is shown: them, or what all
    workers of a port have counted together.

    `events` and `commands` answer `name in …` for the names that the hub's own code has registered; never put
    names in them that a client chose (those of provided commands, say). Durations are in seconds. All methods
    are for the event loop's thread.
    """

    def __init__(self, version: str = "", *, events: Container[str] = (), commands: Container[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._commands_known = commands
        self.gather: Callable[[], Awaitable[Collected]] = self._alone
        self._gauges: Callable[[], Gauges] = Gauges
        self._delivery = DeliverySeconds()
        self._count_clients(self._counter)
        self._count_events(self._counter, events)
        self._time(self._histogram)
        Info("hub_build", "The hub's version.", registry=self.registry).info({"version": version})
        self.registry.register(self._delivery)
        self.registry.register(AtScrape(lambda: self._gauges()))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _count_clients(self, new: Callable[..., Counter]) -> None:
        self._connections = new("hub_connections", "Clients that have connected.", transport=TRANSPORTS)
        self._refused = new("hub_connections_refused", "Requests not let in.", reason=REFUSALS)
        self._disconnections = new("hub_disconnections", "Clients that have gone.", reason=DISCONNECTIONS)
        self._rate_limited = new("hub_rate_limited", "Messages and requests over the rate limit.")
        self._failures = new("hub_failures", "Failures that were contained, by whose code it was.", part=FAILURES)
        calls = new("hub_commands", "Calls by outcome.", command=(), outcome=())
        self._call_outcome = cache(calls.labels)  # bounded: both values are known ones
        self._questions = new("hub_questions", "Questions that are over, by how they ended.", outcome=SETTLED)
        hooks = new("hub_hooks", "Hooks of agents and services, by what became of them.", adapter=(), outcome=())
        told = new("hub_notifications", "Messages to people, by type of channel.", channel=(), outcome=())
        self._notification = cache(told.labels)  # both values are of a closed list
        for pair in product(get_args(ChannelType), get_args(Notified)):
            self._notification(*pair)
        self._webhooks = new("hub_webhook_deliveries", "Tries to send to a webhook.", outcome=DELIVERIES)
        self._hook_outcome = cache(hooks.labels)  # bounded: both values are of a closed list

    def _count_events(self, new: Callable[..., Counter], events: Container[str]) -> None:
        accepted = new("hub_events", "Events accepted, by the hub that they were published to.", event=())
        delivered = new("hub_deliveries", "Events written to clients.", transport=TRANSPORTS)
        written = new("hub_delivered_bytes", "Bytes written to clients.", transport=TRANSPORTS)
        self._accepted = _Children(accepted, events)
        self._delivered = _Children(delivered, TRANSPORTS)
        self._written = _Children(written, TRANSPORTS)
        self._rejected = new("hub_events_rejected", "Events refused.", reason=CODES)
        self._gaps = new("hub_gaps", "Gaps announced to clients.", reason=GAPS)
        self._missed = new("hub_missed_events", "Events inside announced gaps.")
        self._redactions = new("hub_redactions", "Secrets taken out of events.")

    def _time(self, new: Callable[..., Histogram]) -> None:
        lag, seconds = "How much later than asked the event loop came back.", "From a call to its outcome."
        audit = "Making a group of audit records durable."
        self._loop_lag = new("hub_loop_lag_seconds", lag, UP_TO_5_S)
        self._call_seconds = cache(new("hub_command_seconds", seconds, UP_TO_30_S, "command").labels)
        self._audit_seconds = new("hub_audit_write_seconds", audit, UP_TO_5_S)

    def _counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        """A counter, at 0 for the label values that are known, so that a first increase is seen."""
        counter = Counter(name, text, tuple(labels), registry=self.registry)
        if len(labels) == 1:
            for value in (*next(iter(labels.values())), OTHER):
                counter.labels(value)
        return counter

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    async def _alone(self) -> Collected:
        return self.registry

    def connected(self, transport: Transport) -> None:
        """A client has joined."""
        self._connections.labels(known(transport, TRANSPORTS)).inc()

    def disconnected(self, reason: Disconnection) -> None:
        """A client has gone."""
        self._disconnections.labels(known(reason, DISCONNECTIONS)).inc()

    def refused(self, reason: Refusal) -> None:
        """A connection or request was not let in."""
        self._refused.labels(known(reason, REFUSALS)).inc()

    def failed(self, part: Failure) -> None:
        """Code has failed, and everything else went on."""
        self._failures.labels(known(part, FAILURES)).inc()

    def events(self, batch: Iterable[Named]) -> None:
        """These events were accepted here. One increase for each name, however long the batch."""
        counts: dict[str, int] = {}
        for event in batch:
            name = event.name
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self._accepted[name].inc(count)

    def rejected(self, reason: Code, n: int = 1) -> None:
        """`n` events were refused with this error code."""
        self._rejected.labels(known(reason, CODES)).inc(n)

    def delivered(self, transport: Transport, events: int, clients: int, bytes: int) -> None:
        """Each of so many clients was written so many events, in so many bytes each."""
        self._delivered[transport].inc(events * clients)
        self._written[transport].inc(bytes * clients)

    def deliveries(self, events: Sequence[Accepted], written: float) -> None:
        """These events, in their order, were written at this moment of the monotonic clock."""
        self._delivery.observe(events, written)

    def gap(self, reason: GapReason, missed: int | None) -> None:
        """A gap was announced; `missed` is None if nobody knows how many events it holds."""
        self._gaps.labels(known(reason, GAPS)).inc()
        self._missed.inc(missed or 0)

    def command(self, command: str, outcome: Outcome, seconds: float | None) -> None:
        """A call was answered; `outcome` is `ok` or the error code, `seconds` None if it was refused unrun."""
        name = known(command, self._commands_known)
        self._call_outcome(name, known(outcome, OUTCOMES)).inc()
        if seconds is not None:
            self._call_seconds(name).observe(seconds)

    def question(self, how: Settled) -> None:
        """A question is over."""
        self._questions.labels(how).inc()

    def hook(self, adapter: Adapter, outcome: HookOutcome) -> None:
        """A hook has come."""
        self._hook_outcome(adapter, outcome).inc()

    def notification(self, channel: ChannelType, outcome: Notified) -> None:
        """A message was sent, was not, or is not true any more."""
        self._notification(channel, outcome).inc()

    def webhook(self, outcome: Delivery) -> None:
        """A webhook was tried."""
        self._webhooks.labels(outcome).inc()

    def rate_limited(self) -> None:
        """A message or request was over the rate limit."""
        self._rate_limited.inc()

    def audit_written(self, records: int, seconds: float) -> None:
        """A group of records became durable. Their number is the log's own: `Gauges.audit_records`."""
        self._audit_seconds.observe(seconds)

    def redacted(self, n: int) -> None:
        """`n` secrets were taken out of an event."""
        self._redactions.inc(n)

    def loop_lag(self, seconds: float) -> None:
        """The event loop came back so much later than asked."""
        self._loop_lag.observe(seconds)

    def watch(self, gauges: Callable[[], Gauges]) -> None:
        """Ask this at every scrape for what is true now. It must neither wait nor raise."""
        self._gauges = gauges


class _Children(dict[str, Counter]):
    """The counters of one family by label value, kept: to ask the library costs more than to count."""

    def __init__(self, family: Counter, names: Container[str]) -> None:
        super().__init__()
        self._family = family
        self._names = names

    def __missing__(self, value: str) -> Counter:
        label = known(value, self._names)
        child = self._family.labels(label)
        if label == value:  # an unknown value is never kept: memory would grow with what clients send
            self[value] = child
        return child
