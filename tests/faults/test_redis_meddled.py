"""Somebody meddles in the keys of the hubs at random: `meddling.py`, for a moment."""

from pathlib import Path

import pytest
from engines import engine, redis_program, valkey_program, weakened_library
from meddling import Complaint, meddling

from hub.stream.brokers import link

pytestmark = pytest.mark.once


@pytest.mark.parametrize("program", [redis_program, valkey_program], ids=["redis", "valkey"])
async def test_nobody_misses_what_nobody_has_told(program: object, tmp_path: Path) -> None:
    assert callable(program)
    with engine(program()) as server:
        assert (await meddling(server, tmp_path, 120, 7))["published"] > 40


async def test_weakened_a_number_would_mean_two_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody compares what he has seen."""
    off = "local function judge(keys, found, run, mine, args, at)\n"
    weak = weakened_library(tmp_path, off, f"{off}    do return found.seq, found.run ~= run end\n")
    monkeypatch.setattr(link, "resources", weak)
    with pytest.raises((Complaint, TimeoutError)):
        await some(tmp_path)


async def some(folder: Path) -> None:
    with engine(redis_program()) as server:
        for seed in range(5):
            await meddling(server, folder / f"{seed}", 120, seed)
