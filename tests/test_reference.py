"""docs/api.md is what the docstrings say, all public names are in it, and each of their parts says something."""

import inspect
import re
from pathlib import Path

import pytest
from reference import SECTIONS, reference

import hub

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_page_is_made_of_the_docstrings_as_they_are_now() -> None:
    assert PAGE.read_text("utf-8") == reference(), "python tests/reference.py > docs/api.md"


def test_every_public_name_is_in_it_once() -> None:
    assert sorted(" ".join(SECTIONS.values()).split()) == hub.__all__
    assert re.findall(r"^### (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE) == " ".join(SECTIONS.values()).split()


def test_every_part_of_them_says_something() -> None:
    silent = [
        f"{name}.{part}"
        for name in hub.__all__
        for part, found in vars(getattr(hub, name)).items()
        if part[0] != "_" and (inspect.isfunction(found) or isinstance(found, property)) and not found.__doc__
    ]
    assert silent == []
