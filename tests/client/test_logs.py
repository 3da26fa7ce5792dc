"""HubHandler: the log of a program as events. It holds the program up nowhere, and says what it could not keep."""

import asyncio
import logging
import logging.config
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, environment, hub_app, until
from scripted import Silent

from hub import HubHandler
from hub.client import connections, logs
from hub.redaction import redact_text


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, rate=0) as inside:
        yield inside


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """One of its own, whose handlers are closed in the end."""
    logger = logging.getLogger("program")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "hub-log"]


async def published(hub: HubInside) -> list[dict[str, Any]]:
    page = (await hub.get("api/events", topics="log:*", limit="1000")).json
    return [event["payload"]["data"] for event in page["events"]]


async def flush(handler: HubHandler) -> None:
    await asyncio.to_thread(handler.flush)


async def test_a_record_is_an_event(hub: HubInside, logger: logging.Logger) -> None:
    handler = HubHandler(logging.INFO, url=hub.url)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.debug("no")
    logger.warning("%s is full", "/dev/sda", extra={"password": "x"})
    try:
        raise ValueError("no such file")
    except ValueError:
        logger.exception("failed")
    await flush(handler)
    warning, failed = await published(hub)
    assert warning.pop("created").endswith("+00:00")
    assert warning.pop("file").endswith("test_logs.py")
    assert warning.pop("line") > 0
    assert warning == {
        "level": "WARNING", "logger": "program", "message": "/dev/sda is full", "process": os.getpid(),
        "thread": threading.current_thread().name,
    }  # fmt: skip
    assert (failed["level"], failed["message"]) == ("ERROR", "failed")
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: no such file")


async def test_all_of_them_come_in_their_order(hub: HubInside, logger: logging.Logger) -> None:
    handler = HubHandler(url=hub.url, event="program:log", kept=10_000)
    logger.addHandler(handler)
    for n in range(200):
        logger.warning("%d", n)
        if n % 50 == 0:
            await asyncio.sleep(0.01)
    await flush(handler)
    page = (await hub.get("api/events", topics="program:*", limit="1000")).json
    assert [event["payload"]["data"]["message"] for event in page["events"]] == [str(n) for n in range(200)]


async def test_what_is_too_much_is_counted_and_told(tmp_path: Path, logger: logging.Logger) -> None:
    """No hub is there: nobody waits for it. When there is one, the newest are published, and how many are not."""
    handler = HubHandler(state_dir=tmp_path, kept=3)
    logger.addHandler(handler)
    for n in range(10):
        logger.warning("%d", n)
    await until(lambda: handler._publisher._failures)
    handler.flush()  # waits for no more than one attempt
    assert handler.dropped == 7
    async with hub_app(tmp_path) as hub:
        (tmp_path / "server.json").write_text(f'{{"url": "{hub.url}", "pid": {os.getpid()}}}')
        found: list[dict[str, Any]] = []
        while len(found) < 3:
            await asyncio.sleep(0.05)
            found = await published(hub)
        assert [(event["message"], event.get("dropped")) for event in found] == [("7", 7), ("8", None), ("9", None)]
        await asyncio.to_thread(handler.close)


@pytest.mark.parametrize("message", ["x" * 200_000, "\x00" * 200_000, "\udcff", "%d"], ids=["long", "0", "half", "%d"])
async def test_anything_may_be_logged(hub: HubInside, message: str) -> None:
    handler = HubHandler(url=hub.url)
    for text in (message, "behind"):  # by no logger: it would be in the report of this test, too
        handler.handle(logging.makeLogRecord({"msg": text}))
    await asyncio.to_thread(handler.close)
    before, behind = await published(hub)
    assert (len(before["message"]) < 5000, behind["message"]) == (True, "behind")


async def test_what_the_hub_never_takes_is_counted_and_told(hub: HubInside, logger: logging.Logger) -> None:
    handler = HubHandler(url=hub.url)
    logger.addHandler(handler)
    for name in ("good", "x" * 100_000, "good"):
        logger.name = name
        logger.warning("here")
    logger.name = "program"
    await flush(handler)
    assert [(event["logger"], event.get("dropped")) for event in await published(hub)] == [("good", None), ("good", 1)]
    assert handler.dropped == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_its_own_thread_logs_is_not_published(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each event would be the reason for the next: the client's, aiohttp's and asyncio's records included."""
    if weakened:
        monkeypatch.setattr(logs._Publisher, "is_own_thread", lambda self: False)
    publish = logs._Publisher._next

    async def chatty(self: logs._Publisher) -> Any:
        logging.getLogger("aiohttp.client").error("sent")
        return await publish(self)

    monkeypatch.setattr(logs._Publisher, "_next", chatty)
    handler, root = HubHandler(url=hub.url), logging.getLogger()
    root.addHandler(handler)
    try:
        logging.getLogger("another").error("one")
        await until(lambda: not handler._publisher._is_busy() or weakened)
        await hub.get("healthz")
        found = [event["message"] for event in await published(hub)]
        while weakened and found.count("sent") < 3:
            await asyncio.sleep(0.01)
            found = [event["message"] for event in await published(hub)]
        assert weakened or found == ["one"]
    finally:
        root.removeHandler(handler)
        await asyncio.to_thread(handler.close)


async def test_a_hub_that_does_not_answer_holds_nobody_up(
    silent: Silent, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.05)
    handler = HubHandler(url=silent.url)
    logger.addHandler(handler)
    logger.warning("here")
    await until(lambda: silent.connections)
    handler.flush()
    assert handler._publisher._is_busy()
    handler.close()
    assert handler.dropped == 1
    logger.warning("behind")  # nobody has it
    assert handler.dropped == 2


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_that_is_back_gets_the_last_words(
    tmp_path: Path, logger: logging.Logger, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends behind a restart of its hub waits for no delay of a minute before the log looks again."""
    monkeypatch.setattr(connections.Backoff, "next", lambda self: 60.0)
    if weakened:
        monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.2)
        monkeypatch.setattr(logs._Publisher, "_hurry", property(lambda self: None, lambda self, value: None), False)
    handler = HubHandler(state_dir=tmp_path)
    logger.addHandler(handler)
    logger.warning("here")
    await until(lambda: handler._publisher._failures)
    async with hub_app(tmp_path) as hub:
        (tmp_path / "server.json").write_text(f'{{"url": "{hub.url}", "pid": {os.getpid()}}}')
        await asyncio.to_thread(handler.close)
        assert [event["message"] for event in await published(hub)] == ([] if weakened else ["here"])
    assert handler.dropped == weakened


async def test_a_wrong_address_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        HubHandler(url="ftp://x")


async def test_it_is_configured_as_others_are(hub: HubInside) -> None:
    handlers = {"hub": {"class": "hub.HubHandler", "url": hub.url}}
    loggers = {"configured": {"handlers": ["hub"]}}
    logging.config.dictConfig({"version": 1, "incremental": False, "disable_existing_loggers": False,
                               "handlers": handlers, "loggers": loggers})  # fmt: skip
    logger = logging.getLogger("configured")
    (handler,) = logger.handlers
    assert isinstance(handler, HubHandler)
    logger.error("here")
    await flush(handler)
    logger.removeHandler(handler)
    await asyncio.to_thread(handler.close)
    assert [event["message"] for event in await published(hub)] == ["here"]


ENDS = """
import logging, os, sys, warnings
from hub import HubHandler

warnings.simplefilter("ignore", DeprecationWarning)
logging.getLogger().addHandler(HubHandler(url=sys.argv[1]))
logging.error("first")
if sys.argv[2:] and not os.fork():
    logging.error("child")
    logging.shutdown()
    os._exit(0)
logging.error("last")
sys.argv[2:] and os.wait()
"""


@pytest.mark.parametrize("fork", [False, True])
async def test_the_end_of_a_program_waits_for_its_last_words(hub: HubInside, fork: bool) -> None:
    words = [sys.executable, "-c", ENDS, hub.url, *(["fork"] if fork else [])]
    process = await asyncio.create_subprocess_exec(*words, env=environment(), stderr=subprocess.PIPE)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    found = [event["message"] for event in await published(hub)]
    assert sorted(found) == (["child", "first", "last"] if fork else ["first", "last"])


async def test_without_a_hub_a_program_ends_as_it_would(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDS, "http://127.0.0.1:1"]
    process = await asyncio.create_subprocess_exec(*words, env=environment(), stderr=subprocess.PIPE)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("weakened", [False, True])
def test_of_a_secret_in_a_long_record_no_half_is_left(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(logs, "redact_text", lambda text: text)
    text = f"{'a' * 1980} postgres://u:hunter2@h/db {'b' * 5000} postgres://u:hunter3@h/db {'c' * 1989}"
    found = redact_text(logs._short(text))
    assert ("hunt" in found, "er3" in found) == (weakened, weakened)
