"""Confirming: a call of a dangerous command runs only with the value that the hub has handed out for just this call.

A value carries its own proof, by a secret that nobody but this hub has and that ends with it. So handing values out
costs no memory, however many are asked for; only those that were used are remembered, until they are too old anyway.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ..errors import HubError

GOOD_SECONDS = 60
MAX_USED = 4096  # used values that are remembered, of 33 characters each


class Confirmations:
    """The values that this hub hands out, each good once, for GOOD_SECONDS, for one `digest` of a call."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._used: dict[str, int] = {}  # when each was handed out, on the monotonic clock in ns
        self._floor = 0  # what was handed out up to here counts as used: there was no room to remember which of it was

    def check(self, name: str, digest: bytes, given: str | None) -> None:
        """Use up the value that came with a call. Raises HubError `confirmation_required`, with a new one, if it is not
        one that was handed out for it, was used, or is too old."""
        now = time.monotonic_ns()
        if given is None or not self._use(given, digest, now):
            raise required(name, self._make(digest, now))

    def _make(self, digest: bytes, now: int) -> str:
        serial = f"{now:016x}.{os.urandom(8).hex()}"
        return f"{serial}.{self._proof(serial, digest)}"

    def _use(self, given: str, digest: bytes, now: int) -> bool:
        serial, _, proof = given.rpartition(".")
        if not is_equal(proof, self._proof(serial, digest)):
            return False
        issued = int(serial.partition(".")[0], 16)  # it is ours, so it is a number
        if now - issued > GOOD_SECONDS * 10**9 or issued <= self._floor or serial in self._used:
            return False
        self._used[serial] = issued
        self._forget(now)
        return True

    def _proof(self, serial: str, digest: bytes) -> str:
        text = serial.encode(errors="surrogatepass") + digest
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]

    def _forget(self, now: int) -> None:
        """Let go of those that are too old; and of more if there are too many, with all that were handed out before."""
        while (oldest := next(iter(self._used.items())))[1] + GOOD_SECONDS * 10**9 < now or len(self._used) > MAX_USED:
            del self._used[oldest[0]]
            self._floor = max(self._floor, oldest[1])


def required(name: str, value: str) -> HubError:
    """Make the refusal that hands out a value."""
    sentence = f"{name} is dangerous: call it once more within {GOOD_SECONDS} s, with this confirmation."
    return HubError("confirmation_required", sentence, {"confirm": value})


def is_equal(given: str, right: str) -> bool:
    """Compare in a time that says nothing of how much of it is right. Of bytes: `given` may be any text."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), right.encode())


def digest(*parts: str | Mapping[str, Any]) -> bytes:
    """What stands for all of these together: equal only for equal JSON, whatever the order of its keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()
