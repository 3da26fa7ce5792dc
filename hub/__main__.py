# PYTHON_ARGCOMPLETE_OK
"""The program `hub`, and `python -m hub`: the command line."""

import signal

TYPE_CHECKING = False  # typing takes longer to import than all that is done here
if TYPE_CHECKING:
    from typing import NoReturn


def start() -> "NoReturn":
    """Run the command line of this process, and end it.

    Ctrl-C ends it as it ends any other program, until a command has something to do in that case: what Python does
    instead falls into anything, imports too, and shows a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from .cli.main import script

    script()


if __name__ == "__main__":
    start()
