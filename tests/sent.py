"""What the tests of forms share: to send one as the hub's own page does, and to read a page that comes back."""

import os
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp_jinja2
from jinja2 import BaseLoader, ChoiceLoader, DictLoader
from marshmallow import fields, validate
from running import Answer, HubInside

from hub import Call, Hub
from hub.commands.asked import account
from hub.errors import CommandError

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VOID = {"meta", "link", "input", "br", "img", "hr"}
ME = account(os.geteuid())
QUESTION = ("Deploy?", ["yes", "no", "a\r\nb"])
VOTE = {"vote_id": "v", "topic": "Merge?", "eligible": 7, "status": "open"}


def prepare(hub: Hub) -> None:
    @hub.command("db:drop", {"table": fields.String(required=True), "rows": fields.Integer()}, effect="dangerous")
    async def drop(call: Call) -> Any:
        """Drop a table."""
        return {"dropped": call.args}

    @hub.command("shop:order", {"count": fields.Integer(strict=True, validate=validate.Range(1, 9))})
    async def order(call: Call) -> Any:
        """Order something."""
        if call.args.get("count") == 9:
            raise CommandError("The shop is closed.")
        return {"ordered": call.args.get("count", 1)}

    @hub.command("shop:much", {}, effect="read")
    async def much(call: Call) -> Any:
        """Say much."""
        return "x" * 100_000


def value(hub: HubInside, event: str, key: str) -> Any:
    found = hub.hub.state.get(event, key)
    return found and found.data


def sent_back(answer: Answer, place: str = "./") -> None:
    assert (answer.status, answer.headers["Location"]) == (303, place)


def rewritten(hub: HubInside, name: str, old: str, new: str) -> None:
    """Have a template written otherwise in one place."""
    env = aiohttp_jinja2.get_env(hub.app)
    assert isinstance(env.loader, ChoiceLoader)
    source = env.loader.get_source(env, name)[0]
    assert old in source
    cast(list[BaseLoader], env.loader.loaders).insert(0, DictLoader({name: source.replace(old, new)}))


def own(hub: HubInside) -> dict[str, str]:
    """The headers with which a browser sends a form of the page."""
    return {**FORM, "Origin": hub.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}


async def send(hub: HubInside, path: str, fields: Any = (), /, **headers: str) -> Answer:
    """Send a form: these fields, or a body as it is."""
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    given = {**own(hub), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await hub.ask("POST", path, data=body, headers=given, allow_redirects=False)


def main(html: str) -> "Page":
    """What stands in the page's main part."""
    return Page("<main" + html.split("<main")[1].split("</main>")[0] + "</main>")


class Page(HTMLParser):
    """A page: its elements in order, and its text. Raises AssertionError if its tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []  # of each element
        self.open: list[tuple[str, int]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {attrs}"
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, index in self.open:
            self.texts[index] += data

    @property
    def text(self) -> str:
        return self.texts[0] if self.texts else ""

    def all(self, tag: str, **wanted: str | None) -> list[dict[str, str | None]]:
        """The attributes of these elements, with what stands in each as `text`."""
        named = {name.strip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            {**attributes, "text": text}
            for (name, attributes), text in zip(self.elements, self.texts, strict=True)
            if name == tag and all(attributes.get(key) == value for key, value in named.items())
        ]

    def one(self, tag: str, **wanted: str | None) -> dict[str, str | None]:
        (found,) = self.all(tag, **wanted)
        return found

    def field(self, name: str) -> dict[str, str | None]:
        """The input, text area or select of this name."""
        (found,) = [one for tag in ("input", "textarea", "select", "button") for one in self.all(tag, name=name)]
        return found

    def problem(self, name: str) -> str:
        """What is said to be wrong with a field, by the attributes that tell a screen reader."""
        field = self.field(name)
        assert field["aria-invalid"] == "true"
        said = [self.one("p", id=id)["text"] for id in (field["aria-describedby"] or "").split()]
        return str(said[-1])

    def carried(self) -> dict[str, str]:
        """The fields that a second step carries, as a browser would send them."""
        hidden = {str(one["name"]): str(one["value"]) for one in self.all("input", type="hidden")}
        return hidden | {str(one["name"]): str(one["text"]).removeprefix("\n") for one in self.all("textarea")}
