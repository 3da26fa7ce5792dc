"""What Prometheus sees: every name of the contract, on a registry of the hub's own.

Counting is cheap, because it happens on the way of every event: children are kept, gauges are read when
somebody scrapes. No label value comes from outside: what is not known here is counted as `other`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from operator import attrgetter
from typing import Any, Protocol, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

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

OTHER = "other"
TRANSPORTS: tuple[str, ...] = get_args(Transport)
GAPS: tuple[str, ...] = get_args(GapReason)
OUTCOMES = ("ok", *CODES)
REFUSALS: tuple[str, ...] = get_args(Refusal)
DISCONNECTIONS: tuple[str, ...] = get_args(Disconnection)
FAILURES: tuple[str, ...] = get_args(Failure)
DELIVERIES: tuple[str, ...] = get_args(Delivery)
SETTLED: tuple[str, ...] = get_args(Settled)

MICROSECONDS = (50e-6, 100e-6, 250e-6, 500e-6)
MILLISECONDS = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3)
UP_TO_5_S = (*MICROSECONDS, *MILLISECONDS, 1.0, 2.5, 5.0)
UP_TO_30_S = (*UP_TO_5_S, 10.0, 30.0)


class Named(Protocol):
    """As much of an event as is counted."""

    @property
    def name(self) -> str: ...


class Accepted(Protocol):
    """As much of an event as is timed: when it was accepted, on the monotonic clock."""

    @property
    def accepted(self) -> float: ...


_accepted: Callable[[Accepted], float] = attrgetter("accepted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is true now, as `Metrics.watch` asks for it at every scrape."""

    clients: Mapping[str, int] = field(default_factory=dict)
    lagging_clients: int = 0
    providers: int = 0
    history_events: int = 0
    history_bytes: int = 0
    state_items: int = 0
    state_bytes: int = 0
    questions_open: int = 0
    webhook_lag_events: int = 0
    broker_up: bool = False
    audit_records: int = 0
    audit_unrecorded: int = 0
    audit_chain_valid: bool = False
    log_dropped: int = 0


def known(value: str, names: Container[str]) -> str:
    """The value as a label, or `other`. Stops a client that makes a new time series with every message."""
    return value if value in names else OTHER


class Metrics:
    """The counters of one hub, and `registry` for whoever serves them.

    `events` and `commands` answer `name in …` for the names that the hub's own code has registered; never put
    names in them that a client chose (those of provided commands, say). Durations are in seconds. All methods
    are for the event loop's thread.
    """

    def __init__(self, version: str = "", *, events: Container[str] = (), commands: Container[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._commands_known = commands
        self._gauges: Callable[[], Gauges] = Gauges
        self._delivery = _Delivery()
        self._count_clients(self._counter)
        self._count_events(self._counter, events)
        self._time(self._histogram)
        Info("hub_build", "The hub's version.", registry=self.registry).info({"version": version})
        self.registry.register(self._delivery)
        self.registry.register(_AtScrape(lambda: self._gauges()))
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
        accepted = new("hub_events", "Events accepted.", event=())
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
        """These events were accepted. One increase for each name, however long the batch."""
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

    def snapshot(self) -> dict[str, Any]:
        """All `hub_…` metrics as plain JSON, by their names on `/metrics`.

        Without a label a number (`"hub_missed_events_total": 3`), with one an object by its value
        (`"hub_clients": {"sse": 0, "websocket": 2}`), with two an object in an object
        (`"hub_commands_total": {"hub:ping": {"ok": 4}}`). What was never counted is left out of them.
        A histogram is `{"count", "sum", "mean", "p50", "p95", "p99"}` in seconds: half of all took `p50` or
        less, and so on. These are upper bounds (of the bucket), None where there is none to give.
        """
        found: dict[str, Any] = {}
        for metric in self.registry.collect():
            if metric.name.startswith("hub_"):
                shape = _summaries if metric.type == "histogram" else _numbers
                found[metric.name + SUFFIXES.get(metric.type, "")] = shape(metric)
        return found


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


class _Delivery(Collector):
    """The histogram of deliveries. Not the library's: a flush of many events costs a few additions."""

    def __init__(self) -> None:
        self._counts = [0] * (len(UP_TO_5_S) + 1)
        self._sum = 0.0

    def observe(self, events: Sequence[Accepted], written: float) -> None:
        """Later events have waited less, so those of one bucket stand together: each bucket's share is cut out."""
        self._sum += len(events) * written - sum(map(_accepted, events))
        done, end = 0, len(events)
        while done < end:
            bucket = bisect_left(UP_TO_5_S, written - events[done].accepted)
            share = end
            if bucket and written - events[-1].accepted <= UP_TO_5_S[bucket - 1]:
                share = bisect_left(events, written - UP_TO_5_S[bucket - 1], done + 1, key=_accepted)
            self._counts[bucket] += share - done
            done = share

    def collect(self) -> Iterator[Metric]:
        total, buckets = 0, []
        for bound, count in zip((*UP_TO_5_S, math.inf), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == math.inf else str(bound), float(total)))
        text = "From an event's acceptance until it was written to a client."
        yield HistogramMetricFamily("hub_delivery_seconds", text, buckets, self._sum)


class _AtScrape(Collector):
    """What the hub is asked for when somebody scrapes, in place of being counted along."""

    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        now = self._gauges()
        counts = dict.fromkeys(("websocket", "sse"), 0)
        for transport, count in now.clients.items():
            label = known(transport, TRANSPORTS)
            counts[label] = counts.get(label, 0) + count
        clients = GaugeMetricFamily("hub_clients", "Clients connected now.", labels=["transport"])
        for label, count in counts.items():
            clients.add_metric([label], count)
        yield clients
        yield from (GaugeMetricFamily(name, text, value) for name, text, value in _plain(now))
        yield CounterMetricFamily("hub_audit_records", "Records in the audit log.", now.audit_records)
        yield CounterMetricFamily(
            "hub_audit_unrecorded", "Reads answered that could not be recorded.", now.audit_unrecorded
        )
        yield CounterMetricFamily("hub_log_dropped", "Lines that nobody has read on stderr.", now.log_dropped)


def _plain(now: Gauges) -> Iterator[tuple[str, str, float]]:
    yield "hub_lagging_clients", "Clients that are behind the newest event.", now.lagging_clients
    yield "hub_providers", "Clients that provide commands.", now.providers
    yield "hub_history_events", "Events kept.", now.history_events
    yield "hub_history_bytes", "Bytes of events kept.", now.history_bytes
    yield "hub_state_items", "Last values kept.", now.state_items
    yield "hub_state_bytes", "Bytes of last values kept.", now.state_bytes
    yield "hub_questions_open", "Questions that wait for a person.", now.questions_open
    yield "hub_webhook_lag_events", "Events that the hindmost webhook has before it.", now.webhook_lag_events
    yield "hub_broker_up", "Whether events can be kept.", now.broker_up
    yield "hub_audit_chain_valid", "Whether the chain of audit records is intact.", now.audit_chain_valid


SUFFIXES = {"counter": "_total", "info": "_info"}


def _numbers(metric: Metric) -> Any:
    tree: dict[str, Any] = {}
    for sample in metric.samples:
        if sample.name.endswith("_created"):
            continue
        value = int(sample.value) if sample.value == int(sample.value) else sample.value
        if not sample.labels:
            return value
        if not value and metric.type == "counter":
            continue
        *path, last = sample.labels.values()
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[last] = value
    return tree


def _summaries(metric: Metric) -> Any:
    buckets: dict[str, list[tuple[float, float]]] = {}
    sums: dict[str, float] = {}
    for sample in metric.samples:
        label = next((value for name, value in sample.labels.items() if name != "le"), "")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(label, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[label] = sample.value
    summaries = {label: _summary(found, sums[label]) for label, found in buckets.items()}
    return summaries.get("", summaries)


def _summary(buckets: Sequence[tuple[float, float]], total: float) -> dict[str, Any]:
    count = int(buckets[-1][1])
    summary: dict[str, Any] = {"count": count, "sum": total, "mean": total / count if count else None}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        bound = next(bound for bound, below in buckets if below >= share * count)
        summary[name] = bound if count and bound < math.inf else None
    return summary
