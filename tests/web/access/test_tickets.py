"""Links and sessions that all workers of a port know: in files, good once, signed, and ended with the token."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub import tokens
from hub.errors import HubError
from hub.web.access import credentials, tickets
from hub.web.access.credentials import LINKS, Tokens
from hub.web.access.peer import Peer
from hub.web.access.tickets import CommonTickets, OwnTickets, clear
from hub.wire.vocabulary import Trust

ME = Peer("127.0.0.1", 1, 1000, "NONE")


def opened(directory: Path) -> Tokens:
    """The tokens as one more worker sees them."""
    tokens.ensure(directory, "OBSERVER")
    found = Tokens(directory, directory / "tickets")
    found.open()
    return found


def trust_of(held: Tokens, secret: str) -> Trust | None:
    grant = held._session(secret, ME)
    return grant.trust if grant else None


def files(directory: Path) -> list[Path]:
    return [path for path in (directory / "tickets").rglob("*") if path.is_file()]


@pytest.mark.parametrize("weakened", [False, True])
def test_a_link_opens_one_session_whichever_worker_is_asked(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(CommonTickets, "take", CommonTickets.find)
    one, two = opened(tmp_path), opened(tmp_path)
    code = one.link("OBSERVER")
    secret = two.enter(code, ME)
    assert secret
    assert [(each.enter(code, ME) is None) for each in (one, two)] == [not weakened] * 2
    assert [trust_of(each, secret) for each in (one, two)] == ["OBSERVER"] * 2
    assert one._session(secret, Peer("127.0.0.1", 1, 7, "NONE")) is None
    text = b"".join(path.read_bytes() + path.name.encode() for path in files(tmp_path))
    assert not any(word.encode() in text for word in (code, secret))


def test_of_two_that_find_a_link_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    code, find = one.link("OPERATOR"), CommonTickets.find

    def first_the_other(self: CommonTickets, digest: bytes) -> Any:
        found = find(self, digest)
        if self is one._links:
            assert two.enter(code, ME)
        return found

    monkeypatch.setattr(CommonTickets, "find", first_the_other)
    assert one.enter(code, ME) is None


@pytest.mark.parametrize("weakened", [False, True])
def test_a_replaced_token_ends_them_for_all_and_no_newer_ones(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(CommonTickets, "_signature", lambda self, digest, words: "signed")
        monkeypatch.setattr(CommonTickets, "end", lambda self, trusts: None)
    one, two = opened(tmp_path), opened(tmp_path)
    old = two.enter(one.link("OPERATOR"), ME)
    assert old
    tokens.replace(tmp_path, "OPERATOR")
    new = one.enter(one.link("OPERATOR"), ME)
    assert new
    for each in (one, two):
        each.refresh()
    assert [trust_of(each, old) for each in (one, two)] == (["OPERATOR"] if weakened else [None]) * 2
    assert [trust_of(each, new) for each in (one, two)] == ["OPERATOR"] * 2
    assert len(files(tmp_path)) == (2 if weakened else 1)


def test_what_was_changed_is_good_for_nothing(tmp_path: Path) -> None:
    held = opened(tmp_path)
    code = held.link("OBSERVER")
    (path,) = files(tmp_path)
    path.write_text(json.dumps(["OPERATOR", *json.loads(path.read_text())[1:]]))
    assert held.enter(code, ME) is None
    code = held.link("OBSERVER")
    (path,) = files(tmp_path)
    path.write_text("[")
    assert held.enter(code, ME) is None


def test_only_so_many_are_kept_and_a_start_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = opened(tmp_path)
    first = held.link("OPERATOR")
    codes = [held.link("OPERATOR") for _ in range(LINKS)]
    assert len(files(tmp_path)) == LINKS
    assert held.enter(first, ME) is None
    assert held.enter(codes[0], ME)
    assert tickets._written(tmp_path / "gone") == 0
    for kind in tickets.KINDS:
        clear(tmp_path / "tickets" / kind)
    assert held.enter(codes[1], ME) is None
    clear(tmp_path / "nowhere")
    CommonTickets(tmp_path / "nowhere", 1, lambda trust: None).end({"OPERATOR"})


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("common", [False, True])
def test_who_only_reads_ends_no_session_and_no_link_of_the_operator(
    tmp_path: Path, common: bool, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "SESSIONS", 4)
    monkeypatch.setattr(credentials, "LINKS", 4)
    if weakened:  # whoever has made them, they are counted together
        own, shared = OwnTickets.keep, CommonTickets._let_go
        monkeypatch.setattr(OwnTickets, "keep", lambda self, digest, ticket: own(self, digest, one_trust(ticket)))
        monkeypatch.setattr(CommonTickets, "_path", lambda self, trust, digest: self._folder / f"ALL-{digest.hex()}")
        monkeypatch.setattr(CommonTickets, "_let_go", lambda self, trust: shared(self, "ALL"))  # type: ignore[arg-type]
    tokens.ensure(tmp_path, "OBSERVER")
    held = Tokens(tmp_path, tmp_path / "tickets" if common else None)
    held.open()
    secret, code = held.enter(held.link("OPERATOR"), ME), held.link("OPERATOR")
    assert secret
    readers = [held.enter(held.link("OBSERVER"), ME) or "" for _ in range(6)]
    codes = [held.link("OBSERVER") for _ in range(6)]
    assert (trust_of(held, secret) is None, held.enter(code, ME) is None) == (weakened, weakened)
    assert [trust_of(held, each) is not None for each in readers] == [False] * 2 + [True] * 4
    assert [held.enter(each, ME) is not None for each in codes] == [False] * 2 + [True] * 4


def one_trust(ticket: tickets.Ticket) -> tickets.Ticket:
    return replace(ticket, trust="OBSERVER")


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    held = opened(tmp_path)
    (tmp_path / "tickets").write_text("")
    with pytest.raises(HubError, match="cannot be kept for all workers") as refused:
        held.link("OPERATOR")
    assert refused.value.code == "command_failed"


def test_of_ones_own_those_of_a_token_end(tmp_path: Path) -> None:
    mine = OwnTickets(2)
    for number, trust in enumerate(("OBSERVER", "OPERATOR")):
        mine.keep(bytes([number]), tickets.Ticket(trust, 0.0))  # type: ignore[arg-type]
    mine.end({"OPERATOR"})
    assert (mine.find(b"\0") is None, mine.find(b"\1") is None) == (False, True)
