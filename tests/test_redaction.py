"""What must never be written down: keys that name a secret, texts that look like one, and nothing else."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import redaction
from hub.redaction import names_a_secret, redact, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7v\nQIDAQAB+/=\n-----END RSA PRIVATE KEY-----"
SECRETS = {  # text → what must be gone
    JWT: JWT,
    PEM: "MIIEowIBAAKCAQEA7v",
    PEM[:70]: "MIIEowIBAAKCAQEA7v",
    "Bearer abc123": "abc123",
    "bearer mF_9.B5f-4.1JqM": "mF_9",
    "Authorization: BEARER opensesame": "opensesame",
    "Bearer%20mF_9B5f": "mF_9B5f",
    "Bearer bearer x1y2z3": "x1y2z3",
    "Bearer token.abc": "token.abc",
    "sk-proj-abcDEF0123456789": "abcDEF0123456789",
    "sk-ant-api03-aaaaaaaaaaaaaaaa": "aaaaaaaaaaaaaaaa",
    "sk-abc123": "abc123",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "16C7e42F292c",
    "AKIAIOSFODNN7EXAMPLE": "IOSFODNN7EXAMPLE",
    "postgres://ann:hunter2@db.example/app": "hunter2",
    "redis://:hunter2@localhost:6379/0": "hunter2",
    "https://ann:hun@ter2@example.org/": "ter2",
}
HARMLESS = (
    "",
    "the bearer of this letter",
    "A bearer token is missing.",
    "task-force risk-averse disk-usage-of-everything-here",
    "scikit: sk-learn",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9",
    "ghp_",
    "AKIA",
    "git@github.com:a/b.git",
    "https://example.org:8080/a@b:c@d",
    "https://ann@example.org/",
    "token=3 of 4",
    "-----BEGIN",
    "high through",
)
SECRET_KEYS = (
    "apiKey api_key API-KEY APIKEY apikey openai_api_key x-api-key OpenAIAPIKey secret SECRET "
    "client_secret clientSecret token github_token GITHUB_TOKEN GITHUBTOKEN accessToken access_token"
    " refreshToken password dbPassword DB_PASSWORD passwd authorization Authorization "
    "Proxy-Authorization cookie Set-Cookie privateKey private_key ssh.private.key credential "
    "credentials awsCredentials token_ oauth2token p-a-s-s-w-d"
).split()
HARMLESS_KEYS = (
    "max_tokens tokens_used total_tokens tokens token_count tokenCount TOKENS secrets passwords "
    "cookies key keys public_key keyboard tokenizer secretary authorized author password_length "
    "apiKeyId cookie_policy id status subtoken 42 _ "
).split(" ")


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
    assert secret not in found
    assert "[redacted]" in found
    assert found.startswith("before ")
    assert found.endswith(" behind") or text == PEM[:70]  # a key without an end may go on to the end


@pytest.mark.parametrize("text", HARMLESS)
def test_an_ordinary_text_stays(text: str) -> None:
    assert redact_text(text) == text
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


def test_depth_does_not_matter_to_the_first_look() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert redact(deep)[0] is deep


def test_parts_without_a_secret_are_shared_with_the_input() -> None:
    value = {"a": {"b": [1]}, "token": "x"}
    assert redact(value)[0]["a"] is value["a"]


def test_the_memory_for_keys_is_bounded() -> None:
    for number in range(redaction._HARMLESS_LIMIT + 10):
        redact({f"key{number}": 1, "x" * 1000 + str(number): 1})
    assert len(redaction._harmless) <= redaction._HARMLESS_LIMIT
    assert all(len(str(key)) <= redaction._LONGEST_KEPT_KEY for key in redaction._harmless)


def quantified(pattern: str) -> list[str]:
    """The unbounded repetitions of a pattern that are neither possessive nor lazy."""
    plain = re.sub(r"\[[^\]]*\]|\\.", "c", pattern)
    plain = re.sub(r"([*+]|\{\d+,\})[+?]", "", plain)
    assert not re.search(r"\)([*+]|\{\d+,\})", plain)  # no unbounded repetition of a group
    return re.findall(r"[*+]|\{\d+,\}", plain)


def test_no_pattern_can_backtrack_more_than_once_over_its_text() -> None:
    """The proof by structure: each unbounded repetition is possessive or lazy, but for one.

    That one, the last in a URL's password, may give back what it took once; it cannot run over a second
    beginning of its pattern, because its set has no slash. The lazy one always ends: at the end of the text
    if nowhere else.
    """
    assert quantified(redaction._SECRET.pattern) == ["*"]
    assert re.search(r"\[\^\\s/[^]]*\]\*@$", redaction._SECRET.pattern)
    assert quantified(redaction._PEM.pattern) == []
    assert redaction._PEM.pattern.endswith(r"|\Z)")
    assert quantified(redaction._WORD.pattern) == ["+", "+"]  # two plain sets with nothing behind them
    assert quantified(r"(a|b)c+d*+") == ["+"]  # the proof can fail
    with pytest.raises(AssertionError):
        quantified(r"(a+)+b")


HOSTILE = (
    "eyJ",
    "-eyJ",
    "eyJaaaaaa.",
    "\\neyJaaaaa..",
    "sk-",
    "-sk-a",
    "bearer ",
    "bearer of ",
    "://a:",
    "://",
    "a:",
    "-----BEGIN A-----",
    "-----END ",
    "AKIA",
    "ghp_",
    " ",
    "A",
    "-",
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_of_64_kib_are_read(piece: str) -> None:
    """A quadratic pattern would be stopped by the time limit of the whole test run: 4 billion steps each."""
    text = "://x:" * (piece == "a:") + piece * (65536 // len(piece))
    assert redact_text(redact_text(text)) == redact_text(text)
    assert names_a_secret(text) is False


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


# ---- each protection, switched off
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("weakened", [False, True])
def test_keys_are_what_protects_values_that_look_ordinary(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "names_a_secret", lambda key: False)
        monkeypatch.setattr(redaction, "_harmless", set())
    assert ("hunter2" in str(redact({"db": {"password": "hunter2"}})[0])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
def test_patterns_are_what_protects_texts(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(redaction, "_is_suspicious", lambda text: False)
    assert ("abc123" in str(redact({"message": "sent Bearer abc123"})[0])) is weakened


@given(glued)
def test_the_cheap_first_look_never_overlooks_what_the_patterns_find(text: str) -> None:
    if redaction._SECRET.search(text) or redaction._PEM.search(text):
        assert redaction._is_suspicious(text)


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
        monkeypatch.setattr(redaction, "_is_clean", lambda value: True)
    assert ("abc123" in repr(redact(value)[0])) is weakened
