"""What a token or a session has opened ends with it, in the same step: streams, calls, questions, half a body."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from doors import bearer, tokens_of
from running import HubInside, hub_app, talk, until
from samples import sample

from hub import Hub, tokens
from hub.web import answers, api
from hub.web.access import credentials, login
from hub.web.access.credentials import Tokens
from hub.web.access.opened import Grant, Opened, Running
from hub.web.access.peer import Peer
from hub.wire.vocabulary import Trust

EVENT = {"event": "rot:half", "data": 1}
ASK = {"question": "deploy?", "options": ["a", "b"], "timeout": 60}
ME = Peer("127.0.0.1", 1, 1000, "NONE")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, auth="token", prepare=waiting, stop_timeout=0.1) as inside:
        yield inside


def waiting(hub: Hub) -> None:
    @hub.command("test:wait")
    async def wait(call: Any) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


@asynccontextmanager
async def half(
    hub: HubInside, path: str, body: Any, headers: dict[str, str], left: int = 5
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]:
    """A request of which so many bytes are not sent yet, and those."""
    text = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    lines = [f"POST /{path} HTTP/1.1", f"Host: 127.0.0.1:{hub.port}", f"Content-Length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in {**headers, "Content-Type": "application/json"}.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + text[: len(text) - left])
    opened = tokens_of(hub).opened
    await until(lambda: any(opened._by.values()), "the request")
    yield reader, writer, text[len(text) - left :]
    writer.close()


def replace(hub: HubInside, trust: Trust = "OPERATOR") -> dict[str, str]:
    tokens.replace(hub.hub.config.state_dir, trust)
    return bearer(hub, trust)


async def session(hub: HubInside, trust: Trust = "OPERATOR") -> dict[str, str]:
    link = (await hub.ask("POST", "login", headers=bearer(hub, trust))).json["link"]
    cookie = (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"]
    return {"Cookie": cookie.partition(";")[0]}


PATHS = {
    "api/events": EVENT,
    "api/commands/hub:publish": EVENT,
    "hooks/claude-code": sample("claude-05-permission-request"),
    "ping/job": EVENT,
}


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_not_whole_is_refused(
    hub: HubInside, path: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Opened, "end", lambda self, is_over, sentence: None)
    async with half(hub, path, PATHS[path], bearer(hub)) as (reader, writer, rest):
        headers = replace(hub)
        await hub.ask("GET", "api/state", headers=headers)  # it is noticed in this step
        if not weakened:
            assert (await reader.readline()).split()[1] == b"401"
            assert b"The token was replaced while this was on its way" in await reader.readuntil(b"}")
        else:
            writer.write(rest)
            assert (await reader.readline()).split()[1] == b"200"
    assert (hub.hub.cursor.seq > 0) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_also_if_its_rest_comes_before_anybody_has_looked(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(answers, "check_grant", lambda request: None)
    monkeypatch.setattr(tokens_of(hub), "look", lambda: None)
    async with half(hub, "api/events", EVENT, bearer(hub)) as (reader, writer, rest):
        replace(hub)
        writer.write(rest)
        assert (await reader.readline()).split()[1] == (b"200" if weakened else b"401")
    assert hub.hub.cursor.seq == weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_asks_over_http_gets_no_answer_that_comes_later(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question outlives its asker, as it does a connection that breaks."""
    if weakened:
        monkeypatch.setattr(Opened, "end", lambda self, is_over, sentence: None)
    asked = asyncio.ensure_future(hub.ask("POST", "api/commands/hub:ask", json=ASK, headers=bearer(hub)))
    await until(lambda: list(hub.hub.questions.records()))
    headers = replace(hub)
    (question,) = hub.hub.questions.records()
    answer = {"question": question["id"], "answer": "a"}
    accepted = await hub.ask("POST", "api/commands/hub:answer", json=answer, headers=headers)
    assert accepted.json == {"accepted": True}
    if weakened:
        assert (await asked).json["answer"] == "a"
        return
    (await asked).refused(401, "forbidden")
    finished = [r["details"] for r in await hub.recorded("command.finished")]
    assert [r["outcome"] for r in finished if r["command"] == "hub:ask"] == ["forbidden"]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_question_that_is_bound_to_its_asker_is_withdrawn(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(api, "_end", lambda request, call: call.cancel("forbidden"))
    body = {**ASK, "while": "connected"}
    asked = asyncio.ensure_future(hub.ask("POST", "api/commands/hub:ask", json=body, headers=bearer(hub)))
    await until(lambda: list(hub.hub.questions.records()))
    replace(hub)
    (await asked).refused(401, "forbidden")
    if weakened:
        assert list(hub.hub.questions.records())
    else:
        await until(lambda: not list(hub.hub.questions.records()), "its end")


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hook_is_not_told_what_was_allowed_later(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Opened, "end", lambda self, is_over, sentence: None)
    body = sample("claude-05-permission-request")
    hook = asyncio.ensure_future(hub.ask("POST", "hooks/claude-code?ask=1", json=body, headers=bearer(hub)))
    await until(lambda: list(hub.hub.questions.records()))
    (question,) = hub.hub.questions.records()
    headers = replace(hub)
    answer = {"question": question["id"], "answer": question["options"][0]}
    accepted = await hub.ask("POST", "api/commands/hub:answer", json=answer, headers=headers)
    assert accepted.json == {"accepted": weakened}
    came = await hook
    assert ("allow" in came.text) is weakened
    assert came.status == (200 if weakened else 401)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_call_that_runs_is_ended(
    hub: HubInside, over: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Opened, "end", lambda self, is_over, sentence: None)
    headers = bearer(hub)
    async with talk(hub.url, headers=headers) as client:
        if over == "http":
            call = asyncio.ensure_future(hub.ask("POST", "api/commands/test:wait", json={}, headers=headers))
        else:
            await client.begin("test:wait")
        await until(lambda: hub.hub.commands.running)
        headers = replace(hub)
        assert (await hub.ask("GET", "healthz", headers=headers)).status == 200
        assert (await hub.ask("GET", "api/state", headers=headers)).status == 200
        if weakened:
            assert hub.hub.commands.running
            return
        await until(lambda: not hub.hub.commands.running, "the end of the call")
        if over == "http":
            (await call).refused(401, "forbidden")
        (finished,) = [r for r in await hub.recorded("command.finished") if r["details"]["command"] == "test:wait"]
        assert finished["details"]["outcome"] == "forbidden"


async def test_what_another_token_has_begun_goes_on(hub: HubInside) -> None:
    async with half(hub, "api/events", EVENT, bearer(hub)) as (reader, writer, rest):
        bearer(hub, "OBSERVER")
        await hub.ask("GET", "api/state", headers=bearer(hub, "OBSERVER"))
        replace(hub, "OBSERVER")
        await hub.ask("GET", "api/state", headers=bearer(hub, "OBSERVER"))
        writer.write(rest)
        assert (await reader.readline()).split()[1] == b"200"


async def test_an_answer_that_is_not_taken_is_cut_off(hub: HubInside) -> None:
    """Somebody who does not read his answer cannot keep it for later."""
    await hub.publish(900, pad="x" * 1000)
    _, writer = await asyncio.open_connection("127.0.0.1", hub.port, limit=1)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    line = f"GET /api/events?limit=900 HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n"
    for _ in range(12):
        writer.write(f"{line}Authorization: {bearer(hub)['Authorization']}\r\n\r\n".encode())
    opened = tokens_of(hub).opened
    await until(lambda: any(one.begun for same in opened._by.values() for one in same), "an answer")  # type: ignore[attr-defined]
    replace(hub)
    tokens_of(hub).look()
    await until(lambda: not opened._by, "its end")
    writer.transport.abort()


# ---- sessions


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("why", ["evicted", "over"])
async def test_a_session_ends_what_it_has_opened(
    hub: HubInside, why: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Tokens, "_end_sessions", lambda self: None)
    monkeypatch.setattr(tokens_of(hub)._sessions, "_most", 2)
    if why == "over":
        monkeypatch.setattr(credentials, "SESSION_SECONDS", 2.5)
    cookie = await session(hub)
    async with (
        talk(hub.url, headers=cookie) as client,
        talk(hub.url, "?page=1", headers=cookie) as page,
        hub.http.get(f"{hub.url}events", headers=cookie) as stream,
        half(hub, "api/events", EVENT, cookie) as (reader, _, _),
    ):
        await client.call("hub:ping")
        ends = [asyncio.ensure_future(each.end()) for each in (client, page)]
        if why == "evicted":
            for _ in range(2):
                await session(hub)
        await until(lambda: tokens_of(hub)._session(cookie["Cookie"].partition("=")[2], only(hub)) is None)
        if weakened:
            assert not any(each.done() for each in ends)
            return
        assert await asyncio.gather(*ends) == [1008, 1008]
        await until(stream.content.exception, "the end of the event stream")
        assert (await reader.readline()).split()[1] == b"401"
        assert b"The session has ended" in await reader.readuntil(b"}")
    assert not tokens_of(hub).opened._by


def only(hub: HubInside) -> Peer:
    """Whose sessions they are."""
    (ticket, *_) = [*tokens_of(hub)._sessions._kept.values()] or [None]  # type: ignore[attr-defined]
    return Peer("127.0.0.1", 1, ticket.whose if ticket else None, "NONE")


class Kept:
    def __init__(self) -> None:
        self.said: str | None = None

    def revoke(self, sentence: str) -> None:
        self.said = sentence


@pytest.mark.parametrize("weakened", [False, True])
def test_what_another_worker_has_ended_ends_here(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next look, which is within a second."""
    monkeypatch.setattr(credentials, "SESSIONS", 2)
    if weakened:
        monkeypatch.setattr(Tokens, "_end_sessions", lambda self: None)
    one, two = (Tokens(tmp_path, tmp_path / "tickets") for _ in range(2))
    one.open()
    two.open()
    kept = []
    for _ in range(3):
        grant = two._session(two.enter(two.link("OPERATOR"), ME) or "", ME)
        assert grant
        kept.append(Kept())
        one.opened.add(grant, kept[-1])
    one.look()
    over = None if weakened else "The session has ended"
    assert [each.said for each in kept] == [over, None, None]
    assert login.LOOK <= 1.0


def test_one_that_cannot_be_ended_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def revoke(self, sentence: str) -> None:
            raise RuntimeError

    opened, kept, other = Opened(), Kept(), Kept()
    opened.add(Grant("OPERATOR"), Broken())
    opened.add(Grant("OPERATOR", b"1"), kept)
    opened.add(Grant("OBSERVER"), other)
    opened.discard(Grant("OBSERVER", b"2"), other)
    opened.end(lambda grant: grant.trust == "OPERATOR", "It is over")
    assert (kept.said, other.said) == ("It is over", None)
    assert "failed to end what a token" in caplog.text


# ---- two files with one text


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("first", ["token", "token.read"])
async def test_of_two_tokens_with_one_text_the_lesser_right_is_given(
    hub: HubInside, first: str, weakened: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In whichever order they became the same; and a hub that is started with them does as this one does."""
    if weakened:
        monkeypatch.setattr(Tokens, "are_same", False)
    directory, other = hub.hub.config.state_dir, "token.read" if first == "token" else "token"
    bearer(hub, "OBSERVER")
    for name in (other, first):
        (directory / name).write_text("the-same-text-in-both-of-the-files\n")
        (directory / name).chmod(0o600)
        tokens_of(hub).refresh()
    text = b"the-same-text-in-both-of-the-files"
    started = Tokens(directory)
    started.open()
    found = {each.holder(text) for each in (tokens_of(hub), started)}
    if weakened:
        assert "have the same text" not in caplog.text
        return
    assert found == {"OBSERVER"}
    posted = await hub.ask("POST", "api/events", json=EVENT, headers={"Authorization": f"Bearer {text.decode()}"})
    posted.refused(403, "forbidden")
    assert caplog.text.count("have the same text, so it only opens reading") == 2  # here, and at the start of the other
    link = started.link("OPERATOR")
    grant = started._session(started.enter(link, ME) or "", ME)
    assert grant
    assert grant.trust == "OBSERVER"


async def test_what_is_ended_by_nothing_here_is_ended_as_anywhere(hub: HubInside) -> None:
    """A request that the server cancels is not answered as one whose token was replaced."""
    opened = tokens_of(hub).opened
    hooked = asyncio.ensure_future(hub.ask("POST", "api/commands/test:wait", json={}, headers=bearer(hub)))
    await until(lambda: hub.hub.commands.running)
    ((running, *_),) = opened._by.values()
    assert isinstance(running, Running)
    running._task.cancel()
    with pytest.raises(ClientError):
        await hooked
    assert not opened._by
