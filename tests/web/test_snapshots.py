"""What a worker has said last, in memory that others read: whole, whatever happens to its writer."""

import os
import signal
import zlib
from collections.abc import Iterator

import pytest

from hub.web import snapshots
from hub.web.snapshots import HEAD, Snapshot, Snapshots


@pytest.fixture
def it() -> Iterator[Snapshot]:
    found = Snapshot()
    yield found
    found.close()


def test_what_was_written_last_is_read(it: Snapshot) -> None:
    assert it.read() == b""
    for said in (b"one", b"two, which is longer", b"3", b""):
        it.write(said)
        assert it.read() == said


@pytest.mark.parametrize("weakened", [False, True])
def test_a_writer_that_is_killed_in_the_middle_leaves_what_was_there(
    it: Snapshot, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.write(b"before")
    pwrite = os.pwrite

    def torn(half: int, data: bytes, place: int) -> int:
        pwrite(half, data[: HEAD.size + 3], place)
        raise InterruptedError

    monkeypatch.setattr(os, "pwrite", torn)
    with pytest.raises(InterruptedError):
        it.write(b"after it")
    monkeypatch.undo()
    if weakened:  # whatever stands there is believed
        monkeypatch.setattr(zlib, "crc32", lambda data: HEAD.unpack_from(os.pread(it._halves[1], 64, 0))[2])
    assert it.read() == (b"aft" if weakened else b"before")
    monkeypatch.undo()
    it.write(b"and on")
    assert it.read() == b"and on"


def test_a_writer_that_is_killed_in_its_first_write_has_said_nothing(it: Snapshot) -> None:
    """Else no worker could begin in its place: each reads first what was counted there before."""
    os.pwrite(it._halves[0], HEAD.pack(1, 100, 7) + b"torn", 0)
    assert it.read() == b""
    it.write(b"and on")
    assert it.read() == b"and on"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("weakened", [False, True])
def test_it_is_read_whole_while_it_is_written(it: Snapshot, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes as fast as it can."""
    if weakened:
        monkeypatch.setattr(zlib, "crc32", lambda data: 0)
    it.write(b"a" * 300_000)
    writer = os.fork()
    if not writer:
        letter = 0
        while True:
            letter = (letter + 1) % 26
            it.write(bytes([97 + letter]) * (100_000 + 10_000 * letter))
    try:
        torn = any(
            said.count(said[:1]) != len(said) for said in (it.read() for _ in range(200_000 if weakened else 2000))
        )
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    assert torn is weakened


def test_without_anything_whole_it_says_so(it: Snapshot) -> None:
    for half in it._halves:
        os.pwrite(half, b"x" * 100, 0)
    with pytest.raises(OSError, match="cannot be read"):
        it.read()


def test_who_has_said_it_is_known() -> None:
    each = Snapshots(2)
    assert (each.life(1), each.read(1)) == (0, (0, []))
    each.begin(1)
    each.begin(2)
    each.write(2, [("n", "N.", "gauge", [("n", {}, 1.0)])])
    life, said = each.read(2)
    assert (life, said[0][0]) == (each.life(2), "n")
    each.end(2)
    assert (each.life(2), each.read(2)[0]) == (0, life)
    each.begin(2)
    assert each.life(2) not in (0, life, each.life(1))
    each.close()


def test_all_workers_share_it() -> None:
    each = Snapshots(2000)
    each.begin(2000)
    writer = os.fork()
    if not writer:
        each.write(2000, [("n", "N.", "gauge", [])])
        os._exit(0)
    os.waitpid(writer, 0)
    assert each.read(2000)[1][0][0] == "n"
    assert snapshots.TRIES > 1
    each.close()
