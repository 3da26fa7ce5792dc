"""The page as the server answers with it: complete, whole when a part of it fails, escaped, in parts."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp_jinja2
import pytest
from aiohttp import web
from jinja2 import ChoiceLoader, DictLoader
from running import HubInside, hub_app

from hub import Hub, HubError, Panel
from hub.stream.window import Window
from hub.web.page import counted, dashboard, drawing, frame, panels

VOID = {"meta", "link", "input"}


class Document(HTMLParser):
    """The elements of a page; raises AssertionError if its tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag]
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as hub:
        yield hub


async def look(hub: HubInside, query: str = "", **headers: str) -> Document:
    answer = await hub.ask("GET", query, headers=headers)
    assert answer.status == 200, answer.text
    return Document(answer.text)


def sections(page: Document) -> list[str | None]:
    return [one["data-section"] for one in page.all("section") if "data-section" in one]


def marked(page: Document, mark: str) -> list[str | None]:
    """The values of this mark, in the page's order."""
    return [at[mark] for _, at in page.elements if mark in at]


async def test_an_empty_hub_says_how_to_fill_it(hub: HubInside) -> None:
    page = await look(hub)
    assert sections(page) == ["hub"]
    assert f"curl -s {hub.url}api/events" in page.text
    assert "hub ask" in page.text
    said = " ".join(page.text.split())
    assert re.search(r"audit ?intact at \d\d:\d\d:\d\d verify ▸ ?records ?1 ", said), "it is the hub's start"
    assert re.search(r"audit intact at \d\d:\d\d:\d\d", page.text)
    assert "made up" not in page.text


async def test_events_of_own_names_stand_in_the_main_column_the_newest_of_each(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        assert "Nothing has been said here yet." in (await look(hub)).text
        for degrees in (21, 22, 23):
            await hub.hub.publish("sensor:temp", {"c": degrees})
        await hub.hub.publish("door:front", {"id": "kitchen", "status": "open"})
        page = await look(hub)
        assert "Nothing has been said" not in page.text
        assert "Events of your own names stand above as they are" in page.text
    async with hub_app(tmp_path) as hub:
        page = await look(hub)
        assert sections(page) == ["newest", "recent", "events", "hub"]
        assert marked(page, "id").index("newest") < marked(page, "id").index("first"), "and how to go on below"
        text = " ".join(page.text.split())
        assert (
            "Own events the newest of each name · door:front kitchen open 0 s ago · sensor:temp c: 23 0 s ago" in text
        )
        assert "./?panel=events&filter=sensor%3Atemp" in marked(page, "href")
        await hub.hub.publish("agent:status_change", {"id": "ada", "status": "active"})
        assert "newest" not in sections(await look(hub)), "there is more to be shown"
        assert not hub.app[dashboard.SHOWN].board.counted.own


async def test_own_names_are_shown_on_pages_and_no_more_are_kept_than_of_use(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "OWN", 15)
    for number in range(18):
        await hub.hub.publish(f"n:{number:02}", {})
    page = await look(hub)
    links = [str(href) for href in marked(page, "href")]
    names = [href.rpartition("%3A")[2] for href in links if "filter=n%3A" in href]
    assert names == [f"{number:02}" for number in range(3, 15)], "those said longest ago are gone"
    assert "3 more" in " ".join(page.text.split())
    assert "n:17" in (await look(hub, "?panel=newest&page=2")).text


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_no_longer_in_memory_has_its_time_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Window, "covers", lambda window, position: True)
    async with hub_app(tmp_path, window_events=5) as hub:
        await hub.hub.publish("sensor:temp", {"c": 22})
        board = hub.app[dashboard.SHOWN].board
        await board.catch_up()
        for _ in range(9):
            await hub.hub.publish("sensor:wind", {})
        text = " ".join((await look(hub)).text.split())
        assert ("sensor:temp 0 s ago" in text) is not weakened
        assert ("could not be drawn" in text) is weakened


async def test_what_hub_doctor_has_tried_is_no_event_of_ones_own(hub: HubInside) -> None:
    await hub.hub.publish("doctor:check", {"n": 1})
    page = await look(hub)
    assert "Nothing has been said" not in page.text
    assert "newest" not in sections(page)


async def test_what_is_there_stands_in_its_section(hub: HubInside) -> None:
    publish = hub.hub.publish
    await publish("task:progress", {"id": "t1", "status": "waiting_approval", "message": "wants to push"})
    await publish("task:progress", {"id": "t2", "status": "failed", "error": "exit 1", "progress": 71})
    await publish("task:progress", {"id": "t3", "agent": "coder", "progress": 40.5, "message": "step 3"})
    await publish("agent:status_change", {"id": "coder", "status": "active"})
    await publish("agent:status_change", {"id": "sick", "status": "error", "reason": "rate limited"})
    await publish("governance:vote_cast", {"vote_id": "v", "agent": "a", "option": "approve", "topic": "Merge?"})
    await publish("security:threat_detected", {"type": "inject", "severity": "critical"})
    asking = asyncio.create_task(hub.hub.ask("Deploy?", ["Yes, now", "No"], default="No"))
    while not hub.hub.state.of("hub:question"):  # it is recorded first, then published
        await asyncio.sleep(0.01)
    await publish("build:log_line", {"line": "compiling"})
    page = await look(hub)
    assert sections(page) == ["waiting", "failed", "working", "recent", "threats", "events", "hub"]
    assert marked(page, "data-question") == [record["id"] for record in hub.hub.questions.records()]
    assert marked(page, "data-task") == ["t1", "t2", "t3"]
    assert marked(page, "data-agent") == ["sick", "coder"]
    assert marked(page, "data-vote") == ["v"]
    assert len(marked(page, "data-threat")) == 1
    assert [one["value"] for one in page.all("button") if one.get("name") == "answer"] == ["Yes, now", "No"]
    assert [one["value"] for one in page.all("progress")] == ["40.5"]
    assert "build:log_line" in page.text
    assert "(3) hub · " in page.text, "the title counts"
    asking.cancel()


async def test_all_calm_is_one_sentence(hub: HubInside) -> None:
    await hub.hub.publish("task:progress", {"id": "t", "status": "running"})
    await hub.hub.publish("task:progress", {"id": "t", "status": "succeeded"})
    page = await look(hub)
    assert "Nothing waits for you. Nothing has failed." in page.text
    assert sections(page) == ["working", "recent", "events", "hub"]
    await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
    assert "Nothing waits for you." not in (await look(hub)).text
    await hub.hub.publish("task:progress", {"id": "t", "status": "running"})
    assert "Nothing waits for you. Last failure 0 s ago." in (await look(hub)).text


async def test_a_failure_that_was_over_before_anybody_looked_is_the_last_failure(hub: HubInside) -> None:
    for status in ("failed", "running", "succeeded"):
        await hub.hub.publish("task:progress", {"id": "t", "status": status})
    assert "Nothing waits for you. Last failure 0 s ago." in (await look(hub)).text


async def test_long_lists_are_led_on_by_links(hub: HubInside) -> None:
    for number in range(30):
        await hub.hub.publish("task:progress", {"id": f"{number:02}", "status": "failed"})
    page = await look(hub)
    assert marked(page, "data-task") == [f"{number:02}" for number in range(29, 17, -1)]
    (more,) = [one["href"] for one in page.all("a") if one.get("rel") == "next" and "failed" in str(one["href"])]
    assert more == "./?panel=failed&page=2"
    assert "18 more" in page.text
    page = await look(hub, str(more).removeprefix("./"))
    assert marked(page, "data-task") == [f"{number:02}" for number in range(17, 5, -1)]
    assert sections(page) == ["failed"]
    assert [one["href"] for one in page.all("a") if one.get("rel") == "prev"] == ["./?panel=failed&page=1"]
    assert marked(await look(hub, "?panel=failed&page=9"), "data-task") == []


async def test_what_was_seen_is_no_longer_failed(hub: HubInside) -> None:
    published = await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
    assert marked(await look(hub), "data-task") == ["t"]
    mark = {"event": "task:progress", "key": "t", "seq": published.cursor.seq, "by": "me"}
    await hub.hub.bus.keep("hub:seen", "task:progress t", mark)
    assert marked(await look(hub), "data-task") == []
    assert marked(await look(hub, "?panel=failed&filter=all"), "data-task") == ["t"]
    await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
    assert marked(await look(hub), "data-task") == ["t"], "it has failed again since"


async def test_panels_are_answered_alone_and_only_when_they_changed(hub: HubInside) -> None:
    await hub.hub.publish("task:progress", {"id": "t"})
    first = await hub.ask("GET", "?panel=working&panel=waiting")
    assert [one["data-panel"] for one in Document(first.text).all("div") if "data-panel" in one] == [
        "summary",
        "waiting",
        "working",
    ]
    etag = first.headers["ETag"]
    again = await hub.ask("GET", "?panel=working&panel=waiting", headers={"If-None-Match": etag})
    if again.status == 200:  # a minute began in between, or somebody came
        etag = again.headers["ETag"]
        again = await hub.ask("GET", "?panel=working&panel=waiting", headers={"If-None-Match": etag})
    assert (again.status, again.text) == (304, "")
    await hub.hub.publish("task:progress", {"id": "t", "progress": 5})
    newer = await hub.ask("GET", "?panel=working&panel=waiting", headers={"If-None-Match": etag})
    assert (newer.status, newer.headers["ETag"] == etag) == (200, False)


@pytest.mark.parametrize(
    "query",
    ["panel=nothing", "page=0", "page=x", "panel=failed&page=-1", "before=%C2%B2", "nothing=1", "page=1&page=2"],
)
async def test_a_query_that_does_not_fit_is_refused(hub: HubInside, query: str) -> None:
    (await hub.ask("GET", f"?{query}")).refused(400, "invalid_args")


@pytest.mark.parametrize(
    ("query", "status"),
    [("panel=nothing", 400), ("call=no:such", 404), ("page=x", 400), ("search=x&kind=odd", 400), ("task=a&odd=1", 400)],
)
async def test_a_browser_is_told_of_it_in_the_frame_of_every_page(hub: HubInside, query: str, status: int) -> None:
    plain = await hub.ask("GET", f"?{query}")
    answer = await hub.ask("GET", f"?{query}", headers={"Accept": "text/html"})
    assert (plain.status, answer.status) == (status, status)
    page = Document(answer.text)
    assert plain.json["error"] in page.text
    assert marked(page, "data-need") == ["0"]
    assert "./" in marked(page, "href")


async def test_where_the_hub_has_failed_no_frame_is_tried(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*args: Any) -> Any:
        raise HubError("broker_unavailable", "The disk is full.")

    monkeypatch.setattr(hub.app[dashboard.SHOWN], "get", failing)
    answer = await hub.ask("GET", "", headers={"Accept": "text/html"})
    assert (answer.status, "The disk is full." in answer.text, "data-need" in answer.text) == (503, True, False)


async def test_a_failure_says_its_last_line_too(hub: HubInside) -> None:
    """As `hub run` tells it: an exit status alone says nothing."""
    said = {"error": "exit status 2", "message": "make: *** [Makefile:3: all] Error 1"}
    await hub.hub.publish("task:progress", {"id": "run:make", "name": "make", "status": "failed", **said})
    await hub.hub.publish("task:progress", {"id": "x", "status": "failed", "error": "no space", "message": "no space"})
    await hub.hub.publish("agent:status_change", {"id": "a", "status": "error", "reason": "no quota"})
    text = " ".join((await look(hub)).text.split())
    assert "make · exit status 2 · make: *** [Makefile:3: all] Error 1" in text
    assert "agent error · no quota" in text
    assert "no space · no space" not in text


async def test_no_answer_looks_as_if_it_were_the_right_one(hub: HubInside) -> None:
    asking = asyncio.create_task(hub.hub.ask("Deploy?", ["yes", "no", "later"], default="no"))
    while not hub.hub.state.of("hub:question"):
        await asyncio.sleep(0.01)
    buttons = [one for one in (await look(hub)).all("button") if one.get("name") == "answer"]
    assert [one["value"] for one in buttons] == ["yes", "no", "later"]
    assert {tuple(sorted(one)) for one in buttons} == {("name", "value")}, "all are drawn alike"
    asking.cancel()


async def test_an_application_adds_a_panel(hub: HubInside) -> None:
    own_panel(hub, Panel("orders", "Orders", ("orders:*",), lambda hub: {"orders": ["tea"]}), "<b>{{ orders[0] }}</b>")
    own_panel(hub, Panel("none", "None", (), lambda hub: {}), "{# nothing to show #}")
    asked = lambda hub, asked: {"page": asked.page}  # noqa: E731
    own_panel(hub, Panel("pages", "Pages", (), asked, links=True, aside=True), "page {{ page }}")
    page = await look(hub)
    assert sections(page) == ["orders", "hub", "pages"]
    assert "tea" in page.text
    assert "page 3" in (await look(hub, "?panel=pages&page=3")).text


def own_panel(hub: HubInside, panel: Panel, template: str | None) -> None:
    hub.hub.panels.append(panel)
    loader = aiohttp_jinja2.get_env(hub.app).loader
    assert isinstance(loader, ChoiceLoader)
    if template is not None:
        loader.loaders = [DictLoader({f"panels/{panel.name}.html": template}), *loader.loaders]


def _raises(hub: Hub) -> dict[str, Any]:
    raise RuntimeError("internal words")


async def _prepare_raises(hub: Hub) -> dict[str, Any]:
    raise RuntimeError("internal words")


async def _hangs(hub: Hub) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


def _exits(hub: Hub) -> dict[str, Any]:
    raise SystemExit("internal words")


async def _does_not_let_go(hub: Hub) -> dict[str, Any]:
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return {}


FAILING = [
    pytest.param(Panel("own", "Own", (), _raises), "", id="context raises"),
    pytest.param(Panel("own", "Own", (), lambda hub: {}, _prepare_raises), "", id="prepare raises"),
    pytest.param(Panel("own", "Own", (), lambda hub: {}), "{{ 1 / 0 }}", id="template raises"),
]


@pytest.mark.parametrize(
    ("panel", "template"),
    [
        *FAILING,
        pytest.param(Panel("own", "Own", (), _exits), "", id="context exits"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _does_not_let_go), "", id="prepare does not let go"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _hangs), "", id="prepare hangs"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}), None, id="no template"),
    ],
)
async def test_a_panel_that_fails_harms_no_other(
    hub: HubInside,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    panel: Panel,
    template: str | None,
) -> None:
    monkeypatch.setattr(drawing, "PREPARE_SECONDS", 0.3)
    monkeypatch.setattr("hub.commands.supervised.GRACE", 0.01)
    own_panel(hub, panel, template)
    await hub.hub.publish("task:progress", {"id": "build", "progress": 40})
    answer = await hub.get("")
    assert answer.text.count("This panel could not be drawn") == 1
    assert "internal words" not in answer.text
    assert marked(Document(answer.text), "data-task") == ["build"]
    assert [r.levelno for r in caplog.records if r.levelno > logging.WARNING] == [logging.ERROR]
    assert "own" in caplog.text


@pytest.mark.parametrize(("panel", "template"), FAILING)
async def test_without_the_catch_a_panel_that_fails_takes_the_page_with_it(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, panel: Panel, template: str
) -> None:
    async def trusting(panel: Panel, hub: Hub, asked: Any) -> Any:
        assert panel.prepare
        return await panel.prepare(hub)

    monkeypatch.setattr(drawing, "ANYTHING", ())
    monkeypatch.setattr(drawing, "prepared", trusting)
    own_panel(hub, panel, template)
    assert (await hub.get("")).status == 500


MARKUP = "<script>alert(1)</script>"


@pytest.mark.parametrize("weakened", [False, True])
async def test_markup_is_escaped(hub: HubInside, weakened: bool) -> None:
    """In what the hub itself says as well; a weakened build without autoescape lets it through."""
    aiohttp_jinja2.get_env(hub.app).autoescape = not weakened
    aiohttp_jinja2.get_env(hub.app).cache = None
    aiohttp_jinja2.get_env(hub.app).bytecode_cache = None
    await hub.hub.publish("agent:status_change", {"id": MARKUP, "status": "active", "task": MARKUP})
    await hub.hub.publish("build:line", {MARKUP: MARKUP})
    hub.hub.panels.append(Panel("own", MARKUP, (), _raises))
    answer = await hub.get("")
    assert (MARKUP in answer.text) is weakened
    if not weakened:
        assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


async def test_the_page_is_relative_and_has_nothing_inline(hub: HubInside) -> None:
    await hub.hub.publish("task:progress", {"id": "t", "status": "failed", "agent": "a"})
    await hub.hub.publish("governance:vote_cast", {"vote_id": "v"})
    document = await look(hub)
    assert "on" not in {name[:2] for _, attributes in document.elements for name in attributes}
    assert not [tag for tag, attributes in document.elements if tag == "style" or "style" in attributes]
    addresses = [at[name] for _, at in document.elements for name in ("href", "src", "action") if name in at]
    assert len(addresses) >= 12
    assert not [one for one in addresses if re.match(r"/|(?!data:)[a-z]+:", str(one))]
    assert {at.get("method") for at in document.all("form") if str(at.get("class")).startswith("act")} == {"post"}
    ids = marked(document, "id")
    assert len(ids) == len(set(ids))


async def test_an_audit_log_that_cannot_be_written_is_told(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = SimpleNamespace(valid=False, available=False, reason="line 7 <b>", seq=9, unrecorded=3)
    monkeypatch.setattr(hub.hub, "problems", lambda: {"audit": audit.reason})
    monkeypatch.setattr(hub.hub, "audit", audit)
    answer = await hub.get("", panel="hub")
    monkeypatch.undo()
    for words in ("✕ broken", "line 7 &lt;b&gt;", "3 reads", "1 problem"):
        assert words in answer.text


async def test_the_demo_says_that_it_is_one(tmp_path: Path) -> None:
    async with hub_app(tmp_path, demo=True) as hub:
        assert "are made up" in (await look(hub)).text


async def test_a_password_in_the_brokers_address_is_not_shown(hub: HubInside) -> None:
    object.__setattr__(hub.hub.config, "broker", "redis://:geheim@localhost/0")
    answer = await hub.get("", panel="hub")
    assert "redis" in answer.text
    assert "geheim" not in answer.text


async def test_who_may_only_look_is_told_so(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'data-trust="OPERATOR"' in (await hub.get("")).text
    around = frame.surroundings
    monkeypatch.setattr(frame, "surroundings", lambda request: {**around(request), "trust": "OBSERVER"})
    answer = await hub.get("")
    assert 'data-trust="OBSERVER"' in answer.text
    assert "You may look here, and not answer" in answer.text


@pytest.mark.parametrize(
    ("ages", "rate"),
    [([], 0), ([60, 50, 9, 8, 1], 0.3), ([3, 2, 1], 1.0), ([2.0] * 5 + [1.0] * 5, 5.0), ([0.1], 1.0)],
    ids=["silence", "old ones do not count", "the first seconds", "all of them are young", "the first second"],
)
def test_the_rate_is_counted_over_the_last_seconds(
    ages: list[float], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "time", SimpleNamespace(monotonic=lambda: 100.0))
    events = [SimpleNamespace(accepted=100.0 - age) for age in ages]
    window = SimpleNamespace(tail=1, head=len(events), between=lambda after, until: events[after:until])
    hub: Any = SimpleNamespace(window=window)
    assert panels.recent_rate(hub) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("threshold", "eligible", "needs"),
    [
        ("majority", 7, 4),
        ("majority", 6, 4),
        ("supermajority", 7, 5),
        ("supermajority", 6, 4),
        ("unanimous", 3, 3),
        ("", 5, 3),
        ("majority", None, None),
    ],
)
def test_a_vote_says_how_many_it_needs(threshold: str, eligible: int | None, needs: int | None) -> None:
    vote: Any = SimpleNamespace(threshold=threshold, eligible=eligible)
    assert panels.needed(vote) == needs


async def test_the_files_of_the_page_are_served_and_no_others(hub: HubInside) -> None:
    for name, kind in frame.STATIC.items():
        answer = await hub.get(f"static/{name}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    for name in ("nothing.js", "..%2fdashboard.html", "%2e%2e/__init__.py", "hub.css/", "%2fetc%2fpasswd"):
        assert (await hub.get(f"static/{name}")).status == 404


async def test_another_page_stands_in_the_same_frame(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(request: web.Request) -> web.Response:
        return await frame.show(request, "pages/own.html", {"name": "<b>"}, status=422)

    template = (
        '{% extends "frame.html" %}{% block title %}{{ name }}{% endblock %}'
        "{% block main %}<main>{{ url }}</main>{% endblock %}"
    )
    loader = aiohttp_jinja2.get_env(hub.app).loader
    assert isinstance(loader, ChoiceLoader)
    loader.loaders = [DictLoader({"pages/own.html": template}), *loader.loaders]
    monkeypatch.setitem(dashboard.PAGES, "own", call)
    page = await hub.get("", own="x")
    assert page.status == 422
    assert "<title>&lt;b&gt; · " in page.text
    assert f"<main>{hub.url}</main>" in page.text
    assert 'id="search"' in page.text
    assert "need you" in page.text


def test_the_templates_are_found_in_a_checkout_too(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = frame.folder()
    monkeypatch.setattr(frame, "find_spec", lambda name: None)
    assert (installed / "dashboard.html").is_file()
    assert frame.folder() == Path(frame.__file__).parents[3] / "templates"


async def test_the_last_quarter_of_an_hour_is_drawn_and_said(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "quiet") as hub:
        assert "Last 15 minutes" not in (await hub.get("")).text, "nothing has happened"
    async with hub_app(tmp_path / "busy") as hub:
        await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
        await hub.hub.publish("a:x", 1)
        text = (await hub.get("")).text
        assert "Events a minute in the last 15 minutes: 2 in all, 2 at most, 2 now." in text
        assert "Failures a minute in the last 15 minutes: 1 in all, 1 at most, 1 now." in text
