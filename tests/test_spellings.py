"""A secret is found however code spells it, and code without one stays as it is."""

import ast
import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from spellings import (
    ASSIGNED,
    AWS_KEY,
    HARMLESS_CODE,
    KEYS,
    MEMBERS,
    NOTED,
    NOTED_ONCE,
    OTHER,
    PARTS,
    PHRASES,
    PREFIXES,
    QUOTED_AGAIN,
    QUOTES,
    SECRET,
    filled,
)

from hub import assigned, expressions, notations, quoted, secretvalues
from hub.redaction import holds_secret, redact_text


def left(texts: Iterable[str], *secrets: str) -> list[str]:
    """The texts in which something of a secret is left."""
    return [text for text in texts if any(secret in redact_text(text) for secret in secrets)]


def parsed(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


@pytest.mark.parametrize("form", [*ASSIGNED, *MEMBERS, *NOTED])
def test_a_secret_with_a_name_goes_in_every_spelling(form: str) -> None:
    texts = [filled(form, key) for key in KEYS]
    assert left(texts, SECRET) == []
    if form.isprintable() and "\\" not in form:
        assert left([json.dumps({"text": text}) for text in texts], SECRET) == []
    assert all(redact_text(once := redact_text(text)) == once for text in texts)


@pytest.mark.parametrize("quote", QUOTES)
def test_a_literal_may_have_any_prefix(quote: str) -> None:
    for begin in ("password = ", "self.password = ", "f(password=", "'password': ", "x --password ", "password: "):
        assert left([f"{begin}{prefix}{quote}{SECRET}{quote}" for prefix in PREFIXES], SECRET) == []


@pytest.mark.parametrize("form", [*PARTS, *NOTED_ONCE, *QUOTED_AGAIN])
def test_nothing_of_a_secret_is_left(form: str) -> None:
    assert left([filled(form)], SECRET, OTHER) == []


@pytest.mark.parametrize("text", PHRASES)
def test_what_gets_a_value_in_quotes_is_no_sentence(text: str) -> None:
    assert left([text], "ijkl", SECRET, "staple", "battery", "12345678", "swordfish") == []


@pytest.mark.parametrize("value", ["hunter2secret", "secret123", "S3cret-Token-42", "hunter2token", "a1b2password"])
@pytest.mark.parametrize("form", ["GITHUB_TOKEN={}", "--password {}", "fix it, password={}", 'password="{}"'])
@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
def test_a_secret_may_end_as_a_name_of_one(
    weakened: bool, form: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(secretvalues, "_A_NAME", re.compile(".*"))
    assert (value in redact_text(form.format(value))) is weakened
    for name in ("oauth2_token", "db_password", "password2", "accessToken1"):
        assert redact_text(f"password={name}") == f"password={name}", "code hands one on"


def test_a_key_of_40_characters_is_no_path() -> None:
    assert left([f"AWS_SECRET_ACCESS_KEY={AWS_KEY}", f'aws_secret_access_key = "{AWS_KEY}"'], "EXAMPLE") == []
    assert redact_text(f"password={AWS_KEY}") == f"password={AWS_KEY}"  # of another name


@pytest.mark.parametrize("text", HARMLESS_CODE)
def test_code_without_a_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    assert not holds_secret(text)


def test_code_is_code_still() -> None:
    """What Python can read before, it can read behind: with the secret, and whatever stands around it."""
    texts = [filled(form, key) for form in (*ASSIGNED, *MEMBERS, *NOTED, *PARTS) for key in KEYS[:2]]
    read = [text for text in texts if parsed(text)]
    assert len(read) > 60
    assert [text for text in read if not parsed(redact_text(text))] == []


def nothing(*args: Any) -> None:
    return None


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "weak", "text"),
    [
        (expressions, "literal", nothing, "password = r'''{S}'''"),
        (expressions, "joined", lambda text, first: [first], 'password = "{S}" "{S}"'),
        (quoted, "joined", lambda text, first: [first], "'password': '{S}' '{S}'"),
        (quoted, "expression", lambda text, at: expressions.Expression([], at, False), "'password': f('{S}')"),
        (assigned, "expression", lambda text, at: expressions.Expression([], at, False), "password = f('{S}')"),
        (assigned, "_and_more", lambda match, named, value, is_secret: ([], value.end), "password = 'a' or '{S}'"),
        (assigned, "is_assigned", nothing, "password = '{S}'"),
        (expressions, "ATTACHED", re.compile("(?!)"), "sh -c 'f(password='\\''{S}'\\'')'"),
        (quoted, "ATTACHED", re.compile("(?!)"), "\"{{'password': 'a\\\\'{S}'}}\""),
        (notations, "is_named", nothing, "['--password', '{S}']"),
        (notations, "is_argument", nothing, "('client-secret', '{S}')"),
        (notations, "is_header", nothing, "('Authorization', 'Token {S}')"),
        (notations, "_is_content", nothing, "<password>{S}</password>"),
        (notations, "is_assigned", nothing, '<a name="password" value="{S}">'),
        (notations, "is_assigned", nothing, "ENV TOKEN {S}"),
        (notations, "looks_secret", nothing, "password: |\n  {S}"),
        (notations, "looks_secret", nothing, "IDENTIFIED BY '{S}'"),
        (notations, "is_assigned", nothing, "- name: DB_TOKEN\n  value: {S}"),
        (notations, "looks_secret", nothing, "${{TOKEN:-{S}}}"),
        (notations, "looks_secret", nothing, "map[a:b token:{S}]"),
        (notations, "looks_secret", nothing, "login ann password {S}"),
        (assigned, "_COLUMN", re.compile("(?!)"), "token    : {S}"),
    ],
)
def test_each_reader_is_what_protects(
    module: Any, name: str, weak: Any, text: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(module, name, weak)
    assert (SECRET in redact_text(filled(text))) is weakened


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "text", "is_secret"),
    [
        (secretvalues, "_MIXED", f'password = "{SECRET} long phrase here"', True),
        (secretvalues, "_AWS_KEY", f"AWS_SECRET_ACCESS_KEY={AWS_KEY}", True),
        (secretvalues, "_SLUG", 'token = model("gpt-4o-mini")', False),
        (secretvalues, "_RULES", "'password' => 'required|min:8'", False),
        (secretvalues, "_SCHEMA", '"token": {"type": "string"}', False),
        (secretvalues, "_HARMLESS", 'url = "x?token="+token1+"&x=1"', False),
        (expressions, "_LOOKS_UP", 'password = find("a1b2c3d4")', False),
        (quoted, "_EMPTY", "{'password': b''}", False),
        (assigned, "_IN_A_CHOICE", "x ? password : default1a2", False),
        (assigned, "_PASS", "password: hunter2", True),
    ],
)
def test_each_look_at_a_value_is_what_decides(
    module: Any, name: str, text: str, is_secret: bool, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(module, name, re.compile("(?!)"))
    assert holds_secret(text) is (is_secret is not weakened)
