"""`hub print`: to stdout, the file and nothing else; a value that has no place in it is refused."""

import os
import pwd
import re
from pathlib import Path

import pytest
from running import run_hub

from hub.cli.main import main, parser
from hub.config import Config, given
from hub.errors import UsageError
from hub.printed.render import FILES, render, wanted
from hub.web.access.guard import refuse_bind

pytestmark = pytest.mark.once

NAMES = "host address from auth state_dir user domain python password digest flags useradd and_root"
VALUES = dict.fromkeys(NAMES.split(), "plain")
VALUES["port"] = "4000"


@pytest.mark.parametrize("what", FILES)
def test_every_place_has_a_value_and_nothing_is_left(what: str) -> None:
    assert wanted(what) <= VALUES.keys()
    text = render(what, VALUES)
    assert any(value in text for value in ("plain", "4000")) or not wanted(what)
    assert not any(f"@{name}@" in text for name in VALUES)


@pytest.mark.parametrize("name", ["state_dir", "user", "host", "python"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "100%", 'a"b', "a'b", "$HOME", "", "é", "{x}", "a;b", "a\\b"])
def test_what_would_mean_something_there_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in this file"):
        render("systemd-unit", {**VALUES, name: value})


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
        (["systemd-unit", "--user", "a b"], "user must be the name of an account; 'a b' cannot stand in this file."),
        (["systemd-unit", "--user", ""], "user must be the name of an account; '' cannot stand in this file."),
        (["nginx", "--domain", "hub.example.org:8443"], "domain must be a name as hub.example.org, without a port;"),
        (["nginx", "--domain", "https://hub.example.org"], "domain must be a name as hub.example.org"),
        (["redis", "--domain", ""], "domain must be a name as hub.example.org"),
        (["nginx", "--port", "0"], "port must be the port that the hub listens on, not any that is free; '0' cannot"),
        (["prometheus-rules", "--port", "0"], "port must be the port that the hub listens on"),
        (["dockerfile", "--port", "0"], "port must be the port that the hub listens on"),
        (["nginx", "--host", "10.0.0.1:80/x"], "host must be an address or a name, without a port;"),
        (["ngnix"], "did you mean nginx?"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True)


def head_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The command in the head of what these words print."""
    assert main(["print", *words]) == 0
    found = re.search(r"^#   .*?(hub print .*?) ?[>|]", capsys.readouterr().out, re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize(
    "words",
    [
        ["systemd-unit", "--host", "10.0.0.1", "--port", "4000", "--state-dir", "/srv/hub", "--user", "ada"],
        ["user-unit", "--host", "::1", "--port", "4000", "--state-dir", "/home/ada/hub"],
        ["dockerfile", "--port", "3141"],
        ["redis", "--domain", "store.example.org"],
    ],
)
def test_the_head_says_how_the_same_is_printed_again(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert head_of(*words, capsys=capsys) == " ".join(["hub", "print", *words])


def test_root_prints_the_same_by_the_head(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Root has another home, and none of the variables that it was printed with."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setenv("HUB_PORT", "4000")
    monkeypatch.setenv("HUB_STATE_DIR", "/srv/daemon")
    again = head_of("systemd-unit", capsys=capsys)
    assert again == "hub print systemd-unit --port 4000 --state-dir /srv/daemon --user daemon"
    monkeypatch.delenv("HUB_PORT")
    monkeypatch.delenv("HUB_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert head_of(*again.split()[2:], capsys=capsys) == again
    assert head_of("systemd-unit", capsys=capsys) == "hub print systemd-unit"


@pytest.mark.parametrize(
    ("user", "who", "is_there"),
    [
        ("root", "root", True),
        ("daemon", "daemon and root", True),
        ("no-such-account", "no-such-account and root", False),
    ],
)
def test_an_account_that_is_there_is_not_made(
    user: str, who: str, is_there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["print", "systemd-unit", "--user", user]) == 0
    out = capsys.readouterr().out
    assert (f"useradd --system {user}\n" in out) is not is_there
    assert f"nobody gets in but {who}; for others" in out


def test_each_password_is_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = set()
    for _ in range(3):
        assert main(["print", "redis"]) == 0
        found |= set(re.findall(r"HUB_BROKER=unix://hub:([\w-]{43})@", capsys.readouterr().out))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("host", "near", "source"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("::", "[::1]", "::1"),
        ("[::1]", "[::1]", "::1"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("localhost", "localhost", "127.0.0.1"),
    ],
)
def test_the_programs_beside_a_hub_find_it_where_it_listens(
    host: str, near: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On all addresses is on the loopback one, too; and a proxy of this machine comes from where it goes to."""
    assert main(["print", "nginx", "--host", host]) == 0
    text = capsys.readouterr().out
    assert f"proxy_pass http://{near}:3141;" in text
    assert f"HUB_TRUSTED_PROXY={source} " in text
    assert main(["print", "prometheus-rules", "--host", host]) == 0
    assert f'targets: ["{near}:3141"]' in capsys.readouterr().out


@pytest.mark.parametrize(("host", "words"), [("127.0.0.1", []), ("::1", []), ("0.0.0.0", ["--auth", "token"])])
def test_a_service_that_others_reach_is_in_token_mode(
    host: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it would not start."""
    assert main(["print", "systemd-unit", "--host", host, "--state-dir", "/srv/hub"]) == 0
    (start,) = re.findall(r"ExecStart=\S+ -P -m hub (serve .*)", capsys.readouterr().out)
    assert start.split() == ["serve", "--host", host, "--port", "3141", "--state-dir", "/srv/hub", *words]
    refuse_bind(Config(**given(parser().read(start.split()))))
    if words:
        with pytest.raises(UsageError, match="needs --auth token"):
            refuse_bind(Config(**given(parser().read(start.split()[:-2]))))
