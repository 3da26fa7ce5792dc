"""hub.toml: what cannot be a flag. Whom the hub tells of what, where it sends events, and which secrets it knows.

Read whole and checked whole before anything starts: a mistyped word is an error with its line, never a rule that
silently does nothing.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, post_load, validate

from .config import Config
from .errors import UsageError
from .redaction import redact_text
from .spelling import suggestion
from .tomllines import Place, lines
from .wire.names import MAX_PATTERNS, pattern_problem
from .wire.vocabulary import ChannelType

NAME = "hub.toml"
LARGEST = 256 * 1024  # bytes of the file
LARGEST_SECRET = 64 * 1024  # bytes of a file that it names
BUILT_IN = ("question", "task_failed", "task_succeeded", "agent_error", "stale")
SECRET_BYTES = range(24, 65)  # Standard Webhooks, "Signature scheme"
PREFIX = "whsec_"
_NAMED = re.compile(r"[a-z0-9_-]{1,64}")

Format = Literal["standard", "cloudevents"]


class BadFile(UsageError):
    """hub.toml cannot be used as it is. The sentence is a line for each problem: `FILE:LINE: what is wrong`."""

    by_line = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An operator's own rule: any event that matches."""

    name: str
    topics: tuple[str, ...]
    title: str | None = None
    priority: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One way to a person. `rules` None: all. What a type has no use for is empty."""

    name: str
    type: ChannelType
    rules: frozenset[str] | None = None
    url: str = ""
    topic: str = ""
    token: str = field(default="", repr=False)
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Whom to tell of what. Times in seconds; `rules`: those of the hub's own that are on."""

    url: str = ""
    question_after: float = 6.0
    success_after: float = 60.0
    retry_first: float = 1.0
    rules: frozenset[str] = frozenset(BUILT_IN)
    own: tuple[Rule, ...] = ()
    channels: tuple[Channel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where events are sent. `digest` tells this entry from another one of the same name."""

    name: str
    url: str
    topics: tuple[str, ...] = ("*",)
    secret: bytes | None = field(default=None, repr=False)
    format: Format = "standard"
    timeout: float = 15.0
    retry_first: float = 1.0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """All of hub.toml. `path` is None where there is none."""

    path: Path | None = None
    notify: Notify = Notify()
    webhooks: tuple[Webhook, ...] = ()
    github_secret: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.path is None:
            return "There is no hub.toml: nobody is told of anything, and no webhook is sent."
        channels, webhooks = len(self.notify.channels), len(self.webhooks)
        return f"{self.path} is good: {_counted(channels, 'channel')}, {_counted(webhooks, 'webhook')}."


def read(config: Config) -> ConfigFile:
    """The file that `--config` names, else hub.toml in the state directory, if there is one. Raises BadFile."""
    path = Path(config.config) if config.config else config.state_dir / NAME
    try:
        text = _text(path)
    except (FileNotFoundError, NotADirectoryError):  # of the state directory others will say what is wrong with it
        if config.config:
            raise BadFile(f"{path}:1: There is no such file.") from None
        return ConfigFile()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadFile(f"{path}:{line}: This is not UTF-8.") from None
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}:1: It cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return parse(text, path)


def parse(text: str, path: Path) -> ConfigFile:
    """What a hub.toml at `path` says. Raises BadFile, with all that is wrong where the TOML can be read."""
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise BadFile(f"{path}:1: This is not TOML that can be read: it is nested too deep.") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)$|\(at end of document\)$", str(error))
        line = (found and found[1]) or str(text.count("\n") + 1)
        said = str(error)[: found.start()].rstrip() if found else str(error)
        raise BadFile(f"{path}:{line}: This is not TOML: {said}.") from None
    except ValueError as error:  # a number of thousands of digits
        raise BadFile(f"{path}:1: This is not TOML that can be read: {error}.") from None
    problems = _Problems(text, path)
    file = _read(values, path, problems)
    problems.end()
    return file


# ---- what stands in it -----------------------------------------------------------------------------------------


def _text_of(**kwargs: Any) -> fields.String:
    return fields.String(validate=validate.Length(min=1, max=4096), **kwargs)


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
    argv = fields.List(fields.String(), validate=validate.Length(min=1, max=64))
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


class _File(Schema):
    notify = fields.Nested(_Notify)
    webhook = fields.List(fields.Nested(_Webhook), validate=validate.Length(max=100))
    github = fields.Nested(_GitHub)


# What a type of channel needs, and what else it may have.
_NEEDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "ntfy": (frozenset({"url", "topic"}), frozenset({"token_file"})),
    "command": (frozenset({"argv"}), frozenset()),
    "desktop": (frozenset(), frozenset()),
    "apprise": (frozenset({"url_file"}), frozenset()),
}


def _read(values: Mapping[str, Any], path: Path, problems: "_Problems") -> ConfigFile:
    """Everything that can be looked at is, also when something else is wrong."""
    try:
        data = _File().load(values)
    except ValidationError as error:
        problems.of_fields(error.normalized_messages())  # type: ignore[no-untyped-call]
        data = error.valid_data if isinstance(error.valid_data, dict) else {}
    notify = data.get("notify") or {}
    own = _entries(notify, "rule", ("notify", "rule"), problems)
    channels = _entries(notify, "channel", ("notify", "channel"), problems)
    webhooks = _entries(data, "webhook", ("webhook",), problems)
    known = {*BUILT_IN, *(rule["name"] for rule in own.values() if "name" in rule)}
    files = _Files(path.parent, problems)
    github = data.get("github") or {}
    return ConfigFile(
        path=path,
        notify=Notify(
            **{
                name: notify[name]
                for name in ("url", "question_after", "success_after", "retry_first")
                if name in notify
            },
            rules=notify["rules"] if isinstance(notify.get("rules"), frozenset) else frozenset(BUILT_IN),
            own=tuple(_rule(rule) for rule in own.values() if {"name", "topics"} <= rule.keys()),
            channels=tuple(
                found
                for index, channel in channels.items()
                if (found := _channel(channel, ("notify", "channel", index), known, files, problems))
            ),
        ),
        webhooks=tuple(
            _webhook(webhook, ("webhook", index), files)
            for index, webhook in webhooks.items()
            if {"name", "url"} <= webhook.keys()
        ),
        github_secret=files.secret(("github", "secret_file"), github.get("secret_file")),
    )


def _entries(table: Mapping[str, Any], name: str, place: Place, problems: "_Problems") -> dict[int, dict[str, Any]]:
    """The entries of an array of tables by their index; each name once."""
    found, names = dict[int, dict[str, Any]](), dict[str, int]()
    entries = table.get(name) or []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            found[index] = entry
            if names.setdefault(entry.get("name", ""), index) != index and entry.get("name"):
                problems.add((*place, index, "name"), f"The name {entry['name']!r} is taken by another one above.")
    return found


def _rule(rule: Mapping[str, Any]) -> Rule:
    return Rule(**{**rule, "topics": tuple(rule["topics"])})


def _channel(
    channel: Mapping[str, Any], place: Place, known: set[str], files: "_Files", problems: "_Problems"
) -> Channel | None:
    for number, rule in enumerate(channel.get("rules", ())):
        if rule not in known:
            near = suggestion(rule, sorted(known)) or "."
            problems.add((*place, "rules", number), f"There is no rule {rule!r}{near}")
    if not {"name", "type"} <= channel.keys():
        return None
    needs, may = _NEEDS[channel["type"]]
    for name in sorted(needs - channel.keys()):
        problems.add(place, f"A channel of type {channel['type']} needs {name}.")
    for name in sorted(channel.keys() - needs - may - {"name", "type", "rules"}):
        problems.add((*place, name), f"A channel of type {channel['type']} has no {name}.")
    token = files.line((*place, "token_file"), channel.get("token_file"))
    url = files.line((*place, "url_file"), channel.get("url_file")) or channel.get("url", "")
    return Channel(
        name=channel["name"],
        type=channel["type"],
        rules=frozenset(channel["rules"]) if "rules" in channel else None,
        url=url,
        topic=channel.get("topic", ""),
        token=token,
        argv=tuple(channel.get("argv", ())),
    )


def _webhook(webhook: Mapping[str, Any], place: Place, files: "_Files") -> Webhook:
    secret = files.webhook_secret((*place, "secret_file"), webhook.get("secret_file"))
    given = {name: value for name, value in webhook.items() if name != "secret_file"}
    words = json.dumps([given, secret.hex() if secret else None], sort_keys=True)
    if "topics" in given:
        given["topics"] = tuple(given["topics"])
    return Webhook(**given, secret=secret, digest=hashlib.sha256(words.encode()).hexdigest()[:32])


# ---- the files that it names -----------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """The file itself. What it names is run and called in the operator's name, so nobody else may write it."""
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is not a regular file")
        if facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & 0o022:
            raise ValueError("others can write it (it must be this account's own, and mode 0600 or 0644)")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return data.decode("utf-8-sig")


class _Files:
    """Files with one secret each: relative to the folder of hub.toml, of this account alone."""

    def __init__(self, folder: Path, problems: "_Problems") -> None:
        self._folder, self._problems = folder, problems

    def secret(self, place: Place, name: str | None) -> bytes | None:
        """What is in the file, without the line break at its end; None if none is named, or if it cannot be used."""
        if not name:
            return None
        try:
            return self._content(self._folder / name)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._problems.add(place, f"The file {name} cannot be used: {reason}.")
            return None

    def line(self, place: Place, name: str | None) -> str:
        """As text, "" where there is none."""
        data = self.secret(place, name) or b""
        if data and not (data.isascii() and data.decode().isprintable()):
            self._problems.add(place, f"The file {name} must hold one line of plain characters.")
            return ""
        return data.decode()

    def webhook_secret(self, place: Place, name: str | None) -> bytes | None:
        """The key of a webhook: `whsec_`, and base64 of 24 to 64 bytes."""
        text = self.line(place, name)
        if not text:
            return None
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(PREFIX) or len(key) not in SECRET_BYTES:
            self._problems.add(place, f"The file {name} must hold {PREFIX} and base64 of 24 to 64 bytes.")
        return key

    @staticmethod
    def _content(path: Path) -> bytes:
        """Stops a secret that other accounts can read, or have put there."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                raise ValueError("it is not a regular file of this account")
            if facts.st_mode & 0o077:
                raise ValueError(f"its mode is {stat.S_IMODE(facts.st_mode):04o}, others can see it: chmod 600")
            data = os.read(descriptor, LARGEST_SECRET).strip()
        finally:
            os.close(descriptor)
        if not data:
            raise ValueError("it is empty")
        return data


# ---- what is wrong ---------------------------------------------------------------------------------------------


class _Problems:
    """What is wrong with a file, by line."""

    def __init__(self, text: str, path: Path) -> None:
        self._lines, self._path = lines(text), path
        self._found: set[tuple[int, str]] = set()

    def add(self, place: Place, sentence: str) -> None:
        """Take one more: at the line of this place, or of the nearest table around it."""
        while place and place not in self._lines:
            place = place[:-1]
        self._found.add((self._lines.get(place, 1), sentence))

    def of_fields(self, messages: Mapping[Any, Any], place: Place = ()) -> None:
        """Take what marshmallow reports."""
        for key, inner in messages.items():
            here = place if key == "_schema" else (*place, key)
            if isinstance(inner, Mapping):
                self.of_fields(inner, here)
            else:
                for said in inner:
                    self.add(here, _sentence(here, str(said)))

    def end(self) -> None:
        """Raise BadFile if there were any."""
        if self._found:
            raise BadFile("\n".join(f"{self._path}:{line}: {sentence}" for line, sentence in sorted(self._found)))


_KNOWN: Mapping[Place, type[Schema]] = {
    (): _File,
    ("notify",): _Notify,
    ("notify", "rules"): _Rules,
    ("notify", "rule"): _Rule,
    ("notify", "channel"): _Channel,
    ("webhook",): _Webhook,
    ("github",): _GitHub,
}


def _sentence(place: Place, said: str) -> str:
    name = printable(redact_text(".".join(part for part in place if isinstance(part, str))))
    if said == "Unknown field.":
        table = tuple(part for part in place[:-1] if isinstance(part, str))
        schema = _KNOWN.get(table)
        return f"There is no setting {name}{(schema and suggestion(str(place[-1]), list(schema().fields))) or '.'}"
    if said == "Missing data for required field.":
        return f"{name} is missing."
    return f"{name}: {said}" if name else said


def printable(text: str) -> str:
    """A name of the file's on one line, and not longer than that."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
