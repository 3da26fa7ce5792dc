"""The files that hub.toml names: one secret each, relative to its folder, of this account alone."""

import base64
import binascii
import os
import stat
from pathlib import Path

from .places import Place
from .problems import Problems

LARGEST_SECRET = 64 * 1024  # bytes of a file
SECRET_BYTES = range(24, 65)  # Standard Webhooks, "Signature scheme"
PREFIX = "whsec_"


class SecretFiles:
    """Files with one secret each: relative to the folder of hub.toml, of this account alone."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder, self._problems = folder, problems

    def secret(self, place: Place, name: str | None) -> bytes | None:
        """What is in the file, without the line break at its end; None if none is named, or if it cannot be used."""
        if not name:
            return None
        try:
            return self._content(self._folder / name)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._problems.add(place, f"The file {name} cannot be used: {reason}.")
            return None

    def line(self, place: Place, name: str | None) -> str:
        """As text, "" where there is none."""
        data = self.secret(place, name) or b""
        if data and not (data.isascii() and data.decode().isprintable()):
            self._problems.add(place, f"The file {name} must hold one line of plain characters.")
            return ""
        return data.decode()

    def webhook_secret(self, place: Place, name: str | None) -> bytes | None:
        """The key of a webhook: `whsec_`, and base64 of 24 to 64 bytes."""
        text = self.line(place, name)
        if not text:
            return None
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(PREFIX) or len(key) not in SECRET_BYTES:
            self._problems.add(place, f"The file {name} must hold {PREFIX} and base64 of 24 to 64 bytes.")
        return key

    @staticmethod
    def _content(path: Path) -> bytes:
        """Stops a secret that other accounts can read, or have put there."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                raise ValueError("it is not a regular file of this account")
            if facts.st_mode & 0o077:
                raise ValueError(f"its mode is {stat.S_IMODE(facts.st_mode):04o}, others can see it: chmod 600")
            data = os.read(descriptor, LARGEST_SECRET).strip()
        finally:
            os.close(descriptor)
        if not data:
            raise ValueError("it is empty")
        return data
