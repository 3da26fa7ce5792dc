"""Another account of this machine, for tests that run as root: who becomes it, and what the kernel says of it."""

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hub import sockdiag

STRANGER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

# That account may be unable to read the interpreter's own home. So everything is imported before, and a later import
# fails for everyone, not only where the home is closed.
BECOME = (
    "import os,pathlib,socket,sys,traceback;sys.meta_path.clear();"
    f"os.setgroups([]);os.setgid({STRANGER});os.setuid({STRANGER});"
)
CONNECTED = BECOME + "s=socket.socket();s.connect(('127.0.0.1',int(sys.argv[1])));"  # as `s`
# Answers one request as a hub might, and says what it was sent.
SERVES = BECOME + (
    "l=socket.create_server(('127.0.0.1',0));print(l.getsockname()[1],flush=True);c,_=l.accept();b=c.recv(65536);"
    'c.sendall(b\'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 16\\r\\n\\r\\n{"cursor":"e:0"}\');'
    "sys.stdout.buffer.write(b+b''.join(iter(lambda:c.recv(65536),b'')))"
)
TO_THE_END = "sys.stdout.buffer.write(b''.join(iter(lambda:s.recv(4096),b'')))"
NAMESPACE = shutil.which("unshare")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or NAMESPACE is None, reason="only root can be sure to get a user namespace (util-linux: unshare)"
)


def in_namespace(*command: str, mapped: bool = True) -> tuple[str, ...]:
    """The command as user 65534 of a user namespace, where that is also who all those are that have no number there.
    With a map of one user, its own, or without any."""
    return (str(NAMESPACE), "--user", *(["--map-user=65534"] if mapped else []), "--", *command)


def as_older_kernels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed socket with uid 0. Newer kernels remember whose it was; the inode is 0 in both."""
    ask = sockdiag._Kernel.ask

    def older(self: sockdiag._Kernel, question: bytes) -> bytes | None:
        answer = ask(self, question)
        if answer and struct.unpack_from("=I", answer, 84) == (0,):
            return answer[:80] + bytes(4) + answer[84:]
        return answer

    monkeypatch.setattr(sockdiag._Kernel, "ask", older)


@contextlib.contextmanager
def strange_server() -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """A port of 127.0.0.1 on which another account listens, and the process, which prints what it was sent."""
    with subprocess.Popen([sys.executable, "-c", SERVES], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


async def as_stranger(port: int, data: bytes, then: str = TO_THE_END) -> str:
    """Send this to a port of 127.0.0.1 as another account, go on with the code `then`, and return what that printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{CONNECTED}s.sendall(sys.stdin.buffer.read());{then}", str(port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    answer, _ = await child.communicate(data)
    assert child.returncode == 0
    return answer.decode()
