"""Nothing is sent to a server of another account: after a crash it could have taken the hub's port."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from strangers import STRANGER, needs_root, strange_server

import hub.cli.http
import hub.client.sockets
from hub.cli.main import main
from hub.client.client import HubClient
from hub.client.discovery import NoHub
from hub.client.ownership import Impostor, check_server

SAYS = f"another account listens there, user {STRANGER}; nothing was sent"


@pytest.fixture(params=[False, True], ids=["", "weakened"])
def weakened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        for room in (hub.cli.http, hub.client.sockets):
            monkeypatch.setattr(room, "check_server", lambda *_: None)
    return bool(request.param)


def where(port: int, folder: Path, how: str) -> list[str]:
    """The words that name a port, whose hub the file says is still running."""
    if how == "--url":
        return ["--url", f"http://localhost:{port}"]
    told = {"url": f"http://127.0.0.1:{port}/", "pid": os.getpid(), "version": "1", "started": ""}
    (folder / "server.json").write_text(json.dumps(told))
    (folder / "token").write_text("secret-" * 8)
    return ["--state-dir", str(folder)]


@needs_root
@pytest.mark.parametrize("how", ["--url", "--state-dir"])
def test_the_command_line_hands_nothing_to_another_account(
    how: str, weakened: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with strange_server() as (port, process):
        status = main(["publish", "a:b", '"private"', *where(port, tmp_path, how)])
        got = process.communicate()[0]
    assert ("private" in got, "secret-" in got) == (weakened, weakened and how == "--state-dir")
    assert status == (0 if weakened else 3)
    assert weakened or (got, SAYS in capfd.readouterr().err) == ("", True)


@needs_root
@pytest.mark.parametrize("how", ["--url", "--state-dir"])
async def test_a_client_hands_nothing_to_another_account(how: str, weakened: bool, tmp_path: Path) -> None:
    with strange_server() as (port, process):
        word, value = where(port, tmp_path, how)
        given: dict[str, Any] = {"url": value} if word == "--url" else {"state_dir": Path(value)}
        with contextlib.suppress(NoHub) if weakened else pytest.raises(NoHub, match=SAYS):
            async with HubClient(**given):
                pass
        got = process.communicate()[0]
    assert got.startswith("GET /readyz") if weakened else got == ""
    assert ("secret-" in got) is (weakened and how == "--state-dir")


def test_another_machine_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.client.ownership.server_of", lambda *_: STRANGER)
    check_server(("192.0.2.1", 80), ("192.0.2.7", 4711), None)
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.9", "192.0.2.7"):
        with pytest.raises(Impostor, match=f"user {STRANGER}"):
            check_server((address, 80), ("192.0.2.7", 4711), None)


@pytest.mark.parametrize(("answers", "passes"), [(True, False), (False, True)])
def test_where_the_kernel_answers_nothing_its_word_is_not_waited_for(
    answers: bool, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.client.ownership.server_of", lambda *_: None)
    monkeypatch.setattr("hub.client.ownership.supported", lambda: answers)
    with contextlib.nullcontext() if passes else pytest.raises(Impostor, match="has gone"):
        check_server(("127.0.0.1", 80), ("127.0.0.1", 4711), None)
