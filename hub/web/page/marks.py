"""Mark all that a panel has shown as seen, in one press: each is a call of hub:seen like any other, and on record."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from ...commands.call import Call
from ...errors import HubError
from ...wire.ids import new_id
from ...wire.validation import misfit
from ..answers import client_of
from ..keys import HUB
from . import frame
from .board import Board, event_of
from .rows import Row

UNSEEN: Mapping[str, Callable[[Board], Sequence[Row]]] = {
    "failed": Board.failures,
    "threats": lambda board: [*board.open_threats(), *board.open_alerts()],
}
AT_ONCE = 50  # calls
MOST = 1000  # marks of one press; what is left stands there still


async def mark_all(request: web.Request, typed: Mapping[str, str]) -> None:
    """Mark the unseen rows of the panel that is named, as far as they were there when it was drawn: up to the number
    `until`. Raises HubError for what does not fit, and what the command refuses."""
    rows, until = UNSEEN.get(typed["panel"]), frame.number(typed, "until", 0)
    if rows is None or typed.keys() != {"panel", "until"}:
        problem = {"panel": [f"Must be one of {', '.join(UNSEEN)}, with `until`."]}
        raise misfit("invalid_args", "Nothing is marked", problem)
    hub, board, client = request.app[HUB], request.app[frame.BOARD], client_of(request, "http")
    await board.catch_up()
    wanted = [row for row in rows(board) if was_drawn(row, until)][:MOST]

    async def mark(row: Row) -> HubError | None:
        try:
            await hub.commands.call(Call(hub, client, new_id()), "hub:seen", {"event": event_of(row), "key": row.key})
        except HubError as error:  # the others may be marked all the same
            return error
        return None

    for at in range(0, len(wanted), AT_ONCE):
        errors = [error for error in await asyncio.gather(*map(mark, wanted[at : at + AT_ONCE])) if error is not None]
        if errors:
            raise errors[0]


def was_drawn(row: Row, until: int) -> bool:
    """Stops one press from hiding what has failed since: nobody can have seen that."""
    return row.noticed <= until


async def is_as_drawn(request: web.Request, typed: dict[str, str]) -> bool:
    """Take `drawn` out of a press on one row; return whether what stands there now was there when it was drawn, up to
    that number. Stops the press from hiding a failure that came meanwhile. Raises HubError."""
    until, board = frame.number(typed, "drawn", 0), request.app[frame.BOARD]
    if typed.pop("drawn", "") == "":
        return True
    await board.catch_up()
    unseen = (row for rows in UNSEEN.values() for row in rows(board))
    return all(
        was_drawn(row, until) for row in unseen if (event_of(row), row.key) == (typed.get("event"), typed.get("key"))
    )
