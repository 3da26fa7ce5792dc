"""How much a client may have unread: the step in which there is room again."""

import asyncio

from hub.commands.load import UNREAD, Load


async def test_another_answer_waits_until_enough_is_taken() -> None:
    load = Load()
    await load.room()
    load.add(UNREAD)
    waiting = [asyncio.ensure_future(load.room()) for _ in range(2)]
    load.add(10)
    load.take(10)  # which is not enough
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    load.take(1)
    await asyncio.gather(*waiting)
