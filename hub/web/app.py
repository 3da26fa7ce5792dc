"""The aiohttp application of a hub, to be mounted; and the hub as a program of its own."""

import asyncio
import contextlib
import errno
import functools
import gc
import json
import logging
import os
import resource
import socket
import ssl
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from ..commands.listing import connected
from ..config import Config, unknown_variables
from ..errors import UsageError
from ..hub import Hub
from ..private import Unsafe, unused_removed, write_whole
from ..stderr import Seldom, set_up_logging, unhurried
from ..stdio import mention
from ..wire.messages import now
from ..wire.vocabulary import Refusal
from . import answers, api, health, hooks, outgoing, pings, sse, startup, streams, workers
from .access import login
from .access.guard import Guard, refuse_bind
from .documents import served
from .keys import GUARD, HUB
from .page import dashboard
from .rereading import reread
from .sdnotify import Systemd
from .seats import READY, WORKERS, Seat, Workers
from .shutdown import Ending
from .tls import server_context
from .viewers import VIEWERS
from .ws import connection

log = logging.getLogger("hub")

# Accepted in one pass of the loop. Python 3.11 tries as often also when there are no descriptors left, each time with a
# line in the log and a timer: with the whole backlog the hub would do nothing else.
ACCEPTS = 4
LEAST, MOST = 0.1, 1.0  # seconds that half a request gets at the end, what clients have used up of the time taken off
DESCRIPTORS = 2**20  # that this process takes at most, if the system lets it
RETRY = 1.0  # seconds between two tries to write where the hub can be found, when the disk is full
LAST = 4.0  # seconds that a stop takes at most, beyond those that running calls get
BACKLOG = 2048  # a thousand clients that come back at once find room: 128 made that three times slower


def create_app(hub: Hub, url: str | None = None) -> web.Application:
    """The hub as an aiohttp application: run it, or mount it with `add_subapp`. It starts and stops the hub.

    `url`: where programs of this machine reach it, its prefix included; then the command line and `HubClient` find it
    by its state directory.
    """
    app = web.Application(middlewares=[answers.errors], client_max_size=hub.config.max_body)
    app[HUB] = hub
    guard = Guard(hub.config, refused=functools.partial(_refused, hub, Seldom(log)), limit=api.limit(hub))
    guard.protect(app)
    app[GUARD] = guard
    api.setup(app)
    hooks.setup(app)
    pings.setup(app)
    streams.setup(app)
    connection.setup(app)
    sse.setup(app)
    health.setup(app)
    dashboard.setup(app)
    served.setup(app)
    app.cleanup_ctx.append(outgoing.client)
    app.cleanup_ctx.append(_life)
    if url is not None:
        app.cleanup_ctx.append(functools.partial(_findable, f"{url.rstrip('/')}/"))
    if guard.tokens:
        login.setup(app)
    app.on_shutdown.append(_shutdown)
    return app


async def _life(app: web.Application) -> AsyncIterator[None]:
    await app[HUB].start()
    yield
    await app[HUB].stop()


async def _findable(url: str, app: web.Application) -> AsyncIterator[None]:
    with _announced(app[HUB], url):
        yield


async def _shutdown(app: web.Application) -> None:
    await _say_goodbye(app)


async def _say_goodbye(app: web.Application) -> float:
    """Answer what runs, then say goodbye; open connections would hold up aiohttp's own shutdown.

    Return the seconds that are left for half a request.
    """
    hub = app[HUB]
    await hub.commands.stop(hub.config.stop_timeout)
    hub.broadcaster.flush()
    return await streams.goodbye(app)


def _refused(hub: Hub, seldom: Seldom, reason: Refusal, address: str) -> None:
    """Counted, and noted in the log and the audit log: one line and one record a second at most."""
    hub.metrics.refused(reason)
    seldom.info(f"refused a request from {address}: {reason}")
    actor = {"client": None, "peer": address, "uid": None}
    hub.audit.note("client.refused", actor, "NONE", {"reason": reason}, key="client.refused")


# ---- as a program


def serve(config: Config) -> int:
    """Run a hub until SIGTERM or SIGINT; returns the exit status, 1 if code of the application keeps it from starting.

    Raises UsageError if it cannot start as asked.
    """
    if config.workers > 1:
        return workers.run(config, _url, _work)
    with unhurried(), unused_removed(config.state_dir):
        return _run(config)


def _work(config: Config, seat: Seat) -> int:
    """Run one of several workers, with a state directory of its own under that of all of them."""
    own: dict[str, Any] = {"state_dir": config.state_dir / f"worker-{seat.number}", "port": seat.port, "open": False}
    first = seat.number == 1
    own |= {"shared_dir": str(config.state_dir), "tells": first, "demo": config.demo and first}
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
    option = socket.SO_REUSEADDR if seat is None else socket.SO_REUSEPORT
    with contextlib.closing(_bind(config, option)) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
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
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=hub.config.deadline,  # also the time a request's head gets to arrive
        lingering_time=hub.config.deadline,
        auto_decompress=False,  # what is encoded is refused; and one that cannot be unpacked is a traceback in the log
        shutdown_timeout=LEAST,
    )
    if not await startup.begin(runner):
        return 1
    try:
        assert runner.server is not None
        app[GUARD].watch(runner.server)
        loop, limit = asyncio.get_running_loop(), hub.config.deadline if context else None
        server = await loop.create_server(
            runner.server, sock=sock, backlog=ACCEPTS, ssl=context, ssl_handshake_timeout=limit, start_serving=False
        )
        url = _url(hub.config, sock)
        # Before anybody is let in: a client that comes back reads there whether this hub gets the token.
        with _announced(hub, url) if seat is None else contextlib.nullcontext():
            try:
                await server.start_serving()
            except OSError as error:  # another program has begun to listen there meanwhile
                raise _cannot_listen(hub.config, error) from None
            sock.listen(BACKLOG)
            _calm_collector()
            if seat is None:
                mention(f"hub is listening on {url}")
                _show(app, url)
            else:
                _take(app, seat, url, ending.asked.set)
            systemd.ready()
            reading = asyncio.get_running_loop().create_task(reread(app, context, asked, systemd))
            await ending.asked.wait()
            reading.cancel()
            systemd.stopping()
            log.info("stopping")
            server.close()
            # While connections still hear: aiohttp's own cleanup begins by not reading any more.
            left = await _say_goodbye(app)
            await runner.server.shutdown(max(LEAST, min(left, MOST)))
    finally:
        await runner.cleanup()
    ending.done()
    return 0


def _take(app: web.Application, seat: Seat, url: str, stop: Callable[[], None]) -> None:
    """Take a seat among the workers of a port: their parent says where they are, and that they are there."""
    app[HUB].outward.url = url
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


def _bind(config: Config, option: int) -> socket.socket:
    """The port, before anything else is taken. Raises UsageError."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        sock.bind((config.host, config.port))
    except OSError as error:
        sock.close()
        raise _cannot_listen(config, error) from None
    sock.setblocking(False)
    return sock


def _cannot_listen(config: Config, error: OSError) -> UsageError:
    taken = error.errno == errno.EADDRINUSE
    why = "another program listens there; stop it or choose --port" if taken else error.strerror
    return UsageError(f"Cannot listen on {config.host} port {config.port}: {why}.")


def _url(config: Config, sock: socket.socket) -> str:
    """Where programs of this machine reach the hub; of all addresses, the loopback one."""
    port = sock.getsockname()[1]
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http{'s' * bool(config.tls_cert)}://{f'[{host}]' if ':' in host else host}:{port}/"


@contextlib.contextmanager
def _announced(hub: Hub, url: str) -> Iterator[None]:
    """`server.json` beside the audit log, for as long as the hub listens: the way to find it."""
    path, later = Path(hub.config.state_dir) / "server.json", None
    hub.outward.url = url
    told = {"url": url, "pid": os.getpid(), "version": hub.version, "started": now()}
    data = (json.dumps(told) + "\n").encode()
    try:
        write_whole(path, data)
    except (OSError, Unsafe) as error:
        if not _is_for_a_while(error):
            raise UsageError(f"Programs could not find this hub: {error}.") from None
        log.warning("programs cannot find this hub yet: %s; until there is room they need --url", error)
        path.unlink(missing_ok=True)  # nobody is sent to where a hub of before was
        later = asyncio.get_running_loop().create_task(_announce_later(path, data))
    try:
        yield
    finally:
        if later is not None:
            later.cancel()
        _withdraw(path, data)


def _withdraw(path: Path, data: bytes) -> None:
    """Only its own word: in a directory that was removed under it, another hub may have been started since."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            path.unlink()


async def _announce_later(path: Path, data: bytes) -> None:
    """The disk is full: say where the hub is as soon as there is room."""
    while True:
        await asyncio.sleep(RETRY)
        try:
            write_whole(path, data)
        except OSError as error:
            if not _is_for_a_while(error):
                log.error("programs cannot find this hub: %s; mend that and restart it, or name it with --url", error)
                return
        else:
            log.warning("programs can find this hub now; --url is not needed any more")
            return


def _is_for_a_while(error: Exception) -> bool:
    """Whether the disk may have room again. That is no reason not to start."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
