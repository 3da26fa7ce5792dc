"""The WebSocket and the stream of events as AsyncAPI 3.0, made from the commands and the event types of a hub.

Its words are the hub's: it receives commands, and sends events and answers.
"""

from collections.abc import Iterator, Mapping

from ...commands.call import Command
from ...commands.providers import provided
from ...hub import Hub
from ...stream.eventtypes import EventType
from ...wire.strictjson import LARGEST, dumpb
from .routes import AFTER, TOPICS
from .schemas import (
    ANYTHING,
    COMMON,
    ID,
    NAME,
    NOTICES,
    OBJECT,
    OUT,
    RESULTS,
    SECURITY,
    TIMESTAMP,
    Part,
    Titles,
    args_of,
    data_of,
    envelope,
    frame,
    happened,
    or_null,
    record,
    ref,
)

ABOUT = (
    "Every frame, both ways, is one JSON object. A client sends commands, and is answered by their `id`, in any order; "
    "without being asked it is sent the events that match its patterns, in order, each once. What it cannot get is "
    "announced in its place by `hub:gap`."
)
BY_ID: Part = {"location": "$message.payload#/id"}
SESSION = {**SECURITY["session"], "type": "httpApiKey"}  # as this document calls it
QUERY: Part = {"type": "object", "properties": {one["name"]: one["schema"] for one in (TOPICS, AFTER)}}


def head(hub: Hub, scheme: str, host: str, prefix: str, tokens: bool) -> Part:
    """What the document has in any case."""
    where: Part = {"host": host} | ({"pathname": prefix.rstrip("/")} if prefix != "/" else {})
    if tokens:
        where["security"] = [ref(name, "securitySchemes") for name in SECURITY]
    secure = "s" * (scheme == "https")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "hub", "version": hub.version, "description": ABOUT},
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {**where, "protocol": f"ws{secure}"},
            "http": {**where, "protocol": f"http{secure}"},
        },
        "channels": {
            "socket": _channel("/ws", "websocket") | {"bindings": {"ws": {"method": "GET", "query": QUERY}}},
            "stream": _channel("/events", "http"),
        },
        "operations": {},
        "components": {
            "schemas": {**COMMON, **OUT},
            "messages": {},
            "securitySchemes": {**SECURITY, "session": SESSION},
        },
    }


def parts(hub: Hub) -> Iterator[Part]:
    """What is added to that, the most important first."""
    titles = Titles((*COMMON, *OUT, *SERVED))
    yield _messages("socket", SERVED) | {"operations": {"serve": _serve(), "progress": _progress()}}
    yield _events([*hub.types], titles)
    for command in provided(hub.commands):
        yield _command(command, titles)


def _channel(address: str, server: str) -> Part:
    return {"address": address, "servers": [{"$ref": f"#/servers/{server}"}], "messages": {}}


def _messages(channel: str, found: Mapping[str, Part]) -> Part:
    """These messages, and that they go over this channel."""
    told = {title: ref(title, "messages") for title in found}
    return {"components": {"messages": dict(found)}, "channels": {channel: {"messages": told}}}


def _operation(action: str, channel: str, sentence: str, *titles: str, reply: tuple[str, ...] = ()) -> Part:
    said = {"channel": {"$ref": f"#/channels/{channel}"}, "messages": [_over(channel, title) for title in titles]}
    answered = {"channel": said["channel"], "messages": [_over(channel, title) for title in reply]}
    return {"action": action, "summary": sentence, **said, **({"reply": answered} if reply else {})}


def _over(channel: str, title: str) -> Part:
    return {"$ref": f"#/channels/{channel}/messages/{title}"}


# ---- events


def _events(types: list[EventType], titles: Titles) -> Part:
    """What is sent without being asked for, over both channels. Of more types than fit none is told."""
    messages, schemas = {"Event": _message("Any other event.", ref("Event"))}, {}
    for type in types:
        schemas[titles(type.name)] = data_of(type)
        messages[titles(type.name + " event")] = _event(type.name, ref(titles(type.name)), type.summary)
    for name, notice in NOTICES.items():
        messages[titles(name + " event")] = _event(name, notice.data, notice.summary, notice.is_numbered)
    found = _messages("socket", messages)
    found["channels"] |= _messages("stream", messages)["channels"]
    found["components"]["schemas"] = schemas
    found["operations"] = {
        "follow": _operation("send", "socket", "Every event that matches the patterns of the client.", *messages),
        "stream": _operation("send", "stream", "The same as Server-Sent Events.", *messages),
    }
    found["operations"]["stream"]["bindings"] = {"http": {"method": "GET", "query": QUERY, "bindingVersion": "0.3.0"}}
    return found if len(dumpb(found)) < LARGEST // 4 else _events([], titles)


def _event(name: str, data: Part, summary: str, is_numbered: bool = True) -> Part:
    return _message(summary, envelope(happened({"const": name}, data), is_numbered), name)


def _message(summary: str, payload: Part, name: str | None = None) -> Part:
    return {**({"name": name} if name else {}), "summary": summary, "payload": payload}


# ---- commands


def _command(command: Command, titles: Titles) -> Part:
    """A command, its answer, and the schemas of both."""
    title, args, result = (titles(command.name + end) for end in (" command", " args", " result"))
    response = titles(command.name + " response")
    schema = args_of(command, args)
    payload = frame({"const": command.name}, ref(args), not schema.get("required"))
    call = _message(command.summary, payload, command.name)
    answer = _message("Its answer.", _answer("response", ref(result)))
    found = _messages("socket", {title: {**call, "correlationId": BY_ID}, response: {**answer, "correlationId": BY_ID}})
    found["components"]["schemas"] = {args: schema, result: RESULTS.get(command.name, ANYTHING)}
    asked = _operation("receive", "socket", command.summary, title, reply=(response, "Refusal"))
    return found | {"operations": {titles(command.name): asked}}


def _answer(kind: str, payload: Part, id: Part = ID) -> Part:
    return record({"type": {"const": kind}, "id": id, "timestamp": TIMESTAMP, "payload": payload})


# ---- what programs serve


def _said(kind: str, payload: Part) -> Part:
    """A frame of a provider's."""
    return record({"type": {"const": kind}, "id": ID, "payload": payload}, {"timestamp": TIMESTAMP})


SERVED: Mapping[str, Part] = {
    "Refusal": _message(
        "Why a call, or a frame that was none, was refused.", _answer("error", ref("Error"), or_null(ID))
    ),
    "Call": _message(
        "A call of a command that you serve; or `hub:cancel`: nobody waits for the call `id` any more.",
        record({"type": {"const": "command"}, "id": ID, "payload": record({"command": NAME, "args": OBJECT})}),
    ),
    "Answer": _message("What came of it.", _said("response", ANYTHING)),
    "Failure": _message(
        "Why nothing came of it: `command_failed`, and a sentence of yours.", _said("error", ref("Error"))
    ),
    "Progress": _message(
        "How far it is, for whoever called.",
        _said("event", happened({"const": "hub:progress"}, NOTICES["hub:progress"].data)),
    ),
}


def _serve() -> Part:
    sentence = "A call of a command that this client has provided."
    return _operation("send", "socket", sentence, "Call", reply=("Answer", "Failure"))


def _progress() -> Part:
    return _operation("receive", "socket", "How far a call is that this client was sent.", "Progress")
