"""What `--auth` cannot protect does not start."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sites import mocked_request, outcome

from hub.config import Config
from hub.errors import UsageError
from hub.web.access import guard as guards
from hub.web.access.guard import Guard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3", "::ffff:127.0.0.1"])
def test_a_loopback_bind_is_fine(host: str) -> None:
    guards.refuse_bind(Config(host=host))


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"trusted_proxy": ("127.0.0.1",)}, {"host": "192.0.2.1"}])
def test_with_a_token_every_bind_is_fine(settings: dict[str, Any]) -> None:
    guards.refuse_bind(Config(auth="token", **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_proxy": ("127.0.0.1",)},
        *({"host": host} for host in ("0.0.0.0", "::", "", "192.0.2.1", "example.org", "localhost.example")),
    ],
)
def test_what_needs_a_token_does_not_start(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^[ -~]{10,120}\.$"):
        guards.refuse_bind(Config(**settings))


@pytest.mark.parametrize(
    ("host", "name", "own"),
    [
        ("hub.test", "hub.test:80", True),
        ("hub.test", "other.test:80", False),
        ("[::1]", "hub.test:80", False),
        ("", "hub.test:80", False),
        ("0.0.0.0", "127.0.0.1:80", True),
    ],
)
def test_in_token_mode_a_hub_answers_to_the_name_that_it_listens_on(
    tmp_path: Path, host: str, name: str, own: bool
) -> None:
    guard = Guard(Config(auth="token", host=host, port=80, state_dir=tmp_path), refused=mock.Mock())
    assert outcome(guard, mocked_request([("Host", name)])) == ("token" if own else "host")


def test_a_system_that_does_not_name_the_user_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "supported", lambda: False)

    guards.refuse_bind(Config())
    assert guards.mode(Config()) == "token"
    with pytest.raises(UsageError, match="does not say whose"):
        guards.refuse_bind(Config(auth="local"))
