# PYTHON_ARGCOMPLETE_OK
"""The program `hub`, and `python -m hub`: the command line."""

import signal
from typing import NoReturn


def start() -> NoReturn:
    """Run the command line of this process, and end it.

    Until it takes Ctrl-C, which is some imports away, that ends this as it ends any other program: a loop of `hub
    publish` that is interrupted shows no traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from .cli.main import script

    script()


if __name__ == "__main__":
    start()
