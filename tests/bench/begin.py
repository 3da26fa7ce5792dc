"""How long `hub publish` and `hub hook` take, beside an interpreter that does nothing: python tests/bench/begin.py

What agents and scripts start again and again is to take 80 ms at most, where the bare interpreter takes 20. They take
turns; printed are the medians of the time on the wall and of the CPU. Each is compiled before, as an installation is.
"""

import argparse
import asyncio
import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from running import environment, hub_process

import hub as package

HUB = [sys.executable, "-m", "hub"]
HOOK = '{"hook_event_name": "UserPromptSubmit", "session_id": "s", "prompt": "go on"}'
COMMANDS = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "hub publish a:b n=1": [*HUB, "publish", "a:b", "n=1"],
    "hub hook claude-code": [*HUB, "hook", "claude-code", HOOK],
}


def took(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds on the wall and of the CPU."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def main(rounds: int) -> None:
    assert package.__file__
    compileall.compile_dir(Path(package.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as name:
        async with hub_process(Path(name), "--rate", "0") as hub:
            env = {**environment(), "HUB_STATE_DIR": str(hub.state_dir)}
            found: dict[str, list[tuple[float, float]]] = {what: [] for what in COMMANDS}
            for _ in range(rounds):
                for what, command in COMMANDS.items():
                    found[what].append(await asyncio.to_thread(took, command, env))
    bare = 0.0
    for what, values in found.items():
        wall, cpu = (statistics.median(column) * 1000 for column in zip(*values, strict=True))
        bare = bare or cpu
        print(
            f"{what:<22} {wall:5.0f} ms, least {min(values)[0] * 1000:4.0f}; CPU {cpu:4.0f} ms, {cpu / bare:.1f} × bare"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    asyncio.run(main(parser.parse_args().rounds))
