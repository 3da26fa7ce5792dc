"""A refusal as a small page, for a person who looks at it in a browser: the same sentence, and what to do or type.

It says nothing that the error object does not say: what is added depends on the status alone, and is the same for every
hub. It needs no other file, because whoever is refused would be refused that, too.
"""

import re
from html import escape

from aiohttp import hdrs, web

from ..errors import HubError
from ..wire.texts import seen

ADVICE = {
    401: "In a terminal on the hub's own machine type <kbd>hub token --link</kbd>, and open the link that it prints.",
    403: "Open the address that <kbd>hub status</kbd> prints, in a browser of the account that runs the hub, "
    "on the same machine.",
    404: "Open the address that <kbd>hub status</kbd> prints.",
    421: "Open the address that <kbd>hub status</kbd> prints.",
    429: "Wait a few seconds, then load this page again.",
    500: "Load this page again. If that does not help, the hub's log says more.",
    503: "Wait a few seconds, then load this page again. <kbd>hub status</kbd> says how the hub is.",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>hub: {status}</title>
</head>
<body>
<main>
<h1>The hub says no</h1>
<p>{sentence}</p>
{advice}</main>
</body>
</html>
"""


def is_wanted(request: web.Request) -> bool:
    """Whether a browser asks, for a page: its own scripts and other programs do not name HTML."""
    return any("text/html" in value.lower() for value in request.headers.getall(hdrs.ACCEPT, ()))


def refusal_page(error: HubError) -> str:
    """The page. The sentence may have words of whoever asked in it, so it is escaped."""
    advice, sentence = ADVICE.get(error.status), error.message
    if error.status == 401:  # what programs are told to do about it the advice says for people
        sentence = re.split("[:;] ", sentence)[0].rstrip(".") + "."
    return PAGE.format(
        status=error.status,
        sentence=escape(seen(sentence)),
        advice=f"<p>{advice}</p>\n" if advice else "",
    )
