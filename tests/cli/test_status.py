"""`hub status`: how the hub is, for people and for programs, and without leaving a trace where nothing waits."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, hub_process, run_hub
from terminals import on_terminal

from hub.cli.samples import Samples
from hub.cli.status import lines


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub") as running:
        yield running


def typed(*words: str) -> str:
    return " ".join(["hub", *words])


async def status(folder: Path, *words: str) -> dict[str, Any]:
    code, out, err = await run_hub(folder, "status", *words)
    assert (code, err, out.count("\n")) == (0, "", 1)
    found: dict[str, Any] = json.loads(out)
    return found


async def test_it_says_how_the_hub_is(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        await run_hub(tmp_path, "publish", "a:b", "--state-dir", str(hub.state_dir))
        found = await status(tmp_path, "--state-dir", str(hub.state_dir))
        server = json.loads((hub.state_dir / "server.json").read_text())
    assert (found["url"] + "/", found["pid"]) == (hub.url, hub.process.pid)
    assert {name: found[name] for name in ("version", "started")} == {
        name: server[name] for name in ("version", "started")
    }
    assert (found["ready"], found["reasons"], found["questions"]) == (True, {}, [])
    assert found["workers"] == {"up": 1, "stale": 0, "down": 0}
    assert "workers" not in [title for title, _, _ in lines(found, typed)]
    for workers, shown in (
        ({"up": 3, "stale": 0, "down": 0}, ("workers", "3 up", True)),
        ({"up": 2, "stale": 0, "down": 1}, ("workers", "2 up, 1 down", False)),
    ):
        assert shown in list(lines({**found, "workers": workers}, typed))
    assert (found["clients"], found["providers"]) == ({"websocket": 0, "sse": 0}, 0)
    assert found["events"] == 1
    assert found["audit"] == {"valid": True, "records": 1}
    broken = {**found, "audit": {"valid": False, "records": 1}}
    assert ("audit", "1 records, the chain is broken: hub call audit:verify says where", False) in lines(broken, typed)


async def test_asking_leaves_no_record(hub: HubInside, tmp_path: Path) -> None:
    before = hub.hub.audit.seq
    assert (await status(tmp_path, "--url", hub.url))["pid"] is None  # which process that is, only its folder knows
    assert hub.hub.audit.seq == before


async def test_it_counts_what_comes_in_a_second(hub: HubInside, tmp_path: Path) -> None:
    async def publish() -> None:
        while True:
            await hub.publish(1)
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())
    assert (await status(tmp_path, "--url", hub.url))["events_per_second"] > 0
    publishing.cancel()


async def test_it_says_what_waits_and_how_to_answer(hub: HubInside, tmp_path: Path) -> None:
    asking = asyncio.create_task(hub.hub.ask("Deploy \x1b[31mnow?", ["yes, go", "no"]))
    while not len(hub.hub.questions):
        await asyncio.sleep(0.001)
    async with on_terminal(tmp_path, "status", "--url", hub.url) as shown:
        code, text = await shown.ended()
    assert (code, "\x1b" in text) == (0, False)
    *_, waiting, question, answer = text.splitlines()
    assert waiting == "waiting  1 question for a person"
    assert question.strip().startswith("Deploy \\u001b[31mnow? (yes, go, no) until ")
    program, *words = shlex.split(answer)
    assert (program, words[-2:]) == ("hub", ["--url", hub.url.rstrip("/")])
    assert (await run_hub(tmp_path, *words))[0] == 0
    assert (await asking).answer == "yes, go"


async def test_what_is_not_ready_is_said(hub: HubInside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.hub, "obstacles", lambda: {"broker": "The disk is full."})
    found = await status(tmp_path, "--url", hub.url)
    assert (found["ready"], found["reasons"]) == (False, {"broker": "The disk is full."})
    assert ("not ready", " broker: The disk is full.", False) in list(lines(found, typed))


async def test_what_keeps_nobody_from_using_it_is_a_problem(
    hub: HubInside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /readyz has it."""
    monkeypatch.setattr(hub.hub.outward, "problems", lambda: {"webhook ci": "It does not answer."})
    assert (await hub.get("readyz")).status == 200
    found = await status(tmp_path, "--url", hub.url)
    assert (found["ready"], found["reasons"]) == (True, {"webhook ci": "It does not answer."})
    told = list(lines(found, typed))
    assert ("problem", " webhook ci: It does not answer.", False) in told
    assert "not ready" not in [title for title, _, _ in told]


async def test_without_a_hub_it_is_one_sentence(tmp_path: Path) -> None:
    start = f"Start one with: hub --state-dir {tmp_path}"
    sentence = f"hub: No hub is running here: there is no {tmp_path}/server.json. {start}\n"
    assert await run_hub(tmp_path, "status", "--state-dir", str(tmp_path)) == (3, "", sentence)


async def test_the_folder_of_one_worker_leads_to_that_of_the_hub(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        (hub.state_dir / "worker-1").mkdir()
        sentence = f"hub: {hub.state_dir}/worker-1 is the folder of one worker; the hub is found by --state-dir "
        for words in (("status",), ("publish", "a:b")):
            code, out, err = await run_hub(tmp_path, *words, "--state-dir", str(hub.state_dir / "worker-1"))
            assert (code, out, err) == (3, "", f"{sentence}{hub.state_dir}.\n")


async def test_a_hub_that_says_no_is_one_sentence(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token") as hub:
        code, out, err = await run_hub(tmp_path, "status", "--url", hub.url)
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_metrics_are_read() -> None:
    text = """# HELP a_total Things.
a_total{event="task:progress",b="x\\"y}"} 3.0
a_total{event="other",b=""} 4.5
b 1e+03
broken
b{ 2
"""
    samples = Samples(text)
    assert (samples.value("a_total"), samples.count("a_total"), samples.value("b"), samples.value("c")) == (
        7.5,
        7,
        1000,
        None,
    )
    assert samples.by("a_total", "event") == {"task:progress": 3, "other": 4}
    assert (samples.label("a_total", "event"), samples.label("c", "event")) == ("task:progress", None)
