"""The page's forms: what a person sends goes the one way through the house, as any call of a command.

Each form is a command's. Those that have an address of their own (answer, vote, seen) call one with fewer fields. What
is done is answered with the way back to the page; what is not, with the form itself and what is wrong at its field.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import web

from ...commands.asked import person
from ...commands.call import Command
from ...commands.clients import Client
from ...commands.providers import provided
from ...commands.questions import EVENT
from ...errors import HubError
from ...hub import Hub
from ...wire.names import MAX_NAME
from ...wire.validation import misfit
from .. import api
from ..answers import body, client_of, content_type, query
from ..keys import GUARD, HUB
from . import frame
from .formfields import Field, Schema, args_of, fields_of, told
from .results import Result, Results

RESULTS: "web.AppKey[Results]" = web.AppKey("results", Results)

FORM = "application/x-www-form-urlencoded"
MAX_BYTES = 256 * 1024  # of a form: to take it apart holds up the loop some ms
MAX_FIELDS = 1000
CONFIRM = "hub:confirm"  # the field of the second step; no arg can have this name in a form
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

    @property
    def fields(self) -> list[Field]:
        return fields_of(self.schema)

    @property
    def root(self) -> str:
        """The way from where it is sent back to the page."""
        return "../" * self.action.count("/") or "./"


def is_form(path: str) -> bool:
    """Whether a route is a form's: those are the page's own, and no program's."""
    return path.strip("/") in (*OWN, "call/{name}")


def setup(app: web.Application) -> None:
    """Add the routes. They have no names, so that they count against the rate limit."""
    app[RESULTS] = Results()
    for path in OWN:
        app.router.add_post(f"/{path}", _sent(_own))
    app.router.add_post("/call/{name}", _sent(lambda request: form_of(request, request.match_info["name"])))


def _own(request: web.Request) -> Form:
    resource = request.match_info.route.resource
    assert resource is not None
    return OWN[resource.canonical.rpartition("/")[2]]


def form_of(request: web.Request, name: str) -> Form:
    """The form of a command. Raises HubError `unknown_command`."""
    command: Command = request.app[HUB].commands.find(name)
    described = command.describe()
    action = f"call/{quote(name, safe=':')}"
    return Form(name, action, name, described["args"], described["summary"], described["effect"], "Run")


# ---- the forms with addresses of their own


def _texts(*names: str, **more: Any) -> Schema:
    properties = {name: {"type": "string"} for name in names} | more
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def answer(hub: Hub, client: Client, args: dict[str, Any]) -> dict[str, Any]:
    """The answer as it stands among the options: a browser sends every break of a line as one of two characters."""
    question = hub.state.get(EVENT, args["question"])
    options: list[str] = question.data["options"] if question is not None else []
    meant = [option for option in options if _with_one_break(option) == args["answer"]]
    return {**args, "answer": meant[0]} if meant else args


def vote(hub: Hub, client: Client, args: dict[str, Any]) -> dict[str, Any]:
    """What is published for a vote of this account's; what is known of the vote stays known. Raises HubError."""
    if odd := sorted(args.keys() - {"vote_id", "option"}):
        raise misfit("invalid_args", "Nothing was cast", {odd[0]: ["Unknown field."]})
    kept = hub.state.get(VOTE, args["vote_id"])
    known: dict[str, Any] = kept.data if kept is not None else {}
    if kept is None or known.get("status", "open") != "open":
        problem = "There is no such vote." if kept is None else "This vote is over."
        raise misfit("invalid_args", "Nothing was cast", {"vote_id": [problem]})
    by = person(client).name
    data: dict[str, Any] = {name: known[name] for name in OF_A_VOTE if name in known} | {**args, "agent": by}
    if isinstance(known.get("votes"), dict):
        data["votes"] = {**known["votes"], by: args["option"]}
    return {"event": VOTE, "data": data, **({"ttl": kept.ttl} if kept.ttl is not None else {})}


OWN: Mapping[str, Form] = {
    "answer": Form("hub:answer", "answer", "Answer a question", _texts("question", "answer"), args=answer),
    "seen": Form("hub:seen", "seen", "Mark as seen", _texts("event", "key")),
    "vote": Form(
        "hub:publish",
        "vote",
        "Vote",
        _texts("vote_id", option={"enum": ["approve", "reject", "abstain"]}),
        args=vote,
        within="data",
    ),
}


# ---- shown


async def show(request: web.Request) -> web.Response:
    """GET /?call=NAME: the form of a command; with `&done=ID` what it has answered. Without a name, all commands."""
    asked = query(request, "call", "done")
    if not asked["call"]:
        commands = sorted(provided(request.app[HUB].commands), key=lambda command: command.name)
        return await frame.show(request, "pages/commands.html", {"commands": commands})
    form = form_of(request, asked["call"])
    result, account = None, client_of(request, "http").account
    if "done" in asked:
        result = request.app[RESULTS].get(asked["done"], account, form.command)
    more = {"result": result, "is_done": "done" in asked, "is_late": is_late(form, result)}
    return await frame.show(request, "pages/call.html", {**_context(form, {}), **more})


def is_late(form: Form, result: Result | None) -> bool:
    """Whether somebody's answer came when the question was over."""
    return form.command == "hub:answer" and result is not None and json.loads(result.text) == {"accepted": False}


def _context(form: Form, typed: Mapping[str, str], error: HubError | None = None) -> dict[str, Any]:
    fields, sentence = told(form.fields, typed, error)
    return {"form": form, "fields": fields, "sentence": sentence, "root": form.root if error else "./"}


async def _again(request: web.Request, form: Form, typed: Mapping[str, str], error: HubError) -> web.Response:
    """The form once more, with what is wrong; or, for what must be confirmed, the second step."""
    if form.within and isinstance(error.details, dict) and isinstance(error.details.get(form.within), dict):
        error.details = error.details[form.within]
    context = _context(form, typed, error)
    if error.code == "confirmation_required" and isinstance(error.details, dict):
        exact = json.dumps(args_of(form.fields, typed), indent=2, ensure_ascii=False)
        context |= {"confirm": error.details["confirm"], "typed": typed, "exact": exact, "field": CONFIRM}
        return await frame.show(request, "pages/confirm.html", context, error.status)
    return await frame.show(request, "pages/call.html", context, error.status)


# ---- sent


def _sent(found: Callable[[web.Request], Form]) -> Callable[[web.Request], Any]:
    async def sent(request: web.Request) -> web.StreamResponse:
        request.app[GUARD].check_form(request)
        query(request)
        content_type(request, FORM)
        typed = _typed(await body(request, min(MAX_BYTES, request.app[HUB].config.max_body)))
        confirm = typed.pop(CONFIRM, None)
        return await _call(request, _refusing(request, found), typed, confirm)

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
    found = {name: _with_one_break(text) for name, text in pairs}
    if len(found) != len(pairs):
        raise HubError("invalid_message", "A field of the form was sent twice.")
    return found


def _with_one_break(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


async def _call(request: web.Request, form: Form, typed: dict[str, str], confirm: str | None) -> web.StreamResponse:
    try:
        args = _args(request, form, typed)
        return await api.call(request, form.command, args, lambda text: _done(request, form, text), confirm=confirm)
    except HubError as error:
        return await _again(request, form, typed, error)


def _args(request: web.Request, form: Form, typed: Mapping[str, str]) -> dict[str, Any]:
    """The args of the command. What already fails here is noted as a refusal, as everywhere. Raises HubError."""
    hub, client = request.app[HUB], client_of(request, "http")
    try:
        args = args_of(form.fields, typed)
        return args if form.args is None else form.args(hub, client, args)
    except HubError as error:
        hub.commands.refuse(client, None, form.command, error.code)
        raise


def _done(request: web.Request, form: Form, answer: bytes) -> web.Response:
    """The way back to the page; where there is something to be read, to what the command has answered."""
    if form.action in OWN and json.loads(answer) != {"accepted": False}:
        return _back("./")
    id = request.app[RESULTS].keep(client_of(request, "http").account, form.command, answer)
    return _back(f"{form.root}?{urlencode({'call': form.command, 'done': id}, safe=':')}")


def _back(place: str) -> web.Response:
    return web.Response(status=303, headers={"Location": place})
