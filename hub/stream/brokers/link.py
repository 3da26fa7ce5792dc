"""A hub's two connections to one run of a Redis, with the library in it."""

import os
from collections.abc import Sequence
from importlib import resources

from .broker import Limits
from .connection import Connection
from .entries import FACTS, Stream
from .server import KINDS, Away, Refused, Server

# One behind the other they are one.
LIBRARY = "library.lua", "events.lua", "reading.lua", "opening.lua", "peers.lua", "calls.lua"


class Link:
    """One connection on which the newest events come, one for all that a hub asks and publishes. They end together."""

    def __init__(self, run: str, eviction: str, asks: Connection, news: Connection) -> None:
        self.run, self.asks, self.news = run, asks, news
        self.eviction = eviction  # what the server throws away when its memory is full, by its own name for that
        asks.on_cut = news.on_cut = self.close

    @classmethod
    async def make(cls, server: Server) -> "Link":
        """Connect. Raises Away, Refused."""
        made = list[Connection]()
        try:
            for _ in range(2):
                made.append(await Connection.make(server))
            runs = [await run_of(connection) for connection in made]
            if runs[0] != runs[1]:
                raise Away(f"Redis at {server.place} is being replaced by another.")
            await _load(made[0])
            await _try(made[0])
            eviction = await _info(made[0], "memory", "maxmemory_policy")
        except BaseException:
            for connection in made:
                connection.close()
            raise
        return cls(runs[0], eviction, *made)

    async def open(self, seen: Sequence[str | int], limits: Limits, state: Limits) -> Stream:
        """Return which stream there is, for a hub that has `seen` that much of it (`Witness.words`): in another epoch
        where something may be lost, and a new one of these limits where there is none. Raises Away, Refused, Moved."""
        facts = await self.asks.run("hub_look", self.run, *seen)
        if facts[FACTS] == b"1":  # the server itself judges once more, for all who ask
            kept = limits.events, limits.bytes, str(limits.seconds or 0), state.events, state.bytes
            facts = await self.asks.run("hub_open", self.run, os.urandom(4).hex(), *kept, *seen)
        return Stream.read(facts)

    def close(self, reason: Exception | None = None) -> None:
        """Cut both. Never waits."""
        self.asks.close(reason)
        self.news.close(reason)


async def run_of(connection: Connection) -> str:
    """Return which run of the server this is: another one may have lost what was last written."""
    return await _info(connection, "server", "run_id")


async def _info(connection: Connection, section: str, name: str) -> str:
    info: bytes = await connection.send("INFO", section)
    return dict(line.partition(":")[::2] for line in info.decode().splitlines()).get(name, "")


async def _load(connection: Connection) -> None:
    """See to it that the server has the functions of this hub's version. Raises Refused where another program has a
    library of this name: to replace it would end that."""
    code = b"\n".join(resources.files(__package__).joinpath(name).read_bytes() for name in LIBRARY)
    found = await connection.send("FUNCTION", "LIST", "LIBRARYNAME", "hub", "WITHCODE")
    if any(code in library for library in found):
        return
    if found and b"'hub_look'" not in found[0][-1]:
        raise connection.server.foreign_library()
    await connection.send("FUNCTION", "LOAD", "REPLACE", code)


async def _try(connection: Connection) -> None:
    """See to it that nothing is refused in its middle, and that no key is another program's. What the server takes
    nothing for just now is no reason to stay away: it may be read."""
    keys = [connection.server.key(name) for name in ("try", *KINDS)]
    try:
        await connection.run("hub_try", *KINDS.values(), keys=keys)
    except Refused as error:
        if error.name in ("", "NOPERM", "FOREIGN"):
            raise
