"""Each warning and error of the log says what has happened, and behind a semicolon what that means or what to do."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import hub

pytestmark = pytest.mark.once

HUB = Path(next(iter(hub.__path__)))
CALLS = ("log.warning", "log.error", "log.exception")
# The sentence is made elsewhere, or is that of the application.
OTHERS = {
    "commands/supervised.py: '%s'": "what goes on although it was ended: `keep` is told",
    "stream/state.py: what": "the line above it",
    "web/program.py: '%s'": "an unknown variable, and the one that was meant",
    "web/rereading.py: '%s is not used, and all stays as it was: %s'": "what is wrong, by line, stands last",
    "web/startup.py: '%s: %s%s'": "what the application's own code has raised, and where",
}


def lines(sources: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Where the log is told a warning or an error, and the template of what it is told."""
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)) if "log." in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in CALLS:
                yield path, ast.unparse(node.args[0])


def unclear(found: Iterable[tuple[str, str]]) -> set[str]:
    return {f"{path}: {template}" for path, template in found if "; " not in template}


def test_each_says_what_it_means_or_what_to_do() -> None:
    paths = [path for path in HUB.rglob("*.py") if path.relative_to(HUB).parts[0] not in ("client", "cli")]
    sources = {path.relative_to(HUB).as_posix(): path.read_text("utf-8") for path in paths}
    found = list(lines(sources))
    assert len(found) > 50
    assert unclear(found) == set(OTHERS)


def test_one_that_only_says_what_has_happened_is_found() -> None:
    assert unclear(lines({"x.py": "log.error('it failed: %s', error)"})) == {"x.py: 'it failed: %s'"}
    assert unclear(lines({"x.py": "log.error('it failed: %s; restart it', error)"})) == set()
