"""The closed vocabularies of the contract, as types: mypy finds a word that is in none of them; and what an answer is.

The codes of errors, and the outcomes of calls, are in `errors`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Trust = Literal["OPERATOR", "OBSERVER", "NONE", "SYSTEM"]  # OBSERVER only reads; SYSTEM is the hub itself
Transport = Literal["websocket", "sse", "http", "local"]
Effect = Literal["read", "write", "dangerous"]  # of a command
Turns = Literal["none", "client", "hub"]  # whose calls of it run one after the other

# Why a request or a connection was not let in.
Refusal = Literal[
    "peer",
    "forwarded",
    "host",
    "origin",
    "fetch_site",
    "user",
    "token",
    "guesses",
    "malformed",
    "too_many",
    "too_slow",
    "shutting_down",
]
# Why a connection has ended.
Disconnection = Literal[
    "closed",
    "lost",
    "heartbeat",
    "shutdown",
    "binary",
    "utf8",
    "too_large",
    "protocol",
    "flood",
    "forbidden",
    "token",
    "store",
    "broker",
    "internal",
]
Settled = Literal["answered", "timed_out", "withdrawn"]  # how a question has ended
# Whose hooks the hub understands, and what has become of one.
Adapter = Literal["claude-code", "codex", "gemini", "copilot", "cursor", "systemd", "github", "alertmanager", "grafana"]
HookOutcome = Literal["taken", "passed_over", "unreadable", "answered", "unanswered", "refused"]
# The ways to a person, what has become of a message, and of a try to send to a webhook.
ChannelType = Literal["ntfy", "command", "desktop", "apprise"]
Notified = Literal["sent", "failed", "dropped", "given_up"]
Delivery = Literal["ok", "failed", "gone"]
GapReason = Literal["slow", "expired", "epoch"]
# Whose code has failed while the hub went on. `hub`: a part of the hub's own, which is a bug.
Failure = Literal["hub", "listener", "background", "on_stop"]

# The event types that are known from the start, with the JSON type of each field that is no text: what `hub publish`
# makes of key=value, without loading their schemas.
EVENTS: Mapping[str, Mapping[str, str]] = {
    "agent:status_change": {
        "tasks_completed": "integer",
        "tasks_in_progress": "integer",
        "tasks_failed": "integer",
        "error_count": "integer",
        "pid": "integer",
    },
    "task:progress": {"progress": "number", "duration_ms": "number"},
    "governance:vote_cast": {"eligible": "integer", "votes": "object"},
    "security:threat_detected": {"risk_score": "number", "mitigated": "boolean"},
    "audit:new_event": {},
    "agent:tool_call": {"duration_ms": "number"},
    "alert:status": {"labels": "object"},
    "memory:stats_update": {
        "total_entries": "integer",
        "by_partition": "object",
        "by_type": "object",
        "quarantined": "integer",
        "verified": "integer",
        "bytes": "integer",
    },
}


class Answered(NamedTuple):
    """What came of a question: its id, the option that was chosen, by whom (None: by nobody, it is the default), and
    whether that is because nobody had answered in time."""

    question: str
    answer: str
    by: str | None
    timed_out: bool
