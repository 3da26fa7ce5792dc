"""Whose process has the other end of a connection inside this machine: the kernel's word, through netlink SOCK_DIAG.

The hub asks it about its clients, and a client about its hub.

Sources: netlink(7), sock_diag(7), the kernel's <linux/inet_diag.h> and <net/tcp_states.h>.
"""

import functools
import os
import socket
import struct
from _thread import _local as ThreadLocal  # threading has it from there, and takes a millisecond to import
from contextlib import suppress
from typing import Any

Address = tuple[Any, ...]
"""As `get_extra_info("peername")` gives it: (address, port) or (address, port, flow, scope)."""

_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_FLAG = 1

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_WANTED = struct.Struct("=BBxxI")  # inet_diag_req_v2: family, protocol, states; then a socket id
_TUPLE = struct.Struct("!HH16s16s")  # inet_diag_sockid begins: both ports, both addresses, network order
_ANY_INTERFACE = struct.pack("=I8s", 0, b"\xff" * 8)  # and ends: no interface, no cookie
_ANSWER = struct.Struct("=BBxx36s12xIIIII")  # inet_diag_msg: family, state, tuple, …, uid, inode
_ANSWER_SIZE = _HEADER.size + _ANSWER.size

_ALL_USERS = 2**32 - 1  # the last number is nobody's
_USUAL_OVERFLOW = 65534
_UID_MAP, _OVERFLOW_UID = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"

_MAPPED = b"\0" * 10 + b"\xff\xff"  # ::ffff:0:0/96, an IPv4 address in IPv6 clothes

# The states of an end that has been connected. Not LISTEN: for a tuple that does not exist the kernel names
# whoever listens on that port. Not SYN_SENT: a socket that tries to connect is not the one that we accepted.
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 1, 4, 5, 8, 9, 11
_LISTEN = 10
_CONNECTED = frozenset({_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING})


@functools.lru_cache(maxsize=256)
def unmapped(address: str) -> str:
    """The IPv4 address in a v4-mapped IPv6 one; any other text as it is."""
    import ipaddress  # here: `hub publish` has no time for it

    with suppress(ValueError):
        return str(ipaddress.IPv6Address(address).ipv4_mapped or address)
    return address


@functools.lru_cache(maxsize=256)
def is_loopback(address: str) -> bool:
    """Whether it is an address of 127.0.0.0/8 or ::1. A name is none; unmap a mapped address first."""
    import ipaddress

    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def is_local(host: str) -> bool:
    """Whether who listens there is reached from this machine only."""
    return host == "localhost" or is_loopback(unmapped(host.strip("[]")))


def uid_of(peer: Address, local: Address) -> int | None:
    """The user id that owns the socket at `peer` which is connected to `local`; None is no certain answer.

    Never waits and never raises. IPv4, IPv6 and v4-mapped addresses; about 8 µs.
    """
    try:
        (family, source), (other, target) = _endpoint(peer), _endpoint(local)
    except (OSError, TypeError, ValueError, IndexError):
        return None
    if family != other:
        return None
    wanted = _TUPLE.pack(peer[1], local[1], source, target)
    answer = _ask(family, wanted)
    return _certain(answer, wanted) if answer else None


def server_of(server: Address, local: Address, sock: Any) -> int | None:
    """The user id that has the other end of our connection `sock` to `server`; None is no certain answer.

    While nobody has accepted it, it is in the queue of whoever listens there. After that the connection is asked about
    once more; if ours is still open then, no other listener can have it: what waits in the queue of one that is closed
    is reset.
    """
    uid = uid_of(server, local)
    if uid is None:
        listener, accepted = _listener_of(server), uid_of(server, local)
        uid = listener if accepted is None else accepted
    return uid if uid is not None and is_open(sock) else None


def _listener_of(server: Address) -> int | None:
    """The user id that listens at an address: for a tuple that does not exist, that is whom the kernel names."""
    family, source = _endpoint(server)
    answer = _ask(family, _TUPLE.pack(server[1], 0, source, bytes(len(source))))
    if not answer:
        return None
    _, state, found, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    listens = state == _LISTEN and _TUPLE.unpack(found)[0] == server[1]
    return int(uid) if listens and _is_held(inode) and not _stands_for_many(uid) else None


def supported() -> bool:
    """Whether the kernel answers at all: opens a connection to itself on 127.0.0.1 and asks whose that is."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=1) as server,
            socket.create_connection(server.getsockname(), timeout=1) as client,
        ):
            return uid_of(client.getsockname(), server.getsockname()) == os.geteuid()
    except OSError:
        return False


def _ask(family: int, wanted: bytes) -> bytes | None:
    """The kernel's answer about a tuple, None if it has none."""
    question = _WANTED.pack(family, socket.IPPROTO_TCP, 0xFFFFFFFF) + wanted + _ANY_INTERFACE
    answer = _kernel.ask(question)
    if not answer or len(answer) < _ANSWER_SIZE or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    return answer


def _certain(answer: bytes, wanted: bytes) -> int | None:
    """The uid in the answer, if it is about exactly the connection asked for and its socket is still held."""
    family, state, found, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    if not _same_tuple(family, found, wanted) or state not in _CONNECTED:
        return None
    return int(uid) if _is_held(inode) and not _stands_for_many(uid) else None


def _stands_for_many(uid: int) -> bool:
    """Whether the kernel shows every user that has no number here under this one: without this check all the accounts
    outside of a user namespace pass for the hub's own, if it runs as that one."""
    return uid == _overflow()


@functools.lru_cache(maxsize=1)  # of a process: a map can be written once
def _overflow() -> int | None:
    """The number for those that have none here (user_namespaces(7)); None if everybody has one."""
    try:
        with open(_UID_MAP, "rb") as file:
            counts = [int(line.split()[2]) for line in file]
        if sum(counts) >= _ALL_USERS:
            return None
        with open(_OVERFLOW_UID, "rb") as file:
            return int(file.read())
    except (OSError, ValueError, IndexError):
        return _USUAL_OVERFLOW


def _is_held(inode: int) -> bool:
    """Whether a process still has the socket. A closed one is reported with uid 0 and inode 0: without this check
    another account that sends and closes at once passes for root."""
    return inode != 0


def _same_tuple(family: int, found: bytes, wanted: bytes) -> bool:
    """Whether the answer is about the tuple asked for. A v6 socket that talks v4 has mapped addresses."""
    if found == wanted:
        return True
    peer_port, port, source, target = _TUPLE.unpack(found)
    if family != socket.AF_INET6 or not source.startswith(_MAPPED) or not target.startswith(_MAPPED):
        return False
    return _TUPLE.pack(peer_port, port, source[12:], target[12:]) == wanted


def _endpoint(address: Address) -> tuple[int, bytes]:
    """(family, packed address), v4-mapped unmapped. Raises OSError, TypeError, ValueError or IndexError."""
    text = address[0]
    if not 0 < address[1] < 65536:
        raise ValueError("no such port")
    if ":" not in text:
        return socket.AF_INET, socket.inet_pton(socket.AF_INET, text)
    packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    if packed.startswith(_MAPPED):
        return socket.AF_INET, packed[12:]
    return socket.AF_INET6, packed


def is_open(sock: Any) -> bool:
    """Whether our end of a connection has not been reset or closed."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (_ESTABLISHED, _CLOSE_WAIT)
    except (OSError, AttributeError):
        return False


class _Link(socket.socket):
    """A socket that lives as long as its thread; its end is no leak to warn of."""

    def __del__(self) -> None:
        self.close()


class _Kernel(ThreadLocal):
    """A netlink socket, kept open, one for each thread. The kernel answers before `send` returns."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.process = 0
        self.sequence = 0

    def ask(self, question: bytes) -> bytes | None:
        """The kernel's answer to one SOCK_DIAG_BY_FAMILY question; None if it has none."""
        for _ in range(2):
            try:
                return self._exchange(question)
            except (OSError, AttributeError):
                self.close()
        return None

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _exchange(self, question: bytes) -> bytes:
        link = self._open()
        self.sequence = number = (self.sequence + 1) & 0xFFFFFFFF
        size = _HEADER.size + len(question)
        link.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_FLAG, number, 0) + question)
        while True:  # until the queue is empty: that raises BlockingIOError
            answer = link.recv(4096)
            # An answer with another number belongs to a question that broke off, about another connection.
            if len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == number:
                return answer

    def _open(self) -> socket.socket:
        if self.socket is not None and self.process == os.getpid():
            return self.socket
        self.close()  # a fork shares the socket's queue with its parent, so it gets its own
        link = _Link(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _SOCK_DIAG)
        self.socket, self.process = link, os.getpid()
        link.connect((0, 0))  # from now on only the kernel can put something into the queue
        return link


_kernel = _Kernel()
