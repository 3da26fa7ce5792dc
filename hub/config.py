"""Every setting: its range, its default, its flag and its environment name, in one table."""

import argparse
import copy
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from .brokerurl import has_password, refuse_two, url_in
from .errors import UsageError
from .spelling import suggestion
from .statedir import state_directory

# More than these is a mistake, or nothing that a machine can do.
MANY = 10**9
STORED = 2**50  # bytes on disk
HELD = 2**40  # bytes in memory
CLIENTS = ("HUB_TOKEN", "HUB_CA", "HUB_URL")  # variables that only clients read
KINDS = {int: "a whole number", float: "a number"}
CENTURY = 100 * 366 * 86400.0  # seconds


class Range(NamedTuple):
    """The numbers that a setting can have, both ends included."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"between {shown(self.least)} and {shown(self.most)}"


def shown(number: float) -> str:
    """Return a number as a person writes it."""
    return str(int(number)) if number == int(number) else repr(number)


def setting(default: Any, help: str, range: Range | None = None, **flag: Any) -> Any:
    """One row of the table. `flag` goes to argparse; without it the setting is for embedders only."""
    return field(default=default, metadata={"help": help, "range": range, **flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one hub. Each with a `kind` is also a flag (`--state-dir`) and a variable (`HUB_STATE_DIR`)."""

    host: str = setting("127.0.0.1", "address to listen on", kind=str)
    port: int = setting(3141, "port to listen on; 0 takes a free one", Range(0, 65535), kind=int)
    state_dir: Path = field(
        default_factory=state_directory,
        metadata={"help": "folder of the events, the audit log and server.json", "kind": Path},
    )
    ephemeral: bool = setting(False, "keep events in memory only, as --broker memory:", kind=bool)
    auth: str = setting(
        "", "who gets in (local where the system says whose a connection is)", kind=str, choices=("local", "token")
    )
    allow_host: tuple[str, ...] = setting((), "a further Host name, NAME[:PORT]", kind=list)
    allow_origin: tuple[str, ...] = setting((), "a further Origin, SCHEME://HOST[:PORT]", kind=list)
    trusted_proxy: tuple[str, ...] = setting((), "address or network of a reverse proxy in front of the hub", kind=list)
    tls_cert: str = setting("", "certificate file (PEM)", kind=str)
    tls_key: str = setting("", "private key file (PEM)", kind=str)
    heartbeat: float = setting(30.0, "seconds between pings", Range(0.05, 3600), kind=float)
    rate: int = setting(
        1000, "messages or requests a second for each client; 0 means no limit", Range(0, MANY), kind=int
    )
    max_clients: int = setting(10_000, "clients at once", Range(1, MANY), kind=int)
    workers: int = setting(1, "processes on the one port; several need --broker redis://…", Range(1, 64), kind=int)
    load: tuple[str, ...] = setting((), "import MODULE and call its setup(hub)", kind=list)
    config: str = setting(
        "", "hub.toml: whom to tell, webhooks, secrets; else the one in the state directory", kind=str
    )
    demo: bool = setting(False, "publish a made-up life of agents and tasks, and keep nothing of it", kind=bool)
    open: bool = setting(False, "open the page in the browser", kind=bool)
    log_level: str = setting("info", "least level", kind=str, choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "format of the log", kind=str, choices=("text", "json"))
    broker: str = field(
        default="sqlite:",
        repr=False,  # it may have a password
        metadata={"help": "where events are kept: sqlite:, memory:, redis://…, rediss://…, unix://…", "kind": str},
    )
    broker_file: str = setting("", "file with the URL of the broker, when it has a password", kind=str)
    hub_id: str = setting("", "name of this hub among those of one stream", kind=str)
    keep_events: int = setting(100_000, "newest events kept", Range(1, MANY), kind=int)
    keep_bytes: int = setting(64 * 1024 * 1024, "bytes of events kept", Range(1, STORED), kind=int)
    keep_seconds: float = setting(7 * 86400.0, "seconds that events are kept", Range(0.001, CENTURY), kind=float)
    sync: str = setting("normal", "full: also power loss takes no event", kind=str, choices=("normal", "full"))

    shared_dir: str = setting("", "folder of server.json, the token and hub.toml, if that is not the state directory")
    tells: bool = setting(True, "tell others what hub.toml says: of several workers one does")
    ends: str = setting(
        "take",
        "how programs ended: take what they have left beside server.json, leave there what one is told, or neither",
        choices=("take", "leave", "ignore"),
    )

    max_frame: int = setting(64 * 1024, "bytes of one WebSocket message in", Range(125, HELD))
    max_body: int = setting(1024 * 1024, "bytes of one HTTP body", Range(1, HELD))
    max_batch: int = setting(1000, "events in one request", Range(1, MANY))
    max_calls: int = setting(256, "calls of one client at once", Range(1, MANY))
    call_timeout: float = setting(30.0, "seconds that a call may take", Range(0.001, CENTURY))
    deadline: float = setting(10.0, "seconds for a handshake or a body to arrive", Range(0.001, 3600))
    stop_timeout: float = setting(5.0, "seconds that running calls get when the hub stops", Range(0, 3600))
    window_events: int = setting(10_000, "newest events kept in memory", Range(0, MANY))
    window_bytes: int = setting(16 * 1024 * 1024, "bytes of events kept in memory", Range(0, HELD))
    audit_file_bytes: int = setting(
        64 * 1024 * 1024, "bytes after which an audit file is closed", Range(0, STORED), kind=int
    )
    audit_file_seconds: float = setting(
        86400.0, "seconds after which an audit file is closed", Range(0, CENTURY), kind=float
    )
    audit_keep_files: int = setting(10, "closed audit files kept; 0 means all", Range(0, MANY), kind=int)
    audit_keep_bytes: int = setting(0, "bytes of closed audit files kept; 0 means no limit", Range(0, STORED), kind=int)
    audit_keep_seconds: float = setting(
        0.0, "age at which a closed audit file goes; 0 means never", Range(0, CENTURY), kind=float
    )
    state_items: int = setting(
        10_000, "last values kept; the one longest unchanged goes first", Range(1, MANY), kind=int
    )
    state_bytes: int = setting(64 * 1024 * 1024, "bytes of last values kept", Range(1, HELD), kind=int)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> "Config":
        """The defaults, then `HUB_…`, then what is `given`. Raises UsageError for a value that does not fit."""
        values = {f.name: _read(_variable(f), environ[_variable(f)], f) for f in flags() if environ.get(_variable(f))}
        refuse_two(values | given)
        return cls(**{**values, **given})

    @property
    def common_dir(self) -> Path:
        """The folder of what all workers of one port have in common: the token, hub.toml."""
        return Path(self.shared_dir) if self.shared_dir else self.state_dir

    def changed(self, **values: Any) -> "Config":
        """The same with these values, which have been checked. No file is read again."""
        found = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(found, name, value)
        return found

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f.name, getattr(self, f.name), f)
        object.__setattr__(self, "state_dir", Path(self.state_dir))  # from Python also a text
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", self.hub_id):  # it stands in names of the store
            raise UsageError(f"hub_id must be up to 64 letters, digits, dots, - and _, not {self.hub_id[:80]!r}.")
        # The default cannot be told from what was given here; `from_environment` can.
        refuse_two({f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default})
        if self.broker_file:
            object.__setattr__(self, "broker", url_in(self.broker_file))
        if self.ephemeral:
            object.__setattr__(self, "broker", "memory:")


def check(name: str, value: Any, row: Any) -> None:
    """Raise UsageError, one sentence, for a value that its row does not allow."""
    range, choices = row.metadata.get("range"), row.metadata.get("choices")
    if row.type in (int, float) and not _is_number(value, whole=row.type is int):
        raise UsageError(f"{name} must be {KINDS[row.type]}, not {value!r}.")
    if range and not range.least <= value <= range.most:
        raise UsageError(f"{name} must be {range}, not {value}.")
    if choices and value not in (*choices, row.default):
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    if any("\0" in str(text) for text in (value if isinstance(value, tuple | list) else (value,))):
        raise UsageError(f"{name} must not hold the character U+0000: the system takes no text that has it.")
    if row.metadata.get("kind") is list and isinstance(value, str):
        raise UsageError(f"{name} must be a list of texts, not the text {value!r}.")


def _is_number(value: Any, *, whole: bool) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)


def flags() -> list[Any]:
    """The rows that are flags and variables, in the table's order."""
    return [f for f in fields(Config) if "kind" in f.metadata]


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like a setting and is none."""
    known = [*(_variable(f) for f in flags()), *CLIENTS]
    return [
        f"{name} is no setting of the hub{suggestion(name, known) or '.'}"
        for name in sorted(environ)
        if name.startswith("HUB_") and name not in known
    ]


# As `--help` shows the flags.
GROUPS: Mapping[str, str] = {
    "where it listens": "host port tls_cert tls_key open",
    "who gets in": "auth allow_host allow_origin trusted_proxy",
    "how much at once": "rate max_clients heartbeat workers",
    "what it runs": "load demo config",
    "its log": "log_level log_format",
    "what it keeps": "state_dir ephemeral broker broker_file hub_id sync keep_events keep_bytes keep_seconds "
    "state_items state_bytes",
    "its audit log": "audit_file_bytes audit_file_seconds audit_keep_files audit_keep_bytes audit_keep_seconds",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser one flag for each setting; what is not given stays out of the namespace."""
    rows = {f.name: f for f in flags()}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            _add_flag(group, rows.pop(name))
    assert not rows, f"{', '.join(rows)}: in none of the GROUPS"


def _add_flag(group: Any, f: Any) -> None:
    options: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS, "help": _help(f)}
    if f.metadata["kind"] is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["action"] = "append" if f.metadata["kind"] is list else "store"
        options["metavar"] = _metavar(f)
    group.add_argument(_flag(f), **options)


def given(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings among what argparse read, as `Config.from_environment(**given(...))` takes them. Raises UsageError
    for a value that does not fit."""
    found = {f.name: (f, getattr(namespace, f.name)) for f in flags() if hasattr(namespace, f.name)}
    if "broker" in found and has_password(found["broker"][1]):  # everybody can read it there
        raise UsageError("The URL of the broker has a password: give it in HUB_BROKER, or in a file (--broker-file).")
    return {name: _read(f"{_flag(f)} ({_variable(f)})", value, f) for name, (f, value) in found.items()}


def _flag(f: Any) -> str:
    return "--" + str(f.name).replace("_", "-")


def _variable(f: Any) -> str:
    return f"HUB_{f.name.upper()}"


def _metavar(f: Any) -> str:
    if choices := f.metadata.get("choices"):
        return f"{{{','.join(choices)}}}"
    if f.name.startswith("tls_") or f.name in ("config", "broker_file"):
        return "FILE"
    named = {int: "N", float: "SECONDS", Path: "DIR", list: "MODULE" if f.name == "load" else "VALUE"}
    return named.get(f.metadata["kind"], str(f.name).upper())


def _help(f: Any) -> str:
    default = f.metadata["kind"] not in (bool, list) and f.default is not MISSING and f.default != ""
    return f"{f.metadata['help']} ({_variable(f)}{f'; {f.default}' if default else ''})"


def _read(name: str, text: Any, f: Any) -> Any:
    """The value that a text means. Raises UsageError, with the setting as whoever wrote it calls it."""
    value = _value(name, text, f)
    check(name, value, f)
    return value


def _value(name: str, text: Any, f: Any) -> Any:
    kind = f.metadata["kind"]
    if kind is bool and isinstance(text, str):
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise UsageError(f"{name} must be 1 or 0, not {text!r}.")
        return text.lower() in ("1", "true", "yes", "on")
    if kind is list:
        return tuple(text) if isinstance(text, list) else tuple(text.replace(",", " ").split())
    if kind is Path and not text:
        raise UsageError(f"{name} must be a folder, not an empty text.")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name} must be {KINDS[kind]}, not {text!r}.") from None
