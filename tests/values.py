"""Values that more than one test file needs."""

from hypothesis import strategies as st

# Escapes, controls, bidi marks, line breaks: what an event could drive a terminal with.
HOSTILE = "\x1b]0;owned\x07 \x9b31m \x7f \u202e\u2028 \r"

strict_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20) + 1, 10**20 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
