"""HubClient asks people: across a restart, and until nobody waits any more."""

import asyncio
import signal
from pathlib import Path

import pytest
from running import hub_process

from hub import HubClient
from hub.errors import HubError


async def test_a_question_is_answered_across_a_broken_connection_and_a_restart(tmp_path: Path) -> None:
    async with (
        hub_process(tmp_path, status=-signal.SIGKILL) as hub,
        HubClient(state_dir=hub.state_dir) as client,
        HubClient(state_dir=hub.state_dir) as other,
    ):
        asking = asyncio.create_task(client.ask("Deploy?", ["yes", "no"], details={"cwd": "/srv"}))
        while not (found := await other.call("hub:questions")):
            await asyncio.sleep(0.02)
        hub.signal(signal.SIGKILL)
        await hub.ended()
        async with hub_process(tmp_path):
            answer = {"question": found[0]["id"], "answer": "no"}
            assert await other.call("hub:answer", answer) == {"accepted": True}
            answered = await asking
            assert (answered.question, answered.answer, answered.timed_out) == (found[0]["id"], "no", False)
            assert await other.call("hub:answer", answer) == {"accepted": False}


@pytest.mark.parametrize("bound", [True, False])
async def test_a_question_that_nobody_waits_for_is_taken_back(bound: bool, tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, HubClient(state_dir=hub.state_dir) as client:
        asking = asyncio.create_task(client.ask("Deploy?", ["yes", "no"], while_connected=bound))
        while not await client.call("hub:questions"):
            await asyncio.sleep(0.02)
        asking.cancel()
        await asyncio.wait({asking})
        while await client.call("hub:questions"):
            await asyncio.sleep(0.02)
        with pytest.raises(HubError, match="no default"):
            await client.ask("Deploy?", ["yes", "no"], timeout=1)
        assert (await client.ask("Deploy?", ["yes", "no"], timeout=1, default="yes")).timed_out
