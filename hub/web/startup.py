"""The start of the hub's own process: what fails there in code of the application is named and shown.

Only `python -m hub` uses this. A hub that is mounted in an application lets the exceptions through.
"""

import asyncio
import logging
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from aiohttp import web

from ..errors import UsageError
from ..hub import Hub

log = logging.getLogger("hub")

# What stands in a traceback before the application's own code: the hub, the libraries, Python itself.
BEFORE = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<frozen")


def load(hub: Hub, names: Iterable[str]) -> bool:
    """Load modules; False, with a line in the log, if one of them raises. Raises UsageError if there is none."""
    for name in names:
        try:
            hub.load(name)
        except UsageError as error:
            raise UsageError(f"{error}{_advice(name)}") from None
        except (Exception, SystemExit) as error:
            _tell(f"the module {name} failed", error)
            return False
    return True


def _advice(name: str) -> str:
    """What to do where a module lies in the current folder, which the installed `hub` does not look into, so that no
    file that happens to lie there is run in the place of a library."""
    first, here = name.partition(".")[0], Path.cwd()
    is_here = bool(first) and ((here / f"{first}.py").is_file() or (here / first).is_dir())
    if not is_here or {"", str(here)} & set(sys.path):
        return ""
    return f" It is in this folder, where hub does not look; this does: {sys.executable} -m hub --load {name}"


async def begin(runner: web.AppRunner) -> bool:
    """Start the application; False, with a line in the log, if a listener of `on_start` raises. Raises UsageError."""
    try:
        await runner.setup()
    except UsageError:
        raise
    except (Exception, asyncio.CancelledError) as error:
        _tell("the start failed", error)
        return False
    return True


def _tell(what: str, error: BaseException) -> None:
    """One record: what was raised and where, and the way there without the hub's own part of it."""
    whole = None if isinstance(error, SyntaxError) else error.__traceback__  # that one says where it is by itself
    trace = _own_part(error.__traceback__) or whole
    last = traceback.extract_tb(trace)[-1:]
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})" for frame in last)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    log.error("%s: %s%s", what, said, where, exc_info=(type(error), error, trace))


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    while trace and trace.tb_frame.f_code.co_filename.startswith(BEFORE):
        trace = trace.tb_next
    return trace
