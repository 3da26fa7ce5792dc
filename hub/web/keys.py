"""What the parts of the application share: the hub itself, and the routes that the guard treats in their own way."""

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from ..hub import Hub
    from .access.connections import Accepted
    from .access.guard import Guard
    from .access.opened import Running
    from .access.peer import Peer
    from .room import Coming

HUB: "web.AppKey[Hub]" = web.AppKey("hub")
COMING: "web.AppKey[Coming]" = web.AppKey("coming")  # the bodies whose turn has not come yet
GUARD: "web.AppKey[Guard]" = web.AppKey("guard")
PEER: "web.RequestKey[Peer]" = web.RequestKey("peer")  # who was let in
RUNNING: "web.RequestKey[Running]" = web.RequestKey("running")  # that ends with the token which has let it in
SEEN: "web.RequestKey[Accepted]" = web.RequestKey("seen")  # what the guard knows of the connection

OPEN_ROUTES = frozenset({"metrics", "healthz"})  # names of the routes that every local account may read
MACHINE = "Hub-Machine"  # header of a request that names processes: where they are, as `processes.machine` says it
LOGIN_ROUTE = "login"  # name of the route where a one-time code stands in the place of a token
