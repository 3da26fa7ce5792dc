"""What the tests of the client share: a hub that does what they say, and waits that are short."""

from collections.abc import AsyncIterator

import pytest
from scripted import ScriptedHub, Silent

from hub.client import calls, connections, sockets


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedHub]:
    """A hub that does what the test says."""
    hub = ScriptedHub()
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """A port that accepts everybody and says nothing."""
    port = Silent()
    await port.start()
    yield port
    await port.stop()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits before another attempt, and for an answer that may never come, are short."""
    monkeypatch.setattr(connections, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(connections, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr(calls, "TOLD", 0.01)
