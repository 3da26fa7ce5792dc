"""Codex: Claude's names, its own ids of turns, `notify`; and it takes nothing that its schema does not have."""

from collections.abc import Mapping

from .claude_code import KINDS as CLAUDES
from .claude_code import taken
from .identities import part_of_id
from .reading import first_line, text
from .shape import Event, Given, Taken, passed_over
from .turns import Hook, Kind, closes, events, over

KINDS: Mapping[str, Kind] = {**CLAUDES, "Interrupt": "interrupt"}


def take(given: Given) -> Taken:
    """What one of its hooks becomes, or the JSON of `notify`. Where nothing is decided, nothing at all goes back."""
    if "hook_event_name" not in given.body and "thread-id" in given.body:
        return _notified(given)
    return taken(given, "codex", KINDS, part_of_id(given.body.get("turn_id")), None)


def _notified(given: Given) -> Taken:
    body = given.body
    session, turn = part_of_id(body.get("thread-id")), part_of_id(body.get("turn-id"))
    if text(body.get("type")) != "agent-turn-complete" or not session:
        return passed_over(None)
    hook = Hook(kind="stop", sender="codex", session=session, turn=turn, is_named=bool(turn))
    found, is_over = _named(hook, given), closes(hook, given)
    return Taken(events=found, answer=None, session=hook.agent, is_over=is_over, over=over(hook, found))


def _named(hook: Hook, given: Given) -> list[Event]:
    """`notify` alone tells of a turn when it is over, with what was asked."""
    messages = given.body.get("input-messages")
    name = first_line(messages[-1]) if isinstance(messages, list) and messages else ""
    return [
        event._replace(data={"name": name, **event.data}) if name and event.name == "task:progress" else event
        for event in events(hook, given)
    ]
