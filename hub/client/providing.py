"""The connection by which a client serves commands: opened for the first of them, and again whenever it breaks.

Each time it offers anew all that it has been given, before anything else; and it is read all the time, so that a call
that nobody waits for any more is heard of.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from ..errors import HubError
from .connections import LEAST_PATIENCE, NO_EVENTS, Backoff, Connect, Left, Socket
from .discovery import NoHub, Refusal
from .serving import Link, Served

log = logging.getLogger(__name__)


class Providing:
    """What one client serves, and the task that keeps it served."""

    def __init__(self, connect: Connect, *, is_near: bool) -> None:
        self._connect = connect
        self._served: dict[str, Served] = {}
        self._more = asyncio.Event()  # there is something new to be offered
        self._backoff = Backoff(is_near=is_near)
        self._task: asyncio.Task[None] | None = None

    async def add(self, served: Served) -> None:
        """Serve this, from now on and after every break. Raises HubError if the hub refuses it, NoHub if there is none
        in time."""
        name = served.offer["name"]
        before = self._served.get(name)
        self._served[name] = served
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_heard)
        try:
            await served.accepted
        except BaseException:
            if self._served.get(name) is served:
                del self._served[name]
                if before is not None:
                    self._served[name] = before
            raise

    async def ended(self) -> None:
        """Return never. Raises HubError when coming back cannot help."""
        if self._task is None:
            raise RuntimeError("This client serves nothing: call provide first.")
        await asyncio.shield(self._task)

    async def close(self) -> None:
        self._refuse_all(Left())  # also when the task has not begun yet
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._served:
                await self._until_it_breaks()
        except Exception as error:
            self._refuse_all(error)
            log.error("No command is served any more: %s", error)
            raise

    def _refuse_all(self, error: Exception) -> None:
        for served in self._served.values():
            served.refuse(error)

    async def _until_it_breaks(self) -> None:
        try:
            link = Link(await self._connected(), self._served)
            try:
                await _first_to_end(link.read(), self._offer(link))
            finally:
                await link.end()
        except Exception as error:
            delay = self._backoff.after(error)
            self._give_up(error)
            await asyncio.sleep(min(delay, self._patience()))

    async def _connected(self) -> Socket:
        limit = max(self._patience(), LEAST_PATIENCE)
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                return await self._connect({"topics": NO_EVENTS})
        except TimeoutError:
            raise NoHub("The hub does not answer in time.") from None

    def _patience(self) -> float:
        """Seconds until the first of those gives up that wait for their command to be accepted."""
        waiting = [served.give_up for served in self._served.values() if not served.accepted.done()]
        return max(0.0, min(waiting, default=math.inf) - asyncio.get_running_loop().time())

    def _give_up(self, error: Exception) -> None:
        """What was never accepted, and has been tried for long enough."""
        now = asyncio.get_running_loop().time()
        for name, served in list(self._served.items()):
            if not served.accepted.done() and served.give_up <= now:
                del self._served[name]
                served.refuse(error)

    async def _offer(self, link: Link) -> None:
        """All that was accepted before, then what is new, one by one: one that is refused harms no other."""
        link.largest = (await _until_taken(link, "hub:info", {}))["limits"]["max_frame"]
        known = [served for served in self._served.values() if served.accepted.done()]
        refused: Exception | None = None
        try:
            async with asyncio.TaskGroup() as again:
                link.on_lost = lambda names: self._offer_again(again, link, names)
                if known and not await self._is_taken(link, known):
                    link.on_lost([served.offer["name"] for served in known])
                self._backoff.reset()
                await self._offer_new(link)
        except* HubError as errors:
            refused = errors.exceptions[0]
        if refused is not None:  # what is raised above is still a group in Python 3.11
            raise refused from None

    async def _is_taken(self, link: Link, known: list[Served]) -> bool:
        """Whether the hub takes all of them at once. Raises Refusal if it never will."""
        try:
            await link.call("hub:provide", {"commands": [served.offer for served in known]})
        except Refusal as error:
            if not _is_for_a_while(error):
                raise
            return False
        return True

    async def _offer_new(self, link: Link) -> None:
        while True:
            self._more.clear()
            for served in [served for served in self._served.values() if not served.accepted.done()]:
                try:
                    await link.call("hub:provide", {"commands": [served.offer]})
                except Refusal as error:
                    served.refuse(error)
                else:
                    if not served.accepted.done():
                        served.accepted.set_result(None)
            await self._more.wait()

    def _offer_again(self, again: asyncio.TaskGroup, link: Link, names: Iterable[str]) -> None:
        """Each of these by itself, until the hub takes it."""
        for name in names:
            if name not in link.offering and (served := self._served.get(name)) is not None:
                link.offering.add(name)
                task = again.create_task(self._until_free(link, served))
                task.add_done_callback(lambda task, name=name: link.offering.discard(name))  # type: ignore[misc]

    async def _until_free(self, link: Link, served: Served) -> None:
        name, was_told = served.offer["name"], False

        def lost(error: Refusal) -> None:
            nonlocal was_told
            if error.code == "already_provided" and not was_told:
                was_told = True
                served.lost(error)

        await _until_taken(link, "hub:provide", {"commands": [served.offer]}, lost)
        log.info("%s is served.", name)


def _is_for_a_while(error: Refusal) -> bool:
    return error.code == "already_provided" or error.retryable


async def _until_taken(
    link: Link, command: str, args: Mapping[str, Any], refused: Callable[[Refusal], None] = lambda error: None
) -> Any:
    """The hub may say no for a while: for it the connection of before is still there, and provides all of it; another
    client does; or it has no room now, or no audit log."""
    backoff = Backoff()
    while True:
        try:
            return await link.call(command, args)
        except Refusal as error:
            if not _is_for_a_while(error):
                raise
            refused(error)
            delay = backoff.next()
            log.warning("%s Trying again in %.1f s.", error, delay)
            await asyncio.sleep(delay)


async def _first_to_end(*works: Awaitable[None]) -> None:
    """Do these side by side until one ends, and let it say why; the others end with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:
        task.add_done_callback(_heard)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _heard(task: "asyncio.Future[None]") -> None:
    """How it ended is told elsewhere, if anybody asks: asyncio need not log that nobody has."""
    if not task.cancelled():
        task.exception()
