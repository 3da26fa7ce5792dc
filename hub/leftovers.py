"""How programs ended while no hub answered: left in the state directory, each in a file, for the next one.

Written before `hub run` ends, so that whoever sees its process end finds how it ended there already. A state directory
may be a folder with other things in it: what is not this account's alone, and what is not named as here, is neither
read nor written nor removed.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .private import DIRECTORY, LOCK, Unsafe, private_folder, read_private, write_whole
from .redaction import redact

FOLDER = "ends"  # in the state directory
MOST, LARGEST = 500, 16 * 1024  # files, and bytes of one
OLDEST = 7 * 86_400.0  # seconds: what is older tells nobody anything any more
WHOLE = ".json"
NAME = re.compile(r"[0-9]{20}-[A-Za-z0-9-]{1,64}\.(json|tmp)")  # when, in nanoseconds, and the id; .tmp: half a one


def leave(directory: Path, record: Mapping[str, Any]) -> bool:
    """Leave a record as `POST /api/events` takes it; of many, the oldest go. Return whether it is there.

    Its data is cleaned as the hub has cleaned that of the start: so the end finds it, and no secret is written down.
    Only where a hub has been before, and in a folder of this account: nothing else is made on its behalf.
    """
    record = {**record, "data": redact(record["data"])[0]}
    data, name = json.dumps(record).encode(), f"{time.time_ns():020}-{record['id']}{WHOLE}"
    try:
        if len(data) > LARGEST or not NAME.fullmatch(name):
            return False
        if directory.stat().st_uid != os.geteuid() or not (directory / LOCK).exists():
            return False
        with contextlib.suppress(FileExistsError):
            (directory / FOLDER).mkdir(mode=DIRECTORY)
        with private_folder(directory / FOLDER) as folder:
            for oldest in _names(folder)[: -MOST + 1]:
                _unlink(oldest, folder)
            write_whole(Path(name), data, folder=folder)
    except (OSError, Unsafe):
        return False
    return True


def left(directory: Path) -> Iterator[tuple[str, bytes | None]]:
    """What has been left, the oldest first, each with the name of its file; None for what is too old. What cannot be
    read stays until it is that. Raises Unsafe if its folder is there and not this account's alone."""
    with contextlib.suppress(OSError):
        try:
            with private_folder(directory / FOLDER) as folder:
                names = _names(folder)
        except PermissionError:  # another account's
            raise Unsafe(f"{directory / FOLDER} is closed to this account") from None
        for name in names:
            if time.time() - int(name[:20]) / 1e9 > OLDEST:
                yield name, None
            elif name.endswith(WHOLE) and (data := _read(directory, name)) is not None:
                yield name, data


def remove(directory: Path, name: str) -> None:
    """Remove one of them, if that is possible."""
    with contextlib.suppress(OSError, Unsafe), private_folder(directory / FOLDER) as folder:
        _unlink(name, folder)


def _read(directory: Path, name: str) -> bytes | None:
    with contextlib.suppress(OSError, Unsafe), private_folder(directory / FOLDER) as folder:
        return read_private(name, LARGEST, folder)
    return None


def _names(folder: int) -> list[str]:
    """The files that are named as here, in order."""
    with os.scandir(folder) as found:
        return sorted(each.name for each in found if NAME.fullmatch(each.name) and each.is_file(follow_symlinks=False))


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # another program, or worker, was first
        os.unlink(name, dir_fd=folder)
