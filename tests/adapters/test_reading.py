"""Reading leniently: deep, long, odd and cut off."""

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from corpus import JWT, SECRETS
from hypothesis import given
from hypothesis import strategies as st
from samples import HOOKS, PAYLOADS

from hub import secretnames
from hub.adapters import asking, ping, reading
from hub.adapters.identities import part_of_id
from hub.adapters.reading import CLEANED, DEEPEST, INPUT, LINE, between, cut, first_line, moment, read, summary
from hub.redaction import redact, redact_text


def values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def nested(depth: int, inner: str = "1") -> bytes:
    return f'{{"a": {"[" * depth}{inner}{"]" * depth}, "b": "]]}}}}", "c": [[], {{}}]}}'.encode()


@pytest.mark.parametrize("depth", [0, 1, 60, DEEPEST - 1, DEEPEST, 1000, 100_000])
def test_what_is_deep_is_cut_down(depth: int) -> None:
    found = read(nested(depth))
    assert (found["b"], found["c"]) == ("]]}}", [[], {}])
    level, inner = 0, found["a"]
    while isinstance(inner, list):
        level, inner = level + 1, inner[0]
    assert level == min(depth, DEEPEST - 1)
    assert inner == (1 if depth < DEEPEST else None)


def test_weakened_the_parser_would_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_shallow", lambda text: text)
    with pytest.raises(RecursionError):
        read(nested(200_000))


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_not_deep_is_read_as_it_is(value: Any) -> None:
    text = json.dumps([value] * (DEEPEST + 1))
    assert read(text.encode()) == json.loads(text)


@pytest.mark.parametrize("name", HOOKS)
def test_cut_at_each_byte_it_is_no_json(name: str) -> None:
    whole = (PAYLOADS / f"{name}.json").read_bytes().strip()
    read(whole)
    for length in range(len(whole)):
        with pytest.raises(json.JSONDecodeError):
            read(whole[:length])


@given(st.binary())
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(json.JSONDecodeError):
        json.dumps(cut(read(data)), allow_nan=False).encode()


def test_oddities() -> None:
    assert read(b'\xef\xbb\xbf{"a": NaN, "a": 1}') == {"a": 1}
    assert read(b'{"a": ' + b"9" * 10_000 + b"}") == {"a": None}
    assert read(b'{"a": "\xff"}') == {"a": "\N{REPLACEMENT CHARACTER}"}
    assert reading.text("\ud83d") == "?"


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_what_is_cut_fits(value: Any) -> None:
    for room in (200, 2048):
        assert len(json.dumps(cut(value, room), ensure_ascii=False, allow_nan=False).encode()) <= room * 2 + 100


def test_what_is_cut_shows() -> None:
    assert cut({"command": "ls"}) == {"command": "ls"}
    assert cut({"command": "x" * 5000})["command"].endswith("…")
    assert str(cut({str(n): "y" * 400 for n in range(40)})).endswith("…")
    assert summary({"command": "a\nb " + "c" * 999}).endswith("…")


def test_lines_and_moments() -> None:
    assert first_line("\n  \n  Make it so \nand more") == "Make it so"
    assert first_line("a\x1b[31mb\tc") == "a [31mb c"
    assert summary({"command": "pytest\n  -q"}) == "pytest -q"
    assert summary({"odd": 1}) == '{"odd":1}'
    assert (summary({}), summary(None), summary(["x"])) == ("", "", '["x"]')
    assert moment(1795600500000) == "2026-11-25T09:55:00.000Z"
    assert moment("2026-11-25T11:35:00+01:00") == "2026-11-25T10:35:00.000Z"
    assert [moment(odd) for odd in ("never", 1e300, None, True, "0001-01-01T00:00:00+14:00")] == [None] * 5
    assert between("2026-11-25T10:00:00Z", "2026-11-25T10:00:02.5Z") == 2500
    assert between("2026-11-25T10:00:00Z", "2026-11-25T09:00:00Z") is None
    assert between("2026-11-25T10:00:00", "2026-11-25T09:00:00Z") is None


def test_a_long_number_is_none_beside_any_others() -> None:
    assert read(b"[12345678901234567890, 123456789012345678, -123456789012345678, 1]") == [
        None,
        123456789012345678,
        None,
        1,
    ]
    assert read(b"[1, -2]") == [1, -2]


# ---- what is cut was cleaned before


def parts(text: str, secret: str) -> list[str]:
    """What is left of a secret in a text, from its begin on."""
    return [secret[:length] for length in range(5, len(secret) + 1) if secret[:length] in text]


WAYS: dict[str, tuple[Callable[[str], str], int]] = {
    "text": (reading.text, LINE),
    "text of 500": (lambda text: reading.text(text, 500), 500),
    "identity": (reading.identity, 100),
    "first line": (first_line, LINE),
    "first line of more": (lambda text: first_line(f"\n{text}\nand more"), LINE),
    "summary": (lambda text: summary({"command": text}), LINE),
    "summary of a text": (summary, LINE),
    "cut": (lambda text: str(cut({"content": text})), INPUT // 4),
    "cut as a whole": (lambda text: str(cut([text] * 9)), INPUT // 4),
    "within": (lambda text: asking.within(text, INPUT), INPUT - asking.NOTE),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keep", [5, 8, 16, 40, 1000])
def test_of_a_secret_where_a_text_is_cut_no_part_is_left(way: str, keep: int) -> None:
    shorten, most = WAYS[way]
    for text, secret in SECRETS.items():
        place = text.rindex(secret)
        known = parts(text[:place], secret)
        before = max(0, most - 1 - place - min(keep, len(secret)))
        found = shorten(f"{'ü' * (before - 1)} {text} and what follows it, and more {'b' * most}")
        assert len(parts(found, secret)) <= len(known), (text, found)


@pytest.mark.parametrize("weakened", [False, True])
def test_what_is_cleaned_before_it_is_cut_is_what_protects(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(reading, "cleaned", lambda text: (text, True))
        monkeypatch.setattr(asking, "cleaned", lambda text: (text, True))
    for way in ("text", "first line", "summary", "cut", "within"):
        shorten, most = WAYS[way]
        found = redact_text(shorten(f"{'a' * (most - 27)} postgres://u:hunter2-secret@h/db {'b' * most}"))
        assert bool(parts(found, "hunter2")) is weakened, way


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("secret", ["postgres://u:{}@h/db", JWT[:20] + "{}." + "x" * 30 + "." + "y" * 30])
@pytest.mark.parametrize("length", [400, CLEANED, 3 * CLEANED])
def test_a_secret_over_the_end_of_what_is_cleaned_leaves_nothing(
    length: int, secret: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all that stands before it has become so short that the end of it can be seen."""
    if weakened:
        monkeypatch.setattr(reading, "_ENDS_OF_WORDS", ("\0",))  # never there: no word is left out
        monkeypatch.setattr(reading, "BEHIND", 0)
        monkeypatch.setattr(reading, "_PLAIN_WORD", re.compile(r"(?s).*+"))
    text = secret.format("hunter2-" * (length // 8))
    before = f"{JWT} " * ((CLEANED - 200) // (len(JWT) + 1))
    shown = [f"{before}{text} b", f'{{"a":"{before}","u":"{text}"}}', f"'{text}' b"]
    left = [parts(reading.text(each.ljust(CLEANED + 1), CLEANED // 2), "hunter2-") for each in shown]
    assert any(left) is weakened


def test_what_has_blanks_is_left_out_at_the_end_of_what_is_cleaned() -> None:
    begin = f"{JWT} " * (CLEANED // (len(JWT) + 1) - 2)
    text = f'{begin}DB_PASSWORD="correct horse {"battery " * 20}"'
    assert "correct" not in reading.text(text, CLEANED // 2)


@pytest.mark.parametrize("weakened", [False, True])
def test_however_large_a_value_is_few_of_its_characters_are_cleaned(
    weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(reading, "MOST_CLEANED", 10**9)
    seen, clean = [0], reading.cleaned

    def counted(text: str) -> tuple[str, bool]:
        seen[0] += min(len(text), CLEANED)
        return clean(text)

    monkeypatch.setattr(reading, "cleaned", counted)
    small = reading.pruned({str(n): [{"text": "word " * 800}] * 32 for n in range(32)}, 6, 512)
    assert (seen[0] > 8 * CLEANED) is weakened
    assert small["0"][0]["text"].startswith("word ")
    assert (small["31"][31]["text"] == "…") is not weakened


def test_an_id_keeps_its_begin_without_a_secret() -> None:
    long = part_of_id(f"ghp_0123456789abcdef0123456789abcdef0123 {'x ' * CLEANED}")
    assert long.startswith("[redacted] x x")
    assert part_of_id("ghp_0123456789abcdef0123456789abcdef0123").startswith("hidden-")


def test_what_is_long_and_harmless_is_shown() -> None:
    for way in ("text", "first line", "summary", "within"):
        shorten, most = WAYS[way]
        assert shorten("x" * 5 * CLEANED).startswith("x" * (most - 20))
        assert shorten("word " * CLEANED).startswith("word " * (most // 5 - 5))
        assert shorten(f"Look: {'a-' * CLEANED}").startswith("Look:")
        assert shorten("a-" * CLEANED)[1:].startswith(("…", " …"))
    assert first_line("x\n" * CLEANED) == "x"


def test_the_word_for_a_secret_is_not_cut() -> None:
    for before in range(LINE + 2):
        found = reading.text(f"{'a' * before} sk-abc1234 {'b' * LINE}")
        assert redact_text(found) == found
        assert "[" not in found or "[redacted]" in found
        assert len(found) <= LINE


@pytest.mark.parametrize("weakened", [False, True])
def test_a_long_key_names_a_secret_still(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(secretnames, "use_of", lambda key: "harmless")
    found = redact(cut({"a" * 200 + "_password": "hunter2", "b" * 200: 1}))[0]
    assert ("hunter2" in str(found)) is weakened
    assert found["b" * 99 + "…"] == 1


@pytest.mark.parametrize("weakened", [False, True])
def test_the_end_of_a_message_holds_no_end_of_a_secret(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(ping, "redact_text", lambda text: text)
    left = set[str]()
    for text, secret in SECRETS.items():
        end = secret[-8:]
        if end in text.replace(secret, ""):
            continue  # what may stay is the same
        for behind in (1, 4, len(end), 30):
            rest = f" {'b' * (ping.MESSAGE - behind - len(text) + text.index(secret) + len(secret) - 1)}"
            found = redact_text(ping.message_of(f"{'ü' * 5000} {text}{rest}".encode()))
            left.update(secret for length in range(4, len(end) + 1) if end[-length:] in found)
    assert bool(left) is weakened, left
    assert ping.message_of(b"\xe2\x82\xac" * 700) == "€" * 682
