"""What can stand between a person and the hub: each check says that it is well, or what is wrong and what to do."""

import argparse
import os
import platform
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from ..client.discovery import Disconnected, NoHub, Refusal, answer, credentials, named_hub
from ..config import unknown_variables
from ..errors import HubError, UsageError
from ..private import FILE
from ..statedir import state_directory
from .http import address, connection, start_of, token_of

LEAST_ROOM = 64 * 1024 * 1024  # bytes: what the newest events may take
PLACE = "127.0.0.1", 3141  # where a hub listens by itself
ANSWER_TIMEOUT = 5.0  # seconds
OUTWARD = ("channel ", "webhook ")  # how the parts are called through which the hub tells others


class Finding(NamedTuple):
    """What one check has found: a sentence if all is well, and one if it is not."""

    check: str
    fine: str
    problem: str | None = None


def of_this_machine() -> Iterator[Finding]:
    """Versions, and variables that are read as settings, by the hub or by others on the way to it."""
    yield Finding("version", f"hub {version()} with Python {platform.python_version()}.")
    unknown = unknown_variables()
    named = [name for name in ("HUB_URL", "HUB_STATE_DIR", "HUB_TOKEN", "HUB_CA") if os.environ.get(name)]
    fine = f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} set." if named else "No client's variable is set."
    yield Finding("variables", fine, " ".join(unknown) or None)
    yield Finding("proxy", "No proxy stands between programs and this machine.", _proxy(getproxies_environment()))


def version() -> str:
    """The installed version of the hub."""
    from importlib import metadata

    try:
        return metadata.version("aiohttp-hub")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _proxy(proxies: Mapping[str, str]) -> str | None:
    scheme = next((scheme for scheme in ("http", "all") if scheme in proxies), None)
    if scheme is None or all(proxy_bypass(host, proxies) for host in ("localhost", "127.0.0.1")):
        return None
    return (
        f"{scheme}_proxy sends what curl and others ask of the hub through a proxy, and the hub refuses what a proxy "
        "has forwarded. Set no_proxy=localhost,127.0.0.1."
    )


def of_this_account(args: argparse.Namespace) -> Iterator[Finding]:
    """The state directory, and the room on its disk."""
    try:
        folder = args.state_dir or state_directory()
    except UsageError as error:
        yield Finding("state", "", str(error))
        return
    if not os.path.lexists(folder):
        yield Finding("state", f"There is no {folder} yet; a hub makes it when it starts.")
        return
    problem = _folder_problem(folder)
    yield Finding("state", f"{folder} is this account's alone, and can be written.", problem)
    if problem is None:
        room = shutil.disk_usage(folder).free
        full = f"{folder} has room for {room / 2**20:.0f} MiB only; free some, or no event can be kept."
        yield Finding("disk", f"{room / 2**30:,.1f} GiB are free.", full if room < LEAST_ROOM else None)


def _folder_problem(folder: Path) -> str | None:
    try:
        facts = folder.stat()
    except OSError as error:
        return f"{folder} cannot be looked at ({error.strerror}); name another folder with --state-dir."
    if not stat.S_ISDIR(facts.st_mode):
        return f"{folder} is no folder; name one with --state-dir."
    if facts.st_uid != os.geteuid():
        return f"{folder} belongs to another account (user {facts.st_uid}); name one of your own with --state-dir."
    if facts.st_mode & 0o077 & ~FILE:
        return f"{folder} is open to other accounts; close it with chmod 700, if it is a hub's."
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} cannot be written; chmod 700 lets you."
    return None


class Reach:
    """The way to the hub. `is_there`: something answers as a hub; `is_open`: it lets this account in."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self.is_there, self.is_open = args, False, False

    def findings(self) -> Iterator[Finding]:
        """Where it is, whether it answers and lets us in, and how it says that it is."""
        try:
            url = address(self._args)
            yield Finding("address", f"{url}, as {self._named()} says.")
            token = credentials(url, self._args.state_dir, token_of(self._args))
            reasons = self._ask(url)
        except UsageError as error:
            yield Finding("address", "", str(error))
            return
        except Refusal as refusal:
            self.is_there = True
            yield Finding("way in", "", _why_refused(refusal, url, has_token=bool(token)))
            return
        except (NoHub, Disconnected) as error:
            yield Finding("hub", "", f"{error} {self._what_to_do()}")
            yield from _port() if self._is_looked_for() else ()
            return
        except HubError as error:
            yield Finding("token", "", str(error))
            return
        self.is_there = self.is_open = True
        yield Finding("hub", "It answers, and lets this account in.")
        yield from self._how_it_is(reasons)

    def _named(self) -> str:
        named = named_hub(self._args.url, self._args.state_dir)
        return "server.json" if named is None else "--url" if self._args.url else "HUB_URL"

    def _ask(self, url: str) -> Mapping[str, str]:
        with connection(self._args, answer_timeout=ANSWER_TIMEOUT) as hub:
            status, body = hub.exchange("GET", "/readyz")
            found = answer(url, 200 if status == 503 and b'"reasons"' in body else status, body)
            health = answer(url, *hub.exchange("GET", "/healthz"))
        self._version = str(health.get("version")) if isinstance(health, dict) else "unknown"
        return found.get("reasons", {}) if isinstance(found, dict) else {}

    def _is_looked_for(self) -> bool:
        return named_hub(self._args.url, self._args.state_dir) is None

    def _what_to_do(self) -> str:
        if self._is_looked_for():
            return f"Start one with: {start_of(self._args)}"
        return f"Start one there, or leave out {self._named()}, to find the one that runs here."

    def _how_it_is(self, reasons: Mapping[str, str]) -> Iterator[Finding]:
        told = {part: why for part, why in reasons.items() if part.startswith(OUTWARD)}
        parts = [f"{part}: {why}" for part, why in reasons.items() if part not in told]
        yield Finding("ready", "Every part of it works.", " ".join(parts) or None)
        for part, why in told.items():
            yield Finding(part, "", f"{why} See to {part} in hub.toml, or to what it leads to.")
        other = f"The hub is of version {self._version}, this is {version()}; restart the hub, or install that version."
        yield Finding("versions", f"The hub's is {self._version}, too.", other if self._version != version() else None)


def _port() -> Iterator[Finding]:
    """Whether a hub could listen where it does by itself."""
    with socket.socket() as free:
        free.settimeout(ANSWER_TIMEOUT)
        taken = free.connect_ex(PLACE) == 0
    problem = f"Another program listens on {PLACE[0]} port {PLACE[1]}; stop it, or start the hub with --port."
    yield Finding("port", f"{PLACE[0]} port {PLACE[1]} is free for it.", problem if taken else None)


def _why_refused(refusal: Refusal, url: str, *, has_token: bool) -> str:
    """What to do about a refusal of the guard."""
    match refusal.status:
        case 401 if has_token:
            what = "The token is not this hub's: hub token prints the right one where the hub runs."
        case 401:
            what = "It wants a token: put that of hub token into HUB_TOKEN, or name its file with --token-file."
        case 421:
            what = f"Start it with --allow-host {urlsplit(url).netloc}, or use an address that it knows."
        case 403:
            what = "It lets in the account that it runs as, over loopback and through no proxy; or use --auth token."
        case _:
            what = ""
    return f"{refusal.message} {what}".rstrip()
