"""A second hub: whoever starts one is told where the first is."""

import socket
from pathlib import Path

import pytest
from running import hub_process, run_hub


async def test_a_second_hub_says_where_mine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_process(tmp_path) as hub:
        mine = (
            f"hub: Your hub runs already, at {hub.url} (process {hub.process.pid}): open that, "
            "or give a second one a folder and a port of its own (--state-dir DIR --port N).\n"
        )
        for more in (("--port", str(hub.port)), ("--port", "0"), ("--port", "0", "--demo")):
            assert await run_hub(tmp_path, *more, "--state-dir", "state") == (2, "", mine)
        monkeypatch.setenv("HUB_STATE_DIR", str(hub.state_dir))
        elsewhere = await run_hub(tmp_path, "--port", str(hub.port), "--state-dir", "other")
        said = f"Your hub listens on port {hub.port}, at {hub.url} (process {hub.process.pid}): choose another --port."
        assert elsewhere == (2, "", f"hub: {said}\n")


async def test_what_is_not_mine_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where my hub listens on another port, and where there is no home in which it could be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with hub_process(tmp_path) as hub:
            monkeypatch.setenv("HUB_STATE_DIR", str(hub.state_dir))
            _, _, err = await run_hub(tmp_path, "--port", port, "--state-dir", "other")
            assert f"port {port}: another program listens there" in err
        _, _, err = await run_hub(tmp_path, "--port", port, "--state-dir", "other")
        assert f"port {port}: another program listens there" in err
