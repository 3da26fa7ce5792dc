"""What the page shows of what is no longer in memory when the hub starts: threats, and who has cast what.

They count one by one, so the last values do not hold them; they are looked for in the store, beside everything else.
"""

from ...errors import HubError
from ...stream.events import Event
from .board import Board
from .counted import ONE_BY_ONE, THREATS
from .history import PARSED, numbers


async def look_back(board: Board) -> None:
    """Find the newest ones, as many as the page keeps, and give them to the board. What cannot be had is not shown."""
    hub, found = board.hub, list[Event]()
    await board.catch_up()
    try:
        wanted, _ = await numbers(hub, ONE_BY_ONE.__contains__, board.since - 1, THREATS)
        for seq in wanted:
            found += [event for event in await hub.broadcaster.pages.read(seq - 1, 1, PARSED) if not event.withheld]
    except HubError:
        pass  # the store is away
    await board.add_earlier(found[::-1])
