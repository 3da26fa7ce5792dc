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
from ..hub import Hub
from ..private import Unsafe, write_whole
from ..wire.messages import now

log = logging.getLogger("hub")

RETRY = 1.0  # seconds between two tries to write where the hub can be found, when the disk is full


@contextlib.contextmanager
def announced(hub: Hub, url: str) -> Iterator[None]:
    """`server.json` beside the audit log, for as long as the hub listens: the way to find it."""
    path, later = Path(hub.config.state_dir) / "server.json", None
    hub.outward.url = url
    told = {"url": url, "pid": os.getpid(), "version": hub.version, "started": now()}
    data = (json.dumps(told) + "\n").encode()
    try:
        write_whole(path, data)
    except (OSError, Unsafe) as error:
        if not _is_for_a_while(error):
            raise UsageError(f"Programs could not find this hub: {error}.") from None
        log.warning("programs cannot find this hub yet: %s; until there is room they need --url", error)
        path.unlink(missing_ok=True)  # nobody is sent to where a hub of before was
        later = asyncio.get_running_loop().create_task(_announce_later(path, data))
    try:
        yield
    finally:
        if later is not None:
            later.cancel()
        _withdraw(path, data)


def _withdraw(path: Path, data: bytes) -> None:
    """Only its own word: in a directory that was removed under it, another hub may have been started since."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            path.unlink()


async def _announce_later(path: Path, data: bytes) -> None:
    """The disk is full: say where the hub is as soon as there is room."""
    while True:
        await asyncio.sleep(RETRY)
        try:
            write_whole(path, data)
        except OSError as error:
            if not _is_for_a_while(error):
                log.error("programs cannot find this hub: %s; mend that and restart it, or name it with --url", error)
                return
        else:
            log.warning("programs can find this hub now; --url is not needed any more")
            return


def _is_for_a_while(error: Exception) -> bool:
    """Whether the disk may have room again. That is no reason not to start."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
