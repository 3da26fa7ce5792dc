"""Names, ids, cursors and patterns: what is one, what is none, and what matches."""

import gc
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import HubError
from hub.wire import names
from hub.wire.ids import new_id
from hub.wire.names import Cursor, Patterns, Verdicts, is_name, pattern_problem


class TestNamesAndIds:
    @pytest.mark.parametrize("name", ["a:b", "agent:status_change", "a.b-c_D9:x:y", "a:" + "b" * 126])
    def test_names(self, name: str) -> None:
        assert is_name(name)

    @pytest.mark.parametrize(
        "name", ["", "a", ":", "a:", ":b", "a::b", "a:b ", "a:b\n", "ä:b", "a:*", "a:" + "b" * 127]
    )
    def test_no_names(self, name: str) -> None:
        assert not is_name(name)

    def test_new_ids_are_uuid4(self) -> None:
        for id in [new_id() for _ in range(200)]:
            assert str(uuid.UUID(id)) == id
            assert uuid.UUID(id).version == 4
            assert uuid.UUID(id).variant == uuid.RFC_4122


class TestCursors:
    @given(st.from_regex(r"\A[a-z0-9]{1,12}\Z"), st.integers(0, 10**17))
    def test_round_trip(self, epoch: str, seq: int) -> None:
        assert Cursor.parse(str(Cursor(epoch, seq))) == (epoch, seq)

    @pytest.mark.parametrize(
        "text", ["", "x", "x:", ":1", "x:-1", "x:01", "x:1x", "x:1:2", "x:٣", "x:" + "9" * 30, "x y:1", "x:1\n"]
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(HubError) as refused:
            Cursor.parse(text)
        assert refused.value.code == "unknown_cursor"


def matches(pattern: str, name: str) -> bool:
    """The protocol's words, as plainly as they can be written."""
    if pattern == "*":
        return True
    parts, names = pattern.split(":"), name.split(":")
    if parts[-1] == "*" and len(names) > len(parts):
        names = names[: len(parts)]
    return len(parts) == len(names) and all(p in ("*", n) for p, n in zip(parts, names, strict=True))


class TestPatterns:
    part = st.sampled_from(["a", "b", "agent", "agents", "*", "x.y", "x-y"])
    name = st.lists(part.filter(lambda p: p != "*"), min_size=2, max_size=4).map(":".join)
    pattern = st.just("*") | st.lists(part, min_size=2, max_size=4).map(":".join)

    @given(pattern, name)
    def test_as_the_protocol_says(self, pattern: str, name: str) -> None:
        assert pattern_problem(pattern) is None
        assert Patterns([pattern]).match(name) == matches(pattern, name)

    @given(st.lists(pattern, max_size=4), name)
    def test_a_set_matches_what_any_of_it_matches(self, patterns: list[str], name: str) -> None:
        assert Patterns(patterns).match(name) == any(matches(pattern, name) for pattern in patterns)

    def test_the_examples(self) -> None:
        agents = Patterns(["agent:*"])
        assert agents.match("agent:status_change")
        assert agents.match("agent:a:b")
        assert not agents.match("agents:x")
        assert Patterns(["*:done"]).match("build:done")
        assert not Patterns(["*:done"]).match("a:b:done")
        assert not Patterns(["x.y:*"]).match("xzy:a")

    @pytest.mark.parametrize("text", ["", "a", "a:", ":a", "a::b", "a b:c", "ag*:x", "**", "a:b*", "x" * 200 + ":*"])
    def test_no_patterns(self, text: str) -> None:
        problem = pattern_problem(text)
        assert problem
        assert problem.endswith((".", "domain."))

    def test_a_single_part_gets_a_hint(self) -> None:
        assert "agent:*" in (pattern_problem("agent") or "")

    def test_equal_sets_are_equal(self) -> None:
        assert Patterns(["a:b", "c:d"]) == Patterns(["c:d", "a:b", "a:b"])
        assert len({Patterns(["a:b"]), Patterns(["a:b"])}) == 1

    @pytest.mark.parametrize("weakened", [False, True])
    def test_verdicts_are_bounded_over_all_sets(self, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if weakened:
            monkeypatch.setattr(names, "_verdicts", Verdicts(10**9))
        else:
            monkeypatch.setattr(names, "_verdicts", Verdicts(2**20))
        sets = [Patterns([f"a{number}:*", "b:*"]) for number in range(100)]
        for number in range(500):
            assert all(patterns.match(f"b:{number}") and not patterns.match(f"c:{number}") for patterns in sets)
        kept = sum(names.VERDICT + len(name) for patterns in sets for name in patterns.verdicts)
        assert kept > 2**23 if weakened else 2**19 < kept <= 2**20
        assert all(patterns.match("b:x") for patterns in sets)

    def test_sets_that_are_gone_leave_nothing(self) -> None:
        for number in range(100):
            Patterns([f"a:{number}"]).match("a:b")
        gc.collect()
        assert not [found for found in names._verdicts._sets if any(text.startswith("a:9") for text in found.texts)]

    def test_matching_looks_once_for_each_form(self) -> None:
        """Patterns of one form are as many as they like: one look finds whether one of them matches."""
        texts = [f"{'x' * 100}:{number}:*" for number in range(256)]
        patterns = Patterns(texts)
        assert patterns.match(texts[77].replace("*", "y"))
        assert not patterns.match(f"{'x' * 100}:256:y")
        assert patterns._forms == [(3, (2,), True)]
