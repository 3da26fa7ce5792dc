"""What watches the hub, where many ask at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from running import hub_app, until

from hub.audit import log
from hub.audit.touched import Touched
from hub.web.health import Scrapes


@pytest.mark.parametrize("weakened", [False, True])
async def test_other_accounts_share_a_drawing_that_is_waited_for(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with several workers, which are asked for what they have counted."""
    scrapes, drawn, others = Scrapes(), 0, asyncio.Event()
    if weakened:
        monkeypatch.setattr(scrapes, "_one", asyncio.Semaphore(100))
    async with hub_app(tmp_path) as hub:
        gather = hub.hub.metrics.gather

        async def slowly() -> Any:
            nonlocal drawn
            drawn += 1
            await others.wait()
            return await gather()

        monkeypatch.setattr(hub.hub.metrics, "gather", slowly)
        encode, _ = choose_encoder("")
        asking = [asyncio.ensure_future(scrapes._shared("text", encode, hub.app)) for _ in range(9)]
        await asyncio.sleep(0)
        others.set()
        await asyncio.gather(*asking)
    assert drawn == (9 if weakened else 1)


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_audit_log_that_was_changed_under_the_hub_is_told_everywhere(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOOK", 0.01)
    if weakened:
        monkeypatch.setattr(Touched, "look", lambda touched: False)
    async with hub_app(tmp_path) as hub:
        with (tmp_path / "audit.jsonl").open("r+b") as file:
            at = file.read().index(b'"trust":"SYSTEM"')
            file.seek(at + 9)
            file.write(b"T")
        if not weakened:
            await until(lambda: not hub.hub.audit.valid)
        await asyncio.sleep(0.1)
        assert (await hub.get("readyz")).status == (200 if weakened else 503)
        assert hub.counted("hub_audit_chain_valid") == weakened
        page = (await hub.get("")).text
        assert ("intact" in page, "✕ broken" in page) == (weakened, not weakened)
