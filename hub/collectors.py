"""What is not counted along but asked for at a scrape, and the one histogram that is not the library's."""

import math
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .wire.vocabulary import Transport

OTHER = "other"
TRANSPORTS: tuple[str, ...] = get_args(Transport)
WORKER_STATES = ("up", "stale", "down")

MICROSECONDS = (50e-6, 100e-6, 250e-6, 500e-6)
MILLISECONDS = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3)
UP_TO_5_S = (*MICROSECONDS, *MILLISECONDS, 1.0, 2.5, 5.0)
UP_TO_30_S = (*UP_TO_5_S, 10.0, 30.0)


class Collected(Protocol):
    """What can be exposed: a registry, or what several processes have counted together."""

    def collect(self) -> Iterable[Metric]: ...


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
    state_evicted: int = 0
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


class DeliverySeconds(Collector):
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


class AtScrape(Collector):
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
        yield workers({"up": 1})
        yield from (GaugeMetricFamily(name, text, value) for name, text, value in _plain(now))
        yield CounterMetricFamily("hub_audit_records", "Records in the audit log.", now.audit_records)
        yield CounterMetricFamily(
            "hub_audit_unrecorded", "Reads answered that could not be recorded.", now.audit_unrecorded
        )
        text = "Last values for which there was no room any more."
        yield CounterMetricFamily("hub_state_evicted", text, now.state_evicted)
        yield CounterMetricFamily("hub_log_dropped", "Lines that nobody has read on stderr.", now.log_dropped)


def workers(states: Mapping[str, int]) -> Metric:
    """How many hubs of this port there are, by how they are: one, or all that `--workers` has started."""
    metric = GaugeMetricFamily("hub_workers", "Hubs that share this port, by how they are.", labels=["state"])
    for state in WORKER_STATES:
        metric.add_metric([state], states.get(state, 0))
    return metric


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
