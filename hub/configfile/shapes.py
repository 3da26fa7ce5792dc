"""What stands in hub.toml, read and checked: whom to tell of what, where to send events, which secrets are known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..wire.vocabulary import ChannelType

BUILT_IN = ("question", "task_failed", "task_succeeded", "agent_error", "stale")

Format = Literal["standard", "cloudevents"]


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
    limits: Mapping[str, int] = field(default_factory=dict)  # settings that a running hub can change

    @property
    def summary(self) -> str:
        """How much it says of whom to tell."""
        if self.path is None:
            return "there is none"
        return f"{_counted(len(self.notify.channels), 'channel')}, {_counted(len(self.webhooks), 'webhook')}"

    def __str__(self) -> str:
        if self.path is None:
            return "There is no hub.toml: nobody is told of anything, and no webhook is sent."
        return f"{self.path} is good: {self.summary}."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
