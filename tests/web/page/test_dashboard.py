"""The page as the server draws it: complete, of one moment, escaped, and whole when a part of it fails."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp_jinja2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from jinja2 import ChoiceLoader, DictLoader, Environment
from markupsafe import Markup

from hub import Hub, HubError
from hub.web.keys import HUB
from hub.web.page import dashboard, formats, frame, panels
from hub.web.page.dashboard import Panel

URL = "http://127.0.0.1:3141/"
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
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(state_dir=tmp_path)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
def app(hub: Hub) -> web.Application:
    app = web.Application()
    app[HUB] = hub
    dashboard.setup(app)
    return app


@pytest.fixture
def env(app: web.Application) -> Environment:
    return aiohttp_jinja2.get_env(app)


async def publish(hub: Hub, event: str, *data: dict[str, Any]) -> None:
    """Publish, and wait until the hub itself has seen it."""
    for one in data:
        published = await hub.publish(event, one)
    for _ in range(1000):
        if hub.cursor.seq >= published.cursor.seq:
            return
        await asyncio.sleep(0)
    raise AssertionError("the hub has not seen its own events")


async def draw(hub: Hub, env: Environment) -> str:
    return dashboard.render(env, hub, await dashboard.prepare(hub), URL)


def rows(html: str, panel: str) -> list[str]:
    """The keys of a panel's rows, in order."""
    section = html.split(f'data-panel="{panel}"')[1].split("</section>")[0]
    return re.findall(r'<li class="row"[^>]* data-key="([^"]*)"', section)


async def test_an_empty_hub_has_a_complete_page_that_says_how_to_fill_it(hub: Hub, env: Environment) -> None:
    html = await draw(hub, env)
    document = Document(html)
    assert [one["data-panel"] for one in document.all("section")] == [panel.name for panel in dashboard.PANELS]
    assert document.all("body")[0]["data-cursor"] == str(hub.cursor)
    assert document.text.count(f"curl -s {URL}api/events") == 5
    assert "chain intact" in document.text
    assert "1 record" in document.text, "the hub's start is the first record"
    assert "made up" not in document.text


async def test_tasks_have_bars_and_the_open_ones_come_first(hub: Hub, env: Environment) -> None:
    await publish(hub, "task:progress", {"id": "b", "progress": 100, "status": "succeeded"})
    await publish(hub, "task:progress", {"id": "z", "progress": 40.5}, {"id": "c", "progress": None}, {"id": "a"})
    html = await draw(hub, env)
    assert rows(html, "tasks") == ["a", "c", "z", "b"]
    bars = {bar["aria-label"]: bar.get("value") for bar in Document(html).all("progress") if "aria-label" in bar}
    assert bars == {"a": None, "c": None, "z": "40.5", "b": "100"}


def test_closed_rows_come_newest_first() -> None:
    stamps = ["2026-01-01T00:00:01.000Z", "2026-01-01T00:00:03.000Z", "2026-01-01T00:00:02.000Z"]
    listed = [{"key": key, "closed": True, "timestamp": at} for key, at in zip("abc", stamps, strict=True)]
    assert [row["key"] for row in panels.listed(listed, 2)["rows"]] == ["b", "c"]


async def test_a_long_list_says_what_it_leaves_out(hub: Hub, env: Environment) -> None:
    await publish(hub, "task:progress", *({"id": f"{number:04}"} for number in range(120)))
    html = await draw(hub, env)
    assert len(rows(html, "tasks")) == 100
    assert "100 of 120 are shown." in html


async def test_votes_are_counted_over_the_kept_casts(hub: Hub, env: Environment) -> None:
    def cast(**more: Any) -> dict[str, Any]:
        return {"vote_id": "v", **more}

    await publish(
        hub,
        "governance:vote_cast",
        cast(agent="a", option="approve", topic="Release?", eligible=4),
        cast(votes={"a": "reject", "b": "approve"}),
        cast(agent="b", option="reject"),
        cast(agent="c", option="abstain", status="open"),
    )
    html = await draw(hub, env)
    shown = Document(html).text
    for words in ("approve 0", "reject 2", "abstain 1", "3 cast", "of 4", "Release?", "open"):
        assert words in shown


async def test_a_vote_whose_casts_are_no_longer_kept_is_known_from_its_state(tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path, window_events=2)
    await hub.start()
    vote = {"vote_id": "v", "votes": {"a": "approve", "b": "approve"}}
    await publish(hub, "governance:vote_cast", vote)
    await publish(hub, "other:event", {}, {}, {})
    (row,) = panels.votes(hub)["rows"]
    assert (row["approve"], row["cast"]) == (2, 2)
    app = web.Application()
    app[HUB] = hub
    dashboard.setup(app)
    html = await draw(hub, aiohttp_jinja2.get_env(app))
    assert "Counted over the events kept in memory, from number 3 on." in html
    await hub.stop()


async def test_threats_are_the_newest_kept_ones(hub: Hub, env: Environment) -> None:
    threats = [{"type": f"t{number}", "severity": "high"} for number in range(40)]
    await publish(hub, "security:threat_detected", *threats)
    assert rows(await draw(hub, env), "threats") == [str(number) for number in range(40, 10, -1)]


async def test_the_cursor_and_what_is_shown_are_of_one_moment(hub: Hub, env: Environment) -> None:
    """Whatever happens while the page waits for the audit log is on it, and behind its cursor nothing is."""

    async def slow(hub: Hub) -> dict[str, Any]:
        await publish(hub, "task:progress", {"id": "meanwhile", "progress": 1})
        return {}

    hub.panels.append(Panel("slow", "Slow", (), lambda hub: {}, slow))
    before = hub.cursor.seq
    html = await draw(hub, env)
    assert Document(html).all("body")[0]["data-cursor"] == str(hub.cursor)
    assert hub.cursor.seq == before + 1
    assert rows(html, "tasks") == ["meanwhile"]


def own_panel(env: Environment, hub: Hub, panel: Panel, template: str | None) -> None:
    hub.panels.append(panel)
    assert isinstance(env.loader, ChoiceLoader)
    if template is not None:
        env.loader = ChoiceLoader([DictLoader({f"panels/{panel.name}.html": template}), *env.loader.loaders])


async def test_an_application_adds_a_panel(hub: Hub, env: Environment) -> None:
    panel = Panel("orders", "Orders", ("orders:*",), lambda hub: {"orders": ["tea"]})
    own_panel(env, hub, panel, "<b>{{ orders[0] }}</b>")
    html = await draw(hub, env)
    assert '<div data-refresh="orders">\n<b>tea</b>' in html
    assert "orders:*" in str(Document(html).all("body")[0]["data-topics"])


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


@pytest.mark.parametrize(
    ("panel", "template"),
    [
        pytest.param(Panel("own", "Own", (), _raises), "", id="context raises"),
        pytest.param(Panel("own", "Own", (), _exits), "", id="context exits"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _does_not_let_go), "", id="prepare does not let go"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _prepare_raises), "", id="prepare raises"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _hangs), "", id="prepare hangs"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}), "{{ 1 / 0 }}", id="template raises"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}), None, id="no template"),
    ],
)
async def test_a_panel_that_fails_harms_no_other(
    hub: Hub,
    env: Environment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    panel: Panel,
    template: str | None,
) -> None:
    monkeypatch.setattr(dashboard, "PREPARE_SECONDS", 0.5)  # the other panels have to be done by then
    monkeypatch.setattr("hub.commands.supervised.GRACE", 0.01)
    own_panel(env, hub, panel, template)
    await publish(hub, "task:progress", {"id": "build", "progress": 40})
    html = await draw(hub, env)
    assert html.count("This panel could not be drawn") == 1
    assert "internal words" not in html
    assert rows(html, "tasks") == ["build"]
    assert [r.levelno for r in caplog.records if r.levelno > logging.WARNING] == [logging.ERROR]
    assert "own" in caplog.text


def trusting_draw(env: Environment, hub: Hub, panel: Panel, prepared: Any, moment: dict[str, Any]) -> Markup:
    context = {**moment, **prepared, **panel.context(hub)}
    return Markup(env.get_template(f"panels/{panel.name}.html").render(panel=panel, **context))


async def trusting_preparation(panel: Panel, hub: Hub) -> Any:
    assert panel.prepare
    return await panel.prepare(hub)


@pytest.mark.parametrize(
    ("panel", "template"),
    [
        pytest.param(Panel("own", "Own", (), _raises), "", id="context"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}, _prepare_raises), "", id="prepare"),
        pytest.param(Panel("own", "Own", (), lambda hub: {}), "{{ 1 / 0 }}", id="template"),
    ],
)
async def test_without_the_catch_a_panel_that_fails_takes_the_page_with_it(
    hub: Hub, env: Environment, monkeypatch: pytest.MonkeyPatch, panel: Panel, template: str
) -> None:
    monkeypatch.setattr(dashboard, "draw", trusting_draw)
    monkeypatch.setattr(dashboard, "_prepared", trusting_preparation)
    own_panel(env, hub, panel, template)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        await draw(hub, env)


MARKUP = "<script>alert(1)</script>"


@pytest.mark.parametrize("weakened", [False, True])
async def test_markup_is_escaped(hub: Hub, env: Environment, weakened: bool) -> None:
    """In what the hub itself says as well; a weakened build without autoescape lets it through."""
    await publish(hub, "agent:status_change", {"id": MARKUP, "status": "idle", "task": MARKUP})
    hub.audit.note(MARKUP, {"peer": MARKUP}, "NONE", {})
    hub.panels.append(Panel("own", MARKUP, (), lambda hub: {}))
    env.autoescape = not weakened
    if weakened:
        env.cache = None
    html = await draw(hub, env)
    assert (MARKUP in html) is weakened
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3


async def test_the_page_is_relative_and_has_nothing_inline(hub: Hub, env: Environment) -> None:
    document = Document(await draw(hub, env))
    assert "on" not in {name[:2] for _, attributes in document.elements for name in attributes}
    assert not [tag for tag, attributes in document.elements if tag == "style" or "style" in attributes]
    addresses = [at[name] for _, at in document.elements for name in ("href", "src", "action") if name in at]
    assert len(addresses) >= 6
    assert not [one for one in addresses if re.match(r"/|(?!data:)[a-z]+:", str(one))]
    assert [script.get("src") for script in document.all("script")] == ["static/dashboard.js"]


async def test_an_audit_log_that_cannot_be_read_or_written_is_told(
    hub: Hub, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(limit: int) -> list[Any]:
        raise HubError("audit_unavailable", "no disk")

    monkeypatch.setattr(hub.audit, "tail", unreadable)
    chain = SimpleNamespace(valid=False, available=False, reason="line 7 <b>", seq=9, head="ab", unrecorded=3)
    context = {**panels.audit(hub), **await panels.audit_tail(hub), "chain": chain, "url": URL}
    shown = env.get_template("panels/audit.html").render(**context)
    for words in ("chain broken", "line 7 &lt;b&gt;", "cannot be written", "3 reads", "cannot be read"):
        assert words in shown


async def test_the_demo_says_that_it_is_one(tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path, demo=True)
    app = web.Application()
    app[HUB] = hub
    dashboard.setup(app)
    html = dashboard.render(aiohttp_jinja2.get_env(app), hub, {"audit": {"records": []}}, URL)
    assert "are made up" in html


async def test_a_password_in_the_brokers_address_is_not_shown() -> None:
    hub: Any = SimpleNamespace(
        metrics=SimpleNamespace(snapshot=dict),
        version="1",
        uptime=2.0,
        window=SimpleNamespace(events=list),
        config=SimpleNamespace(broker="redis://:geheim@localhost/0", window_events=10),
        broker=SimpleNamespace(problem=None),
    )
    assert panels.health(hub)["broker"] == "redis"
    assert "geheim" not in repr(panels.health(hub))


@pytest.mark.parametrize(
    ("ages", "uptime", "rate"),
    [
        ([], 100.0, 0),
        ([60, 50, 9, 8, 1], 100.0, 0.3),
        ([3, 2, 1], 4.0, 0.75),
        ([2.0] * 5 + [1.0] * 5, 100.0, 5.0),
        ([0.1], 0.2, 1.0),
    ],
    ids=["silence", "old ones do not count", "the first seconds", "a full window", "the first second"],
)
def test_the_rate_is_counted_over_the_last_seconds(ages: list[float], uptime: float, rate: float) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    events = [SimpleNamespace(timestamp=(now - timedelta(seconds=age)).isoformat()) for age in ages]
    hub: Any = SimpleNamespace(
        window=SimpleNamespace(events=lambda: events), uptime=uptime, config=SimpleNamespace(window_events=10)
    )
    assert panels.recent_rate(hub, now) == pytest.approx(rate)


async def test_the_files_of_the_page_are_served_and_no_others(app: web.Application) -> None:
    async with TestClient(TestServer(app)) as client:
        for name, kind in frame.STATIC.items():
            response = await client.get(f"/static/{name}")
            assert (response.status, response.content_type) == (200, kind)
        for name in ("nothing.js", "..%2fdashboard.html", "%2e%2e/__init__.py", "hub.css/", "%2fetc%2fpasswd"):
            assert (await client.get(f"/static/{name}")).status == 404
        page = await client.get("/")
        assert page.content_type == "text/html"
        assert f"curl -s http://127.0.0.1:{client.port}/api/events" in await page.text()


async def test_another_page_stands_in_the_same_frame(app: web.Application, monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(request: web.Request) -> web.Response:
        return await frame.show(request, "pages/own.html", {"name": "<b>"}, status=422)

    template = (
        '{% extends "frame.html" %}{% block title %}{{ name }}{% endblock %}'
        "{% block main %}<main>{{ url }}</main>{% endblock %}"
    )
    loader = aiohttp_jinja2.get_env(app).loader
    assert isinstance(loader, ChoiceLoader)
    loader.loaders = [DictLoader({"pages/own.html": template}), *loader.loaders]
    monkeypatch.setitem(dashboard.PAGES, "own", call)
    async with TestClient(TestServer(app)) as client:
        page = await client.get("/?own=x")
        text = await page.text()
        assert page.status == 422
        assert "<title>&lt;b&gt;</title>" in text
        assert f"<main>http://127.0.0.1:{client.port}/</main>" in text
        assert 'id="search"' in text


def test_the_templates_are_found_in_a_checkout_too(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = frame.folder()
    monkeypatch.setattr(frame, "find_spec", lambda name: None)
    assert (installed / "dashboard.html").is_file()
    assert frame.folder() == Path(frame.__file__).parents[3] / "templates"


@pytest.mark.parametrize(
    ("format", "value", "shown"),
    [
        ("text", None, ""),
        ("text", True, "yes"),
        ("text", ["a"], ""),
        ("number", 1234567, "1,234,567"),
        ("number", -1234.567, "-1,234.57"),
        ("number", 40.0, "40"),
        ("number", 0.004, "0"),
        ("number", -0.001, "0"),
        ("number", 10**19, "1.000000e+19"),
        ("percent", 99.99, "99 %"),
        ("size", 1023, "1023 B"),
        ("size", 1536, "1.5 KiB"),
        ("size", 3 * 2**30, "3.0 GiB"),
        ("duration", 350, "350 ms"),
        ("duration", 185_000, "3 min 5 s"),
        ("duration", 90_000_000, "1 d 1 h"),
        ("moment", "tomorrow", "tomorrow"),
        ("moment", "2026-13-45T00:00:00Z", "2026-13-45T00:00:00Z"),
        ("words", "waiting_approval", "waiting approval"),
        ("stale", True, "stale"),
        ("stale", "stale", ""),
        ("outline", {"b": [1, 2.5], "a": {"x": None}}, "a: x: , b: 1, 2.5"),
        ("plain", 41234, "41234"),
        ("plain", 1e-9, "0"),
    ],
)
def test_a_field_reads_well(format: str, value: object, shown: str) -> None:
    assert formats.FORMATS[format](value) == shown


def test_a_moment_of_another_day_has_its_date() -> None:
    then = datetime(2025, 3, 1, 14, 5, 9).astimezone()
    now = datetime.now().astimezone().replace(microsecond=0)
    assert formats.moment(then.isoformat()) == "2025-03-01 14:05"
    assert formats.moment(now.isoformat()) == now.strftime("%H:%M:%S")


def test_a_field_without_a_value_is_hidden_and_loses_its_attributes() -> None:
    given = {"at": "2025-03-01T14:05:09Z", "name": '">'}
    assert formats.field(given, "name", set="title:name data-x:nothing") == Markup(
        '<span data-field="name" data-format="text" title="&#34;&gt;" data-set="title:name data-x:nothing">'
        "&#34;&gt;</span>"
    )
    assert formats.field({}, "name", tag="dt", before="by ") == Markup(
        '<dt data-field="name" data-format="text" data-before="by " hidden=""></dt>'
    )
