"""The processes of agents, where two hubs share one stream: each is watched by the hub that its events came to."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

from engines import Engine
from running import hub_app, until


async def test_an_agent_is_stopped_once_by_the_hub_that_watches_it(redis_engine: Engine, tmp_path: Path) -> None:
    url = redis_engine.url(prefix=uuid4().hex)
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(hub_app(tmp_path / name, broker=url)) for name in ("one", "two")]
        agent = await asyncio.create_subprocess_exec("sleep", "1000")
        try:
            await hubs[0].hub.publish("agent:status_change", {"id": "a", "status": "active", "pid": agent.pid})
            await until(lambda: hubs[1].hub.cursor == hubs[0].hub.cursor)
            assert [len(hub.hub.liveness) for hub in hubs] == [1, 0]
        finally:
            agent.kill()
            await agent.wait()
        await until(lambda: all(hub.hub.cursor.seq >= 2 for hub in hubs))
        await hubs[1].hub.publish("a:x", 1)
        await until(lambda: all(hub.hub.cursor.seq >= 3 for hub in hubs))
        for hub in hubs:
            events = list(hub.hub.window.events())
            assert [event.name for event in events] == ["agent:status_change", "agent:status_change", "a:x"]
            assert (events[1].data["status"], events[1].data["reason"]) == ("stopped", "process ended")
