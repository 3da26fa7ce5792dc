"""The rules of the house: imports run one way, each library has its rooms, every module imports alone."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import hub

pytestmark = pytest.mark.once

HUB = Path(next(iter(hub.__path__)))
CHECKOUT = Path(__file__).parents[1]
# The families in their order, and the files of each in theirs. A file may import what stands before it.
ORDER = [
    f"{family}/{name}" if family else name
    for family, names in (
        (
            "",
            "errors statedir spelling brokerurl config secretnames secretvalues literals expressions quoted "
            "secretshapes notations assigned sensitive redaction private leftovers stdio processes sockdiag tokens",
        ),
        (
            "wire",
            "ids names vocabulary mistyped strictjson timestamps validation fieldtypes quick messages cloudevents "
            "framing texts jsonschema regexparser regex keywords subschemas argschema",
        ),
        ("", "stderr collectors stats metrics"),
        ("stream", "events eventtypes"),
        (
            "stream/brokers",
            "peers broker answers lastvalues layout storefile retention epochs database care rounds sqlite memory "
            "rarely url server connection entries link appends witness redispeers redislog redis schemes",
        ),
        (
            "stream",
            "passes listeners bus window recent pages subscriber catchup broadcaster leases state",
        ),
        ("stream", "tasks ends pidfds pidfile liveness"),
        ("audit", "chain files verdict verify recovery rotation records head touched writer commits sums log"),
        ("commands", "load clients supervised call confirmation idempotency runner registry declared"),
        ("commands", "provided providers elsewhere listing asked question verdicts endings settling questions"),
        ("commands", "seen builtin ratelimit session"),
        (
            "adapters",
            "reading identities shape waits turns asking claude_code codex gemini copilot cursor systemd github alerts "
            "ping senders",
        ),
        ("configfile", "places shapes schema problems secretfiles reading"),
        ("outward", "outgoing notes follower bodies webhooks rules channels pace outbox notify outward"),
        ("", "life background signals hub"),
        ("web", "keys room sdnotify startup shutdown tls listening serverfile outgoing"),
        ("web/access", "peer opened connections origin proxy tickets credentials reader"),
        ("web", "refusalpage answers"),
        ("web/access", "guard"),
        ("web", "api signed toolcalls hookquestions hooks pings sums snapshots seats health streams viewers"),
        ("web/ws", "frames upgrade fair connection"),
        ("web", "sse"),
        ("web/access", "login"),
        (
            "web/page",
            "exact formats formfields sparklines shared trails results panel attempts told rows slices counted board "
            "history",
        ),
        ("web/page", "earlier working panels"),
        ("web/page", "drawing shown frame marks form drafts forms details search dashboard"),
        ("web/documents", "schemas routes openapi asyncapi served"),
        ("web", "app rereading crew workers unkept program"),
        (
            "client",
            "items paging discovery ownership sockets connections links calls serving providing client sync logs tools",
        ),
        ("", "scenes roles story demo"),
        ("printed", "render"),
        (
            "cli",
            "interrupts coroutines terminal grammar exchange http lasting words documents publish places beginnings "
            "writing following tail forwarding forward",
        ),
        (
            "cli",
            "child distinct notes relays reports run hook edits settings installed connect samples status checks "
            "agents promise doctor",
        ),
        ("cli", "explain answered call ask token audit mcp print serve completion main"),
        ("", "__main__"),
    )
    for name in names.split()
]
ROOMS = {
    "argcomplete": {"cli/completion"},
    "mcp": {"client/tools"},
    "aiohttp": {"web", "client", "cli"},
    "aiohttp_jinja2": {"web/page"},
    "jsonschema": {"wire/argschema"},
    "marshmallow": {"wire", "stream/eventtypes", "commands", "configfile"},
    "prometheus_client": {"collectors", "stats", "metrics", "web"},
    "redis": {"stream/brokers/url", "stream/brokers/server", "stream/brokers/connection"},
    "sqlite3": {"stream/brokers/database", "stream/brokers/storefile"},
}


@cache
def sources() -> Mapping[str, str]:
    """The text of every module by its path without `.py`, `web/guard` for instance."""
    files = sorted(path for path in HUB.rglob("*.py") if "templates" not in path.parts)
    return {path.relative_to(HUB).with_suffix("").as_posix(): path.read_text("utf-8") for path in files}


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (found for other in child.orelse for found in (other, *run_time_nodes(other)))
        else:
            yield child
            yield from run_time_nodes(child)


def imports(path: str, text: str, *, from_names: bool = True) -> Iterator[str]:
    """The dotted names that a module imports at run time, inside functions too; `from_names`: and from modules."""
    package = ".".join(("hub", *path.split("/")[:-1]))
    for node in run_time_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{start}.{alias.name}" for alias in node.names) if from_names else (start,)


def module(name: str, modules: Collection[str]) -> str | None:
    """The path of the module that a dotted name of the hub's is, or is in."""
    parts = name.split(".")[1:]
    paths = ("/".join(parts[:length]) for length in (len(parts), len(parts) - 1))
    return next((path for path in paths if path in modules or path in ORDER), None)


def violations(modules: Mapping[str, str]) -> list[str]:
    """What breaks the first two rules. `hub/__init__` is the door to all rooms, so it is bound by neither."""
    broken = []
    for path, text in modules.items():
        if path == "__init__":
            continue
        if path.endswith("__init__"):
            if len(ast.parse(text).body) != 1:
                broken.append(f"{path} holds more than its docstring")
            continue
        if path not in ORDER:
            broken.append(f"{path} has no place in the order")
            continue
        for name in imports(path, text):
            library = name.split(".")[0]
            if library == "hub":
                found = module(name, modules)
                if found and found != "__init__" and found not in ORDER[: ORDER.index(path)]:
                    broken.append(f"{path} imports {name}, which is not above it")
            elif library in ROOMS and not any(f"{path}/".startswith(f"{room}/") for room in ROOMS[library]):
                broken.append(f"{path} imports {library}")
    return broken


def test_imports_run_one_way_and_libraries_stay_in_their_rooms() -> None:
    assert violations(sources()) == []


def test_the_order_names_no_file_that_is_not_there() -> None:
    assert [path for path in ORDER if path not in sources()] == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("stream/window", "from .broadcaster import Broadcaster", "stream/window imports hub.stream.broadcaster."),
        ("stream/window", "from .. import hub", "stream/window imports hub.hub"),
        ("stream/window", "import hub.web.app", "stream/window imports hub.web.app"),
        ("stream/window", "from ..audit.log import AuditLog", "stream/window imports hub.audit.log"),
        (
            "audit/log",
            "def later():\n    from ..metrics import Metrics\n    import aiohttp",
            "audit/log imports aiohttp",
        ),
        ("audit/log", "from ..commands.registry import Call", "audit/log imports hub.commands.registry.Call"),
        (
            "stream/brokers/memory",
            "from ..bus import EventBus",
            "stream/brokers/memory imports hub.stream.bus.EventBus",
        ),
        ("audit/verify", "from .log import AuditLog", "audit/verify imports hub.audit.log.AuditLog"),
        ("commands/session", "from aiohttp import web", "commands/session imports aiohttp"),
        ("web/api", "import marshmallow.fields", "web/api imports marshmallow"),
        ("web/api", "import aiohttp_jinja2", "web/api imports aiohttp_jinja2"),
        ("stream/bus", "if TYPE_CHECKING:\n    pass\nelse:\n    import redis", "stream/bus imports redis"),
        ("utils", "", "utils has no place in the order"),
        ("wire/__init__", '"""What crosses the wire."""\nfrom .names import is_name', "wire/__init__ holds more"),
    ],
)
def test_a_broken_rule_is_found(path: str, text: str, found: str) -> None:
    assert [line for line in violations({path: text}) if line.startswith(found)]


def test_type_only_imports_and_what_stands_above_are_free() -> None:
    free = {
        "stream/window": "if TYPE_CHECKING:\n    from ..hub import Hub\n    import aiohttp",
        "audit/log": "from .verify import GENESIS\nfrom .. import errors",
        "web/access/guard": "import aiohttp\nfrom . import peer\nfrom ...hub import Hub",
    }
    assert violations(free) == []


ALONE = """
import gc, os, sys, traceback
import {known}

names, running = sys.argv[1:], {{}}

def ended():
    pid, status = os.wait()
    name = running.pop(pid)
    if status:
        print(name)

gc.freeze()  # else the first look for garbage of each child copies all of this
for name in names:
    if len(running) == (os.cpu_count() or 1):
        ended()
    pid = os.fork()
    if not pid:
        try:
            __import__(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    running[pid] = name
while running:
    ended()
"""


def run(program: str, *args: str, path: Path | None = None) -> tuple[str, str]:
    """What a fresh interpreter has printed: stdout and stderr. All else than success is said in stderr."""
    environ = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-W", "error", "-c", program, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    return done.stdout, done.stderr or ("" if done.returncode == 0 else f"exit status {done.returncode}")


@cache
def others() -> str:
    """What we import by name of the standard library and of the libraries that are always there."""
    found = (name for path, text in sources().items() for name in imports(path, text, from_names=False))
    libraries = "aiohttp aiohttp_jinja2 aiosignal jinja2 jsonschema markupsafe marshmallow multidict prometheus_client"
    always = sys.stdlib_module_names - {"__future__"} | {*libraries.split()}
    return ", ".join(sorted({name for name in found if name.split(".")[0] in always}))


def not_alone(names: Iterable[str], path: Path | None = None) -> tuple[list[str], str]:
    """The modules that cannot be imported as the first of all of ours, and why.

    One interpreter forks a child for each. It has imported nothing of ours, and of others what we import by name (that
    a module does so itself is mypy's to hold), which saves nine tenths of the time.
    """
    stdout, stderr = run(ALONE.format(known=others()), *names, path=path)
    return sorted(stdout.split()), stderr


def dotted(path: str) -> str:
    return ".".join(("hub", *path.split("/"))).removesuffix(".__init__")


@pytest.mark.timeout(300)  # hundreds of processes
def test_every_module_imports_alone() -> None:
    assert not_alone(dotted(path) for path in sources() if path != "__main__") == ([], "")


def test_a_module_that_needs_another_first_is_found(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("import sys\nsys.modules['made'] = sys")
    (tmp_path / "second.py").write_text("import made")
    (tmp_path / "third.py").write_text("import first\nimport made")
    failed, why = not_alone(["first", "second", "third"], tmp_path)
    assert (failed, why.count("No module named 'made'")) == (["second"], 1)


def test_the_core_runs_without_aiohttp() -> None:
    lines = [f"import {dotted(path)}" for path in ORDER[: ORDER.index("web/keys")]]
    blocked = "import sys; sys.modules['aiohttp'] = None"
    assert run("\n".join([blocked, "import hub", *lines])) == ("", "")
    assert "import of aiohttp halted" in run("\n".join([blocked, "import hub.web.access.guard"]))[1]


def test_a_client_runs_without_marshmallow() -> None:
    """Which it has no use for, and would wait for longer than for all that it has."""
    blocked = "import sys; sys.modules['marshmallow'] = None"
    assert run(f"{blocked}; import hub.client.sync, hub.client.logs, hub.cli.tail, hub.cli.call") == ("", "")
    assert "import of marshmallow halted" in run(f"{blocked}; import hub.hub")[1]


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
    """A mounted hub must never end the process of its application: only programs do."""
    found = sources()
    assert [path for path, text in found.items() if "os._exit" in text] == [
        *("cli/interrupts", "cli/main", "web/crew", "web/shutdown"),
    ]
    users = [path for path, text in found.items() for name in imports(path, text) if name.endswith("shutdown.Ending")]
    assert users == ["web/program"]
    (function,) = [
        node.name
        for node in ast.walk(ast.parse(found["web/program"]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "Ending(" in ast.unparse(node)
    ]
    assert function == "_serve"


def raised_in_groups(text: str) -> list[int]:
    """The lines on which an `except*` raises something new, which Python 3.11 hands on in a group, and later ones
    alone."""
    return [
        node.lineno
        for found in ast.walk(ast.parse(text))
        if isinstance(found, ast.TryStar)
        for handler in found.handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise) and node.exc is not None
    ]


def test_what_is_raised_is_the_same_on_every_python() -> None:
    assert {path: lines for path, text in sources().items() if (lines := raised_in_groups(text))} == {}


def test_something_new_raised_in_a_group_is_found() -> None:
    assert raised_in_groups("try:\n    a()\nexcept* E as group:\n    raise group.exceptions[0] from None\n") == [4]
