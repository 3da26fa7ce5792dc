"""Each warning and error of the log says what has happened, and behind a semicolon what that means or what to do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hub

pytestmark = pytest.mark.once

HUB = Path(next(iter(hub.__path__)))
# The sentence is made elsewhere, or is that of the application.
OTHERS = {
    "commands/supervised.py: '%s'": "what goes on although it was ended: `keep` is told",
    "stream/state.py: what": "two lines above it",
    "web/app.py: '%s'": "an unknown variable, and the one that was meant",
    "web/rereading.py: '%s is not used, and all stays as it was: %s'": "what is wrong, by line, stands last",
    "web/startup.py: '%s: %s%s'": "what the application's own code has raised, and where",
}


def lines(sources: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Where the log is told a warning or an error, and the template of what it is told."""
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warning", "log.error", "log.exception"):
                yield path, ast.unparse(node.args[0])


def unclear(sources: dict[str, str]) -> set[str]:
    return {f"{path}: {template}" for path, template in lines(sources) if "; " not in template}


def test_each_says_what_it_means_or_what_to_do() -> None:
    paths = [path for path in HUB.rglob("*.py") if path.relative_to(HUB).parts[0] not in ("client", "cli")]
    sources = {path.relative_to(HUB).as_posix(): path.read_text("utf-8") for path in paths}
    assert len(list(lines(sources))) > 50
    assert unclear(sources) == set(OTHERS)


def test_one_that_only_says_what_has_happened_is_found() -> None:
    assert unclear({"x.py": "log.error('it failed: %s', error)"}) == {"x.py: 'it failed: %s'"}
    assert unclear({"x.py": "log.error('it failed: %s; restart it', error)"}) == set()
