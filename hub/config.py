"""Every setting: its default, its flag and its environment name, in one table."""

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import UsageError


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a hub keeps its events, its audit log and `server.json`: HUB_STATE_DIR, else `hub` under XDG_STATE_HOME."""
    if given := environ.get("HUB_STATE_DIR"):
        return Path(given)
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "hub"


def setting(default: Any, help: str, **flag: Any) -> Any:
    """One row of the table. `flag` goes to argparse; without it the setting is for embedders only."""
    return field(default=default, metadata={"help": help, **flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one hub. Each with a `kind` is also a flag (`--state-dir`) and a variable (`HUB_STATE_DIR`)."""

    host: str = setting("127.0.0.1", "address to listen on", kind=str)
    port: int = setting(3141, "port to listen on; 0 takes a free one", kind=int)
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
    heartbeat: float = setting(30.0, "seconds between pings", kind=float)
    rate: int = setting(1000, "messages or requests a second for each client; 0 means no limit", kind=int)
    max_clients: int = setting(10_000, "clients at once", kind=int)
    load: tuple[str, ...] = setting((), "import MODULE and call its setup(hub)", kind=list)
    demo: bool = setting(False, "publish a made-up life of agents and tasks", kind=bool)
    open: bool = setting(False, "open the page in the browser", kind=bool)
    log_level: str = setting("info", "least level", kind=str, choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "format of the log", kind=str, choices=("text", "json"))
    broker: str = setting("sqlite:", "where events are kept: sqlite: (the state directory) or memory:", kind=str)
    keep_events: int = setting(100_000, "newest events kept", kind=int)
    keep_bytes: int = setting(64 * 1024 * 1024, "bytes of events kept", kind=int)
    keep_seconds: float = setting(7 * 86400.0, "seconds that events are kept", kind=float)
    sync: str = setting("normal", "full: also power loss takes no event", kind=str, choices=("normal", "full"))

    max_frame: int = setting(64 * 1024, "bytes of one WebSocket message in")
    max_body: int = setting(1024 * 1024, "bytes of one HTTP body")
    max_batch: int = setting(1000, "events in one request")
    max_calls: int = setting(256, "calls of one client at once")
    call_timeout: float = setting(30.0, "seconds that a call may take")
    deadline: float = setting(10.0, "seconds for a handshake or a body to arrive")
    stop_timeout: float = setting(5.0, "seconds that running calls get when the hub stops")
    window_events: int = setting(10_000, "newest events kept in memory")
    window_bytes: int = setting(16 * 1024 * 1024, "bytes of events kept in memory")
    audit_file_bytes: int = setting(64 * 1024 * 1024, "bytes after which an audit file is closed", kind=int)
    audit_file_seconds: float = setting(86400.0, "seconds after which an audit file is closed", kind=float)
    audit_keep_files: int = setting(10, "closed audit files kept; 0 means all", kind=int)
    audit_keep_bytes: int = setting(0, "bytes of closed audit files kept; 0 means no limit", kind=int)
    audit_keep_seconds: float = setting(0.0, "age at which a closed audit file goes; 0 means never", kind=float)
    state_items: int = setting(10_000, "last values kept; the one longest unchanged goes first")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> "Config":
        """The defaults, then `HUB_…`, then what is `given`. Raises UsageError for a value that does not fit."""
        values = {
            f.name: _read(f"HUB_{f.name.upper()}", environ[f"HUB_{f.name.upper()}"], f.metadata)
            for f in flags()
            if environ.get(f"HUB_{f.name.upper()}")
        }
        return cls(**{**values, **given})

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{f.name} must be a finite number, not {value}.")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"The port must be between 0 and 65535, not {self.port}.")
        if self.rate < 0 or self.max_clients < 1:
            raise UsageError("The rate cannot be negative, and at least one client must be allowed.")
        audit = (self.audit_file_bytes, self.audit_file_seconds)
        if min(*audit, self.audit_keep_files, self.audit_keep_bytes, self.audit_keep_seconds) < 0:
            raise UsageError("The limits of the audit log cannot be negative.")
        if not 0.05 <= self.heartbeat <= 3600:
            raise UsageError("The heartbeat must be between 0.05 and 3600 seconds.")
        if self.keep_events < 1 or self.keep_bytes < 1 or self.keep_seconds <= 0:
            raise UsageError("At least one event, one byte and some time must be kept.")
        if self.ephemeral:
            object.__setattr__(self, "broker", "memory:")


def flags() -> list[Any]:
    """The rows that are flags and variables, in the table's order."""
    return [f for f in fields(Config) if "kind" in f.metadata]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser one flag for each setting; what is not given stays out of the namespace."""
    for f in flags():
        name, kind = "--" + f.name.replace("_", "-"), f.metadata["kind"]
        options: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS, "help": _help(f)}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif kind is list:
            options["action"] = "append"
            options["metavar"] = "MODULE" if f.name == "load" else "VALUE"
        else:
            options["type"] = kind
            options["choices"] = f.metadata.get("choices")
        parser.add_argument(name, **options)


def given(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings among what argparse read, as `Config.from_environment(**given(...))` takes them."""
    rows = {f.name: f for f in flags()}
    found = {name: value for name, value in vars(namespace).items() if name in rows}
    return {name: tuple(v) if rows[name].metadata["kind"] is list else v for name, v in found.items()}


def _help(f: Any) -> str:
    if f.metadata["kind"] in (bool, list) or f.default is MISSING or f.default == "":
        return str(f.metadata["help"])
    return f"{f.metadata['help']} ({f.default})"


def _read(variable: str, text: str, metadata: Mapping[str, Any]) -> Any:
    kind, choices = metadata["kind"], metadata.get("choices")
    if kind is bool:
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise UsageError(f"{variable} must be 1 or 0, not {text!r}.")
        return text.lower() in ("1", "true", "yes", "on")
    if kind is list:
        return tuple(part for part in text.replace(",", " ").split() if part)
    if choices and text not in choices:
        raise UsageError(f"{variable} must be one of {', '.join(choices)}, not {text!r}.")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{variable} must be of type {kind.__name__}, not {text!r}.") from None
