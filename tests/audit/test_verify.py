"""The verifier: whatever is changed in a log shows, with the line and the right status."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.audit import chain, files
from hub.audit import verify as verifier
from hub.audit.chain import KEYS, MAX_LINE, ZEROS, Flaw, Link
from hub.audit.files import HEAD, Stored
from hub.audit.records import Entry, chained, entry
from hub.audit.verdict import INTACT, SHORTER, TAMPERED, TORN, UNREADABLE, Verdict, gravest
from hub.audit.verify import verify
from hub.audit.writer import LogFile

ACTOR = {"client": "c1", "peer": "127.0.0.1:4711", "uid": 1000}


def entries(count: int) -> list[Entry]:
    """Records with everything in them that could confuse a reader of lines."""
    odd = {"args": {"hash": "0" * 64, "text": 'é\n\0\u2028"trust":"x","hash":"' + "0" * 64 + '"}'}}
    return [entry("command.called", ACTOR, "OPERATOR", {**odd, "id": str(number)}) for number in range(count)]


def lines(count: int) -> list[bytes]:
    return chained(entries(count), Link(0, ZEROS))[0].splitlines(keepends=True)


def write(directory: Path, log: bytes, head: int | None = None, stored: list[bytes] | None = None) -> Path:
    """A log, and a head that names record `head` of `stored` (default: of the log)."""
    path = directory / "audit.jsonl"
    path.write_bytes(log)
    (directory / HEAD).unlink(missing_ok=True)
    if head is not None:
        record = json.loads((stored or log.splitlines())[head - 1])
        (directory / HEAD).write_text(json.dumps({"hash": record["hash"], "seq": head}))
    return path


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True, scope="module")
def _nobody_is_writing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PATIENCE", 0)
        yield


LINES = lines(4)
LOG = b"".join(LINES)


def test_what_the_writer_writes_is_intact_and_has_the_form_of_the_protocol(tmp_path: Path) -> None:
    path = write(tmp_path, LOG, head=4)
    last = json.loads(LINES[-1])
    assert verify(tmp_path) == verify(path) == Verdict(True, 4, last["hash"], None, None, INTACT)
    assert list(last) == [*KEYS, "hash"] == [*sorted(KEYS), "hash"]
    assert json.loads(LINES[0])["previous_hash"] == "0" * 64
    assert LOG.isascii()
    assert b" " not in LINES[0].replace(b"T ", b"")


def test_the_report_is_what_the_command_answers(tmp_path: Path) -> None:
    assert verify(write(tmp_path, LOG, head=4)).report() == {
        "valid": True, "records": 4, "head": json.loads(LINES[3])["hash"],
    }  # fmt: skip
    write(tmp_path, LINES[0] + LINES[2])
    report = verify(tmp_path).report()
    assert (report["valid"], report["records"], report["broken_at"]) == (False, 1, 2)
    assert "line 2" in report["reason"]


@pytest.mark.parametrize(
    ("log", "head", "status", "broken_at"),
    [
        (LOG, 4, INTACT, None),
        (LOG, 2, INTACT, None),  # a crash between the log and its head
        (LOG, None, INTACT, None),
        (LINES[0] + LINES[2] + LINES[3], 4, TAMPERED, 2),  # deleted
        (LINES[1] + LINES[2] + LINES[3], 4, TAMPERED, 1),  # the first deleted
        (LINES[0] + LINES[2] + LINES[1] + LINES[3], 4, TAMPERED, 2),  # swapped
        (LINES[0] + LINES[0] + LOG[len(LINES[0]) :], 4, TAMPERED, 2),  # inserted
        (LOG + b"\n", 4, TAMPERED, 5),
        (LOG + b"x", 4, TAMPERED, 5),
        (LOG[:-1] + b"x", 4, TAMPERED, 4),
        (LOG[:-1] + b"\0", 4, TAMPERED, 4),  # a durable record is not zeroed by a crash
        (LOG[:-1], 4, SHORTER, 4),
        (b"".join(LINES[:2]), 4, SHORTER, 3),
        (b"", 4, SHORTER, 1),
        (LOG[:-9], 4, SHORTER, 4),
        (LOG[:-9], 3, TORN, 4),
        (LOG[:-9] + b"\xff", 3, TAMPERED, 4),
        (LOG[:-1], 3, TORN, 4),
        (LOG[:-9] + bytes(9), 3, TORN, 4),
        (LOG + bytes(300), 4, TORN, 5),
        (LOG + b'{"act', 4, TORN, 5),
        (LOG[:-9] + b"\n", 3, TAMPERED, 4),
        (LINES[0] + LINES[2][:-1], 1, TAMPERED, 2),  # whole but for its newline, and not the one due
        (LINES[0] + LINES[2] + LOG[:-9], 4, TAMPERED, 2),  # the gravest counts
    ],
)
def test_each_damage_has_its_status(
    log: bytes, head: int | None, status: int, broken_at: int | None, tmp_path: Path
) -> None:
    write(tmp_path, log, head, LINES)
    verdict = verify(tmp_path)
    assert (verdict.status, verdict.broken_at) == (status, broken_at)
    assert verdict.valid is (status == INTACT)
    assert (verdict.reason is None) is (status == INTACT and head is not None)


def test_another_hash_at_the_seq_of_the_head_is_tampering(tmp_path: Path) -> None:
    """An old copy, put back and written on: the chain is whole, but it is not the chain."""
    other = b"".join(LINES[:2]) + chained(entries(1), Link(2, json.loads(LINES[1])["hash"]))[0]
    write(tmp_path, other, head=3, stored=LINES)
    changed = json.loads(other.splitlines()[2])["hash"] != json.loads(LINES[2])["hash"]
    assert changed
    assert (verify(tmp_path).status, verify(tmp_path).broken_at) == (TAMPERED, 3)


@pytest.mark.parametrize("head", ["{}", "x", '{"seq":4,"hash":"y"}', '{"seq":true,"hash":"' + "0" * 64 + '"}', "[]"])
def test_a_head_that_the_hub_never_wrote_is_tampering(head: str, tmp_path: Path) -> None:
    write(tmp_path, LOG)
    (tmp_path / HEAD).write_text(head)
    assert verify(tmp_path).status == TAMPERED


def test_a_forged_chain_still_has_to_look_like_a_log(tmp_path: Path) -> None:
    """Whoever can compute hashes can write lines that fit; they have the members of a record in their order."""
    forged = (
        Entry('{"action":1,"actor":NaN,"details":{}', '"timestamp":"","trust":""}'),
        Entry('{"actor":1,"action":1,"details":{}', '"timestamp":"","trust":""}'),
        Entry('{"action":1,"details":{}', '"timestamp":"","trust":""}'),
        Entry('{"action":"é","actor":1,"details":{}', '"timestamp":"","trust":""}'),
        Entry('{"action":1,"actor":1,"details":{', '"timestamp":"","trust":""}'),
    )
    for one in forged:
        write(tmp_path, chained([one], Link(0, ZEROS))[0])
        assert verify(tmp_path).status == TAMPERED


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert verify(tmp_path / "nothing").status == UNREADABLE
    assert verify(tmp_path).status == UNREADABLE  # no log was ever here
    (tmp_path / "audit.jsonl").mkdir()
    assert verify(tmp_path).status == UNREADABLE
    assert verify(tmp_path).broken_at is None


def test_a_log_that_was_taken_away_is_shorter_than_its_head(tmp_path: Path) -> None:
    write(tmp_path, LOG, head=4).unlink()
    assert verify(tmp_path).status == SHORTER


def test_closed_segments_are_one_chain_with_the_current_one(tmp_path: Path) -> None:
    path = write(tmp_path, LINES[2] + LINES[3], head=2, stored=LINES[2:])
    (tmp_path / HEAD).write_text(json.dumps({"hash": json.loads(LINES[3])["hash"], "seq": 4}))
    first, second = tmp_path / "audit-1.jsonl", tmp_path / "audit-2.jsonl"
    first.write_bytes(LINES[0])
    second.write_bytes(LINES[1])
    assert (verify(tmp_path).status, verify(path).records) == (INTACT, 4)
    assert verify(second).status == verify(path, alone=True).status == INTACT
    second.write_bytes(LINES[1][:-9])
    assert verify(tmp_path).status == verify(second).status == TAMPERED  # only the current one can be torn
    second.unlink()
    assert (verify(tmp_path).status, verify(tmp_path).broken_at) == (TAMPERED, 2)
    first.unlink()
    assert verify(path).status == TAMPERED
    first.mkdir()
    assert verify(tmp_path).status == UNREADABLE  # graver than all that is wrong


def test_what_is_being_written_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, LOG + b'{"action":"half', head=4)
    assert verify(tmp_path, size=len(LOG)).status == INTACT
    assert verify(tmp_path).status == TORN


def test_a_line_that_never_ends_is_not_read_into_memory(tmp_path: Path) -> None:
    write(tmp_path, LOG + b'{"action":"' + b"x" * (3 * MAX_LINE), head=4)
    assert verify(tmp_path).status == TAMPERED


# ---- properties: any byte

anywhere = st.integers(0, len(LOG) - 1)
any_byte = st.integers(0, 255)
at_once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


@at_once
@given(at=anywhere, byte=any_byte, head=st.sampled_from([None, 3, 4]))
def test_any_changed_byte_is_tampering(at: int, byte: int, head: int | None, directory: Path) -> None:
    """Only the very last newline, changed into a zero, may be what a crash left of a record that is not durable."""
    log = LOG[:at] + bytes([byte]) + LOG[at + 1 :]
    write(directory, log, head, LINES)
    like_a_crash = at == len(LOG) - 1 and byte == 0 and head != 4
    expected = INTACT if log == LOG else TORN if like_a_crash else TAMPERED
    assert verify(directory).status == expected


@at_once
@given(at=anywhere, head=st.sampled_from([None, 3, 4]))
def test_any_deleted_byte_shows(at: int, head: int | None, directory: Path) -> None:
    """Without its last newline the last record is torn; if it was durable, the log is shorter than its head."""
    write(directory, LOG[:at] + LOG[at + 1 :], head, LINES)
    cut = SHORTER if head == 4 else TORN
    assert verify(directory).status == (cut if at == len(LOG) - 1 else TAMPERED)


@at_once
@given(at=st.integers(0, len(LOG)), byte=any_byte)
def test_any_inserted_byte_shows(at: int, byte: int, directory: Path) -> None:
    """Behind the end, a zero or the first byte of a record is what a crash leaves."""
    write(directory, LOG[:at] + bytes([byte]) + LOG[at:], 4, LINES)
    assert verify(directory).status == (TORN if at == len(LOG) and byte in b"\0{" else TAMPERED)


@at_once
@given(at=anywhere, zeros=st.integers(0, 40), durable=st.integers(0, 4))
def test_any_cut_is_torn_or_shorter(at: int, zeros: int, durable: int, directory: Path) -> None:
    """A crash loses nothing that the head names; a cut that does is shorter, and zeros in its place are tampering."""
    write(directory, LOG[:at] + bytes(zeros), durable or None, LINES)
    whole = LOG[:at].count(b"\n")
    torn = zeros > 0 or not (LOG[:at].endswith(b"\n") or at == 0)
    expected = (TAMPERED if zeros else SHORTER) if durable > whole else TORN if torn else INTACT
    assert verify(directory).status == expected


@at_once
@given(order=st.lists(st.integers(0, 3), max_size=6))
def test_any_other_sequence_of_the_same_lines_shows(order: list[int], directory: Path) -> None:
    write(directory, b"".join(LINES[number] for number in order), 4, LINES)
    beginning = order == list(range(len(order)))
    assert verify(directory).status == (INTACT if len(order) == 4 and beginning else SHORTER if beginning else TAMPERED)


# ---- the quick look is never wider than the close one

PIECES = [
    *'{}[],:"\\0é \n\0', '\\"', "-0", "01", "1.", ".5", "1e9", "NaN", "null", "tru", '""', '"a":', '"a":1',
    ',"details":', ',"details":{}', ',"actor":null', '"trust":"NONE"', '","trust":""', '{"action":"a"', '{"b":[{}]}',
]  # fmt: skip


def plain(body: str, link: Link) -> bool:
    return chain._is_plain(body.encode() + b',"hash":"' + b"0" * 64 + b'"}\n', link)


def fits_closely(body: str, link: Link) -> bool:
    try:
        chain._look_closely(body.encode() + b"}", link)
    except Flaw:
        return False
    return True


BODY = (
    '{"action":"a:b","actor":{"client":null,"uid":7},"details":{"args":{"n":[-1.5,"x"],"o":{}},"ms":0.5},'
    f'"previous_hash":"{ZEROS}","seq":1,"timestamp":"2026-11-23T04:50:31.495Z","trust":"OPERATOR"'
)  # but for its last brace


@settings(max_examples=2000, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(BODY)), st.integers(0, 3), st.sampled_from(PIECES)), max_size=3),
    st.sampled_from([Link(0, ZEROS), Link(1, ZEROS), Link(0, "1" * 64)]),
)
def test_a_line_that_is_plain_would_also_pass_the_close_look(edits: list[tuple[int, int, str]], link: Link) -> None:
    body = BODY
    for at, gone, piece in edits:
        body = body[:at] + piece + body[at + gone :]
    assert fits_closely(body, link) or not plain(body, link)
    assert plain(body, link) or (edits or link != Link(0, ZEROS))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (',"details":{"args"', ',"details":{},"details":{"args"'),
        ('"details":{"args"', '"details":1,"more":{"args"'),
        ('"actor":{"client":null,', '"actor":{"a":1,"details":{"client":null,'),
        ('"actor":{"client":null,"uid":7}', '"actor":{"client":null,"uid":7'),
        ('"a:b","actor"', '"a:b","also":1,"actor"'),
        ('"uid":7}', '"uid":NaN}'),
        ('"ms":0.5', '"ms":00.5'),
        ('"ms":0.5', '"ms":0.5]'),
        ('"x"', '"\t"'),
        ('"2026', '2026'),
        ('Z","trust"', 'Z""trust"'),
        ('"OPERATOR"', '"OPERATOR"}'),
    ],
)  # fmt: skip
def test_what_is_not_plain(old: str, new: str) -> None:
    assert plain(BODY, Link(0, ZEROS))
    assert old in BODY
    assert not plain(BODY.replace(old, new), Link(0, ZEROS))


def test_what_is_remembered_of_actors_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_FRONTS", 100)
    monkeypatch.setattr(chain, "_fronts", set())
    many = [entry("a:b", {"client": str(number)}, "OPERATOR", {}) for number in range(150)]
    long = entry("a:b", {"client": "x" * 200}, "OPERATOR", {})
    write(tmp_path, chained([*many, long], Link(0, ZEROS))[0])
    assert verify(tmp_path).status == INTACT
    assert 0 < len(chain._fronts) <= 100
    assert all(len(front) <= 100 for front in chain._fronts)


# ---- beside a hub whose writes fail


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "left_over",
    [LINES[2][:50], LINES[2] + LINES[3][:9], LINES[3], LINES[2][:40] + LINES[3][40:]],
    ids=["half a line", "a line and a half", "another's line", "of two writes"],
)
def test_what_is_taken_back_meanwhile_is_no_verdict(
    left_over: bytes, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind what is durable, a write that fails is cut off, and the next one stands in its place."""
    path = write(tmp_path, LINES[0] + LINES[1], 2, LINES)
    meanwhile = [LINES[0] + LINES[1] + LINES[2][:20], LINES[0] + LINES[1] + LINES[2]]
    path.write_bytes(LINES[0] + LINES[1] + left_over)
    monkeypatch.setattr(time, "sleep", lambda seconds: path.write_bytes(meanwhile.pop(0)))
    if weakened:
        monkeypatch.setattr(verifier._Reading, "_is_settled", lambda reading, file: True)
    verdict = verify(tmp_path)
    assert (verdict.status == INTACT) is not weakened
    assert weakened or (verdict.records, meanwhile) == (3, [])


def test_damage_in_what_is_durable_needs_no_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a log that grows all the time put a verdict off: its head comes by."""
    path = write(tmp_path, LINES[0] + LINES[2] + LINES[3], 1, LINES)

    def grows(seconds: float) -> None:
        with path.open("ab") as file:
            file.write(LINES[3])
        (tmp_path / HEAD).write_text(json.dumps({"hash": json.loads(LINES[3])["hash"], "seq": 4}))

    monkeypatch.setattr(time, "sleep", grows)
    assert verify(tmp_path).status == TAMPERED
    monkeypatch.setattr(time, "sleep", None)
    assert verify(tmp_path).status == TAMPERED


def test_a_planted_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, LOG, 4, LINES)
    os.mkfifo(tmp_path / "audit-1.jsonl")
    assert verify(tmp_path).status == UNREADABLE


def test_a_log_in_the_middle_of_a_rotation_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, LOG, 4, LINES)
    path.rename(tmp_path / "audit-1.jsonl")
    monkeypatch.setattr(time, "sleep", lambda seconds: path.touch())
    assert verify(path).status == INTACT


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a bug")])
def test_what_could_not_be_opened_leaves_nothing_open(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, LOG, 4, LINES)

    def is_at(descriptor: int, path: Path) -> bool:
        raise error

    monkeypatch.setattr(files, "is_at", is_at)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(type(error)):
        Stored(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_a_disk_that_fails_while_it_is_read_makes_a_log_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, LINES[0] + LINES[2], 2, LINES)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(verifier, "lines", fails)
    assert verify(tmp_path).status == UNREADABLE


# ---- each check, switched off


def no_digest(*_: Any) -> Any:
    class Same:
        def hexdigest(self) -> str:
            return "0" * 64

    return Same()


@pytest.mark.parametrize("weakened", [False, True])
def test_the_hash_is_what_shows_an_edit(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LINES[0].replace(b"OPERATOR", b"OPERATUR")
    if weakened:
        log = log[:-67] + b"0" * 64 + log[-3:]
        monkeypatch.setattr(chain, "sha256", no_digest)
    write(tmp_path, log)
    assert (verify(tmp_path).status == INTACT) is weakened


@pytest.mark.parametrize("weakened", [False, True])
def test_the_head_is_what_shows_a_cut_tail(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, LINES[0], 4, LINES)
    if weakened:
        monkeypatch.setattr(files, "read_head", lambda directory: None)
    assert (verify(tmp_path).status == INTACT) is weakened


@pytest.mark.parametrize("weakened", [False, True])
def test_the_look_at_a_torn_tail_is_what_tells_it_from_an_edit(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, LOG[:-1] + b"x", 3, LINES)
    if weakened:
        monkeypatch.setattr(verifier, "looks_torn", lambda line, link: not line.endswith(b"\n"))
    assert (verify(tmp_path).status == TORN) is weakened


def test_writer_and_verifier_agree_on_a_real_directory(tmp_path: Path) -> None:
    log = LogFile(tmp_path)
    for count in (1, 3, 2):
        log.append(entries(count))
    log.close()
    assert verify(tmp_path) == Verdict(True, 6, log.link.hash, None, None, INTACT)


# ---- the logs of one directory


def test_where_there_are_logs(tmp_path: Path) -> None:
    """The workers' in the order of their numbers; what cannot be looked into may have one."""
    assert files.logs(tmp_path) == files.logs(tmp_path / "gone") == []
    for name in ("worker-10", "worker-2", "worker-x", "worker-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "worker-2" / HEAD).touch()
    (tmp_path / "worker-3" / "notes.txt").touch()
    (tmp_path / "worker-10" / "audit-1.jsonl").touch()
    workers = [tmp_path / "worker-2", tmp_path / "worker-10"]
    assert files.logs(tmp_path) == workers
    assert files.logs(tmp_path / "worker-2" / HEAD) == []
    write(tmp_path, b"")
    assert files.logs(tmp_path) == [tmp_path, *workers]
    endless = tmp_path / ("x" * 300)
    assert files.logs(endless) == [endless]


def test_of_several_the_gravest_counts(tmp_path: Path) -> None:
    grave = [UNREADABLE, TAMPERED, SHORTER, TORN, INTACT]
    assert [gravest(grave[at:]) for at in range(5)] == [gravest(reversed(grave[at:])) for at in range(5)] == grave
    assert verify(tmp_path / "gone").is_unreadable
    write(tmp_path, b"".join(lines(2)))
    assert not verify(tmp_path).is_unreadable
