"""One Chromium for all tests here, a page and a hub for each."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from browser.cdp import Browser, DevTools, Page, find_browser
from browser.hubs import HubProcess, StartHub, Wire


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if not program:
        pytest.skip("there is no Chromium on this machine")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.stop()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A fresh page. What a person would call an error on it fails the test, unless the test takes it away."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(await browser.address(), max_msg_size=0) as ws,
    ):
        tools = DevTools(ws)
        async with tools.page() as page:
            yield page
        await tools.close()
    page.forgive(*page.expected)
    assert page.troubles == []


@pytest.fixture
async def start_hub(tmp_path: Path) -> AsyncIterator[StartHub]:
    """Starts `python -m hub` with more flags; what still runs at the end is stopped, and must stop cleanly."""
    started: list[HubProcess] = []

    async def start(*flags: str) -> HubProcess:
        started.append(HubProcess(tmp_path / f"state-{len(started)}", *flags))
        await started[-1].start()
        return started[-1]

    yield start
    assert {await process.stop() for process in started if process.running} <= {0}


@pytest.fixture
async def hub(start_hub: StartHub) -> HubProcess:
    """A running `python -m hub`."""
    return await start_hub()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A wire that leads nowhere yet: set its `target`."""
    wire = Wire()
    await wire.start()
    yield wire
    await wire.stop()
