"""The page's forms: what a person sends goes the one way through the house, as any call of a command.

Each form is a command's. Those that have an address of their own (answer, vote, seen) call one with fewer fields. What
is done is answered with the way back to the page; what is not, with the form itself and what is wrong at its field.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import hdrs, web

from ...commands.call import Command
from ...commands.confirmation import digest
from ...errors import HubError
from ...stream.passes import LARGE
from ...wire.names import MAX_NAME
from ...wire.strictjson import dumpb
from .. import api
from ..answers import JSON, body, client_of, content_type, query
from ..answers import answer as json_answer
from ..keys import GUARD, HUB
from ..refusalpage import is_wanted
from . import drafts, frame, marks
from .drafts import CONFIRM, DRAFTS, KEY, ROOM, draft_of
from .exact import received
from .form import OF_A_CLIENT, OWN, Form, commands, late
from .formfields import REST, UNFIT, meant
from .results import Kept, Results

RESULTS: "web.AppKey[Results]" = web.AppKey("results", Results)

FORM = "application/x-www-form-urlencoded"
MAX_BYTES = 256 * 1024  # of a form: to take it apart holds up the loop some ms
MAX_FIELDS = 1000


def is_form(path: str) -> bool:
    """Whether a route is a form's: those are the page's own, and no program's."""
    return path.strip("/") in (*OWN, "call/{name}")


def setup(app: web.Application) -> None:
    """Add the routes. They have no names, so that they count against the rate limit."""
    app[RESULTS], app[DRAFTS] = Results(), Kept(ROOM)
    for path in OWN:
        app.router.add_post(f"/{path}", _sent(_own))
    app.router.add_post("/call/{name}", _sent(lambda request: form_of(request, request.match_info["name"])))


def _own(request: web.Request) -> Form:
    resource = request.match_info.route.resource
    assert resource is not None
    return OWN[resource.canonical.rpartition("/")[2]]


def form_of(request: web.Request, name: str) -> Form:
    """The form of a command. Raises HubError `unknown_command`, also for what needs a client of its own."""
    if name in OF_A_CLIENT:
        sentence = f"{name} is about the stream or the calls of a client, and the page has none; connect to /ws."
        raise HubError("unknown_command", sentence, status=404)
    command: Command = request.app[HUB].commands.find(name)
    described = command.describe()
    action = f"call/{quote(name, safe=':')}"
    return Form(name, action, name, described["args"], described["summary"], described["effect"], "Run")


# ---- shown


async def show(request: web.Request) -> web.Response:
    """GET /?call=NAME: the form of a command; with `&done=ID` what it has answered, with `&again=ID` what was sent and
    not taken, with `&sure=ID` the second step of that. Without a name, all commands."""
    asked = query(request, "call", "done", "again", "sure")
    name, who, hub = asked["call"], drafts.caller(request), request.app[HUB]
    if not name:
        found = sorted(commands(hub), key=lambda command: command.name)
        return await frame.show(request, "pages/commands.html", {"commands": found})
    id = asked.get("sure") or asked.get("again")
    draft = request.app[DRAFTS].get(id, who, name) if id else None
    if draft is not None and id is not None and "sure" in asked and draft.confirm:
        return await drafts.show(request, draft, id, "./")
    form = draft.form if draft is not None and draft.form.action in OWN else form_of(request, name)
    context = drafts.drawn(form, draft.fields if draft else form.fields, draft.sentence if draft else "")
    result = request.app[RESULTS].get(asked["done"], who, name) if "done" in asked else None
    context |= {"result": result, "is_done": "done" in asked, "is_lost": id is not None and draft is None}
    return await frame.show(request, "pages/call.html", context)


def _is_asked_by_script(request: web.Request) -> bool:
    return request.headers.get(hdrs.ACCEPT) == JSON


async def _again(
    request: web.Request, form: Form, typed: Mapping[str, str], error: HubError, confirm: str | None
) -> web.Response:
    """The form once more, with what is wrong; or, for what must be confirmed, the second step. A browser is sent on to
    it: not where another worker, which does not have it, may be asked."""
    draft = draft_of(form, typed, error, confirm)
    is_sent_on = is_wanted(request) and request.app[HUB].config.workers == 1
    if not is_sent_on and not draft.confirm:
        context = drafts.drawn(form, draft.fields, draft.sentence, form.root)
        return await frame.show(request, "pages/call.html", context, error.status)
    id = request.app[DRAFTS].put(drafts.caller(request), form.command, draft, draft.size)
    if not is_sent_on:
        return await drafts.show(request, draft, id, form.root, error.status)
    return _on(form, "sure" if draft.confirm else "again", id)


# ---- sent


def _sent(found: Callable[[web.Request], Form]) -> Callable[[web.Request], Any]:
    async def sent(request: web.Request) -> web.StreamResponse:
        request.app[GUARD].check_form(request)
        try:
            query(request)
            content_type(request, FORM)
            typed = _typed(await body(request, min(MAX_BYTES, request.app[HUB].config.max_body)))
            form = _refusing(request, found)
        except HubError as error:  # there is no form to show it at
            return await frame.refuse(request, error, "../" if "name" in request.match_info else "./")
        confirm, key = typed.pop(CONFIRM, None), typed.pop(KEY, None)
        return await _call(request, form, typed, confirm, key and _key(key, typed))

    return sent


def _refusing(request: web.Request, found: Callable[[web.Request], Form]) -> Form:
    """The form; that there is none is noted, as of every call that did not run. Raises HubError."""
    try:
        return found(request)
    except HubError as error:
        hub, name = request.app[HUB], request.match_info["name"][: MAX_NAME + 1]
        hub.commands.refuse(client_of(request, "http"), None, name, error.code)
        raise


def _typed(text: bytes) -> dict[str, str]:
    """The fields of a form by name. Raises HubError for what is no form, and for a field that is sent twice."""
    strict: dict[str, Any] = {"keep_blank_values": True, "strict_parsing": bool(text), "errors": "strict"}
    try:
        pairs = parse_qsl(text.decode("ascii"), max_num_fields=MAX_FIELDS, **strict)
    except ValueError:  # UnicodeDecodeError is one, too
        raise HubError("invalid_message", f"This is no form of at most {MAX_FIELDS} fields.") from None
    found = dict(received(name, text) for name, text in pairs)
    if len(found) != len(pairs):
        raise HubError("invalid_message", "A field of the form was sent twice.")
    return found


def _key(drawn: str, typed: Mapping[str, str]) -> str:
    """The idempotency key of what is sent: of one drawing, the same fields are the same call. Stops a second press, and
    a page that is loaded again, from running it twice; who goes back and types something else sends another one."""
    return digest(drawn, typed).hex()


async def _call(
    request: web.Request, form: Form, typed: dict[str, str], confirm: str | None, key: str | None
) -> web.StreamResponse:
    try:
        if form is OWN["seen"] and "panel" in typed:
            await marks.mark_all(request, typed)
            return _done(request, form, typed, b"{}")
        if form is OWN["seen"] and not await marks.is_as_drawn(request, typed):
            return _done(request, form, typed, b"{}")  # it stands there still, as it is now
        args = _args(request, form, typed)
        done = partial(_done, request, form, typed)
        return await api.call(request, form.command, args, done, confirm=confirm, key=key, audited=form.audited)
    except HubError as error:
        return await _again(request, form, typed, error, confirm)


def _args(request: web.Request, form: Form, typed: Mapping[str, str]) -> dict[str, Any]:
    """The args of the command. What already fails here is noted as a refusal, as everywhere. Raises HubError."""
    hub, client = request.app[HUB], client_of(request, "http")
    try:
        args, problems = meant(form.fields, typed)
        if problems:
            raise HubError("invalid_args", UNFIT, {**_further(request, form, args, problems), **problems})
        return args if form.args is None else form.args(hub, client, args)
    except HubError as error:
        hub.commands.refuse(client, None, form.command, error.code)
        raise


def _further(
    request: web.Request, form: Form, args: Mapping[str, Any], problems: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the command says of the fields that could be read, where others could not: so that all of it is said at
    once. Not where to look takes a turn of its own, which only a call has."""
    command: Command = request.app[HUB].commands.find(form.command)
    weight = request.content.total_bytes
    if form.args is not None or weight > LARGE or command.is_heavy(weight):
        return {}
    try:
        command.check(args)
    except HubError as error:
        told: Mapping[str, Any] = error.details if isinstance(error.details, dict) else {}
        names = {field.name for field in form.fields}
        return told if REST not in problems else {name: told[name] for name in told if name in names}
    return {}


def _done(request: web.Request, form: Form, typed: Mapping[str, str], answer: bytes) -> web.Response:
    """The way back to the page; where there is something to be read, to what the command has answered. The page's
    script, which stays where it is, asks for JSON: `{}`, or a sentence for what has not become of it."""
    is_late = form.command == "hub:answer" and json.loads(answer) == {"accepted": False}
    remark = late(request.app[HUB], typed.get("question", "")) if is_late else _remark(form, answer)
    if form.action in OWN and _is_asked_by_script(request):
        return json_answer(dumpb({"late": remark} if is_late else {}))
    if form.action in OWN and not is_late:
        return _back("./")
    id = request.app[RESULTS].keep(drafts.caller(request), form.command, answer, remark)
    return _on(form, "done", id)


def _remark(form: Form, answer: bytes) -> str:
    """What to say above an answer in place of a tick."""
    found = json.loads(answer) if form.command == "audit:verify" else {"valid": True}
    return "" if found["valid"] else "The audit log is not intact: what is wrong stands below."


def _on(form: Form, what: str, id: str) -> web.Response:
    return _back(f"{form.root}?{urlencode({'call': form.command, what: id}, safe=':')}")


def _back(place: str) -> web.Response:
    return web.Response(status=303, headers={"Location": place})
