"""`HubClient` against a hub in a process of its own."""

import asyncio
from pathlib import Path

import pytest
from commandline import started

from hub.client.client import HubClient
from hub.client.items import Gap, Received
from hub.errors import HubError


async def test_a_client_follows_calls_and_publishes(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0"):
        async with HubClient(state_dir=tmp_path, topics=["client:*"]) as client:
            published = await client.publish("client:said", {"n": 1}, id="client-1")
            assert await client.publish("client:said", {"n": 1}, id="client-1") == published
            item = await anext(client)
            assert isinstance(item, Received)
            assert (item.name, item.data, item.id, item.cursor) == (
                "client:said",
                {"n": 1},
                "client-1",
                published["cursor"],
            )
            assert await client.call("hub:ping", {"x": 1}) == {"pong": True, "args": {"x": 1}}
            with pytest.raises(HubError) as caught:
                await client.call("no:such")
            assert caught.value.code == "unknown_command"
            answers = await asyncio.gather(*[client.call("hub:ping", {"n": n}) for n in range(100)])
            assert [answer["args"]["n"] for answer in answers] == list(range(100))


async def test_a_client_lives_through_a_restart_of_the_hub(tmp_path: Path) -> None:
    async def until(client: HubClient, last: str) -> list[str]:
        seen = []
        async for item in client:
            if isinstance(item, Received):
                seen.append(item.data)
                if item.data == last:
                    break
        return seen

    with started(tmp_path, "--port", "0") as first:
        async with HubClient(state_dir=tmp_path, topics=["client:*"]) as client:
            await client.publish("client:said", "one")
            assert await until(client, "one") == ["one"]
            assert await asyncio.to_thread(first.stop) == 0
            with started(tmp_path, "--port", "0"):
                await client.publish("client:said", "two")
                assert await until(client, "two") == ["two"]


async def test_a_client_behind_the_window_is_told_what_it_misses(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0"):
        async with HubClient(state_dir=tmp_path, after="nobody:5", topics=["client:*"]) as client:
            gap = await anext(client)
            assert isinstance(gap, Gap)
            assert (gap.after, gap.count, gap.reason) == ("nobody:5", None, "epoch")
