"""The files of this folder, with what differs from hub to hub filled in: `@name@` stands for a value."""

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError

FILES: Mapping[str, str] = {
    "systemd-unit": "hub.service",
    "dockerfile": "Dockerfile",
    "nginx": "nginx.conf",
    "prometheus-rules": "rules.yml",
    "grafana": "dashboard.json",
    "redis": "redis.conf",
}
_PLACE = re.compile(r"@([a-z_]+)@")
_PLAIN = re.compile(r"[A-Za-z0-9/._:@+-]+|\[[0-9a-fA-F:.]+\]:[0-9]+")  # or an address with its port


def wanted(what: str) -> set[str]:
    """Return the names of the values that this file has a place for."""
    return set(_PLACE.findall(_text(what)))


def render(what: str, values: Mapping[str, str]) -> str:
    """Return the file with these values in their places.

    Raises UsageError for one with characters that mean something in such a file: a space, a quote, a percent sign.
    """
    for name in sorted(wanted(what)):
        if not _PLAIN.fullmatch(values[name]):
            raise UsageError(f"{values[name]!r} cannot stand in a file for another program; choose a plain {name}.")
    return _PLACE.sub(lambda found: values[found[1]], _text(what))


def _text(what: str) -> str:
    return Path(__file__).with_name(FILES[what]).read_text("utf-8")
