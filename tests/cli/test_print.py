"""`hub print`: to stdout, the file and nothing else; a value that has no place in it is refused."""

import os
import pwd
import re
from pathlib import Path

import pytest
from running import run_hub

from hub.cli.main import main
from hub.errors import UsageError
from hub.printed.render import FILES, render, wanted

pytestmark = pytest.mark.once

VALUES = dict.fromkeys("host port address state_dir user domain python password digest".split(), "plain")


@pytest.mark.parametrize("what", FILES)
def test_every_place_has_a_value_and_nothing_is_left(what: str) -> None:
    assert wanted(what) <= VALUES.keys()
    text = render(what, VALUES)
    assert "plain" in text or not wanted(what)
    assert not any(f"@{name}@" in text for name in VALUES)


@pytest.mark.parametrize("value", ["a b", "a\nb", "100%", 'a"b', "a'b", "$HOME", "", "é", "{x}", "a;b", "a\\b"])
def test_what_would_mean_something_there_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a file for another program"):
        render("systemd-unit", {**VALUES, "state_dir": value})


async def test_what_is_printed_is_the_file(tmp_path: Path) -> None:
    status, out, err = await run_hub(tmp_path, "print", "systemd-unit", "--port", "4000", "--user", "ada")
    assert (status, err) == (0, "")
    assert out.startswith("# hub as a service")
    assert "--port 4000" in out
    assert out.endswith("WantedBy=multi-user.target\n")


def test_the_variables_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HUB_PORT", "4001")
    monkeypatch.setenv("HUB_STATE_DIR", "/srv/there")
    assert main(["print", "systemd-unit"]) == 0
    out = capsys.readouterr().out
    assert "--port 4001 --state-dir /srv/there" in out


@pytest.mark.parametrize(("uid", "user", "folder"), [(0, "hub", "/var/lib/hub"), (1, "daemon", None)])
def test_whoever_asks_is_who_runs_it_but_root(
    uid: int, user: str, folder: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HUB_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert pwd.getpwuid(1).pw_name == "daemon"
    assert main(["print", "systemd-unit"]) == 0
    out = capsys.readouterr().out
    assert f"\nUser={user}\n" in out
    assert f"\nReadWritePaths={folder or '/home/somebody/state/hub'}\n" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["systemd-unit", "--domain", "x"], "There is nothing of --domain in what hub print systemd-unit prints."),
        (["grafana", "--user", "x"], "There is nothing of --user in what hub print grafana prints."),
        (["systemd-unit", "--port", "70000"], "port must be between 0 and 65535, not 70000."),
        (["systemd-unit", "--user", "a b"], "'a b' cannot stand in a file for another program; choose a plain user."),
        (["ngnix"], "did you mean nginx?"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True)


def test_each_password_is_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = set()
    for _ in range(3):
        assert main(["print", "redis"]) == 0
        found |= set(re.findall(r"HUB_BROKER=unix://hub:([\w-]{43})@", capsys.readouterr().out))
    assert len(found) == 3
