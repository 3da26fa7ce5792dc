"""Webhooks: in order, each acknowledged once, across restarts and kill -9; signed as their receivers check it."""

import asyncio
import functools
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from receivers import Got, Receiver, receiver, write_config
from running import HubInside, HubProcess, hub_app, hub_process, until
from standardwebhooks import Webhook as Standard

from hub.outward import webhooks
from hub.outward.bodies import signature
from hub.outward.notes import Notes
from hub.outward.outgoing import LONGEST_ASKED, Reply, retry_after

SECRET = "whsec_bWFkZS11cC1zZWNyZXQtb2YtMzItYnl0ZXMtbGVuISE="


def entry(url: str, name: str = "ci", **more: Any) -> str:
    given = {"name": name, "url": url, "retry_first": 0.05, **more}
    return "[[webhook]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())


def numbers(got: Receiver) -> list[int]:
    """Of the events that came, each once it was acknowledged."""
    acknowledged: dict[str, int] = {}
    for one in got.got:
        if one.id in got.taken:
            acknowledged.setdefault(one.id, one.json["data"]["n"])
    return list(acknowledged.values())


async def status(hub: HubInside) -> Mapping[str, str]:
    items = (await hub.get("api/state", topics="hub:webhook")).json["items"]
    return {item["key"]: item["data"]["status"] for item in items}


async def test_what_is_sent_is_what_the_specification_says(tmp_path: Path) -> None:
    async with receiver() as got:
        write_config(tmp_path, entry(got.url, topics=["task:*"], secret_file="ci.secret"), ci=SECRET)
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("orders:paid", {"n": 0})
            await hub.hub.publish("task:progress", {"id": "bäcker", "status": "succeeded", "n": 1})
            await until(lambda: got.taken)
            assert await status(hub) == {"ci": "on"}
            [one] = got.got
            assert Standard(SECRET).verify(one.body.decode(), one.headers) == one.json  # raises if it is not ours
            assert one.id == str(hub.hub.state.get("task:progress", "bäcker").cursor)  # type: ignore[union-attr]
            assert one.json["type"] == "task:progress"
            assert one.json["data"] == {"id": "bäcker", "status": "succeeded", "n": 1}
            assert set(one.json) == {"type", "timestamp", "data"}
            assert one.headers["content-type"] == "application/json"
            assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60
            with pytest.raises(Exception, match="signature"):
                Standard(SECRET).verify(one.body.decode() + " ", one.headers)
            assert hub.counted("hub_webhook_deliveries_total", "ok") == 1


def test_the_signature_of_the_contracts_sample() -> None:
    body = b'{"type":"task:progress","timestamp":"2026-11-25T10:42:00.000Z","data":{"id":"build","status":"succeeded"}}'
    key = b"made-up-secret-of-32-bytes-len!!"
    assert signature(key, "72757d25:17", 1795603320, body) == "v1,zQc3gU1Bb0Hi/g0A/zKWg8GIaNuct4/cbm70bXJHqNg="


async def test_as_a_cloudevent(tmp_path: Path) -> None:
    async with receiver() as got:
        write_config(tmp_path, entry(got.url, format="cloudevents"))
        async with hub_app(tmp_path) as hub:
            published = await hub.hub.publish("orders:paid", {"n": 1})
            await until(lambda: got.taken)
            [one] = got.got
            assert one.headers["content-type"] == "application/cloudevents+json"
            assert one.json == {
                "specversion": "1.0",
                "id": str(published.cursor),
                "source": f"urn:hub:{published.cursor.epoch}",
                "type": "orders:paid",
                "time": one.json["time"],
                "datacontenttype": "application/json",
                "sequence": str(published.cursor.seq),
                "data": {"n": 1},
            }
            assert "webhook-signature" not in one.headers


async def test_whatever_the_receiver_answers_all_come_in_order_and_once(tmp_path: Path) -> None:
    """Errors, redirects and silence are tried again; the next one waits for its turn."""
    answers = [503, 200, 302, 429, 200, 404, 500, 204]

    def moody(before: int) -> web.Response:
        answer = answers[before] if before < len(answers) else 200
        return web.Response(status=answer, headers={"location": "/elsewhere"} if answer == 302 else {})

    async with receiver(moody) as got:
        write_config(tmp_path, entry(got.url, topics=["a:*"]))
        async with hub_app(tmp_path) as hub:
            for n in range(6):
                await hub.hub.publish("a:x", {"n": n})
            await until(lambda: len(got.taken) == 6)
            assert numbers(got) == list(range(6))
            assert len(set(got.taken)) == 6
            await until(lambda: hub.hub.outward.webhooks.lag == 0)
            assert await status(hub) == {"ci": "on"}
            assert hub.counted("hub_webhook_deliveries_total", "failed") == 5


async def test_a_receiver_that_wants_to_be_left_alone_is(tmp_path: Path) -> None:
    waits: list[float] = []

    def busy(before: int) -> web.Response:
        waits.append(time.monotonic())
        return web.Response(status=200 if before else 429, headers={"retry-after": "1"})

    async with receiver(busy) as got:
        write_config(tmp_path, entry(got.url))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 1})
            await until(lambda: got.taken)
            assert waits[1] - waits[0] >= 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_receiver_that_asks_for_no_time_is_left_alone_all_the_same(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, ends_within = list[float](), webhooks._Sender._ends_within

    async def noted(sender: Any, seconds: float) -> bool:
        waits.append(seconds)
        return await ends_within(sender, seconds)

    monkeypatch.setattr(webhooks._Sender, "_ends_within", noted)
    if weakened:
        monkeypatch.setattr(webhooks, "_as_asked", lambda seconds, least: seconds)
    async with receiver(lambda before: web.Response(status=503, headers={"retry-after": "0"})) as got:
        write_config(tmp_path, entry(got.url))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 1})
            await until(lambda: len(waits) >= 3)
    assert waits[:3] == [0.0 if weakened else 0.05] * 3


def test_retry_after() -> None:
    now = 1_796_000_000.0
    assert retry_after(Reply(429, None), now) is None
    assert retry_after(Reply(429, "soon"), now) is None
    assert retry_after(Reply(429, "7"), now) == 7
    assert retry_after(Reply(429, "9" * 400), now) == LONGEST_ASKED
    assert retry_after(Reply(429, "Wed, 30 Nov 2026 00:53:30 GMT"), 1796000000.0 - 10) is not None
    assert retry_after(Reply(429, "Thu, 01 Jan 1970 00:00:00 GMT"), now) == 0


async def test_one_that_is_gone_is_left_alone_until_its_entry_changes(tmp_path: Path) -> None:
    async with receiver(lambda before: web.Response(status=200 if before else 410)) as got:
        write_config(tmp_path, entry(got.url, topics=["a:*"]))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 1})
            await until(lambda: hub.counted("hub_webhook_deliveries_total", "gone"))
            await hub.hub.publish("a:x", {"n": 2})
            assert await status(hub) == {"ci": "off"}
            await hub.hub.reload()
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 3})
            assert await status(hub) == {"ci": "off"}
            assert len(got.got) == 1
            write_config(tmp_path, entry(got.url, topics=["a:*"], timeout=9))
            await hub.hub.reload()
            await until(lambda: len(got.taken) == 3)
            assert numbers(got) == [1, 2, 3]
            assert await status(hub) == {"ci": "on"}


async def test_a_new_one_begins_at_now_and_one_that_was_removed_ends(tmp_path: Path) -> None:
    async with receiver() as got:
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 0})
            write_config(tmp_path, entry(got.url, topics=["a:*"]))
            await hub.hub.reload()
            await hub.hub.publish("a:x", {"n": 1})
            await until(lambda: got.taken)
            write_config(tmp_path, "")
            await hub.hub.reload()
            assert await status(hub) == {"ci": "off"}
            await hub.hub.publish("a:x", {"n": 2})
            write_config(tmp_path, entry(got.url, topics=["a:*"]))
            await hub.hub.reload()
            await until(lambda: len(got.taken) == 2)  # its cursor was kept under its name
        assert numbers(got) == [1, 2]


async def test_what_is_not_kept_any_more_is_told_in_its_place(tmp_path: Path) -> None:
    """A gap is a body of its own, with an id that is the same at each try."""
    settings: dict[str, Any] = {"keep_events": 50, "window_events": 5}
    async with receiver(lambda before: web.Response(status=503 if before in (0, 1) else 200)) as got:
        write_config(tmp_path, entry(got.url, topics=["a:*"]))
        async with hub_app(tmp_path, **settings) as hub:
            first = hub.hub.cursor
        (tmp_path / "hub.toml").unlink()
        async with hub_app(tmp_path, **settings) as hub:
            await hub.publish(200)
            newest = hub.hub.cursor.seq
        write_config(tmp_path, entry(got.url, topics=["a:*"]))
        async with hub_app(tmp_path, **settings) as hub:
            await until(lambda: got.taken and got.got[-1].json["data"].get("n") == newest)
            gap, *others = got.got[2:]
            assert got.got[0].id == got.got[1].id == gap.id == f"gap-{gap.json['data']['before']}"
            assert gap.json["type"] == "hub:gap"
            after, before = (int(gap.json["data"][name].partition(":")[2]) for name in ("after", "before"))
            assert gap.json["data"]["after"].startswith(f"{first.epoch}:")
            assert (gap.json["data"]["reason"], gap.json["data"]["count"]) == ("expired", before - after - 1)
            assert newest - 50 <= before
            assert [one.json["data"]["n"] for one in others] == list(range(before, newest + 1))


async def test_another_store_is_told_as_a_gap(tmp_path: Path) -> None:
    async with receiver() as got:
        write_config(tmp_path, entry(got.url, topics=["a:*"]))
        for n in range(2):
            async with hub_app(tmp_path, ephemeral=True) as hub:
                await hub.hub.publish("a:x", {"n": n})
                await until(lambda n=n: len(got.got) == 1 + 2 * n)  # type: ignore[misc]
        first, gap, second = got.got
        assert gap.json["type"] == "hub:gap"
        assert gap.json["data"] == {
            "after": gap.json["data"]["after"], "before": gap.id.removeprefix("gap-"), "count": None, "reason": "epoch",
        }  # fmt: skip
        assert gap.json["data"]["after"].partition(":")[0] == first.id.partition(":")[0]
        assert (first.json["data"], second.json["data"]) == ({"n": 0}, {"n": 1})


async def lives(tmp_path: Path, got: Receiver, rounds: int, weakened: bool) -> int:
    """Publish through lives of a hub that are ended by kill -9; return how many events there were."""
    write_config(tmp_path / "state", entry(got.url, topics=["a:*"], secret_file="ci.secret"), ci=SECRET)
    (tmp_path / "forgetful.py").write_text("def setup(hub):\n    hub.outward._sent.save = lambda: None\n")
    flags, count = (("--load", "forgetful") if weakened else ()), 0
    for life in range(rounds):
        async with hub_process(tmp_path, *flags, status=-9) as hub:
            for _ in range(20):
                await publish(hub, count)
                count += 1
            if life == rounds - 1:
                await until(functools.partial(has_come, got, count - 1))
            hub.signal(signal.SIGKILL)
    return count


def has_come(got: Receiver, n: int) -> bool:
    return bool(got.taken) and got.got[-1].json["data"]["n"] == n


async def publish(hub: HubProcess, n: int) -> None:
    async with hub.http.post(f"{hub.url}api/events", json={"event": "a:x", "data": {"n": n}}) as response:
        assert response.status == 200


@pytest.mark.parametrize("weakened", [False, True])
async def test_across_kill_9_all_come_in_order_and_what_was_acknowledged_once_does_not_come_again(
    tmp_path: Path, weakened: bool
) -> None:
    """But for the one that was on its way at the kill: nobody knows whether that was acknowledged. It has its id."""
    async with receiver() as got:
        count = await lives(tmp_path, got, 4, weakened)
        repeated = len(got.taken) - len(set(got.taken))
        if weakened:
            assert repeated > 3 or numbers(got) != list(range(count))
            return
        assert numbers(got) == list(range(count))
        assert repeated <= 3  # one a kill
        for one in got.got:
            Standard(SECRET).verify(one.body.decode(), one.headers)


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_stop_waits_for_what_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr("hub.hub.ACKNOWLEDGED", 0.0)
    here, go = asyncio.Event(), asyncio.Event()

    class Slow(Receiver):
        async def take(self, request: web.Request) -> web.Response:
            self.got.append(Got(dict(request.headers), await request.read()))
            here.set()
            await go.wait()
            return web.Response()

    monkeypatch.setattr("receivers.Receiver", Slow)
    async with receiver() as got:
        write_config(tmp_path, entry(got.url))
        async with hub_app(tmp_path) as hub:
            await hub.hub.publish("a:x", {"n": 1})
            await here.wait()
            stopping = asyncio.create_task(hub.hub.stop())
            await asyncio.sleep(0.1)
            go.set()
            await stopping
        notes = Notes(tmp_path / "webhooks.json")
        notes.read()
        assert (notes.values["ci"]["cursor"] == str(hub.hub.cursor)) is not weakened


async def test_notes_that_make_no_sense_are_begun_anew_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("{", "[]", '{"ci": {"cursor": "nonsense"}}', '{"ci": 1}'):
        write_config(tmp_path, entry("http://127.0.0.1:9/"))
        path = tmp_path / "webhooks.json"
        path.write_text(text)
        path.chmod(0o600)
        async with hub_app(tmp_path) as hub:
            assert await status(hub) == {"ci": "on"} or await status(hub) == {"ci": "failing"}
    assert "cannot be read, and is begun anew" in caplog.text


async def test_one_that_was_taken_out_while_no_hub_ran_is_off(tmp_path: Path) -> None:
    async with receiver() as good:
        write_config(tmp_path, entry(good.url))
        async with hub_app(tmp_path) as hub:
            await until(lambda: hub.hub.state.get("hub:webhook", "ci"))
            await hub.hub.outward._tell("others", {"name": "others", "status": "on", "reason": ""})
        write_config(tmp_path, "")
        async with hub_app(tmp_path) as hub:
            assert await status(hub) == {"ci": "off", "others": "on"}, "what is another hub's is left to it"


async def test_nobody_waits_for_a_receiver(tmp_path: Path) -> None:
    """One that never answers costs publishers nothing, and the others their turn neither."""

    class Silent(Receiver):
        async def take(self, request: web.Request) -> web.Response:
            await asyncio.sleep(3600)
            raise AssertionError

    async with receiver() as good:
        app = web.Application()
        app.router.add_post("/in", Silent("", lambda n: web.Response()).take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        silent = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
        write_config(tmp_path, entry(silent, "silent", timeout=30) + entry(good.url, "good", topics=["a:*"]))
        async with hub_app(tmp_path) as hub:
            for n in range(50):
                await hub.hub.publish("a:x", {"n": n})
            await until(lambda: len(good.taken) == 50)
            assert numbers(good) == list(range(50))
            assert hub.hub.outward.webhooks.lag >= 50
        await runner.cleanup()
