"""The reference of the public names, made of their docstrings: `python tests/reference.py > docs/api.md`."""

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import hub
from hub import Config

HEAD = """# The public names

`from hub import …`. Made of the docstrings by `python tests/reference.py > docs/api.md`; a test holds it true. How they
go together stands in the README; what crosses the wire in `hub/wire/PROTOCOL.md`.
"""
SECTIONS = {
    "In your own application": "create_app Hub Config Call Event Panel",
    "A client in Python": "HubClient SyncHubClient HubHandler Received Gap ServedCall",
    "What can go wrong": "HubError CommandError NoHub Disconnected",
}
WIDTH = 120


def reference() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names.split():
            parts += described(name, getattr(hub, name))
    return "\n".join(parts).rstrip() + "\n"


def described(name: str, thing: Any) -> Iterator[str]:
    """Return the paragraphs on one name."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    yield f"### {name}\n"
    yield code(*signature(node, name))
    yield text(thing)
    if thing is Config:
        yield "\n".join(settings()) + "\n"
    elif isinstance(node, ast.ClassDef):
        yield from members(node, thing)


def members(node: ast.ClassDef, thing: type) -> Iterator[str]:
    """Return the paragraphs on what a class has that is for others, in the order in which it stands there."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name[0] != "_":
            found = inspect.getattr_static(thing, member.name)
            yield f"#### {node.name}.{member.name}\n"
            yield code(*signature(member, member.name))
            yield text(found.fget if isinstance(found, property) else found)


def signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> list[str]:
    """Return how it is called; of a dataclass its fields, of a property its type."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if made:
            return [f"{name}({arguments(made[0])})"]
        shown = [part for part in node.body if is_field(part) and name != Config.__name__]
        return [f"class {name}", *(f"    {ast.unparse(part)}" for part in shown)]
    returned = f" -> {ast.unparse(node.returns).strip(chr(39))}" if node.returns else ""
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return [f"{name}: {returned.removeprefix(' -> ')}"]
    asynchronous = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return [f"{asynchronous}{name}({arguments(node)}){returned}"]


def is_field(part: ast.stmt) -> bool:
    return isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if isinstance(each.annotation, ast.Constant):  # a name that is imported for types only
            each.annotation = ast.parse(str(each.annotation.value), mode="eval").body
    return ast.unparse(node.args).removeprefix("self, ").removeprefix("self")


def settings() -> Iterator[str]:
    """Return the table of the settings."""
    yield "| setting | type | default | |\n| --- | --- | --- | --- |"
    for row in dataclasses.fields(Config):
        kind = row.type if isinstance(row.type, str) else getattr(row.type, "__name__", str(row.type))
        default = "" if row.default is dataclasses.MISSING else f"`{row.default!r}`"
        yield f"| `{row.name}` | `{kind}` | {default} | {row.metadata['help']} |"


def code(*lines: str) -> str:
    """Return a block of code; what is too long goes over several lines."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="    ") or [""]]
    return "\n".join(["```python", *wrapped, "```", ""])


def text(thing: Any) -> str:
    """Return its docstring as it stands there."""
    return f"{inspect.cleandoc(thing.__doc__ or '')}\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
