"""A form that is sent twice, because it was pressed twice or its answer was loaded again, runs what it calls once."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from marshmallow import fields
from running import Answer, HubInside, hub_app, until
from sent import Page, main, send

from hub import Call, Hub
from hub.errors import CommandError
from hub.web.page import forms


class Shop:
    """Takes orders, each when its `door` is open; how many it has taken is `ordered`."""

    def __init__(self) -> None:
        self.ordered = 0
        self.door = asyncio.Event()

    def prepare(self, hub: Hub) -> None:
        @hub.command("shop:order", {"count": fields.Integer(strict=True)})
        async def order(call: Call) -> int:
            """Order something."""
            self.ordered += 1
            number = self.ordered
            await self.door.wait()
            if call.args.get("count") == 13:
                raise CommandError("Nobody orders that many.")
            return number

        @hub.command("shop:close", effect="dangerous")
        async def close(call: Call) -> int:
            """Close the shop."""
            self.ordered += 1
            await self.door.wait()
            return self.ordered

        @hub.command("shop:look", {}, effect="read")
        async def look(call: Call) -> None:
            """Look around."""


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def hub(tmp_path: Path, shop: Shop) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=shop.prepare) as inside:
        yield inside
        shop.door.set()


async def drawn(hub: HubInside, command: str = "shop:order") -> dict[str, str]:
    """The fields of a form that is drawn now, as a browser would send them."""
    return main((await hub.get(f"?call={command}")).text).carried()


async def shown(hub: HubInside, answer: Answer) -> object:
    """What the page shows to which an answer leads."""
    assert answer.status == 303
    page = Page((await hub.get(answer.headers["Location"].removeprefix("../"))).text)
    return json.loads(str(page.one("code")["text"]))


async def pressed_twice(hub: HubInside, shop: Shop) -> int:
    """How many orders are taken for one form that is sent again while it runs, and again when it is over."""
    form = {**await drawn(hub), "count": "2"}
    sent = [asyncio.ensure_future(send(hub, "call/shop:order", form)) for _ in range(2)]
    await until(lambda: shop.ordered)
    shop.door.set()
    answers = [await one for one in sent]
    answers.append(await send(hub, "call/shop:order", form))
    assert [one.status for one in answers] == [303, 303, 303]
    if shop.ordered == 1:
        assert [await shown(hub, one) for one in answers] == [1, 1, 1]
    return shop.ordered


async def test_a_form_that_is_pressed_twice_runs_once(hub: HubInside, shop: Shop) -> None:
    assert await pressed_twice(hub, shop) == 1
    assert len(await hub.records("command.called")) == 1


async def test_weakened_each_press_is_a_run(hub: HubInside, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(forms, "_key", lambda *given: f"another {next(numbers)}")
    assert await pressed_twice(hub, shop) == 3


async def test_another_drawing_and_other_fields_are_another_call(hub: HubInside, shop: Shop) -> None:
    shop.door.set()
    form = await drawn(hub)
    assert await shown(hub, await send(hub, "call/shop:order", {**form, "count": "2"})) == 1
    assert await shown(hub, await send(hub, "call/shop:order", {**form, "count": "3"})) == 2, "typed after going back"
    assert await shown(hub, await send(hub, "call/shop:order", {**await drawn(hub), "count": "3"})) == 3
    assert "hub:key" not in await drawn(hub, "shop:look"), "to read twice harms nobody"


async def test_the_page_of_what_went_wrong_runs_nothing_when_it_is_loaded_again(hub: HubInside, shop: Shop) -> None:
    shop.door.set()
    form = {**await drawn(hub), "count": "13"}
    pages = [await send(hub, "call/shop:order", form) for _ in range(2)]
    assert [page.status for page in pages] == [500, 500]
    assert all("Nobody orders that many." in page.text for page in pages)
    assert shop.ordered == 1
    again = Page(pages[1].text).carried()
    assert await shown(hub, await send(hub, "call/shop:order", {**again, "count": "2"})) == 2, "pressed on that page"
    assert (await send(hub, "call/shop:order", {**again, "count": "13"})).status == pages[0].status
    assert shop.ordered == 3


async def test_what_is_dangerous_runs_once_for_one_confirmation_however_often_that_is_sent(
    hub: HubInside, shop: Shop
) -> None:
    carried = Page((await send(hub, "call/shop:close", await drawn(hub, "shop:close"))).text).carried()
    sent = [asyncio.ensure_future(send(hub, "call/shop:close", carried)) for _ in range(2)]
    await until(lambda: shop.ordered)
    shop.door.set()
    assert [await shown(hub, await one) for one in sent] == [1, 1]
    assert shop.ordered == 1
