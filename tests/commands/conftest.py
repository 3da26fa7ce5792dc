"""What several tests of commands have."""

from collections.abc import AsyncIterator

import pytest
from shops import Shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    found = Shop()
    yield found
    found.gate.set()
