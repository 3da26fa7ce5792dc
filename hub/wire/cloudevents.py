"""CloudEvents 1.0 as they come in: structured, batched and binary; each becomes an event to be published."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from ..errors import HubError
from ..redaction import redact_text
from .ids import is_id
from .names import MAX_NAME, is_name
from .timestamps import is_time
from .validation import misfit

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
BINARY = "data_base64"  # what stands there is bytes, in Base64
PREFIX = "ce-"  # of the headers of binary ones
DOMAIN = "cloudevent:"  # of a type that is no event's name here
REQUIRED, OPTIONAL = ("id", "source", "type"), ("subject", "time")
MOST = 1024  # characters of an attribute
_ODD = re.compile(r"[^A-Za-z0-9_.-]")


def from_structured(value: Any) -> dict[str, Any]:
    """The record of one. Raises HubError `invalid_message`, or `reserved_event` for a type in the domain hub:."""
    if not isinstance(value, dict):
        raise misfit("invalid_message", "The CloudEvent does not fit", {"_schema": ["It is no object."]})
    _check(value)
    if BINARY not in value:
        return _record(value, value.get("data"))
    return _record(value, {BINARY: value[BINARY]}, is_binary=True)


def from_batch(value: Any) -> list[dict[str, Any]]:
    """The records of a batch, all or none. Raises HubError with `details` by index."""
    if not isinstance(value, list):
        raise misfit("invalid_message", "The batch does not fit", {"_schema": ["It is no list of CloudEvents."]})
    records, problems, code = [], {}, None
    for index, one in enumerate(value):
        try:
            records.append(from_structured(one))
        except HubError as error:
            code = code or error.code
            problems[str(index)] = error.details or {"type": [error.message]}
    if code is not None:
        raise misfit(code, f"{len(problems)} of {len(value)} CloudEvents do not fit", problems)
    return records


def attributes(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The attributes of a binary one, which stand in headers; empty if it is none. Raises HubError for one that is
    given twice."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower().startswith(PREFIX):
            attribute = name[len(PREFIX) :].lower()
            if attribute in found:
                raise misfit("invalid_message", "The CloudEvent does not fit", {attribute: ["Given more than once."]})
            found[attribute] = unquote(value.strip('"'), errors="replace")
    return found


def from_binary(told: Mapping[str, str], data: Any) -> dict[str, Any]:
    """The record of one whose attributes were in headers; its data is the body. Raises as `from_structured`."""
    _check(told)
    return _record(told, data)


def _check(told: Mapping[str, Any]) -> None:
    problems: dict[str, list[str]] = {}
    if told.get("specversion") != "1.0":
        problems["specversion"] = ["Must be 1.0."]
    for name in (*REQUIRED, *(name for name in OPTIONAL if told.get(name) is not None)):
        text = told.get(name)
        if not isinstance(text, str) or not 0 < len(text) <= MOST:
            problems[name] = [f"Missing, or not a text of 1 to {MOST} characters."]
    if "time" not in problems and told.get("time") is not None and not is_time(told["time"]):
        problems["time"] = ["Not an RFC 3339 time with an offset."]
    if told.get(BINARY) is not None and (problem := _binary_problem(told)):
        problems[BINARY] = [problem]
    if problems:
        raise misfit("invalid_message", "The CloudEvent does not fit", problems)
    if told["type"].startswith("hub:"):
        sentence = "Events in the domain hub: are the hub's own; choose another type."
        raise HubError("reserved_event", sentence, {"type": [sentence]})


def _binary_problem(told: Mapping[str, Any]) -> str | None:
    if "data" in told:
        return "Given beside data: it is one or the other."
    try:
        base64.b64decode(told[BINARY], validate=True)
    except (TypeError, ValueError):
        return "Not a text in Base64."
    return None


def _record(told: Mapping[str, Any], data: Any, *, is_binary: bool = False) -> dict[str, Any]:
    """The event of that type if it names one here, else one that says all of it. What is binary stays under the name
    that says so (CloudEvents JSON format 1.0, 3.1)."""
    name = told["type"]
    if not is_name(name):
        known = {name: told[name] for name in ("type", "source", *OPTIONAL) if told.get(name) is not None}
        name, data = (
            (DOMAIN + _ODD.sub("_", redact_text(name)))[:MAX_NAME],
            {**known, **(data if is_binary else {"data": data})},
        )
    return {"event": name, "data": data, "id": _id(f"{told['source']}#{told['id']}")}


def _id(whole: str) -> str:
    return whole if is_id(whole) else hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()
