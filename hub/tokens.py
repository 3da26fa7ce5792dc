"""The token files of a state directory: made at the first start in token mode, read by whoever finds the hub there."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .private import Unsafe, prepare_directory, read_private, sync_directory, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from .wire.vocabulary import Trust

FILES: "Mapping[Trust, str]" = {"OPERATOR": "token", "OBSERVER": "token.read"}  # by the trust that it gives

_TOKEN = r"[!-~]{32,512}"  # an empty or a short one could be guessed


def read(directory: str | os.PathLike[str], trust: "Trust" = "OPERATOR") -> str | None:
    """The token for this trust, None if there is none yet. Raises Unsafe for what is no token or not ours alone."""
    path = os.path.join(directory, FILES[trust])
    try:
        text = read_private(path, 1024).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if not text:
        return None  # a crash between creating and writing
    if not re.fullmatch(_TOKEN, text):
        raise Unsafe(f"There is no good token in {path}; make a new one with hub token --new")
    return text


def replace(directory: "Path", trust: "Trust" = "OPERATOR") -> str:
    """Make a new token; the old one opens nothing any more. A running hub takes notice within a second."""
    import secrets

    prepare_directory(directory)
    token = secrets.token_urlsafe(32)
    write_whole(directory / FILES[trust], f"{token}\n".encode())
    sync_directory(directory)
    return token


def ensure(directory: "Path", trust: "Trust" = "OPERATOR") -> str:
    """The token that is there, or a new one."""
    return read(directory, trust) or replace(directory, trust)
