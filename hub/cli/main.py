# PYTHON_ARGCOMPLETE_OK
"""The command line: start a hub, and publish, follow, call and verify from a shell.

Exit status: 0 done, 1 the hub said no, 2 usage, 3 no hub there; of `audit verify` and `ask` what they say. What was
done stays done, also where its output cannot be written. Errors are one sentence on stderr. What takes long to import
is imported by the command that needs it.
"""

import atexit
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from .. import stdio
from ..client.discovery import Disconnected, NoHub, NotRunning
from ..errors import HubError, UsageError
from ..spelling import suggestion
from . import interrupts
from .grammar import Parser, formatter, refusal
from .terminal import is_terminal, printable

DONE, REFUSED, USAGE, NO_HUB = range(4)
INTERRUPTED = 130
READ = ("HUB_URL", "HUB_STATE_DIR", "HUB_TOKEN", "HUB_CA")  # by each client
HOOKED = "CLAUDE_PROJECT_DIR"  # what Claude Code gives to its hooks, and to nothing else that it starts
LONGEST = 4000  # characters of the sentence that says why
# The commands, each a module here that is imported when it is asked for.
COMMANDS: Mapping[str, Sequence[str]] = {
    "run a hub": ("serve", "token"),
    "events": ("publish", "tail", "run", "forward"),
    "commands and questions": ("call", "ask"),
    "agents and services": ("connect", "hook", "mcp"),
    "look after it": ("status", "doctor", "audit", "print"),
}
NAMES = [name for names in COMMANDS.values() for name in names]
HASTY = (["publish"], ["hook"])
EXAMPLES = """
  hub --demo --open                                run a hub with a made-up life, and look at its page
  hub publish task:progress id=build progress=40   say how far something is; with status=succeeded, that it is done
  hub tail 'task:*'                                follow what happens
  hub call                                         what can be asked for
  hub COMMAND --help                               more about one of these commands
  hub --version                                    which version this is
"""


def script() -> NoReturn:
    """Run the command line of this process, and end it: of what agents and scripts start again and again, without what
    Python clears away then. Nothing is lost: the streams are flushed, what others have to do at the end is done. So
    ends what was asked to, too: while Python clears away, a second signal would be the end of the process, and its
    status."""
    status = main()
    if (sys.argv[1:2] in HASTY or interrupts.is_heard()) and not _has_threads():
        atexit._run_exitfuncs()
        stdio.finish()
        os._exit(status)
    sys.exit(status)


def _has_threads() -> bool:
    threading = sys.modules.get("threading")
    return threading is not None and threading.active_count() > 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    stdio.prepare()
    words = _with_default(list(sys.argv[1:] if argv is None else argv))
    try:
        status = _run(words)
    except SystemExit as stop:  # argparse has shown its help
        status = int(stop.code or DONE)
    except KeyboardInterrupt as stop:
        status = getattr(stop, "status", INTERRUPTED)
    except Exception:
        if not _is_hook(words):
            raise
    stdio.finish()
    return DONE if _is_hook(words) else status


def _is_hook(words: Sequence[str]) -> bool:
    """Whether an agent waits for this. Any other exit status than 0 would be an answer of ours to what it is about to
    do, and so would a sentence be, for some."""
    return words[:1] == ["hook"]


def _run(words: list[str]) -> int:
    args: Any = None
    try:
        if "_ARGCOMPLETE" in os.environ:
            return _complete()
        if words == ["--version"]:
            return _version()
        args = _read(words)
        _warn_of_variables(words[0], args)
        status: int = args.run(args)
    except UsageError as error:
        return _complain(words, error, USAGE)
    except NotRunning as error:
        from .http import start_of

        return _complain(words, f"{error} Start one with: {start_of(args)}", NO_HUB)
    except (NoHub, Disconnected) as error:
        return _complain(words, error, NO_HUB)
    except HubError as error:
        return _complain(words, refusal(error), REFUSED)
    return status


def _read(words: list[str]) -> Any:
    """The namespace of a command line. Raises UsageError, also for flags that stand before their command."""
    try:
        return parser(*(word for word in _checked(words)[:1] if word in NAMES)).read(words)
    except UsageError:
        name = next((word for word in words[1:] if word in NAMES), None)
        if words[0] == "serve" and words[1].startswith("-") and name:
            raise UsageError(f"Flags stand behind the command: hub {name} … {words[1]} … (see hub --help).") from None
        raise


def _warn_of_variables(name: str, args: Any) -> None:
    """Tell a client of a variable that was probably meant for it: unread, it would lead to another hub. What an agent
    or a program beside `run` reads stays as it is, `doctor` has a line of its own, and so has the hub."""
    if not hasattr(args, "url") or name in ("hook", "doctor") or (name == "run" and not is_terminal(sys.stderr)):
        return
    if any(variable.startswith("HUB_") and variable not in READ for variable in os.environ):
        from ..config import unknown_variables

        for sentence in filter(lambda sentence: sentence.endswith("?"), unknown_variables()):
            stdio.complain(f"hub: {printable(sentence)}")


def _complain(words: Sequence[str], sentence: object, status: int) -> int:
    """One line; of what is wrong with a file one for each problem, which says where it is by itself."""
    if _is_hook(words) and not is_terminal(sys.stderr):
        return DONE
    as_json, by_line = _wants_json(words), getattr(sentence, "by_line", False)
    for line in str(sentence).split("\n") if by_line else [str(sentence)]:
        text = printable(_cut(line))
        stdio.complain(_as_json(text) if as_json else text if by_line else f"hub: {text}")
    return status


def _cut(text: str) -> str:
    """Begin and end of a sentence that quotes megabytes of what it was given: the end says what to do."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


def _wants_json(words: Sequence[str]) -> bool:
    """Whether the hub's log is to be JSON, as far as that can be told of words that may make no sense."""
    if words[0] != "serve":
        return False
    chosen = os.environ.get("HUB_LOG_FORMAT", "")
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--log-format":
            chosen = value if equals else after
    return chosen == "json"


def _as_json(text: str) -> str:
    """The line of the log that says it."""
    import logging

    from ..stderr import JSONLines

    return JSONLines().format(logging.makeLogRecord({"name": "hub", "levelname": "ERROR", "msg": text}))


# ---- what the command line looks like


def _is_cut_hook() -> bool:
    """Whether Claude Code has started this as the hook that `hub connect` has written, but without its `args`, which
    not every version knows. Stops a hub from starting in its place, or exit status 2, which would hold up all that the
    agent does."""
    mode = os.fstat(0).st_mode
    return HOOKED in os.environ and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _with_default(words: list[str]) -> list[str]:
    """`python -m hub --port 0` means `serve`; `hub help tail` means `hub tail --help`."""
    if not words and _is_cut_hook():
        return ["hook", "claude-code"]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    is_serve = not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"))
    return ["serve", *words] if is_serve else words


def _checked(words: list[str]) -> list[str]:
    """The words, if they are text and begin with a command. Raises UsageError."""
    for number, word in enumerate(_own(words), 1):
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"Word {number} of the command line is not UTF-8.")
    if not words[0].startswith("-") and words[0] not in NAMES:
        raise UsageError(f"there is no command {words[0]!r}{suggestion(words[0], NAMES)} (see hub --help).")
    return words


def _own(words: list[str]) -> list[str]:
    """Those that are the hub's: what `run` hands on may be anything."""
    return words[: words.index("--")] if words[0] == "run" and "--" in words else words


class Whole(Parser):
    """The grammar of everything, whose help is a table of the commands."""

    def format_help(self) -> str:
        """What there is, by what it is for, and examples."""
        commands: Any = self._subparsers
        helps = {action.dest: action.help for action in commands._group_actions[0]._choices_actions}
        lines = ["usage: hub [COMMAND] …", "", f"{self.description} Without a COMMAND it is run, as by hub serve."]
        for title, names in COMMANDS.items():
            lines += ["", f"{title}:", *(f"    {name:<10} {helps[name]}" for name in names)]
        return "\n".join([*lines, "", "examples:", EXAMPLES.strip("\n"), ""])


def parser(*named: str) -> Parser:
    """The grammar of these commands, or of all; the namespace of each has its function `run` and its own `parser`."""
    whole = Whole(
        prog="hub",
        description="A hub of events and commands on this machine.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="store_true", help="say which version this is")
    commands = whole.add_subparsers(prog="hub", metavar="COMMAND", parser_class=Parser, required=True)
    for name in named or NAMES:
        import_module(f".{name}", __package__).add(commands)
    return whole


def _version() -> int:
    from ..hub import VERSION

    stdio.say(f"hub {VERSION}")
    return DONE


def _complete() -> int:
    """Answer the shell, which has started this to complete a line; without argcomplete it gets no answer."""
    from .completion import complete

    with suppress(ImportError):
        complete(parser())
    return DONE
