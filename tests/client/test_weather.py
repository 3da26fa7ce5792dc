"""Some of `weather.py`: HubClients and a hub, with cuts, resets, black holes, restarts and kills between them."""

import itertools
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
    monkeypatch.setattr("weather.LONGEST", 20.0)  # whoever has missed the last event waits for it so long
    found = list[str]()
    for seed in itertools.count():  # a storm may pass without an event that could be missed
        try:
            await weather(STORM, seed)
        except* Complaint as complaints:
            found += map(str, complaints.exceptions)
        if found:
            break
    assert all("is due" in complaint or "are due" in complaint or "has not ended" in complaint for complaint in found)
