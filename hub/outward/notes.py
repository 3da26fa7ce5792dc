"""What must be known again at the next start, in one small file: up to where was told, and whom."""

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import HubError
from ..private import Unsafe, read_private, write_whole
from ..wire.strictjson import loads

log = logging.getLogger("hub")

LARGEST = 16 * 1024 * 1024  # bytes of the file


class Notes:
    """A JSON object in a private file of the state directory; `values` is what it holds.

    What `save` has returned from outlives `kill -9`. Not a power failure: then somebody may be told twice, never not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failing = False
        self.values: dict[str, Any] = {}

    def read(self) -> None:
        """Read what is there. A file that makes no sense is told of, and counts for none."""
        self.values = {}
        try:
            found = loads(read_private(self._path, LARGEST))
        except FileNotFoundError:
            return
        except (OSError, Unsafe, HubError) as error:
            log.error(
                "%s cannot be read, and is begun anew: %s; what has been told may be told once more", self._path, error
            )
            return
        if isinstance(found, dict):
            self.values = found

    def table(self, name: str) -> dict[str, Any]:
        """An object among the values, made if there is none."""
        found = self.values.get(name)
        if not isinstance(found, dict):
            found = self.values[name] = {}
        return found

    def save(self) -> None:
        """Write it. A disk that is full is told of once; what is not on it may be told again behind the next start."""
        try:
            write_whole(self._path, json.dumps(self.values, separators=(",", ":")).encode(), durable=False)
            self._failing = False
        except (OSError, Unsafe) as error:
            if not self._failing:
                log.error(
                    "%s cannot be written: %s; "
                    "after a restart what has been told may be told once more, so make room or mend its rights",
                    self._path,
                    error,
                )
            self._failing = True
