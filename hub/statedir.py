"""Where a hub keeps its files, and whoever looks for one finds it."""

import os
from collections.abc import Mapping
from pathlib import Path

from .errors import UsageError


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a hub keeps its events, its audit log and `server.json`: HUB_STATE_DIR, else `hub` under XDG_STATE_HOME.

    Raises UsageError where there is no home.
    """
    if given := environ.get("HUB_STATE_DIR"):
        return Path(given)
    if base := environ.get("XDG_STATE_HOME"):
        return Path(base) / "hub"
    try:
        return Path.home() / ".local" / "state" / "hub"
    except RuntimeError:  # no HOME, and an account that no file of accounts knows
        raise UsageError("This account has no home for the hub's files; name a folder with --state-dir.") from None
