"""`hub ask`: ask a person, and say the answer with the exit status, too."""

import argparse
import contextlib
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ..client.discovery import NoHub, Refusal
from ..errors import HubError, UsageError
from ..redaction import redact_text
from ..stdio import complain, say
from ..wire.ids import new_id
from .grammar import add_command, key, seconds
from .http import Silent, add_where, connection, pasted
from .interrupts import interruptible
from .terminal import is_terminal, printable

NOBODY = 4  # has answered in time, and there is no default
SECOND = 10  # the exit status of the second option; the third's is one more
RETRY = 1.0  # seconds between two attempts while the hub is away
PATIENCE = 30.0  # seconds behind the deadline in which a hub that was away may still come back and say how it ended
NO_MATTER = (HubError, NoHub, UsageError, TypeError, LookupError)  # to who only explains; the last two: no hub's answer
LOOKS, LOOK = 20, 0.3  # how often the id of a question is looked for, and the seconds before each time


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "ask",
        run,
        "ask a person, and wait for the answer",
        "hub ask 'Deploy to production?' --option yes --option no --timeout 3600",
        status="0 the first option, 10 the second, 11 the third …, 4 nobody has answered in time;\n"
        "  1 the hub said no, 2 the words are wrong, 3 no hub there",
    )
    command.usage = (
        "hub ask QUESTION --option TEXT … [--default TEXT] [--timeout SECONDS] [--while-connected] [--key KEY] [FLAG …]"
    )
    add_where(command)
    command.add_argument("question", metavar="QUESTION", nargs="*", help="what is asked")
    command.add_argument("--option", metavar="TEXT", action="append", help="an answer; up to 16 of them")
    command.add_argument("--default", metavar="TEXT", help="the option that counts when nobody has answered in time")
    command.add_argument("--timeout", metavar="SECONDS", type=seconds, default=600.0, help="(default: 600)")
    command.add_argument("--while-connected", action="store_true", help="take the question back when this ends")
    command.add_argument(
        "--key", metavar="KEY", type=key, help="of a question that was asked before: wait for its answer"
    )


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer; the exit status is 0 for the first option, 10 for the second, 11 for the third.

    A hub that goes away meanwhile is waited for: the question is still open there, and known by its key. So it is when
    this is interrupted, or the hub falls silent; then it says how to come back for the answer.
    """
    args.question, args.key = _question(args), args.key or new_id()
    if len(args.option) == 1 and len(several := [part for part in args.option[0].split(",") if part.strip()]) > 1:
        meant = shlex.join(word for part in several for word in ("--option", part.strip()))
        complain(printable(f"hub: There is one option, {args.option[0]!r}; did you mean {meant}?"))
    try:
        with interruptible():
            answer = _answered(args)
    except Silent as error:
        raise Silent(f"{error.message} {_left_open(args, 'It is not known whether the question is open.')}") from None
    except Refusal as error:
        if error.code != "timeout":
            raise
        complain(printable(f"hub: {error.message}"))
        return NOBODY
    say(printable(answer) if is_terminal(sys.stdout) else answer)
    place = [redact_text(option) for option in args.option].index(answer)
    return SECOND + place - 1 if place else 0


def _answered(args: argparse.Namespace) -> str:
    try:
        with _explained(args):
            return _answer(args)
    except KeyboardInterrupt:
        complain("\n" * is_terminal(sys.stderr) + f"hub: {printable(_left_open(args))}")
        raise


def _question(args: argparse.Namespace) -> str:
    """The question. Raises UsageError, with what to type instead, for words that may be options, or parts of it."""
    if not args.question:
        args.parser.error("there is no QUESTION")
    question, *more = map(str, args.question)
    if not args.option:
        options = [word for option in more or ("yes", "no") for word in ("--option", option)]
        raise UsageError(f"Give each option with --option: {pasted(args, 'ask', question, *options)}")
    if more:
        args.parser.error(f"{more[0]!r} is one word too many: put the question in quotes")
    return question


@contextlib.contextmanager
def _explained(args: argparse.Namespace) -> Iterator[None]:
    """Meanwhile say on a terminal, once, how the question can be answered."""
    over = threading.Event()
    if is_terminal(sys.stderr):
        threading.Thread(target=_explain, args=(args, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _explain(args: argparse.Namespace, over: threading.Event) -> None:
    """The question's id is the hub's to know, and asking waits for the answer: so it is looked up beside that."""
    asked = redact_text(args.question), [redact_text(option) for option in args.option]
    for _ in range(LOOKS):
        if over.wait(LOOK):
            break
        with contextlib.suppress(*NO_MATTER), connection(args) as hub:
            found = hub.ask("POST", "/api/commands/hub:questions", b"{}")
            known = [each for each in found if (each["question"], each["options"]) == asked]
            if known and not over.is_set():
                words = ("hub:answer", f"question={known[-1]['id']}", f"answer={asked[1][0]}")
                complain(printable(f"hub: It waits for an answer, on the page or by {pasted(args, 'call', *words)}"))
                break


def _left_open(args: argparse.Namespace, state: str = "The question stays open.") -> str:
    """What becomes of the question now, and the words that ask for its answer."""
    if args.while_connected:
        return "The question is taken back."
    words = [args.question, *(part for option in args.option for part in ("--option", option))]
    words += ["--default", args.default] if args.default is not None else []
    words += ["--timeout", f"{args.timeout:g}", "--key", args.key]
    return f"{state} Come back for its answer with {pasted(args, 'ask', *words)}"


def _answer(args: argparse.Namespace) -> str:
    asked = {"question": args.question, "options": args.option, "timeout": args.timeout}
    if args.default is not None:
        asked["default"] = args.default
    headers = {"Idempotency-Key": args.key}
    if args.while_connected:
        asked["while"] = "connected"
    ends, body, is_asked = time.monotonic() + args.timeout + PATIENCE, json.dumps(asked).encode(), False
    while True:
        try:
            with connection(args, answer_timeout=None) as hub:
                return str(hub.ask("POST", "/api/commands/hub:ask", body, headers=headers)["answer"])
        except Silent:
            raise
        except (HubError, NoHub) as error:
            passes = isinstance(error, HubError) and error.retryable and error.code != "timeout"
            is_asked = is_asked or passes  # or may be, if the answer was lost
            comes_back = passes or (is_asked and isinstance(error, NoHub))
            if args.while_connected or not comes_back or time.monotonic() > ends:
                raise
        time.sleep(RETRY)
