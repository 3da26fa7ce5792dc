"""What agents and services send (`payloads/`), and a hub of plain values to play it to."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hub.adapters.senders import ADAPTERS, AGENTS, sender_of
from hub.adapters.shape import Given, Taken
from hub.wire.vocabulary import Adapter

PAYLOADS = Path(__file__).parent / "payloads"
EXPECTED: Mapping[str, list[dict[str, Any]]] = json.loads((PAYLOADS / "expected.json").read_text("utf-8"))
NAMED: Mapping[str, Adapter] = {"claude": "claude-code", "alertmanager": "alertmanager"}
KEYED = {"agent:status_change": "id", "task:progress": "id", "alert:status": "id"}
NOW = "2026-11-25T10:00:00.000Z"


def sample(name: str) -> Any:
    """The JSON of a file."""
    return json.loads((PAYLOADS / f"{name}.json").read_text("utf-8"))


def adapter_of(name: str) -> Adapter:
    """The adapter in the address that a sample is sent to."""
    begin = name.partition("-")[0]
    named = NAMED.get(begin, begin)
    assert named in ADAPTERS
    return named  # type: ignore[return-value]


HOOKS = [name for name in EXPECTED if NAMED.get(name.partition("-")[0], name.partition("-")[0]) in ADAPTERS]
AGENTS_HOOKS = [name for name in HOOKS if adapter_of(name) in AGENTS]


def is_within(wanted: Any, found: Any) -> bool:
    """Whether everything that is wanted is there."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and is_within(wanted[name], found[name]) for name in wanted
        )
    return bool(wanted == found)


def missing(wanted: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is wanted, and not there in this order; `{event, data}` each."""
    rest = iter(found)
    return [want for want in wanted if not any(is_within(want, each) for each in rest)]


class Values:
    """Last values, and adapters that ask them."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def value(self, event: str, key: str) -> Mapping[str, Any] | None:
        return self.last.get((event, key))

    def tasks(self, agent: str) -> list[Mapping[str, Any]]:
        known = (data for (event, _), data in self.last.items() if event == "task:progress")
        return [
            each for each in known if each.get("agent") == agent and each["status"] in ("running", "waiting_approval")
        ]

    def subagents(self, agent: str) -> list[Mapping[str, Any]]:
        known = (data for (event, _), data in self.last.items() if event == "agent:status_change")
        return [each for each in known if each.get("parent") == agent]

    def play(self, named: Adapter, body: Mapping[str, Any], now: str = NOW, **beside: Any) -> Taken:
        """Take a hook, and apply its events."""
        taken = ADAPTERS[sender_of(body, named)](Given(body, self, now, **beside))
        for event in taken.events:
            data = json.loads(json.dumps(event.data, allow_nan=False))
            self.events.append({"event": event.name, "data": data})
            if event.name in KEYED:
                self.last.pop((event.name, data["id"]), None)
                self.last[event.name, data["id"]] = data
        return taken

    def status(self, task: str) -> Any:
        return (self.value("task:progress", task) or {}).get("status")

    def agent(self, agent: str) -> Any:
        return (self.value("agent:status_change", agent) or {}).get("status")
