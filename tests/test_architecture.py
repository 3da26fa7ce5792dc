"""The rules of the house: imports run one way, each library has its rooms, every module imports alone."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hub

HUB = Path(next(iter(hub.__path__)))
CHECKOUT = Path(__file__).parents[1]
# A room is a file of hub/ or a folder of it; it may import the rooms before it.
ORDER = (
    "errors config strictjson patterns messages events redaction stderr private brokers patience listeners bus window "
    "subscriber broadcaster state commands builtin providers session chain stored verify tokens recovery segments "
    "logfile audit metrics signals hub web find arrivals wires client demo connection publishing terminal cli __main__"
).split()
ROOMS = {
    "aiohttp": {"web", "client", "cli"},
    "aiohttp_jinja2": {"web/dashboard"},
    "marshmallow": {"messages", "events", "commands", "builtin", "providers"},
    "prometheus_client": {"metrics", "web"},
    "redis": {"brokers/redis"},
    "sqlite3": {"brokers/database"},
}


def sources(folder: Path = HUB) -> dict[str, str]:
    """The text of every module by its path without `.py`, `web/guard` for instance."""
    files = sorted(path for path in folder.rglob("*.py") if "templates" not in path.parts)
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text("utf-8") for path in files}


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (found for other in child.orelse for found in (other, *run_time_nodes(other)))
        else:
            yield child
            yield from run_time_nodes(child)


def imports(path: str, text: str) -> Iterator[str]:
    """The dotted names that a module imports at run time, inside functions too."""
    package = ".".join(("hub", *path.split("/")[:-1]))
    for node in run_time_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{start}.{alias.name}" for alias in node.names)


def violations(modules: Mapping[str, str]) -> list[str]:
    """What breaks the first two rules. `hub/__init__` is the door to all rooms, so it is bound by neither."""
    broken = []
    for path, text in modules.items():
        room = path.split("/")[0]
        if path == "__init__":
            continue
        if room not in ORDER:
            broken.append(f"{path} has no place in the order")
            continue
        for name in imports(path, text):
            library, *rest = name.split(".")
            above = ORDER[: ORDER.index(room) + ("/" in path)]
            if library == "hub" and rest and rest[0] in ORDER and rest[0] not in above:
                broken.append(f"{path} imports {name}, which is not above it")
            if not {path, room} & ROOMS.get(library, {path}):
                broken.append(f"{path} imports {library}")
    return broken


def test_imports_run_one_way_and_libraries_stay_in_their_rooms() -> None:
    assert violations(sources()) == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("window", "from .broadcaster import Broadcaster", "window imports hub.broadcaster.Broadcaster"),
        ("window", "from . import hub", "window imports hub.hub"),
        ("window", "import hub.web.app", "window imports hub.web.app"),
        ("audit", "def later():\n    from .metrics import Metrics", "audit imports hub.metrics.Metrics"),
        ("brokers/memory", "from ..bus import EventBus", "brokers/memory imports hub.bus.EventBus"),
        ("verify", "from .audit import GENESIS", "verify imports hub.audit.GENESIS"),
        ("session", "from aiohttp import web", "session imports aiohttp"),
        ("web/api", "import marshmallow.fields", "web/api imports marshmallow"),
        ("web/api", "import aiohttp_jinja2", "web/api imports aiohttp_jinja2"),
        ("bus", "if TYPE_CHECKING:\n    pass\nelse:\n    import redis", "bus imports redis"),
        ("utils", "", "utils has no place in the order"),
    ],
)
def test_a_broken_rule_is_found(path: str, text: str, found: str) -> None:
    assert [line for line in violations({path: text}) if line.startswith(found)]


def test_type_only_imports_and_the_rooms_above_are_free() -> None:
    free = {
        "window": "if TYPE_CHECKING:\n    from .hub import Hub\n    import aiohttp",
        "audit": "from .verify import GENESIS\nfrom . import errors",
        "web/guard": "import aiohttp\nfrom . import peer\nfrom ..hub import Hub",
    }
    assert violations(free) == []


def run(program: str) -> str:
    """What a fresh interpreter has to say about the program; nothing if all is well."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def dotted(path: str) -> str:
    return ".".join(("hub", *path.split("/"))).removesuffix(".__init__")


def test_every_module_imports_alone() -> None:
    names = [dotted(path) for path in sources() if path != "__main__"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = dict(zip(names, pool.map(run, [f"import {name}" for name in names]), strict=True))
    assert {name: stderr for name, stderr in failed.items() if stderr} == {}


def test_the_core_runs_without_aiohttp() -> None:
    core = [path for path in sources() if path.split("/")[0] in ORDER[: ORDER.index("web")]]
    optional = {"brokers/redis"}
    lines = [f"import {dotted(path)}" for path in core if path not in optional]
    blocked = "import sys; sys.modules['aiohttp'] = None"
    assert run("\n".join([blocked, "import hub", *lines])) == ""
    assert "import of aiohttp halted" in run("\n".join([blocked, "import hub.web.guard"]))


def test_what_is_installed_is_what_is_in_the_checkout() -> None:
    """Only as strict as the installation: `tox` runs this against a wheel, which could lack a template."""

    def files(folder: Path) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    templates = HUB / "templates" if (HUB / "templates").is_dir() else CHECKOUT / "templates"
    installed = files(HUB) | {f"templates/{path}" for path in files(templates)}
    assert "templates/dashboard.html" in installed
    wanted = files(CHECKOUT / "hub") | {f"templates/{path}" for path in files(CHECKOUT / "templates")}
    assert wanted - installed == set()


def test_only_the_hubs_own_process_is_ended() -> None:
    """A mounted hub must never end the process of its application: only `_serve`, the program, asks for it."""
    found = sources()
    assert [path for path, text in found.items() if "os._exit" in text] == ["web/ending"]
    users = [path for path, text in found.items() for name in imports(path, text) if name.endswith("ending.Ending")]
    assert users == ["web/app"]
    (function,) = [
        node.name
        for node in ast.walk(ast.parse(found["web/app"]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "Ending(" in ast.unparse(node)
    ]
    assert function == "_serve"
