"""How programs ended while no hub answered: left in the state directory, each in a file, for the next one.

Written before `hub run` ends, so that whoever sees its process end finds how it ended there already.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .private import DIRECTORY, LOCK, Unsafe, read_private, write_whole

FOLDER = "ends"  # in the state directory
MOST, LARGEST = 500, 16 * 1024  # files, and bytes of one
OLDEST = 7 * 86_400.0  # seconds: what is older tells nobody anything any more
ENDING = ".json"


def leave(directory: Path, record: Mapping[str, Any]) -> bool:
    """Leave a record as `POST /api/events` takes it; of many, the oldest go. Return whether it is there.

    Only where a hub has been before, and in a folder of this account: nothing else is made on its behalf.
    """
    data, folder = json.dumps(record).encode(), directory / FOLDER
    try:
        if len(data) > LARGEST or directory.stat().st_uid != os.geteuid() or not (directory / LOCK).exists():
            return False
        folder.mkdir(mode=DIRECTORY, exist_ok=True)
        for path in _paths(folder)[: -MOST + 1]:
            path.unlink(missing_ok=True)
        write_whole(folder / f"{time.time_ns():020}-{record['id']}{ENDING}", data)
    except (OSError, Unsafe):
        return False
    return True


def left(directory: Path) -> Iterator[tuple[Path, Any]]:
    """What has been left, the oldest first, each with its file; None for what is too old, or cannot be read."""
    for path in _paths(directory / FOLDER):
        found = None
        with contextlib.suppress(OSError, Unsafe, ValueError, RecursionError):
            if time.time() - int(path.name[:20]) / 1e9 <= OLDEST:
                found = json.loads(read_private(path, LARGEST))
        yield path, found


def _paths(folder: Path) -> list[Path]:
    """Those that are whole, in order."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == ENDING)
    return []
