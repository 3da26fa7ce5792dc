"""Commands that clients serve: who provides which, and the calls that they work at.

A call of such a command goes the way of every call; only its handler is here, which sends it on and waits for the
answer. What ends with its provider ends in the step in which that leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CommandError, HubError
from ..redaction import holds_secret, redact_text
from ..wire.argschema import ArgSchema, load_library
from ..wire.messages import Answer
from ..wire.strictjson import LARGEST_RESULT, dumpb
from ..wire.validation import misfit
from ..wire.vocabulary import Disconnection
from .call import Call, Command
from .clients import Client, Clients
from .provided import Asked, Provided, Provider, Served, result_of
from .registry import RESERVED, Registry
from .runner import provider_gone

if TYPE_CHECKING:
    from ..audit.log import AuditLog

MAX_PROVIDED = 256  # commands of one client
MAX_DESCRIBED = 512 * 1024  # bytes that `hub:commands` shows of all of them together: its answer has to hold them
HELD = 4 * 1024 * 1024  # bytes of calls that one provider has not answered


class Providers:
    """Who provides what. Each name has one provider; the hub's own commands have none."""

    def __init__(self, commands: Registry, clients: Clients, audit: "AuditLog", max_calls: int) -> None:
        self._commands, self._clients, self._audit = commands, clients, audit
        self._max_calls = max_calls
        self._providers: dict[Client, Provider] = {}  # those, too, that have taken everything back
        self._turn = asyncio.Lock()  # of who takes commands: other hubs are asked, too
        self.claim: Callable[[Sequence[Provided]], Awaitable[bool]] = (
            _alone  # have other hubs keep off; whether any can
        )
        self.release: Callable[[list[str]], None] = lambda names: None

    def __len__(self) -> int:
        return sum(1 for provider in self._providers.values() if provider.commands)

    def names(self, client: Client) -> list[str]:
        """What this client provides."""
        return list(self._providers[client].commands) if client in self._providers else []

    # ---- who provides what

    async def provide(self, client: Client, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
        """Add these commands to what the client provides, all of them or none; without any, take all back. Return the
        names of all that it provides then. Raises HubError."""
        if client.send is None:
            raise CommandError("Only a client on /ws can provide commands: the calls are sent to it there.")
        schemas = await _schemas(wanted)
        given = [self._provided(client, each, schema) for each, schema in zip(wanted, schemas, strict=True)]
        async with self._turn:
            return await self._take(client, given)

    async def _take(self, client: Client, given: list[Provided]) -> list[str]:
        """Take the commands, in the client's turn. Where there are other hubs, none of them has one of these names."""
        self._check(client, given)
        if given and await self.claim(given):
            try:
                self._check(client, given)
            except HubError:
                self.release([command.name for command in given if command.name not in self.names(client)])
                raise
        # From here on nothing waits: what has been found is true while the commands are taken.
        if not given:
            self._take_back(client, "taken back")
            return []
        provider = self._providers.setdefault(client, Provider(client))
        added = {command.name: command for command in given}
        provider.commands |= added
        self._commands.provided |= added
        self._note("provider.joined", client, {"commands": list(added)})
        return self.names(client)

    def _check(self, client: Client, given: list[Provided]) -> None:
        if client not in self._clients:
            raise HubError("cancelled", "The client has gone.")
        self._check_names(client, given)
        self._check_room(client, given)

    def lose(self, names: Sequence[str]) -> None:
        """Take back what is provided by a client of another hub by now, and tell those that have lost it: they may
        provide it again, once it is free."""
        for client, provider in list(self._providers.items()):
            if lost := [name for name in self.names(client) if name in names]:
                self._forget(client, lost, "already_provided")
                provider.refuse(lost)

    def leave(self, client: Client, reason: Disconnection) -> None:
        """What it provides is gone, its open calls fail; and what it has called for elsewhere ends with it."""
        for call in client.calls.values():
            if isinstance(call.command, Served) and call.idempotency_key is None:  # else it may come back for it
                call.cancel()
        self._take_back(client, reason)
        if (provider := self._providers.pop(client, None)) is None:
            return
        provider.gone = True
        for call in self._open_calls(client):
            asked = provider.asked.get(call)
            if asked is None or not asked.answer.done():
                call.cancel("provider_gone")

    def _open_calls(self, client: Client) -> list[Call]:
        """The calls that it is to do, those included whose beginning is being recorded."""
        calls = self._commands.admitted()
        return [call for call in calls if isinstance(call.command, Provided) and call.command.client is client]

    def _take_back(self, client: Client, reason: str) -> None:
        if names := self.names(client):
            self._forget(client, names, reason)
            self.release(names)

    def _forget(self, client: Client, names: list[str], reason: str) -> None:
        for name in names:
            del self._providers[client].commands[name]
            del self._commands.provided[name]
        self._note("provider.left", client, {"commands": names, "reason": reason})

    def _provided(self, client: Client, wanted: Mapping[str, Any], schema: ArgSchema | None) -> Provided:
        return Provided(
            name=wanted["name"],
            handler=self._serve,
            schema=None,
            effect=wanted["effect"],
            summary=redact_text(wanted["summary"]),
            provider=client.id,
            given=schema,
            client=client,
        )

    def _check_names(self, client: Client, given: list[Provided]) -> None:
        problems, names = dict[str, Any](), set[str]()
        for place, command in enumerate(given):
            if problem := self._problem(command.name, names):
                problems[str(place)] = {"name": [problem]}
            names.add(command.name)
        if problems:
            raise misfit("invalid_args", "The args of hub:provide do not fit", {"commands": problems})
        for name in names:
            other = self._commands.provided.get(name)
            if isinstance(other, Served) and other.provider != client.id:
                raise already_provided(name, other.provider)

    def _problem(self, name: str, before: set[str]) -> str | None:
        if name.startswith(RESERVED):
            return "The domains hub: and audit: are the hub's own."
        if holds_secret(name):  # it is shown to everybody, and stands in the audit log
            return "It holds what looks like a secret."
        if name in self._commands:
            return "The hub has this command itself."
        return "It is in this list twice." if name in before else None

    def _check_room(self, client: Client, given: list[Provided]) -> None:
        after = {command.name: command for command in given}
        if len({*self.names(client), *after}) > MAX_PROVIDED:
            raise HubError("invalid_args", f"A client can provide {MAX_PROVIDED} commands at most.")
        size = sum(len(dumpb(command.describe())) for command in (self._commands.provided | after).values())
        if size > MAX_DESCRIBED:
            raise HubError("busy", f"All clients together can provide {MAX_DESCRIBED} bytes of descriptions at most.")

    def _note(self, action: str, client: Client, details: Mapping[str, Any]) -> None:
        self._audit.note(action, client.actor(), client.trust, self._audit.reduced(details), key=action)

    # ---- their calls

    def answered(self, client: Client, answer: Answer) -> bool:
        """Take what a client says to a call; return whether it was ever sent a frame with this id."""
        provider = self._providers.get(client)
        return provider is not None and provider.answered(answer)

    async def _serve(self, call: Call) -> Any:
        """Send a call to its provider, when that reads, and return its answer."""
        command = call.command
        assert isinstance(command, Provided)
        provider = self._providers.get(command.client)
        if provider is None:
            raise provider_gone(command.name)
        args = dumpb(call.args)
        self._check_load(provider, command.name, len(args))
        provider.asked[call] = asked = Asked(call)
        provider.held += len(args)
        try:
            await command.client.room()
            provider.ask(asked, command.name, args)
            return result_of(command.name, await asked.answer)
        finally:
            del provider.asked[call]
            provider.held -= len(args)
            provider.forget(asked)

    def _check_load(self, provider: Provider, name: str, size: int) -> None:
        """What a provider has not answered is bounded, whether it reads or not. Raises HubError."""
        if size > LARGEST_RESULT:
            raise HubError("too_large", f"The args of {name} are more than the {LARGEST_RESULT} bytes of a frame.")
        if len(provider.asked) >= self._max_calls or provider.held + size > HELD:
            sentence = f"The provider of {name} has {len(provider.asked)} calls to answer; wait for one to end."
            raise HubError("busy", sentence, retry_after=1)


async def _alone(given: Sequence[Provided]) -> bool:
    return False


def already_provided(name: str, provider: str) -> HubError:
    """Make the refusal for a name that another client has."""
    return HubError("already_provided", f"{name} is provided by the client {provider}.")


async def _schemas(wanted: Sequence[Mapping[str, Any]]) -> list[ArgSchema | None]:
    """The schemas of the args, checked, in turns with everybody else. Raises HubError `invalid_args`."""
    if any("args" in each for each in wanted):
        await asyncio.to_thread(load_library)  # a hub without providers never does
    found = list[ArgSchema | None]()
    for place, each in enumerate(wanted):
        try:
            found.append(ArgSchema(each["args"]) if "args" in each else None)
        except HubError as error:
            details = {"commands": {str(place): {"args": error.details}}}
            raise misfit("invalid_args", "The args of hub:provide do not fit", details) from None
        await asyncio.sleep(0)
    return found


# They are about the stream of a client, which a request does not have.
OF_A_STREAM = frozenset({"hub:subscribe", "hub:unsubscribe", "hub:provide"})


def for_requests(commands: Registry) -> Iterator[Command]:
    """As `provided`, without those that only a client with a stream can call."""
    return (command for command in provided(commands) if command.name not in OF_A_STREAM)


def provided(commands: Registry) -> Iterator[Command]:
    """All commands that can be called: the hub's own, and those of providers."""
    yield from commands
    yield from (command for name, command in commands.provided.items() if name not in commands)
