"""A real nginx in the foreground, and the ports that are kept for it."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from prints import program
from running import send_signal, until

ADDRESS = "127.0.0.2"  # where it listens
AROUND = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


@contextmanager
def kept(count: int) -> Iterator[Sequence[int]]:
    """So many ports on which it can listen (`reuseport`): held meanwhile, so that nobody else gets them."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in held:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((ADDRESS, 0))
        yield [sock.getsockname()[1] for sock in held]


@asynccontextmanager
async def nginx(folder: Path, servers: str, port: int) -> AsyncIterator[None]:
    """While it runs with these servers, of which one listens on the port."""
    conf = folder / "nginx.conf"
    conf.write_text(AROUND.format(folder=folder, servers=servers))
    command = (program("nginx", "nginx"), "-p", str(folder), "-e", "stderr", "-c", str(conf))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: process.returncode is not None or _listens(port), "nginx listening")
        yield
    finally:
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == 0


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((ADDRESS, port)) == 0
