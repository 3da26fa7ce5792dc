"""Command lines as a shell starts them, with streams closed or redirected; and a server that answers nothing."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

MAIN = "import sys;from hub.cli.main import main;sys.exit(main(sys.argv[1:]))"


def by_shell(redirected: str, code: str, *words: str) -> tuple[str, ...]:
    """A command that closes or redirects streams, and then runs this code."""
    return ("sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, "-W", "error", "-c", code, *words)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.recv(65536)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
