"""A hub and a client for the tests of WebSocket clients."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from running import HubInside, Talk, hub_app, talk
from sessions import Doors


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
async def hub(tmp_path: Path, doors: Doors) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=doors, stop_timeout=0.2) as running:
        yield running


@pytest.fixture
async def client(hub: HubInside) -> AsyncIterator[Talk]:
    async with talk(hub.url) as client:
        yield client
