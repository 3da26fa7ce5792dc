"""What setup.cfg says of other packages is true: what is imported is declared, and the oldest are the ones tested."""

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def requirements(section: str, option: str) -> dict[str, str]:
    """The packages that setup.cfg names there, with the versions that it wants of them."""
    return dict(_parted(lines(section, option)))


def lines(section: str, option: str) -> list[str]:
    config = ConfigParser()
    config.read(CHECKOUT / "setup.cfg")
    return config[section][option].strip().splitlines()


def _parted(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        found = re.match(r"([\w-]+)\s*([^;#]*)", line)
        if found:
            yield found[1], found[2].strip()


def imported() -> set[str]:
    """The packages of others that the hub's code imports."""
    names = set()
    for path in (CHECKOUT / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"hub"}


@pytest.mark.once
def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    owners = packages_distributions()
    extras = ("speed", "completion", "notify", "mcp", "redis")
    optional = {name for extra in extras for name in requirements("options.extras_require", extra)}
    names = {owners[name][0].lower().replace("_", "-") for name in imported() - optional}
    assert names == set(requirements("options", "install_requires"))
    assert optional <= imported()


def test_every_folder_of_the_hub_and_every_template_is_in_what_is_installed() -> None:
    folders = {path.parent.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "hub").rglob("__init__.py")}
    assert set(lines("options", "packages")) == {folder.replace("/", ".") for folder in folders} | {"hub.templates"}
    templates = CHECKOUT / "templates"
    patterns = lines("options.package_data", "hub.templates")
    installed = {path for pattern in patterns for path in templates.glob(pattern)} | {templates / "__init__.py"}
    assert {path for path in templates.rglob("*") if path.is_file() and "__pycache__" not in path.parts} == installed


def test_a_checkout_that_is_taken_for_the_hub_says_so() -> None:
    """`python -m hub` in the folder that holds the checkout, with an editable install: every module twice."""
    spec = spec_from_file_location("hub.hub", CHECKOUT / "hub" / "__init__.py")
    assert spec
    assert spec.loader
    with pytest.raises(ImportError, match="start it from another folder"):
        spec.loader.exec_module(module_from_spec(spec))


def test_the_oldest_libraries_are_the_ones_that_are_tested() -> None:
    wanted = requirements("options", "install_requires") | requirements("options.extras_require", "test")
    least = {name: _padded(re.findall(r">= ?([\d.]+)", versions)[0]) for name, versions in wanted.items()}
    lines = [line for line in (CHECKOUT / ".ci" / "oldest.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
    pinned = {name: version.removeprefix("== ") for name, version in _parted(lines)}
    assert {name: _padded(version) for name, version in pinned.items()} == least


def _padded(version: str) -> tuple[int, ...]:
    return tuple([*map(int, version.split(".")), 0, 0][:3])


def test_the_pictures_that_the_readme_shows_are_there_and_small() -> None:
    named = set(re.findall(r'(?:src|srcset)="(docs/[^"]+)"', (CHECKOUT / "README.md").read_text("utf-8")))
    assert named == {"docs/page-light.png", "docs/page-dark.png"}
    for name in named:
        picture = (CHECKOUT / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 300_000
