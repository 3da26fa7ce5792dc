"""kill -9 under load: a few rounds of `tests/killing.py`, and how it finds a hub out that answers too early."""

from pathlib import Path

import pytest
from killing import FLAGS, Round, _life, kill_once
from logs import everything

from hub.audit.verdict import INTACT, TORN

# A hub that answers before its log is written: what the audit log of this hub must never be.
EARLY = """
from hub.audit.log import AuditLog

def setup(hub):
    async def record(self, action, actor, trust, details):
        self.note(action, actor, trust, details)
    AuditLog.record = record
    import hub.audit.commits, time
    real = hub.audit.commits.Commits._commit
    def late(self, group):
        if group:
            time.sleep(0.5)
        real(self, group)
    hub.audit.commits.Commits._commit = late
"""


async def test_nothing_answered_is_missing_and_the_next_start_needs_no_help(tmp_path: Path) -> None:
    for number, answers in enumerate((3, 60, 200)):
        found = await kill_once(tmp_path, str(number), answers)
        assert len(found.answered) >= answers
        assert found.published
        assert found.missing == set()
        assert found.status in (INTACT, TORN)
        assert found.valid


async def test_weakened_a_hub_that_answers_too_early_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early.py").write_text(EARLY)
    monkeypatch.setattr("killing.FLAGS", (*FLAGS, "--load", "early"))
    found = Round()
    await _life(tmp_path, "w", 60, found)
    finished = {r["details"].get("id") for r in everything(tmp_path / "state") if r["action"] == "command.finished"}
    assert found.answered - finished


# A hub that answers before the event is committed.
HASTY = """
import asyncio
from hub.stream.brokers.sqlite import SqliteBroker

def setup(hub):
    real = SqliteBroker._write
    def write(self, drafts):
        if not hasattr(self, "_held"):
            self._database._sql.execute("BEGIN IMMEDIATE")  # never committed
            self._held = True
        return real(self, drafts)
    SqliteBroker._write = write
    from hub.stream.brokers.database import Database
    import contextlib
    Database._transaction = lambda self: contextlib.nullcontext()
"""


async def test_weakened_a_hub_that_commits_too_late_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hasty.py").write_text(HASTY)
    monkeypatch.setattr("killing.FLAGS", (*FLAGS, "--load", "hasty"))
    found = await kill_once(tmp_path, "w", 60)
    assert set(found.published) & found.missing
