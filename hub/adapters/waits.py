"""What a turn waits for: each permission by itself, so that what ends one says nothing of another beside it.

They stand in the last value of the turn's task, as `pending`, so that they end with it and outlive the hub; and so do
the calls that run, in the order in which they began: a permission is for one of those, whether its sender says for
which or not. `asks` is what one that waits says to people; `begun`, that its call is known to have begun.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeGuard

from ..redaction import redact
from .reading import INPUT, LEVELS, pruned
from .shape import Event

PENDING = "pending"
MOST = 16  # of a turn that are kept apart; a call goes first, then the wait that is oldest
WAITING = "waiting_approval"
UNNAMED = "a permission"
TEXTS = frozenset({"tool", "mark", "call", "by", "asks"})
NAME, VALUE = 6, 10  # characters of the hashes of a member

Entry = Mapping[str, Any]


def mark(given: Any) -> str | None:
    """What tells this input of a tool from another one: a hash of each member, without what is secret; None for none.
    Never longer than 32 of them, however large the input is."""
    if given is None:
        return None
    small, _ = redact(pruned(given, LEVELS, INPUT // 4))
    if not (isinstance(given, dict) and isinstance(small, dict)):
        return f"={_hash(small, VALUE)}"
    sizes = {name: len(value) for name, value in given.items() if isinstance(value, str)}
    members = ((name, [value, sizes.get(name, 0)]) for name, value in sorted(small.items()))
    return " ".join(f"{_hash(name, NAME)}={_hash(value, VALUE)}" for name, value in members)


def call(tool: str, mark: str | None, id: str, by: str) -> Entry:
    """A call of a tool, as far as a hook tells it from others. `by` is the subagent, empty for the agent itself."""
    found = {"tool": tool, "mark": mark, "call": id, "by": by}
    return {name: value for name, value in found.items() if value or (name == "mark" and value is not None)}


def of(task: Mapping[str, Any] | None) -> list[Entry]:
    """What this last value of a task waits for, and the calls that run. One that waits and does not say for what does
    so for any."""
    if task is None or task.get("status") not in ("running", WAITING):
        return []
    kept = task.get(PENDING)
    found: list[Entry] = [entry for entry in kept[:MOST] if _is_entry(entry)] if isinstance(kept, list) else []
    if task["status"] == WAITING and not line(found):
        found.append({"asks": str(task.get("message") or UNNAMED)})
    return found


def line(pending: Sequence[Entry]) -> str:
    """What the newest of those that wait says to people, empty where none does."""
    return next((entry["asks"] for entry in reversed(pending) if "asks" in entry), "")


def asked(pending: Sequence[Entry], wanted: Entry, said: str, *, begins: bool) -> list[Entry]:
    """With a wait for this call, at the end. Told twice it is one. `begins`: its call begins with it."""
    known = _asked_for(pending, wanted, said)
    wait = {**wanted, **(known or {}), "asks": said or UNNAMED}
    if begins or (known is not None and "asks" not in known):
        wait["begun"] = True
    return _few([*(entry for entry in pending if entry is not known), wait])


def _asked_for(pending: Sequence[Entry], wanted: Entry, said: str) -> Entry | None:
    """The call that runs, the newest first, or waits already. Where a sender does not say for which: the only one that
    it can be."""
    running = [entry for entry in pending if "asks" not in entry]
    if not wanted:
        named = [entry for entry in running if entry["tool"] in said.split()]
        found = (named if len(named) == 1 else running) or pending[-1:]  # where none runs, it is told of once more
        return found[0] if len(found) == 1 else None
    same = [entry for entry in running if _is_for(wanted, entry)]
    again = [entry for entry in pending if "asks" in entry and _are_one(wanted, entry)]
    return next(reversed(same or again), None)


def started(pending: Sequence[Entry], begun: Entry) -> list[Entry]:
    """A call begins. Where it was known only that it is asked for, it is so no more; and where not even for which."""
    own = next((entry for at, entry in enumerate(pending) if _is_begun_by(pending[: at + 1], begun)), None)
    return _few([*(entry for entry in pending if entry is not own), begun])


def _is_begun_by(pending: Sequence[Entry], begun: Entry) -> bool:
    *before, wait = pending
    if "asks" not in wait or "begun" in wait:
        return False
    return _is_for(wait, begun) if wait.keys() > {"asks"} else all("asks" in entry for entry in before)


def ended(pending: Sequence[Entry], over: Entry) -> list[Entry]:
    """A call is over, and so is the wait for it: for the one of this id, else of the same tool and input, rather one
    that runs than one that waits. A wait for what is not known to have begun lasts as long as a call that began before
    it: it may be for that one."""
    same = [(at, entry) for at, entry in enumerate(pending) if _is_for(entry, over)]
    same.sort(key=lambda one: (not one[1].get("call"), one[1].get("by") != over.get("by"), "asks" in one[1]))
    own, found = same[0] if same else (-1, {})
    rest = [*pending[:own], *pending[own + 1 :]] if same else list(pending)
    if "asks" in found:
        return rest
    running = next((at for at, entry in enumerate(rest) if "asks" not in entry), len(rest))
    return [
        entry for at, entry in enumerate(rest) if "asks" not in entry or "begun" in entry or not own <= at < running
    ]


def decided(pending: Sequence[Entry], wait: Entry) -> list[Entry]:
    """A person has decided: its call runs, or is over."""
    call = {name: value for name, value in wait.items() if name not in ("asks", "begun")}
    rest = [entry for entry in pending if entry != wait]
    return [*rest, call] if "tool" in call and len(rest) < len(pending) else rest


def left(pending: Sequence[Entry], by: str) -> list[Entry]:
    """Without those of a subagent that has stopped."""
    return [entry for entry in pending if entry.get("by") != by]


def newest(events: Sequence[Event]) -> Entry | None:
    """The wait that these events tell of, None if they tell of none."""
    pending = events[-1].data.get(PENDING) if events else None
    return pending[-1] if pending and "asks" in pending[-1] else None


def _is_entry(value: Any) -> TypeGuard[Entry]:
    """Whether this is one of ours: others may publish a task, too."""
    if not isinstance(value, dict) or value.get("begun", True) is not True or not ("tool" in value or "asks" in value):
        return False
    return all(name in TEXTS and isinstance(part, str) for name, part in value.items() if name != "begun")


def _are_one(wanted: Entry, wait: Entry) -> bool:
    """Whether this waits for just that."""
    return all(wanted.get(name) == wait.get(name) for name in ("tool", "mark", "by")) and _may_be(wanted, wait, "call")


def _is_for(wait: Entry, call: Entry) -> bool:
    """Whether this is, as far as is known, the call."""
    if wait.get("call") and call.get("call"):
        return bool(wait["call"] == call["call"])
    if not _may_be(wait, call, "by"):
        return False
    tool, other = wait.get("tool", ""), call.get("tool", "")
    if tool and tool != other and not other.startswith(f"{tool}__"):  # a server of tools asks for any of its own
        return False
    return _are_same(wait["mark"], call["mark"]) if "mark" in wait and "mark" in call else bool(tool)


def _may_be(one: Entry, other: Entry, name: str) -> bool:
    return one.get(name) == other.get(name) or not (one.get(name) and other.get(name))


def _are_same(one: str, other: str) -> bool:
    """As `is_same_call`: senders fill in defaults meanwhile, so what stands in both must be the same."""
    if one == other:
        return True
    first, second = (dict(part.partition("=")[::2] for part in text.split()) for text in (one, other))
    both = first.keys() & second.keys()
    return bool(both) and all(first[name] == second[name] for name in both)


def _few(pending: list[Entry]) -> list[Entry]:
    """At most MOST of them."""
    if len(pending) > MOST:
        del pending[next((at for at, entry in enumerate(pending) if "asks" not in entry), 0)]
    return pending


def _hash(value: Any, digits: int) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]
