"""What the settings say of where events are kept: one URL, which may have a password, in one place."""

import os
import stat
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .errors import UsageError

LONGEST_URL = 64 * 1024  # characters of the file that it is in


def refuse_two(settings: Mapping[str, Any]) -> None:
    """Raise UsageError where two settings say where events are kept: one of them would be passed over in silence."""
    broker, file = settings.get("broker"), settings.get("broker_file")
    if settings.get("ephemeral") and (file or broker not in (None, "", "memory:")):
        named = "--broker-file (HUB_BROKER_FILE)" if file else "--broker (HUB_BROKER)"
        raise UsageError(
            f"--ephemeral (HUB_EPHEMERAL) keeps events in memory, and {named} elsewhere: give one of them."
        )
    if broker and file:
        raise UsageError(
            "--broker (HUB_BROKER) and --broker-file (HUB_BROKER_FILE) both say where events are kept: "
            "give one of them."
        )


def url_in(file: str) -> str:
    """The one line of a file. Raises UsageError, without what is in there."""
    try:
        with open(file, encoding="utf-8") as opened:
            found, facts = opened.read(LONGEST_URL).strip(), os.fstat(opened.fileno())
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"The file of the broker's URL, {file}, cannot be read: {what}.") from None
    if not found:
        raise UsageError(f"The file of the broker's URL, {file}, is empty: write the URL into it, in one line.")
    _refuse_open(file, found, facts)
    if len(found.split()) > 1 or "\0" in found:
        raise UsageError(f"The file of the broker's URL, {file}, must have one URL in one line, and nothing else.")
    return found


def _refuse_open(file: str, url: str, facts: os.stat_result) -> None:
    """Stops a password that other accounts can read. Of root's files a group may be let in: that of the service."""
    others = 0o007 if facts.st_uid == 0 and os.geteuid() != 0 else 0o077
    if has_password(url) and stat.S_ISREG(facts.st_mode) and facts.st_mode & others:
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        raise UsageError(
            f"The file of the broker's URL, {file}, has a password, and others can read it ({mode}): chmod 600."
        )


def has_password(url: str) -> bool:
    """Whether it may have one."""
    words = url.partition("://")[2]
    return ":" in words.rpartition("@")[0] or "password=" in unquote(words)
