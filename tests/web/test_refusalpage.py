"""A browser that is refused gets a page that says what to do; everybody else gets the error object."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from doors import guard_of
from running import HubInside, hub_app

from hub.errors import HubError, UsageError
from hub.processes import typed_command
from hub.web import refusalpage

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FOREIGN = {"Origin": "http://evil.test"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as inside:
        yield inside


async def both(hub: HubInside, path: str, method: str = "GET", **headers: str) -> tuple[Any, str]:
    """The refusal as a program gets it, and the page; asserts that nothing but the body differs."""
    told = await hub.ask(method, path, headers=headers)
    page = await hub.ask(method, path, headers={**headers, "Accept": BROWSER})
    assert told.headers["Content-Type"].startswith("application/json")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.status == told.status
    varying = ("Content-Type", "Content-Length", "Date")
    assert [(k, v) for k, v in page.headers.items() if k not in varying] == [
        (k, v) for k, v in told.headers.items() if k not in varying
    ]
    return told.json, page.text


@pytest.mark.parametrize(
    ("path", "headers", "advice"),
    [
        ("", FOREIGN, "<kbd>hub status</kbd>"),
        ("", {"Sec-Fetch-Site": "cross-site"}, "<kbd>hub status</kbd>"),
        ("", {"X-Forwarded-For": "1.2.3.4"}, "<kbd>hub status</kbd>"),
        ("", {"Host": "evil.test"}, "Open the address"),
        ("no/such/page", {}, "Open the address"),
        ("api/events?odd=1", {}, ""),
    ],
)
async def test_a_browser_gets_the_same_sentence_and_what_to_do(
    hub: HubInside, path: str, headers: dict[str, str], advice: str
) -> None:
    error, page = await both(hub, path, **headers)
    assert f"<p>{error['error']}</p>" in unescape(page)
    assert advice in page
    assert "<script" not in page
    assert "style" not in page


async def test_without_a_token_it_says_how_to_get_in(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        error, page = await both(hub, "")
        assert error["code"] == "forbidden"
        assert f"<kbd>{typed_command()} token --link --state-dir {tmp_path}</kbd>" in page


async def test_in_its_usual_place_it_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path))
    async with hub_app(tmp_path, auth="token") as hub:
        assert f"<kbd>{typed_command()} token --link</kbd>" in (await both(hub, ""))[1]
    monkeypatch.setattr(refusalpage, "state_directory", no_home)
    async with hub_app(tmp_path / "a b", auth="token") as hub:
        assert f"token --link --state-dir '{tmp_path}/a b'</kbd>" in unescape((await both(hub, ""))[1])


def no_home() -> Path:
    raise UsageError("This account has no home.")


@pytest.mark.parametrize("who", ["proxied", "another account", "nobody knows"])
@pytest.mark.parametrize("weakened", [False, True])
async def test_only_the_hubs_own_account_hears_where_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, weakened: bool
) -> None:
    async with hub_app(tmp_path, auth="token", trusted_proxy=("127.0.0.1",) if who == "proxied" else ()) as hub:
        if who != "proxied":
            watch, uid = guard_of(hub).accepted, None if who == "nobody knows" else 12345
            known = watch.connection

            def connection(request: web.Request) -> Any:
                found = known(request)
                return found and replace(found, peer=replace(found.peer, uid=uid))

            monkeypatch.setattr(watch, "connection", connection)
        if weakened:
            monkeypatch.setattr(refusalpage, "is_own", lambda request: True)
        _, page = await both(hub, "", **({"X-Forwarded-For": "192.0.2.7"} if who == "proxied" else {}))
        assert (str(tmp_path) in page, "<kbd>hub token --link</kbd> (and" in page) == (weakened, not weakened)


async def test_it_says_no_more_than_the_error_object(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for words that are the same for every hub: nothing of this one, nor of who asks."""
    for who in (guard_of(hub), guard_of(hub).accepted):
        monkeypatch.setattr(who, "users", frozenset())  # it is another account's hub now
    error, page = await both(hub, "api/state", Connection="close")
    rest = unescape(page).replace(error["error"], "")
    for word in (str(hub.hub.config.state_dir), hub.hub.version, str(hub.port), "127.0.0.1", "Traceback", "uid"):
        assert word not in rest


async def test_what_came_with_the_request_is_escaped(hub: HubInside) -> None:
    attack = "<script>alert(1)</script>"
    _, page = await both(hub, f"api/events?{attack}=1")
    assert attack not in page
    assert "&lt;script&gt;" in page


async def test_weakened_what_came_would_be_in_the_page(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusalpage, "escape", lambda text: text)
    _, page = await both(hub, "api/events?<script>alert(1)</script>=1")
    assert "<script>" in page


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", ""])
async def test_a_program_gets_the_error_object(hub: HubInside, accept: str) -> None:
    answer = await hub.ask("GET", "nothing", headers={"Accept": accept})
    assert json.loads(answer.text)["code"] == "unknown_command"


def test_every_status_has_a_page() -> None:
    for status in (400, 401, 403, 404, 405, 413, 421, 422, 429, 500, 503):
        page = refusalpage.refusal_page(HubError("internal", "It & that.", status=status))
        assert f"<title>hub: {status}</title>" in page
        assert "It &amp; that." in page


def test_who_has_no_token_is_told_once_what_to_type() -> None:
    said = "This hub wants its token: name its state directory; hub token --link opens the page."
    page = refusalpage.refusal_page(HubError("forbidden", said, status=401))
    assert "<p>This hub wants its token.</p>" in page
    assert page.count("hub token --link") == 1


@pytest.mark.parametrize("weakened", [False, True])
def test_the_page_hides_nothing_of_what_was_asked(monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(refusalpage, "seen", str)
    page = refusalpage.refusal_page(HubError("invalid_args", "?\u202ex=: no.", status=400))
    assert ("?\\u202ex=: no." in page, "\u202e" in page) == (not weakened, weakened)
