"""Some of `weather.py`: HubClients and a hub, with cuts, resets, black holes, restarts and kills between them."""

import random
from typing import Any

import pytest
from weather import Complaint, weather

from hub.client.connections import Stream

pytestmark = pytest.mark.once

STORM = 5.0  # seconds of bad weather; before and behind it a hub is started


@pytest.mark.timeout(180)
async def test_in_bad_weather_nothing_is_missing_twice_or_left_open() -> None:
    did = await weather(STORM, random.randrange(10**6))
    assert did["published"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("weakened", ["holes", "repeats"])
async def test_weakened_it_would_be(weakened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that comes back at the head, or where it began."""
    query, begun = Stream._query, dict[Stream, Any]()

    def careless(self: Stream) -> dict[str, str]:
        if self not in begun:
            begun[self] = query(self)
            return query(self)
        return {"topics": "a:*"} if weakened == "holes" else begun[self]

    monkeypatch.setattr(Stream, "_query", careless)
    with pytest.raises(ExceptionGroup) as caught:
        await weather(STORM, 1)
    assert caught.group_contains(Complaint, match="is due|are due|has not ended")
