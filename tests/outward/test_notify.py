"""Telling a person: what, when, once, and never slower publishing."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from receivers import Receiver, receiver, write_config
from running import HubInside, hub_app, hub_process, until

from hub.configfile.shapes import BUILT_IN, Notify
from hub.outward import channels, outbox, pace
from hub.outward.notify import Notifier
from hub.outward.pace import MOST, WITHIN
from hub.outward.rules import cut, spoken


def config(ntfy: str, *, channel: str = "", more: str = "", **settings: Any) -> str:
    given = {"question_after": 0, "retry_first": 0.05, **settings}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
    one = f'[[notify.channel]]\nname = "phone"\ntype = "ntfy"\nurl = "{ntfy}"\ntopic = "user-hub"\n{channel}\n'
    return f"[notify]\n{lines}\n{one}\n{more}"


def titles(got: Receiver) -> list[str]:
    return [one.json["title"] for one in got.got]


async def test_a_question_that_waits_is_told_once_with_a_way_to_it(tmp_path: Path) -> None:
    async with receiver() as got:
        settings: dict[str, Any] = {"question_after": 0.3, "url": "https://hub.user.example"}
        write_config(tmp_path, config(got.url, channel='token_file = "ntfy.secret"', **settings), ntfy="tk_x")
        async with hub_app(tmp_path) as hub:
            asked = asyncio.create_task(
                hub.hub.ask("claude-code in shop: Bash: rm -rf build/cache", ["allow", "deny"], details={"agent": "c"})
            )
            began = time.monotonic()
            await until(lambda: got.got)
            assert time.monotonic() - began >= 0.25
            [asking] = hub.hub.questions.records()
            [one] = got.got
            assert one.headers["authorization"] == "Bearer tk_x"
            link = f"https://hub.user.example/#q-{asking['id']}"
            assert one.json == {
                "topic": "user-hub",
                "title": "claude-code in shop asks",
                "message": "Bash: rm -rf build/cache",
                "priority": 4,
                "tags": ["robot"],
                "click": link,
                "actions": [{"action": "view", "label": "Review", "url": link}],
            }
            assert b"tk_x" not in one.body
            page = await hub.get("")
            assert f'id="q-{asking["id"]}"' in page.text  # where the link leads
            await hub.post("api/commands/hub:answer", {"question": asking["id"], "answer": "allow"})
            await asked
            assert hub.counted("hub_notifications_total", "ntfy", "sent") == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_that_was_answered_in_time_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Notifier, "_still", lambda self, message: True)
    async with receiver() as got:
        write_config(tmp_path, config(got.url, question_after=0.3))
        async with hub_app(tmp_path) as hub:
            asked = asyncio.create_task(hub.hub.ask("Deploy?", ["yes", "no"]))
            await until(lambda: hub.hub.questions.records())
            [question] = hub.hub.questions.records()
            await hub.post("api/commands/hub:answer", {"question": question["id"], "answer": "yes"})
            await asked
            await hub.hub.publish("agent:status_change", {"id": "late", "status": "error"})  # told behind it
            await until(lambda: "late is in error" in titles(got))
            await until(lambda: hub.counted("hub_notifications_total", "ntfy", "dropped") or len(got.got) == 2)
            assert len(got.got) == (2 if weakened else 1)


TOLD = [
    ("task:progress", {"id": "b", "name": "Build", "status": "failed", "error": "exit status 2"}, "Build failed", 4),
    ("task:progress", {"id": "b", "status": "succeeded", "duration_ms": 61_000}, "b is done", 3),
    ("agent:status_change", {"id": "a", "status": "error", "reason": "429"}, "a is in error", 4),
]
NOT_TOLD = [
    ("task:progress", {"id": "b", "status": "succeeded", "duration_ms": 59_000}),
    ("task:progress", {"id": "b", "status": "cancelled"}),
    ("task:progress", {"id": "b", "status": "running"}),
    ("agent:status_change", {"id": "a", "status": "idle"}),
    ("orders:paid", {"status": "failed"}),
]


@pytest.mark.parametrize(("event", "data", "title", "priority"), TOLD)
async def test_what_is_told(tmp_path: Path, event: str, data: dict[str, Any], title: str, priority: int) -> None:
    async with receiver() as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish(event, data)
            await hub.hub.publish(event, data)  # the same again is no news
            await until(lambda: got.got)
            await hub.hub.publish("agent:status_change", {"id": "last", "status": "error"})
            await until(lambda: "last is in error" in titles(got))
            assert titles(got) == [title, "last is in error"]
            assert got.got[0].json["priority"] == priority


SAID = [
    ({"error": "exit status 1", "message": "E: no such file"}, "exit status 1 · E: no such file"),
    ({"error": "the same", "message": "the same"}, "the same"),
    ({"message": "only this"}, "only this"),
    ({}, "It failed."),
]


@pytest.mark.parametrize(("data", "said"), SAID)
async def test_what_a_program_said_last_is_told_too(tmp_path: Path, data: dict[str, Any], said: str) -> None:
    async with receiver() as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("task:progress", {"id": "b", "status": "failed", **data})
            await until(lambda: got.got)
            assert got.got[0].json["message"] == said


STALE = [
    ("task:progress", {"id": "ping:a/b", "name": "backup"}, "backup did not come", "?task=ping%3Aa%2Fb"),
    ("agent:status_change", {"id": "c", "status": "active"}, "c did not come", "?agent=c"),
    ("alert:status", {"id": "disk", "status": "firing"}, "disk did not come", ""),
]


@pytest.mark.parametrize(("event", "data", "title", "page"), STALE)
async def test_what_did_not_come_is_told_by_its_name_with_a_way_to_it(
    tmp_path: Path, event: str, data: dict[str, Any], title: str, page: str
) -> None:
    async with receiver() as got:
        write_config(tmp_path, config(got.url, url="https://hub.user.example"))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish(event, data, ttl=0.05)
            await until(lambda: got.got)
    one = got.got[0].json
    more = "" if page else ": alert:status"
    assert (one["title"], one["click"]) == (title, f"https://hub.user.example/{page}")
    assert one["message"] == f"Nothing was heard of it in time{more}."


async def test_what_is_not(tmp_path: Path) -> None:
    async with receiver() as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            for event, data in NOT_TOLD:
                await hub.hub.publish(event, data)
            await hub.hub.publish("agent:status_change", {"id": "last", "status": "error"})
            await until(lambda: got.got)
            assert titles(got) == ["last is in error"]


@pytest.mark.parametrize("name", BUILT_IN)
async def test_each_rule_can_be_switched_off(tmp_path: Path, name: str) -> None:
    async with receiver() as got:
        write_config(tmp_path, config(got.url, more=f"[notify.rules]\n{name} = false\n"))
        async with hub_app(tmp_path) as hub:
            asked = asyncio.create_task(hub.hub.ask("Deploy?", ["yes"]))
            await until(lambda: hub.hub.questions.records())
            await hub.hub.publish("task:progress", {"id": "f", "status": "failed"})
            await hub.hub.publish("task:progress", {"id": "s", "status": "succeeded", "duration_ms": 90_000})
            await hub.hub.publish("agent:status_change", {"id": "a", "status": "error"})
            await hub.hub.publish("agent:status_change", {"id": "q", "status": "idle"}, ttl=0.05)
            await until(lambda: len(got.got) == 4)
            asked.cancel()
            kinds = {"asks": "question", "failed": "task_failed", "done": "task_succeeded"}
            kinds |= {"error": "agent_error", "come": "stale"}
            assert {kinds[title.split()[-1]] for title in titles(got)} == set(BUILT_IN) - {name}


async def test_ones_own_rules_and_who_is_told_of_which(tmp_path: Path) -> None:
    more = '[[notify.rule]]\nname = "orders"\ntopics = ["orders:*"]\ntitle = "An order"\npriority = 5\n'
    async with receiver() as got:
        write_config(tmp_path, config(got.url, channel='rules = ["orders"]', more=more))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("task:progress", {"id": "f", "status": "failed"})
            await hub.hub.publish("orders:paid", {"order": 7})
            await until(lambda: got.got)
            [one] = got.got
            assert (one.json["title"], one.json["message"], one.json["priority"]) == ("An order", '{"order": 7}', 5)


async def test_many_at_once_are_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WITHIN", 1.0)
    came: list[float] = []

    def note(before: int) -> web.Response:
        came.append(time.monotonic())
        return web.Response()

    async with receiver(note) as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            began = time.monotonic()
            for n in range(40):
                await hub.hub.publish("task:progress", {"id": f"t{n}", "status": "failed"})
            await until(lambda: len(got.got) == MOST + 1)
            assert titles(got) == [*(f"t{n} failed" for n in range(MOST)), "35 more messages"]
            assert got.got[-1].json["message"].startswith("t5 failed; t6 failed; ")
            assert got.got[-1].json["message"].endswith("; and 25 more")
            assert came[-1] - began >= 1.0
            await hub.hub.publish("task:progress", {"id": "last", "status": "failed"})
            await until(lambda: titles(got)[-1] == "last failed")
    assert WITHIN == 10.0


async def test_what_fails_is_told_later_and_what_is_over_by_then_is_not(tmp_path: Path) -> None:
    async with receiver(lambda before: web.Response(status=503 if before < 3 else 200)) as got:
        write_config(tmp_path, config(got.url, retry_first=0.2))
        async with hub_app(tmp_path) as hub:
            for name in ("kept", "mended"):
                await hub.hub.publish("task:progress", {"id": name, "status": "failed"})
            await hub.hub.publish("task:progress", {"id": "mended", "status": "running"})
            await until(lambda: hub.counted("hub_notifications_total", "ntfy", "sent") == 1)
            await until(lambda: hub.counted("hub_notifications_total", "ntfy", "dropped") == 1)
            assert titles(got) == ["kept failed"] * 4
            assert hub.counted("hub_notifications_total", "ntfy", "failed") == 3


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_waits_for_a_channel_is_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    monkeypatch.setattr(outbox, "HELD", 10**12 if weakened else 1_000_000)
    async with receiver(lambda before: web.Response(status=503)) as got:
        write_config(tmp_path, config(got.url, retry_first=30))
        async with hub_app(tmp_path) as hub:
            for n in range(30):
                data = {"id": f"t{n}", "status": "failed", "error": "x" * 100_000}
                await hub.hub.publish("task:progress", data)
            [box] = hub.hub.outward.notifier._boxes
            await until(lambda: box.waiting and box.waiting[-1].title == "t29 failed")
            held = sum(message.size for message in box.waiting)
            assert held == box._held
            assert (held <= 1_000_000) is not weakened


async def alive(tmp_path: Path, got: Receiver, count: Callable[[], bool], *flags: str, kill: bool) -> None:
    """One life of a hub that ends when something has come."""
    async with hub_process(tmp_path, *flags, status=-9 if kill else 0) as hub:
        for name in ("a", "b"):
            event = {"event": "task:progress", "data": {"id": name, "status": "failed"}}
            async with hub.http.post(f"{hub.url}api/events", json={"id": f"only-{name}", **event}) as response:
                assert response.status == 200
        await until(count)
        if kill:
            hub.signal(signal.SIGKILL)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_one_message_across_restarts(tmp_path: Path, kill: bool, weakened: bool) -> None:
    (tmp_path / "forgetful.py").write_text(
        "def setup(hub):\n    notes = hub.outward._told\n    notes.save = lambda: None\n    notes.read = lambda: "
        "notes.values.update(cursor=None) or notes.values.update(cursor=str(hub.cursor)[:8] + ':0')\n"
    )
    flags = ("--load", "forgetful") if weakened else ()
    async with receiver() as got:
        write_config(tmp_path / "state", config(got.url))
        notes = tmp_path / "state" / "notify.json"
        noted = (lambda: len(got.got) >= 2) if weakened else lambda: notes.read_text().count("task_failed:") == 2
        await alive(tmp_path, got, noted, *flags, kill=kill)
        before = len(got.got)
        await alive(tmp_path, got, lambda: len(got.got) > before or not weakened, *flags, kill=kill)
        assert (titles(got) == ["a failed", "b failed"]) is not weakened


async def test_what_could_not_be_told_before_a_kill_is_told_behind_it(tmp_path: Path) -> None:
    async with receiver(lambda before: web.Response(status=503)) as got:
        write_config(tmp_path / "state", config(got.url))
        await alive(tmp_path, got, lambda: bool(got.got), kill=True)
        got.answer = lambda before: web.Response()
        before = len(got.got)
        async with hub_process(tmp_path):
            await until(lambda: len(got.got) >= before + 2)
        assert titles(got)[before:] == ["a failed", "b failed"]


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_overdue_at_a_start_has_a_link_to_the_hub(tmp_path: Path, weakened: bool) -> None:
    """It is told before anybody is let in."""
    (tmp_path / "late.py").write_text(
        "def setup(hub):\n    outward, known = hub.outward, hub.outward.start\n"
        "    async def start(file):\n        outward.url = ''\n        await known(file)\n    outward.start = start\n"
    )
    async with receiver() as got:
        write_config(tmp_path / "state", config(got.url, question_after=1))
        async with hub_process(tmp_path, status=-9) as hub:
            url = f"{hub.url}api/commands/hub:ask"
            asking = asyncio.ensure_future(hub.http.post(url, json={"question": "Go?", "options": ["yes", "no"]}))
            async with asyncio.timeout(10):
                while b"Go?" not in await (await hub.http.get(f"{hub.url}api/state?topics=hub:question")).read():
                    await asyncio.sleep(0.01)
            hub.signal(signal.SIGKILL)
            await asyncio.wait([asking])
            assert isinstance(asking.exception(), ClientError)
        assert got.got == []
        await asyncio.sleep(1.1)  # until it is overdue
        async with hub_process(tmp_path, *(("--load", "late") if weakened else ())) as hub:
            await until(lambda: got.got)
            click = got.got[0].json["click"]
            assert click.startswith(f"{hub.url}#q-") is not weakened, click


@pytest.mark.parametrize("restarted", [False, True])
async def test_of_what_came_while_there_was_no_channel_nobody_is_told(tmp_path: Path, restarted: bool) -> None:
    async with receiver() as got, AsyncExitStack() as stack:
        write_config(tmp_path, config(got.url))
        hub = await stack.enter_async_context(hub_app(tmp_path))
        await failed(hub, "a")
        await until(lambda: titles(got) == ["a failed"])
        write_config(tmp_path, "")
        await hub.hub.reload()
        await failed(hub, "b")
        if restarted:
            await stack.aclose()
            hub = await stack.enter_async_context(hub_app(tmp_path))
        write_config(tmp_path, config(got.url))
        await hub.hub.reload()
        await failed(hub, "c")
        await until(lambda: len(got.got) >= 2)
        assert titles(got) == ["a failed", "c failed"]


def test_what_cannot_be_seen_is_written_out() -> None:
    """As on the page: a title is not drawn as another one."""
    assert cut("rm\u202e \x1b[2K\n x", 50) == "rm\\u202e \\u001b[2K x"


# ---- the other channels


def command(*argv: str) -> str:
    return (
        f'[notify]\nretry_first = 0.05\n[[notify.channel]]\nname = "c"\ntype = "command"\nargv = {json.dumps(argv)}\n'
    )


async def failed(hub: HubInside, id: str, error: str = "boom; $(touch x)") -> None:
    await hub.hub.publish("task:progress", {"id": id, "status": "failed", "error": error})


async def test_a_command_reads_what_it_is_told_on_stdin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_config(
        tmp_path / "state",
        command(sys.executable, "-c", f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())"),
    )
    async with hub_app(tmp_path / "state") as hub:
        await failed(hub, "b")
        await until(lambda: hub.counted("hub_notifications_total", "command", "sent") == 1)
        assert out.read_text().endswith("}\n")  # as a line, for what reads lines
        told = json.loads(out.read_text())
    assert set(told) == {"rule", "title", "message", "priority", "tags", "click", "event"}
    assert (told["rule"], told["title"], told["message"]) == ("task_failed", "b failed", "boom; $(touch x)")
    assert told["event"]["payload"]["data"]["id"] == "b"
    assert told["click"].endswith("?task=b")


async def test_a_command_that_fails_or_is_not_there_is_tried_again(tmp_path: Path) -> None:
    once = f"import pathlib, sys; p = pathlib.Path({str(tmp_path / 'x')!r}); e = p.exists(); p.touch(); sys.exit(not e)"
    write_config(tmp_path / "state", command(sys.executable, "-c", once))
    async with hub_app(tmp_path / "state") as hub:
        await failed(hub, "b")
        await until(lambda: hub.counted("hub_notifications_total", "command", "sent") == 1)
        assert hub.counted("hub_notifications_total", "command", "failed") == 1
        write_config(tmp_path / "state", command("/nowhere/at-all"))
        await hub.hub.reload()
        await failed(hub, "c")
        await until(lambda: hub.counted("hub_notifications_total", "command", "failed") >= 2)


async def test_a_command_that_does_not_read_what_it_is_told_has_done_its_part(tmp_path: Path) -> None:
    """Whenever the pipe breaks, on either event loop: nothing ends the channel."""
    write_config(tmp_path / "state", command("/bin/sh", "-c", "exec 0<&-"))
    async with hub_app(tmp_path / "state") as hub:
        for n in range(MOST):
            data = {"id": f"b{n}", "status": "failed", "error": "x" * 60_000}
            await hub.hub.publish("task:progress", data)
        await until(lambda: hub.counted("hub_notifications_total", "command", "sent") == MOST)


async def test_a_try_that_fails_in_a_way_that_nobody_thought_of_ends_no_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, tries = channels.send, list[Any]()

    async def send(*args: Any) -> None:
        tries.append(args)
        if len(tries) == 1:
            raise RuntimeError("odd")
        await real(*args)

    monkeypatch.setattr(channels, "send", send)
    async with receiver() as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            await failed(hub, "b")
            await until(lambda: got.got)
    assert "is tried again" in caplog.text


async def test_when_the_hub_ends_so_does_all_that_a_command_has_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    write_config(
        tmp_path / "state", command("/bin/sh", "-c", f"sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; wait")
    )
    async with hub_app(tmp_path / "state") as hub:
        await failed(hub, "b")
        await until(pid.exists)
    child = Path(f"/proc/{pid.read_text().strip()}/stat")
    await until(lambda: not child.exists() or ") Z " in child.read_text())


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.outward.channels.COMMAND_SECONDS", 1.0)
    pid = tmp_path / "pid"
    write_config(tmp_path / "state", command("/bin/sh", "-c", f"sleep 300 & echo $! >{pid}; wait"))
    async with hub_app(tmp_path / "state") as hub:
        await failed(hub, "b")
        await until(lambda: hub.counted("hub_notifications_total", "command", "failed") >= 1)
        child = Path(f"/proc/{pid.read_text().strip()}/stat")
        await until(lambda: not child.exists() or ") Z " in child.read_text())


async def test_on_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program gets what begins with a dash as a text, and no markup of whoever has written the message."""
    folder, out = tmp_path / "bin", tmp_path / "out"
    folder.mkdir()
    (folder / "notify-send").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{out}.new\nmv {out}.new {out}\n')
    (folder / "notify-send").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    write_config(tmp_path / "state", '[[notify.channel]]\nname = "d"\ntype = "desktop"\n')
    async with hub_app(tmp_path / "state") as hub:
        await failed(hub, "--hint", error='boom; $(touch x) <a href="x">&')
        await until(out.exists)
    assert out.read_text().splitlines() == [
        "--app-name=hub",
        "--urgency=normal",
        "--",
        "--hint failed",
        'boom; $(touch x) &lt;a href="x"&gt;&amp;',
    ]


async def test_everything_else_through_apprise(tmp_path: Path) -> None:
    """The real library, and its own JSON service."""
    async with receiver() as got:
        text = '[[notify.channel]]\nname = "a"\ntype = "apprise"\nurl_file = "apprise.secret"\n'
        write_config(tmp_path, text, apprise=got.url.replace("http", "json"))
        async with hub_app(tmp_path) as hub:
            await failed(hub, "b")
            await until(lambda: got.got)
            assert got.got[0].json["title"] == "b failed"
            assert got.got[0].json["message"].startswith("boom; $(touch x)\n")
            await until(lambda: hub.counted("hub_notifications_total", "apprise", "sent") == 1)


# ---- small things


def test_spoken() -> None:
    assert [spoken(s) for s in (0.4, 59.4, 61, 3600, 7384)] == [
        "0 s", "59 s", "1 min 01 s", "1 h 00 min", "2 h 03 min",
    ]  # fmt: skip


def test_cut() -> None:
    assert cut("a\n b", 10) == "a b"
    assert cut("abcdef", 4) == "abc…"
    assert len(cut("x " * 10**6, 100)) == 100


def test_rules_are_all_on() -> None:
    assert Notify().rules == set(BUILT_IN)
