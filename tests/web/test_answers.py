"""Who asks, for what, and how it is refused: queries, paths, methods."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asked import api_hub, event
from running import HubInside, hub_app

from hub.commands import registry
from hub.web import answers, api


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with api_hub(tmp_path) as running:
        yield running


UNKNOWN = ["api/events", "api/state", "api/commands", "api/audit", "events", "ws", "metrics", "healthz", "readyz", ""]
UNKNOWN += ["static/hub.js"]


@pytest.mark.parametrize("name", ["topic", "lastEventId", "ghp_0123456789abcdef"])
@pytest.mark.parametrize("path", UNKNOWN)
async def test_a_name_that_nobody_knows_in_a_query_is_refused(hub: HubInside, path: str, name: str) -> None:
    """It is a mistake, and what it was meant to narrow or to resume would go wrong in silence."""
    answer = await hub.ask("GET", f"{path}?{name}=a:*")
    assert name in answer.refused(400, "invalid_args")["details"] or "ghp_" not in answer.text


async def test_a_post_takes_no_query(hub: HubInside) -> None:
    (await hub.post("api/events?token=x", event())).refused(400, "invalid_args")
    (await hub.post("api/commands/hub:ping?id=x", {})).refused(400, "invalid_args")
    assert hub.hub.cursor.seq == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_stands_in_a_path_is_noted_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        for room in (api, answers, registry):
            monkeypatch.setattr(room, "redact_text", lambda text: text)
    secret = "ghp_0123456789abcdefghij"
    async with hub_app(tmp_path) as hub:
        error = (await hub.post(f"api/commands/{secret}", {})).refused(404, "unknown_command")
        nowhere = (await hub.get(f"no/{secret}")).refused(404, "unknown_command")
        await hub.post(f"api/commands/{'x' * 5000}", {})
        noted = [record["details"]["command"] for record in await hub.recorded("command.refused")]
    assert [secret in text for text in (error["error"], nowhere["error"], noted[0])] == [weakened] * 3
    assert len(noted[-1]) < 200
