"""Kill a hub under load, again and again, and look whether anything that it had answered is missing.

`python tests/killing.py --rounds 300`; the suite runs a few rounds of the same.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError
from logs import everything
from running import JSON, HubProcess, Talk, hub_process, talk

from hub.audit.verdict import INTACT, TORN
from hub.audit.verify import verify

CLIENTS = 8
FLAGS = ("--rate", "0", "--audit-file-bytes", "60000", "--audit-keep-files", "40")  # files are closed under load, too


@dataclass
class Round:
    """What one life of a hub has answered, and how long the next start took."""

    answered: set[str] = field(default_factory=set)  # calls, by id
    published: dict[str, str] = field(default_factory=dict)  # cursor to id
    missing: set[str] = field(default_factory=set)  # of both
    status: int = INTACT  # of verify, of what the killed hub has left
    start: float = 0.0  # seconds until the next hub listened, interpreter included
    valid: bool = False  # what the next hub says of its chain


async def _calls(client: Talk, name: str, answered: set[str]) -> None:
    with contextlib.suppress(ConnectionError, AssertionError):  # it is killed under this
        for number in range(10**6):
            id = f"{name}-{number}"
            if (await client.answer(await client.begin("hub:ping", id)))["type"] == "response":
                answered.add(id)


async def _publishes(hub: HubProcess, many: int, published: dict[str, str]) -> None:
    """Publish so many at a time; an answer names the last one's cursor."""
    body = "[" + ",".join(['{"event":"a:x","data":1}'] * many) + "]"
    with contextlib.suppress(ClientError, ConnectionError):
        while True:
            async with hub.http.post(hub.url + "api/events", data=body, headers=JSON) as response:
                answer = await response.json()
            epoch, _, last = answer["cursor"].rpartition(":")
            for number, id in zip(range(int(last) - many + 1, int(last) + 1), answer["ids"], strict=True):
                cursor = f"{epoch}:{number}"
                assert published.setdefault(cursor, id) == id, f"{cursor} was given twice"


async def _kept(hub: HubProcess, cursors: set[str]) -> dict[str, str]:
    """What the hub has of the events from the first of these cursors on."""
    if not cursors:
        return {}
    kept: dict[str, str] = {}
    epoch, _, first = min(cursors, key=lambda cursor: int(cursor.rpartition(":")[2])).rpartition(":")
    query, more = {"after": f"{epoch}:{int(first) - 1}", "limit": "1000"}, True
    while more:
        async with hub.http.get(hub.url + "api/events", params=query) as response:
            page = await response.json()
        kept.update({event["cursor"]: event["id"] for event in page["events"]})
        query["after"], more = page["cursor"], page["more"]
    return kept


async def _life(folder: Path, name: str, answers: int, found: Round) -> None:
    """A hub with clients that call without a pause, killed when it has given so many answers, and kept an event."""
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(hub_process(folder, *FLAGS, status=-signal.SIGKILL))
        clients = [await stack.enter_async_context(talk(hub.url, "?topics=hub:none")) for _ in range(CLIENTS)]
        tasks = [asyncio.create_task(_calls(c, f"{name}-{n}", found.answered)) for n, c in enumerate(clients)]
        tasks += [asyncio.create_task(_publishes(hub, many, found.published)) for many in (1, 1, 20)]
        while len(found.answered) < answers or not found.published:
            await asyncio.sleep(0)
        hub.signal(signal.SIGKILL)
        await asyncio.gather(*tasks)


async def kill_once(folder: Path, name: str, answers: int) -> Round:
    """One round; the state directory in `folder` goes on to the next."""
    found = Round()
    await _life(folder, name, answers, found)
    found.status = verify(folder / "state").status
    finished = {r["details"].get("id") for r in everything(folder / "state") if r["action"] == "command.finished"}
    found.missing = found.answered - finished
    began = time.monotonic()
    async with hub_process(folder, *FLAGS) as hub, talk(hub.url) as client:
        found.start = time.monotonic() - began
        found.valid = (await client.call("audit:verify"))["valid"]
        kept = await _kept(hub, set(found.published))
    found.missing |= {cursor for cursor, id in found.published.items() if kept.get(cursor) != id}
    return found


async def main(rounds: int, seed: int) -> int:
    """Print what was found; 1 if anything is missing or wrong."""
    rng, bad, slowest, answered, published = random.Random(seed), 0, 0.0, 0, 0
    for first in range(0, rounds, 25):  # a new state directory now and then, so that a round stays short
        with tempfile.TemporaryDirectory() as folder:
            for number in range(first, min(rounds, first + 25)):
                found = await kill_once(Path(folder), str(number), rng.randrange(1, 400))
                wrong = found.missing or found.status not in (INTACT, TORN) or not found.valid
                bad, slowest = bad + bool(wrong), max(slowest, found.start)
                answered, published = answered + len(found.answered), published + len(found.published)
                if wrong:
                    print(f"round {number}: {found}")
    print(
        f"{rounds} rounds (seed {seed}), {answered} calls and {published} events answered, "
        f"{bad} rounds with a fault, slowest start {slowest:.2f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    raise SystemExit(asyncio.run(main(args.rounds, args.seed)))
