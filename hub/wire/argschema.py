"""A JSON Schema (draft 2020-12) that a client gave, and args that are checked against it.

A schema is a program that somebody else wrote: a dozen lines of it can take for ever, with references that double at
each step, with expressions that go back and try again, with lists that are compared with themselves. So it is checked
itself, first; and whatever it says, it gets so many steps.
"""

from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import Any

from .strictjson import dumps
from .subschemas import ONE, REFERENCES, Path, cleaned, problems_of, regex
from .validation import MAX_PROBLEMS, misfit

MAX_STEPS = 10_000  # in which args must be checked; one takes 5 to 10 µs
DIVISION = 6  # steps: exactly, it takes 15 to 30 µs
MAX_SENTENCE = 160  # characters of what is said of one value


class TooMuch(Exception):
    """The steps are used up."""


class _Meter:
    """The steps that are left, and what the values weigh that are looked at: one is written out wherever it does not
    fit, so a large one costs more each time. One meter for all: a check never waits."""

    def __init__(self) -> None:
        self.left = 0
        self._weights: dict[int, int] = {}

    def start(self, *values: Any) -> None:
        self.left = MAX_STEPS
        self._weights.clear()
        for value in values:
            self._weigh(value)

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooMuch

    def weight(self, value: Any) -> int:
        return len(value) >> 8 if isinstance(value, str) else self._weights.get(id(value), 0)

    def _weigh(self, value: Any) -> int:
        """Its length as a text, about; that of what holds others is noted, in units of 256."""
        if isinstance(value, str):
            return len(value) + 2
        if not isinstance(value, dict | list):
            return 8
        self.spend(len(value) >> 4)  # to look at so much is work, too
        if isinstance(value, dict):
            size = sum(len(key) + 4 + self._weigh(each) for key, each in value.items())
        else:
            size = sum(map(self._weigh, value))
        self._weights[id(value)] = size >> 8
        return size + 2


_meter = _Meter()


class ArgSchema:
    """A schema that has been checked. Raises HubError `invalid_args` for one that is not to be had; its `details` are
    by the paths in it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.steps = 0  # that the last check took
        if problems := problems_of(schema):
            raise misfit("invalid_args", "The schema does not fit", _tree(problems))
        self.given = cleaned(schema)  # as it is shown
        self._validator = _validator()({key: value for key, value in schema.items() if key not in ("$id", "$schema")})

    def problems(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """What does not fit, by field; empty if everything does."""
        found = _found(self._validator, args)
        self.steps = MAX_STEPS - _meter.left
        return _tree(found)


_ENDLESS = "This takes too long to be checked."


def load_library() -> None:
    """Import jsonschema, which takes a while: in a thread, if somebody waits."""
    _validator()


def _found(validator: Any, value: Any) -> list[tuple[Path, str]]:
    found = list[tuple[Path, str]]()
    try:
        _meter.start(value, validator.schema)
        for error in validator.iter_errors(value):
            found += _told(error)
            if len(found) >= MAX_PROBLEMS:
                break
    except (TooMuch, RecursionError):
        found = [((), _ENDLESS)]
    except Exception as error:  # of the library's, on a schema that it has taken
        found = [((), f"This cannot be checked ({type(error).__name__}).")]
    return found


def _told(error: Any) -> Iterator[tuple[Path, str]]:
    """What the library says, as marshmallow says it where it has a word for that."""
    path = tuple(error.absolute_path)
    if error.validator == "required":
        missing = literal_eval(error.message.removesuffix(" is a required property"))  # it says so nowhere else
        yield (*path, missing), "Missing data for required field."
    elif error.validator == "additionalProperties" and error.validator_value is False:
        known = error.schema.get("properties", {})
        unknown = (((*path, name), "Unknown field.") for name in error.instance if name not in known)
        yield from islice(unknown, MAX_PROBLEMS)
    elif error.validator is None:
        yield path, "This is not allowed."
    else:
        sentence = _sentence(error)
        yield path, sentence if 0 < len(sentence) <= MAX_SENTENCE else f"It does not fit ({error.validator})."


_SENTENCES = {  # of what is wanted, and not as the library shows what came: as Python writes it
    "type": "Not a valid {}.",
    "enum": "Must be one of: {}.",
    "const": "Must be equal to {}.",
    "minimum": "Must be greater than or equal to {}.",
    "maximum": "Must be less than or equal to {}.",
    "exclusiveMinimum": "Must be greater than {}.",
    "exclusiveMaximum": "Must be less than {}.",
    "multipleOf": "Must be a multiple of {}.",
    "minLength": "Shorter than minimum length {}.",
    "maxLength": "Longer than maximum length {}.",
    "minItems": "Shorter than minimum length {}.",
    "maxItems": "Longer than maximum length {}.",
    "uniqueItems": "Some of these are equal.",
    "minProperties": "Has fewer than {} fields.",
    "maxProperties": "Has more than {} fields.",
    "pattern": "It does not match '{}'.",
}


def _sentence(error: Any) -> str:
    """What a keyword wants; empty where there are no words for it."""
    wanted, name = error.validator_value, error.validator
    if name == "dependentRequired":
        return f"{error.message}."  # which of them is missing is said nowhere else
    values = wanted if name in ("type", "enum") and isinstance(wanted, list) else [wanted]
    shown = (each if isinstance(each, str) and each else dumps(each) for each in values)
    return _SENTENCES.get(name, "").format((" or " if name == "type" else ", ").join(shown))


def _tree(problems: list[tuple[Path, str]]) -> dict[str, Any]:
    """The problems by their paths, as marshmallow nests them."""
    root: dict[str, Any] = {}
    for path, sentence in list(dict.fromkeys(problems))[:MAX_PROBLEMS]:
        node = root
        for part in path:
            node = node.setdefault(str(part), {})
        node.setdefault("_schema", []).append(sentence)
    return {key: _bare(value) for key, value in root.items()}


def _bare(node: Any) -> Any:
    """A node with nothing below it is a list of sentences."""
    if isinstance(node, list) or node.keys() == {"_schema"}:
        return node if isinstance(node, list) else node["_schema"]
    return {key: _bare(value) for key, value in node.items()}


@cache
def _validator() -> Any:
    """The library's class for this draft, metered."""
    from jsonschema import Draft202012Validator as Validator
    from jsonschema import validators
    from jsonschema.exceptions import ValidationError

    keywords = dict(Validator.VALIDATORS)
    keywords["pattern"] = _pattern(ValidationError)
    keywords["uniqueItems"] = _unique(ValidationError)
    keywords["multipleOf"] = _multiple(ValidationError)
    metered = {name: _metered(name, keyword) for name, keyword in keywords.items()}
    return validators.extend(Validator, metered)


def _metered(name: str, keyword: Callable[..., Any]) -> Callable[..., Any]:
    least, passes_on = 4 if name in REFERENCES else 1, name in ONE

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        steps = least + (len(value) >> 3 if isinstance(value, dict | list) else 0)
        if passes_on and isinstance(instance, dict | list):
            steps += len(instance) >> 1
        _meter.spend(steps + _meter.weight(value) + _meter.weight(instance))
        return keyword(validator, value, instance, schema)

    return check


def _pattern(error: Any) -> Callable[..., Any]:
    def check(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not regex(value).search(instance, _meter.spend):
            yield error("It does not match")

    return check


def _unique(error: Any) -> Callable[..., Any]:
    """As the library's, which compares each with each; JSON knows 1 and 1.0 as equal, but not 1 and true."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if value and isinstance(instance, list) and len({_hashable(each) for each in instance}) < len(instance):
            yield error("Some of these are equal")

    return check


def _multiple(error: Any) -> Callable[..., Any]:
    """As the numbers are written: for the library, which divides what binary floats make of them, 19.99 is no multiple
    of 0.01."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, int | float) and not isinstance(instance, bool):
            _meter.spend(DIVISION)
            if Fraction(repr(instance)) % Fraction(repr(value)):
                yield error("It is not a multiple")

    return check


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((key, _hashable(each)) for key, each in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value  # no list has a type in it
