"""The hub's own tokens, links and sessions stand in no event: whoever may only read would become the operator."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors import bearer
from running import HubInside, hub_app

from hub import sensitive, tokens
from hub.secretshapes import OF_LOGIN, PASSES


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, auth="token") as inside:
        yield inside


def held(hub: HubInside) -> list[str]:
    return [bearer(hub, trust)["Authorization"].split()[1] for trust in tokens.FILES]


async def published(hub: HubInside, *texts: str) -> str:
    """What an observer is told of a task whose last words these are, by state and by stream; what is on disk, and on
    the page."""
    data = {"id": "t", "status": "running", "message": "\n".join(texts), "said": texts, "by": {texts[-1]: 1}}
    body = {"event": "task:progress", "data": data}
    assert (await hub.ask("POST", "api/events", json=body, headers=bearer(hub))).status == 200
    await hub.ask("POST", "api/commands/hub:ping", json=data, headers=bearer(hub))
    reader = bearer(hub, "OBSERVER")
    told = [(await hub.ask("GET", path, headers=reader)).text for path in ("api/state", "api/events", "api/audit", "")]
    kept = [
        path.read_bytes().decode("latin-1") for path in hub.hub.config.state_dir.iterdir() if "token" not in path.name
    ]
    return "".join(told + kept)


@pytest.mark.parametrize("weakened", [False, True])
async def test_its_tokens(hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer(hub, "OBSERVER")
    before = held(hub)
    await hub.ask("GET", "api/state", headers=bearer(hub))
    if weakened:
        monkeypatch.setattr(sensitive, "_own", ())
    told = await published(hub, *before)
    assert [token in told for token in before] == [weakened] * 2


async def test_a_new_token_is_known_from_the_first_event_on(hub: HubInside) -> None:
    reader = bearer(hub, "OBSERVER")
    before = held(hub)
    await published(hub, "nothing")
    for trust in tokens.FILES:
        tokens.replace(hub.hub.config.state_dir, trust)
    assert reader != bearer(hub, "OBSERVER")
    now = held(hub)
    told = await published(hub, *now)
    assert not any(token in told for token in now)
    told = await published(hub, *before)
    assert all(token in told for token in before)  # they open nothing, and are plain texts again


@pytest.mark.parametrize("weakened", [False, True])
async def test_its_links_and_sessions(hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(sensitive, "PASSES", tuple(each for each in PASSES if OF_LOGIN not in each[0]))
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    other = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    cookie = (await hub.ask("GET", other, allow_redirects=False)).headers["Set-Cookie"]
    secrets = link.removeprefix("login/"), cookie.partition(";")[0].partition("=")[2]
    told = await published(hub, f"{hub.url}{link}", f"code={secrets[0]}", cookie, *secrets)
    assert [secret in told for secret in secrets] == [weakened] * 2
    assert (await hub.ask("GET", link, allow_redirects=False)).status == 303
