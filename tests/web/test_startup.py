"""Code of the application that fails at the start of `python -m hub`: named, shown, and status 1."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import environment, run_hub

RAISES = """
def setup(hub):
    opened()


def opened():
    raise ValueError("no database")
"""
AT_ONCE = "import json\n\njson.loads('{')\n"
LEAVES = "import sys\n\nsys.exit('no more')\n"
LATER = """
async def first(hub):
    raise ValueError("no database")


def setup(hub):
    hub.on_start.append(first)
"""
NO_SYNTAX = "def setup(hub:\n"
FAILS = {
    RAISES: "the module shop failed: ValueError: no database (shop.py, line 7, in opened)",
    AT_ONCE: "the module shop failed: JSONDecodeError: Expecting property name enclosed in double quotes",
    LEAVES: "the module shop failed: SystemExit: no more (shop.py, line 3, in <module>)",
    LATER: "the start failed: ValueError: no database (shop.py, line 3, in first)",
    NO_SYNTAX: "the module shop failed: SyntaxError: ",
}


@pytest.mark.parametrize("module", FAILS)
@pytest.mark.parametrize("form", ["text", "json"])
async def test_what_fails_is_named_and_shown_without_the_hubs_own_part(module: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(module)
    words = ("--port", "0", "--state-dir", str(tmp_path / "state"), "--load", "shop", "--log-format", form)
    status, out, err = await run_hub(tmp_path, *words)
    assert (status, out) == (1, "")
    if form == "json":
        (line,) = (json.loads(line) for line in err.splitlines())
        said, trace = line["message"], line["exception"]
    else:
        head, *rest = err.splitlines()
        assert all(line.startswith("  ") for line in rest)
        said, trace = head.partition(" ERROR ")[2], "\n".join(rest)
    assert said.startswith(FAILS[module])
    assert "hub/web" not in trace
    assert ("shop.py" in trace) is (module != "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(("", "this is no name of a module"), (".x", "this is no name"), ("no_such", "No module named 'no_such'")),
        *(("json", "it has no setup(hub)"), ("no.such", "No module named 'no'")),
    ],
)
async def test_a_module_that_is_none_is_usage(name: str, why: str, tmp_path: Path) -> None:
    status, out, err = await run_hub(tmp_path, "--state-dir", str(tmp_path / "state"), "--load", name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"hub: Cannot load {name or repr(name)}" if name != ".x" else "hub: Cannot load '.x'")
    assert why in err


@pytest.mark.parametrize(("name", "is_here"), [("shop", True), ("shelf.cart", True), ("no_such", False), ("", False)])
def test_what_lies_in_this_folder_is_found_by_python(name: str, is_here: bool, tmp_path: Path) -> None:
    """The installed `hub` looks among what is installed, as `-P` has it here; what it advises to type does it."""
    (tmp_path / "shop.py").write_text("raise SystemExit('here it is')")
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "cart.py").write_text("raise SystemExit('here it is')")
    words = [sys.executable, "-P", "-m", "hub", "--port", "0", "--state-dir", "state", "--load", name]
    more: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(words, **more, check=False)
    _, _, advice = done.stderr.partition("It is in this folder, where hub does not look; this does: ")
    assert (done.returncode, bool(advice), done.stderr.count("\n")) == (2, is_here, 1)
    if is_here:
        done = subprocess.run([*advice.split(), "--state-dir", "state"], **more, check=False)
        assert (done.returncode, "here it is" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        *(
            ["--port", "{taken}"],
            ["--port", "many"],
            ["--prot", "1"],
            ["--log-level", "loud"],
            ["--load", "no_such"],
            ["--tls-cert", "x"],
        ),
        *(["--host", "192.0.2.1"], ["--host", "no.such.invalid", "--auth", "token"], ["--state-dir", "/dev/null"]),
    ],
)
@pytest.mark.parametrize("how", ["flag", "equals", "variable"])
async def test_with_json_every_line_is_one_object(
    words: list[str], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"flag": ["--log-format", "json"], "equals": ["--log-format=json"], "variable": []}[how]
    if how == "variable":
        monkeypatch.setenv("HUB_LOG_FORMAT", "json")
    monkeypatch.setenv("HUB_PROT", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.format(taken=taken.getsockname()[1]) for word in words]
        status, out, err = await run_hub(
            tmp_path, "--port", "0", "--state-dir", str(tmp_path / "state"), *given, *words
        )
    assert (status, out) == (2, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["level"] for line in lines][-1] == "error"
    assert {"HUB_PROT is no setting of the hub; did you mean HUB_PORT?"} >= {line["message"] for line in lines[:-1]}
