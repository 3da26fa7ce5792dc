"""A panel of the page: what an application adds, and what the hub's own sections are."""

import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")
Context = Mapping[str, Any]

NOTHING: Context = MappingProxyType({})
LONGEST = 128  # characters of a filter


@dataclass(frozen=True, slots=True)
class Asked:
    """What a link asks of a panel: `?panel=NAME&page=2&filter=…&before=…`; and whose panel it is, if it is one of those
    that are drawn otherwise for some."""

    page: int = 1
    filter: str = ""
    before: int = 0  # the number of an event: what lies before it
    who: str = ""

    @property
    def query(self) -> str:
        """As it stands in a link, behind `?panel=NAME`."""
        given = (("page", self.page, 1), ("before", self.before, 0))
        return "".join(f"&{name}={value}" for name, value, usual in given if value != usual)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of the page, drawn by the template `panels/<name>.html`: any Jinja, live by itself.

    `context(hub)` gives the template its names, beside `hub`, `now`, `panel` and `asked`; it never waits. What has to
    be awaited goes into `prepare`, which runs before and has two seconds. The panel is drawn again for events that
    match `topics`, once for all who look; without topics, every five seconds. A template that draws nothing makes no
    section. Ids on what repeats (`id="order-7"`) keep focus, selection and open details where they are.

    With `links`, both take `asked` as well: what links like `./?panel=NAME&page=2&filter=tea` ask for. `aside`: it
    stands in the narrow column. `clocked`: it is drawn again every five seconds, too, for what changes without events.
    `in_rows`: its `rows` are pairs of a template in `rows/` and what that draws, one by one (`{{ row(*pair) }}`).
    `personal`: with `links`, it is drawn once more for each person of whom it says something (`asked.who`).
    With `ends` in what `context` gives (seconds since 1970), it is drawn again at that moment, too, whatever happens.

    Add yours with `hub.panels.append(Panel(…))` and its folder of templates with
    `aiohttp_jinja2.get_env(app).loader.loaders.insert(0, FileSystemLoader(…))`.
    """

    name: str
    title: str
    topics: tuple[str, ...]
    context: Callable[..., Context]
    prepare: Callable[..., Awaitable[Context]] | None = None
    links: bool = False
    aside: bool = False
    clocked: bool = False
    in_rows: bool = False
    personal: bool = False


def page_of(rows: Sequence[T], asked: Asked, size: int, rank: Callable[[T], Any]) -> tuple[list[T], int]:
    """The rows of the page that is asked for, and how many lie behind it. The others are not brought into order."""
    until = asked.page * size
    return heapq.nsmallest(until, rows, rank)[until - size :], max(0, len(rows) - until)
