"""Whose connection it is: the kernel's word, and every way in which it could be misunderstood."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from strangers import BECOME, CONNECTED, STRANGER, as_older_kernels_say, needs_root

from hub import sockdiag
from hub.web.access import peer


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(sockets: ExitStack, host: str = "127.0.0.1", backlog: int = 16) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = sockets.enter_context(socket.create_server((host, 0), family=family, backlog=backlog))
    server.settimeout(30)
    return server


def connected(sockets: ExitStack, host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """(client's end, our accepted end)."""
    server = listen(sockets, host)
    client = sockets.enter_context(closing(socket.create_connection(server.getsockname()[:2])))
    return client, sockets.enter_context(closing(server.accept()[0]))


def reset(sock: socket.socket) -> None:
    """Close with RST: both ends are gone at once, and the port is free again."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Transport:
    """The three facts that `owner` asks a transport for, as they were at accept."""

    def __init__(self, accepted: socket.socket) -> None:
        self.facts = {
            "peername": accepted.getpeername(),
            "sockname": accepted.getsockname(),
            "socket": accepted,
        }

    def get_extra_info(self, name: str) -> Any:
        return self.facts.get(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_own_connection_is_the_own_user(sockets: ExitStack, host: str) -> None:
    client, accepted = connected(sockets, host)

    assert sockdiag.uid_of(client.getsockname(), accepted.getsockname()) == os.geteuid()
    assert peer.owner(Transport(accepted)) == os.geteuid()  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_mapped_addresses_are_unmapped(sockets: ExitStack, host: str) -> None:
    server = sockets.enter_context(socket.socket(socket.AF_INET6))
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::ffff:127.0.0.1", 0))
    server.listen()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = sockets.enter_context(socket.socket(family))
    client.connect((host, server.getsockname()[1]))
    accepted = sockets.enter_context(closing(server.accept()[0]))

    assert accepted.getpeername()[0] == "::ffff:127.0.0.1"
    assert sockdiag.uid_of(accepted.getpeername(), accepted.getsockname()) == os.geteuid()


def test_the_end_that_is_asked_about_is_the_peers(sockets: ExitStack) -> None:
    client, accepted = connected(sockets)

    assert sockdiag.uid_of(client.getsockname(), ("127.0.0.1", 9)) is None
    assert sockdiag.uid_of(("127.0.0.2", client.getsockname()[1]), accepted.getsockname()) is None


@needs_root
def test_another_accounts_connection_is_that_accounts(sockets: ExitStack) -> None:
    server = listen(sockets)
    code = CONNECTED + "s.recv(1)"
    with subprocess.Popen([sys.executable, "-c", code, str(server.getsockname()[1])]):
        accepted, address = server.accept()
        with accepted:
            assert sockdiag.uid_of(address, accepted.getsockname()) == STRANGER


@pytest.mark.parametrize("weakened", [False, True])
@needs_root
def test_another_account_that_closed_does_not_pass_for_root(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    as_older_kernels_say(monkeypatch)
    if weakened:
        monkeypatch.setattr(sockdiag, "_is_held", lambda inode: True)
    server = listen(sockets)
    code = CONNECTED + "s.sendall(b'x');s.close()"
    subprocess.run([sys.executable, "-c", code, str(server.getsockname()[1])], check=True)
    accepted, address = server.accept()
    with accepted:
        assert sockdiag.uid_of(address, accepted.getsockname()) == (0 if weakened else None)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_listener_on_the_peers_port_is_not_the_peer(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(sockdiag, "_same_tuple", lambda *_: True)
        monkeypatch.setattr(sockdiag, "_CONNECTED", range(13))
    listener, server = listen(sockets), listen(sockets)

    found = sockdiag.uid_of(listener.getsockname(), server.getsockname())

    assert found == (os.geteuid() if weakened else None)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_socket_that_only_tries_to_connect_is_not_the_peer(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(sockdiag, "_CONNECTED", range(13))
    server = listen(sockets, backlog=0)
    sockets.enter_context(closing(socket.create_connection(server.getsockname())))  # the queue is full now
    trying = sockets.enter_context(socket.socket())
    trying.setblocking(False)
    with pytest.raises(BlockingIOError):
        trying.connect(server.getsockname())

    found = sockdiag.uid_of(trying.getsockname(), server.getsockname())

    assert found == (os.geteuid() if weakened else None)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_reset_connection_does_not_inherit_the_next_user_of_its_port(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(peer, "is_open", lambda sock: True)
    server = listen(sockets)
    attacker, victim = sockets.enter_context(socket.socket()), sockets.enter_context(socket.socket())
    for sock in (attacker, victim):  # both have the port from the start, so that no other program gets it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0 if sock is attacker else attacker.getsockname()[1]))
    attacker.connect(server.getsockname())
    transport = Transport(sockets.enter_context(closing(server.accept()[0])))
    reset(attacker)
    victim.connect(server.getsockname())

    found = peer.owner(transport)  # type: ignore[arg-type]

    assert found == (os.geteuid() if weakened else None)


def test_a_peer_that_has_only_finished_sending_is_still_there(sockets: ExitStack) -> None:
    client, accepted = connected(sockets)
    client.shutdown(socket.SHUT_WR)

    assert peer.owner(Transport(accepted)) == os.geteuid()  # type: ignore[arg-type]


@pytest.mark.parametrize("weakened", [False, True])
def test_an_answer_to_another_question_is_ignored(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    monkeypatch.setattr(sockdiag, "_same_tuple", lambda *_: True)  # so that only the number tells them apart
    client, accepted = connected(sockets)
    ends = [socket.inet_aton("127.0.0.1")] * 2
    ports = client.getsockname()[1], accepted.getsockname()[1]
    question = sockdiag._WANTED.pack(socket.AF_INET, 6, 0xFFFFFFFF) + sockdiag._TUPLE.pack(*ports, *ends)
    question += sockdiag._ANY_INTERFACE
    number = sockdiag._kernel.sequence + (1 if weakened else 1000)
    sockdiag._kernel._open().send(sockdiag._HEADER.pack(16 + len(question), 20, 1, number, 0) + question)

    found = sockdiag.uid_of(("127.0.0.1", 9), accepted.getsockname())
    sockdiag._kernel.close()  # what is left in the queue belongs to this test

    assert found == (os.geteuid() if weakened else None)


def test_a_broken_netlink_socket_is_opened_again(sockets: ExitStack) -> None:
    client, accepted = connected(sockets)
    question = client.getsockname(), accepted.getsockname()
    assert sockdiag.uid_of(*question) == os.geteuid()
    broken = sockdiag._kernel.socket
    assert broken is not None
    broken.close()

    assert sockdiag.uid_of(*question) == os.geteuid()
    assert sockdiag._kernel.socket is not broken


def test_a_forked_process_does_not_share_its_parents_socket(sockets: ExitStack) -> None:
    client, accepted = connected(sockets)
    question = client.getsockname(), accepted.getsockname()
    assert sockdiag.uid_of(*question) == os.geteuid()
    parents = sockdiag._kernel.socket
    sockdiag._kernel.process = os.getppid()

    assert sockdiag.uid_of(*question) == os.geteuid()
    assert sockdiag._kernel.socket is not parents


def test_a_kernel_that_is_silent_holds_nobody_up(sockets: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    client, accepted = connected(sockets)
    monkeypatch.setattr(sockdiag._Link, "send", lambda self, question: len(question), raising=False)

    assert sockdiag.uid_of(client.getsockname(), accepted.getsockname()) is None
    assert not sockdiag.supported()


def test_a_system_without_netlink_has_no_answer(sockets: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sockdiag.supported()
    client, accepted = connected(sockets)
    sockdiag._kernel.close()
    monkeypatch.delattr(socket, "AF_NETLINK")

    assert sockdiag.uid_of(client.getsockname(), accepted.getsockname()) is None
    assert not sockdiag.supported()


def test_every_thread_gets_its_own_answers(sockets: ExitStack) -> None:
    client, accepted = connected(sockets)
    answers: list[int | None] = []

    def ask() -> None:
        answers.extend(sockdiag.uid_of(client.getsockname(), accepted.getsockname()) for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [os.geteuid()] * 800


@pytest.mark.parametrize(
    "address",
    [
        *(None, "", b"/run/socket", (), ("127.0.0.1",), ("localhost", 80), ("", 80), ("127.0.0.1", 0)),
        *(("127.0.0.1", 70000), ("127.0.0.1", "80"), (None, 80), ("1:2", 80), ("\ud800", 80)),
    ],
)
def test_what_is_no_address_has_no_owner(address: Any) -> None:
    assert sockdiag.uid_of(address, ("127.0.0.1", 80)) is None
    assert sockdiag.uid_of(("127.0.0.1", 80), address) is None


def test_two_families_are_no_connection() -> None:
    assert sockdiag.uid_of(("::1", 80), ("127.0.0.1", 80)) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::ffff:127.0.0.1", 80, 0, 0), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        ("/run/socket", ("", 0)),
        (None, ("", 0)),
    ],
)
def test_endpoint(name: Any, found: tuple[str, int]) -> None:
    assert peer.endpoint(name) == found


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::1"])
def test_loopback(address: str) -> None:
    assert sockdiag.is_loopback(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "::", "", "localhost", "fe80::1%eth0"])
def test_not_loopback(address: str) -> None:
    assert not sockdiag.is_loopback(address)


def test_a_peer_is_written_as_in_an_address() -> None:
    assert str(peer.Peer("127.0.0.1", 4711, 0, "OPERATOR")) == "127.0.0.1:4711"
    assert str(peer.Peer("::1", 4711, None, "NONE")) == "[::1]:4711"


# Whose the server is.


@pytest.mark.parametrize(
    ("listens", "connects"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1")],
)
def test_a_server_is_known_before_it_has_accepted(sockets: ExitStack, listens: str, connects: str) -> None:
    server = listen(sockets, listens)
    client = sockets.enter_context(socket.create_connection((connects, server.getsockname()[1])))
    names = client.getpeername(), client.getsockname()

    assert sockdiag.uid_of(*names) is None
    assert sockdiag.server_of(*names, client) == os.geteuid()
    sockets.enter_context(closing(server.accept()[0]))
    assert sockdiag.server_of(*names, client) == os.geteuid()


LISTENS = BECOME + (
    "l=socket.create_server(('127.0.0.1',0));print(l.getsockname()[1],flush=True);sys.stdin.read(1);"
    "c,_=l.accept();l.close();print(flush=True);sys.stdin.read(1)"
)


@needs_root
def test_another_accounts_server_is_that_accounts(sockets: ExitStack) -> None:
    """Also where it has accepted, and a server of ours has its port now."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LISTENS], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        where = "127.0.0.1", int(process.stdout.readline())
        client = sockets.enter_context(socket.create_connection(where))
        names = client.getpeername(), client.getsockname()
        assert sockdiag.server_of(*names, client) == STRANGER
        process.stdin.write(b"x")
        process.stdout.readline()
        sockets.enter_context(socket.create_server(where))
        assert sockdiag.server_of(*names, client) == STRANGER
        process.stdin.write(b"x")


def test_a_server_that_closed_the_connection_is_nobody(sockets: ExitStack) -> None:
    server = listen(sockets)
    client = sockets.enter_context(socket.create_connection(server.getsockname()))
    names = client.getpeername(), client.getsockname()
    reset(server.accept()[0])

    assert sockdiag.server_of(*names, client) is None


def test_where_nobody_listens_there_is_no_server(sockets: ExitStack) -> None:
    client, _ = connected(sockets)

    assert sockdiag._listener_of(client.getsockname()) is None
    assert sockdiag.server_of(("127.0.0.1", 9), client.getsockname(), client) is None
