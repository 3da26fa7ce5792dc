"""SyncHubClient: a HubClient for scripts, which wait. It lives in a thread of its own, with a loop of its own."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from ..wire.vocabulary import Answered
from .client import HubClient
from .connections import Left
from .items import Gap, Received

Result = TypeVar("Result")

END_TIMEOUT = 10.0  # seconds that the thread gets to end: more than leaving a HubClient ever takes


class SyncHubClient:
    """As HubClient, with the same arguments, for code that waits; entering raises what entering that one raises.

        with SyncHubClient(topics=["task:*"]) as hub:
            hub.publish("task:progress", {"id": "build", "status": "succeeded"})
            for item in hub:  # a Received, or a Gap
                print(item)

    Any thread may call and publish, one iterates. Ctrl-C ends a wait: a call is cancelled in the hub, too, and an item
    that was on its way is the next one that is handed over. A fork does not take the thread along: make another client
    in the child.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        topics: Iterable[str] = ("*",),
        after: str | None = None,
        state_dir: str | Path | None = None,
        patience: float | None = None,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        self._client = HubClient(
            url, topics=topics, after=after, state_dir=state_dir, patience=patience, token=token, ca=ca
        )
        self._life: _Life | None = None
        self._coming: Future[tuple[str | None, Received | Gap]] | None = None  # asked for, and not handed over
        self._arrived = False  # it is there
        self._handed = after  # the position behind what was handed over, unless marks have moved it

    def __enter__(self) -> Self:
        if self._life is not None:
            raise RuntimeError("This client is entered already; make another one.")
        self._life = _Life(self._client)
        try:
            self._life.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.end()
        self._client.cursor = self._handed = self._position()  # entered again, it goes on there
        self._coming, self._arrived = None, False

    @property
    def cursor(self) -> str | None:
        """The position of what was handed over (marks included): keep it to continue later with `after`."""
        return self._handed if self._life is None else self._wait(self._where())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Received | Gap:
        try:
            return self.receive()
        except Left:
            raise StopIteration from None

    def receive(self, timeout: float | None = None) -> Received | Gap:
        """Return what comes next. Raises TimeoutError if nothing has come in `timeout` seconds (None: there is always
        something, some time), and HubError when coming back cannot help."""
        coming = self._coming = self._coming or self._begin(self._next())
        if not self._has_ended(coming, timeout):  # nor is it lost if this is interrupted
            raise TimeoutError(f"No event has come in {timeout:g} s.")
        try:
            self._handed, item = coming.result()
        except (StopAsyncIteration, CancelledError):
            raise Left from None
        finally:
            self._coming, self._arrived = None, False
        return item

    def call(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        confirm: str | None = None,
        key: str | None = None,
    ) -> Any:
        """Run a command and return its result, as HubClient.call."""
        return self._wait(self._client.call(command, args, confirm=confirm, key=key))

    def ask(
        self,
        question: str,
        options: Sequence[str],
        *,
        default: str | None = None,
        timeout: float = 600.0,
        details: Any = None,
        key: str | None = None,
        while_connected: bool = False,
    ) -> Answered:
        """Ask a person, and return the answer, as HubClient.ask."""
        return self._wait(
            self._client.ask(
                question,
                options,
                default=default,
                timeout=timeout,
                details=details,
                key=key,
                while_connected=while_connected,
            )
        )

    def state(self, topics: Iterable[str] = ("*",)) -> dict[str, Any]:
        """Return all last values, and their cursor, as HubClient.state."""
        return self._wait(self._client.state(topics))

    def publish(
        self, name: str, data: Any = None, *, id: str | None = None, ttl: float | None = None
    ) -> dict[str, str]:
        """Publish one event, and return `{id, cursor}` when it is kept, as HubClient.publish."""
        return self._wait(self._client.publish(name, data, id=id, ttl=ttl))

    async def _next(self) -> tuple[str | None, Received | Gap]:
        item = await anext(self._client)
        self._arrived = True  # in the same step in which the client's cursor has moved
        return self._client.cursor, item

    async def _where(self) -> str | None:
        return self._position()

    def _position(self) -> str | None:
        return self._handed if self._arrived else self._client.cursor

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        doing = self._begin(work)
        try:
            self._has_ended(doing)
            return doing.result()
        except CancelledError:
            raise Left from None
        except BaseException:
            doing.cancel()  # after Ctrl-C nobody waits for it any more
            raise

    def _begin(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        try:
            if self._life is None:
                raise RuntimeError("This client is used outside of its 'with'.")
            return self._life.do(work)
        except BaseException:
            work.close()
            raise

    def _has_ended(self, doing: "Future[Any]", timeout: float | None = None) -> bool:
        """Whether it has, in so many seconds. What the end of the thread has overtaken is cancelled."""
        life = self._life
        if life is not None and life.over in wait([doing, life.over], timeout, FIRST_COMPLETED).done:
            doing.cancel()
        return doing.done()


class _Life:
    """The thread in which a client is entered and left, and its loop."""

    def __init__(self, client: HubClient) -> None:
        self._client = client
        self._pid = os.getpid()
        self._started, self._entered = threading.Event(), Future[None]()
        self.over = Future[None]()  # nothing is done any more
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: Callable[[], Any] = lambda: None
        self._thread = threading.Thread(target=self._run, name="hub-client", daemon=True)

    def begin(self) -> None:
        """Enter the client. Raises what that raises."""
        self._thread.start()
        self._entered.result()

    def end(self) -> None:
        """Leave the client, or give up entering it, and wait for the end of the thread."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        self._started.wait(END_TIMEOUT)
        with suppress(RuntimeError):  # the loop is closed: entering has failed
            self._leave()
        self._thread.join(END_TIMEOUT)

    def do(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        if os.getpid() != self._pid:
            raise RuntimeError("A fork does not take this client along; make another one in the child.")
        if self._loop is None or self._loop.is_closed():
            raise Left
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        try:
            asyncio.run(self._inside())
        except BaseException as error:
            if not self._entered.done():
                self._entered.set_exception(error)
        finally:
            self.over.set_result(None)

    async def _inside(self) -> None:
        self._loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._leave = functools.partial(self._loop.call_soon_threadsafe, task.cancel)
        self._started.set()
        async with self._client:
            self._entered.set_result(None)
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()  # until it is left
