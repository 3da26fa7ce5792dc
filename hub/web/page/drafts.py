"""What was sent by a form and has not become a call: the form with what is wrong at its fields, or the second step of
what is dangerous. A browser is sent on to it, and the hub keeps it that long: secrets and long texts stand in no
address, and nobody who goes back is asked whether to send the form once more."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from ...commands.confirmation import GOOD_SECONDS
from ...errors import HubError
from ...wire.ids import new_id
from ...wire.texts import printable
from ..answers import client_of
from ..keys import PEER, SEEN
from . import frame
from .form import Form
from .formfields import Field, args_of, told, veiled
from .results import Caller, Kept

DRAFTS: "web.AppKey[Kept[Draft]]" = web.AppKey("drafts")
ROOM = 4 * 1024 * 1024  # characters of all that is kept
# Fields beside the args, none of which can have these names in a form: of the second step; and what is another one in
# each form that is drawn.
CONFIRM, KEY = "hub:confirm", "hub:key"


class Draft(NamedTuple):
    """A form as it was sent. `confirm` is the value with which it runs as it stands, if that is all that is missing;
    `is_late`: it came with one that was too old, or used already."""

    form: Form
    typed: Mapping[str, str]
    fields: Sequence[Field]
    sentence: str = ""
    confirm: str = ""
    is_late: bool = False

    @property
    def size(self) -> int:
        """Characters that are its own."""
        texts = (self.sentence, *(name + text for name, text in self.typed.items()))
        return sum(map(len, texts)) + sum(len(field.typed) + len(field.error) for field in self.fields)


def draft_of(form: Form, typed: Mapping[str, str], error: HubError, confirm: str | None) -> Draft:
    """What a call that was refused leaves; `confirm` came with it."""
    details = error.details if isinstance(error.details, dict) else {}
    if error.code == "confirmation_required" and details:
        return Draft(form, typed, told(form.fields, typed)[0], "", details["confirm"], confirm is not None)
    if form.within and isinstance(details.get(form.within), dict):
        error.details = details[form.within]
    return Draft(form, typed, *told(form.fields, typed, error))


async def show(request: web.Request, draft: Draft, id: str, root: str, status: int = 200) -> web.Response:
    """Answer with the second step; `id` leads back from there to what was typed."""
    args = args_of(draft.form.fields, draft.typed)
    shown = veiled(args)
    context = {**drawn(draft.form, draft.fields, root=root), "typed": draft.typed, "confirm": draft.confirm}
    context |= {"exact": exactly(shown), "is_veiled": shown != args, "is_late": draft.is_late}
    context |= {"field": CONFIRM, "good": GOOD_SECONDS, "id": id}
    return await frame.show(request, "pages/confirm.html", context, status)


def drawn(form: Form, fields: Sequence[Field], sentence: str = "", root: str = "./") -> dict[str, Any]:
    """What the page of a form says in any case."""
    shown = {"form": form, "fields": fields, "sentence": sentence, "root": root}
    return {**shown, "key_field": KEY, "key": "" if form.effect == "read" else new_id()}


def exactly(args: Any) -> str:
    """The args of the second step as JSON, in which nothing but a secret is hidden: what stands there is what runs."""
    return "\n".join(map(printable, json.dumps(args, indent=2, ensure_ascii=False).split("\n")))


def caller(request: web.Request) -> Caller:
    """For whom what comes of this request is kept."""
    grant = request[SEEN].grant
    return Caller(client_of(request, "http").account, request[PEER].trust, grant.session if grant else None)
