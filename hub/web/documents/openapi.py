"""The hub over plain HTTP as OpenAPI 3.1, made from its routes, its commands and its event types."""

from collections.abc import Iterator, Mapping

from aiohttp import web

from ...commands.call import Command
from ...commands.provided import Served
from ...commands.providers import OF_A_STREAM, provided
from ...hub import Hub
from ...stream.eventtypes import EventType
from ...wire.strictjson import LARGEST, dumpb
from .. import api
from ..keys import OPEN_ROUTES
from ..page.forms import is_form
from .routes import (
    BODY,
    CALL,
    CONFIRM,
    EVERYWHERE,
    KEY,
    REFUSALS,
    ROUTES,
    TOPICS,
    WHILE,
    answer,
    content,
    parameter,
)
from .schemas import ANYTHING, COMMON, OUT, RESULTS, SECURITY, Part, Titles, args_of, data_of, published, ref, said

ABOUT = (
    "The live wire of a person's own machine: events, their last values, commands, and questions to people. Every "
    "refusal is the error object. JSON is read strictly: at most 32 levels deep, no key twice, no number that is none."
)


class Entry:
    """Where in the application a route is found, as the document has it."""

    def __init__(self, route: web.AbstractRoute, prefix: str) -> None:
        self.method = route.method
        self.path = _path(route, prefix)
        name = route.name or "api"
        self.is_limited = name.startswith("api") or name in OPEN_ROUTES
        self.row = ROUTES[self.method, self.path]


def entries(app: web.Application, prefix: str) -> Iterator[Entry]:
    """All routes; that a GET answers HEAD as well goes without saying. The page's forms are no program's."""
    for route in app.router.routes():
        if route.method != "HEAD" and not is_form(_path(route, prefix)):
            yield Entry(route, prefix)


def _path(route: web.AbstractRoute, prefix: str) -> str:
    assert route.resource is not None
    return "/" + route.resource.canonical.removeprefix(prefix)


def head(hub: Hub, server: str, tokens: bool) -> Part:
    """What the document has in any case."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "hub", "version": hub.version, "description": ABOUT},
        "servers": [{"url": server}],
        "security": [{"token": []}, {"session": []}] if tokens else [],
        "paths": {},
        "components": {
            "schemas": {**COMMON, **OUT},
            "responses": {f"Refused{status}": _refused(status) for status in REFUSALS},
            "securitySchemes": SECURITY,
        },
    }


def parts(hub: Hub, app: web.Application, prefix: str, tokens: bool) -> Iterator[Part]:
    """What is added to that, the most important first."""
    titles = Titles((*COMMON, *OUT, "Published", "OtherPublished"))
    yield _published([*hub.types], titles)
    for entry in entries(app, prefix):
        yield {"paths": {entry.path: {entry.method.lower(): _operation(entry, titles, hub, tokens)}}}
    for command in provided(hub.commands):
        yield _command(command, titles, tokens)


def _refused(status: int) -> Part:
    waits = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return {**answer(REFUSALS[status], ref("Error")), **({"headers": waits} if status in (429, 503) else {})}


# ---- routes


def _operation(entry: Entry, titles: Titles, hub: Hub, tokens: bool) -> Part:
    row = entry.row
    found = _described(titles(row.id), row.summary, row.tag)
    parameters, responses = [*row.parameters], dict(row.responses)
    if (read := api.READS.get(entry.path)) and entry.method == "GET":
        responses[200] = answer(f"As {read.command}.", ref(titles(read.command + " result")))
        parameters += _query(hub, read)
    found["responses"] = _responses(responses, _statuses(row.refusals, entry.is_limited, tokens))
    if parameters:
        found["parameters"] = parameters
    if row.body:
        found["requestBody"] = {"required": row.needs_body, "content": row.body}
    return found


def _described(title: str, summary: str, tag: str) -> Part:
    return {"operationId": title[:1].lower() + title[1:], "summary": summary, "tags": [tag]}


def _query(hub: Hub, read: api.Read) -> Iterator[Part]:
    """The args of a command that a query can have; an empty list cannot be written there."""
    (command,) = (command for command in hub.commands if command.name == read.command)
    known = args_of(command, "")["properties"] | {"topics": TOPICS["schema"]}
    yield from (parameter(name, known[name], f"As `{name}` of {read.command}.") for name in read.names)


def _statuses(refusals: tuple[int, ...], is_limited: bool, tokens: bool) -> set[int]:
    limits = {429} if is_limited or tokens else set()
    return {*EVERYWHERE, *refusals, *limits, *({401} if tokens else ())}


def _responses(answers: Mapping[int, Part], refusals: set[int]) -> Part:
    found = {status: ref(f"Refused{status}", "responses") for status in refusals} | dict(answers)
    return {str(status): found[status] for status in sorted(found)}


# ---- events


def _published(types: list[EventType], titles: Titles) -> Part:
    """What can be published: an event of a known type, or any other. Of more types than fit none is told."""
    schemas: dict[str, Part] = {}
    for type in types:
        schemas[titles(type.name)] = data_of(type)
        data, has_key = ref(titles(type.name)), type.key is not None
        schemas[titles(type.name + " published")] = published({"const": type.name}, data, has_key)
    choices = [ref(titles(type.name + " published")) for type in types]
    other = {"allOf": [ref("Name"), {"pattern": "^(?!hub:)"}], "not": {"enum": [type.name for type in types]}}
    schemas["OtherPublished"] = published(said(other, "Not of a known type, nor in the domain of the hub."), ANYTHING)
    schemas["Published"] = {"anyOf": [*choices, ref("OtherPublished")]}
    return {"components": {"schemas": schemas}} if len(dumpb(schemas)) < LARGEST // 4 else _published([], titles)


# ---- commands


def _command(command: Command, titles: Titles, tokens: bool) -> Part:
    """A command under an address of its own, and the schemas of its args and of its answer."""
    args, result = titles(command.name + " args"), titles(command.name + " result")
    schemas = {args: args_of(command, args), result: RESULTS.get(command.name, ANYTHING)}
    found = _described(titles(command.name), command.summary, "commands")
    found["x-hub"] = {key: value for key, value in command.describe().items() if key in ("effect", "provider")}
    found["requestBody"] = {"required": True, "content": content(ref(args))}
    found["parameters"] = [*[CONFIRM] * (command.effect == "dangerous"), *[KEY] * (command.effect != "read"), WHILE]
    answers = {} if command.name in OF_A_STREAM else {200: answer("Its answer.", ref(result))}
    found["responses"] = _responses(answers, _statuses(_refusals(command), True, tokens))
    return {
        "paths": {f"/api/commands/{command.name}": {"post": found}},
        "components": {"schemas": schemas},
    }


def _refusals(command: Command) -> tuple[int, ...]:
    others = (
        (404, isinstance(command, Served)),
        (409, command.name == "hub:ask"),
        (428, command.effect == "dangerous"),
    )
    return (*BODY, *CALL, *(status for status, is_so in others if is_so))
