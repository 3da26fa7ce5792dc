"""What agents and services send, as it is: events, and a question to a person where one may be asked.

A hook never decides by accident: what goes back without a person's answer on record decides nothing.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import Any, cast
from urllib.parse import parse_qs

from aiohttp import web

from ..adapters import waits
from ..adapters.reading import read
from ..adapters.senders import ADAPTERS, AGENTS, SILENT, WAIT, WAITS, sender_of
from ..adapters.shape import Event, Given, Question, Taken, marked
from ..adapters.turns import STATUS, TASK, resumed
from ..commands.call import check_trust
from ..commands.questions import LONGEST
from ..errors import HubError
from ..hub import Hub
from ..redaction import redact_text
from ..spelling import suggestion
from ..stream.tasks import open_tasks
from ..wire.strictjson import dumpb
from ..wire.timestamps import now
from ..wire.validation import misfit
from ..wire.vocabulary import Adapter, HookOutcome
from . import signed
from .answers import SHOWN, answer, body, client_of, query
from .hookquestions import HookQuestions
from .keys import GUARD, HUB, MACHINE, PEER
from .room import Room
from .signed import ROUTE, Strangers
from .toolcalls import ToolCalls

LARGEST = 4 * 1024 * 1024  # bytes of a body; of one that is larger nothing is taken
ROOM = 8 * LARGEST  # bytes of bodies above QUICK that are read and taken at once: parsed, each is many times as large
QUICK = 64 * 1024  # bytes that are parsed at once; what is larger, in a thread
RESUMED_SECONDS = 1.0  # that an agent waits at most until it is published that it goes on
PID = "Hub-Pid"  # the process that sends, or on whose behalf it is sent
HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # what may be half a surrogate pair
FORM = b"payload="  # how GitHub's body begins where it sends a form


class Hooks:
    """What the hooks of one hub share. `turn`: one hook after the other looks at the last values and publishes, else
    one that came late could reopen what the other has just ended."""

    def __init__(self, patience: float) -> None:
        self.turn = asyncio.Lock()
        self.heard: dict[str, str] = {}  # when, by sender, since this hub was started
        self.questions = HookQuestions()
        self.calls = ToolCalls()
        self.room = Room(ROOM, patience)
        self.strangers = Strangers(LARGEST, QUICK)
        self.parsing = asyncio.Lock()  # of large bodies: what is parsed can be many times as large as its text


HOOKS: "web.AppKey[Hooks]" = web.AppKey("hooks", Hooks)


class LastValues:
    """The last values of a hub, as adapters ask for them."""

    def __init__(self, hub: Hub) -> None:
        self._state = hub.state

    def value(self, event: str, key: str) -> Mapping[str, Any] | None:
        """See `adapters.shape.Last`."""
        found = self._state.get(event, key)
        return found.data if found is not None else None

    def tasks(self, agent: str) -> list[Mapping[str, Any]]:
        """See `adapters.shape.Last`."""
        return list[Mapping[str, Any]](open_tasks(self._state, agent))

    def subagents(self, agent: str) -> list[Mapping[str, Any]]:
        """See `adapters.shape.Last`."""
        return [event.data for event in self._state.of(STATUS) if event.data.get("parent") == agent]


def setup(app: web.Application) -> None:
    """Add the route."""
    hub = app[HUB]
    hooks = app[HOOKS] = Hooks(hub.config.deadline)

    def ended(agent: str) -> None:
        """Its hook may live on, and wait for an answer that nobody needs any more."""
        for client in hooks.questions.of(agent):
            hub.questions.withdraw_of(client)

    hub.liveness.on_ended = ended
    app[GUARD].signed = lambda request: hub.github_secret is not None and signed.is_offered(request)
    app.router.add_post("/hooks/{adapter}", hook, name=ROUTE)
    app.router.add_get("/hooks", heard, name="api-hooks")


async def heard(request: web.Request) -> web.Response:
    """GET /hooks: when each agent was last heard, as far as it is still known. No command, so no record is made."""
    query(request)
    found = dict(request.app[HOOKS].heard)
    for agent in AGENTS:
        for name in (STATUS, TASK):
            if newest := request.app[HUB].state.newest(name, f"{agent}:"):
                found[agent] = max(found.get(agent, ""), newest.timestamp)
    return answer(dumpb(found))


async def hook(request: web.Request) -> web.Response:
    """POST /hooks/{adapter}: 200, and what that sender expects."""
    hub, named = request.app[HUB], _named(request)
    given = query(request, "ask", "timeout", "event")
    timeout = seconds_of("timeout", given["timeout"], LONGEST) if "timeout" in given else None
    if given.get("ask", "0") not in ("0", "1"):
        raise misfit("invalid_args", "The query does not fit", {"ask": ["It is 1, or 0."]}, status=400)
    proved = None
    if signed.is_unproved(request):
        proved = await request.app[HOOKS].strangers.read(request)
        signed.check(request, proved)
    else:
        may_publish(request)
    async with _room(request, proved):
        came = await _came(request, named, given, proved)
    if came is None:
        return _told(hub, named, "unreadable", _nothing(named))
    sender, taken = came
    questions = request.app[HOOKS].questions
    for client in questions.idle(taken):
        hub.questions.withdraw_of(client)
    if taken.question is None:
        return _told(hub, sender, "taken" if taken.is_known else "passed_over", taken.answer)
    decision = await questions.ask(request, taken, taken.question, timeout or WAITS.get(sender, WAIT))
    if decision is None:
        return _told(hub, sender, "unanswered", taken.answer)
    if (wait := waits.newest(taken.events)) is not None:
        with contextlib.suppress(HubError, TimeoutError):  # that it cannot be said takes the decision not back
            await asyncio.wait_for(_resume(request, taken, taken.question, wait), RESUMED_SECONDS)
    return _told(hub, sender, "answered", decision)


def _room(request: web.Request, proved: bytes | None) -> AbstractAsyncContextManager[None]:
    """Stops many large bodies at once from taking all memory."""
    announced = LARGEST if request.content_length is None else min(request.content_length, LARGEST)
    size = announced if proved is None else len(proved)
    return request.app[HOOKS].room.take(size) if size > QUICK else contextlib.nullcontext()


async def _came(
    request: web.Request, named: Adapter, given: Mapping[str, str], proved: bytes | None
) -> tuple[Adapter, Taken] | None:
    """What has come, published, and from whom; None for what is no JSON object, or too large. `proved`: the body, where
    it was read because of its signature. Raises HubError."""
    is_signed = named == "github" and request.app[HUB].github_secret is not None
    try:
        data = await body(request, LARGEST) if proved is None else proved
    except HubError as error:
        if error.code != "too_large" or is_signed:
            raise
        return None
    if is_signed and proved is None:
        signed.check(request, data)
    async with request.app[HOOKS].parsing if len(data) > QUICK else contextlib.nullcontext():
        found, is_whole = await _read(data)
        if not isinstance(found, dict):
            return None
        sender = sender_of(found, named)
        asks = given.get("ask") == "1" and is_whole  # what goes back with an answer is what came
        digest = sha256(data).hexdigest() if sender == "github" else ""
        event = given.get("event", "")
        return sender, await _take(request, sender, found, event, asks=asks, size=len(data), digest=digest)


def _named(request: web.Request) -> Adapter:
    name = request.match_info["adapter"]
    if name not in ADAPTERS:
        near = suggestion(name[:SHOWN], ADAPTERS) or "."
        known = f"Known are {', '.join(ADAPTERS)}."
        raise HubError(
            "unknown_command", f"There is no adapter {redact_text(name)[:SHOWN]!r}{near} {known}", status=404
        )
    return cast(Adapter, name)


def seconds_of(name: str, text: str, most: float) -> float:
    """The seconds that a query names, 1 to `most`. Raises HubError with status 400."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= most:
        problem = {name: [f"Not a number of seconds from 1 to {most:.0f}."]}
        raise misfit("invalid_args", "The query does not fit", problem, status=400)
    return seconds


def may_publish(request: web.Request) -> None:
    """Raises HubError, recorded, for who may only read."""
    try:
        check_trust(request[PEER].trust, "write", "publishing")
    except HubError as error:
        request.app[HUB].commands.refuse(client_of(request, "http"), None, "hub:publish", error.code)
        raise


async def _read(data: bytes) -> tuple[Any, bool]:
    """The body as JSON, None if it is none; and whether all of it can be written again as it came."""
    return _parsed(data) if len(data) <= QUICK else await asyncio.to_thread(_parsed, data)


def _parsed(data: bytes) -> tuple[Any, bool]:
    if data.startswith(FORM):
        data = parse_qs(data.decode("utf-8", "replace")).get("payload", [""])[0].encode("utf-8", "replace")
    try:
        found = read(data)
        if HALF.search(data):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return found, False
    except (ValueError, RecursionError):
        return None, False
    return found, True


async def _take(
    request: web.Request, sender: Adapter, found: dict[str, Any], event: str, *, asks: bool, size: int, digest: str
) -> Taken:
    """Publish what a hook says; one after the other."""
    hub = request.app[HUB]
    async with request.app[HOOKS].turn:
        given = Given(
            found,
            LastValues(hub),
            now(),
            event=event,
            asks=asks,
            size=size,
            digest=digest,
            pid=_pid(request) if sender in AGENTS else None,
            headers=request.headers,
        )
        taken = ADAPTERS[sender](given)
        if taken.tool is not None:  # what is remembered of it weighs little, however large it was
            mark = marked(taken.tool) if size <= QUICK else await asyncio.to_thread(marked, taken.tool)
            taken.tool, taken.ran = mark, mark if taken.ran is not None else None
        if request.app[HOOKS].calls.note(taken):
            taken.events, taken.question = [], None
        await _publish(hub, request, taken.events)
    if taken.is_known and sender in AGENTS:
        request.app[HOOKS].heard[sender] = now()
    return taken


async def _publish(hub: Hub, request: web.Request, events: list[Event]) -> None:
    if events:
        machine = request.headers.get(MACHINE, "")
        await hub.accept([_record(event) for event in events], request[PEER].uid, many=True, machine=machine)


def _record(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {"event": event.name, "data": dict(event.data)}
    return found if event.id is None else found | {"id": event.id}


def _pid(request: web.Request) -> int | None:
    text = request.headers.get(PID, "")
    return int(text) or None if text.isascii() and text.isdigit() and 0 < len(text) < 10 else None


async def _resume(request: web.Request, taken: Taken, question: Question, wait: waits.Entry) -> None:
    """The turn goes on, as far as it has waited for this."""
    hub = request.app[HUB]
    async with request.app[HOOKS].turn:
        given = Given({}, LastValues(hub), now())
        await _publish(hub, request, resumed(taken.session, question.task, given, wait))


# ---- answers


def _nothing(named: Adapter) -> Mapping[str, Any] | None:
    return None if named in SILENT else {}


def _told(hub: Hub, adapter: Adapter, outcome: HookOutcome, words: Mapping[str, Any] | None) -> web.Response:
    hub.metrics.hook(adapter, outcome)
    return web.Response(text="") if words is None else answer(dumpb(words))
