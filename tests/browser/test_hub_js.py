"""hub.js in a real browser: nothing is missing without a gap, and nothing comes twice, whatever happens on the way."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from browser.cdp import Page
from browser.hubs import HubProcess, StartHub, Wire, hub_inside, publish
from browser.test_page_safety import rewrite

from hub import Call, CommandError, Hub
from hub.stats import snapshot

LOST = ("WebSocket", "Failed to load resource")  # what Chromium itself logs
# A client on a page that has no script of its own; what it gets is put aside as names and numbers.
CLIENT = """
    (async () => {
      const module = await import(new URL("/static/hub.js", location));
      Object.assign(window, module, { seen: [], states: [], failed: null });
      window.hub = new HubClient(undefined, { heartbeat: 1, onstate: (state) => states.push(state), ...%s });
      window.follow = async () => {
        try {
          for await (const item of hub) seen.push(item instanceof Gap ? item : item.data.n);
          seen.push("end");
        } catch (error) {
          window.failed = error.code;
        }
      };
      if (%s) follow();
    })()
"""
# A handshake gets half a second; and the delays before another try are short.
HASTY = """
    const [wait, random] = [setTimeout, Math.random];
    window.setTimeout = (f, ms) => wait(f, ms > 9000 ? 500 : ms);
    Math.random = () => random() / 20;
"""
WAITS = "states.filter((state) => state === 'waiting').length"
LIVE = "states.at(-1) === 'live'"


async def client(page: Page, url: str, follow: bool = True, **options: Any) -> None:
    await page.open(f"{url}healthz")
    await page.evaluate(CLIENT % (json.dumps(options), json.dumps(follow)))
    await page.until(LIVE)
    page.forgive("favicon.ico")


async def seen(page: Page) -> Any:
    return await page.evaluate("seen")


def numbered(first: int, count: int, name: str = "a:x", pad: str = "") -> list[dict[str, Any]]:
    return [{"event": name, "data": {"n": n, "pad": pad}} for n in range(first, first + count)]


@pytest.fixture
async def wired(start_hub: StartHub, wire: Wire) -> tuple[HubProcess, str]:
    """A hub, and its address through the wire."""
    seen_as = f"127.0.0.1:{wire.port}"
    hub = await start_hub("--allow-host", seen_as, "--allow-origin", f"http://{seen_as}", "--rate", "0")
    wire.target = hub.port
    return hub, f"http://{seen_as}/"


@pytest.fixture
async def url(tmp_path: Path, page: Page) -> AsyncIterator[str]:
    hub = Hub(state_dir=tmp_path)
    cancelled: list[str] = []

    @hub.command("test:hang")
    async def hang(call: Call) -> None:
        """Say how far it is, and never end."""
        await call.progress({"percent": 50})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(call.id)

    @hub.command("test:cancelled", effect="read")
    async def count(call: Call) -> int:
        """Count those that were cancelled."""
        return len(cancelled)

    @hub.command("test:refuse")
    async def refuse(call: Call) -> None:
        """Refuse."""
        raise CommandError("There is nothing.", {"what": "nothing"})

    @hub.command("test:lose")
    async def lose(call: Call) -> None:
        """Say that another hub's client provides these by now."""
        call.hub.providers.lose(call.args["commands"])

    async with hub_inside(hub) as url:
        yield url
        await page.leave()


async def test_it_publishes_follows_calls_asks_and_serves(page: Page, url: str) -> None:
    await client(page, url, topics=["a:*"])
    kept = await page.evaluate("hub.publish('a:x', {n: 1}, {id: 'mine'})")
    await page.until("seen.length === 1")
    assert kept == {"id": "mine", "cursor": await page.evaluate("hub.cursor")}
    await page.evaluate("hub.publish('task:progress', {id: 'build', progress: 5}, {ttl: 60})")
    state = await page.evaluate("hub.state(['task:*'])")
    assert [item["data"]["progress"] for item in state["items"]] == [5]
    error = await page.evaluate("hub.call('test:refuse').catch(({code, message, details}) => [code, message, details])")
    assert error == ["command_failed", "There is nothing.", {"what": "nothing"}]
    await page.evaluate("""
        hub.provide("test:double", async ({ n }, call) => {
          call.progress({ percent: 50 });
          if (n === 0) throw new HubError({ error: "Nothing to double.", code: "command_failed", details: { n } });
          return 2 * n;
        }, { args: { type: "object", properties: { n: { type: "integer" } } }, effect: "read" })
    """)
    doubled = "hub.call('test:double', {n: 21}, {onprogress: ({percent}) => window.percent = percent})"
    assert await page.evaluate(doubled) == 42
    assert await page.evaluate("percent") == 50
    assert await page.evaluate("hub.call('test:double', {n: 0}).catch(({message}) => message)") == "Nothing to double."
    answered = """
        hub.ask("Go on?", ["yes", "no"], { timeout: 60 }).then(({ answer }) => (window.answer = answer));
        (async () => {
          let open = [];
          while (!open.length) open = await hub.call("hub:questions");
          return hub.call("hub:answer", { question: open[0].id, answer: "yes" });
        })()
    """
    assert await page.evaluate(answered) == {"accepted": True}
    await page.until("window.answer === 'yes'")
    assert await seen(page) == [1]
    await page.evaluate("hub.close()")
    await page.until("seen.at(-1) === 'end'")
    assert await page.evaluate("hub.call('hub:ping').catch(({code}) => code)") == "lost"


async def test_a_command_that_another_has_taken_is_taken_back(page: Page, url: str) -> None:
    await client(page, url, follow=False)
    await page.evaluate("""
        window.lost = [];
        hub.provide("test:double", ({ n }) => 2 * n, { onlost: ({ code }) => lost.push(code), effect: "read" })
    """)
    assert await page.evaluate("hub.call('test:double', {n: 2})") == 4
    await page.evaluate("hub.call('test:lose', {commands: ['test:double', 'test:other']})")
    await page.until("lost.length === 1")
    assert await page.evaluate("lost") == ["already_provided"]
    while (answer := await page.evaluate("hub.call('test:double', {n: 3}).catch(({ code }) => code)")) != 6:
        assert answer == "unknown_command"


async def test_a_call_that_is_aborted_is_cancelled_in_the_hub(page: Page, url: str) -> None:
    await client(page, url)
    hung = """
        const stop = new AbortController();
        hub.call("test:hang", {}, { signal: stop.signal, onprogress: () => stop.abort("enough") }).catch((why) => why)
    """
    assert await page.evaluate(hung) == "enough"
    while await page.evaluate("hub.call('test:cancelled')") != 1:
        pass
    aborted = "hub.call('test:hang', {}, { signal: AbortSignal.abort('never') }).catch((why) => why)"
    assert await page.evaluate(aborted) == "never"


async def test_what_cannot_be_sent_is_refused_before_and_harms_no_other(page: Page, url: str) -> None:
    await client(page, url)
    refused = """
        Promise.all([
          "x".repeat(70000), "ä".repeat(33000), "\\ud800", { "\\udc00": 1 }, 123456789012345680000,
          JSON.parse("[".repeat(33) + "]".repeat(33)),
        ].map((data) => hub.publish("a:x", data).catch(({ code }) => code)))
    """
    codes = ["too_large", "too_large", "invalid_message", "invalid_message", "invalid_message", "invalid_message"]
    assert await page.evaluate(refused) == codes
    assert await page.evaluate("hub.call('hub:ping')") == {"pong": True, "args": {}}
    assert await page.evaluate("states") == ["connecting", "live"]


async def test_many_calls_at_once_wait_for_the_hub(page: Page, tmp_path: Path) -> None:
    """More than it takes at once, and faster than it takes them."""
    hub = Hub(state_dir=tmp_path, rate=200)
    async with hub_inside(hub) as url:
        await client(page, url)
        code = "Promise.all(Array.from({length: 900}, (_, n) => hub.publish('a:x', {n}))).then((all) => all.length)"
        assert await page.evaluate(code) == 900
        assert hub.cursor.seq == 900
        assert await page.evaluate("states") == ["connecting", "live"]
        assert snapshot(hub.metrics.registry)["hub_rate_limited_total"] > 0
        code = "Promise.allSettled(Array.from({length: 1300}, (_, n) => hub.publish('a:x', {n})))"
        code += ".then((all) => all.filter(({reason}) => reason?.code === 'busy').length)"
        assert 0 < await page.evaluate(code) < 300
        await page.leave()


async def test_who_does_not_follow_is_not_sent_more_and_misses_nothing(page: Page, tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path)
    async with hub_inside(hub) as url:
        await client(page, url, follow=False, topics=["a:*"])
        for first in range(0, 400, 100):
            await publish(url, numbered(first, 100, pad="x" * 9000))
        (listed,) = hub.clients
        async with asyncio.timeout(10):
            while listed.subscriber and listed.subscriber.patterns.match("a:x"):
                await asyncio.sleep(0.01)
        await page.evaluate("void follow()")
        await page.until("seen.length >= 400")
        assert await seen(page) == [*range(400)]
        await publish(url, numbered(400, 1))
        await page.until("seen.at(-1) === 400")
        await page.leave()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_after_a_restart_nothing_is_missing_and_nothing_is_twice(
    hub: HubProcess, page: Page, how: signal.Signals
) -> None:
    await client(page, hub.url, topics=["a:*"])
    await page.evaluate("hub.provide('test:echo', (args) => args)")
    await publish(hub.url, numbered(0, 3))
    await page.until("seen.length === 3")
    await page.evaluate("window.kept = []")
    hub.signal(how)
    await page.evaluate("for (let n = 3; n < 6; n++) hub.publish('a:x', {n}).then(() => kept.push(n)); void 0")
    await page.until("states.at(-1) === 'waiting'")
    await hub.forget()
    await hub.start()
    await page.until("kept.length === 3")
    await publish(hub.url, numbered(6, 1))
    await page.until("seen.length === 7")
    assert await seen(page) == [*range(7)]
    await page.until("hub.call('test:echo', { n: 7 }).then(({ n }) => (window.echoed = n), () => {}) && window.echoed")
    page.forgive(*LOST)


async def test_what_is_not_kept_any_more_is_a_gap(page: Page, tmp_path: Path, wire: Wire) -> None:
    seen_as = f"127.0.0.1:{wire.port}"
    hub = Hub(
        state_dir=tmp_path, ephemeral=True, window_events=5, allow_host=(seen_as,), allow_origin=(f"http://{seen_as}",)
    )
    async with hub_inside(hub) as url:
        wire.target = int(url.rstrip("/").rpartition(":")[2])
        await client(page, f"http://{seen_as}/", topics=["a:*"])
        await publish(url, numbered(0, 1))
        await page.until("seen.length === 1")
        wire.cut()
        await page.until("states.at(-1) === 'waiting'")
        await publish(url, numbered(1, 10))
        wire.mend()
        await page.until("seen.at(-1) === 10")
        zero, gap, *rest = await seen(page)
        assert (zero, gap["count"], gap["reason"], rest) == (0, 5, "expired", [6, 7, 8, 9, 10])
        assert await page.evaluate("seen[1] instanceof Gap")
        await page.evaluate("hub.close()")
        wire.cut()
    page.forgive(*LOST)


async def test_a_cursor_that_the_hub_does_not_know_is_said(page: Page, url: str) -> None:
    await page.open(f"{url}healthz")
    await page.evaluate(CLIENT % (json.dumps({"topics": ["a:*"], "after": "nonsense"}), "true"))
    await page.until("failed === 'unknown_cursor'")
    page.forgive("favicon.ico")
    assert await page.evaluate("states") == ["connecting", "closed"]


async def test_a_connection_that_goes_nowhere_is_left(wired: tuple[HubProcess, str], wire: Wire, page: Page) -> None:
    """Half-open: nothing says so, nothing comes."""
    hub, url = wired
    await client(page, url, topics=["a:*"])
    await publish(hub.url, numbered(0, 1))
    await page.until("seen.length === 1")
    wire.freeze()
    await publish(hub.url, numbered(1, 1))
    await page.until("states.includes('waiting')")
    wire.thaw()
    await page.until("seen.length === 2")
    assert await seen(page) == [0, 1]
    page.forgive(*LOST)


async def test_a_handshake_that_is_not_answered_is_given_up(
    wired: tuple[HubProcess, str], wire: Wire, page: Page
) -> None:
    await page.before_scripts(HASTY)
    _, url = wired
    await client(page, url, topics=["a:*"])
    wire.cut()
    await page.until("states.at(-1) === 'waiting'")
    wire.freeze()
    wire.mend()
    await page.until(f"{WAITS} > 2")
    wire.thaw()
    await page.until(LIVE)
    page.forgive(*LOST)


async def test_who_is_online_again_does_not_wait(wired: tuple[HubProcess, str], wire: Wire, page: Page) -> None:
    await page.before_scripts("window.later = []; Math.random = () => 0.999")
    _, url = wired
    await client(page, url, topics=["a:*"])
    await page.evaluate("const real = setTimeout; window.setTimeout = (f, ms) => { later.push(f); return 0; }; void 0")
    wire.cut()
    await page.until("states.at(-1) === 'waiting'")  # and its timer never fires
    wire.mend()
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.until(LIVE)
    await page.evaluate("later.forEach((f) => f())")  # now they do: no second connection
    assert len(page.sockets) == 2
    page.forgive(*LOST)


WEAKNESSES = {
    "position": ("    this.#position = cursor;\n", ""),
    "again": ("ttl }, { signal, again: true }", "ttl }, { signal }"),
}


@pytest.mark.parametrize("weakened", [None, *WEAKNESSES])
async def test_what_came_and_what_was_sent_while_it_was_away(
    page: Page, tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch, weakened: str | None
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/hub.js", *WEAKNESSES[weakened])
    seen_as = f"127.0.0.1:{wire.port}"
    hub = Hub(state_dir=tmp_path / "state", allow_host=(seen_as,), allow_origin=(f"http://{seen_as}",))
    async with hub_inside(hub) as url:
        wire.target = int(url.rstrip("/").rpartition(":")[2])
        await client(page, f"http://{seen_as}/", topics=["a:*"])
        await publish(url, numbered(0, 1))
        await page.until("seen.length === 1")
        wire.freeze()
        await page.evaluate("window.kept = 0; hub.publish('a:x', {n: 1}).then(() => kept++, () => kept--); void 0")
        wire.cut()
        wire.thaw()
        await publish(url, numbered(2, 1))
        wire.mend()
        await page.until("states.filter((state) => state === 'live').length === 2 && kept")
        await publish(url, numbered(3, 1))
        await page.until("seen.at(-1) === 3")
        whole = await seen(page) == [0, 2, 1, 3]
        assert (whole, await page.evaluate("kept")) == {
            None: (True, 1), "position": (False, 1), "again": (False, -1)
        }[weakened]  # fmt: skip
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_to_the_connection(
    wired: tuple[HubProcess, str], wire: Wire, page: Page, seed: int
) -> None:
    """Cuts, silences, restarts and kills, while both sides publish: each number comes once, in the order of the hub."""
    hub, url = wired
    chance = random.Random(seed)
    await page.before_scripts(HASTY)
    await client(page, url, topics=["a:*"])
    await page.evaluate("window.kept = 0; window.sent = 0; void 0")
    for step in range(12):
        await page.evaluate("""
            for (let n = 0; n < 5; n++) hub.publish("a:x", { n: ++sent }, { id: `n${sent}` }).then(() => kept++);
            void 0
        """)
        match chance.choice(["cut", "freeze", "restart", "kill", "none", "none"]):
            case "cut":
                wire.cut()
                wire.mend()
            case "freeze":
                before = await page.evaluate(WAITS)
                wire.freeze()
                await page.until(f"{WAITS} > {before}")
                wire.thaw()
            case "restart" | "kill" as how:
                hub.signal(signal.SIGTERM if how == "restart" else signal.SIGKILL)
                await hub.forget()
                await hub.start()
                wire.target = hub.port
        if chance.random() < 0.5:
            await page.until(LIVE)
        await publish(hub.url, [{"event": "a:y", "data": {"n": -step - 1}}])
    await page.until("kept === sent && seen.length >= sent + 12")
    found = await seen(page)
    assert sorted(found) == sorted([*range(1, 61), *range(-12, 0)])
    kept = await page.evaluate("hub.call('hub:history', { topics: ['a:*'], limit: 1000 })")
    assert found == [event["payload"]["data"]["n"] for event in kept["events"]]
    page.forgive(*LOST)


async def test_a_hub_that_lets_it_in_no_more_is_asked_why_and_is_the_end(
    page: Page, wired: tuple[HubProcess, str]
) -> None:
    hub, url = wired
    await client(page, url, topics=["a:*"])
    await hub.stop()
    await page.until("states.at(-1) === 'waiting'")
    hub._flags = ("--rate", "0")  # it does not know that address any more
    await hub.start()
    await page.until("states.at(-1) === 'closed'")
    assert await page.evaluate("failed") == "forbidden"
    told = await page.evaluate("hub.call('hub:ping').catch(({message}) => message)")
    assert "--allow-host" in told
    page.forgive(*LOST)
