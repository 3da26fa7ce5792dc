"""`hub doctor`: each thing that can stand in the way, set up for real, is named, with what to do."""

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from forks import PIPE, fork
from running import HubInside, environment, hub_app, hub_process, run_hub
from terminals import on_terminal

from hub.adapters.senders import AGENTS
from hub.cli import promise
from hub.cli.checks import Finding, _folder_problem, of_this_account
from hub.cli.main import parser
from hub.client.client import HubClient
from hub.client.discovery import NoHub
from hub.client.items import Received
from hub.errors import HubError, UsageError


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub") as running:
        yield running


async def examined(*words: str, **variables: str) -> tuple[int, dict[str, str], list[str]]:
    """The exit status, what was wrong by its check, and the checks that were well."""
    process = await fork("doctor", *words, stdout=PIPE, stderr=PIPE, env={**environment(), **variables})
    out, err = await process.communicate()
    assert (err, process.returncode is None) == (b"", False)
    found = [json.loads(line) for line in out.splitlines()]
    assert all(finding["text"] for finding in found)
    return (
        process.returncode or 0,
        {finding["check"]: finding["text"] for finding in found if not finding["ok"]},
        [finding["check"] for finding in found if finding["ok"]],
    )


ALL = [*"version variables proxy state disk address hub ready versions".split(), *AGENTS, "events", "clock"]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent of the person's own is looked at."""
    monkeypatch.setenv("HOME", str(tmp_path))


async def test_where_all_is_well(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        assert await examined("--state-dir", str(hub.state_dir)) == (0, {}, ALL)
        async with on_terminal(tmp_path, "doctor", "--state-dir", str(hub.state_dir)) as shown:
            status, text = await shown.ended()
    assert (status, [line.split()[:2] for line in text.splitlines()]) == (0, [["ok", check] for check in ALL])


async def test_it_leaves_no_call_behind(hub: HubInside) -> None:
    before = hub.hub.audit.seq
    assert (await examined("--url", hub.url))[0] == 0
    assert hub.hub.audit.seq == before
    events = (await hub.get("api/events")).json["events"]
    assert {event["payload"]["event"] for event in events} == {"doctor:check"}


# ---- no hub


async def test_no_hub(tmp_path: Path) -> None:
    status, problems, _ = await examined("--state-dir", str(tmp_path))
    assert (status, problems.keys() - {"port"}) == (3, {"hub"})
    said = f"No hub is running here: there is no {tmp_path}/server.json. Start one with: hub --state-dir {tmp_path}"
    assert problems["hub"] == said


async def test_a_stale_server_json(tmp_path: Path) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9/", "pid": gone.pid}))
    status, problems, _ = await examined("--state-dir", str(tmp_path))
    assert status == 3
    assert "has gone" in problems["hub"]


async def test_something_else_has_the_port(tmp_path: Path) -> None:
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    status, problems, _ = await examined("--url", url)
    await runner.cleanup()
    assert status == 3
    assert "does not answer as a hub" in problems["hub"]
    assert "leave out --url" in problems["hub"]


async def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:1"):
            status, problems, _ = await examined(HUB_URL=url)
            assert (status, list(problems)) == (3, ["hub"])
            assert "leave out HUB_URL" in problems["hub"]


# ---- a hub that lets nobody in


async def test_a_missing_and_a_wrong_token(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token") as hub:
        status, problems, _ = await examined("--url", hub.url)
        assert (status, list(problems)) == (1, ["way in"])
        assert "HUB_TOKEN" in problems["way in"]
        status, problems, _ = await examined("--url", hub.url, HUB_TOKEN="x" * 40)
        assert (status, list(problems)) == (1, ["way in"])
        assert "not this hub's" in problems["way in"]
        assert (await examined("--state-dir", str(hub.state_dir)))[0] == 0
        (tmp_path / "no").write_text("two words")
        status, problems, _ = await examined("--url", hub.url, "--token-file", str(tmp_path / "no"))
        assert (status, list(problems)) == (3, ["token"])


async def test_who_only_reads(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token") as hub:
        _, token, _ = await run_hub(tmp_path, "token", "--read-only", "--state-dir", str(hub.state_dir))
        status, problems, fine = await examined("--url", hub.url, HUB_TOKEN=token.strip())
    assert (status, problems, fine[-1]) == (0, {}, "events")


async def test_a_host_that_is_not_allowed(hub: HubInside) -> None:
    status, problems, _ = await examined("--url", f"http://0.0.0.0:{hub.port}")
    assert (status, list(problems)) == (1, ["way in"])
    assert f"--allow-host 0.0.0.0:{hub.port}" in problems["way in"]


# ---- the machine and the account


async def test_variables_and_proxies(hub: HubInside) -> None:
    url = ("--url", hub.url)
    status, problems, _ = await examined(*url, HUB_PROT="1", http_proxy="http://user:geheim@proxy:1")
    assert (status, sorted(problems)) == (1, ["proxy", "variables"])
    assert "HUB_PROT" in problems["variables"]
    assert "no_proxy" in problems["proxy"]
    assert "geheim" not in problems["proxy"]
    assert (await examined(*url, http_proxy="http://proxy:1", no_proxy="localhost,127.0.0.1"))[0] == 0


def opened(folder: Path) -> None:
    folder.chmod(0o755)


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def foreign(folder: Path) -> None:
    os.chown(folder, 1234, 1234)


def a_broken_link(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to("nowhere")


FOLDERS: Mapping[Callable[[Path], None], str] = {
    opened: "chmod 700",
    a_file: "is no folder",
    foreign: "belongs to another account",
    a_broken_link: "cannot be looked at",
}


@pytest.mark.parametrize("make", FOLDERS)
def test_a_state_directory_that_will_not_do(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    assert _folder_problem(folder) is None
    make(folder)
    (finding,) = of_this_account(parser("doctor").read(["doctor", "--state-dir", str(folder)]))
    assert FOLDERS[make] in str(finding.problem)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in str(_folder_problem(tmp_path))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("hub.cli.checks.LEAST_ROOM", 2**80)
    *_, disk = of_this_account(parser("doctor").read(["doctor", "--state-dir", str(tmp_path)]))
    assert "free some" in str(disk.problem)


async def test_without_a_home_it_is_a_finding(tmp_path: Path) -> None:
    args = parser("doctor").read(["doctor"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub.cli.checks.state_directory", homeless)
        (finding,) = of_this_account(args)
    assert "no home" in str(finding.problem)


def homeless() -> Path:
    raise UsageError("This account has no home for the hub's files; name a folder with --state-dir.")


# ---- a hub that is not well


async def test_what_is_not_ready(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.hub, "problems", lambda: {"audit": "The disk is full."})
    status, problems, _ = await examined("--url", hub.url)
    assert (status, problems) == (1, {"ready": "audit: The disk is full."})


async def test_another_version(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.hub, "version", "0.0.1")
    status, problems, _ = await examined("--url", hub.url)
    assert (status, sorted(problems)) == (1, ["versions"])
    assert "0.0.1" in problems["versions"]


# ---- the promise: a hub or a way to it that breaks it is found


def tried(hub: HubInside) -> list[Finding]:
    return list(promise.tried(parser("doctor").read(["doctor", "--url", hub.url])))


BROKEN: Mapping[str, tuple[Callable[[list[Received]], list[Received]], str]] = {
    "another order": (lambda items: [items[1], items[0], *items[2:]], "another order"),
    "twice": (lambda items: [items[0], *items], "another number of times"),
    "lost": (lambda items: items[1:], "did not come"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_promise_is_found(name: str, hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = BROKEN[name]
    following, queues = HubClient.__anext__, dict[int, list[Received]]()

    async def changed(client: HubClient) -> Received:
        if id(client) not in queues:
            queues[id(client)] = change([await following(client) for _ in range(promise.COUNT)])  # type: ignore[misc]
        while not queues[id(client)]:
            await asyncio.sleep(0.01)
        return queues[id(client)].pop(0)

    monkeypatch.setattr(promise, "PATIENCE", 1.0)
    assert [finding.problem for finding in await asyncio.to_thread(tried, hub)] == [None, None]
    monkeypatch.setattr(HubClient, "__anext__", changed)
    (finding,) = await asyncio.to_thread(tried, hub)
    assert said in str(finding.problem)
    assert logging.root.manager.disable == logging.NOTSET  # what is logged behind it is logged


async def test_a_hub_that_keeps_an_id_twice_is_found(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = HubClient.publish

    async def anew(client: HubClient, name: str, data: Any, **options: Any) -> dict[str, str]:
        return await publish(client, name, data)

    monkeypatch.setattr(HubClient, "publish", anew)
    (finding,) = await asyncio.to_thread(tried, hub)
    assert "two positions" in str(finding.problem)


async def test_a_gap_is_found(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gap(client: HubClient) -> object:
        return object()

    monkeypatch.setattr(HubClient, "__anext__", gap)
    (finding,) = await asyncio.to_thread(tried, hub)
    assert "A gap" in str(finding.problem)


@pytest.mark.parametrize(
    ("error", "said"),
    [(HubError("broker_unavailable", "The disk is full."), "The disk is full."), (NoHub("It went away."), "went away")],
)
async def test_what_keeps_it_from_trying_is_said(
    error: Exception, said: str, hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(HubClient, "publish", refused)
    (finding,) = await asyncio.to_thread(tried, hub)
    assert said in str(finding.problem)


async def test_another_clock_is_found(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise, "SKEW", -1.0)
    _, clock = await asyncio.to_thread(tried, hub)
    assert (clock.check, "differ" in str(clock.problem)) == ("clock", True)
