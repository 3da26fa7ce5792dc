"""An event loop whose time goes by at once where nothing is left to do: hours of waits in a moment."""

import asyncio
import selectors
from typing import Any


class _Selector(selectors.SelectSelector):
    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits, and for nothing that has a time"
            self.skipped += timeout
        return found


class SwiftLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0, and moves only when everything waits."""

    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped
