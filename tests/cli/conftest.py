"""What several tests of the command line have."""

from collections.abc import Iterator

import pytest
from commandline import Outcome, Run, Running, as_stdin, started

from hub.cli.main import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line in this process, with `stdin` as its input."""

    def run(*words: str, stdin: bytes = b"") -> Outcome:
        with as_stdin(stdin):
            status = main(words)
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run


@pytest.fixture(scope="module")
def _module_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("hub"), "--port", "0") as running:
        yield running


@pytest.fixture
def hub(_module_hub: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A running hub that the command line finds."""
    monkeypatch.setenv("HUB_STATE_DIR", str(_module_hub.state))
    return _module_hub
