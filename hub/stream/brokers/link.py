"""A hub's two connections to one run of a Redis, with the library in it."""

from importlib import resources

from .connection import Away, Connection, Refused, Server

LIBRARY = "library.lua", "peers.lua"  # one behind the other they are one


class Link:
    """One connection on which the newest events come, one for all that a hub asks and publishes. They end together."""

    def __init__(self, run: str, asks: Connection, news: Connection) -> None:
        self.run, self.asks, self.news = run, asks, news
        asks.on_cut = news.on_cut = self.close

    @classmethod
    async def make(cls, server: Server) -> "Link":
        """Connect. Raises Away, Refused."""
        made = list[Connection]()
        try:
            for _ in range(2):
                made.append(await server.connect())
            runs = [await run_of(connection) for connection in made]
            if runs[0] != runs[1]:
                raise Away(f"Redis at {server.place} is being replaced by another.")
            await _load(made[0])
            await _try(made[0])
        except BaseException:
            for connection in made:
                connection.close()
            raise
        return cls(runs[0], *made)

    def close(self, reason: Exception | None = None) -> None:
        """Cut both. Never waits."""
        self.asks.close(reason)
        self.news.close(reason)


async def run_of(connection: Connection) -> str:
    """Return which run of the server this is: another one may have lost what was last written."""
    info: bytes = await connection.send("INFO", "server")
    return next((line[7:] for line in info.decode().split() if line.startswith("run_id:")), "")


async def _load(connection: Connection) -> None:
    """See to it that the server has the functions of this hub's version."""
    code = b"\n".join(resources.files(__package__).joinpath(name).read_bytes() for name in LIBRARY)
    found = await connection.send("FUNCTION", "LIST", "LIBRARYNAME", "hub", "WITHCODE")
    if not any(code in library for library in found):
        await connection.send("FUNCTION", "LOAD", "REPLACE", code)


async def _try(connection: Connection) -> None:
    """See to it that nothing is refused in its middle. What the server takes nothing for just now is no reason to stay
    away: it may be read."""
    try:
        await connection.run("hub_try", keys=[f"{{{connection.server.prefix}}}:try"])
    except Refused as error:
        if error.name in ("", "NOPERM"):
            raise
