"""The tables of hub.toml and what each of their keys may be."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, post_load, validate

from ..config import Config
from ..wire.names import MAX_PATTERNS, pattern_problem
from .places import Place
from .shapes import BUILT_IN

_NAMED = re.compile(r"[a-z0-9_-]{1,64}")
_HOST = re.compile(r"(?!.{254})(?:[^.]{1,63}\.)*[^.]{1,63}\.?")  # as long as names are at most (RFC 1035, 2.3.4)


def _text_of(**kwargs: Any) -> fields.String:
    return fields.String(validate=[validate.Length(min=1, max=4096), _for_the_system], **kwargs)


def _for_the_system(text: str) -> None:
    """Stops what no program can be run with, and no file can be named."""
    if "\0" in text:
        raise ValidationError("Must not hold the character U+0000: the system takes no text that has it.")


def _seconds(least: float, most: float) -> fields.Float:
    return _Number(validate=validate.Range(min=least, max=most))


class _Number(fields.Float):
    """A number, and nothing that could be read as one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("Not a number.")
        return float(super()._deserialize(value, attr, data, **kwargs) or 0.0)


class _Flag(fields.Boolean):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


def _named(name: str) -> None:
    if not _NAMED.fullmatch(name):
        raise ValidationError("Must be 1 to 64 of a-z, 0-9, _ and -.")


def _own_name(name: str) -> None:
    _named(name)
    if name in BUILT_IN:
        raise ValidationError("This is a rule of the hub's own; choose another name.")


def _pattern(text: str) -> None:
    if problem := pattern_problem(text):
        raise ValidationError(problem)


def _address(text: str) -> None:
    """Stops a password in a file that need not be private, and addresses that no request can go to."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValidationError("Must be an address: http:// or https://, a host, and what comes behind it.")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise ValidationError("No host has such a name: 253 characters at most, and 1 to 63 between two dots.")
    if "@" in urlsplit(text).netloc:
        raise ValidationError("An address must not hold a user or a password.")


def _patterns(**kwargs: Any) -> fields.List[Any]:
    each = fields.String(validate=_pattern)
    return fields.List(each, validate=validate.Length(min=1, max=MAX_PATTERNS), **kwargs)


class _Rules(Schema):
    question = _Flag()
    task_failed = _Flag()
    task_succeeded = _Flag()
    agent_error = _Flag()
    stale = _Flag()

    @post_load
    def switched_on(self, data: Mapping[str, bool], **kwargs: Any) -> frozenset[str]:
        return frozenset(name for name in BUILT_IN if data.get(name, True))


class _Rule(Schema):
    name = fields.String(required=True, validate=_own_name)
    topics = _patterns(required=True)
    title = _text_of()
    priority = fields.Integer(strict=True, validate=validate.Range(min=1, max=5))


class _Channel(Schema):
    name = fields.String(required=True, validate=_named)
    type = fields.String(required=True, validate=validate.OneOf(("ntfy", "command", "desktop", "apprise")))
    rules = fields.List(fields.String())
    url = fields.String(validate=_address)
    topic = _text_of()
    token_file = _text_of()
    argv = fields.List(fields.String(validate=_for_the_system), validate=validate.Length(min=1, max=64))
    url_file = _text_of()


class _Notify(Schema):
    url = fields.String(validate=_address)
    question_after = _seconds(0, 86400)
    success_after = _seconds(0, 30 * 86400)
    retry_first = _seconds(0.05, 300)
    rules = fields.Nested(_Rules)
    rule = fields.List(fields.Nested(_Rule), validate=validate.Length(max=100))
    channel = fields.List(fields.Nested(_Channel), validate=validate.Length(max=20))


class _Webhook(Schema):
    name = fields.String(required=True, validate=_named)
    url = fields.String(required=True, validate=_address)
    topics = _patterns()
    secret_file = _text_of()
    format = fields.String(validate=validate.OneOf(("standard", "cloudevents")))
    timeout = _seconds(1, 30)
    retry_first = _seconds(0.05, 3600)


class _GitHub(Schema):
    secret_file = _text_of(required=True)


def _setting(name: str) -> fields.Integer:
    """One of the hub's settings, within its range."""
    (row,) = [row for row in dataclasses.fields(Config) if row.name == name]
    least, most = row.metadata["range"]
    return fields.Integer(strict=True, validate=validate.Range(min=least, max=most))


class _Limits(Schema):
    rate = _setting("rate")
    max_clients = _setting("max_clients")


class File(Schema):
    """All of hub.toml."""

    notify = fields.Nested(_Notify)
    webhook = fields.List(fields.Nested(_Webhook), validate=validate.Length(max=100))
    github = fields.Nested(_GitHub)
    limits = fields.Nested(_Limits)


# What a type of channel needs, and what else it may have.
NEEDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "ntfy": (frozenset({"url", "topic"}), frozenset({"token_file"})),
    "command": (frozenset({"argv"}), frozenset()),
    "desktop": (frozenset(), frozenset()),
    "apprise": (frozenset({"url_file"}), frozenset()),
}

# By where they stand.
TABLES: Mapping[Place, type[Schema]] = {
    (): File,
    ("notify",): _Notify,
    ("notify", "rules"): _Rules,
    ("notify", "rule"): _Rule,
    ("notify", "channel"): _Channel,
    ("webhook",): _Webhook,
    ("github",): _GitHub,
    ("limits",): _Limits,
}
