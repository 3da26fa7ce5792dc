"""The ways to a person: ntfy, a command, notify-send, and everything else through Apprise."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Mapping
from html import escape
from typing import Any

from ..configfile.shapes import Channel
from ..errors import install
from ..processes import ended_in_words
from .outgoing import Post, Unreached, retry_after

COMMAND_SECONDS = 10.0  # for a command, then it is killed
REQUEST_SECONDS = 10.0
PASSING = (408, 425, 429)  # statuses of refusals that do not last (RFC 9110, 15.5; RFC 8470; RFC 6585)

Words = Mapping[str, Any]  # {rule, title, message, priority, tags, click, event}, as a command reads it on stdin


class Failed(Exception):
    """A message did not get through; the sentence says why. It may another time: in so many seconds, if `retry_after`
    says so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(Failed):
    """The message is not taken, and will not be as it is."""


async def send(channel: Channel, words: Words, post: Post) -> None:
    """Send one message. Raises Failed, Refused where the same again would be in vain: of what a program ends with, or
    Apprise says, nobody knows that."""
    if channel.type == "ntfy":
        await _ntfy(channel, words, post)
    elif channel.type == "apprise":
        await _apprise(channel, words)
    elif channel.type == "desktop":
        await _desktop(words)
    else:
        await _run(channel.argv, f"{json.dumps(words, ensure_ascii=False)}\n".encode())


async def _ntfy(channel: Channel, words: Words, post: Post) -> None:
    """One POST to the server's root (ntfy, "Publish as JSON"). Its button only opens the page: it carries no
    credential, because everybody who reads the topic has it."""
    body = {name: words[name] for name in ("title", "message", "priority", "tags", "click")}
    label = "Review" if words["rule"] == "question" else "Open"
    body |= {"topic": channel.topic, "actions": [{"action": "view", "label": label, "url": words["click"]}]}
    headers = {"content-type": "application/json"}
    if channel.token:
        headers["authorization"] = f"Bearer {channel.token}"
    data = json.dumps(body, ensure_ascii=False).encode()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reply = await post(channel.url, data, headers, REQUEST_SECONDS)
    except TimeoutError:
        raise Failed(f"no answer within {REQUEST_SECONDS:g} s") from None
    except Unreached as error:
        raise Failed(str(error)) from None
    if 200 <= reply.status < 300:
        return
    is_final = 400 <= reply.status < 500 and reply.status not in PASSING
    raise (Refused if is_final else Failed)(f"the server answered {reply.status}", retry_after(reply, time.time()))


async def _desktop(words: Words) -> None:
    program = shutil.which("notify-send")
    if program is None:
        raise Failed("there is no notify-send on this machine")
    urgency = "critical" if words["priority"] >= 5 else "normal" if words["priority"] >= 3 else "low"
    flags = ("--app-name=hub", f"--urgency={urgency}", "--")
    await _run((program, *flags, str(words["title"]), _without_markup(str(words["message"]))), b"")


def _without_markup(text: str) -> str:
    """Stops a message of an agent's from drawing links and pictures: the body is markup (Desktop Notifications, 4)."""
    return escape(text, quote=False)


async def _run(argv: tuple[str, ...], stdin: bytes) -> None:
    """Run a program without a shell, with all that it has started in a group of its own, which ends with it."""
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError as error:
        raise Failed(f"{argv[0]} cannot be run: {error.strerror}") from None
    has_ended = False
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            # It need not read to the end, nor at all: then the pipe breaks, which uvloop tells in a way of its own.
            with contextlib.suppress(ConnectionError, RuntimeError):
                await process.communicate(stdin)
            await process.wait()
        has_ended = True
    except TimeoutError:
        raise Failed(f"{argv[0]} took longer than {COMMAND_SECONDS:g} s and was killed") from None
    finally:
        if not has_ended:
            _kill(process.pid)
            await process.wait()
    if process.returncode:
        raise Failed(f"{argv[0]} ended with {ended_in_words(process.returncode)}")


def _kill(pid: int) -> None:
    """End all of its group: also where the first of them has gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def _apprise(channel: Channel, words: Words) -> None:
    """In a thread: Apprise waits for its sockets."""
    try:
        import apprise
    except ImportError:
        raise Failed(f"Apprise is not installed: {install('notify')}") from None

    def tell() -> bool:
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines could hold the URL, and that a password
        one, text = apprise.Apprise(), f"{words['message']}\n{words['click']}"
        return bool(one.add(channel.url)) and bool(one.notify(title=words["title"], body=text))

    if not await asyncio.to_thread(tell):
        raise Failed("Apprise could not deliver it")
