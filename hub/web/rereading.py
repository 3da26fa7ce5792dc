"""What is read again at a SIGHUP: hub.toml with its limits, the token, the certificate. Each is told in a line."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from ..errors import UsageError
from ..tokens import FILES
from ..wire.vocabulary import Trust
from .keys import GUARD, HUB
from .sdnotify import Systemd
from .tls import renew

log = logging.getLogger("hub")


async def reread(app: web.Application, context: ssl.SSLContext | None, asked: asyncio.Event, systemd: Systemd) -> None:
    """Read all of it again whenever that is asked for. What cannot be used changes nothing, and the log says why; but a
    token that cannot be used lets nobody in."""
    tokens = app[GUARD].tokens
    said = dict(tokens.held()) if tokens is not None else {}
    steps: Mapping[str, Callable[[], Awaitable[None]]] = {
        "hub.toml": lambda: _read_file(app),
        "the token": lambda: _read_tokens(app, said),
        "the certificate": lambda: _read_certificate(app, context),
    }
    while True:
        await asked.wait()
        asked.clear()
        systemd.reloading()
        for what, step in steps.items():
            try:
                await step()
            except UsageError as error:
                for line in str(error).split("\n"):
                    log.error("%s is not used, and all stays as it was: %s", what, line)
            except Exception:  # a bug; the next time may be good
                log.exception("%s could not be read again, which is a bug of the hub; all stays as it was", what)
        systemd.ready()


async def _read_file(app: web.Application) -> None:
    hub = app[HUB]
    file = await hub.reload()
    log.info("hub.toml was read again: %s", file.summary)
    rate = f"{hub.config.rate} messages a second for each client" if hub.config.rate else "no limit of the rate"
    log.info("the limits are %s, %d clients at once", rate, hub.config.max_clients)


async def _read_tokens(app: web.Application, said: dict[Trust, bytes]) -> None:
    """`said`: the tokens that were good when this was told last. Between two times others look at the files, too."""
    tokens = app[GUARD].tokens
    if tokens is None:
        return
    is_told = tokens.refresh()
    before, now = dict(said), tokens.held()
    said.clear()
    said.update(now)
    if tokens.are_same and not is_told:
        tokens.tell_that_they_are_same()
    for trust, name in FILES.items():
        is_news = trust == "OPERATOR" or before.get(trust) != now.get(trust)
        if is_news and not (trust == "OPERATOR" and tokens.are_same):
            _tell(tokens.directory / name, before.get(trust), now.get(trust))


def _tell(file: Path, before: bytes | None, now: bytes | None) -> None:
    if now is None:
        log.error(
            "%s was read again: it has no token that can be used; nobody gets in with it until it has one: "
            "mend it, or make another one with hub token --new",
            file,
        )
    elif before == now:
        log.info("the token was read again: it is the same")
    elif before is None:
        log.info("%s was read again: it has a token now, which opens this hub", file)
    else:
        log.info("%s was read again: it is another token, and what the old one has opened is closed", file)


async def _read_certificate(app: web.Application, context: ssl.SSLContext | None) -> None:
    if context is not None:
        renew(context, app[HUB].config)
        log.info("the certificate was read again: new connections get it")
