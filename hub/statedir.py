"""Where a hub keeps its files, and whoever looks for one finds it."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def state_directory(environ: Mapping[str, str] = os.environ) -> "Path":
    """As `state_folder`."""
    from pathlib import Path  # here: `hub publish` has no time for it

    return Path(state_folder(environ))


def state_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Where a hub keeps its events, its audit log and `server.json`: HUB_STATE_DIR, else `hub` under XDG_STATE_HOME.

    Raises UsageError where there is no home.
    """
    if given := environ.get("HUB_STATE_DIR"):
        return given
    if base := environ.get("XDG_STATE_HOME"):
        return os.path.join(base, "hub")
    home = os.path.expanduser("~")
    if home == "~":  # no HOME, and an account that no file of accounts knows
        raise UsageError("This account has no home for the hub's files; name a folder with --state-dir.")
    return os.path.join(home, ".local", "state", "hub")
