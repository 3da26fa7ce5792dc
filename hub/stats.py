"""What was counted, as plain JSON: what `hub:stats` shows."""

import math
from collections.abc import Sequence
from typing import Any

from prometheus_client.core import Metric

from .collectors import Collected

SUFFIXES = {"counter": "_total", "info": "_info"}


def snapshot(counted: Collected) -> dict[str, Any]:
    """All `hub_…` metrics of it, by their names on `/metrics`.

    Without a label a number (`"hub_missed_events_total": 3`), with one an object by its value
    (`"hub_clients": {"sse": 0, "websocket": 2}`), with two an object in an object
    (`"hub_commands_total": {"hub:ping": {"ok": 4}}`). What was never counted is left out of them.
    A histogram is `{"count", "sum", "mean", "p50", "p95", "p99"}` in seconds: half of all took `p50` or
    less, and so on. These are upper bounds (of the bucket), None where there is none to give.
    """
    found: dict[str, Any] = {}
    for metric in counted.collect():
        if metric.name.startswith("hub_"):
            shape = _summaries if metric.type == "histogram" else _numbers
            found[metric.name + SUFFIXES.get(metric.type, "")] = shape(metric)
    return found


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
