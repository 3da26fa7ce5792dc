"""The protocol as it ships, held against the code: what its tables name is there, and all that is there is named."""

import ast
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from test_architecture import sources

from hub import Hub, create_app
from hub.commands.builtin import PROTOCOL
from hub.errors import CODES
from hub.metrics import Metrics
from hub.stream.eventtypes import KNOWN

TEXT = (files("hub.wire") / "PROTOCOL.md").read_text("utf-8")


def table(head: str, text: str = TEXT) -> dict[str, list[str]]:
    """The rows of the table with this head, by their first cell, bare of backquotes."""
    _, _, rest = text.partition(f"\n| {head} |")
    assert rest, f"no table with the head {head}"
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): cells for first, *cells in rows}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(state_dir=tmp_path, auth="token")


def test_every_command_is_there_with_its_args_and_its_effect(hub: Hub) -> None:
    rows = table("command | args | effect | result")
    found = {command.name: command for command in hub.commands}
    assert set(rows) == set(found)
    for name, (args, effect, _) in rows.items():
        assert effect == found[name].effect, name
        schema = found[name].describe()["args"]
        said = {arg: bool(optional) for arg, optional in re.findall(r"`(\w+)`(\?)?", args)}
        wanted = {arg: arg not in schema.get("required", ()) for arg in schema.get("properties", ())}
        assert said == wanted, name


def test_every_error_code_is_there_with_its_status() -> None:
    rows = table("code | HTTP | retryable | when")
    said = {code: (int(status), retryable == "yes") for code, (status, retryable, _) in rows.items()}
    assert said == {code: (status, retryable) for code, (status, retryable) in CODES.items()}


def test_every_close_code_is_there() -> None:
    closing = {"Violation", "close", "_close"}
    used = {
        constant.value
        for path, text in sources().items()
        if path.startswith(("web/", "commands/session"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func).split(".")[-1] in closing
        for constant in ast.walk(call.args[0])
        if isinstance(constant, ast.Constant) and isinstance(constant.value, int)
    }
    assert {int(code) for code in table("code | the hub closes because | come back")} == used


def test_every_route_is_there(hub: Hub) -> None:
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in create_app(hub).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert set(table("route | what")) == routes


def test_every_metric_is_there_with_its_labels() -> None:
    rows = {
        name: tuple(re.findall(r"`(\w+)`", labels)) for name, (labels, _) in table("metric | labels | what").items()
    }
    suffixes = {"counter": "_total", "info": "_info"}
    families = [metric for metric in Metrics(commands=("a:b",)).registry.collect() if metric.name.startswith("hub_")]
    assert set(rows) == {metric.name + suffixes.get(metric.type, "") for metric in families}
    for metric in families:
        for sample in metric.samples:
            labels = set(sample.labels) - {"le"}
            assert labels == set(rows[metric.name + suffixes.get(metric.type, "")]), sample.name


def test_every_event_type_is_there_with_its_fields() -> None:
    rows = table("event | key | fields; required ones first, in bold")
    for name, (schema, key) in KNOWN.items():
        said, fields = rows[name], schema().fields
        assert re.findall(r"`(\w+)`", said[1]) == list(fields), name
        assert re.findall(r"\*\*`(\w+)`\*\*", said[1]) == [field for field in fields if fields[field].required], name
        assert said[0] == (f"`{key}`" if isinstance(key, str) else "always `memory`" if key else "none"), name
    assert set(rows) == set(KNOWN)


def test_its_examples_are_frames_as_the_hub_writes_them() -> None:
    assert TEXT.startswith(f"# The protocol, version {PROTOCOL}\n")
    for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            assert json.dumps(json.loads(line), separators=(",", ":"), ensure_ascii=False) == line


def test_where_the_code_names_a_section_there_is_one() -> None:
    sections = set(re.findall(r"^## (\d)\. ", TEXT, re.MULTILINE))
    said = [
        number for text in sources().values() for number in re.findall(r"PROTOCOL(?:\.md)?(?:'s section)? (\d)", text)
    ]
    assert said
    assert set(said) <= sections


def test_what_is_missing_or_too_much_is_found() -> None:
    assert set(table("route | what", "\n| route | what |\n| --- | --- |\n| `GET /x` | y |\n")) == {"GET /x"}
    with pytest.raises(AssertionError, match="no table"):
        table("no such | head")
