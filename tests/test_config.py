"""The table of settings: every row has a range or a reason, and one place says so in one sentence."""

import argparse
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hub import Config, Hub
from hub.config import Range, add_flags, flags, given, unknown_variables
from hub.errors import UsageError
from hub.statedir import state_directory

ROWS: dict[str, Any] = {f.name: f for f in fields(Config)}
NUMBERS = {name: row for name, row in ROWS.items() if row.type in (int, float)}
CHOICES = {name: row for name, row in ROWS.items() if row.metadata.get("choices")}
LISTS = [name for name, row in ROWS.items() if row.metadata.get("kind") is list]


def sentence(**settings: Any) -> str:
    """What the hub says of a setting that it does not take: one sentence, and the same to an embedder."""
    with pytest.raises(UsageError) as refused:
        Config(**settings)
    with pytest.raises(UsageError, match=re.escape(str(refused.value))):
        Hub(**settings)
    assert re.fullmatch(r"[^\n]+\.", str(refused.value))
    return str(refused.value)


def test_every_number_has_a_range() -> None:
    assert {name for name, row in ROWS.items() if row.metadata.get("range")} == set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_both_ends_of_a_range_are_taken_and_nothing_beyond(name: str) -> None:
    row = NUMBERS[name]
    range: Range = row.metadata["range"]
    assert range.least <= row.default <= range.most
    for value in range:
        assert getattr(Config(**{name: row.type(value)}), name) == value
    below, above = row.type(range.least) - 1, row.type(range.most) * 2 + 1
    for value in (below, above):
        assert sentence(**{name: value}) == f"{name} must be {range}, not {value}."


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["7", None, True, float("nan"), float("inf"), 1.5j])
def test_what_is_no_number_is_not_taken(name: str, value: Any) -> None:
    kind = "a whole number" if NUMBERS[name].type is int else "a number"
    assert sentence(**{name: value}) == f"{name} must be {kind}, not {value!r}."


@pytest.mark.parametrize("name", [name for name, row in NUMBERS.items() if row.type is int])
def test_a_part_of_one_is_no_whole_number(name: str) -> None:
    assert sentence(**{name: 1.5}) == f"{name} must be a whole number, not 1.5."


def test_a_float_may_be_given_as_a_whole_number() -> None:
    assert Config(heartbeat=7).heartbeat == 7


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_frame": -1}, "max_frame must be between 125 and 1099511627776, not -1."),
        ({"call_timeout": 0}, "call_timeout must be between 0.001 and 3162240000, not 0."),
        ({"port": 65536}, "port must be between 0 and 65535, not 65536."),
        ({"heartbeat": 0.04}, "heartbeat must be between 0.05 and 3600, not 0.04."),
    ],
)
def test_a_person_can_read_it(settings: dict[str, Any], said: str) -> None:
    assert sentence(**settings) == said


@pytest.mark.parametrize("name", CHOICES)
def test_one_of_several(name: str) -> None:
    row = CHOICES[name]
    for value in row.metadata["choices"]:
        assert getattr(Config(**{name: value}), name) == value
    assert sentence(**{name: "bogus"}) == f"{name} must be one of {', '.join(row.metadata['choices'])}, not 'bogus'."


@pytest.mark.parametrize("name", LISTS)
def test_a_text_is_no_list_of_texts(name: str) -> None:
    assert sentence(**{name: "one"}) == f"{name} must be a list of texts, not the text 'one'."


@pytest.mark.parametrize(("name", "value"), [("tls_cert", "a\0"), ("state_dir", Path("/a\0b")), ("load", ("a", "\0"))])
def test_a_text_that_the_system_does_not_take(name: str, value: Any) -> None:
    """No file can be named with it, and no variable hold it."""
    said = sentence(**{name: value})
    assert said == f"{name} must not hold the character U+0000: the system takes no text that has it."


# ---- from outside


@pytest.mark.parametrize("name", [f.name for f in flags() if f.name in NUMBERS])
def test_a_variable_and_a_flag_out_of_range(name: str) -> None:
    beyond = int(NUMBERS[name].metadata["range"].most) * 2 + 1
    flag, variable = f"--{name.replace('_', '-')}", f"HUB_{name.upper()}"
    with pytest.raises(UsageError, match=f"^{variable} must be between"):
        Config.from_environment({variable: str(beyond)})
    parser = argparse.ArgumentParser()
    add_flags(parser)
    with pytest.raises(UsageError, match=rf"^{flag} \({variable}\) must be between"):
        given(parser.parse_args([f"{flag}={beyond}"]))


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("HUB_PORT", "many", "HUB_PORT must be a whole number, not 'many'."),
        ("HUB_HEARTBEAT", "soon", "HUB_HEARTBEAT must be a number, not 'soon'."),
        ("HUB_DEMO", "perhaps", "HUB_DEMO must be 1 or 0, not 'perhaps'."),
        ("HUB_SYNC", "half", "HUB_SYNC must be one of normal, full, not 'half'."),
    ],
)
def test_a_variable_that_cannot_be_read(variable: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Config.from_environment({variable: text})


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--port=many", "--port (HUB_PORT) must be a whole number, not 'many'."),
        ("--heartbeat=", "--heartbeat (HUB_HEARTBEAT) must be a number, not ''."),
        ("--keep-seconds=nan", "--keep-seconds (HUB_KEEP_SECONDS) must be a number, not nan."),
        ("--sync=half", "--sync (HUB_SYNC) must be one of normal, full, not 'half'."),
        ("--state-dir=", "--state-dir (HUB_STATE_DIR) must be a folder, not an empty text."),
    ],
)
def test_a_flag_that_cannot_be_read(word: str, said: str) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        given(parser.parse_args([word]))


def test_a_variable_that_looks_like_a_setting_and_is_none_is_named() -> None:
    known = {f"HUB_{f.name.upper()}": "1" for f in flags()} | {"HUB_TOKEN": "t", "HUB_CA": "c", "HUB_URL": "u"}
    assert unknown_variables(known | {"GITHUB_X": "1", "HUB": "1"}) == []
    assert unknown_variables({"HUB_PROT": "1", "HUB_XYZZY_PLUGH": "1"}) == [
        "HUB_PROT is no setting of the hub; did you mean HUB_PORT?",
        "HUB_XYZZY_PLUGH is no setting of the hub.",
    ]


def test_what_is_given_counts_more_than_a_variable_and_that_more_than_the_default() -> None:
    environ = {"HUB_PORT": "1", "HUB_RATE": "2", "HUB_LOAD": "a, b", "HUB_DEMO": "yes", "HUB_STATE_DIR": "/there"}
    config = Config.from_environment(environ, port=3)
    assert (config.port, config.rate, config.load, config.demo) == (3, 2, ("a", "b"), True)
    assert config.state_dir == Path("/there")
    assert config.max_clients == Config().max_clients


def test_every_flag_is_read_back() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert given(parser.parse_args([])) == {}
    words = ["--port", "1", "--no-demo", "--load", "a", "--load", "b", "--state-dir", "/there"]
    assert given(parser.parse_args(words)) == {
        "port": 1, "demo": False, "load": ("a", "b"), "state_dir": Path("/there")
    }  # fmt: skip


def test_ephemeral_is_a_broker() -> None:
    assert Config(ephemeral=True).broker == "memory:"


def test_the_state_directory_is_the_first_that_is_named() -> None:
    assert state_directory({"HUB_STATE_DIR": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert state_directory({"XDG_STATE_HOME": "/b"}) == Path("/b/hub")
    assert state_directory({}) == Path.home() / ".local" / "state" / "hub"


def test_without_a_home_a_folder_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # no account has this number
    with pytest.raises(UsageError, match=r"^This account has no home [^\n]+--state-dir\.$"):
        state_directory({})
    assert state_directory({"XDG_STATE_HOME": "/b"}) == Path("/b/hub")


def test_a_state_directory_may_be_given_as_a_text() -> None:
    assert Hub(state_dir="x").config.state_dir == Path("x")
