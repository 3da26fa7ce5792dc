"""`server.json` in the state directory: where programs of this machine find the hub."""

import asyncio
import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from ..hub import VERSION, Hub
from ..private import Unsafe, write_whole
from ..wire.timestamps import now

log = logging.getLogger("hub")

RETRY = 1.0  # seconds between two tries to write where the hub can be found, when the disk is full


class ServerFile:
    """The file of a hub, or of the workers of one port, that is reached at `url`."""

    def __init__(self, directory: Path, url: str) -> None:
        told = {"url": url, "pid": os.getpid(), "version": VERSION, "started": now()}
        self._path, self._data = directory / "server.json", (json.dumps(told) + "\n").encode()
        self._is_late = False

    def write(self) -> bool:
        """Write it; False if the disk has no room just now, which is no reason not to start: try again RETRY later.

        Raises UsageError if it can never be written; of a later try the log has that.
        """
        try:
            write_whole(self._path, self._data)
        except (OSError, Unsafe) as error:
            if _is_for_a_while(error):
                self._wait_for_room(error)
                return False
            if not self._is_late:
                raise UsageError(f"Programs could not find this hub: {error}.") from None
            log.error("programs cannot find this hub: %s; mend that and restart it, or name it with --url", error)
        else:
            if self._is_late:
                log.warning("programs can find this hub now; --url is not needed any more")
        return True

    def _wait_for_room(self, error: Exception) -> None:
        if not self._is_late:
            self._is_late = True
            log.warning("programs cannot find this hub yet: %s; until there is room they need --url", error)
            self._path.unlink(missing_ok=True)  # nobody is sent to where a hub of before was

    def withdraw(self) -> None:
        """Remove it. Only its own word: in a directory that was removed under it, another hub may have been started
        since."""
        with contextlib.suppress(OSError):
            if self._path.read_bytes() == self._data:
                self._path.unlink()


@contextlib.contextmanager
def announced(hub: Hub, url: str) -> Iterator[None]:
    """For as long as the hub listens, programs find it there. Raises UsageError."""
    file = ServerFile(hub.config.common_dir, url)
    later = None if file.write() else asyncio.get_running_loop().create_task(_write_later(file))
    try:
        yield
    finally:
        if later is not None:
            later.cancel()
        file.withdraw()


async def _write_later(file: ServerFile) -> None:
    await asyncio.sleep(RETRY)
    while not file.write():
        await asyncio.sleep(RETRY)


def _is_for_a_while(error: Exception) -> bool:
    """Whether the disk may have room again."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
