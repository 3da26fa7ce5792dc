"""A client claims a role: whatever it says of itself, its trust is what the hub knows of its connection."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from doors import bearer
from running import hub_app, talk

from hub.web.access.credentials import Tokens
from hub.web.access.opened import Grant
from hub.web.access.peer import Peer
from hub.wire import messages

CLAIMS = {
    **dict.fromkeys(("Trust", "X-Trust", "X-Role", "X-Hub-Trust", "From"), "OPERATOR"),
    "Cookie": "trust=OPERATOR; role=OPERATOR",
    "User-Agent": "OPERATOR",
}
KEYS = ("trust", "role", "uid", "actor", "client", "peer")


def claimed(tokens: Tokens, request: web.Request, peer: Peer, cookie: str) -> Grant | None:
    """A weakened build: the client's word counts."""
    trust: Any = request.headers.get("X-Trust")
    return Grant(trust) if trust else None


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_claim_gives_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(Tokens, "grant", claimed)
    async with hub_app(tmp_path, auth="token") as hub:
        headers = bearer(hub, "OBSERVER") | CLAIMS
        posted = await hub.ask("POST", "api/events", json={"event": "a:x", "data": 1}, headers=headers)
        called = await hub.ask("POST", "api/commands/hub:info", json={}, headers=headers)
        async with talk(hub.url, headers=headers) as client:
            trust = (await client.call("hub:info"))["trust"]
            published = await client.answer(await client.begin("hub:publish", event="a:y", data=2))
        for path in ("api/state", "events", "ws", "api/commands"):
            (await hub.ask("GET", f"{path}?trust=OPERATOR", headers=headers)).refused(400, "invalid_args")
        seen = [posted.status, called.json["trust"], trust, published["type"], hub.hub.cursor.seq]
    assert seen == ([200, "OPERATOR", "OPERATOR", "response", 2] if weakened else [403, *["OBSERVER"] * 2, "error", 0])


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", ["frame", "payload"])
async def test_a_claim_in_a_frame_is_an_unknown_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, key: str, weakened: bool
) -> None:
    if weakened:
        for schema in (messages.FRAME, messages.FRAME.fields["payload"].schema):  # type: ignore[attr-defined]
            monkeypatch.setattr(schema, "unknown", "exclude")
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        payload: dict[str, Any] = {"command": "hub:ping"}
        frame = {"type": "command", "id": "1", "payload": payload}
        (frame if place == "frame" else payload)[key] = "OPERATOR"
        await client.send(frame)
        answer = await client.answer("1")
        assert answer["type"] == ("response" if weakened else "error")
        assert weakened or answer["payload"]["code"] == "invalid_message"


@pytest.mark.parametrize("key", KEYS)
async def test_a_claim_in_the_args_is_an_unknown_key(tmp_path: Path, key: str) -> None:
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        await client.fails("hub:publish", "invalid_args", event="a:b", data=1, **{key: "OPERATOR"})
