"""The state of a made-up life, which is not kept: nothing of it gets into what the operator's own hub has written."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..config import Config
from ..errors import UsageError
from ..private import LOCK, UNUSED, Locked, Unsafe, cannot_take, lock, prepare_directory, unused_removed

OWN = ("sqlite:", "memory:")  # brokers that are this hub's alone


@contextlib.contextmanager
def unkept(config: Config) -> Iterator[Config]:
    """The same settings for a hub of which nothing is left at its end.

    Events are in memory; the audit log, and notes of what was told, are in a folder that is removed. The state
    directory is held meanwhile, as by any hub: programs find this one by its `server.json` there, and its token. One
    that was made for it goes with it, and one that was empty is that again (closed to others, as each that a hub has
    had). Real programs whose end was told to it do not tell that again: where another hub has been before, it is left
    for the next one. Whom the hub.toml there names is not told of a made-up life: only whom a file that `--config`
    names does. Raises UsageError: Occupied where a hub has the directory; and for a store of several hubs, which would
    keep it.
    """
    if config.workers > 1 or not config.broker.startswith(OWN):
        raise UsageError(
            "--demo publishes a made-up life, which no store keeps: leave out --broker (HUB_BROKER) and --workers."
        )
    common = config.state_dir
    ends = "leave" if os.path.lexists(common / LOCK) else "ignore"
    with unused_removed(common, always=True), _held(common), tempfile.TemporaryDirectory(prefix="hub-demo-") as own:
        where = {"state_dir": Path(own), "shared_dir": str(common), "ends": ends}
        yield config.changed(**where, broker="memory:", tells=bool(config.config))


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    try:
        prepare_directory(directory)
        was_empty = not os.listdir(directory)
        held = lock(directory)
    except (Locked, Unsafe, OSError) as error:
        raise cannot_take(directory, error) from None
    try:
        yield
    finally:
        for name in UNUSED if was_empty else ():
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        os.close(held)
