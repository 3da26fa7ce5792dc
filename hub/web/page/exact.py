"""What a template writes of a value: on the page nothing of it is hidden, and what is sent back is exactly it."""

import json
import re
from collections.abc import Iterator

from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup, escape

from ...errors import HubError
from ...wire.strictjson import loads
from ...wire.texts import seen

AS_JSON = "hub:json:"  # before the name of a field: what it has is the text as JSON
ALTERED = re.compile(r"[\0\r]")  # what an attribute of HTML cannot have
IS_SENT = re.compile(r"""(?:(?<![\w-])(?:value|name)=(?:"[^"]*|'[^']*|)|<textarea\b[^<>]*>[^<]*)\Z""")  # by a form
LOOKED = 500  # characters of HTML before an expression


def drawn(value: object) -> object:
    """What a template writes of a value: a text with what cannot be seen written out, all else as it is. Each `{{ … }}`
    goes through this. Stops what others say from being drawn as something else, wherever on a page it stands."""
    kind = type(value)
    if kind is str:
        return seen(value)  # type: ignore[arg-type]
    return value if kind in (int, float) or hasattr(value, "__html__") else seen(str(value))


def exact(value: object) -> Markup:
    """A text as it is: what is sent back and not drawn, or has nothing hidden in it already."""
    return escape(value)


class Sent(Extension):
    """Writes exactly what stands in the `value` or `name` of a field or button, or in a text area. Stops a button of an
    application's panel, too, from sending something else than it was given."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        before, is_sent = "", False
        for token in stream:
            if token.type == "variable_end" and is_sent:
                for kind, text in (("rparen", ")"), ("pipe", "|"), ("name", exact.__name__)):
                    yield Token(token.lineno, kind, text)
            yield token
            if token.type == "data":
                before = (before + token.value)[-LOOKED:]
            elif token.type == "variable_begin" and (is_sent := bool(IS_SENT.search(before))):
                yield Token(token.lineno, "lparen", "(")


def carried(name: str, value: str) -> Markup:
    """The attributes of a field or button that sends this value: as it is, or where a browser would send another one,
    as JSON. Stops a button that looks as if it worked, and sends what nobody knows."""
    if ALTERED.search(value):
        name, value = AS_JSON + name, json.dumps(value)
    return Markup('name="{}" value="{}"').format(name, value)


def received(name: str, text: str) -> tuple[str, str]:
    """Name and value of a field that was sent: a browser sends two characters for each break of a line. Raises HubError
    for what should be a text as JSON, and is not."""
    if not name.startswith(AS_JSON):
        return name, text.replace("\r\n", "\n").replace("\r", "\n")
    value = loads(text)
    if not isinstance(value, str):
        raise HubError("invalid_message", f"The field {name} of the form must be a text as JSON.")
    return name.removeprefix(AS_JSON), value
