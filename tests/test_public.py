"""The public names: each is there, each is what its users meet, and mypy knows what it is."""

import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type

import pytest
from aiohttp import web
from running import hub_app

import hub
from hub import (
    Call,
    CommandError,
    Config,
    Disconnected,
    Event,
    Gap,
    Hub,
    HubClient,
    HubError,
    NoHub,
    Panel,
    Received,
    create_app,
)

NAMES = (
    "Call CommandError Config Disconnected Event Gap Hub HubClient HubError HubHandler NoHub Panel Received ServedCall "
    "SyncHubClient create_app"
)


def a_program(state_dir: Path) -> Hub:
    """Everything that an application builds; mypy reads it, and the tests run it."""
    made = Hub(Config(port=0, state_dir=state_dir))

    @made.command("a:b", effect="read")
    async def command(call: Call) -> dict[str, Any]:
        """Refuse, or give back what came."""
        assert_type(call.hub, Hub)
        if call.args.get("refuse"):
            raise CommandError("No.")
        return call.args

    @made.on("a:*")
    async def listener(event: Event) -> None:
        assert_type(event.name, str)

    made.panels.append(Panel("own", "Own", ("a:*",), lambda hub: {}))
    assert_type(create_app(made), web.Application)
    return made


async def a_client(url: str) -> list[Received | Gap]:
    """Everything that a client meets."""
    found: list[Received | Gap] = []
    async with HubClient(url, topics=["a:*"]) as client:
        assert await client.call("a:b", {"x": 1}) == {"x": 1}
        with pytest.raises(HubError) as refused:
            await client.call("a:b", {"refuse": True})
        assert_type(refused.value.retryable, bool)
        assert refused.value.code == "command_failed"
        await client.publish("a:x", 7)
        async for item in client:
            assert_type(item, Received | Gap)
            if isinstance(item, Received):
                assert_type(item.data, Any)
            else:
                assert_type(item, Gap)
            found.append(item)
            break
    return found


def test_these_are_the_names() -> None:
    assert sorted(hub.__all__) == sorted(NAMES.split())
    assert sorted(hub._ROOMS) == sorted(NAMES.split())


@pytest.mark.parametrize("name", NAMES.split())
def test_every_name_imports_alone(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"from hub import {name}; assert {name}.__name__ == {name!r}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        hub.Manager  # noqa: B018


async def test_what_a_client_gets_is_what_the_names_say(tmp_path: Path) -> None:
    def prepare(made: Hub) -> None:
        made.command("a:b")(echo)

    async with hub_app(tmp_path, prepare=prepare) as inside:
        (item,) = await a_client(inside.url)
    assert isinstance(item, Received)
    assert not isinstance(item, Event)  # that is what a listener in the hub's own process gets
    assert (item.name, item.data) == ("a:x", 7)


async def echo(call: Call) -> Any:
    """Refuse, or give back what came."""
    if call.args.get("refuse"):
        raise CommandError("No.")
    return call.args


async def test_a_program_of_the_public_names_runs(tmp_path: Path) -> None:
    made = a_program(tmp_path)
    await made.start()
    await made.publish("a:x", 1)
    await made.stop()


async def test_what_a_client_catches(tmp_path: Path) -> None:
    with pytest.raises(NoHub):
        async with HubClient(state_dir=str(tmp_path)):
            pass
    assert issubclass(Disconnected, HubError)
    assert issubclass(CommandError, HubError)
