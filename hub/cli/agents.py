"""What `hub doctor` says of agents: whether each is connected, and when it was last heard."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ..adapters.senders import AGENTS
from ..client.discovery import Disconnected, NoHub
from ..errors import HubError, UsageError
from .checks import ANSWER_TIMEOUT, Finding
from .connect import read
from .http import connection, pasted
from .installed import asked_by, connected
from .settings import settings_of


def agents(args: argparse.Namespace, *, is_open: bool) -> Iterator[Finding]:
    """A line for each agent that hub knows. That one is not connected is no problem."""
    heard = _heard(args) if is_open else None
    for agent in AGENTS:
        how, problem = _connected(agent)
        words = [how or f"Not connected ({pasted(args, 'connect', agent)})"]
        if heard is not None:
            words.append(f"last heard at {heard[agent]}" if agent in heard else "never heard")
        yield Finding(agent, f"{', '.join(words)}.", problem)


def _connected(agent: str) -> tuple[str, str | None]:
    """Which file has hub's hooks, and which hub they are led to, empty if it has none; and what is wrong with it."""
    try:
        file = settings_of(agent).file
        found = read(file.read_text("utf-8"))
        where = connected(found, agent)
        led = f", with {shlex.join(where)}" if where else ""
        asks = ", asks here for permissions" if asked_by(found.get("hooks"), agent) else ""
        return "" if where is None else f"Connected by {file}{led}{asks}", None
    except (OSError, UsageError):
        return "", None
    except ValueError as error:
        return "", f"hub cannot be written into {file}: {error}."


def _heard(args: argparse.Namespace) -> Mapping[str, str] | None:
    """When each agent has last said something that is still known; None if the hub does not say."""
    try:
        with connection(args, answer_timeout=ANSWER_TIMEOUT) as hub:
            found: Any = hub.ask("GET", "/hooks")
    except (HubError, NoHub, Disconnected):
        return None
    return {str(agent): str(at) for agent, at in found.items()} if isinstance(found, dict) else None
