"""How far a `hub tail --resume NAME` or a `hub forward` has come: kept in the state directory, from run to run."""

import argparse
import fcntl
import os
import re
from pathlib import Path
from typing import Self

from ..errors import HubError, UsageError
from ..private import DIRECTORY, LOCK, Unsafe, open_private, prepare_directory, read_private, write_whole
from ..wire.names import Cursor

FOLDER = "tails"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def place_name(text: str) -> str:
    """The text, if it can name a file in the folder of the places. Raises ValueError.

    Stops `--resume ../audit` from writing anywhere else.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name: up to 64 letters, digits, dots, - and _, with no dot in front")
    return text


def place(text: str) -> str:
    """As `place_name`, for the command line."""
    try:
        return place_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Place:
    """One place, held by one process at a time: two that go on from the same cursor would both write what follows."""

    def __init__(
        self, directory: Path, name: str, folder: str = FOLDER, whose: str = "hub tail --resume", repeats: str = ""
    ) -> None:
        """`whose`: the command that keeps it, for who is told that it is held; `repeats`: what becomes of what it gets
        twice, for who is told to begin anew."""
        self.name, self._whose, self._repeats = name, whose, repeats
        self._folder, self._path = directory / folder, directory / folder / f"{name}.cursor"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Raises UsageError if another process holds it, or if the state directory cannot be used."""
        try:
            prepare_directory(self._folder.parent)
            self._folder.mkdir(mode=DIRECTORY, exist_ok=True)
            self._lock = open_private(self._folder / f"{self.name}.{LOCK}", os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise UsageError(f"Another {self._whose} {self.name} is running.") from None
        except (OSError, Unsafe) as error:
            self.__exit__()
            raise UsageError(f"No place can be kept in {self._folder}: {_why(error)}.") from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> str | None:
        """The cursor that was kept, None if there is none yet. Raises UsageError if there is something else."""
        try:
            text = read_private(self._path, 1024).decode("ascii", "replace").strip()
            return str(Cursor.parse(text))
        except FileNotFoundError:
            return None
        except (OSError, Unsafe, HubError) as error:
            why = "this is no cursor" if isinstance(error, HubError) else _why(error)
            raise UsageError(
                f"The place in {self._path} cannot be read ({why}); remove it, and begin with --after start, which "
                f"leaves out nothing that is kept{self._repeats}."
            ) from None

    def keep(self, cursor: str, *, durable: bool = False) -> None:
        """Keep the cursor, in place of the one before: whoever reads finds one of the two. Waits for the disk only if
        it is to be `durable`. Raises HubError if it cannot be kept."""
        try:
            write_whole(self._path, f"{cursor}\n".encode(), durable=durable)
        except (OSError, Unsafe) as error:
            raise HubError("internal", f"The place of {self.name} cannot be kept: {error}.") from None


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
