"""A copy of the state directory is put back under a killed hub: nobody gets another event for what they have seen."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import HubProcess, hub_process, talk
from stores import kept_in

from hub.stream.brokers.sqlite import FILE

pytestmark = pytest.mark.once


async def publish(hub: HubProcess, *data: str) -> list[str]:
    """The cursors."""
    cursors = []
    for text in data:
        async with hub.http.post(hub.url + "api/events", json={"event": "a:x", "data": text}) as response:
            cursors.append((await response.json())["cursor"])
    return cursors


def over(copy: Path, state: Path) -> None:
    shutil.copytree(copy, state, dirs_exist_ok=True)


def plainly_over(copy: Path, state: Path) -> None:
    shutil.copytree(copy, state, copy_function=shutil.copy, dirs_exist_ok=True)


def anew(copy: Path, state: Path) -> None:
    shutil.rmtree(state)
    shutil.copytree(copy, state)


def the_store_alone(copy: Path, state: Path) -> None:
    for file in copy.glob(f"{FILE}*"):
        shutil.copy(file, state)


def data_of(frame: dict[str, Any]) -> Any:
    return frame["payload"]["data"]


@pytest.mark.parametrize("way", [over, plainly_over, anew, the_store_alone], ids=lambda way: str(way.__name__))
async def test_clients_go_on_as_far_as_it_is_the_same_and_are_told_behind_that(
    way: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    async with hub_process(tmp_path, status=-signal.SIGKILL) as hub:
        seen = await publish(hub, "1", "2")
        shutil.copytree(hub.state_dir, tmp_path / "copy")
        seen += await publish(hub, "3", "4")
        hub.signal(signal.SIGKILL)
        await hub.ended()
    way(tmp_path / "copy", hub.state_dir)
    async with hub_process(tmp_path) as hub:
        new = await publish(hub, "other")
        epoch = new[0].partition(":")[0]
        assert new == [f"{epoch}:3"]
        assert not set(seen) & set(new)
        for place, cursor in enumerate(seen, 1):
            want = ["1", "2", "other"][place if place <= 2 else 0 :]
            async with talk(hub.url, f"?after={cursor}") as client:
                if place > 2:
                    gap = data_of(await client.event())
                    assert gap == {"after": cursor, "before": f"{epoch}:1", "count": None, "reason": "epoch"}
                assert [data_of(await client.event()) for _ in want] == want
                answer = await client.call("hub:subscribe", topics=["b:*"], after=cursor)
                assert answer["cursor"] == f"{epoch}:{place if place <= 2 else 0}"
            async with hub.http.get(hub.url + "api/events", params={"after": cursor}) as response:
                page = await response.json()
                assert [data_of(event) for event in page["events"]] == want
                assert page["complete"] is (place <= 2)
            async with hub.http.get(hub.url + "events", headers={"Last-Event-ID": cursor}) as stream:
                text = b""
                while text.count(b"data:") < len(want) + (place > 2):
                    text += await stream.content.read(4096)
                assert (b"hub:gap" in text) is (place > 2)
        assert "another epoch begins" in hub.log
    assert list(kept_in(hub.state_dir)) == [1, 2, 3]
