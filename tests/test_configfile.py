"""hub.toml: what is good, and of all that is not the line and a sentence."""

import base64
import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receivers import write_config
from running import hub_app, hub_process, run_hub, until

from hub import Config
from hub.configfile import schema
from hub.configfile.places import lines
from hub.configfile.problems import BadFile
from hub.configfile.reading import parse, read
from hub.configfile.shapes import ConfigFile

SECRET = "whsec_" + base64.b64encode(b"made-up-secret-of-32-bytes-len!!").decode()
WHOLE = """
[notify]
url = "https://hub.user.example/"
question_after = 6
success_after = 60
retry_first = 0.5

[notify.rules]
stale = false

[[notify.rule]]
name = "orders"
topics = ["orders:*"]
title = "An order"
priority = 4

[[notify.channel]]
name = "phone"
type = "ntfy"
rules = ["question", "orders"]
url = "http://127.0.0.1:2586"
topic = "user-hub"
token_file = "ntfy.secret"

[[notify.channel]]
name = "desk"
type = "command"
argv = ["/usr/bin/jq", "."]

[[webhook]]
name = "ci"
url = "http://127.0.0.1:9000/in"
topics = ["task:*"]
secret_file = "ci.secret"
format = "cloudevents"
timeout = 2

[github]
secret_file = "github.secret"
"""


def said(text: str, folder: Path = Path()) -> list[str]:
    """The lines that are said of it, without the name of the file."""
    with pytest.raises(BadFile) as bad:
        parse(text, folder / "hub.toml")
    return [re.sub(r"^.*hub\.toml:", "", line) for line in str(bad.value).split("\n")]


def test_all_that_can_stand_in_it(tmp_path: Path) -> None:
    write_config(tmp_path, WHOLE, ntfy="tk_made_up", ci=SECRET, github="made up")
    file = read(Config(state_dir=tmp_path))
    assert file.notify.rules == {"question", "task_failed", "task_succeeded", "agent_error"}
    assert file.notify.own[0].topics == ("orders:*",)
    phone, desk = file.notify.channels
    assert (phone.token, desk.argv, desk.rules) == ("tk_made_up", ("/usr/bin/jq", "."), None)
    assert phone.rules is not None
    assert sorted(phone.rules) == ["orders", "question"]
    [webhook] = file.webhooks
    assert (webhook.secret, webhook.format, webhook.timeout) == (b"made-up-secret-of-32-bytes-len!!", "cloudevents", 2)
    assert file.github_secret == b"made up"
    assert str(file).endswith("hub.toml is good: 2 channels, 1 webhook.")
    assert "made" not in repr(file)


def test_none_is_fine(tmp_path: Path) -> None:
    assert read(Config(state_dir=tmp_path)) == ConfigFile()
    with pytest.raises(BadFile, match=r"nowhere.toml:1: There is no such file\.$"):
        read(Config(state_dir=tmp_path, config=str(tmp_path / "nowhere.toml")))


BAD = {
    "a = 1": ["1: There is no setting a."],
    "[notfy]": ["1: There is no setting notfy; did you mean notify?"],
    "\n[notify]\nurl = 'x'": [
        "3: notify.url: Must be an address: http:// or https://, a host, and what comes behind it."
    ],
    "[notify]\nurl = 'http://u:p@h/'": ["2: notify.url: An address must not hold a user or a password."],
    "[notify]\nquestion_after = '6'": ["2: notify.question_after: Not a number."],
    "[notify]\nquestion_after = true": ["2: notify.question_after: Not a number."],
    "[notify]\nquestion_after = nan": [
        "2: notify.question_after: Special numeric values (nan or infinity) are not permitted."
    ],
    "[notify]\nretry_first = 0.01": [
        "2: notify.retry_first: Must be greater than or equal to 0.05 and less than or equal to 300."
    ],
    "[notify.rules]\nquestion = 1": ["2: notify.rules.question: Must be true or false."],
    "[notify.rules]\n\n# x\nquestoin = true": ["4: There is no setting notify.rules.questoin; did you mean question?"],
    "[[notify.rule]]\nname = 'stale'\ntopics = ['a:*']": [
        "2: notify.rule.name: This is a rule of the hub's own; choose another name."
    ],
    "[[notify.rule]]\nname = 'a b'\ntopics = ['a']": [
        "2: notify.rule.name: Must be 1 to 64 of a-z, 0-9, _ and -.",
        "3: notify.rule.topics: No event name has only one part; a:* matches all of that domain.",
    ],
    "[[notify.rule]]\nname = 'x'\ntopics = ['a:*']\n[[notify.rule]]\nname = 'x'\ntopics = ['b:*']": [
        "5: The name 'x' is taken by another one above."
    ],
    "[[notify.channel]]\nname = 'x'\ntype = 'ntfy'\nargv = ['y']": [
        "1: A channel of type ntfy needs topic.",
        "1: A channel of type ntfy needs url.",
        "4: A channel of type ntfy has no argv.",
    ],
    "[[notify.channel]]\nname = 'x'\ntype = 'smoke'": [
        "3: notify.channel.type: Must be one of: ntfy, command, desktop, apprise."
    ],
    "[[notify.channel]]\nname = 'x'\ntype = 'desktop'\nrules = ['questions']": [
        "4: There is no rule 'questions'; did you mean question?"
    ],
    "[[webhook]]\nname = 'x'": ["1: webhook.url is missing."],
    "[[webhook]]\nurl = 'ftp://h/'\n\n[[webhook]]\nname = 'y'\nurl = 'http://h/'\ntimeout = 99": [
        "1: webhook.name is missing.",
        "2: webhook.url: Must be an address: http:// or https://, a host, and what comes behind it.",
        "7: webhook.timeout: Must be greater than or equal to 1 and less than or equal to 30.",
    ],
    "[[webhook]]\nname = 'x'\nurl = 'http://h/'\nsecret_file = 'nowhere'": [
        "4: The file nowhere cannot be used: No such file or directory."
    ],
    "[[notify.channel]]\nname = 'x'\ntype = 'command'\nargv = ['/bin/true', \"a\\u0000\"]": [
        "4: notify.channel.argv: Must not hold the character U+0000: the system takes no text that has it."
    ],
    "[[notify.channel]]\nname = 'x'\ntype = 'command'\nargv = ['', 'a']": [
        "4: The first word of argv must name a program."
    ],
    "[github]\nsecret_file = \"a\\u0000b\"": [
        "2: github.secret_file: Must not hold the character U+0000: the system takes no text that has it."
    ],
    "[github]": ["1: github.secret_file is missing."],
    "webhook = 1": ["1: webhook: Not a valid list."],
    "[notify]\nchannel = 'x'": ["2: notify.channel: Not a valid list."],
    "a = [1,\n2": ["2: This is not TOML: Unclosed array."],
    "[a]\nb =": ["2: This is not TOML: Invalid value."],
}  # fmt: skip


NAMES = {
    "h": True,
    "h.": True,
    "a_b.example.org": True,
    "127.0.0.1": True,
    "[::1]": True,
    "a" * 63: True,
    ".".join(["a" * 63] * 3 + ["a" * 61]): True,
    "a" * 64: False,
    "a" * 70 + ".x": False,
    "a..b": False,
    ".": False,
    ".".join(["a" * 63] * 4): False,
}


@pytest.mark.parametrize(("name", "is_one"), NAMES.items())
@pytest.mark.parametrize("weakened", [False, True])
def test_no_request_can_go_to_what_is_no_name_of_a_host(
    name: str, is_one: bool, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(schema, "_HOST", re.compile(".*"))
    sentence = "No host has such a name: 253 characters at most, and 1 to 63 between two dots."
    for place, text in (("webhook", "[[webhook]]\nname = 'x'"), ("notify", "[notify]")):
        line = 1 + text.count("\n") + 1
        if is_one or weakened:
            parse(f"{text}\nurl = 'https://{name}:8443/a'", Path("hub.toml"))
        else:
            assert said(f"{text}\nurl = 'https://{name}:8443/a'") == [f"{line}: {place}.url: {sentence}"]


@pytest.mark.parametrize(("text", "expected"), BAD.items(), ids=range(len(BAD)))
def test_what_is_wrong_is_said_by_line(text: str, expected: list[str]) -> None:
    found = said(text)
    assert found == expected or (len(expected) == 1 and "not TOML" in expected[0] and found[0][:20] == expected[0][:20])


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("whsec_", 0o600, "base64 of 24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), 0o600, "base64 of 24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), 0o600, "base64 of 24 to 64 bytes"),
        (base64.b64encode(b"x" * 32).decode(), 0o600, "must hold whsec_"),
        ("", 0o600, "it is empty"),
        (SECRET, 0o644, "its mode is 0644, others can see it: chmod 600"),
        ("two\nlines", 0o600, "one line of plain characters"),
    ],
)
def test_a_secret_that_is_none_or_that_others_can_see(tmp_path: Path, content: str, mode: int, words: str) -> None:
    path = tmp_path / "s"
    path.touch(mode)
    path.chmod(mode)
    path.write_text(content)
    [line] = said("[[webhook]]\nname = 'x'\nurl = 'http://h/'\nsecret_file = 's'", tmp_path)
    assert line.startswith("4: ")
    assert words in line


def test_a_link_to_a_secret_is_not_followed(tmp_path: Path) -> None:
    write_config(tmp_path, "", real=SECRET)
    (tmp_path / "s").symlink_to("real.secret")
    [line] = said("[[webhook]]\nname = 'x'\nurl = 'http://h/'\nsecret_file = 's'", tmp_path)
    assert "cannot be used" in line


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o666])
def test_a_file_that_others_can_write_would_run_their_programs(tmp_path: Path, mode: int) -> None:
    write_config(tmp_path, WHOLE)
    (tmp_path / "hub.toml").chmod(mode)
    with pytest.raises(BadFile, match=r"hub\.toml:1: It cannot be read: others can write it"):
        read(Config(state_dir=tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# ok\n\xff", r"2: This is not UTF-8"),
        (b"#" * (256 * 1024 + 1), r"1: It cannot be read: it is larger than 262144 bytes"),
        (b"a = 1\n\nb = [\n" + b"[" * 5000, r"4: This is not TOML"),
        (b"a = 1\nb = " + b"9" * 5000, r"2: This is not TOML"),
    ],
    ids=["bytes", "long", "deep", "digits"],
)
def test_what_is_no_text_or_far_too_much(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "hub.toml").write_bytes(content)
    with pytest.raises(BadFile, match=rf"hub\.toml:{words}"):
        read(Config(state_dir=tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s")
    [line] = said("[github]\nsecret_file = 's'", tmp_path)
    assert "not a regular file" in line
    os.mkfifo(tmp_path / "hub.toml")
    with pytest.raises(BadFile, match="not a regular file"):
        read(Config(state_dir=tmp_path))


@given(st.text(alphabet="[].\"=\n#'ab \t,{}", max_size=60))
def test_any_text_is_good_or_told_of(text: str) -> None:
    try:
        parse(text, Path("hub.toml"))
    except BadFile as bad:
        count = text.count("\n") + 1
        for line in str(bad).split("\n"):
            found = re.match(r"hub\.toml:(\d+): .+\.$", line)
            assert found, line
            assert 1 <= int(found[1]) <= count


def test_a_mark_of_utf8_at_the_beginning_is_none_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_bytes(b"\xef\xbb\xbf[notify]\n")
    assert read(Config(state_dir=tmp_path)).path


def test_what_is_told_of_a_name_is_one_line_without_secrets() -> None:
    assert said('"ghp_16C7e42F292c6912E7710c838347Ae178B4a" = 1') == ["1: There is no setting [redacted]."]
    assert said('"a\\nb" = 1') == ["1: There is no setting a\\nb."]


def test_lines_of_what_stands_on_several() -> None:
    """Inline tables in an array have lines of their own; what looks like TOML in a string or a comment has none."""
    text = (
        'webhook = [\n  {name = "a", x = [{}]}, # {\n\n  {name = "]"},\n]\nz = """\n[notify]\nbogus = 3\n"""\n'
        "y = '''\n[a]\n'''\n[b]\n"
    )
    assert lines(text) == {
        (): 1, ("webhook",): 1, ("webhook", 0): 2, ("webhook", 1): 4, ("z",): 6, ("y",): 10, ("b",): 13,
    }  # fmt: skip
    assert said('webhook = [\n{name = "a", url = "http://h/"},\n{name = "b"},\n]') == ["3: webhook.url is missing."]


# What stands around, and has nothing wrong in it; {} is a number of its own.
FILLING = [
    "# [remark] = [",
    "",
    '[[notify.rule]]\nname = "r{}" # [[\ntopics = [\n  "a:*", # ]\n\n  "b:*",\n]\ntitle = """\n[[x]]\ny = 1 \\"""\n"""',
    "[[webhook]]\nname = 'w{}'\nurl = 'http://h/'\ntopics = ['a:*', '''b:*''']",
    '[[notify.channel]]\nname = "c{}"\ntype = "desktop"\nrules = ["question",\n"stale"]',
    "[[notify.channel]]\nname = 'd{}'\ntype = 'command'\nargv = ['''\n]''', \"[\", '#', \"\"\"\"q\"\"\"\"]",
]
# What is wrong, how many lines behind the beginning of it, and what is said.
WRONG = [
    ("[bogus]\na = 1", 0, "There is no setting bogus."),
    ("# x\n[[bogus]]\na = 1", 1, "There is no setting bogus."),
    ("\n[[bogus]]\n[[bogus]]", 1, "There is no setting bogus."),
    ("[bogus.a.b]\nc = 1", 0, "There is no setting bogus."),
    ("[[notify.bogus]]", 0, "There is no setting notify.bogus."),
    ("[notify.rules.bogus]", 0, "There is no setting notify.rules.bogus."),
    ('[["bo]gus"]]\n[notify.rules]\nstale = true', 0, "There is no setting bo]gus."),
    ('["bo\\u0067us"]', 0, "There is no setting bogus."),
    ("[ bogus . 'x.y' ]", 0, "There is no setting bogus."),
    ("[notify.rules]\nbogus.a = 1", 1, "There is no setting notify.rules.bogus."),
    ("[notify.rules]\nstale = true\n'bogus' = [\n1]", 2, "There is no setting notify.rules.bogus."),
    ("[limits]\nrate = [\n\n1]", 1, "limits.rate: Not a valid integer."),
    ("[[notify.rule]]\nname = 'x'\ntopics = [\n 'a:*', # '\n\n 'b']", 5, "notify.rule.topics: No event name has only"),
    ("[[notify.channel]]\nname='x'\ntype='desktop'\nrules = [\n'stale',\n'nope']", 5, "There is no rule 'nope'"),
    ("[[notify.channel]]\nname='x'\n\ntype='ntfy'", 0, "A channel of type ntfy needs topic."),
    ("[[webhook]]\nname='x'\nurl='http://h/'\n[[webhook]]\nurl='http://h/'\nname='x'", 5, "The name 'x' is taken"),
    ("[github]", 0, "github.secret_file is missing."),
    ("[limits]\nrate = 1\nrate = 2", 2, "This is not TOML"),
    ("[limits]\n[limits]", 1, "This is not TOML"),
    ("[limits]\nrate = 01", 1, "This is not TOML"),
    ("[limits]\nrate 1", 1, "This is not TOML"),
    ("[limits]\nrate = 'a\nb'", 1, "This is not TOML"),
    ("[limits\n", 0, "This is not TOML"),
    ("[limits]\nrate = 1 [x]", 1, "This is not TOML"),
    ('[limits]\nrate = "\\q"', 1, "This is not TOML"),
]  # fmt: skip


@given(
    st.lists(st.sampled_from(FILLING), max_size=5),
    st.sampled_from(WRONG),
    st.lists(st.sampled_from(FILLING), max_size=5),
    st.booleans(),
)
def test_every_problem_is_told_at_its_own_line(
    before: list[str], wrong: tuple[str, int, str], behind: list[str], has_returns: bool
) -> None:
    text, offset, sentence = wrong
    parts = [part.replace("{}", str(number)) for number, part in enumerate([*before, *behind])]
    blocks = [*parts[: len(before)], text, *parts[len(before) :]]
    line = sum(block.count("\n") + 1 for block in blocks[: len(before)]) + offset + 1
    whole = "\n".join([*blocks, ""])
    found = said(whole.replace("\n", "\r\n") if has_returns else whole)
    assert f"{line}: {sentence}" in {one[: len(f"{line}: {sentence}")] for one in found}, found


def test_the_first_that_is_too_much_is_the_line() -> None:
    text = "".join(f"[[notify.channel]]\nname = 'c{n}'\ntype = 'desktop'\n" for n in range(22))
    assert said(text) == ["61: notify.channel: Longer than maximum length 20."]


def test_lines_take_time_that_is_linear_in_the_text() -> None:
    text = "a" + ".a" * 100_000 + " = 1\n" + 'b = """' + "[" * 100_000
    assert max(map(len, lines(text))) == 16


def test_lines() -> None:
    text = '[a]\nb = 1\n"c d".e = 2\n[[a.f]]\ng = [\n 1,\n]\n[[a.f]]\nh = 1\n[a.f.i]\nj = 1\n'
    assert lines(text) == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c d"): 3,
        ("a", "c d", "e"): 3,
        ("a", "f"): 4,
        ("a", "f", 0): 4,
        ("a", "f", 0, "g"): 5,
        ("a", "f", 0, "g", 0): 6,
        ("a", "f", 1): 8,
        ("a", "f", 1, "h"): 9,
        ("a", "f", 1, "i"): 10,
        ("a", "f", 1, "i", "j"): 11,
    }


# ---- on the command line, and while a hub runs


async def test_check_config_says_it_and_starts_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    none = await run_hub(tmp_path, "--check-config", "--state-dir", str(state))
    assert none == (0, "There is no hub.toml: nobody is told of anything, and no webhook is sent.\n", "")
    assert not state.exists()
    write_config(state, "[notify]\nx = 1\n[[webhook]]\n")
    bad = await run_hub(tmp_path, "--check-config", "--state-dir", str(state))
    where = state / "hub.toml"
    lines = [
        f"{where}:2: There is no setting notify.x.",
        f"{where}:3: webhook.name is missing.",
        f"{where}:3: webhook.url is missing.",
    ]
    assert bad == (2, "", "".join(f"{line}\n" for line in lines))
    assert await run_hub(tmp_path, "--state-dir", str(state), "--port", "0") == bad
    assert sorted(path.name for path in state.iterdir()) == ["hub.toml"]
    (tmp_path / "other.toml").write_text("")
    good = await run_hub(tmp_path, "--check-config", "--config", str(tmp_path / "other.toml"))
    assert good == (0, f"{tmp_path / 'other.toml'} is good: 0 channels, 0 webhooks.\n", "")


async def test_check_config_says_so_of_a_folder_with_which_no_hub_starts(tmp_path: Path) -> None:
    state = tmp_path / "state"
    write_config(state, "")
    state.chmod(0o755)
    status, out, err = checked = await run_hub(tmp_path, "--check-config", "--state-dir", str(state))
    assert (status, out) == (2, "")
    assert f"close it with chmod 700 {state} if it is for a hub alone" in err
    started = await run_hub(tmp_path, "--state-dir", str(state), "--port", "0")
    assert (started[0], started[2].count(f"chmod 700 {state}")) == (2, 1)
    state.chmod(0o700)
    assert (await run_hub(tmp_path, *("--check-config", "--state-dir", str(state))))[0] == 0, checked


async def test_a_mounted_hub_does_not_start_with_a_bad_one(tmp_path: Path) -> None:
    write_config(tmp_path / "state", "x = 1")
    with pytest.raises(BadFile):
        async with hub_app(tmp_path / "state"):
            pass
    (tmp_path / "state" / "hub.toml").unlink()
    async with hub_app(tmp_path / "state") as hub:
        assert (await hub.get("readyz")).status == 200


async def test_sighup_reads_it_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    write_config(tmp_path / "state", "")
    async with hub_process(tmp_path) as hub:
        write_config(tmp_path / "state", "[notify]\nx = 1\n")
        hub.signal(signal.SIGHUP)
        await until(lambda: "hub.toml:2: There is no setting notify.x." in hub.log)
        assert "all stays as it was" in hub.log
        write_config(tmp_path / "state", "[[webhook]]\nname = 'a'\nurl = 'http://127.0.0.1:9/'\n")
        hub.signal(signal.SIGHUP)
        await until(lambda: "hub.toml was read again" in hub.log)
        async with hub.http.get(f"{hub.url}api/state?topics=hub:webhook") as response:
            [item] = (await response.json())["items"]
        assert item["data"] == {"name": "a", "status": "on", "reason": ""}


@pytest.mark.parametrize(
    "flags",
    [
        ("--allow-origin", "null"),
        ("--allow-host", "a b"),
        ("--host", "0.0.0.0"),
        ("--auth", "token", "--trusted-proxy", "nobody"),
        ("--tls-cert", "none.pem", "--tls-key", "none.pem"),
    ],
)
async def test_check_config_says_of_a_setting_what_a_start_says_of_it(flags: tuple[str, ...], tmp_path: Path) -> None:
    where = "--state-dir", str(tmp_path / "state")
    checked = await run_hub(tmp_path, "--check-config", *where, *flags)
    assert (checked[0], checked[1], checked[2].count("\n")) == (2, "", 1)
    started = await run_hub(tmp_path, *where, "--port", "0", *flags)
    assert (started[0], started[2].count(checked[2])) == (2, 1)
