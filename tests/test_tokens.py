"""The token files, and who finds them."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from hub import tokens
from hub.client import discovery
from hub.commands.call import check_trust
from hub.errors import HubError
from hub.private import Unsafe
from hub.wire.vocabulary import Effect

URL = "http://127.0.0.1:3141"


def test_a_token_is_made_once_for_this_account_alone(tmp_path: Path) -> None:
    token = tokens.ensure(tmp_path)

    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert tokens.ensure(tmp_path) == tokens.read(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert tokens.read(tmp_path, "OBSERVER") is None


def test_a_new_token_is_another_one(tmp_path: Path) -> None:
    old, other = tokens.ensure(tmp_path), tokens.ensure(tmp_path, "OBSERVER")

    assert tokens.replace(tmp_path) not in (old, other)
    assert tokens.read(tmp_path) != old
    assert tokens.read(tmp_path, "OBSERVER") == other


def test_an_empty_file_is_a_start_that_broke_off(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    assert tokens.read(tmp_path) is None
    assert len(tokens.ensure(tmp_path)) == 43


@pytest.mark.parametrize("text", ["short", "with a blank in the middle of it", "ünïcödé-ünïcödé-ünïcödé", "x" * 600])
def test_what_is_no_token_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(Unsafe, match="hub token --new"):
        tokens.ensure(tmp_path)


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("a-token-that-somebody-else-knows")
    (tmp_path / "token").symlink_to(tmp_path / "theirs")
    with pytest.raises(Unsafe, match="symbolic link"):
        tokens.ensure(tmp_path)


# Who finds it.


def announced(directory: Path, url: str = URL, pid: int | None = None) -> str:
    """A hub of this state directory, as far as a client can see; its token."""
    directory.mkdir(exist_ok=True)
    (directory / "server.json").write_text(json.dumps({"url": f"{url}/", "pid": pid or os.getpid()}))
    return tokens.ensure(directory)


def test_the_state_directory_of_a_running_hub_has_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = announced(tmp_path)
    assert discovery.credentials(URL, tmp_path) == {"Authorization": f"Bearer {token}"}
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path))
    assert discovery.credentials(URL) == {"Authorization": f"Bearer {token}"}


def test_the_token_goes_to_no_other_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path))
    token = announced(tmp_path)
    assert discovery.credentials("http://127.0.0.1:3142") == {}
    # Named together with an address, a state directory is taken at its word.
    assert discovery.credentials("http://127.0.0.1:3142", tmp_path) == {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("weakened", [False, True])
def test_the_token_is_not_for_who_took_the_port_of_a_dead_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    announced(tmp_path, pid=2**22 + 1)
    if weakened:
        monkeypatch.setattr(discovery, "_is_own_process", lambda pid: True)
    assert bool(discovery.credentials(URL, tmp_path)) is weakened


def test_a_given_token_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced(tmp_path)
    monkeypatch.setenv("HUB_TOKEN", "from-the-environment")
    assert discovery.credentials(URL, tmp_path) == {"Authorization": "Bearer from-the-environment"}
    assert discovery.credentials(URL, tmp_path, "given") == {"Authorization": "Bearer given"}


@pytest.mark.parametrize("token", ["a b", "a\r\nHost: x", "ü"])
def test_a_token_is_no_way_to_write_headers(token: str) -> None:
    with pytest.raises(HubError, match="no token"):
        discovery.credentials(URL, token=token)


@pytest.mark.parametrize("trust", ["OBSERVER", "NONE", "", "operator"])
def test_only_the_operator_does_more_than_read(trust: Any) -> None:
    check_trust(trust, "read", "x")
    check_trust("OPERATOR", "dangerous", "x")
    effects: tuple[Effect, ...] = ("write", "dangerous")
    for effect in effects:
        with pytest.raises(HubError) as refused:
            check_trust(trust, effect, "x")
        assert refused.value.code == "forbidden"
