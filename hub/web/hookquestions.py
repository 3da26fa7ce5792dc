"""The questions that hooks ask: each waits with the connection of its hook, and ends with what makes it idle."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiohttp import web

from ..adapters.reading import mapping
from ..adapters.shape import Question, Taken, Tool, is_same_call
from ..commands.asked import Asked, person
from ..commands.clients import Client
from ..errors import HubError
from ..redaction import redact_text
from .answers import client_of, left
from .keys import HUB


class Waiting(NamedTuple):
    """A question that waits: whose session asks, in which turn, and about which call of which tool, as far as that is
    known."""

    session: str
    actor: str
    call: str
    tool: Tool | None
    task: str


class HookQuestions:
    """Those of one hub, by the client whose connection each ends with."""

    def __init__(self) -> None:
        self._waiting: dict[Client, Waiting] = {}

    def idle(self, taken: Taken) -> list[Client]:
        """Whose questions this makes idle: all of the session if its turn is over, those of an earlier turn, and of a
        subagent that has stopped. If a tool has run, somebody has answered in the terminal: the question about this
        call, else the oldest about the same; no other, which still waits there, too. What a subagent has run says
        nothing of another's."""
        own = [(client, one) for client, one in self._waiting.items() if one.session == taken.session]
        if taken.is_over:
            return [client for client, _ in own]
        if taken.over or taken.stops:
            stops = taken.actor if taken.stops else None
            return [client for client, one in own if one.task in taken.over or one.actor == stops]
        if taken.ran is None:
            return []
        ran = taken.ran
        same = [(client, one) for client, one in own if one.tool is not None and is_same_call(one.tool, ran)]
        if taken.actor != taken.session:
            same = [one for one in same if one[1].actor == taken.actor]
        if taken.call:
            same = [one for one in same if one[1].call in ("", taken.call)]
        same.sort(key=lambda one: (one[1].call != taken.call, one[1].actor != taken.actor))
        return [client for client, _ in same[:1]]

    def of(self, agent: str) -> list[Client]:
        """Whose questions end with this agent, or subagent."""
        return [client for client, one in self._waiting.items() if agent in (one.session, one.actor)]

    async def ask(
        self,
        request: web.Request,
        taken: Taken,
        question: Question,
        timeout: float,  # noqa: ASYNC109
    ) -> Mapping[str, Any] | None:
        """What a person has decided, in the sender's words; None if nobody has. The question ends with the
        connection."""
        hub, client = request.app[HUB], client_of(request, "http")
        asked = Asked(question.text, list(question.options), None, timeout, mapping(question.details), client)
        self._waiting[client] = Waiting(taken.session, taken.actor, taken.call, taken.tool, question.task)
        watch = asyncio.ensure_future(_leave(request, client))
        try:
            end = await hub.questions.ask(asked, person(client), lambda: True)
        except HubError:
            return None  # nobody has answered, or nobody could be asked
        finally:
            watch.cancel()
            del self._waiting[client]
        chosen = [redact_text(option) for option in question.options].index(end["answer"])
        return question.decision(chosen, end["by"])


async def _leave(request: web.Request, client: Client) -> None:
    await left(request)
    client.gone = True
    request.app[HUB].questions.withdraw_of(client)
