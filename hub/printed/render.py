"""The files of this folder, with what differs from hub to hub filled in: `@name@` stands for a value."""

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError

FILES: Mapping[str, str] = {
    "systemd-unit": "hub.service",
    "user-unit": "hub.user.service",
    "dockerfile": "Dockerfile",
    "nginx": "nginx.conf",
    "prometheus-rules": "rules.yml",
    "grafana": "dashboard.json",
    "redis": "redis.conf",
}
_PLACE = re.compile(r"@([a-z_]+)@")
_NAME = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = rf"{_NAME}(?:\.{_NAME})*|[0-9a-fA-F:.]+"
_PLAIN = r"[A-Za-z0-9/._:@+-]+"
# What each value may be, as nothing in it may mean something in such a file; and what it is, for a sentence.
_VALUES = {
    "host": (_HOST, "an address or a name, without a port"),
    "domain": (rf"{_NAME}(?:\.{_NAME})*", "a name as hub.example.org, without a port"),
    "user": (r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "the name of an account"),
    "port": (r"[1-9][0-9]*", "the port that the hub listens on, not any that is free"),
    "state_dir": (_PLAIN, "a folder without spaces and quotes in its name"),
    "python": (_PLAIN, "in a folder without spaces and quotes in its name"),
}


def wanted(what: str) -> set[str]:
    """Return the names of the values that this file has a place for."""
    return set(_PLACE.findall(_text(what)))


def render(what: str, values: Mapping[str, str]) -> str:
    """Return the file with these values in their places.

    Raises UsageError for one that is none, or has characters that mean something in such a file: a space, a quote.
    """
    places = wanted(what)
    for name in [name for name in _VALUES if name in places or (name in ("host", "port") and "address" in places)]:
        pattern, meaning = _VALUES[name]
        if not re.fullmatch(pattern, values[name]):
            raise UsageError(f"{name.replace('_', '-')} must be {meaning}; {values[name]!r} cannot stand in this file.")
    return _PLACE.sub(lambda found: values[found[1]], _text(what))


def _text(what: str) -> str:
    return Path(__file__).with_name(FILES[what]).read_text("utf-8")
