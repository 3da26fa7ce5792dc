"""An audit log that is running, and one that does not wait for a second try."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from logs import Disk

from hub.audit import commits, files
from hub.audit.log import AuditLog


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY", 0.01)
    monkeypatch.setattr(files, "PATIENCE", 0)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[AuditLog]:
    log = AuditLog(tmp_path)
    await log.start()
    yield log
    await log.stop()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)
