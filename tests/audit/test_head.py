"""audit.head is overwritten in place: whoever reads it meanwhile must not take a part of two heads for one."""

import os
from pathlib import Path

import pytest
from logs import command

from hub.audit import files
from hub.audit.verdict import INTACT, TAMPERED
from hub.audit.verify import verify
from hub.audit.writer import LogFile


@pytest.mark.parametrize("weakened", [False, True])
def test_a_head_that_is_being_written_is_read_again(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path)
    heads = []
    for number in range(2):
        log.append([command(number)])
        heads.append((tmp_path / "audit.head").read_bytes())
    log.close()
    first, second = heads
    torn = [first[:40] + second[40:]] * (9 if weakened else 1)  # what a read beside a write was seen to return
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        mine = os.readlink(f"/proc/self/fd/{descriptor}").endswith("audit.head")
        return torn.pop() if mine and torn else real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    if weakened:
        monkeypatch.setattr(files, "_settled", lambda descriptor: os.pread(descriptor, 1024, 0))
    assert verify(tmp_path).status == (TAMPERED if weakened else INTACT)
