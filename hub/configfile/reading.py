"""hub.toml: what cannot be a flag. Whom the hub tells of what, where it sends events, and which secrets it knows.

Read whole and checked whole before anything starts: a mistyped word is an error with its line, never a rule that
silently does nothing.
"""

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from ..config import Config
from ..spelling import suggestion
from .places import Place, deepest
from .problems import BadFile, Problems
from .schema import NEEDS, File
from .secretfiles import SecretFiles
from .shapes import BUILT_IN, Channel, ConfigFile, Notify, Rule, Webhook

NAME = "hub.toml"
LARGEST = 256 * 1024  # bytes of the file
LONG_NUMBER = re.compile(r"[0-9][0-9_]{4000}")  # that Python may not read


def read(config: Config) -> ConfigFile:
    """The file that `--config` names, else hub.toml in the state directory, if there is one. Raises BadFile."""
    path = Path(config.config) if config.config else config.common_dir / NAME
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
        raise BadFile(f"{path}:{deepest(text)}: This is not TOML that can be read: it is nested too deep.") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)$|\(at end of document\)$", str(error))
        line = (found and found[1]) or str(text.count("\n") + 1)
        said = str(error)[: found.start()].rstrip() if found else str(error)
        raise BadFile(f"{path}:{line}: This is not TOML: {said}.") from None
    except ValueError as error:  # a number of thousands of digits
        found = LONG_NUMBER.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise BadFile(f"{path}:{line}: This is not TOML that can be read: {error}.") from None
    problems = Problems(text, path)
    file = _read(values, path, problems)
    problems.end()
    return file


def _text(path: Path) -> str:
    """The file itself. What it names is run and called in the operator's name, so nobody else may write it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # to open a pipe would wait for a writer
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is not a regular file")
        if facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & 0o022:
            raise ValueError("others can write it (it must be this account's own, and mode 0600 or 0644)")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return data.decode("utf-8-sig")


def _read(values: Mapping[str, Any], path: Path, problems: Problems) -> ConfigFile:
    """Everything that can be looked at is, also when something else is wrong."""
    try:
        data = File().load(values)
    except ValidationError as error:
        problems.of_fields(error.normalized_messages())  # type: ignore[no-untyped-call]
        data = error.valid_data if isinstance(error.valid_data, dict) else {}
    notify = data.get("notify") or {}
    own = _entries(notify, "rule", ("notify", "rule"), problems)
    channels = _entries(notify, "channel", ("notify", "channel"), problems)
    webhooks = _entries(data, "webhook", ("webhook",), problems)
    known = {*BUILT_IN, *(rule["name"] for rule in own.values() if "name" in rule)}
    files = SecretFiles(path.parent, problems)
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
        limits=data.get("limits") or {},
    )


def _entries(table: Mapping[str, Any], name: str, place: Place, problems: Problems) -> dict[int, dict[str, Any]]:
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
    channel: Mapping[str, Any], place: Place, known: set[str], files: SecretFiles, problems: Problems
) -> Channel | None:
    for number, rule in enumerate(channel.get("rules", ())):
        if rule not in known:
            near = suggestion(rule, sorted(known)) or "."
            problems.add((*place, "rules", number), f"There is no rule {rule!r}{near}")
    if not {"name", "type"} <= channel.keys():
        return None
    needs, may = NEEDS[channel["type"]]
    for name in sorted(needs - channel.keys()):
        problems.add(place, f"A channel of type {channel['type']} needs {name}.")
    for name in sorted(channel.keys() - needs - may - {"name", "type", "rules"}):
        problems.add((*place, name), f"A channel of type {channel['type']} has no {name}.")
    if channel.get("argv", ["a program"])[0] == "":
        problems.add((*place, "argv", 0), "The first word of argv must name a program.")
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


def _webhook(webhook: Mapping[str, Any], place: Place, files: SecretFiles) -> Webhook:
    secret = files.webhook_secret((*place, "secret_file"), webhook.get("secret_file"))
    given = {name: value for name, value in webhook.items() if name != "secret_file"}
    words = json.dumps([given, secret.hex() if secret else None], sort_keys=True)
    if "topics" in given:
        given["topics"] = tuple(given["topics"])
    return Webhook(**given, secret=secret, digest=hashlib.sha256(words.encode()).hexdigest()[:32])
