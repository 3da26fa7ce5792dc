"""What a hub counts, read from its `/metrics`."""

import re
from collections.abc import Mapping

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)", re.ASCII)
_LABEL = re.compile(r'([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"', re.ASCII)


class Samples:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for match in filter(None, map(_SAMPLE.fullmatch, text.splitlines())):
            self._found.setdefault(match[1], []).append((dict(_LABEL.findall(match[2] or "")), float(match[3])))

    def value(self, name: str) -> float | None:
        """The value of a metric, of all its label values together; None if there is none."""
        found = self._found.get(name)
        return sum(value for _, value in found) if found else None

    def count(self, name: str) -> int:
        """The same as a whole number, 0 if there is none."""
        return int(self.value(name) or 0)

    def by(self, name: str, label: str) -> dict[str, int]:
        """The whole numbers of a metric by one of its labels."""
        return {labels[label]: int(value) for labels, value in self._found.get(name, []) if label in labels}

    def label(self, name: str, label: str) -> str | None:
        """What a label of a metric's first sample says."""
        for labels, _ in self._found.get(name, []):
            return labels.get(label)
        return None
