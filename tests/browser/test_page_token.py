"""The page of a hub that wants its token: what it says to a person whose session has ended with that, or the hub."""

import json
from pathlib import Path

import aiohttp
import pytest
from browser.cdp import Page
from browser.hubs import HubProcess, StartHub
from browser.test_page_connection import GONE, LIVE, LOST

from hub import tokens
from hub.processes import typed_command

BAR = "document.querySelector('#gone').textContent"
SAID = (
    "The hub does not let this page in any more: This hub wants its token. "
    "In a terminal type {}, and open the link that it prints."
)
GO_ON = "This page comes back by itself; if the hub was stopped, start it, and open the link that “{}” prints."


def typed(hub: HubProcess) -> str:
    """What is typed for a link to the page of just this hub."""
    return f"{typed_command()} token --link --state-dir {hub._state_dir}"


async def entered(page: Page, url: str, state: Path) -> None:
    """Open the page with a new link, as `hub token --link` prints it."""
    headers = {"Authorization": f"Bearer {tokens.read(state)}"}
    async with aiohttp.ClientSession() as http, http.post(f"{url}login", headers=headers) as answer:
        link = (await answer.json())["link"]
    await page.open(url + link)
    await page.until(LIVE)


@pytest.mark.parametrize("end", ["replaced", "restarted"])
async def test_who_is_let_in_no_more_is_told_what_to_do(start_hub: StartHub, page: Page, end: str) -> None:
    hub = await start_hub("--auth", "token")
    await entered(page, hub.url, hub._state_dir)
    if end == "replaced":
        tokens.replace(hub._state_dir)
    else:
        await hub.stop()
        await page.until(GONE)
        assert (await page.evaluate(BAR)).endswith(GO_ON.format(typed(hub)))
        await hub.start()
    await page.until(f"{BAR}.endsWith({json.dumps(SAID.format(typed(hub)))})", 30)
    await entered(page, hub.url, hub._state_dir)
    assert await page.evaluate("document.querySelector('#gone').hidden")
    page.forgive(*LOST, "status of 401")
