"""What each of the hub's own panels shows: rows in the order in which they want attention, and how many there are.

Nothing is made up here: every figure is counted or read from the hub at the moment of the call. A `context` never
waits.
"""

import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from . import working
from .board import Board
from .history import events, line, look_back
from .panel import Asked, Context, Panel, page_of
from .rows import GRAVE, SEVERITIES, Alert, Question, Row, Task, Threat, Vote

if TYPE_CHECKING:
    from ...hub import Hub

WAITING, FAILED, THREATS, OWN = 25, 12, 5, 12  # rows of each on a page
RATE_SECONDS = 10.0
NEEDED = {"majority": 1 / 2, "supermajority": 2 / 3}


def panels(board: Board) -> tuple[Panel, ...]:
    """The hub's own panels, in the page's order; the first stands in its head."""

    def of(context: Callable[..., Context]) -> Callable[..., Context]:
        return partial(context, board)

    tasks, agents = "task:progress", "agent:status_change"
    return (
        Panel("summary", "", ("*",), of(summary), links=True, clocked=True, personal=True),
        Panel(
            "waiting",
            "Waiting for you",
            ("hub:question", tasks, agents, "governance:*"),
            of(waiting),
            links=True,
            in_rows=True,
            personal=True,
        ),
        Panel("failed", "Failed", (tasks, agents, "hub:seen"), of(failed), links=True, in_rows=True, clocked=True),
        Panel("working", "Working now", (tasks, agents), of(working.working), links=True, in_rows=True, clocked=True),
        Panel("newest", "Own events", ("*",), of(own), links=True, in_rows=True),
        Panel("recent", "Last 15 minutes", ("*",), recent, aside=True, clocked=True),
        Panel(
            "threats",
            "Threats and alerts",
            ("security:*", "alert:*", "hub:seen"),
            of(threats),
            links=True,
            aside=True,
            in_rows=True,
        ),
        Panel("events", "Events", ("*",), events, look_back, links=True, aside=True),
        Panel("hub", "Hub", ("memory:*", "audit:*"), of(figures), aside=True, clocked=True),
    )


# ---- the head


def summary(board: Board, hub: "Hub", asked: Asked) -> Context:
    """The five counts, and how the hub itself is."""
    return {
        **counts(board, asked.who),
        "ends": board.counted.next_deadline(),
        "host": platform.node(),
        "rate": recent_rate(hub),
        "behind": hub.broadcaster.lagging,
        "clients": len(hub.clients),
        "problems": list(hub.problems().values()),
        "audit": hub.audit,
    }


def counts(board: Board, who: str) -> Context:
    """What the page counts: what needs its reader, what failed, what is open, runs, is quiet."""
    votes = sum(who not in vote.ballots for vote in board.counted.open_votes())
    return {
        "need": len(board.questions) + len(board.approvals()) + votes,
        "failures": len(board.failures()),
        "open_threats": len(board.open_threats()),
        "open_alerts": len(board.open_alerts()),
        "census": working.census(board),
        "quiet": len(working.quiet_agents(board)),
    }


def recent_rate(hub: "Hub", seconds: float = RATE_SECONDS) -> float:
    """Events a second over the last seconds, counted among the events in memory."""
    window, now = hub.window, time.monotonic()
    kept = range(window.tail, window.head + 1)
    behind = bisect_left(kept, now - seconds, key=lambda seq: window.between(seq - 1, seq)[0].accepted)
    span = seconds
    if behind == 0 and kept:  # all that is in memory is younger
        span = min(seconds, max(now - window.between(kept[0] - 1, kept[0])[0].accepted, 1.0))
    return (len(kept) - behind) / span


# ---- waiting for you


def waiting(board: Board, hub: "Hub", asked: Asked) -> Context:
    """Questions, approvals and votes, the oldest first; behind them the open votes in which this person has voted."""
    votes = board.counted.open_votes()
    cast = [replace(vote, mine=mine) for vote in votes if (mine := vote.ballots.get(asked.who))]
    rows: list[Row] = [*board.questions.values(), *board.approvals()]
    rows += [vote for vote in votes if asked.who not in vote.ballots]
    shown, more = page_of([*rows, *cast], asked, WAITING, lambda row: (has_cast(row), row.at, row.key))
    for row in shown:
        if isinstance(row, Question):
            row.about = board.name_of(row.task)
        elif isinstance(row, Task) and (agent := board.agents.all.get(row.agent)) is not None:
            row.where, row.host = agent.place, agent.host
    oldest = min((row.timestamp for row in rows), default="")
    return {
        "rows": [(KINDS[type(row)], row) for row in shown],
        "total": len(rows),
        "cast": len(cast),
        "more": more,
        "oldest": oldest,
        "ends": board.counted.next_deadline(),
    }


def has_cast(row: Row) -> bool:
    return isinstance(row, Vote) and bool(row.mine)


def has_voted(board: Board, who: str) -> bool:
    """Whether something is drawn otherwise for this person."""
    return any(who in vote.ballots for vote in board.counted.open_votes())


KINDS: dict[type, str] = {Question: "question", Task: "approval", Vote: "vote", Threat: "threat", Alert: "alert"}


def needed(vote: Vote) -> int | None:
    """How many must be for it, if it is known how many may vote."""
    if not vote.eligible:
        return None
    if vote.threshold == "unanimous":
        return vote.eligible
    share = vote.eligible * NEEDED.get(vote.threshold, 1 / 2)
    return int(share) + 1 if share == int(share) and vote.threshold != "supermajority" else -int(-share // 1)


# ---- what is said by other names


def own(board: Board, hub: "Hub", asked: Asked) -> Context:
    """The newest event of each name that has no rows of another kind, by name; where there is next to nothing else."""
    shown, more = page_of([*board.counted.own.values()], asked, OWN, lambda row: row.key)
    for row in shown:
        if not row.text and hub.window.covers(row.seq - 1):
            (event,) = hub.window.between(row.seq - 1, row.seq)
            row.text = line(event).text
    return {"rows": [("own", row) for row in shown], "more": more}


# ---- failed


def failed(board: Board, hub: "Hub", asked: Asked) -> Context:
    """Tasks and agents in error that nobody has seen yet, the newest first; with the filter `all` the others, too."""
    everything = board.in_error()
    unseen = board.failures()
    wanted = everything if asked.filter == "all" else unseen
    shown, more = page_of(wanted, asked, FAILED, lambda row: -row.noticed)
    return {
        "rows": [("failure" if isinstance(row, Task) else "broken", row) for row in shown],
        "more": more,
        "total": len(wanted),
        "unseen": len(unseen),
        "until": newest(unseen),
        "seen": len(everything) - len(unseen),
        "lately": recent(hub)["failed"],
    }


def newest(rows: Sequence[Row]) -> int:
    """The number up to which they are marked as seen together: what comes meanwhile is not."""
    return max((row.noticed for row in rows), default=0)


# ---- the last minutes, threats, and the hub


def recent(hub: "Hub") -> Context:
    """Events and failures, minute by minute."""
    minutes = hub.recent.minutes()
    known = [minute for minute in minutes if minute is not None]
    return {
        "is_known": any(minute.events for minute in known),
        "event_minutes": [minute and minute.events for minute in minutes],
        "failed_minutes": [minute and minute.failures for minute in minutes],
        "events": sum(minute.events for minute in known),
        "failed": sum(minute.failures for minute in known),
    }


def threats(board: Board, hub: "Hub", asked: Asked) -> Context:
    """Open threats and firing alerts, the worst first; with the filter `all` those that were met or seen, too."""
    firing = board.open_alerts()
    is_open: list[Threat | Alert] = [*board.open_threats(), *firing]
    found = is_open
    if asked.filter == "all":
        found = [*board.counted.threats, *board.alerts.values()]
    shown, more = page_of(found, asked, THREATS, worst)
    mitigated = sum(threat.mitigated for threat in board.counted.threats)
    return {
        "rows": [(KINDS[type(row)], row) for row in shown],
        "more": more,
        "total": len(found),
        "open": len(is_open),
        "firing": len(firing),
        "threats": len(board.counted.threats),
        "alerts": len(board.alerts),
        "until": newest(is_open),
        "mitigated": mitigated,
        "seen": len(board.counted.threats) + len(board.alerts) - len(is_open) - mitigated,
    }


def worst(row: Threat | Alert) -> tuple[bool, int, int]:
    called = "high" if row.severity in GRAVE[2:] else "medium" if row.severity == "warning" else row.severity
    severity = SEVERITIES.index(called) if called in SEVERITIES else len(SEVERITIES)
    return row.seen or (isinstance(row, Threat) and row.mitigated), severity, -row.seq


def figures(board: Board, hub: "Hub") -> Context:
    """How the hub itself is, by its own figures."""
    return {
        "audit": hub.audit,
        "memory": board.memory,
        "kept": hub.retention(),
        "providers": len(hub.providers),
        "uptime": hub.uptime,
        "version": hub.version,
        # Only the scheme: a broker's URL may carry a password.
        "broker": hub.config.broker.partition(":")[0],
        "problems": list(hub.problems().values()),
    }
