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


def _texts(names: str) -> Mapping[str, str]:
    return dict.fromkeys(names.split(), "string")


# The event types that are known from the start, with the JSON type of each field: what `hub publish` makes of
# key=value, and which words it takes for mistyped, without loading their schemas.
EVENTS: Mapping[str, Mapping[str, str]] = {
    "agent:status_change": {
        **_texts("id status type task reason last_active parent host"),
        "tasks_completed": "integer",
        "tasks_in_progress": "integer",
        "tasks_failed": "integer",
        "error_count": "integer",
        "pid": "integer",
    },
    "task:progress": {
        **_texts("id name status message agent started_at ended_at error"),
        "progress": "number",
        "duration_ms": "number",
        "pid": "integer",
    },
    "governance:vote_cast": {
        **_texts("vote_id topic agent option threshold deadline status reasoning"),
        "eligible": "integer",
        "votes": "object",
    },
    "security:threat_detected": {
        **_texts("type severity source details"),
        "risk_score": "number",
        "mitigated": "boolean",
    },
    "audit:new_event": _texts("action actor trust details hash"),
    "agent:tool_call": {**_texts("agent tool phase call summary error task"), "duration_ms": "number"},
    "alert:status": {
        **_texts("id status title severity source description url started_at ended_at"),
        "labels": "object",
    },
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
