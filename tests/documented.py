"""What the tests of the two documents share: to read one, and to walk through it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from running import HubInside

Part = dict[str, Any]


class Operation(NamedTuple):
    """One operation of an OpenAPI document."""

    method: str
    path: str
    said: Part

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in self.said["responses"]]


async def document(hub: HubInside, name: str = "openapi") -> Part:
    """One of the two documents, as it is served."""
    answer = await hub.get(f"{name}.json")
    assert answer.status == 200, answer.text
    found: Part = answer.json
    return found


def operations(openapi: Part) -> list[Operation]:
    found = openapi["paths"].items()
    return [Operation(method.upper(), path, said) for path, methods in found for method, said in methods.items()]


def resolved(document: Part, part: Part) -> Part:
    """The part itself, or what it refers to."""
    while "$ref" in part:
        found: Any = document
        for word in part["$ref"].removeprefix("#/").split("/"):
            found = found[word.replace("~1", "/").replace("~0", "~")]
        part = found
    return part


def references(part: Any) -> Iterator[str]:
    """All references in a document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def problems(document: Part, schema: Part, value: Any) -> list[str]:
    """What does not fit, by a schema of this document."""
    validator = Draft202012Validator({**schema, "components": document["components"]})
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]
