"""What a form was answered is kept for a while, for who has sent it, and never says more than is known."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors import bearer
from running import Answer, HubInside, hub_app, until
from sent import QUESTION, main, prepare, rewritten, send

from hub.web.page import forms, results
from hub.wire.vocabulary import Trust


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


@pytest.fixture
async def question(hub: HubInside) -> AsyncIterator[str]:
    """The id of an open question."""
    asking = asyncio.ensure_future(hub.hub.ask(*QUESTION))
    await until(lambda: [*hub.hub.questions.records()])
    yield next(iter(hub.hub.questions.records()))["id"]
    asking.cancel()
    await asyncio.wait({asking})


async def test_an_answer_is_kept_for_a_while_and_for_who_has_called(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (await send(hub, "call/shop:order", {"count": "3"})).headers["Location"].removeprefix("../")
    for _ in range(2):
        assert "ordered" in (await hub.get(place)).text
    assert is_unknown(await hub.get(place.replace("shop:order", "hub:ping")))
    kept = hub.app[forms.RESULTS]
    (id,) = kept._kept
    assert kept.get(id, OTHER, "shop:order") is None
    monkeypatch.setattr(results, "_is_for", lambda *args: True)
    assert kept.get(id, OTHER, "shop:order") is not None, "weakened another account reads it"
    monkeypatch.setattr(results, "KEPT_SECONDS", -1.0)
    place = (await send(hub, "call/shop:order", {"count": "3"})).headers["Location"].removeprefix("../")
    assert is_unknown(await hub.get(place))


OTHER = results.Caller("uid 12345", "OPERATOR", None)


def is_unknown(answer: Answer) -> bool:
    """Whether the page says that nothing is known of this call; nothing else is said of it then."""
    page = main(answer.text)
    (said,) = [str(one["text"]) for one in page.all("p", role="status")]
    is_told = said.startswith("Of this call nothing is known here, not even whether it ran: ")
    assert ("Done" in said, "What it answered" in page.text) == (not is_told, not is_told)
    return is_told


@pytest.mark.parametrize("id", ["11111111-1111-1111-1111-111111111111", ""])
@pytest.mark.parametrize("weakened", [False, True])
async def test_no_link_says_that_something_ran(hub: HubInside, id: str, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result %}\n<p", "{% if is_done %}\n<p")
    page = main((await hub.get("", call="db:drop", done=id)).text)
    said = str(page.one("p", role="status")["text"])
    assert (said.startswith("Of this call nothing is known"), "✓ Done" in said) == (not weakened, weakened)


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_that_comes_too_late_has_no_tick(hub: HubInside, question: str, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result.remark %}", "{% if not result %}")
    answers = [await send(hub, "answer", {"question": question, "answer": "no"}) for _ in "12"]
    page = main((await hub.get(answers[1].headers["Location"])).text)
    assert ("✓" in str(page.one("p", role="status")["text"])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_is_for_the_session_that_has_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(results, "_is_for", lambda whose, caller: whose.account == caller.account)
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:

        async def session(trust: Trust) -> dict[str, str]:
            link = (await hub.ask("POST", "login", headers=bearer(hub, trust))).json["link"]
            given = (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"]
            return {"Cookie": given.partition(";")[0]}

        mine, other, observer = await session("OPERATOR"), await session("OPERATOR"), await session("OBSERVER")
        for caller in (mine, bearer(hub)):
            place = (await send(hub, "call/shop:order", {"count": "1"}, **caller)).headers["Location"]
            place = place.removeprefix("../")
            assert not is_unknown(await hub.ask("GET", place, headers=caller))
            others = [mine, other, observer, bearer(hub), bearer(hub, "OBSERVER")]
            others.remove(caller)
            for headers in others:
                assert is_unknown(await hub.ask("GET", place, headers=headers)) is not weakened


async def test_no_more_is_kept_than_is_shown(hub: HubInside) -> None:
    place = (await send(hub, "call/shop:much")).headers["Location"].removeprefix("../")
    page = await hub.get(place)
    assert "This is the beginning of 97.7 KiB." in page.text
    kept = hub.app[forms.RESULTS]
    (own,) = kept._kept.values()
    for _ in range(results.KEPT + 5):
        kept.keep(own.caller, "a:b", b"1")
    assert len(kept._kept) == results.KEPT
    assert is_unknown(await hub.get(place))


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_broken_audit_log_has_no_tick(hub: HubInside, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result.remark %}", "{% if not result %}")
    assert "✓ Done." in " ".join(str(one["text"]) for one in await verified(hub))
    path = hub.hub.config.state_dir / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"hub.started", b"hub.startet"))
    (said,) = [str(one["text"]) for one in await verified(hub)]
    assert ("▲ The audit log is not intact: what is wrong stands below." in said) is not weakened
    assert ("✓" in said) is weakened


async def verified(hub: HubInside) -> list[dict[str, str | None]]:
    place = (await send(hub, "call/audit:verify")).headers["Location"].removeprefix("../")
    return main((await hub.get(place)).text).all("p", role="status")
