"""A drawing of numbers: each has its bar, what is not known has none, and a sentence says it all."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from sent import Page

from hub.web.page.sparklines import HEIGHT, WIDTH, sparkline

NUMBERS = st.lists(st.none() | st.integers(0, 10**9), max_size=20)


def heights(drawn: str, count: int) -> dict[int, int]:
    """The heights of the bars, by their place."""
    bars = next(path for path in ElementTree.fromstring(drawn).iter() if path.get("class") == "bars").get("d") or ""
    found = {int(x) // WIDTH: int(height) for x, height in re.findall(r"M(\d+) \d+v-(\d+)h\d+v\d+z", bars)}
    assert all(0 <= place < count for place in found)
    return found


@given(NUMBERS)
def test_each_number_has_its_bar_in_proportion(values: list[int | None]) -> None:
    drawn = str(sparkline(values, "Events"))
    found = heights(drawn, len(values))
    assert found.keys() == {place for place, value in enumerate(values) if value}
    most = max((value or 0 for value in values), default=0)
    for place, height in found.items():
        assert height == max(1, round(HEIGHT * (values[place] or 0) / max(most, 4)))
    assert drawn.count('class="unknown"') == (None in values)


def test_it_is_labelled_for_who_does_not_see_it_and_has_no_style_and_no_script() -> None:
    drawn = str(sparkline([None, 3, 1200, 0], 'Events "<b>"'))
    svg = Page(drawn).one("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"] == 'Events "<b>" a minute in the last 3 minutes: 1,203 in all, 1,200 at most, 0 now.'
    assert "style" not in drawn
    assert "script" not in drawn
    assert sparkline([None], "Failures").count("Failures a minute: not known.") == 1
    assert "in the last 1 minute:" in sparkline([1], "Events")
