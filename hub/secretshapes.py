"""What a secret looks like in a text, whatever stands around it.

Every step is linear in the length of its text. A pattern begins with a literal and repeats sets of characters
possessively, or up to a literal or the end of the text; what it repeats cannot run over a second beginning of the same
pattern and then fail: the look behind, the set, or a length forbids it. Each kind of secret is a pass of its own, made
only where its literal is in the text at all, so that a text pays for what it may hold.
"""

import base64
import binascii
import re
from collections.abc import Callable

from .quoted import REDACTED

Pass = tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]]

_RUN = r"[A-Za-z0-9_-]"
_CREDENTIAL = r"[A-Za-z0-9._~+/=-]"


def _begins(literal: str, length: int, glued: str = r"[A-Za-z0-9]") -> str:
    """The literal where a word begins, also behind what was escaped on the way (`\\n`, `\\u001b`, `%20`). The look
    behind stands after the literal, so that the search for the literal stays fast."""
    behind = rf"(?<=\\[nrt].{{{length}}})|(?<=\\u00[01].{{{length + 1}}})|(?<=%[0-9A-F]{{2}}.{{{length}}})"
    return rf"{literal}(?:(?<!{glued}.{{{length}}})|{behind})"


# What stands in PEM and is for everybody to read: all else is taken for a key.
_PUBLIC = (
    r"(?i:[A-Z0-9 ]{0,40}?(?:CERTIFICATE|CERTIFICATE REQUEST|CRL|PUBLIC KEY|PUBLIC KEY BLOCK|SIGNATURE|MESSAGE"
    r"|PARAMETERS|PKCS7|CMS|ENCRYPTED FILE)) ?----"
)
_PEM = re.compile(
    rf"----[- ](?i:BEGIN) (?!{_PUBLIC})"
    r"[A-Za-z0-9 ]{1,64}----.*?(?:----[- ](?i:END) [A-Za-z0-9 ]{1,64}-----?|\Z)",
    re.DOTALL,
)
_GITHUB = re.compile(_begins("gh[opusr]_", 4) + rf"{_RUN}{{4,}}+")
_GITHUB_FINE = re.compile(_begins("github_pat_", 11) + rf"{_RUN}{{4,}}+")
_GITLAB = re.compile(_begins("glpat-", 6) + r"[A-Za-z0-9_.-]{4,}+")
_SLACK = re.compile(_begins("xox[a-z]-", 5) + rf"{_RUN}{{6,}}+")
_AWS = re.compile(_begins("A[KS]IA", 4) + rf"[A-Z0-9]{{12,}}+{_RUN}*+")
_STRIPE = re.compile(_begins("[rs]k_(?:live|test)_", 8) + rf"{_RUN}{{6,}}+")
# What lets a browser into a hub begins with this, and 43 characters follow: so it is known wherever it stands, also in
# part. Stops whoever may only read from becoming the operator by a link or a session that somebody has published.
OF_LOGIN, OF_SESSION = "hub_login_", "hub_session_"
_HUB = re.compile(rf"hub_(?:login|session)_{_RUN}{{16,}}+")
# JSON Web Token: the header, then two (signed) to four (encrypted) further parts
_JWT = re.compile(_begins("eyJ", 3, glued=_RUN) + rf"{_RUN}{{5,}}+(?:\.{_RUN}*+){{2,4}}")

_NUMBERED = re.compile(r"(?:(?:[a-z]{0,15}+(?:[A-Z][a-z]{1,14}+)*+|[A-Z]{1,15}+)[0-9]{0,4}+(?:[_./=+-]|\Z))++")


def _no_name(match: re.Match[str]) -> str:
    """A token is not made of words and their numbers alone, as the name of a variable is."""
    return match[0] if _NUMBERED.fullmatch(match[0]) else REDACTED


# Of services whose tokens begin like nothing else, each with this and at least as many characters behind it.
_PREFIXES = (
    "gldt- glrt- glptt- glcbt- xapp- AIza ya29. GOCSPX- hf_ gsk_ pplx- xai- r8_ npm_ pypi-AgEI rubygems_ dckr_pat_ "
    "dop_v1_ doo_v1_ dor_v1_ sbp_ tskey- hvs. hvb. pul- dp.pt. glsa_ glc_ sntrys_ sntryu_ AGE-SECRET-KEY-1 SG. "
    "shpat_ shpss_ sq0atp- sq0csp- lin_api_ ntn_ figd_ PMAK- ATATT3x whsec_ NRAK- "
    "bkua_ pscale_tkn_ fo1_ fm2_"
).split()
_LENGTH = 20
_TAIL = rf"{_RUN}{{{_LENGTH},}}+(?:[.+/=]++{_RUN}++|=)*+"
_SERVICES: list[Pass] = [
    ((prefix.lower(),), re.compile(_begins(re.escape(prefix), len(prefix)) + _TAIL), _no_name) for prefix in _PREFIXES
]
_TERRAFORM = re.compile(rf"\.atlasv1\.{_RUN}{{{_LENGTH},}}+")
_TELEGRAM = re.compile(rf":AA(?<=[0-9]{{8}}:AA){_RUN}{{30,}}+")
_SLACK_HOOK = re.compile(r"(hooks\.slack\.com/[a-z]{1,16}/)[A-Za-z0-9/]{20,}+")


def _mark(text: str) -> re.Pattern[str]:
    """What all tokens have in which this parts the prefix from the rest: the search for one character is quick."""
    heads = [prefix[: place + 1] for prefix in [*_PREFIXES, ".atlasv1."] if (place := prefix.rfind(text)) >= 0]
    behind = "|".join(sorted({re.escape(head[-3:]) for head in heads}))
    return re.compile(rf"{re.escape(text)}{_RUN}{{{_LENGTH}}}(?<=(?:{behind}).{{{_LENGTH}}})")


_has_underscored, _has_dashed, _has_dotted = (_mark(text).search for text in "_-.")


def may_be_of_a_service(text: str) -> bool:
    """Whether there may be a token of one of the services in the text: False is certain."""
    return (
        ("A" in text and ("AIza" in text or "ATATT3x" in text or ":AA" in text))
        or ("/" in text and "hooks.slack.com/" in text)
        or ("_" in text and _has_underscored(text) is not None)
        or ("-" in text and _has_dashed(text) is not None)
        or ("." in text and _has_dotted(text) is not None)
    )


# The user and password of a URL; what stands before and behind stays readable. Second, with a slash in the password:
# no port before it, and up to the first @, or the last one before the next slash.
_FILLED_IN = (
    r"""(?!\[redacted\]@|[^\s/?#:@"<>\\]*+:(?:\$?\{{1,2} ?[A-Za-z_][\w.]{0,64} ?\}{1,2}|\$[A-Z][A-Z0-9_]*+|%s|\*++)@)"""
)
_USERINFO = re.compile(
    rf"""://{_FILLED_IN}"""
    r"""(?:[^\s/?#:"<>\\]*+:[^\s/?#"<>\\]*@"""
    r"""|[^\s/?#:"<>\\@\[]*+:(?![0-9]{1,5}(?:[/?#,]|\Z))[^\s"<>\\@:]*+(?::(?!//)[^\s"<>\\@:]*+)*+@"""
    r"""(?:[^\s/?#"<>\\@]*+@)*+)"""
)

# "the bearer of this", "a bearer token is missing": plain words behind "bearer" that are no credential.
_PLAIN = (
    r"(?:(?i:a|access|an|and|api|are|as|at|auth|authentication|authorization|bearer|be|been|by|can|cannot|certificates?"
    r"|could|bonds?|credentials?|did|do|does|empty|enters?|for|from|gets?|had|has|have|header|in|instruments?|invalid|is"
    r"|it|its|jwts?|may|might|missing|must|needs?|nil|none|not|null|oauth2?|of|on|only|opaque|or|refresh|scheme|service"
    r"|session|shall|shares?|should|that|the|this|to"
    r"|tokens?|type|undefined|was|were|which|who|will|with|would)[.]?(?!" + _CREDENTIAL + "))"
)
# In lower case, in the middle of a sentence, only before what is no word: a digit, a capital or a dot inside, or long.
_UNLIKE_A_WORD = (
    rf"(?={_CREDENTIAL}{{6}})(?=[A-Za-z/-]{{24}}|[A-Za-z/-]*+[0-9~+=]|[A-Za-z-]++[._][A-Za-z0-9]|[a-z]++[A-Z])"
)
_SPACE = r"(?:\s|%20)++"
_HEADER = "|".join(rf"(?<=(?i:orization){end}bearer)" for end in (":", ": ", "=", '": "', '":"', "': '", "':'"))
_BEARER = re.compile(
    "(?:"
    + _begins("(?!bearer)[Bb][Ee][Aa][Rr][Ee][Rr]", 6)
    + _SPACE
    + r"""|bearer(?:(?<![^\n]bearer)|(?<=[:="'(]bearer)|(?<=[:=]\sbearer))"""
    + _SPACE
    + rf"(?={_CREDENTIAL}{{13}})"
    + f"|bearer(?:{_HEADER})"
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


_WORDS = re.compile(r"(?:(?:[a-z]{0,15}+(?:[A-Z][a-z]{1,14}+)*+|[A-Z]{1,15}+)(?:[_.-]|\Z))++")
_PREFIX = re.compile("github_pat_|[a-z]{2,4}_(?:live_|test_)?|[a-z]{4,5}-")


def _no_slug(match: re.Match[str]) -> str:
    """A token is not made of words alone, as the name of a file is."""
    text = match[0]
    found = _PREFIX.match(text)
    return text if found and _WORDS.fullmatch(text, found.end()) else REDACTED


def _sk(match: re.Match[str]) -> str:
    """A key has digits and length; a slug and the name of a voice are words."""
    run = match[0][3:]
    is_key = _KEY_PART.search(run) or (_LONG_PART.search(run) and _DIGIT.search(run))
    return REDACTED if is_key else match[0]


# What a text in lower case has to hold, then what to look for in the text itself, and what to put in its place. The
# block first: the dashes before its BEGIN may hang on another secret.
PASSES: tuple[Pass, ...] = (
    (("----begin", "---- begin"), _PEM, REDACTED),
    (("bearer",), _BEARER, lambda match: f"{match[0][:6]} {REDACTED}"),
    (("basic",), _BASIC, _basic),
    (("sk-",), _SK, _sk),
    (("k_live_", "k_test_"), _STRIPE, _no_slug),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _GITHUB, _no_slug),
    (("github_pat_",), _GITHUB_FINE, _no_slug),
    (("glpat-",), _GITLAB, _no_slug),
    (("xox",), _SLACK, _no_slug),
    (("akia", "asia"), _AWS, REDACTED),
    ((OF_LOGIN, OF_SESSION), _HUB, _no_name),
    (("eyj",), _JWT, REDACTED),
    (("://",), _USERINFO, f"://{REDACTED}@"),
)
OF_SERVICES: tuple[Pass, ...] = (
    *_SERVICES,
    ((".atlasv1.",), _TERRAFORM, f".atlasv1.{REDACTED}"),
    ((":aa",), _TELEGRAM, f":{REDACTED}"),
    (("hooks.slack.com/",), _SLACK_HOOK, rf"\1{REDACTED}"),
)


def may_have_shape(text: str) -> bool:
    """A cheap first look, mostly for plain substrings: False is certain, True is not."""
    return (
        ("J" in text and "eyJ" in text)  # one character is found ten times faster than three
        or ("A" in text and ("KIA" in text or "SIA" in text))
        or ("://" in text and "@" in text)
        or ("-" in text and _may_have_dashed(text))
        or ("_" in text and _may_have_underscored(text))
        or _may_have_scheme(text.lower())
    )


_GH = re.compile("gh[opusr]_")
_PEM_BEGIN = re.compile(rf"----[- ](?i:BEGIN) (?!{_PUBLIC})")


def _may_have_dashed(text: str) -> bool:
    literals = "glpat-" in text or "xox" in text or ("----" in text and _PEM_BEGIN.search(text) is not None)
    return literals or ("sk-" in text and _SK.search(text) is not None)


def _may_have_underscored(text: str) -> bool:
    literals = "github_pat_" in text or "k_live_" in text or "k_test_" in text
    literals = literals or OF_LOGIN in text or OF_SESSION in text
    return literals or ("gh" in text and _GH.search(text) is not None)


def _may_have_scheme(folded: str) -> bool:
    return "bearer" in folded or "basic" in folded
