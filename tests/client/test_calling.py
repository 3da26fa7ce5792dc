"""HubClient calls what must be confirmed, and what must run once, of a real hub."""

from pathlib import Path
from typing import Any

import pytest
from running import hub_app

from hub import Hub, HubClient, HubError
from hub.commands.call import Call


async def test_a_call_is_confirmed_and_repeated(tmp_path: Path) -> None:
    runs: list[Any] = []

    def prepare(hub: Hub) -> None:
        @hub.command("db:drop", effect="dangerous")
        async def drop(call: Call) -> Any:
            """Drop a table."""
            runs.append(call.args)
            return len(runs)

    async with hub_app(tmp_path, prepare=prepare) as hub, HubClient(hub.url) as client:
        args = {"table": "t"}
        with pytest.raises(HubError) as refused:
            await client.call("db:drop", args, key="k")
        assert refused.value.code == "confirmation_required"
        assert refused.value.details is not None
        confirm = refused.value.details["confirm"]
        assert await client.call("db:drop", args, confirm=confirm, key="k") == 1
        assert await client.call("db:drop", args, key="k") == 1
        with pytest.raises(HubError) as refused:
            await client.call("db:drop", args, confirm=confirm)
        assert refused.value.code == "confirmation_required"
        with pytest.raises(HubError) as refused:
            await client.call("db:drop", args, key="")  # is sent, and none
        assert refused.value.code == "invalid_message"
    assert runs == [args]
