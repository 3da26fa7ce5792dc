"""A refusal as a small page, for a person who looks at it in a browser: the same sentence, and what to do or type.

It says nothing that the error object does not say: what is added depends on the status alone, and is the same for every
hub; but for the hub's own account, which is told the command as it is typed for just this hub. It needs no other file,
because whoever is refused would be refused that, too.
"""

import contextlib
import os
import re
import shlex
from html import escape
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from ..errors import HubError, UsageError
from ..processes import typed_command
from ..statedir import state_directory
from ..wire.texts import seen
from .access.proxy import is_forwarded
from .keys import HUB, SEEN

if TYPE_CHECKING:
    from ..config import Config

ADVICE = {
    401: "In a terminal on the hub's own machine type <kbd>hub token --link</kbd> (and <kbd>--state-dir</kbd> as the "
    "hub was started with, if it was), and open the link that it prints.",
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


def is_own(request: web.Request) -> bool:
    """Whether the system says that this comes from the hub's own account, and no proxy that it comes from another.
    Stops everybody else from hearing where the hub's files are: the path names an account."""
    connection = request.get(SEEN)
    return connection is not None and connection.peer.uid == os.geteuid() and not is_forwarded(request.headers)


def link_command(config: "Config") -> str:
    """What is typed for a link to the page of this hub."""
    return f"{typed_command()} token --link{where(config)}"


def where(config: "Config") -> str:
    """The flag with which a command finds this hub, if it needs one."""
    own = config.common_dir.absolute()
    with contextlib.suppress(UsageError):
        if own == state_directory().absolute():
            return ""
    return f" --state-dir {shlex.quote(str(own))}"


def refusal_page(error: HubError, request: web.Request | None = None) -> str:
    """The page. The sentence may have words of whoever asked in it, so it is escaped."""
    advice, sentence = ADVICE.get(error.status), error.message
    if error.status == 401:  # what programs are told to do about it the advice says for people
        sentence = re.split("[:;] ", sentence)[0].rstrip(".") + "."
        if request is not None and is_own(request):
            typed = escape(link_command(request.app[HUB].config))
            advice = f"In a terminal type <kbd>{typed}</kbd>, and open the link that it prints."
    return PAGE.format(
        status=error.status,
        sentence=escape(seen(sentence)),
        advice=f"<p>{advice}</p>\n" if advice else "",
    )
