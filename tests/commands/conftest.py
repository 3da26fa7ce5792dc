"""What several tests of commands have."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shops import Shop
from workers import Visitor

from hub import Hub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    found = Shop()
    yield found
    found.gate.set()


@pytest.fixture
def worker(hub: Hub) -> Visitor:
    return Visitor(hub)


@pytest.fixture
def caller(hub: Hub) -> Visitor:
    return Visitor(hub)
