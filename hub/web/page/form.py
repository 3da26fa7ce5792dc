"""What a form of the page is: the command that it calls, and what it asks for; and the page's own ones."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...commands.asked import person
from ...commands.call import Command
from ...commands.clients import Client
from ...commands.providers import OF_A_STREAM, for_requests
from ...commands.question import EVENT
from ...hub import Hub
from ...wire.texts import seen
from ...wire.timestamps import unix_time
from ...wire.validation import misfit
from .formfields import Field, Schema, fields_of

OF_A_CLIENT = OF_A_STREAM | {"hub:cancel"}  # about a client's stream or its own calls: the page has neither
VOTE = "governance:vote_cast"
OF_A_VOTE = ("topic", "threshold", "eligible", "deadline", "status")  # what the next last value of it says, too

Args = Callable[[Hub, Client, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Form:
    """A form: the command that it calls, where it is sent, what it asks for. `args` makes the command's args of what
    was meant; `within` is what the command calls the object with them."""

    command: str
    action: str
    title: str
    schema: Schema
    summary: str = ""
    effect: str = "write"
    verb: str = "Send"
    args: Args | None = None
    within: str = ""
    audited: bool = False  # a person decides with it: that is on record, whatever it calls

    @property
    def fields(self) -> list[Field]:
        return fields_of(self.schema)

    @property
    def root(self) -> str:
        """The way from where it is sent back to the page."""
        return "../" * self.action.count("/") or "./"


def commands(hub: Hub) -> Iterator[Command]:
    """Those that have a form."""
    return (command for command in for_requests(hub.commands) if command.name not in OF_A_CLIENT)


def _texts(*names: str, **more: Any) -> Schema:
    properties = {name: {"type": "string"} for name in names} | more
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def vote(hub: Hub, client: Client, args: dict[str, Any]) -> dict[str, Any]:
    """What is published for a vote of this account's; what is known of the vote stays known. Raises HubError."""
    if odd := sorted(args.keys() - {"vote_id", "option"}):
        raise misfit("invalid_args", "Nothing was cast", {odd[0]: ["Unknown field."]})
    kept = hub.state.get(VOTE, args["vote_id"])
    known: dict[str, Any] = kept.data if kept is not None else {}
    closed = unix_time(known.get("deadline"))
    if kept is None or known.get("status", "open") != "open" or (closed is not None and closed <= time.time()):
        problem = "There is no such vote." if kept is None else "This vote is over."
        raise misfit("invalid_args", "Nothing was cast", {"vote_id": [problem]})
    by = person(client).name
    data: dict[str, Any] = {name: known[name] for name in OF_A_VOTE if name in known} | {**args, "agent": by}
    if isinstance(known.get("votes"), dict):
        data["votes"] = {**known["votes"], by: args["option"]}
    return {"event": VOTE, "data": data, **({"ttl": kept.ttl} if kept.ttl is not None else {})}


OWN: Mapping[str, Form] = {
    "answer": Form("hub:answer", "answer", "Answer a question", _texts("question", "answer")),
    "seen": Form("hub:seen", "seen", "Mark as seen", _texts("event", "key")),
    "vote": Form(
        "hub:publish",
        "vote",
        "Vote",
        _texts("vote_id", option={"enum": ["approve", "reject", "abstain"]}),
        args=vote,
        within="data",
        audited=True,
    ),
}


def late(hub: Hub, id: str) -> str:
    """What to say to whose answer came when the question was over: what holds instead."""
    value = hub.state.get(EVENT, id)
    over: dict[str, Any] = value.data if value is not None else {}
    begin = "The question was over before this answer came"
    match over.get("status"):
        case "answered":
            return seen(f"{begin}: “{over['answer']}” by {over['by']}.")
        case "timed_out" if over["answer"] is not None:
            return seen(f"{begin}: “{over['answer']}” by itself.")
        case "withdrawn":
            return f"{begin}: it was taken back."
    return f"{begin}."
