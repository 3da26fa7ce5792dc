"""The hub as a program of its own."""

import asyncio
import contextlib
import functools
import gc
import logging
import resource
import socket
import ssl
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..commands.listing import connected
from ..config import Config, unknown_variables
from ..hub import Hub
from ..private import unused_removed
from ..stderr import set_up_logging, unhurried
from ..stdio import mention
from . import startup, workers
from .access import login
from .access.guard import refuse_bind
from .access.reader import LAST_SECONDS, answer_all, take_nothing_new
from .app import create_app, say_goodbye
from .keys import GUARD, HUB
from .listening import address, bind, cannot_listen
from .rereading import reread
from .sdnotify import Systemd
from .seats import READY, WORKERS, Seat, Workers
from .serverfile import announced
from .shutdown import Ending
from .tls import server_context
from .unkept import unkept
from .viewers import VIEWERS

log = logging.getLogger("hub")

# Accepted in one pass of the loop. Python 3.11 tries as often also when there are no descriptors left, each time with a
# line in the log and a timer: with the whole backlog the hub would do nothing else.
ACCEPTS = 4
READ_AHEAD = 64 * 1024  # bytes of a body that nobody reads yet, from which on the rest waits in its sender's socket
DESCRIPTORS = 2**20  # that this process takes at most, if the system lets it
LAST = 4.0  # seconds that a stop takes at most, beyond those that running calls get
# Python's own are five: whoever asks while a thread cleans a large body waits for that several times. Measured with a
# neighbour of one such body after the other: 7 ms, 28 before, and nothing lost where no thread works.
SWITCH_SECONDS = 0.001
BACKLOG = 2048  # a thousand clients that come back at once find room: 128 made that three times slower


def serve(config: Config) -> int:
    """Run a hub until SIGTERM or SIGINT; returns the exit status, 1 if code of the application keeps it from starting.

    Raises UsageError if it cannot start as asked.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    if config.demo:
        return _play(config)
    if config.workers > 1:
        return workers.run(config, _work)
    with unhurried(), unused_removed(config.state_dir):
        return _run(config)


def _play(config: Config) -> int:
    """Run a hub with a made-up life."""
    with unhurried(), unkept(config) as own:
        return _run(own)


def _work(config: Config, seat: Seat) -> int:
    """Run one of several workers, with a state directory of its own under that of all of them."""
    own: dict[str, Any] = {"state_dir": config.state_dir / f"worker-{seat.number}", "port": seat.port, "open": False}
    first = seat.number == 1
    own |= {"shared_dir": str(config.state_dir), "tells": first}
    if config.hub_id:
        own["hub_id"] = f"{config.hub_id[:61]}-{seat.number}"
    with unhurried():
        return _run(config.changed(**own), seat)


def _run(config: Config, seat: Seat | None = None) -> int:
    set_up_logging(config, seat and seat.number)
    _take_descriptors()
    for sentence in unknown_variables():
        log.warning("%s", sentence)
    refuse_bind(config)
    context = server_context(config)
    hub = Hub(config)
    if not startup.load(hub, (*config.load, *(["hub.demo"] if config.demo else []))):
        return 1
    port = contextlib.closing(bind(config, shared=seat is not None))
    with port as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(hub, sock, context, seat))


def _take_descriptors() -> None:
    """As many as the system lets this process have: clients, and the processes of agents, take one each. What most
    systems give at first is for programs that cannot have more than 1,024 (`select`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(hub: Hub, sock: socket.socket, context: ssl.SSLContext | None, seat: Seat | None) -> int:
    app = create_app(hub)
    if seat is not None:
        app[WORKERS] = Workers(seat, hub.metrics.registry)
    asked, systemd = asyncio.Event(), Systemd()
    ending = Ending(hub.config.stop_timeout + LAST, hub.end, asked.set)
    runner = _runner(app)
    url = hub.outward.url = address(hub.config, sock)  # before its start: that may have something to tell already
    if not await startup.begin(runner):
        return 1
    try:
        assert runner.server is not None
        app[GUARD].watch(runner.server)
        # Before anybody is let in: a client that comes back reads there whether this hub gets the token.
        with announced(hub, url) if seat is None else contextlib.nullcontext():
            server = await _listen(hub.config, runner.server, sock, context)
            hub.liveness.look_soon()
            _calm_collector()
            if seat is None:
                mention(f"hub is listening on {url}")
                _show(app, url)
            else:
                _take(app, seat, ending.asked.set)
            systemd.ready()
            reading = asyncio.get_running_loop().create_task(reread(app, context, asked, systemd))
            await ending.asked.wait()
            reading.cancel()
            systemd.stopping()
            log.info("stopping")
            server.close()
            await end_connections(app, runner.server)
    finally:
        await runner.cleanup()
    ending.done()
    return 0


async def end_connections(app: web.Application, server: web.Server) -> None:
    """Answer what was asked, and close all connections. While they still hear: aiohttp's own cleanup begins by not
    reading any more."""
    begun = time.monotonic()
    take_nothing_new(server)
    left = await say_goodbye(app)
    await answer_all(server, left, app[HUB].config.stop_timeout - (time.monotonic() - begun))
    await server.shutdown(LAST_SECONDS)


def _runner(app: web.Application) -> web.AppRunner:
    deadline = app[HUB].config.deadline
    return web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=deadline,  # also the time a request's head gets to arrive
        lingering_time=deadline,
        read_bufsize=READ_AHEAD,
        auto_decompress=False,  # what is encoded is refused; and one that cannot be unpacked is a traceback in the log
        shutdown_timeout=LAST_SECONDS,
    )


async def _listen(
    config: Config, server: web.Server, sock: socket.socket, context: ssl.SSLContext | None
) -> asyncio.Server:
    """Let clients in. Raises UsageError if another program has begun to listen there meanwhile."""
    listening = await asyncio.get_running_loop().create_server(
        server,
        sock=sock,
        backlog=ACCEPTS,
        ssl=context,
        ssl_handshake_timeout=config.deadline if context else None,
        start_serving=False,
    )
    try:
        await listening.start_serving()
    except OSError as error:
        raise cannot_listen(config, error) from None
    sock.listen(BACKLOG)
    return listening


def _take(app: web.Application, seat: Seat, stop: Callable[[], None]) -> None:
    """Take a seat among the workers of a port: their parent says where they are, and that they are there."""
    hub, others, viewers = app[HUB], app[WORKERS], app[VIEWERS]
    others.on_fetched = viewers.fetched_elsewhere
    others.on_clients = functools.partial(connected, hub)
    hub.clients.elsewhere, hub.metrics.gather = others.clients, others.counted
    viewers.on_unknown = lambda id: others.fetched(id, hub.cursor.seq)
    hub.spawn(others.answer)
    seat.watch(stop)
    seat.tell(READY)


def _show(app: web.Application, url: str) -> None:
    """Open the page if asked to; in token mode print the way to it."""
    tokens = app[GUARD].tokens
    if tokens is not None:
        login.invite(tokens, url)
    elif app[HUB].config.open:
        _open_browser(url)


def _open_browser(url: str) -> None:
    """In a thread that nobody waits for: some browsers come back when their window is closed."""

    def run() -> None:
        try:
            webbrowser.open(url)
        except Exception as error:
            log.warning("the page could not be opened in a browser: %s; open the address by hand", error)

    threading.Thread(target=run, name="hub-browser", daemon=True).start()


def _calm_collector() -> None:
    """What is there at the start stays: leave it out of every garbage collection, and collect less often. A full
    collection over thousands of clients is the longest stall of the loop (measured: 192 ms with 5,000)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
