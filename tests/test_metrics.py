"""The names of the contract, on both expositions, and the bound on their number."""

import json
import random
import shutil
import subprocess
from collections.abc import Container
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import hub.collectors
import hub.metrics
from hub.collectors import UP_TO_5_S, Gauges
from hub.config import Config
from hub.errors import CODES, Code
from hub.metrics import Metrics
from hub.stats import snapshot
from hub.web.access.guard import Guard
from hub.wire.vocabulary import Disconnection, Failure, GapReason, Refusal, Transport

# Name, type and labels, as the contract has them.
CONTRACT = {
    "hub_build_info": ("gauge", {"version"}),
    "hub_clients": ("gauge", {"transport"}),
    "hub_connections_total": ("counter", {"transport"}),
    "hub_connections_refused_total": ("counter", {"reason"}),
    "hub_disconnections_total": ("counter", {"reason"}),
    "hub_events_total": ("counter", {"event"}),
    "hub_events_rejected_total": ("counter", {"reason"}),
    "hub_deliveries_total": ("counter", {"transport"}),
    "hub_delivered_bytes_total": ("counter", {"transport"}),
    "hub_gaps_total": ("counter", {"reason"}),
    "hub_missed_events_total": ("counter", set()),
    "hub_lagging_clients": ("gauge", set()),
    "hub_providers": ("gauge", set()),
    "hub_workers": ("gauge", {"state"}),
    "hub_questions_open": ("gauge", set()),
    "hub_questions_total": ("counter", {"outcome"}),
    "hub_hooks_total": ("counter", {"adapter", "outcome"}),
    "hub_notifications_total": ("counter", {"channel", "outcome"}),
    "hub_webhook_deliveries_total": ("counter", {"outcome"}),
    "hub_webhook_lag_events": ("gauge", set()),
    "hub_delivery_seconds": ("histogram", set()),
    "hub_commands_total": ("counter", {"command", "outcome"}),
    "hub_command_seconds": ("histogram", {"command"}),
    "hub_rate_limited_total": ("counter", set()),
    "hub_audit_records_total": ("counter", set()),
    "hub_audit_unrecorded_total": ("counter", set()),
    "hub_log_dropped_total": ("counter", set()),
    "hub_audit_chain_valid": ("gauge", set()),
    "hub_audit_write_seconds": ("histogram", set()),
    "hub_history_events": ("gauge", set()),
    "hub_history_bytes": ("gauge", set()),
    "hub_redactions_total": ("counter", set()),
    "hub_state_items": ("gauge", set()),
    "hub_state_evicted_total": ("counter", set()),
    "hub_state_bytes": ("gauge", set()),
    "hub_broker_up": ("gauge", set()),
    "hub_loop_lag_seconds": ("histogram", set()),
    "hub_failures_total": ("counter", {"part"}),
}
KNOWN = {"task:progress", "agent:status_change"}


def named(*names: str) -> list[Any]:
    return [SimpleNamespace(name=name) for name in names]


def accepted(*waits: float) -> list[Any]:
    """Events that are written at 1000.0, when they have waited so many seconds."""
    return [SimpleNamespace(accepted=1000.0 - wait) for wait in waits]


def gauges() -> Gauges:
    return Gauges(
        clients={"websocket": 2, "sse": 1},
        lagging_clients=1,
        history_events=7,
        history_bytes=700,
        broker_up=True,
        audit_records=12,
        audit_unrecorded=3,
        log_dropped=4,
        audit_chain_valid=True,
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", events=KNOWN, commands={"hub:ping"})


def live(metrics: Metrics) -> Metrics:
    """After a bit of everything, so that each family has a sample."""
    metrics.watch(gauges)
    metrics.connected("websocket")
    metrics.disconnected("closed")
    metrics.refused("origin")
    metrics.events(named("task:progress", "agent:status_change", "task:progress", "shop:sold"))
    metrics.rejected("invalid_message", 4)
    metrics.delivered("websocket", events=3, clients=2, bytes=300)
    metrics.deliveries(accepted(0.0004, 0.0004), 1000.0)
    metrics.failed("listener")
    metrics.gap("slow", 9)
    metrics.gap("epoch", None)
    metrics.command("hub:ping", "ok", 0.002)
    metrics.hook("codex", "taken")
    metrics.rate_limited()
    metrics.audit_written(2, 0.003)
    metrics.redacted(5)
    metrics.loop_lag(0.0001)
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of the text exposition by its name and label values."""
    families = parse_text(generate_latest(metrics.registry).decode())
    return {(s.name, tuple(s.labels.values())): s.value for f in families for s in f.samples}


def test_every_name_of_the_contract_with_its_type_and_labels(metrics: Metrics) -> None:
    found = {}
    for family in parse_text(generate_latest(live(metrics).registry).decode()):
        if family.name.startswith("hub_") and not family.name.endswith("_created"):
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, {label for s in family.samples for label in s.labels} - {"le"})
    assert found == CONTRACT


def test_a_scrape_before_anything_happened_has_every_name(metrics: Metrics) -> None:
    text = generate_latest(metrics.registry).decode()
    types = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name: types.get(name) for name in CONTRACT} == {n: kind for n, (kind, _) in CONTRACT.items()}


def test_the_process_the_platform_and_the_collector_are_there(metrics: Metrics) -> None:
    names = {name for name, _ in samples(metrics)}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= names
    assert "python_gc_collections_total" in names


def test_what_is_counted_is_what_happened(metrics: Metrics) -> None:
    found = samples(live(metrics))
    expected = {
        ("hub_build_info", "1.2.3"): 1,
        ("hub_clients", "websocket"): 2,
        ("hub_clients", "sse"): 1,
        ("hub_connections_total", "websocket"): 1,
        ("hub_connections_refused_total", "origin"): 1,
        ("hub_disconnections_total", "closed"): 1,
        ("hub_events_total", "task:progress"): 2,
        ("hub_events_total", "agent:status_change"): 1,
        ("hub_events_total", "other"): 1,
        ("hub_events_rejected_total", "invalid_message"): 4,
        ("hub_deliveries_total", "websocket"): 6,
        ("hub_delivered_bytes_total", "websocket"): 600,
        ("hub_failures_total", "listener"): 1,
        ("hub_gaps_total", "slow"): 1,
        ("hub_gaps_total", "epoch"): 1,
        ("hub_missed_events_total",): 9,
        ("hub_lagging_clients",): 1,
        ("hub_delivery_seconds_count",): 2,
        ("hub_delivery_seconds_sum",): pytest.approx(0.0008),
        ("hub_commands_total", "hub:ping", "ok"): 1,
        ("hub_command_seconds_count", "hub:ping"): 1,
        ("hub_hooks_total", "codex", "taken"): 1,
        ("hub_rate_limited_total",): 1,
        ("hub_audit_records_total",): 12,
        ("hub_audit_unrecorded_total",): 3,
        ("hub_log_dropped_total",): 4,
        ("hub_audit_chain_valid",): 1,
        ("hub_audit_write_seconds_count",): 1,
        ("hub_history_events",): 7,
        ("hub_history_bytes",): 700,
        ("hub_redactions_total",): 5,
        ("hub_broker_up",): 1,
        ("hub_loop_lag_seconds_count",): 1,
    }
    assert {key: found.get((key[0], key[1:])) for key in expected} == expected


def test_a_gauge_is_read_at_the_scrape(metrics: Metrics) -> None:
    now = {"websocket": 1}
    metrics.watch(lambda: Gauges(clients=now))
    assert samples(metrics)["hub_clients", ("websocket",)] == 1
    now["websocket"] = 5
    assert samples(metrics)["hub_clients", ("websocket",)] == 5


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, "5e-05"), (5e-05, "5e-05"), (0.0004, "0.0005"), (99.0, "+Inf")])
def test_a_delivery_is_in_its_bucket_and_in_those_above(metrics: Metrics, seconds: float, bucket: str) -> None:
    metrics.deliveries(accepted(seconds, seconds, seconds), 1000.0)
    found = {labels[0]: n for (name, labels), n in samples(metrics).items() if name == "hub_delivery_seconds_bucket"}
    bounds = list(found)
    first = bounds.index(bucket)
    assert [found[bound] for bound in bounds] == [0] * first + [3] * (len(bounds) - first)


def test_promtool_has_nothing_to_say(metrics: Metrics) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    text = generate_latest(live(metrics).registry)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_openmetrics_is_read_by_its_own_parser(metrics: Metrics) -> None:
    text = generate_openmetrics(live(metrics).registry).decode()  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["hub_events"].type == "counter"
    assert families["hub_build"].type == "info"
    assert families["hub_delivery_seconds"].type == "histogram"


@pytest.mark.parametrize("auth", ["local", "token"])
def test_every_check_at_the_door_has_a_label_of_its_own(auth: str, tmp_path: Path) -> None:
    guard = Guard(Config(auth=auth, state_dir=tmp_path), refused=lambda reason, address: None)
    assert set(guard.checks) <= set(get_args(Refusal))


@pytest.mark.parametrize(
    ("count", "words", "name"),
    [
        ("connected", Transport, "hub_connections_total"),
        ("disconnected", Disconnection, "hub_disconnections_total"),
        ("refused", Refusal, "hub_connections_refused_total"),
        ("rejected", Code, "hub_events_rejected_total"),
        ("failed", Failure, "hub_failures_total"),
    ],
)
def test_every_word_of_a_vocabulary_is_counted_as_itself(metrics: Metrics, count: str, words: Any, name: str) -> None:
    for word in get_args(words):
        getattr(metrics, count)(word)
    assert snapshot(metrics.registry)[name] == dict.fromkeys(get_args(words), 1)


def test_every_outcome_and_every_gap_is_counted_as_itself(metrics: Metrics) -> None:
    outcomes = ("ok", *get_args(Code))
    for outcome in outcomes:
        metrics.command("hub:ping", outcome, None)
    for reason in get_args(GapReason):
        metrics.gap(reason, 1)
    assert snapshot(metrics.registry)["hub_commands_total"]["hub:ping"] == dict.fromkeys(outcomes, 1)
    assert snapshot(metrics.registry)["hub_gaps_total"] == dict.fromkeys(get_args(GapReason), 1)
    assert set(get_args(Code)) == set(CODES)


@pytest.mark.parametrize("seed", range(20))
def test_a_flush_is_observed_as_each_of_its_events_would_be(seed: int) -> None:
    draw, together, alone = random.Random(seed), Metrics(), Metrics()
    waits = [draw.choice([draw.choice(UP_TO_5_S), 10 ** draw.uniform(-6, 1.5)]) for _ in range(draw.randint(1, 200))]
    events = accepted(*sorted(waits, reverse=True))
    together.deliveries(events, 1000.0)
    for event in events:
        alone.deliveries([event], 1000.0)
    one, other = samples(together), samples(alone)
    found = {key: n for key, n in one.items() if key[0].startswith("hub_delivery_seconds_")}
    assert found == pytest.approx({key: other[key] for key in found})
    assert one["hub_delivery_seconds_count", ()] == len(events)


def test_two_hubs_in_one_process_never_meet(metrics: Metrics) -> None:
    other = Metrics(events=KNOWN)
    live(metrics)
    assert samples(other)["hub_events_total", ("other",)] == 0


def test_a_snapshot_is_plain_json_that_a_person_can_read(metrics: Metrics) -> None:
    shown = snapshot(live(metrics).registry)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert set(shown) == set(CONTRACT)
    assert shown["hub_missed_events_total"] == 9
    assert shown["hub_clients"] == {"websocket": 2, "sse": 1}
    assert shown["hub_gaps_total"] == {"slow": 1, "epoch": 1}
    assert shown["hub_commands_total"] == {"hub:ping": {"ok": 1}}
    assert shown["hub_audit_write_seconds"] == {
        "count": 1, "sum": 0.003, "mean": 0.003, "p50": 0.005, "p95": 0.005, "p99": 0.005
    }  # fmt: skip
    assert shown["hub_command_seconds"]["hub:ping"]["count"] == 1


def test_a_snapshot_claims_nothing_that_was_not_measured(metrics: Metrics) -> None:
    metrics.deliveries(accepted(60.0), 1000.0)
    shown = snapshot(metrics.registry)
    assert shown["hub_delivery_seconds"]["p50"] is None
    assert shown["hub_loop_lag_seconds"] == {
        "count": 0, "sum": 0.0, "mean": None, "p50": None, "p95": None, "p99": None
    }  # fmt: skip
    assert shown["hub_gaps_total"] == {}


def attack(metrics: Metrics, messages: int) -> int:
    """A client puts a new name into everything that it sends; how many time series that made."""
    before = len(samples(live(metrics)))
    for n in range(messages):
        name: Any = f"made:up_{n}"
        metrics.connected(name)
        metrics.disconnected(name)
        metrics.refused(name)
        metrics.events(named(name))
        metrics.rejected(name)
        metrics.delivered(name, events=1, clients=1, bytes=10)
        metrics.failed(name)
        metrics.gap(name, 1)
        metrics.command(name, "unknown_command", 0.001)
        metrics.command("hub:ping", name, 0.001)
    metrics.watch(lambda: Gauges(clients={f"made:up_{n}": 1 for n in range(messages)}))
    return len(samples(metrics)) - before


def test_made_up_names_make_no_more_series_the_more_there_are(metrics: Metrics) -> None:
    first = attack(metrics, 10)
    assert first == attack(Metrics("1.2.3", events=KNOWN, commands={"hub:ping"}), 500)
    found = samples(metrics)
    assert found["hub_events_total", ("other",)] == 11
    assert found["hub_commands_total", ("other", "unknown_command")] == 10
    assert found["hub_commands_total", ("hub:ping", "other")] == 10
    assert found["hub_clients", ("other",)] == 10
    assert "made" not in generate_latest(metrics.registry).decode()


def test_weakened_the_same_attack_makes_series_without_end(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(value: str, names: Container[str]) -> str:
        return value

    for place in (hub.metrics, hub.collectors):
        monkeypatch.setattr(place, "known", believe)
    assert attack(metrics, 100) > 100 * 9
    assert "made:up_99" in generate_latest(metrics.registry).decode()


def test_made_up_names_are_not_remembered(metrics: Metrics) -> None:
    attack(metrics, 50)
    kept = {name for children in (metrics._accepted, metrics._delivered) for name in children}
    assert kept == {*KNOWN, "websocket"}
