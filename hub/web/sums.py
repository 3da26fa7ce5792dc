"""What several processes have counted, as if it were one: how each metric is put together."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

Sample = tuple[str, dict[str, str], float]
Family = tuple[str, str, str, list[Sample]]  # name, text, type, samples

# Gauges that are not added up. Of what belongs to the stream, which all see alike, and of what has a limit in each
# process: the most that one of them says.
MOST = frozenset(
    {
        "hub_build",
        "hub_history_events",
        "hub_history_bytes",
        "hub_state_items",
        "hub_state_bytes",
        "hub_questions_open",
        "process_open_fds",
        "process_max_fds",
        "python_info",
    }
)
LEAST = frozenset({"hub_broker_up", "hub_audit_chain_valid", "process_start_time_seconds"})  # one that fails is enough
COUNTED = frozenset({"counter", "histogram"})  # types of what only grows, and outlives the process that has counted it
# Of the audit log, which outlives its worker: what is said of it last is true also while that is not there, and the
# next one goes on from it.
OF_THE_LOG = frozenset({"hub_audit_records", "hub_audit_chain_valid"})
EACH = frozenset({"hub_audit_records"})  # with a label: in a sum nobody would see that one log is shorter than before


def families(metrics: Iterable[Metric]) -> list[Family]:
    """These metrics as they can be sent."""
    return [
        (metric.name, metric.documentation, metric.type, [(s.name, dict(s.labels), s.value) for s in metric.samples])
        for metric in metrics
    ]


def lasting(said: Iterable[Family]) -> list[Family]:
    """What stays true of a worker that has ended."""
    return [family for family in said if family[2] in COUNTED or family[0] in OF_THE_LOG]


def before(said: Iterable[Family]) -> list[Family]:
    """What a worker goes on from that takes the place of one that has ended."""
    return [family for family in lasting(said) if family[0] not in OF_THE_LOG]


def of_worker(number: int, said: Iterable[Family]) -> Iterator[Family]:
    """The same, with the worker named where each stands for itself."""
    for name, text, kind, samples in said:
        if name in EACH:
            samples = [(sample, {**labels, "worker": str(number)}, value) for sample, labels, value in samples]
        yield name, text, kind, samples


class Summed(Collector):
    """What several processes have counted, as if it were one."""

    def __init__(self, said: Iterable[Iterable[Family]]) -> None:
        self._found: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
        for registry in said:
            for name, text, kind, samples in registry:
                self._add(name, text, kind, samples)

    def _add(self, name: str, text: str, kind: str, samples: Iterable[Sample]) -> None:
        join = max if name in MOST else min if name in LEAST else float.__add__
        _, _, values = self._found.setdefault(name, (text, kind, {}))
        for sample, labels, value in samples:
            place = sample, tuple(sorted(labels.items()))
            join_created = min if sample.endswith("_created") else join
            values[place] = join_created(values[place], float(value)) if place in values else float(value)

    def collect(self) -> Iterator[Metric]:
        for name, (text, kind, values) in self._found.items():
            metric = Metric(name, text, kind)
            for (sample, labels), value in values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
