"""Commands that clients of other hubs serve: a call goes to the hub of its provider, and its end comes back.

Both hubs check and record the call, under the id that its caller has chosen. It is confirmed, and kept from running
twice, where it was called; it runs on the other hub as any call of one of its providers. Whatever cuts the two hubs
apart ends it on both.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..stream.brokers.peers import Ears, Names, Offer, Peers
from ..wire.argschema import ArgSchema, load_library
from ..wire.strictjson import Json, dumpb
from .call import Call
from .clients import Client
from .provided import Provided, Served
from .providers import Providers, already_provided
from .registry import Registry
from .runner import provider_gone

if TYPE_CHECKING:
    from ..hub import Hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Served):
    """A command that a client of the hub at the other end of `link` serves."""

    link: str


@dataclass(eq=False, slots=True)
class _Sent:
    """A call that another hub has been sent; `answer` is its result as JSON."""

    call: Call
    link: str
    answer: "asyncio.Future[Json]"


class Across:
    """What is called from one hub to the other. Without `peers` nothing is.

    `on_alive(links)` hears once a second which other hubs there are.
    """

    def __init__(self, peers: Peers | None, commands: Registry, providers: Providers) -> None:
        self.on_alive: Callable[[frozenset[str]], None] = lambda links: None
        self._peers, self._commands, self._providers = peers, commands, providers
        self._offers: dict[str, tuple[Offer, Elsewhere]] = {}  # a schema is read once
        self._sent: dict[int, _Sent] = {}
        self._taken: dict[tuple[str, int], Call] = {}  # from other hubs, by their link and number
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, hub: "Hub") -> None:
        """Become one of the hubs of the stream."""
        self._hub = hub
        if self._peers is not None:
            await asyncio.to_thread(load_library)  # where schemas come from elsewhere, nobody can wait for it
            self._commands.peers = self._peers
            self._providers.claim, self._providers.release = self._claim, self._peers.release
            await self._peers.start(
                Ears(self._names, self._providers.lose, self._offered, self._alive, self._hear, self._cut)
            )

    async def stop(self) -> None:
        """Leave them; what is still called for is over."""
        if self._peers is not None:
            await self._peers.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ---- who provides what

    def _names(self) -> Names:
        """What clients of this hub provide, as other hubs are told."""
        mine = (command for command in self._commands.provided.values() if isinstance(command, Provided))
        return {command.name: _described(command) for command in mine}

    async def _claim(self, given: Sequence[Provided]) -> bool:
        assert self._peers is not None
        found = await self._peers.claim({command.name: _described(command) for command in given})
        if found is not None:
            raise already_provided(found[0], json.loads(found[1])["provider"])
        return True

    def _offered(self, offers: Mapping[str, Offer]) -> None:
        """Take what clients of other hubs provide now in the place of what they have provided."""
        commands, known = self._commands.provided, self._offers
        for name in [name for name, command in commands.items() if isinstance(command, Elsewhere)]:
            del commands[name]
        self._offers = {}
        for name, offer in offers.items():
            if name not in commands:
                before = known.get(name)
                command = before[1] if before and before[0] == offer else self._elsewhere(name, offer)
                self._offers[name] = offer, command
                commands[name] = command

    def _elsewhere(self, name: str, offer: Offer) -> Elsewhere:
        said = json.loads(offer.described)
        return Elsewhere(
            name=name,
            handler=self._serve,
            schema=None,
            effect=said["effect"],
            summary=said["summary"],
            provider=said["provider"],
            given=ArgSchema(said["args"]) if said["args"] is not None else None,
            link=offer.link,
        )

    # ---- calls of ours, to other hubs

    async def _serve(self, call: Call) -> Json:
        """Send a call to the hub of its provider, and return what it is answered. Whoever ends the call ends it there,
        too."""
        command = call.command
        assert isinstance(command, Elsewhere)
        number, answer = next(self._numbers), _future()
        self._sent[number] = _Sent(call, command.link, answer)
        client = call.client
        who = client.transport, client.peer, client.uid, client.trust, client.id, client.since
        words = {"n": number, "id": call.id, "name": command.name, "provider": command.provider, "who": who}
        try:
            if not await self._say(command.link, "call", {**words, "effect": command.effect}, dumpb(call.args)):
                raise provider_gone(command.name)
            return await answer
        finally:
            del self._sent[number]
            if not answer.done() or answer.cancelled():
                self._begin(self._say(command.link, "cancel", {"n": number}))

    def _alive(self, links: frozenset[str]) -> None:
        """What was sent to a hub that is not there any more has no answer to come, and what it has asked for nobody
        waits for."""
        for sent in self._sent.values():
            if sent.link not in links:
                _end(sent)
        for link, number in list(self._taken):
            if link not in links:
                self._taken[link, number].cancel()
        self.on_alive(links)

    def _cut(self) -> None:
        self._alive(frozenset())
        self._offered({})

    # ---- words

    async def _say(self, link: str, what: str, words: Mapping[str, Any], body: bytes = b"") -> bool:
        assert self._peers is not None
        return await self._peers.send(link, dumpb({"do": what, "from": self._peers.link, **words}) + b"\n" + body)

    def _hear(self, message: bytes) -> None:
        """Take a word of another hub. What it says of a call that is over is passed over."""
        head, _, body = message.partition(b"\n")
        words = json.loads(head)
        what, link, number = words["do"], words["from"], words["n"]
        if what == "call":
            self._begin(self._run(link, number, words, body))
        elif what == "cancel":
            if call := self._taken.get((link, number)):
                call.cancel()
        elif (sent := self._sent.get(number)) and sent.link == link:
            self._told(sent, what, body)

    def _told(self, sent: _Sent, what: str, body: bytes) -> None:
        if what == "progress":
            self._begin(_passed_on(sent.call, json.loads(body)))
        elif not sent.answer.done():
            if what == "result":
                sent.answer.set_result(Json(body))
            else:
                sent.answer.set_exception(_error(json.loads(body)))

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- calls of other hubs, to providers of ours

    async def _run(self, link: str, number: int, words: Mapping[str, Any], args: bytes) -> None:
        """Run a call as one of this hub's, whose caller is connected elsewhere."""
        client = Client(*words["who"])
        client.send = lambda text: self._begin(self._say(link, "progress", {"n": number}, _progress(text)))
        call = Call(self._hub, client, words["id"], weight=len(args))
        call._admitted = True
        self._taken[link, number] = call
        try:
            self._check(words)
            result = await self._commands.call(call, words["name"], json.loads(args))
            await self._say(link, "result", {"n": number}, result)
        except HubError as error:
            if error.code == "shutting_down":  # not the hub of whoever calls
                error = provider_gone(words["name"])
            said = error.code, error.message, error.details, error.retry_after, error.status
            await self._say(link, "error", {"n": number}, dumpb(said))
        finally:
            del self._taken[link, number]

    def _check(self, words: Mapping[str, Any]) -> None:
        """What was admitted elsewhere is what runs here: else a call that nobody has confirmed could be of a command
        that is dangerous by now. Raises HubError `provider_gone`."""
        command = self._commands.provided.get(words["name"])
        wanted = words["provider"], words["effect"]
        if not isinstance(command, Provided) or (command.provider, command.effect) != wanted:
            raise provider_gone(words["name"])


def _described(command: Provided) -> bytes:
    said = {"provider": command.provider, "effect": command.effect, "summary": command.summary}
    return dumpb({**said, "args": command.given.given if command.given else None})


def _end(sent: _Sent) -> None:
    if not sent.answer.done():
        sent.answer.set_exception(provider_gone(sent.call.command.name if sent.call.command else ""))
        sent.answer.exception()


def _error(said: Sequence[Any]) -> HubError:
    code, message, details, retry_after, status = said
    return HubError(code, message, details, retry_after=retry_after, status=status)


def _progress(frame: bytes) -> bytes:
    """What is told of how far a call is, out of the frame for its caller."""
    return dumpb(json.loads(frame)["payload"]["data"])


def _future() -> "asyncio.Future[Json]":
    return asyncio.get_running_loop().create_future()


async def _passed_on(call: Call, data: Any) -> None:
    await call.progress(data)


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    """What cannot be told is no reason that anything fails."""
    with contextlib.suppress(HubError):
        await work
