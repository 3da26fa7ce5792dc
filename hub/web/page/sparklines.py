"""A small drawing of numbers, as SVG: no script, no style of its own, and a sentence for who does not see it."""

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 10, 32  # of one bar's place, and of the tallest
GAP = 2
LEAST = 4  # what fills the height at least: one failure in each of some minutes is no wall


def sparkline(values: Sequence[int | None], what: str, unit: str = "minute") -> Markup:
    """Bars for these numbers, oldest first; None is a number that nobody knows, and leaves its place empty."""
    most = max((value for value in values if value is not None), default=0)
    bars = "".join(_bar(place, value, most) for place, value in enumerate(values) if value)
    unknown = "".join(_unknown(place) for place, value in enumerate(values) if value is None)
    drawn = f'<path class="bars" d="{bars}"/>' + (f'<path class="unknown" d="{unknown}"/>' if unknown else "")
    width = WIDTH * len(values)
    ground = f'<path class="ground" d="M0 {HEIGHT + 1}h{width}"/>'
    return Markup(
        f'<svg class="sparkline" role="img" viewBox="0 0 {width} {HEIGHT + 2}" preserveAspectRatio="none" '
        f'aria-label="{escape(sentence(values, what, unit))}">{ground}{drawn}</svg>'
    )


def sentence(values: Sequence[int | None], what: str, unit: str) -> str:
    """The numbers in words: all of them, the most and the newest."""
    known = [value for value in values if value is not None]
    if not known:
        return f"{what} a {unit}: not known."
    lasting = f"the last {len(known)} {unit}{'s' * (len(known) != 1)}"
    return f"{what} a {unit} in {lasting}: {sum(known):,} in all, {max(known):,} at most, {known[-1]:,} now."


def _bar(place: int, value: int, most: int) -> str:
    """One number; the smallest is still seen."""
    height = max(1, round(HEIGHT * value / max(most, LEAST)))
    return f"M{place * WIDTH + GAP // 2} {HEIGHT}v-{height}h{WIDTH - GAP}v{height}z"


def _unknown(place: int) -> str:
    return f"M{place * WIDTH + GAP // 2} {HEIGHT - 1}h{WIDTH - GAP}"
