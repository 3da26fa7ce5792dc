"""Where `hub run` leaves a note of how its program has ended, for a hub that was not there to be told."""

import argparse
import os
from pathlib import Path
from typing import Any

from ..client.discovery import is_announced
from ..statedir import state_folder
from .http import named_address


class Notes:
    """The state directory of the hub that is told: the one that was named (--state-dir, HUB_STATE_DIR), else this
    account's. Whoever has named an address alone may mean a hub anywhere: then it is this account's only if
    `server.json` there has named that very address, as the program began or when it ended. One look at each: a hub that
    stops takes the file with it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._directory = self._look()

    def leave(self, event: dict[str, Any]) -> bool:
        """Leave the end for the next hub there. Return whether that was possible."""
        try:
            from ..leftovers import leave  # here: nearly always there is a hub

            directory = self._directory or self._look()
            return directory is not None and leave(Path(directory), event)
        except Exception:  # whatever it is: it must not show in the program's output
            return False

    def _look(self) -> str | None:
        try:
            if self._args.state_dir is not None:
                return str(self._args.state_dir)
            directory, url = state_folder(), named_address(self._args)
            is_its = url is None or bool(os.environ.get("HUB_STATE_DIR")) or is_announced(url, directory)
            return directory if is_its else None
        except Exception:  # as above
            return None
