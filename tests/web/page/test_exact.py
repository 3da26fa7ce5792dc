"""What others say is drawn with nothing hidden in it, on every page; and a form sends exactly what was meant."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp_jinja2
import pytest
from jinja2 import Environment
from marshmallow import fields, validate
from running import HubInside, hub_app, talk, until
from sent import Page, main, send

from hub import Call, Hub
from hub.cli.terminal import printable as on_a_terminal
from hub.commands.seen import is_seen
from hub.errors import CommandError
from hub.web.page import drafts, exact
from hub.web.page.exact import carried, received
from hub.web.page.formats import labelled
from hub.web.page.frame import prepare_environment
from hub.wire.texts import printable, seen

HIDDEN = "\u202e\u202c\u2066\u2069\u200b\u200e\xad\xa0\ufeff\ufe0f\u115f\u3164\U000e0061\U000e0100\x7f\x1b"
HOSTILE = f"/srv/{HIDDEN}cod"
NAMES = ["\u202eseY", "no", "no "]


def prepare(hub: Hub) -> None:
    @hub.command(
        "danger:wipe",
        {"path": fields.String(required=True), "how": fields.String(validate=validate.OneOf([HOSTILE, *NAMES]))},
        effect="dangerous",
    )
    async def wipe(call: Call) -> Any:
        """Wipe a folder."""
        return {"wiped": call.args["path"]}

    @hub.command("shop:fail", {})
    async def fail(call: Call) -> None:
        """Fail."""
        raise CommandError(f"It failed: {HOSTILE}")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


# ---- what is drawn


class Drawn(HTMLParser):
    """What a reader gets to see, or hear: texts and attributes, but for what is sent."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tag = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        self.found += [f"<{tag} {name}>: {text}" for name, text in attrs if name not in ("value", "name")]

    def handle_data(self, data: str) -> None:
        is_aside = self.tag == "textarea" or data == "\N{NO-BREAK SPACE}"
        self.found.append("" if is_aside else re.sub("\N{NO-BREAK SPACE}(?=[·%])", " ", data))


async def say_everything(hub: Hub, text: str) -> None:
    """Every panel gets it wherever it takes a text."""
    by = {text: text}
    task = {"name": text, "message": text, "error": text, "agent": text, "started_at": text}
    for status in ("running", "queued", "failed", "waiting_approval"):
        await hub.publish("task:progress", {"id": status + text, "status": status, **task})
    for status in ("active", "idle", "error"):
        data = {"id": status + text, "status": status, "task": text, "reason": text, "type": text, "host": text}
        await hub.publish("agent:status_change", {**data, "cwd": text, "message": text, "parent": text})
    await hub.publish("agent:tool_call", {"agent": "active" + text, "tool": text, "phase": "finished"})
    vote = {"vote_id": text, "topic": text, "agent": text, "option": "reject", "deadline": text}
    await hub.publish("governance:vote_cast", vote)
    await hub.publish("security:threat_detected", {"type": text, "severity": "low", "source": text, "details": by})
    alert = {"id": text, "status": "firing", "title": text, "severity": text, "source": text, "description": text}
    await hub.publish("alert:status", alert)
    await hub.publish("build:line", {"line": text, text: text})


async def hidden_on(hub: HubInside) -> list[str]:
    """What of all pages has something in it that cannot be seen."""
    asking = asyncio.ensure_future(hub.hub.ask(HOSTILE, [HOSTILE, *NAMES], default="no ", details={HOSTILE: HOSTILE}))
    await until(lambda: [*hub.hub.questions.records()])
    (question,) = hub.hub.questions.records()
    await say_everything(hub.hub, HOSTILE)
    shown = [
        await hub.get(f"{place}{text}")
        for text in (quote(HOSTILE), f"running{quote(HOSTILE)}", f"active{quote(HOSTILE)}")
        for place in ("?task=", "?agent=", "?search=", "?panel=events&filter=")
    ]
    shown += [await hub.get(place) for place in ("", "?panel=working&filter=agents", "?call=", "?call=danger:wipe")]
    shown.append(await send(hub, "call/danger:wipe", {"path": HOSTILE, "how": HOSTILE}))
    shown.append(await send(hub, "call/danger:wipe", {"path": HOSTILE, "how": "x", HOSTILE: HOSTILE}))
    shown.append(await send(hub, "call/shop:fail"))
    shown.append(await send(hub, "call/hub:ping", {"hub:args": json.dumps({HOSTILE: HOSTILE})}))
    assert shown[-1].status == 303
    shown.append(await hub.get(shown[-1].headers["Location"].removeprefix("../")))
    shown.append(await send(hub, "answer", {"question": question["id"], "answer": "x"}))
    given = [await send(hub, "answer", {"question": question["id"], "answer": HOSTILE}) for _ in "12"]
    assert HOSTILE in await asking
    shown.append(await hub.get(given[1].headers["Location"]))
    assert all(answer.headers["Content-Type"].startswith("text/html") for answer in shown if answer.status != 303)
    return [part for answer in shown for part in Drawn(answer.text).found if seen(part) != part]


async def test_no_page_hides_what_others_say(hub: HubInside) -> None:
    assert await hidden_on(hub) == []


async def test_weakened_it_is_written_as_it_is(hub: HubInside) -> None:
    env = aiohttp_jinja2.get_env(hub.app)
    env.finalize, env.bytecode_cache = None, None
    assert env.cache is not None
    env.cache.clear()
    hidden = await hidden_on(hub)
    for where in (
        HOSTILE,
        NAMES[0],
        "<b title>",
        "<button aria-label>",
        "It failed: ",
        "Must be one of",
    ):
        assert any(where in part for part in hidden), where


PATH = "/home/\u202ecod\u202c/x  y\u200d\n"


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_confirmed_is_what_runs(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(drafts, "printable", str)
        env = aiohttp_jinja2.get_env(hub.app)
        env.finalize, env.bytecode_cache = None, None
    confirm = Page((await send(hub, "call/danger:wipe", {"path": PATH})).text)
    shown = str(confirm.one("code")["text"])
    assert ("\\u202ecod\\u202c/x  y\\u200d\\n" in shown) is not weakened
    assert ("\u202e" in shown) is weakened
    assert json.loads(shown) == {"path": PATH}, "and it is the same JSON"
    done = await send(hub, "call/danger:wipe", confirm.carried())
    (called,) = await hub.recorded("command.called")
    assert (done.status, called["details"]["args"]) == (303, {"path": PATH})


def test_a_terminal_shows_the_same() -> None:
    assert on_a_terminal is printable
    assert printable("a\u202e\n\tb\u200d") == "a\\u202e\\n\\tb\\u200d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x00\x1b\x7f\x9b\r", "a\\u0000\\u001b\\u007f\\u009b\\r"),
        ("a\xa0b\u2003c", "a\\u00a0b\\u2003c"),
        ("a\u034f\ufe0fb\U000e0100", "a\\u034f\\ufe0fb\\udb40\\udd00"),
        ("a\u200db\ufe0f", "a\\u200db\\ufe0f"),
        ("\u200dx", "\\u200dx"),
        ("é\u200dé\ufe0f", "é\\u200dé\\ufe0f"),
        ("❤\ufe0f\u200d🔥 ‼\ufe0f 1\ufe0f\u20e3", "❤\ufe0f\u200d🔥 ‼\ufe0f 1\ufe0f\u20e3"),
        ("1\ufe0f", "1\\ufe0f"),
        ("👩\u200d💻 שלום\n\tx", "👩\u200d💻 שלום\n\tx"),
        ("ශ්\u200dරී", "ශ්\u200dරී"),
    ],
)
def test_what_cannot_be_seen_is_written_out_and_pictures_stay_whole(text: str, shown: str) -> None:
    assert seen(text) == shown
    assert seen(shown) == shown


# ---- what is sent


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (["yes", "no"], ["yes", "no"]),
        (["no", "no "], ["no", "no␣"]),
        ([" a", "\ta\n", "  "], ["␣a", "␣a␣", "␣␣"]),
        (["a\u202e", "a"], ["a\\u202e", "a"]),
        (["a\u202e", "a\\u202e"], ['"a\\u202e"', '"a\\\\u202e"']),
        (["a b", "a  b"], ['"a b"', '"a␣␣b"']),
        (["a\nb", "a b"], ['"a\\nb"', '"a b"']),
        (["\u00e9", "e\u0301"], ['"\\u00e9"', '"e\\u0301"']),
        (["no ", "no␣"], ['"no "', '"no\\u2423"']),
        (["👩💻", "👩\u200d💻"], ['"\\ud83d\\udc69\\ud83d\\udcbb"', '"\\ud83d\\udc69\\u200d\\ud83d\\udcbb"']),
    ],
)
def test_no_two_options_look_the_same(options: list[str], labels: list[str]) -> None:
    assert labelled(options) == [*zip(options, labels, strict=True)]


@pytest.mark.parametrize(
    "value", ["", "yes", '"quo\'te" & <b>', "a\nb", "a\0b", "a\rb", "a\r\nb", "\ufffd", '"a\\u0000b"']
)
def test_a_value_comes_back_as_it_was(value: str) -> None:
    ((_, button),) = Page(f"<button {carried('answer', value)}></button>").elements
    sent = str(button["value"])
    assert not {"\0", "\r"} & {*sent}
    assert received(str(button["name"]), sent.replace("\n", "\r\n")) == ("answer", value)


SELECT = """{% macro box(text) %}<input name="{{ text }}" value="{{ text }}" title="{{ text }}">{% endmacro %}
{{ box(text) }}<textarea name='x'>{{ text }}</textarea>
<button name="x" value='{% if text %}{{ text }}{% endif %}'>{{ text }}</button>{{ [text] }}{{ none }}{{ 5 }}"""


def test_a_template_draws_what_can_be_seen_and_sends_what_is() -> None:
    env = prepare_environment(Environment(autoescape=True))
    shown = env.from_string(SELECT).render(text="a\xa0<\u202e")
    exactly, written = "a\xa0&lt;\u202e", "a\\u00a0&lt;\\u202e"
    assert shown.split("\n") == [
        f'<input name="{exactly}" value="{exactly}" title="{written}"><textarea name=\'x\'>{exactly}</textarea>',
        f"<button name=\"x\" value='{exactly}'>{written}</button>[&#39;a\\xa0&lt;\\u202e&#39;]None5",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hub:json:answer": "5"}, "must be a text as JSON"),
        ({"hub:json:answer": '"a'}, "JSON"),
        ({"hub:json:answer": '"a"', "answer": "a"}, "A field of the form was sent twice."),
    ],
)
async def test_what_is_no_text_as_json_is_refused(hub: HubInside, fields: dict[str, str], said: str) -> None:
    error = (await send(hub, "answer", {"question": "q", **fields})).json
    assert (error["code"] in ("invalid_message", "invalid_json"), said in error["error"]) == (True, True)


async def test_a_value_that_no_form_can_send_is_no_choice(hub: HubInside) -> None:
    async with talk(hub.url) as provider:
        args = {"type": "object", "properties": {"one": {"enum": ["a\0b", "c"]}, "other": {"enum": NAMES}}}
        await provider.call("hub:provide", commands=[{"name": "worker:do", "args": args}])
        page = main((await hub.get("?call=worker:do")).text)
    assert [(one["value"], one["text"]) for one in page.all("option")] == [
        ("", "–"),
        (NAMES[0], "\\u202eseY"),
        ("no", "no"),
        ("no ", "no␣"),
    ]
    assert page.field("one")["placeholder"] == "JSON"


async def test_the_script_is_told_of_an_answer_with_nothing_hidden(hub: HubInside) -> None:
    asking = asyncio.ensure_future(hub.hub.ask("Sure?", NAMES))
    await until(lambda: [*hub.hub.questions.records()])
    (question,) = hub.hub.questions.records()
    given = {"question": question["id"], "answer": NAMES[0]}
    told = [(await send(hub, "answer", given, accept="application/json")).json for _ in "12"]
    await asking
    assert told[0] == {}
    assert "“\\u202eseY” by" in told[1]["late"]


@pytest.mark.parametrize("id", ["n\0m", "c\rd", "s1\ns2"])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_button_works_whatever_its_row_is_called(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, id: str, weakened: bool
) -> None:
    """As a browser reads the page, and sends what it has read."""
    if weakened:
        monkeypatch.setattr(exact, "ALTERED", re.compile("(?!)"))
    await hub.hub.publish("task:progress", {"id": id, "status": "failed"})
    html = (await hub.get("")).text.replace("\0", "\ufffd").replace("\r", "\n")
    (form,) = re.findall('<form[^>]*action="seen">.*?</form>', html, re.DOTALL)
    sent = {str(one["name"]): str(one["value"]).replace("\n", "\r\n") for one in Page(form).all("input")}
    await send(hub, "seen", sent)
    assert is_seen(hub.hub.state, "task:progress", id) is (not weakened or "\n" in id)
