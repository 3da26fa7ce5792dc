"""kill -9 while a call with an idempotency key runs, and after: the next hub runs it no second time."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from running import JSON, HubProcess, hub_process

# Each run of a command leaves a line in a file, which no kill takes back; `stay` never ends by itself.
WORK = """
import asyncio
from pathlib import Path

def setup(hub):
    def ran(call):
        with Path("ran").open("a") as file:
            file.write(f"{call.args['n']}\\n")

    @hub.command("work:quick")
    async def quick(call):
        ran(call)
        return {"done": call.args["n"]}

    @hub.command("work:stay")
    async def stay(call):
        ran(call)
        await asyncio.Event().wait()
"""
# A hub that writes nothing down before a call runs.
HASTY = """
from hub.commands.idempotency import Turn

def setup(hub):
    async def begin(self):
        self.begun = True
    Turn.begin = begin
"""


async def post(hub: HubProcess, name: str, n: int, key: str) -> tuple[int, Any]:
    headers = {**JSON, "Idempotency-Key": key}
    async with hub.http.post(f"{hub.url}api/commands/work:{name}", json={"n": n}, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_that_is_killed_runs_no_call_twice(tmp_path: Path, weakened: bool) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "hasty.py").write_text(HASTY)
    flags, ran = ("--load", "work", *(("--load", "hasty") if weakened else ())), tmp_path / "ran"
    async with hub_process(tmp_path, *flags, status=-signal.SIGKILL) as hub:
        first = [await post(hub, "quick", n, f"key {n}") for n in range(5)]
        stays = asyncio.create_task(post(hub, "stay", 5, "key 5"))
        while ran.read_text().count("\n") < 6:
            await asyncio.sleep(0.01)
        repeat = asyncio.create_task(post(hub, "stay", 5, "key 5"))
        assert await post(hub, "quick", 0, "key 0") == first[0]
        hub.signal(signal.SIGKILL)
        await hub.ended()
        await asyncio.gather(stays, repeat, return_exceptions=True)
    async with hub_process(tmp_path, *flags, status=-signal.SIGKILL if weakened else 0) as hub:
        assert [await post(hub, "quick", n, f"key {n}") for n in range(5)] == first
        assert (await post(hub, "quick", 1, "key 0"))[0] == 422
        if weakened:
            stays = asyncio.create_task(post(hub, "stay", 5, "key 5"))
            while ran.read_text().count("\n") < 7:  # once more
                await asyncio.sleep(0.01)
            stays.cancel()
            hub.signal(signal.SIGKILL)
            await hub.process.wait()
            return
        status, error = await post(hub, "stay", 5, "key 5")
        assert (status, error["code"], error["details"]) == (500, "command_failed", {"unknown": True})
        assert ran.read_text().split() == list("012345")
