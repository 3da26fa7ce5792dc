"""Which keys name a secret, and which only count one, point to a page, or say whether there is one."""

import functools
import re
from typing import Any, Literal

Use = Literal["secret", "tokens", "harmless"]  # what a key is for; `tokens` are a secret, or a count or time
_NAMES = (
    "apikey secret token password passwd authorization cookie privatekey accesstoken refreshtoken clientsecret "
    "credential passphrase pwd secretkey secretaccesskey hubsession accesskey accountkey encryptionkey masterkey "
    "signingkey passcode passwordconfirm passwordconfirmation secretkeybase"
).split()
SECRET_NAMES = frozenset([*_NAMES, *(f"{name}s" for name in _NAMES)])
# Known without anything that parts them from what stands before them, as in `dbpassword`: no other word ends in them.
_GLUED = (
    "password passwords passwd passphrase apikey apikeys privatekey secretkey accesskey accesstoken "
    "refreshtoken clientsecret credentials authtoken authtokens"
).split()
_LAST_LETTERS = frozenset(letter for name in SECRET_NAMES for letter in (name[-1], name[-1].upper()))
_BEHIND = "0123456789_-. []"  # a number, what parts it from the name, and what forms have: user[password], password[]
_LONGEST_KEY = 128  # what stands further before the end of a key does not change what it names


def _backwards(name: str) -> str:
    """A pattern for the name read from its end, whatever parts its letters, up to where a word begins: at a capital
    letter, so that GITHUBTOKEN and OpenAIAPIKey end in a listed name too, or behind what is no letter."""
    first, letters = name[0], _letters(name)
    return "[^A-Za-z0-9]*+".join([*letters[:-1], f"(?:{first.upper()}|{first}(?![A-Za-z]))"])


def _letters(name: str) -> list[str]:
    return [f"[{letter}{letter.upper()}]" for letter in reversed(name)]


_BEFORE = r"[_\-. /:]*+(?P<word>[a-z]++[A-Z]?|[A-Z]++)?"  # the word before, read from its end
# The name at the end of a key, and the word before it, all of it read backwards: so one step finds it or does not. The
# shortest name that fits; what follows the name of a token is looked at more closely.
_NAMED = re.compile(
    "(?:(?P<tokens>{})|(?P<token>{})|{}|{})".format(
        _backwards("tokens"),
        _backwards("token"),
        "|".join(_backwards(name) for name in sorted(SECRET_NAMES - {"token", "tokens"}, key=len)),
        "|".join("".join(_letters(name)) for name in _GLUED),
    )
    + _BEFORE
)
_WORD = re.compile(_BEFORE)

# How the names of secrets end, by their length: a look behind has one.
_ENDS = {  # by their last character, so that few are looked at
    "[sS]": ("keys|pass", "crets|okens|words|tials|okies"),
    "[0-9]": ("key[0-9]|pwd[0-9]", "(?:cret|oken|word|okie)[0-9]", "(?:cret|oken|word|okie|_key)[_-][0-9]"),
    "[^sS0-9]": ("key|pwd", "cret|oken|word|sswd|rase|okie|tial", "orization", "onfirmation", "ey_base"),
}
# The last two letters of all those: looked at before the rest, since it is nearly never there.
_ENDING = "[eE][yY]|[wWrR][dD]|[eE][tT]|[eEoO][nN]|[sSiI][eE]|[aA][lL]|[yYdDtTnNeElLsS][sS]|[yYdDtTnNeE_-][0-9]"

# The word before a name that makes it a question, a count, or a position in a list.
_QUESTIONS = frozenset("has have is needs need requires require no without uses use show hide forgot".split())
_COUNTS = frozenset(
    "max min maximum minimum num number of n total count used remaining left avg average mean sum per budget limit "
    "input output prompt completion cached cache reasoning thinking context audio text image generated new stop".split()
)
_TIMES = frozenset("first last per input output".split())  # of one token: how long, or what it costs
_POINTERS = frozenset("next prev previous continuation sync resume progress cursor cancel cancellation".split())
# Whose password is called a pass: nothing else that is called so has one of these before it.
_OF_PASSES = frozenset(
    "db database sql mysql mssql oracle pg postgres postgresql mongo mongodb redis rabbit rabbitmq amqp jdbc smtp imap "
    "mail email ftp sftp ssh ldap user username admin root sudo auth login account wifi http docker registry keystore "
    "service app api".split()
)
_PASS = re.compile(r"(?:.*[^A-Za-z])?(?P<word>[A-Za-z]{2,12})(?:[_. -]|(?=P))(?:[Pp]ass|PASS)", re.DOTALL)
_SYMBOLS = frozenset("pad eos bos unk mask sep cls stop special".split())  # in the settings of language models


def names_a_secret(key: str, value: Any = "") -> bool:
    """Whether the whole key, or its last words, is a listed name, its plural or numbered: `x-api-key` and `password2`
    are, `tokens_used`, `max_tokens` and `has_password` are not, and `tokens` only if its value is no number."""
    return is_secret(use_of(key), value)


def use_of(key: str) -> Use:
    """What a key is for, whatever its value."""
    key = key[-_LONGEST_KEY:].rstrip(_BEHIND)  # what is numbered is looked up once
    return _use(key) if key[-1:] in _LAST_LETTERS else "harmless"


def is_secret(use: Use, value: Any) -> bool:
    """Whether the value of a key with this use is a secret."""
    return use == "secret" or (use == "tokens" and not _is_count(value))


@functools.lru_cache(maxsize=4096)  # bounded: keys come from outside
def _use(key: str) -> Use:
    """What a key with this end is for, without a number behind it."""
    found = _NAMED.match(backwards := key[::-1])
    if found is None:
        passed = key.endswith(("pass", "PASS", "Pass")) and _PASS.fullmatch(key)
        return "secret" if passed and passed["word"].lower() in _OF_PASSES else "harmless"
    word = (found["word"] or "")[::-1].lower()
    if word in _QUESTIONS:
        return "harmless"
    if found["token"] or found["tokens"]:
        if word in _POINTERS or word in _SYMBOLS or (found["tokens"] and word in _COUNTS):
            return "harmless"
        if word == "page":
            before = _WORD.match(backwards, found.end())
            if before and (before["word"] or "")[::-1].lower() in {"", *_POINTERS}:
                return "harmless"
    return "tokens" if found["tokens"] or (found["token"] and word in _TIMES) else "secret"


def _is_count(value: Any) -> bool:
    if isinstance(value, dict):
        return all(part is None or isinstance(part, int | float) for part in value.values())
    return value is None or isinstance(value, int | float)


def named_before(mark: str) -> str:
    """A pattern that looks behind, over what parts a name from its value, for how the names of secrets end: a cheap
    first look, and each `mark` has one length."""
    behind = "|".join(
        f"(?<={last}{mark})(?i:{'|'.join(f'(?<=(?:{end}){mark})' for end in ends)})" for last, ends in _ENDS.items()
    )
    return f"(?<=(?:{_ENDING}){mark})(?:{behind})"


_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_LONGEST_NAME = 64
_BLANK = " \t\u00a0"
_CLOSES = "[]:?\"'\\"  # between a name and its =


def name_before(text: str, end: int) -> tuple[str, str]:
    """The name that ends here, but for what parts it from its value, and the character before it."""
    whole = text[max(0, end - _LONGEST_NAME) : end]
    if whole[-1:] in _BLANK:
        whole = text[max(0, end - 2 * _LONGEST_NAME) : end].rstrip(_BLANK)
    if whole[-1:] in _CLOSES:
        whole = whole.rstrip(_CLOSES + _BLANK)
    elif whole.endswith(("%5D", "%5d")):
        whole = whole[:-3]
    elif whole.endswith("\\t"):
        whole = whole[:-2]
    before = whole.rstrip(_NAME)
    name, before = whole[len(before) :], before[-1:]
    if before == "\\" and name[:1] in ("n", "r", "t"):  # a line that was escaped
        name = name[1:]
    return name, before
