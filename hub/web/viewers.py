"""Who looks at the page, as far as the hub tells them: that something they show is newer, once, until they fetch it.

A viewer sets its own pace. It is told of news by one `hub:page`, and of no more before it has fetched: so it cannot
lag, a hidden tab costs nothing, and a gap, a restart and a hidden tab are one thing to it: "I have this, give me what
is newer".
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import web

from ..commands.clients import Client
from ..wire.framing import notice

BEAT = 10.0  # seconds after which a viewer is told also that nothing is newer


class Viewer:
    """One page that is open. `looks_at`: what it shows, None for all of the page. `knows`: the versions that it has or
    was told of, by panel."""

    __slots__ = ("id", "is_free", "knows", "looks_at", "position", "send", "told_at")

    def __init__(self, id: str, send: Callable[[bytes], None]) -> None:
        self.id, self.send = id, send
        self.looks_at: Mapping[str, Any] | None = None
        self.knows: dict[str, str] = {}
        self.is_free = True  # it has fetched what it was told of
        self.told_at, self.position = 0.0, 0  # when it was told last, and where the stream was


class Viewers:
    """All pages that are open. `on_free()` is called when one of them may be told of news again."""

    def __init__(self) -> None:
        self.on_free: Callable[[], None] = lambda: None
        self.on_unknown: Callable[[str], None] = lambda id: None  # somebody has fetched who is no viewer here
        self._viewers: dict[str, Viewer] = {}

    def join(self, client: Client, send: Callable[[bytes], None]) -> None:
        """Take in a page's WebSocket."""
        self._viewers[client.id] = Viewer(client.id, send)
        self.on_free()

    def leave(self, client: Client) -> None:
        """Let one go; whoever never joined is no error."""
        self._viewers.pop(client.id, None)

    def fetched(self, id: str, versions: Mapping[str, str], looks_at: Mapping[str, Any] | None = None) -> None:
        """The viewer has fetched these versions. With `looks_at`, by panel, it shows no more than what it has named so.
        An id that nobody has is passed over: that page has gone, or is told of news by another worker of this port."""
        viewer = self._viewers.get(id)
        if viewer is None and id:
            self.on_unknown(id)
        if viewer is not None:
            viewer.is_free = True
            if looks_at is not None:
                viewer.looks_at = {**(viewer.looks_at or {}), **looks_at}
            viewer.knows.update(versions)
            self.on_free()

    def fetched_elsewhere(self, id: str, position: int) -> None:
        """The viewer has fetched from another worker, which was at this position of the stream: what is newer it is
        told of, and all of it once more where that worker was behind. An id that nobody has is passed over."""
        viewer = self._viewers.get(id)
        if viewer is not None:
            viewer.is_free = True
            if position < viewer.position:
                viewer.knows.clear()
            self.on_free()

    def free(self) -> Iterator[Viewer]:
        """Those who may be told of news."""
        return (viewer for viewer in list(self._viewers.values()) if viewer.is_free)

    def tell(self, viewer: Viewer, versions: Mapping[str, str], cursor: str) -> None:
        """Tell the viewer which versions there are, if there is a newer one, or if it has heard nothing for a while."""
        now = time.monotonic()
        has_all = all(viewer.knows.get(name) == version for name, version in versions.items())
        if has_all and now - viewer.told_at < BEAT:
            return
        viewer.is_free, viewer.told_at = False, now
        viewer.knows = dict(versions)
        viewer.position = int(cursor.rpartition(":")[2])
        viewer.send(notice("hub:page", {"viewer": viewer.id, "panels": viewer.knows, "cursor": cursor}))

    def __contains__(self, id: object) -> bool:
        return id in self._viewers

    def __len__(self) -> int:
        return len(self._viewers)


VIEWERS: web.AppKey[Viewers] = web.AppKey("viewers", Viewers)
