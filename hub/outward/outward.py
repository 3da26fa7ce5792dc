"""All that the hub tells others by itself, put together: people by channels, programs by webhooks."""

import contextlib
from typing import Any

from ..config import Config
from ..configfile.shapes import ConfigFile
from ..errors import HubError
from ..stream.broadcaster import Broadcaster
from ..stream.bus import EventBus
from ..stream.state import State
from .notes import Notes
from .notify import Notifier
from .outgoing import Post, nowhere
from .webhooks import NOT_THERE, STATUS, Webhooks


class Outward:
    """What hub.toml says, at work. `post` is how a request gets out and `url` where the hub is reached, for the links
    in messages; both are set by whoever listens, before the start."""

    def __init__(self, config: Config, stream: Broadcaster, state: State, bus: EventBus) -> None:
        self.post: Post = nowhere
        self.url = ""
        self._bus, self._state, self._base = bus, state, ""
        self._told = Notes(config.state_dir / "notify.json")
        self._sent = Notes(config.state_dir / "webhooks.json")
        self.notifier = Notifier(stream, state, self._told, self._address)
        self.webhooks = Webhooks(stream, self._sent, self._tell)

    async def start(self, file: ConfigFile) -> None:
        """Go on where the last run has ended."""
        self._told.read()
        self._sent.read()
        await self.apply(file)
        await self._tell_of_removed({entry.name for entry in file.webhooks})

    async def apply(self, file: ConfigFile) -> None:
        """Do as this says from here on."""
        self._base = file.notify.url
        await self.notifier.apply(file.notify, self.post)
        await self.webhooks.apply(file.webhooks, self.post)

    def wake(self) -> None:
        """There are new events. Never waits."""
        self.notifier.wake()
        self.webhooks.wake()

    def problems(self) -> dict[str, str]:
        """Who cannot be told, and why."""
        return {**self.notifier.problems(), **self.webhooks.problems()}

    async def stop(self, seconds: float) -> None:
        """End; what is on its way has so long to be acknowledged."""
        await self.webhooks.stop(seconds)
        await self.notifier.stop()

    def _address(self) -> str:
        base = self._base or self.url
        return base if base.endswith("/") or not base else f"{base}/"

    async def _tell_of_removed(self, there: set[str]) -> None:
        """Those that were taken out of hub.toml while no hub ran: their last word was of how they were then. Only of
        this hub's own: others of the stream have theirs."""
        for name in self._sent.values.keys() - there:
            known = self._state.get(STATUS, name)
            if known is not None and known.data.get("status") != "off":
                with contextlib.suppress(HubError):
                    await self._tell(name, {"name": name, "status": "off", "reason": NOT_THERE})

    async def _tell(self, key: str, data: dict[str, Any]) -> None:
        await self._bus.keep(STATUS, key, data)
