"""What must never be written down: keys that name a secret, texts that look like one, and nothing else."""

import asyncio
import copy
import functools
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from corpus import CUT_PEM, HARMLESS, HARMLESS_KEYS, HOSTILE, JWT, MIXED, SECRET_KEYS, SECRETS
from hypothesis import example, given
from hypothesis import strategies as st

from hub import (
    assigned,
    expressions,
    literals,
    quoted,
    redaction,
    secretnames,
    secretshapes,
    secretvalues,
    sensitive,
)
from hub.config import Config
from hub.redaction import holds_secret, redact, redact_text
from hub.secretnames import names_a_secret
from hub.wire.strictjson import dumpb


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_key_that_names_a_secret_goes_with_its_value(key: str) -> None:
    assert redact({key: "hunter2", "id": 1}) == ({"id": 1}, 1)


@pytest.mark.parametrize("key", HARMLESS_KEYS)
def test_a_key_that_only_sounds_like_a_secret_stays(key: str) -> None:
    value = {key: 5}
    assert redact(value)[0] is value


@pytest.mark.parametrize(("text", "secret"), SECRETS.items())
def test_a_secret_inside_a_longer_text_is_replaced(text: str, secret: str) -> None:
    longer = f"before {text} behind"
    found = redact_text(longer)
    assert secret in longer
    assert holds_secret(longer)
    assert secret not in found
    assert "[redacted]" in found
    assert found.startswith("before ")
    assert found.endswith(" behind") or text == CUT_PEM  # a key without an end may go on to the end


@pytest.mark.parametrize("text", HARMLESS)
def test_an_ordinary_text_stays(text: str) -> None:
    assert redact_text(text) == text
    assert not holds_secret(text)
    value = [text]
    assert redact(value)[0] is value


def test_what_stands_around_a_secret_stays_readable() -> None:
    assert redact_text("GET https://ann:pw@example.org/x failed") == "GET https://[redacted]@example.org/x failed"
    assert redact_text("Authorization: Bearer abc123, retrying") == "Authorization: Bearer [redacted], retrying"
    assert redact_text(f'line one\\n{JWT}"') == 'line one\\n[redacted]"'


def test_secrets_go_at_any_depth_in_lists_and_in_keys() -> None:
    deep: Any = {"password": "x"}
    for _ in range(15):
        deep = {"a": [deep]}
    assert "password" not in str(redact(deep)[0])
    assert redact({"a": ["Bearer abc123", {"b": "ok"}]}) == ({"a": ["Bearer [redacted]", {"b": "ok"}]}, 1)
    assert redact({"AKIAIOSFODNN7EXAMPLE": 1}) == ({"[redacted]": 1}, 1)
    two = {"sk-abc1234": 1, "sk-abc1235": 2, "[redacted]": 3}
    assert sorted(redact(two)[0].values()) == [1, 2, 3]
    assert redact(("Bearer abc123",)) == (["Bearer [redacted]"], 1)
    assert redact([[], "Bearer abc123"]) == ([[], "Bearer [redacted]"], 1)


def test_what_json_does_not_know_stays_as_it_is_beside_a_secret() -> None:
    strange = frozenset({"a"})
    assert redact([strange, "Bearer ghp_0123456789abcdefghij0123456789abcdef"])[0][0] is strange


def test_depth_does_not_matter_to_the_first_look() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert redact(deep)[0] is deep


def test_parts_without_a_secret_are_shared_with_the_input() -> None:
    value = {"a": {"b": [1]}, "token": "x"}
    assert redact(value)[0]["a"] is value["a"]


def test_tokens_are_counted_or_held() -> None:
    """A number is a count; a text, or a list of them, is a secret."""
    for count in (5, 0.5, None, True, {"input": 5, "output": 7}):
        assert redact({"tokens": count, "llm_tokens": count}) == ({"tokens": count, "llm_tokens": count}, 0)
    for secret in ("5", ["a"], {"github": "a"}):
        assert redact({"tokens": secret, "llm_tokens": secret, "id": 1}) == ({"id": 1}, 2)
    assert redact_text('{"tokens": 5, "llm_tokens": "a"}') == '{"tokens": 5, "llm_tokens": "[redacted]"}'


BESIDE: list[tuple[Any, Any]] = [  # where a secret stands beside its name: what comes, and what is left
    (["mysql", "--password", "hunter2x", "-h"], ["mysql", "--password", "[redacted]", "-h"]),
    (["mysql", "--password", "swordfish"], ["mysql", "--password", "[redacted]"]),
    ([["Authorization", "Token a1b2c3d4e5"]], [["Authorization", "[redacted]"]]),
    ([["authorization", "Basic c3dvcmRmaXNo"]], [["authorization", "[redacted]"]]),
    ([["Authorization", 'Digest username="a", response="b1c2"']], [["Authorization", "[redacted]"]]),
    ([["Cookie", "a=1; sid=a1b2c3"]], [["Cookie", "[redacted]"]]),
    ([["Set-Cookie", "sid=a1b2c3; Path=/; HttpOnly"]], [["Set-Cookie", "[redacted]"]]),
    ([["passphrase", "correct horse battery staple"]], [["passphrase", "[redacted]"]]),
    ([["password", "swordfish"], ["a", "b"]], [["password", "[redacted]"], ["a", "b"]]),
    ([["Cookie", "a1b2c3d4"]], [["Cookie", "[redacted]"]]),
    (["Host", "x", "Authorization", "a1b2c3d4"], ["Host", "x", "Authorization", "[redacted]"]),
    (["Host", "x", "cookie", "sid=a1b2c3"], ["Host", "x", "cookie", "[redacted]"]),
    ({"header": "X-Api-Key", "value": "x"}, {"header": "X-Api-Key", "value": "[redacted]"}),
    ({"field": "password", "value": "x"}, {"field": "password", "value": "[redacted]"}),
    ([{"argv": ["x", "--api-key", "hunter2x"]}], [{"argv": ["x", "--api-key", "[redacted]"]}]),
    ([["X-Api-Key", "hunter2x"], ["Accept", "text/html2"]], [["X-Api-Key", "[redacted]"], ["Accept", "text/html2"]]),
    (("DB_PASSWORD", "hunter2x"), ["DB_PASSWORD", "[redacted]"]),
    ([["password", "hunter2x"], ["id", 5]], [["password", "[redacted]"], ["id", 5]]),
    ({"a": [("token", "hunter2x")]}, {"a": [["token", "[redacted]"]]}),
    ({"name": "DB_PASSWORD", "value": "x"}, {"name": "DB_PASSWORD", "value": "[redacted]"}),
    ({"value": ["x"], "key": "X-Api-Key"}, {"value": "[redacted]", "key": "X-Api-Key"}),
    ({"Name": "DB_PASSWORD", "Value": "x"}, {"Name": "DB_PASSWORD", "Value": "[redacted]"}),
    ([{"Key": "token", "Value": "x", "value": 1}], [{"Key": "token", "Value": "[redacted]", "value": 1}]),
]


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(("value", "left"), BESIDE)
def test_a_secret_beside_its_name(value: Any, left: Any, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "_named_in", lambda items: set())
        monkeypatch.setattr(redaction, "_pair_in", lambda item: None)
        monkeypatch.setattr(redaction, "_pairs_in", lambda items: set())
    assert redact(value) == ((value, 0) if weakened else (left, 1))
    assert redact(left) == (left, 0)


@pytest.mark.parametrize(
    "value",
    [
        *(["password", "token12345"], ["token", "hunter2x"], ["--token", "--password"], ["--password", "ask for it"]),
        *(["--password", 5], ["X-Api-Key", "see below"], ["--max-tokens", "hunter2x"], ["--password", "$PASSWORD1"]),
        *({"name": "max_tokens", "value": "5"}, {"name": "tokens", "value": 5}, {"name": "password", "value": None}),
        *({"name": "password", "value": ""}, {"name": "ann", "value": "hunter2x"}, {"name": 5, "value": "x"}),
        *(
            [["Authorization", "required"]],
            [["Cookie", "none"], ["password", "Enter your password"]],
            [["Cookie", "a=1"]],
        ),
        *(
            ["x", "y", "Authorization", "optional"],
            ["a", "b", "token", "c1d2e3f4"],
            [["authorization", "is not there"]],
        ),
        *({"value": "x"}, ["a", ["--password"], "hunter2x"], ["--password"]),
        *([["password", "hunter2x", 1]], [["id", 5], "x"], [["password", 5]], [["max_tokens", "hunter2x"]], [[5, "x"]]),
    ],
)
def test_what_stands_beside_no_name_of_its_own_stays(value: Any) -> None:
    assert redact(value)[0] is value


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_keys_that_held_secrets_are_numbered_in_a_text_too(
    level: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own reader refuses the same key twice."""
    if weakened:
        monkeypatch.setattr(sensitive, "_each_once", lambda text: text)
    text = json.dumps({"ghp_0123456789abcdef": 1, "a": [{"ghp_0123456789abcdeg": 2}], "ghp_0123456789abcdeh": 3})
    for _ in range(level):
        text = json.dumps({"text": text})
    found = redact_text(text)
    for _ in range(level):
        found = json.loads(found)["text"]
    if weakened:
        assert json.loads(found) == {"[redacted]": 3, "a": [{"[redacted]": 2}]}
    else:
        assert json.loads(found) == {"[redacted]": 1, "a": [{"[redacted] 2": 2}], "[redacted] 3": 3}
    assert redact_text(text) == redact_text(redact_text(text))


def test_json_inside_a_text_loses_its_secrets_and_nothing_else() -> None:
    inner: Any = {"id": 7, "note": 'He said "hi": \\ bye', "list": [1, {"a": None}], "password": 'a\\"}],b', "end": "x"}
    for dumps in (
        json.dumps,
        functools.partial(json.dumps, indent=2),
        functools.partial(json.dumps, ensure_ascii=False),
    ):
        text = dumps(inner)
        for level in range(4):  # JSON in a text of JSON in a text …
            found = redact_text(text)
            value: Any = found
            for _ in range(level + 1):
                value = json.loads(value if isinstance(value, str) else value["text"])
            assert value == inner | {"password": "[redacted]"}
            assert redact_text(found) == found
            text = dumps({"text": text})


def test_json_that_is_cut_off_is_cleaned_to_its_end() -> None:
    for cut in ('"hunter2 and more', '{"a": "hunter2', '["hunter2", {', '"\\', "{a"):
        assert redact_text(f'body: {{"id": 1, "password": {cut}') == 'body: {"id": 1, "password": "[redacted]"'
    for text in ("Is it ? 'password': 'hunter2x'", 'x ? "password" : "swordfish"'):
        assert redact_text(text).endswith("[redacted]" + text[-1]), "no choice hides one"
    for line in ('"password": {', "'secret': [", '"token": [{ '):
        assert redact_text(line) == line, "nothing stands there yet"


def test_the_memory_for_keys_is_bounded() -> None:
    for number in range(redaction._HARMLESS_LIMIT + 10):
        redact({f"key{number}": 1, "x" * 1000 + str(number): 1})
    assert len(redaction._harmless) <= redaction._HARMLESS_LIMIT
    assert all(len(str(key)) <= redaction._LONGEST_KEPT_KEY for key in redaction._harmless)


def quantified(pattern: str) -> list[str]:
    """The unbounded repetitions of a pattern that are neither possessive nor lazy."""
    plain = re.sub(r"\[(?:[^\]\\]|\\.)*\]|\\.", "c", pattern)
    plain = re.sub(r"([*+?]|\{\d+,\d*\})[+?]", "", plain)
    assert not re.search(r"\)([*+]|\{\d+,\})", plain)  # no unbounded repetition of a group
    return re.findall(r"[*+]|\{\d+,\}", plain)


def test_no_pattern_can_backtrack_more_than_once_over_its_text() -> None:
    """The proof by structure: each unbounded repetition is possessive or lazy, but for one.

    That one, the last in a URL's password, may give back what it took once; it cannot run over a second beginning of
    its pattern, because its set has no slash. The lazy one always ends: at the end of the text if nowhere else.
    """
    passes = [pattern for _, pattern, _ in [*secretshapes.PASSES, *secretshapes.OF_SERVICES]]
    forms = [pattern for pattern, _ in assigned._FORMS]
    left = {pattern.pattern: found for pattern in [*passes, *forms] if (found := quantified(pattern.pattern))}
    assert left == {secretshapes._USERINFO.pattern: ["*"]}
    assert re.search(r"\[\^\\s/[^]]*\]\*@\|", secretshapes._USERINFO.pattern)
    assert secretshapes._PEM.pattern.endswith(r"|\Z)")
    others = (
        *(
            quoted._MEMBER,
            quoted._NAMED,
            sensitive._KEYS,
            quoted._WORD,
            quoted._PLAIN,
            quoted._EMPTY,
            quoted._OPERATOR,
            quoted._BRACKETS_OR_QUOTES,
            quoted._NUMBER,
            quoted._QUOTED,
            quoted._ESCAPE,
        ),
        *(quoted._PAIR, secretshapes._WORDS, secretshapes._NUMBERED),
        *(literals.BEGIN, literals._PLAIN, literals._GLUE, literals._OF_A_KEY, expressions._TOKEN),
        *(
            expressions._OF_A_KEY,
            expressions._CUT_OFF,
            expressions._NEAR,
            expressions._VALUE,
            expressions.ATTACHED,
            assigned._OPERATOR,
        ),
        *(assigned._MAY_BE_GIVEN, assigned._MAY_BE_TOLD, secretvalues._MIXED, secretvalues._OPAQUE, secretvalues._SLUG),
        *(secretvalues._RULES, secretvalues._SCHEMA),
    )
    assert [quantified(other.pattern) for other in others] == [[]] * len(others)
    assert quantified(secretnames._NAMED.pattern) == quantified(secretnames._WORD.pattern) == []
    assert quantified(r"(a|b)c+d*+") == ["+"]  # the proof can fail
    with pytest.raises(AssertionError):
        quantified(r"(a+)+b")


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_of_64_kib_are_read(piece: str) -> None:
    """A quadratic pattern would be stopped by the time limit of the whole test run: 4 billion steps each."""
    text = piece * (65536 // len(piece))
    once, _ = redact(text)
    assert redact(once) == (once, 0)
    assert names_a_secret(text) is False


class Probed(dict[str, int]):
    """Counts how often it is asked for a key."""

    probes = 0

    def __contains__(self, key: object) -> bool:
        self.probes += 1
        return super().__contains__(key)


def from_two_on(name: str, numbers: dict[str, int], value: dict[Any, Any], result: dict[Any, Any]) -> str:
    """The old way: each key that needs a number looks for one from 2 on."""
    unused, number = name, 1
    while unused in value or unused in result:
        number += 1
        unused = f"{name} {number}"
    return unused


@pytest.mark.parametrize("weakened", [False, True])
def test_keys_that_are_secrets_are_numbered_in_one_step_each(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where some of the numbers are taken. Steps are counted, not seconds."""
    if weakened:
        monkeypatch.setattr(redaction, "_unused", from_two_on)
    count = 1000
    value = Probed({f"ghp_{number:08x}": number for number in range(count)})
    value.update({f"[redacted] {number}": -number for number in range(2, count, 2)})
    found, replaced = redact(value)
    assert replaced == count
    assert sorted(found.values()) == sorted(value.values())
    assert (value.probes > 3 * count) is weakened


# ---- properties
# ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=20) | st.sampled_from([*SECRETS, *HARMLESS]) | st.from_regex(r"[a-zA-Z_:/.@-]{0,12}")
glued = st.lists(texts, max_size=4).map("".join)
keys = st.sampled_from([*SECRET_KEYS, *HARMLESS_KEYS, *SECRETS]) | glued
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | glued,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
@example(":sk-000000 basic aaaa")  # looked at, and left
def test_redacting_is_idempotent_and_never_changes_its_input(value: Any) -> None:
    before = copy.deepcopy(value)
    once, found = redact(value)
    assert value == before
    again, more = redact(once)
    assert (again, more) == (once, 0)
    assert again is once
    assert (once is value) == (found == 0)


@given(st.text(), st.sampled_from(list(SECRETS)), st.text())
def test_no_planted_secret_survives(before: str, text: str, behind: str) -> None:
    secret = SECRETS[text]
    found, count = redact({"list": [{"text": f"{before} {text} {behind}"}]})
    assert count >= 1
    if secret not in before + behind:
        assert secret not in str(found)


clean = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abcXYZ 019.,!", max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ_ 019", max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(clean)
def test_a_value_without_secrets_comes_back_as_the_same_object(value: Any) -> None:
    assert redact(value) == (value, 0)
    assert redact(value)[0] is value


# ---- what is known to the letter

TOKEN = 'k-Plain_words.and?"odd\\ones,not:like|a-secret'


class Holder:
    pass


@pytest.fixture
def holder() -> Iterator[Holder]:
    found = Holder()
    yield found
    redaction.hide(found, ())


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        lambda token: token,
        lambda token: f"line one\nthe token is {token}.\n",
        lambda token: {"message": token},
        lambda token: {token: 1},
        lambda token: [{"id": "a", "deep": [{f"x{token}y": [token, token]}]}],
        lambda token: {"text": json.dumps({"said": token})},
        lambda token: {"text": f"Bearer abc123 and {token}", "other": "Bearer abc123"},
        lambda token: Text(token),
    ],
)
def test_what_is_known_to_the_letter_is_taken_out(
    write: Callable[[str], Any], holder: Holder, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> str:
        return json.dumps([redact(write(TOKEN))[0], redact_text(json.dumps(write(TOKEN)))])

    middle = "words.and"  # however it is quoted
    assert middle in written()  # it has no look of its own
    assert not holds_secret(TOKEN)
    redaction.hide(holder, [TOKEN])
    if weakened:
        monkeypatch.setattr(sensitive, "_own", ())
    assert (middle in written()) is weakened
    assert holds_secret(TOKEN) is not weakened


def test_only_what_is_known_now_is_taken_out(holder: Holder) -> None:
    other = Holder()
    redaction.hide(holder, ["one" * 20])
    redaction.hide(other, ["two" * 20])
    redaction.hide(holder, ["three" * 20])
    assert redact(["one" * 20, "two" * 20, "three" * 20]) == (["one" * 20, "[redacted]", "[redacted]"], 2)
    redaction.hide(other, ())


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("text", "count"), [("Bearer abc123", 1), ("Bearer abc123", redaction.MANY), ("Bearer abc123" + " " * 2**16, 1)]
)
async def test_while_much_is_looked_through_others_have_their_turns(
    text: str, count: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "MANY", 10**9)
        monkeypatch.setattr(redaction, "LONG", 10**9)
    times, threads, look = 0, set[int](), sensitive.clean_each

    async def apart(work: Callable[[], Any]) -> Any:
        nonlocal times
        times += 1
        return await asyncio.to_thread(work)

    def noted(texts: list[str]) -> Any:
        threads.add(threading.get_ident())
        return look(texts)

    values = [[text, "fine"] * count, "nothing", {"ghp_abcdef0123": {"password": "x"}}]
    expected = redact(values)
    monkeypatch.setattr(redaction, "clean_each", noted)
    found = await redaction.redact_each(values, apart)
    assert found == expected
    assert found[1] == count + 2
    is_apart = (len(text) > redaction.LONG or count > 1) and not weakened
    assert times == is_apart
    assert (threads == {threading.get_ident()}) is not is_apart


async def test_what_is_empty_beside_a_secret_is_empty_still() -> None:
    found = await redaction.redact_each([[], {}, "", "Bearer abc123"], asyncio.to_thread)
    assert found == ([[], {}, "", "Bearer [redacted]"], 1)


async def test_what_is_hidden_while_much_is_looked_through_is_no_harmless_key(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: list[Any] = [{"k" * 40: 1}, {"text": "Bearer abc123" + " " * redaction.LONG}]
    look = sensitive.clean_each

    def hidden(texts: list[str]) -> Any:
        found = look(texts)
        redaction.hide(holder, ["k" * 40])
        return found

    monkeypatch.setattr(redaction, "clean_each", hidden)
    await redaction.redact_each(values, asyncio.to_thread)
    assert redact(values[0]) == ({"[redacted]": 1}, 1)


def test_no_frame_holds_so_much_that_another_overtakes_it() -> None:
    most = Config().max_frame
    assert most <= redaction.LONG
    values = ["" for _ in range(redaction.MANY)], {str(n): 0 for n in range(redaction.MANY)}
    assert all(len(dumpb(value)) >= most for value in values)


# ---- each protection, switched off
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("weakened", [False, True])
def test_keys_are_what_protects_values_that_look_ordinary(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "use_of", lambda key: "harmless")
        monkeypatch.setattr(redaction, "_harmless", set())
    assert ("hunter2" in str(redact({"db": {"password": "hunter2"}})[0])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
def test_patterns_are_what_protects_texts(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "is_suspicious", lambda text: False)
    assert ("abc123" in str(redact({"message": "sent Bearer abc123"})[0])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "secret"),
    [
        ("has_escapes", '{"p\\u0061ssword": "hunter2"}', "hunter2"),
        ("may_be_of_a_service", f"made hf_{MIXED[:34]}", MIXED[:34]),
        ("may_be_assigned", "export GITHUB_TOKEN=hunter2pw12345", "hunter2"),
        ("may_be_assigned", "password    = hunter2pw", "hunter2"),
        ("may_be_assigned", "<password>hunter2</password>", "hunter2"),
    ],
)
def test_each_way_of_looking_is_what_protects(
    name: str, text: str, secret: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(sensitive, name, lambda text: False)
    assert (secret in str(redact({"message": text})[0])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        (secretshapes, "_WORDS", "ghp_readme_file"),
        (secretshapes, "_NUMBERED", "hub_login_page_of_the_dashboard"),
        (secretvalues, "_TOLD", 'token="at least 8 characters"'),
        (secretvalues, "_ASKED", 'password="at least 8 characters"'),
        (secretvalues, "_INSTEAD", 'PASSWORD="your password here"'),
        (secretvalues, "WORDS", "--password requires"),
        (secretshapes, "_NUMBERED", "npm_package_dependencies_react_17"),
        (secretvalues, "_HARMLESS", "token=v1.2.34a"),
    ],
)
def test_what_keeps_the_harmless(
    module: Any, name: str, text: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(module, name, re.compile("(?!)") if isinstance(getattr(module, name), re.Pattern) else ())
    assert (redact_text(text) != text) is weakened


def test_escapes_without_need_stay_unless_they_hide_a_secret() -> None:
    for text in (
        '{"a": "caf\\u00e9 \\/ \\u0022", "password": "hunter2"}',
        "C:\\/x Bearer abc123",
        "\\u005c\\/ sk-abc1234",
    ):
        once = redact_text(text)
        assert once.count("\\") == text.count("\\")
        assert "[redacted]" in once
    hidden = '{"a": "caf\\u00e9", "\\u0074oken": "hun\\u0022ter2", "b": "\\ud83d\\ude00\\u0001", "c": "\\u0022"}'
    found = json.loads(redact_text(hidden))
    assert found == {"a": "caf\u00e9", "token": "[redacted]", "b": "\U0001f600\1", "c": '"'}


def escaped(text: str, slashes: bool = False) -> str:
    """JSON as somebody writes it who escapes what he can."""
    written = "".join(f"\\u{ord(character):04x}" if character in '"\\_o' else character for character in text)
    return '"' + (written.replace("/", "\\/") if slashes else written) + '"'


@pytest.mark.parametrize("quote", [json.dumps, escaped, functools.partial(escaped, slashes=True)])
def test_escapes_are_seen_through_at_each_level_of_quoting(quote: Callable[[str], str]) -> None:
    text = '{"a": 1, "p\\u0061ssw\\u006frd": "hunter2", "db": "x:\\/\\/u:hunter3@h", "end": "x"}'
    for _ in range(6):
        found: Any = redact_text(f"said {text} there")
        assert "hunter2" not in found
        assert "hunter3" not in found
        assert redact_text(found) == found
        text = quote(text)
    assert json.loads(json.loads(quote('{"a": 1}'))) == {"a": 1}


def test_what_is_no_value_ends_no_search() -> None:
    assert redact_text('{"token":\\x,"password":"hunter2"}') == '{"token":\\x,"password":"[redacted]"}'


def test_what_is_quoted_too_often_stays() -> None:
    chain = "\\" + "u005c" * 20
    assert quoted.unescaped(f"{chain}u0061") == f"{chain}u0061"
    assert quoted.unescaped("\\u005c\\u005c\\") == "\\" * 5
    assert quoted.unescaped("\\\\u005c") == "\\" * 4
    assert quoted.unescaped("\\\\u0022 \\u0022") == '\\\\\\" \\"'


@given(st.text("\\u05c2/ad8e\"'", max_size=24))
@example("\\u005c")
def test_unescaping_once_is_enough(text: str) -> None:
    once = quoted.unescaped(text)
    assert quoted.unescaped(once) == once
    assert quoted.has_escapes(text) or once == text


@given(glued)
def test_the_cheap_first_look_never_overlooks_what_the_careful_one_finds(text: str) -> None:
    if sensitive.clean_text(text)[1]:
        assert sensitive.is_suspicious(text)


@given(st.lists(glued | st.text(), max_size=8))
def test_many_texts_are_cleaned_as_each_of_them_is(texts: list[str]) -> None:
    each = {text: found for text in texts if (found := sensitive.clean_text(text))[1]}
    assert sensitive.clean_each(texts) == each


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("name", "texts"), [("_BETWEEN", ["Bearer", "abc123"]), ("_SPANNING", ["-----BEGIN PRIVATE KEY-----", "abc123"])]
)
def test_a_secret_may_run_over_the_end_of_a_line(
    name: str, texts: list[str], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(sensitive, name, {"_BETWEEN": "\n", "_SPANNING": ()}[name])
        with pytest.raises(ValueError, match="zip"):  # there is a line less then
            sensitive.clean_each(texts)
    else:
        assert "abc123" not in sensitive.clean_each(texts)


class Text(str):
    __slots__ = ()


class Pairs(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "value", [Text("Bearer abc123"), Pairs(token="abc123"), Items(["Bearer abc123"]), {"a": [Pairs(password="abc123")]}]
)
def test_a_subclass_hides_nothing(value: Any, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers may publish what their libraries gave them."""
    if weakened:
        monkeypatch.setattr(redaction, "_CONTAINERS", ())
    assert ("abc123" in repr(redact(value)[0])) is weakened
