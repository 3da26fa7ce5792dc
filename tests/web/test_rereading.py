"""A SIGHUP without a terminal: hub.toml, limits, token and certificate are read again, each told in a line."""

import asyncio
import os
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError
from running import HubProcess, Talk, hub_app, hub_process, run_hub, talk, until

from hub.commands.session import Session

pytestmark = pytest.mark.once


def certify(folder: Path, name: str) -> tuple[str, str]:
    """A certificate for this machine, under this name."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


def write(path: Path, text: str) -> None:
    path.write_text(text)
    os.chmod(path, 0o600)


async def hangup(hub: HubProcess, line: str) -> None:
    """Have it read all again, and wait until it has told this once more."""
    before = hub.log.count(line)
    hub.signal(signal.SIGHUP)
    await until(lambda: hub.log.count(line) > before, f"{line!r} in {hub.log!r}")


async def shown(hub: HubProcess) -> bytes:
    """The certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", hub.port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_all_of_it_is_read_again_and_told(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, "first")
    (tmp_path / "state").mkdir(mode=0o700)
    write(tmp_path / "state" / "hub.toml", "[limits]\nrate = 500\n")
    async with hub_process(tmp_path, "--auth", "token", "--tls-cert", cert, "--tls-key", key) as hub:
        where = ("--state-dir", str(hub.state_dir), "--ca", cert)
        assert '"rate": 500' in (await run_hub(tmp_path, "call", "hub:info", *where))[1].replace(":500", ": 500")
        first = await shown(hub)
        write(
            hub.state_dir / "hub.toml",
            "[limits]\nrate = 0\nmax_clients = 7\n[[webhook]]\nname='a'\nurl='http://127.0.0.1:9/'\n",
        )
        certify(tmp_path, "second")
        await hangup(hub, "the certificate was read again: new connections get it")
        assert "hub.toml was read again: 0 channels, 1 webhook" in hub.log
        assert "the limits are no limit of the rate, 7 clients at once" in hub.log
        assert "the token was read again: it is the same" in hub.log
        assert await shown(hub) != first
        second = await shown(hub)
        write(Path(cert), "nonsense")
        write(hub.state_dir / "hub.toml", "[limits]\nrate = -1\nmax_clents = 3\n")
        await hangup(hub, "the certificate is not used, and all stays as it was: Cannot use --tls-cert")
        assert "hub.toml:2: limits.rate: Must be greater than or equal to 0" in hub.log
        assert "hub.toml:3: There is no setting limits.max_clents; did you mean max_clients?" in hub.log
        assert await shown(hub) == second
        assert (await run_hub(tmp_path, "token", "--new", *where[:2]))[0] == 0
        before = hub.log.count("token was read again")
        await hangup(hub, "the certificate is not used")
        assert hub.log.count("token was read again") == before + 1


async def test_what_became_of_the_token_is_told_as_it_is(tmp_path: Path) -> None:
    """Also when it was noticed before, and from one bad file to the next."""
    async with hub_process(tmp_path, "--auth", "token") as hub:
        where, file = ("--state-dir", str(hub.state_dir)), hub.state_dir / "token"
        good, bad = file.read_text(), f"{file} was read again: it has no token that can be used; nobody gets in"
        same, other = "the token was read again: it is the same", "token was read again: it is another token"
        await hangup(hub, same)
        for text in (good[:20], "", None, good[:10]):
            file.unlink() if text is None else write(file, text)
            await hangup(hub, bad)
            status, _, err = await run_hub(tmp_path, "call", "hub:ping", *where)
            assert status != 0
            assert err
        write(file, good)
        await hangup(hub, f"{file} was read again: it has a token now")
        assert (await run_hub(tmp_path, "call", "hub:ping", *where))[0] == 0
        await hangup(hub, same)
        assert (await run_hub(tmp_path, "token", "--new", *where))[0] == 0
        await hangup(hub, other)
        assert (await run_hub(tmp_path, "token", "--new", "--read-only", *where))[0] == 0
        await hangup(hub, f"{file}.read was read again: it has a token now")
        (hub.state_dir / "token.read").unlink()
        await hangup(hub, f"{file}.read was read again: it has no token")
        assert hub.log.count(same) == 4


async def test_two_tokens_with_one_text_are_told_each_time(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token") as hub:
        same = "have the same text, so it only opens reading; make one of them new, with hub token --new"
        write(hub.state_dir / "token.read", (hub.state_dir / "token").read_text())
        for _ in range(3):
            await hangup(hub, same)
        assert "it has no token that can be used" not in hub.log
        where = ("--state-dir", str(hub.state_dir))
        assert (await run_hub(tmp_path, "call", "hub:ping", *where))[0] == 0
        status, _, err = await run_hub(tmp_path, "publish", "a:b", "1", *where)
        assert (status, "You may only read here" in err) == (1, True)


async def test_the_limits_hold_for_those_who_are_there_already(tmp_path: Path) -> None:
    write(tmp_path / "hub.toml", "[limits]\nrate = 100000\nmax_clients = 2\n")
    async with hub_app(tmp_path, rate=1, max_clients=1) as hub:
        assert hub.hub.config.rate == 100000
        async with talk(hub.url) as one, talk(hub.url) as two:
            with pytest.raises(WSServerHandshakeError) as refused:
                async with talk(hub.url):
                    pass
            assert refused.value.status == 503
            await many(one, 10, fails=False)
            write(tmp_path / "hub.toml", "[limits]\nrate = 1\nmax_clients = 3\n")
            await hub.hub.reload()
            async with talk(hub.url):  # there is room for a third
                await many(two, 10, fails=True)
            statuses = [(await hub.post("api/events", {"event": "a:b", "data": 1})).status for _ in range(5)]
            assert 429 in statuses
            (tmp_path / "hub.toml").unlink()
            await hub.hub.reload()
            assert (hub.hub.config.rate, hub.hub.config.max_clients) == (1, 1)  # as it was started


async def many(client: Talk, count: int, *, fails: bool) -> None:
    """So many calls, one after the other: whether one of them was over the rate."""
    answers: list[dict[str, Any]] = []
    for _ in range(count):
        answers.append(await client.answer(await client.begin("hub:ping")))
    codes = {answer["payload"].get("code") for answer in answers if answer["type"] == "error"}
    assert codes == ({"rate_limited"} if fails else set())


async def test_weakened_a_client_that_is_there_keeps_its_old_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "_take", lambda self: self._bucket.take())
    write(tmp_path / "hub.toml", "[limits]\nrate = 100000\n")
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        write(tmp_path / "hub.toml", "[limits]\nrate = 1\n")
        await hub.hub.reload()
        await many(client, 10, fails=False)


EARLY = """
import os, signal
if {weakened}:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGHUP)

def setup(hub):
    pass
"""


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_that_comes_while_the_hub_starts_is_not_its_end(tmp_path: Path, weakened: bool) -> None:
    """As of a service manager that has been told to reload just now: all is read at the start anyway."""
    (tmp_path / "early.py").write_text(EARLY.format(weakened=weakened))
    words = ("--port", "0", "--state-dir", str(tmp_path / "state"), "--load", "early")
    if weakened:
        assert (await run_hub(tmp_path, *words))[0] == -signal.SIGHUP
        return
    async with hub_process(tmp_path, *words[4:]) as hub, hub.http.get(f"{hub.url}healthz") as answer:
        assert answer.status == 200
