"""A Redis that cannot be asked, or takes nothing: each is refused by name, everybody stays connected, and it goes on by
itself."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine, Line, broker, engine, line, redis_program
from running import HubInside, hub_app, talk, until
from stores import Store, draft

from hub.errors import HubError, UsageError
from hub.stream.brokers.appends import Appends
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Away, Server

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server() -> Iterator[Engine]:
    """One that each test leaves as it was."""
    with engine(redis_program(), "--appendonly", "yes") as found:
        yield found


@pytest.fixture
async def way(server: Engine) -> AsyncIterator[Line]:
    async with line(server) as found:
        yield found


@pytest.fixture
async def hub(way: Line, tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "hub", broker=way.url(prefix=uuid4().hex)) as found:
        yield found


async def refused(hub: HubInside, words: str) -> None:
    """Publish until it is refused with these words, as everybody hears it."""
    while True:
        answer = await hub.post("api/events", {"event": "a:refused", "data": 1})
        if answer.status != 200:
            error = answer.refused(503, "broker_unavailable")
            assert error["retry_after"] == 1
            if words in error["error"]:
                return


async def names(hub: HubInside) -> list[str]:
    return [event.name for event in await hub.hub.broker.read(0, 1000)]


@asynccontextmanager
async def away(hub: HubInside) -> AsyncIterator[None]:
    """While publishing is refused; a client goes through it, and gets what is published behind it."""
    async with talk(hub.url) as client:
        await client.call("hub:ping")
        yield
        while (await hub.get("readyz")).status != 200:
            await asyncio.sleep(0.01)
        published = await hub.hub.publish("b:x", 1)
        while (frame := await client.event())["payload"]["event"] != "b:x":
            assert frame["payload"]["event"] == "a:refused"  # may have been kept all the same
        assert frame["cursor"] == str(published.cursor)


async def says(hub: HubInside, words: str) -> None:
    await refused(hub, words)
    ready = await hub.get("readyz")
    assert (ready.status, words in ready.text) == (503, True)


async def test_a_server_that_is_stopped(hub: HubInside, server: Engine) -> None:
    async with away(hub):
        server.send_signal(signal.SIGSTOP)
        try:
            await says(hub, "does not answer")
        finally:
            server.send_signal(signal.SIGCONT)


async def test_a_connection_that_is_cut(hub: HubInside, way: Line) -> None:
    for _ in range(3):
        async with away(hub):
            link = hub.hub.broker._link  # type: ignore[attr-defined]
            way.cut()
            await until(lambda: hub.hub.broker._link is not link)  # type: ignore[attr-defined]  # noqa: B023


async def test_a_black_hole(hub: HubInside, way: Line) -> None:
    async with away(hub):
        way.deaf = way.dumb = True
        await says(hub, "does not answer")
        way.deaf = way.dumb = False


async def test_a_slow_way_is_only_slow(hub: HubInside, way: Line) -> None:
    way.delay = 0.1
    await asyncio.gather(*(hub.hub.publish("a:x", n) for n in range(20)))
    assert hub.hub.broker.problem is None
    assert await names(hub) == ["a:x"] * 20


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "out of memory"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ],
)
async def test_a_server_that_takes_nothing(hub: HubInside, server: Engine, wrong: str, right: str, words: str) -> None:
    await hub.publish(3)
    async with away(hub):
        server.ask(*wrong.split())
        try:
            await says(hub, words)
            assert await hub.hub.broker.read(0, 10)  # what is there can be read
        finally:
            server.ask(*right.split())


async def test_a_full_disk(hub: HubInside, server: Engine) -> None:
    await hub.publish(3)
    async with away(hub):
        server.limit_files(server.file.stat().st_size)
        await says(hub, "make room")
        server.limit_files(-1)


async def test_a_hub_starts_on_a_server_that_takes_nothing(hub: HubInside, server: Engine, tmp_path: Path) -> None:
    await hub.publish(3)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        async with hub_app(tmp_path / "other", broker=hub.hub.config.broker) as other:
            assert other.hub.cursor == hub.hub.cursor
            await says(other, "out of memory")
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")


# ---- what may have been kept


async def keeps_twice(it: Store, way: Line) -> int:
    """How often an event without an id is kept whose answer is lost on its way."""
    way.deaf, heard = True, way.heard
    publishing = asyncio.create_task(it.put(draft("once")))
    await until(lambda: way.heard > heard)
    way.cut()
    way.deaf = False
    with pytest.raises(HubError, match="may have been kept"):
        await publishing
    await until(lambda: it.broker.problem is None and it.broker.head >= 1)
    await it.put(draft("behind"))
    return (await it.ids()).count("once")


async def test_what_may_have_been_kept_is_never_repeated(server: Engine, way: Line) -> None:
    it = Store(broker(server, prefix="p" + uuid4().hex))
    it.broker.server = Server(way.url(prefix=uuid4().hex))
    await it.open()
    assert await keeps_twice(it, way) == 1
    await it.broker.close()


async def test_weakened_it_would_be_kept_twice(server: Engine, way: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Appends._answered

    def again(self: Appends, group: Any, answer: Any, connection: Any) -> None:
        if isinstance(answer.exception(), Away) and not group[0].again:
            self._queue.append(type(group[0])([draft("once")], asyncio.get_running_loop().create_future()))
        answered(self, group, answer, connection)

    monkeypatch.setattr(Appends, "_answered", again)
    monkeypatch.setattr(Appends, "refuse", lambda self, error: None)
    it = Store(broker(server))
    it.broker.server = Server(way.url(prefix=uuid4().hex))
    await it.open()
    assert await keeps_twice(it, way) == 2
    await it.broker.close()


# ---- at the start


async def unable(server: Engine, **query: Any) -> str:
    with pytest.raises(UsageError) as told:
        await broker(server, **query).open(Store(None).pump)
    return str(told.value)


async def test_a_server_that_does_not_let_the_hub_in(server: Engine) -> None:
    assert "does not let the hub in" in await unable(server, password="wrong", username="nobody")
    server.ask("ACL", "SETUSER", "reader", "on", ">pw", "+@read", "+@connection", "+info", "~*")
    try:
        sentence = await unable(server, password="pw", username="reader")
    finally:
        server.ask("ACL", "DELUSER", "reader")
    assert "NOPERM" in sentence
    assert "pw" not in sentence


def allowed(*but: str) -> list[str]:
    """What `hub print redis` allows the hub's user, without some of it."""
    text = resources.files("hub.printed").joinpath("redis.conf").read_text("utf-8")
    [words] = re.findall(r"^user hub on #@digest@ (.*)$", text, re.MULTILINE)
    return ["reset", "on", ">pw", *words.split(), *(f"-{word}" for word in but)]


async def test_a_user_that_may_do_what_a_hub_does(server: Engine) -> None:
    server.ask("ACL", "SETUSER", "hub", *allowed())
    it = Store(broker(server, username="hub", password="pw"))
    await it.open()
    assert await it.put(draft("a", given=True, key="k")) == [1]
    await it.broker.close()
    for word in ("xadd", "hdel", "zpopmin", "time"):
        server.ask("ACL", "SETUSER", "hub", *allowed(word))
        assert "ACL" in await unable(server, username="hub", password="pw")
    server.ask("ACL", "DELUSER", "hub")


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"/none cannot be reached: .*No such file"):
        await RedisBroker(Server(f"unix://{tmp_path}/none"), *broker_limits()).open(Store(None).pump)


def broker_limits() -> Any:
    from stores import PLENTY, STATE

    return PLENTY, STATE


async def test_a_server_that_loads_is_waited_for(server: Engine, tmp_path: Path) -> None:
    loading = [True, True, False]

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if loading.pop(0) if loading else False:
            await reader.read(1000)
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n" * 3)
            writer.close()
            return
        onward, back = await asyncio.open_unix_connection(str(server.path))
        for one, other in ((reader, back), (onward, writer)):
            tasks.append(asyncio.create_task(copy(one, other)))

    async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        while data := await one.read(65536):
            other.write(data)
        other.close()

    tasks = list[asyncio.Task[None]]()
    path = server.folder / "loading"
    async with await asyncio.start_unix_server(come, str(path)):
        it = Store(RedisBroker(Server(f"unix://{path}?prefix={uuid4().hex}"), *broker_limits()))
        await it.open()
        assert await it.put(draft("a")) == [1]
        await it.broker.close()
        await asyncio.wait(tasks)
