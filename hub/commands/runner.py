"""How a handler is run: in its turn, within its time, ended with the hub; and what becomes of what it gives."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import Code, HubError
from ..redaction import redact, redact_text
from ..stream.passes import Passes
from ..wire.ids import new_id
from ..wire.strictjson import LARGEST_RESULT, Json, dump_any, plain
from .call import Call, Command
from .supervised import Work

if TYPE_CHECKING:
    from ..audit.log import AuditLog

log = logging.getLogger("hub")

LIGHT = 8 * 1024  # bytes of a call up to which it begins at once: many whose beginning is recorded begin together


class Runner:
    """The handlers that run. `calls` are those that a stop waits for."""

    def __init__(self, audit: "AuditLog", limit: float) -> None:
        self._audit, self.limit = audit, limit
        self.calls: set[Call] = set()
        self.slow = Passes()  # whose turn it is in the hub
        self._changed = asyncio.Event()  # there are fewer of them
        self._ended = False

    async def run(self, call: Call, command: Command) -> bytes:
        """The handler's result as JSON. A handler that does not let go when its time is over is given up."""
        if ended := call._ended or ("shutting_down" if self._ended else None):  # while its beginning was recorded
            raise self._refusal(command, ended)
        what = f"the command {command.name}"
        apart = command.audited or call._turn is not None
        if apart:
            call._work = work = Work(what, command.limit or self.limit, self._in_turn, call, command)
        else:
            call._work = work = Work(what, self.limit, command.handler, call)
        self.calls.add(call)
        try:
            if apart:
                result: bytes = await work.run()
                return result
            return _encoded(command, await work.here())  # it is small
        except asyncio.CancelledError:
            raise self._cancelled(command, work) from None
        except HubError as error:
            raise self._presentable(error, command) from None
        except Exception:
            if work.ended == "timeout":
                raise self._refusal(command, work.ended) from None
            raise internal(f"the command {command.name}") from None
        finally:
            call._work, call._open = None, False
            self.calls.discard(call)
            self._changed.set()
            if work.given_up:
                details = {"id": redact_text(call.id), "command": command.name}
                self._audit.note("command.abandoned", call.client.actor(), call.trust, details, key="command.abandoned")

    async def wait(self, call: Call, command: Command, step: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Return what `step` does, which waits for something else before the handler, as long as for a handler. Raises
        HubError, and CancelledError if the caller is cancelled."""
        what = f"the repeated call of {command.name}"
        call._work = work = Work(what, self.limit, step, *args)
        try:
            with self.holding(call):
                return await work.here()
        except asyncio.CancelledError:
            raise self._cancelled(command, work) from None
        except HubError:
            raise
        except Exception:
            raise internal(what) from None
        finally:
            call._work = None

    @contextlib.contextmanager
    def holding(self, call: Call) -> Iterator[None]:
        """Have a stop wait for this."""
        self.calls.add(call)
        try:
            yield
        finally:
            self.calls.discard(call)
            self._changed.set()

    async def _in_turn(self, call: Call, command: Command) -> bytes:
        """Run the handler when it is the call's turn, and its client has room for another answer."""
        client = call.client
        if command.turns == "none":
            await client.room()
            if call.weight > LIGHT:
                await self.slow.turn()
            return await self._weighed(call, command)
        async with client.load.reading:
            await client.room()
            if command.turns == "hub":
                await self.slow.turn()
            return await self._weighed(call, command)

    @staticmethod
    async def _weighed(call: Call, command: Command) -> bytes:
        """The handler's result as JSON. It weighs from this step on, so that whoever is next sees it."""
        if call._turn is not None:
            await call._turn.begin()
        result = _encoded(command, await command.handler(call))
        if call._open:  # else the call was given up: nobody gets this
            call.weigh(len(result))
        return result

    @staticmethod
    def _presentable(error: HubError, command: Command) -> HubError:
        """A handler's refusal without secrets; one that cannot be written as JSON is a bug of the handler's."""
        try:
            error.message = redact_text(error.message)
            error.details = plain(redact(error.details)[0])
        except Exception:
            return internal(f"the refusal of {command.name}")
        return error

    def _cancelled(self, command: Command, work: Work) -> BaseException:
        """The refusal for a call that was ended. When whoever waits for it is cancelled, that goes on."""
        if is_asked_to_end():
            return asyncio.CancelledError()
        return self._refusal(command, work.ended) if work.ended else internal(f"the command {command.name}")

    def _refusal(self, command: Command, code: Code) -> HubError:
        if code == "timeout":
            return HubError(code, f"{command.name} took longer than {self.limit:g} s.")
        if code == "shutting_down":
            return HubError(code, "The hub is stopping and ended this call.", retry_after=1)
        if code == "provider_gone":
            return provider_gone(command.name)
        if code == "forbidden":
            return HubError(code, "Who called this may not any more, which has ended the call.")
        return HubError(code, "The call was cancelled.")

    async def stop(self, seconds: float) -> None:
        """Let those that run finish for so many seconds, then end them. No handler runs behind this, but for those that
        were given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_none()
        self._ended = True
        for call in self.calls:
            call.cancel("shutting_down")
        await self._until_none()

    async def _until_none(self) -> None:
        while self.calls:
            self._changed.clear()
            await self._changed.wait()


def _encoded(command: Command, result: Any) -> bytes:
    """The result as JSON. Raises HubError `too_large` for one that would close the connection of who gets it."""
    text = result if isinstance(result, Json) else dump_any(result)
    if len(text) > LARGEST_RESULT:
        sentence = f"{command.name} has run, but its answer of {len(text)} bytes is more than the {LARGEST_RESULT} that"
        raise HubError("too_large", f"{sentence} an answer can have; ask for less of it.", status=500)
    return text


def is_asked_to_end() -> bool:
    """Whether the caller is cancelled, and not something else that it has waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def provider_gone(name: str) -> HubError:
    """Make the error for a call whose provider is not there any more."""
    return HubError("provider_gone", f"The provider of {name} has gone; it may have done some of it.")


def internal(where: str) -> HubError:
    """Log the exception in flight under a reference, and make the error that names nothing else."""
    reference = new_id()[:8]
    log.exception("%s failed [%s]; who has called was given that reference only", where, reference)
    return HubError("internal", f"The hub failed here; its log says why under the reference {reference}.")
