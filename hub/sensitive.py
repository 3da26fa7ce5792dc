"""What a secret looks like in a text, and as a member of JSON inside a text.

Every step is linear in the length of its text. A pattern begins with a literal and repeats sets of characters
possessively, or up to a literal or the end of the text; what it repeats cannot run over a second beginning of the same
pattern and then fail: the look behind, the set, or a length forbids it. Each kind of secret is a pass of its own, made
only where its literal is in the text at all, so that a text pays for what it may hold.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence

from .secretnames import names_a_secret

REDACTED = "[redacted]"

_RUN = r"[A-Za-z0-9_-]"
_CREDENTIAL = r"[A-Za-z0-9._~+/=-]"


def _begins(literal: str, length: int, glued: str = r"[A-Za-z0-9]") -> str:
    """The literal where a word begins; a line break that was escaped on the way (`\\n`) begins a word too. The look
    behind stands after the literal, so that the search for the literal stays fast."""
    return rf"{literal}(?:(?<!{glued}.{{{length}}})|(?<=\\[nrt].{{{length}}}))"


_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)", re.DOTALL)
_GITHUB = re.compile(_begins("gh[opusr]_", 4) + rf"{_RUN}{{4,}}+")
_GITHUB_FINE = re.compile(_begins("github_pat_", 11) + rf"{_RUN}{{4,}}+")
_GITLAB = re.compile(_begins("glpat-", 6) + r"[A-Za-z0-9_.-]{4,}+")
_SLACK = re.compile(_begins("xox[a-z]-", 5) + rf"{_RUN}{{6,}}+")
_AWS = re.compile(_begins("A[KS]IA", 4) + rf"[A-Z0-9]{{12,}}+{_RUN}*+")
_STRIPE = re.compile(_begins("[rs]k_(?:live|test)_", 8) + rf"{_RUN}{{6,}}+")
# What lets a browser into a hub: a one-time link, which has digits or capitals behind it as no path of words has, and
# the cookie of a session, as headers, JSON and jars of cookies have it.
_LOGIN = re.compile(rf"(login(?:\\?/|%2[Ff]))(?=[a-z_-]*+[A-Z0-9]){_RUN}{{43,}}+")
_SESSION = re.compile(rf"(hub_session_[0-9]{{1,5}}(?:%3[Dd]|value|[^A-Za-z0-9_\n-]){{1,16}}){_RUN}{{43,}}+")
# JSON Web Token: the header, then two (signed) to four (encrypted) further parts
_JWT = re.compile(_begins("eyJ", 3, glued=_RUN) + rf"{_RUN}{{5,}}+(?:\.{_RUN}*+){{2,4}}")

# The user and password of a URL; what stands before and behind stays readable. Second, with a slash in the password:
# no port before it, and up to the first @, or the last one before the next slash.
_USERINFO = re.compile(
    r"""://(?!\[redacted\]@)(?:[^\s/?#:"<>\\]*+:[^\s/?#"<>\\]*@"""
    r"""|[^\s/?#:"<>\\@\[]*+:(?![0-9]{1,5}(?:[/?#,]|\Z))[^\s"<>\\@:]*+(?::(?!//)[^\s"<>\\@:]*+)*+@"""
    r"""(?:[^\s/?#"<>\\@]*+@)*+)"""
)

# "the bearer of this", "a bearer token is missing": plain words behind "bearer" that are no credential.
_PLAIN = (
    r"(?:(?i:a|an|and|are|as|at|auth|authentication|authorization|bearer|be|been|by|can|cannot|certificates?|could"
    r"|credentials?|did|do|does|enters?|for|from|gets?|had|has|have|header|in|is|it|its|may|might|must|needs?|not|of"
    r"|on|only|or|scheme|shall|should|that|the|this|to|tokens?|type|was|were|which|who|will|with|would)[.]?(?!"
    + _CREDENTIAL
    + "))"
)
# In lower case, in the middle of a sentence, only before what is no word: a digit, a capital or a dot inside, or long.
_UNLIKE_A_WORD = (
    rf"(?={_CREDENTIAL}{{6}})(?=[A-Za-z/-]{{24}}|[A-Za-z/-]*+[0-9~+=]|[A-Za-z-]++[._][A-Za-z0-9]|[a-z]++[A-Z])"
)
_SPACE = r"(?:\s|%20)++"
_BEARER = re.compile(
    "(?:"
    + _begins("(?!bearer)[Bb][Ee][Aa][Rr][Ee][Rr]", 6)
    + _SPACE
    + r"""|(?:(?<![^\n])|(?<=[:="'(])|(?<=[:=]\s))bearer"""
    + _SPACE
    + "|"
    + _begins("bearer", 6)
    + _SPACE
    + _UNLIKE_A_WORD
    + f")(?!{_PLAIN}){_CREDENTIAL}++"
)
_BASIC = re.compile(_begins("([Bb][Aa][Ss][Ii][Cc])", 5) + _SPACE + r"(?![Bb]asic\b)([A-Za-z0-9+/]{4,}+={0,2})")
_AUTHORIZATION = re.compile(r"""(?i)authorization[\\"']*\s*[:=]\s*[\\"']*\Z""")

_SK = re.compile(_begins("sk-", 3) + rf"{_RUN}{{6,}}+")
_DIGIT = re.compile("[0-9]")
_LONG_PART = re.compile("[A-Za-z0-9]{16}")
_KEY_PART = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[A-Za-z]*+[0-9])(?=[0-9]*+[A-Za-z])[A-Za-z0-9]{6}|[A-Za-z0-9]{24})"  # mixed, or very long
)


def clean_text(text: str) -> tuple[str, int]:
    """The text with every secret in it replaced by `[redacted]`, and how many they were."""
    found = 0
    if '"' in text or "'" in text:
        text, found = _without_members(text)
    folded = text.lower()
    for literals, pattern, replacement in _PASSES:
        for literal in literals:
            if literal in folded:
                cleaned = pattern.sub(replacement, text)
                if cleaned != text:
                    found += _more(text, cleaned)
                    text = cleaned
                break
    return text, found


def clean_each(texts: Sequence[str]) -> dict[str, tuple[str, int]]:
    """What `clean_text` makes of each text that holds a secret. Many short ones are cleaned as the lines of one text: a
    pass over each of them costs more than what it finds."""
    joined = _BETWEEN.join(texts)
    folded = joined.lower()
    if joined.count(_BETWEEN) != len(texts) - 1 or any(mark in folded for mark in _SPANNING):
        return {text: found for text in texts if (found := clean_text(text))[1]}
    lines = clean_text(joined)[0].split(_BETWEEN)
    changed = ((text, line) for text, line in zip(texts, lines, strict=True) if text != line)
    return {text: _ALL if line == REDACTED else (line, _more(text, line)) for text, line in changed}


# A line ends for every pattern, and what it repeats ends, too: a NUL is no space and in no credential.
_BETWEEN = "\0\n"
# What is in every secret that may run over that: with these, the lines together may hold more than each.
_SPANNING = ('"', "'", "-----begin")
_ALL = (REDACTED, 1)


def _more(text: str, cleaned: str) -> int:
    return max(1, cleaned.count(REDACTED) - text.count(REDACTED))


def is_suspicious(text: str) -> bool:
    """A cheap first look, mostly for plain substrings: False is certain, True is not."""
    return (
        "eyJ" in text
        or "KIA" in text
        or "SIA" in text
        or ("://" in text and "@" in text)
        or ("-" in text and _may_have_dashed(text))
        or ("_" in text and _may_have_underscored(text))
        or ("login" in text and _may_have_link(text))
        or ('"' in text and _QUOTED.search(text) is not None)
        or ("'" in text and _QUOTED.search(text) is not None)
        or _may_have_scheme(text.lower())
    )


_QUOTED = re.compile(r"""["']\s*+:""")
_GH = re.compile("gh[opusr]_")


def _may_have_dashed(text: str) -> bool:
    literals = "glpat-" in text or "xox" in text or "-----BEGIN" in text
    return literals or ("sk-" in text and _SK.search(text) is not None)


def _may_have_underscored(text: str) -> bool:
    literals = "github_pat_" in text or "k_live_" in text or "k_test_" in text or "hub_session_" in text
    return literals or ("gh" in text and _GH.search(text) is not None)


def _may_have_link(text: str) -> bool:
    literals = "login/" in text or "login\\/" in text or "login%2" in text
    return literals and _LOGIN.search(text) is not None


def _may_have_scheme(folded: str) -> bool:
    return "bearer" in folded or "basic" in folded


def _basic(match: re.Match[str]) -> str:
    """A user and password in base64 (RFC 7617), or whatever an Authorization header has there."""
    if _is_user_and_password(match[2]) or _AUTHORIZATION.search(
        match.string, max(0, match.start() - 24), match.start()
    ):
        return f"{match[1]} {REDACTED}"
    return match[0]


def _is_user_and_password(text: str) -> bool:
    try:
        decoded = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in decoded and decoded.isprintable()


def _sk(match: re.Match[str]) -> str:
    """A key has digits and length; a slug and the name of a voice are words."""
    run = match[0][3:]
    is_key = _KEY_PART.search(run) or (_LONG_PART.search(run) and _DIGIT.search(run))
    return REDACTED if is_key else match[0]


# What a text in lower case has to hold, then what to look for in the text itself, and what to put in its place. The
# block first: the dashes before its BEGIN may hang on another secret.
_PASSES: tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (("-----begin",), _PEM, REDACTED),
    (("bearer",), _BEARER, lambda match: f"{match[0][:6]} {REDACTED}"),
    (("basic",), _BASIC, _basic),
    (("sk-",), _SK, _sk),
    (("k_live_", "k_test_"), _STRIPE, REDACTED),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _GITHUB, REDACTED),
    (("github_pat_",), _GITHUB_FINE, REDACTED),
    (("glpat-",), _GITLAB, REDACTED),
    (("xox",), _SLACK, REDACTED),
    (("akia", "asia"), _AWS, REDACTED),
    (("login",), _LOGIN, rf"\1{REDACTED}"),
    (("hub_session_",), _SESSION, rf"\1{REDACTED}"),
    (("eyj",), _JWT, REDACTED),
    (("://",), _USERINFO, f"://{REDACTED}@"),
)

# ---- JSON inside a text ----------------------------------------------------------------------------------------

# A quoted key and its colon. A text may be JSON, hold some, or be cut off in it, and it may have been quoted several
# times over: at each level a quote has more backslashes before it. So it is read here and not by a parser.
_MEMBER = re.compile(r"""(["'])([^"'\\\n]++)(\\*+)\1\s*+:\s*+""")
_SCALAR = re.compile(r"""[^\s,}\])"'\\]*+""")
_NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*+|true|false|null|None|True|False")
_BRACKETS_OR_QUOTES = re.compile(r"""[\[{]++|[\]}]++|["']""")


def _without_members(text: str) -> tuple[str, int]:
    """The values of the keys that name a secret become `"[redacted]"`, also objects and lists."""
    parts: list[str] = []
    done = at = 0
    while match := _MEMBER.search(text, at):
        at = match.end()
        if not names_a_secret(match[2]):
            continue
        quote = match[3] + match[1]
        end = _value_end(text, at, quote)
        value = text[at:end]
        if value and value != f"{quote}{REDACTED}{quote}" and not _is_counted(match[2], value):
            parts += (text[done:at], quote, REDACTED, quote)
            done = end
        at = end
    return ("".join([*parts, text[done:]]), len(parts) // 4) if parts else (text, 0)


def _is_counted(key: str, value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and not names_a_secret(key, 0)


def _value_end(text: str, at: int, quote: str) -> int:
    """Where the value that begins here ends; the end of the text if it is cut off. Python writes strings in either
    kind of quotes, so the value's need not be those of the key."""
    level = quote[:-1]
    for kind in "\"'":
        if text.startswith(level + kind, at):
            return _string_end(text, at + len(quote), level + kind)
    if text[at : at + 1] in ("[", "{"):
        return _bracket_end(text, at, level)
    found = _SCALAR.match(text, at)
    return found.end() if found else at


def _string_end(text: str, at: int, quote: str) -> int:
    """Behind the quote that ends the string. One that belongs to the string has other backslashes before it: for a
    level with n, a backslash of the string itself is written with 2n + 2."""
    level = len(quote) - 1
    while (found := text.find(quote[-1], at)) >= 0:
        before = text[at:found]
        backslashes = len(before) - len(before.rstrip("\\"))
        if backslashes >= level and (backslashes - level) % (2 * level + 2) == 0:
            return found + 1
        at = found + 1
    return len(text)


def _bracket_end(text: str, at: int, level: str) -> int:
    """Behind the bracket that closes the one that is here."""
    depth = 0
    while found := _BRACKETS_OR_QUOTES.search(text, at):
        at = found.end()
        kind, count = found[0][0], len(found[0])
        if kind in "[{":
            depth += count
        elif kind in "]}":
            if depth <= count:
                return found.start() + depth
            depth -= count
        else:
            at = _string_end(text, at, level + kind)
    return len(text)
