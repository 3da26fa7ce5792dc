"""What each route of plain HTTP takes and answers. A route that is not in this table fails a test."""

from collections.abc import Mapping
from typing import NamedTuple

from ...adapters import ping
from ...adapters.senders import ADAPTERS, AGENTS
from ...commands.questions import LONGEST
from ...wire import cloudevents
from ...wire.timestamps import MAX_TTL
from .. import answers, api, health
from ..page import frame
from .schemas import (
    ANYTHING,
    CURSOR,
    ID,
    NAME,
    NUMBER,
    OBJECT,
    PATTERNS,
    TEXT,
    TIMESTAMP,
    Part,
    listed,
    or_null,
    record,
    ref,
    said,
)

HTML, EVENT_STREAM, PLAIN = "text/html", "text/event-stream", "text/plain"


def content(schema: Part, *kinds: str) -> Part:
    """A body: this, as each of these content types (JSON, if none is named)."""
    return {kind: {"schema": schema} for kind in kinds or (answers.JSON,)}


def answer(sentence: str, schema: Part | None = None, *kinds: str) -> Part:
    """A response."""
    return {"description": sentence, **({"content": content(schema, *kinds)} if schema is not None else {})}


def parameter(name: str, schema: Part, sentence: str, place: str = "query") -> Part:
    """A parameter; a list is written with commas."""
    listing = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": sentence, "schema": schema, **listing, **required}


TOPICS = parameter("topics", PATTERNS | {"minItems": 1}, "Only what these patterns match.")
AFTER = parameter("after", CURSOR, "What comes behind this cursor.")
SINCE = parameter("Last-Event-ID", CURSOR, "As `after`, and wins: what a browser sends when it comes back.", "header")
CONFIRM = parameter(
    api.CONFIRM, TEXT, "For a dangerous command: `details.confirm` of the refusal with status 428.", "header"
)
KEY = parameter(
    api.KEY, ID, "Who repeats a call with the same key gets the same answer, and it is run once, for an hour.", "header"
)
WHILE = parameter(
    api.WHILE,
    TEXT | {"enum": ["connected"]},
    "The call is cancelled when the connection of its request ends.",
    "header",
)
CALLED = parameter("name", NAME, "The command.", "path")

# What each status of a refusal means. All have the error object as their body.
REFUSALS: Mapping[int, str] = {
    400: "What was sent cannot be read: the JSON, a cursor, or the query.",
    401: "The token is missing, or is another one.",
    403: "You may not do this, or not from there.",
    404: "There is no such command, or nothing at this address.",
    408: "The body did not arrive in time.",
    409: "It was taken back before it had an end.",
    413: "It is too large.",
    415: "The body is not of a content type that is taken here, or is encoded.",
    421: "This hub has another name: the Host header is not its own.",
    422: "It does not fit; `details` says where.",
    428: "It must be confirmed: repeat it with the header `Hub-Confirm`, and `details.confirm` as its value.",
    429: "Too much at once; `Retry-After` says when to try again.",
    500: "The command has refused (`command_failed`), or the hub failed (`internal`).",
    501: "The body has a transfer coding that is not undone here.",
    503: "Something that this needs is not there now: the store, the audit log, a provider, or the hub is stopping.",
    504: "It took too long.",
    505: "This needs HTTP/1.1.",
}
EVERYWHERE = (400, 403, 421, 500)
BODY = (408, 413, 415, 501)
CALL = (422, 503, 504)


class Route(NamedTuple):
    """One operation: its id, in a word what it is for, what it answers, how it refuses, what it takes."""

    id: str
    summary: str
    responses: Mapping[int, Part]
    refusals: tuple[int, ...] = ()
    parameters: tuple[Part, ...] = ()
    body: Part | None = None
    tag: str = "events"
    needs_body: bool = True


def _read(id: str, summary: str, tag: str = "events", refusals: tuple[int, ...] = CALL) -> Route:
    """A GET that calls a command; what it takes and answers is that command's to say."""
    return Route(id, summary, {}, refusals, tag=tag)


_ACCEPTED = record(
    {"accepted": {"type": "integer"}, "duplicates": {"type": "integer"}, "cursor": CURSOR, "ids": listed(ID)}
)
_READY = record(
    {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "reasons": {"type": "object", "additionalProperties": TEXT},
    }
)
_ATTRIBUTE = TEXT | {"minLength": 1, "maxLength": cloudevents.MOST}
_CLOUDEVENT: Part = {
    "type": "object",
    "properties": {
        "specversion": {"const": "1.0"},
        **dict.fromkeys(cloudevents.REQUIRED, _ATTRIBUTE),
        "type": _ATTRIBUTE | {"pattern": "^(?!hub:)"},
        **dict.fromkeys(cloudevents.OPTIONAL, or_null(_ATTRIBUTE)),
    },
    "required": ["specversion", *cloudevents.REQUIRED],
}
_KNOWN = answer("It is as you know it (`If-None-Match`).")
_DOCUMENT = {200: answer("The document.", OBJECT), 304: _KNOWN}
_NONE = content(ref("Error"))
_PLACE = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_PANELS = {"in": "query", "name": "panel", "schema": listed(TEXT), "style": "form", "explode": True}
_PAGE: tuple[Part, ...] = (
    _PANELS | {"description": "Only this panel; may be repeated."},
    parameter("page", _PLACE | {"minimum": 1}, "Which page of the panels that have some."),
    parameter("filter", TEXT, "Only what has this in it."),
    parameter("before", _PLACE, "Of what has happened, what came before this number."),
    parameter("viewer", TEXT, "Who looks, as `hub:page` has named it: it is told of what is newer from here on."),
    parameter("only", TEXT, "With a viewer: it looks at these panels alone."),
    parameter("call", TEXT, "The form of this command."),
    parameter("done", TEXT, "With `call`: which answer to show."),
    parameter("task", TEXT, "All about this task."),
    parameter("agent", TEXT, "All about this agent."),
    parameter("search", TEXT, "Where these words stand."),
    parameter("kind", TEXT, "With `search`: only what is of this kind."),
)

JOB = parameter("job", TEXT | {"pattern": f"^{ping.NAME.pattern}$"}, "The job's name.", "path")
WHAT = parameter("what", TEXT, "`start`, `fail`, `log`, or the exit status, 0 to 255.", "path")
RUN = parameter("rid", TEXT, "Which run: pairs a start with its end.")
LEASE = parameter("ttl", NUMBER | {"minimum": 1, "maximum": MAX_TTL}, "Seconds in which the next ping must come.")
CREATE = parameter("create", TEXT, "As healthchecks has it; a job is always made.")


def _ping(id: str, summary: str, *parameters: Part, body: Part | None = None) -> Route:
    taken = {200: answer("It is taken.", {"const": "OK"}, PLAIN)}
    refusals = (404, *(BODY if body else ()), 503)
    parameters = (JOB, *parameters, RUN, LEASE, CREATE)
    return Route(id, summary, taken, refusals, parameters, body, "hooks", needs_body=False)


_MESSAGE = content(said(TEXT, "The message, as any content type; its last 2 KiB count."), PLAIN)

ROUTES: Mapping[tuple[str, str], Route] = {
    ("POST", "/api/events"): Route(
        "publish",
        "Publish one event, an array of them, or one a line; all or none.",
        {200: answer("They are kept, and on their way; `cursor` is the newest of them.", _ACCEPTED)},
        (*BODY, 422, 503),
        body={
            answers.JSON: {"schema": {"anyOf": [ref("Published"), {"type": "array", "items": ref("Published")}]}},
            answers.NDJSON: {"schema": said(TEXT, "One event a line.")},
            cloudevents.STRUCTURED: {"schema": said(_CLOUDEVENT, "A CloudEvent; a binary one is JSON, with headers.")},
            cloudevents.BATCH: {"schema": listed(_CLOUDEVENT)},
        },
    ),
    ("GET", "/api/events"): _read("history", "Read kept events."),
    ("GET", "/api/state"): _read("state", "Read the last values.", refusals=(503, 504)),
    ("GET", "/api/commands"): _read("commands", "List the commands.", "commands"),
    ("GET", "/api/audit"): _read("audit", "Read the newest records of the audit log.", "commands"),
    ("POST", "/api/commands/{name}"): Route(
        "call",
        "Call any command, also one that is not listed here: another program may provide it.",
        {200: answer("What the command has answered.", ANYTHING)},
        (404, *BODY, *CALL, 409, 428),
        (CALLED, CONFIRM, KEY, WHILE),
        content(said(OBJECT, "The args.")),
        "commands",
    ),
    ("GET", "/hooks"): Route(
        "heard",
        "See when each agent was last heard.",
        {200: answer("By agent; who is not there was never heard.", record({}, dict.fromkeys(AGENTS, TIMESTAMP)))},
        tag="hooks",
    ),
    ("POST", "/hooks/{adapter}"): Route(
        "hook",
        "Tell what an agent or a service sends to its hooks, as it is.",
        {
            200: answer(
                "What that sender expects; it decides nothing unless a person has.", ANYTHING, answers.JSON, PLAIN
            )
        },
        (404, *BODY, 503),
        (
            parameter("adapter", TEXT | {"enum": [*ADAPTERS]}, "Who sends; of agents the body says it better.", "path"),
            parameter("ask", TEXT | {"enum": ["0", "1"]}, "1: ask a person where the agent asks for a permission."),
            parameter("timeout", NUMBER | {"minimum": 1, "maximum": LONGEST}, "Seconds that a question waits."),
            parameter("event", TEXT, "The event, where the body does not name it."),
        ),
        content(said(ANYTHING, "What its documentation says; read leniently, as any content type, up to 4 MiB.")),
        "hooks",
        needs_body=False,
    ),
    ("GET", "/ping/{job}"): _ping("ping", "Say that a job is done."),
    ("POST", "/ping/{job}"): _ping("ping_post", "Say that a job is done, with a message.", body=_MESSAGE),
    ("GET", "/ping/{job}/{what}"): _ping("ping_what", "Say that a job begins, or how it has ended.", WHAT),
    ("POST", "/ping/{job}/{what}"): _ping(
        "ping_what_post", "Say that a job begins, or how it has ended, with a message.", WHAT, body=_MESSAGE
    ),
    ("GET", "/events"): Route(
        "events",
        "Follow the events as Server-Sent Events.",
        {200: answer("`id` is the cursor, `event` the name, `data` the envelope.", TEXT, EVENT_STREAM)},
        (503, 505),
        (TOPICS, AFTER, SINCE),
    ),
    ("GET", "/ws"): Route(
        "websocket",
        "Open the WebSocket; /asyncapi.json says what goes over it.",
        {101: answer("It is one now.")},
        (503,),
        (TOPICS, AFTER),
    ),
    ("GET", "/metrics"): Route(
        "metrics",
        "Read the metrics, as Prometheus does.",
        {200: answer("As text, or as OpenMetrics if `Accept` asks for it.", TEXT, PLAIN, health.OPENMETRICS)},
        tag="health",
    ),
    ("GET", "/healthz"): Route(
        "health",
        "Ask whether the process answers.",
        {200: answer("It does.", record({"status": {"const": "ok"}, "version": TEXT}))},
        tag="health",
    ),
    ("GET", "/readyz"): Route(
        "ready",
        "Ask whether every part works.",
        {
            200: answer("All do; `reasons` names channels and webhooks that fail.", _READY),
            503: answer("Some do not; `reasons` says why, by part.", _READY),
        },
        tag="health",
    ),
    ("GET", "/"): Route(
        "dashboard",
        "Look at the page, at some of its panels, or at one of the pages beside it.",
        {
            200: answer("The page.", TEXT, HTML),
            304: _KNOWN,
            404: {"description": "There is no such command, task or agent.", "content": content(TEXT, HTML) | _NONE},
        },
        parameters=_PAGE,
        tag="page",
    ),
    ("GET", "/static/{name}"): Route(
        "static",
        "Get one of the page's files; `hub.js` is the client for browsers.",
        {200: answer("The file.", TEXT, *dict.fromkeys(frame.STATIC.values()))},
        (404,),
        (parameter("name", TEXT | {"enum": [*frame.STATIC]}, "The file.", "path"),),
        tag="page",
    ),
    ("POST", "/login"): Route(
        "login_link",
        "Make a link that lets one browser in, once.",
        {200: answer("The link, relative to the hub's address.", record({"link": TEXT}))},
        tag="page",
    ),
    ("GET", "/login/{code}"): Route(
        "login",
        "Follow such a link: it gives a cookie.",
        {303: answer("You are in: on to the page.")},
        (),
        (parameter("code", TEXT, "What the link ends with.", "path"),),
        tag="page",
    ),
    ("GET", "/openapi.json"): Route("openapi", "Get this document.", _DOCUMENT, tag="documents"),
    ("GET", "/asyncapi.json"): Route(
        "asyncapi", "Get the document of the WebSocket and the events.", _DOCUMENT, tag="documents"
    ),
}
