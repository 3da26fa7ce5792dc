"""Somebody who is told: a real HTTP server that notes what it gets, and answers as it is told to."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from sites import listening

ANSWERED = Callable[[int], web.Response]  # of so many requests before it


@dataclass
class Got:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """What has come, and which ids were acknowledged, in order."""

    url: str
    answer: ANSWERED
    got: list[Got] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        got = Got({name.lower(): value for name, value in request.headers.items()}, await request.read())
        self.got.append(got)
        response = self.answer(len(self.got) - 1)
        if 200 <= response.status < 300:
            self.taken.append(got.headers.get("webhook-id", ""))
        return response


def good(before: int) -> web.Response:
    return web.Response()


@asynccontextmanager
async def receiver(answer: ANSWERED = good, port: int = 0) -> AsyncIterator[Receiver]:
    """A server on a free port, or on this one."""
    app = web.Application()
    found = Receiver("", answer)
    app.router.add_post("/{rest:.*}", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        if port:
            site: Any = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
        else:
            socket = listening()
            port = socket.getsockname()[1]
            await web.SockSite(runner, socket).start()
        found.url = f"http://127.0.0.1:{port}/in"
        yield found
    finally:
        await runner.cleanup()


def write_config(state: Path, text: str, **secrets: str) -> None:
    """hub.toml in a state directory, and the files of secrets that it names."""
    state.mkdir(mode=0o700, exist_ok=True)
    (state / "hub.toml").write_text(text)
    for name, secret in secrets.items():
        path = state / f"{name}.secret"
        path.touch(0o600)
        path.write_text(f"{secret}\n")
