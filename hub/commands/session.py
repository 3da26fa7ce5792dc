"""One client's conversation: text in, text out. Knows no socket, so a test can hold it in its hand."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import Code, HubError, let_go
from ..wire.messages import Answer, BadFrame, Command, failure, load_command, response
from .call import Call
from .clients import Client
from .ratelimit import Bucket
from .runner import internal

if TYPE_CHECKING:
    from ..hub import Hub

log = logging.getLogger("hub")

HELD = 4 * 1024 * 1024  # characters of frames whose calls are running: what they are parsed to takes many times that
REFUSALS = 2000  # within REFUSAL_SECONDS: whoever goes on after so many is flooding
REFUSAL_SECONDS = 10.0


class Session:
    """Takes a client's frames, runs their calls side by side, and answers each by its id.

    `send` must take one JSON text at once; `close(code, reason)` ends the connection.
    """

    __slots__ = ("_bucket", "_close", "_held", "_rate", "_refusals", "_send", "client", "closing", "hub")

    def __init__(
        self, hub: "Hub", client: Client, send: Callable[[bytes], None], close: Callable[[int, str], None]
    ) -> None:
        self.hub, self.client = hub, client
        self.closing = False  # what comes now comes too late
        self._send, self._close = send, close
        client.send = send
        self._rate = hub.config.rate
        self._bucket = Bucket(self._rate)
        self._held = 0
        self._refusals: deque[float] | None = None  # most clients never need it

    def receive(self, text: str | bytes) -> None:
        """Take one frame. Never waits and never raises: every frame is answered, now or when its call ends."""
        if self.closing:
            return
        wait = self._take()
        try:
            command = load_command(text)
        except BadFrame as error:
            if error.answer and self.hub.providers.answered(self.client, error.answer):
                self._answered(error, error.answer, counted=not wait and error.answer.type != "progress")
            elif wait:
                self._refuse_flood(error.id, "", wait)
            else:
                self._send(failure(error.id, error))
        except Exception:
            self._send(failure(None, internal("a client's frame")))
        else:
            if wait:
                self._refuse_flood(command.id, command.name, wait)
            else:
                self._start(command, len(text))

    def _take(self) -> float:
        """One of what the client may send; from a new bucket when the limit has become another one."""
        if self._rate != self.hub.config.rate:
            self._rate = self.hub.config.rate
            self._bucket = Bucket(self._rate)
        return self._bucket.take()

    def _answered(self, error: BadFrame, answer: Answer, *, counted: bool) -> None:
        """It is about a call that the hub has sent to this client: that is no flood of the client's."""
        if counted:
            self._bucket.give()
        if answer.problem:
            code: Code = "invalid_json" if error.code == "invalid_json" else "invalid_message"
            self._send(failure(answer.id, HubError(code, answer.problem)))

    def ping(self) -> bool:
        """Whether a control frame may be answered; a flood of them counts like any other."""
        if self._take():
            self.hub.metrics.rate_limited()
            self._count_refusal()
            return False
        return True

    def _start(self, command: Command, size: int) -> None:
        calls = self.client.calls
        if command.id in calls:
            error = HubError("duplicate_id", "A call with this id is still running; choose another id.")
        elif len(calls) >= self.hub.config.max_calls or self._held + size > HELD:
            error = HubError("busy", f"{len(calls)} calls are running; wait for one to end.", retry_after=0.1)
        else:
            beside = command.confirm, command.idempotency_key
            calls[command.id] = call = Call(self.hub, self.client, command.id, size, *beside)
            self._held += size
            call.task = asyncio.get_running_loop().create_task(self._run(call, command))
            return
        self._refuse(command.id, command.name, error)

    async def _run(self, call: Call, command: Command) -> None:
        try:
            answer = response(call.id, await self.hub.commands.call(call, command.name, command.args))
        except Exception as error:
            said = error if isinstance(error, HubError) else internal(f"the call of {command.name}")
            answer = failure(call.id, said)
            let_go(error)
        finally:
            self._held -= call.weight
            del self.client.calls[call.id]
        self._send(answer)

    def _refuse(self, id: str | None, name: str, error: HubError) -> None:
        self.hub.commands.refuse(self.client, id, name, error.code)
        self._send(failure(id, error))

    def _refuse_flood(self, id: str | None, name: str, wait: float) -> None:
        """Says when to come back; a client that does not listen is closed, so that refusing cannot become the load."""
        self.hub.metrics.rate_limited()
        sentence = f"More than {self.hub.config.rate} messages a second; wait {wait:.3f} s."
        self._refuse(id, name, HubError("rate_limited", sentence, retry_after=round(wait, 3)))
        self._count_refusal()

    def _count_refusal(self) -> None:
        now = time.monotonic()
        if self._refusals is None:
            self._refusals = deque(maxlen=REFUSALS)
        if len(self._refusals) == REFUSALS and now - self._refusals[0] < REFUSAL_SECONDS and not self.closing:
            self.closing = True
            self._close(1008, "Too many messages")
        self._refusals.append(now)
