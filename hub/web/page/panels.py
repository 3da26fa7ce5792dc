"""What each panel of the dashboard shows: the hub's state, its newest events, its audit log and its figures.

Nothing is made up here: every figure is counted or read from the hub at the moment of the call. A `context`
never waits, so that all of the page and its cursor are of one moment.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...errors import HubError
from ...wire.names import Patterns
from .formats import code_units, folded

if TYPE_CHECKING:
    from ...hub import Hub

Context = Mapping[str, Any]
Item = dict[str, Any]

SHOWN = {"agents": 200, "tasks": 100, "votes": 50, "threats": 30, "audit": 15}
CLOSED = frozenset({"stopped", "succeeded", "failed", "cancelled", "passed", "expired", "vetoed"})
OPTIONS = ("approve", "reject", "abstain")
OF_A_VOTE = ("topic", "threshold", "eligible", "deadline", "status")


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of the page, drawn by the template `panels/<name>.html`.

    `context(hub)` gives the template its names. It never waits: the page and its cursor are of one moment.
    What has to be awaited goes into `prepare`, which runs before and has two seconds. It is drawn again
    for events that match `topics`. Add yours with `hub.panels.append(Panel(…))` and its folder of templates
    with `aiohttp_jinja2.get_env(app).loader.loaders.insert(0, FileSystemLoader(…))`.
    """

    name: str
    title: str
    topics: tuple[str, ...]
    context: Callable[["Hub"], Context]
    prepare: Callable[["Hub"], Awaitable[Context]] | None = None


def agents(hub: "Hub") -> Context:
    """Every agent with its last status."""
    return listed(state_rows(hub, "agent:status_change"), SHOWN["agents"])


def tasks(hub: "Hub") -> Context:
    """Every task with its last progress, the open ones first."""
    return listed(state_rows(hub, "task:progress"), SHOWN["tasks"])


def votes(hub: "Hub") -> Context:
    """Every vote with its tally: the last known state, then the kept casts in their order."""
    found: dict[str, Item] = {}
    for item in items(hub, "governance:vote_cast"):
        cast(found, item["data"], item["timestamp"])["stale"] = item["stale"]
    for event in kept(hub, "governance:vote_cast"):
        cast(found, event.data, event.timestamp)
    return {**listed([tallied(vote) for vote in found.values()], SHOWN["votes"]), "since": hub.window.tail}


def cast(found: dict[str, Item], data: Mapping[str, Any], timestamp: str) -> Item:
    """Count one cast: of an agent the newest option counts; a `votes` mapping replaces all before it."""
    key = data["vote_id"]
    vote = found.setdefault(key, {"key": key, "ballots": {}, "stale": False})
    vote["timestamp"] = timestamp
    vote.update({name: data[name] for name in OF_A_VOTE if data.get(name) is not None})
    if isinstance(data.get("votes"), dict):
        vote["ballots"] = dict(data["votes"])
    if isinstance(data.get("agent"), str) and isinstance(data.get("option"), str):
        vote["ballots"][data["agent"]] = data["option"]
    return vote


def tallied(vote: Item) -> Item:
    """The vote with how many chose what, and `fold`: from where the page's script goes on counting."""
    chosen = list(vote["ballots"].values())
    counts = {option: chosen.count(option) for option in OPTIONS}
    return {
        **vote,
        **counts,
        "cast": len(chosen),
        "closed": vote.get("status") in CLOSED,
        "fold": folded(vote),
    }


def threats(hub: "Hub") -> Context:
    """The newest threats among the kept events."""
    return {"rows": newest(hub, "security:threat_detected", SHOWN["threats"]), "limit": SHOWN["threats"]}


def memory(hub: "Hub") -> Context:
    """The memory's last figures."""
    return listed(state_rows(hub, "memory:stats_update"), 1)


async def audit_tail(hub: "Hub") -> Context:
    """The newest records of the audit log, newest first; None if it cannot be read."""
    with contextlib.suppress(HubError, OSError):
        return {"records": list(reversed(await hub.audit.tail(SHOWN["audit"])))}
    return {"records": None}


def audit(hub: "Hub") -> Context:
    """The chain's state, and what others report of their own audit."""
    rows = newest(hub, "audit:new_event", SHOWN["audit"])
    return {"chain": hub.audit, "rows": rows, "limit": SHOWN["audit"]}


def health(hub: "Hub") -> Context:
    """The hub's own figures."""
    figures = hub.metrics.snapshot()
    return {
        "figures": figures,
        "version": hub.version,
        "uptime": hub.uptime * 1000,
        "rate": recent_rate(hub, datetime.now(UTC)),
        # Only the scheme: a broker's URL may carry a password.
        "broker": hub.config.broker.partition(":")[0],
        "problem": hub.broker.problem,
    }


def recent_rate(hub: "Hub", now: datetime, seconds: float = 10) -> float:
    """Events a second over the last seconds, counted among the kept events."""
    since = now - timedelta(seconds=seconds)
    count, first = 0, now
    for event in reversed(list(hub.window.events())):
        at = datetime.fromisoformat(event.timestamp)
        if at < since:
            return count / seconds
        count, first = count + 1, at
    # All that is kept is younger than that: more than the window holds, or the hub's first seconds.
    span = (now - first).total_seconds() if count >= hub.config.window_events else min(seconds, hub.uptime)
    return count / max(span, 1.0)


def items(hub: "Hub", event: str) -> list[Item]:
    """The last values of one event type."""
    return hub.state.snapshot(Patterns([event]))


def kept(hub: "Hub", name: str) -> Iterable[Any]:
    """The kept events of one type, oldest first."""
    return (event for event in hub.window.events() if event.name == name)


def newest(hub: "Hub", name: str, limit: int) -> list[Item]:
    """The newest kept events of one type as rows, newest first."""
    rows = [{**e.data, "key": str(e.seq), "timestamp": e.timestamp} for e in list(kept(hub, name))[-limit:]]
    return rows[::-1]


def state_rows(hub: "Hub", event: str) -> list[Item]:
    """The last values of one event type as rows."""
    return [
        {
            **item["data"],
            "key": item["key"],
            "timestamp": item["timestamp"],
            "stale": item["stale"],
            "closed": item["data"].get("status") in CLOSED,
        }
        for item in items(hub, event)
    ]


def listed(rows: list[Item], limit: int) -> Context:
    """The rows in the page's order: open ones by key, then closed ones, newest first; at most `limit`."""
    rows.sort(key=lambda row: code_units(row["key"]))
    is_open = [row for row in rows if not row["closed"]]
    closed = sorted((row for row in rows if row["closed"]), key=lambda row: row["timestamp"], reverse=True)
    return {"rows": (is_open + closed)[:limit], "limit": limit, "total": len(rows)}


PANELS = (
    Panel("agents", "Agents", ("agent:*",), agents),
    Panel("tasks", "Tasks", ("task:*",), tasks),
    Panel("votes", "Votes", ("governance:*",), votes),
    Panel("threats", "Threats", ("security:*",), threats),
    Panel("memory", "Memory", ("memory:*",), memory),
    Panel("audit", "Audit", ("audit:*",), audit, audit_tail),
    Panel("health", "Hub", (), health),
)
