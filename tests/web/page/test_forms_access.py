"""Who may send a form: the hub's own page, of who may do what it says; and what is read as one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors import bearer
from running import HubInside, hub_app
from sent import FORM, VOTE, Page, main, own, prepare, send, value

from hub.commands.seen import is_seen
from hub.web.access.guard import Guard
from hub.web.page import forms


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


FOREIGN = ["http://evil.test", "null", "", "http://localhost:1", "https://127.0.0.1"]


async def is_done(hub: HubInside, headers: dict[str, str]) -> bool:
    """Whether a form with these headers does what it says."""
    await hub.hub.publish("task:progress", {"id": "build", "status": "failed"})
    body = "event=task:progress&key=build"
    answer = await hub.ask("POST", "seen", data=body, headers={**FORM, **headers}, allow_redirects=False)
    done = is_seen(hub.hub.state, "task:progress", "build")
    assert answer.status == (303 if done else 403)
    return done


@pytest.mark.parametrize("origin", [None, *FOREIGN])
async def test_nobody_elses_page_can_send_one(hub: HubInside, origin: str | None) -> None:
    assert await is_done(hub, own(hub))
    assert not await is_done(hub, {} if origin is None else {"Origin": origin})
    assert not await is_done(hub, {"Origin": own(hub)["Origin"].upper()})


async def test_a_page_that_is_allowed_to_ask_cannot_send_forms(tmp_path: Path) -> None:
    async with hub_app(tmp_path, allow_origin=("http://friend.test",)) as hub:
        friend = {"Origin": "http://friend.test"}
        assert (await hub.ask("GET", "api/state", headers=friend)).status == 200
        assert not await is_done(hub, friend)


async def test_weakened_a_form_without_an_origin_is_done(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "check_form", lambda self, request: None)
    assert await is_done(hub, {})


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "has_frame"),
    [
        ("call/shop:ordr", b"count=1", {}, 404, True),
        ("call/shop:order", b"count", {}, 422, True),
        ("seen", b"key=%ff", {}, 422, True),
        ("seen", b"", {"Content_Type": "text/plain"}, 415, True),
        ("seen", b"key=build", {"Origin": "http://evil.test"}, 403, False),
    ],
)
async def test_a_browser_whose_form_is_refused_gets_a_page(
    hub: HubInside, path: str, body: bytes, headers: dict[str, str], status: int, has_frame: bool
) -> None:
    """In the frame of every page, unless it was somebody else's page that has sent it: that has no business there."""
    answer = await send(hub, path, body, accept="text/html,*/*;q=0.8", **headers)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert ('role="search"' in answer.text) is has_frame
    if has_frame:
        page = Page(answer.text)
        root = "../" if path.startswith("call/") else "./"
        assert page.one("body")["data-root"] == root
        assert all(str(one["href"]).startswith((root, "#")) for one in page.all("a"))


async def test_who_may_only_look_is_told_so_in_a_browser(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
        for fields in ({"event": "task:progress", "key": "t"}, {"panel": "failed", "until": "9"}):
            observer = bearer(hub, "OBSERVER")
            answer = await send(hub, "seen", fields, accept="text/html", **observer)
            assert answer.status == 303
            page = main((await hub.ask("GET", answer.headers["Location"], headers=observer)).text)
            assert "You may only read here" in str(page.one("p", role="alert")["text"])
            assert page.one("form", method="post")["action"] == "./seen"


async def test_a_refused_form_is_counted(hub: HubInside) -> None:
    await is_done(hub, {})
    assert hub.counted("hub_connections_refused_total", "origin") == 1


async def test_who_only_reads_cannot_press_what_would_be_refused_and_sees_why(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        buttons = {}
        for trust in ("OPERATOR", "OBSERVER"):
            for name in ("shop:order", "db:drop", "shop:much"):
                page = main((await hub.ask("GET", f"?call={name}", headers=bearer(hub, trust))).text)
                (button,) = page.all("button")
                if is_off := "disabled" in button:
                    why = page.one("strong", id=button["aria-describedby"])["text"]
                    assert why == "You may only look on here, so it cannot be run: your trust is OBSERVER."
                buttons[trust, name] = is_off
        assert [*buttons.values()] == [False, False, False, True, True, False], "who only reads may run what only reads"


async def test_who_only_reads_gets_the_form_and_a_refusal(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        observer = bearer(hub, "OBSERVER")
        page = await hub.ask("GET", "?call=shop:order", headers=observer)
        assert "You may only look on here" in page.text
        answer = await send(hub, "call/shop:order", {"count": "1"}, **observer)
        assert (answer.status, "You may only read here" in answer.text) == (403, True)
        await hub.hub.publish("task:progress", {"id": "build"})
        await hub.hub.publish("governance:vote_cast", VOTE)
        for path, sent in (
            ("seen", {"event": "task:progress", "key": "build"}),
            ("vote", {"vote_id": "v", "option": "approve"}),
            ("answer", {"question": "q", "answer": "yes"}),
        ):
            assert (await send(hub, path, sent, **observer)).status == 403
        assert not is_seen(hub.hub.state, "task:progress", "build")
        assert value(hub, "governance:vote_cast", "v") == VOTE
        assert (await send(hub, "call/shop:order", {"count": "1"}, **bearer(hub))).status == 303
        assert (await send(hub, "call/shop:order", {"count": "1"})).status == 401


async def test_a_browser_with_a_session_sends_forms_in_token_mode(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
        given = (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"]
        cookie = given.partition(";")[0]
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=cookie)).status == 303
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=cookie, Origin="null")).status == 403
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=f"{cookie}x")).status == 401


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_no_other_content_type_is_taken(hub: HubInside, kind: str) -> None:
    answer = await send(hub, "call/shop:order", b"count=1", Content_Type=kind)
    answer.refused(415, "invalid_message")


async def test_weakened_what_is_sent_as_a_text_is_done(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "content_type", lambda *args: "")
    assert (await send(hub, "call/shop:order", b"count=1", Content_Type="text/plain")).status == 303


async def test_weakened_a_large_form_is_read(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"count=" + b"1" * forms.MAX_BYTES
    monkeypatch.setattr(forms, "MAX_BYTES", 2 * forms.MAX_BYTES)
    assert (await send(hub, "call/shop:order", large)).status == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"count=" + b"1" * forms.MAX_BYTES, 413),
        (b"&".join(b"f%d=1" % number for number in range(1001)), 422),
        (b"count=1&count=2", 422),
        (b"count=%ff", 422),
        (b"count=\xff", 422),
        (b"count", 422),
        (b"count=%ed%a0%80", 422),
    ],
)
async def test_what_is_no_form_is_refused(hub: HubInside, body: bytes, status: int) -> None:
    answer = await send(hub, "call/shop:order", body)
    answer.refused(status, "too_large" if status == 413 else "invalid_message")


async def test_the_rate_limit_counts_them(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=1, prepare=prepare) as hub:
        seen = [(await send(hub, "call/shop:order", {"count": "1"})).status for _ in range(10)]
        assert set(seen) == {303, 429}
