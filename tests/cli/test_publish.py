"""What `hub publish` sends: stdin in batches, over a connection that has its troubles."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from hub.cli import publish
from hub.cli.http import Connection
from hub.cli.publish import documents
from hub.client.discovery import Disconnected
from hub.errors import HubError, UsageError

# ---- what stdin looks like


def read(*chunks: bytes) -> Callable[[int], bytes]:
    """A stream that gives one chunk after the other, as a pipe does."""
    waiting = iter(chunks)
    return lambda size: next(waiting, b"")


@pytest.mark.parametrize(
    ("chunks", "batches"),
    [
        ([], []),
        ([b"\n \n"], []),
        ([b"1"], [[(1, "1")]]),
        ([b"1\n2\n", b"3\n"], [[(1, "1"), (2, "2")], [(3, "3")]]),  # sent as they come
        ([b'{"a"', b':1}\n"', b'x"\r\n'], [[(1, '{"a":1}')], [(2, '"x"\r')]]),
        ([b"\n1\n\n2"], [[(2, "1")], [(4, "2")]]),
        ([b'{\n"a":\n', b"1\n}\n"], [[(1, '{\n"a":\n1\n}\n')]]),  # one JSON over all lines
        ([b"[\n]"], [[(1, "[\n]")]]),
    ],
)
def test_stdin_is_one_json_or_one_a_line(chunks: list[bytes], batches: list[Any]) -> None:
    assert list(documents(read(*chunks))) == batches


def test_with_an_id_stdin_is_one_json() -> None:
    assert list(documents(read(b"1\n"), whole=True)) == [[(1, "1\n")]]
    with pytest.raises(UsageError, match="on stdin"):
        list(documents(read(b"1\n2\n"), whole=True))


@pytest.mark.parametrize("bad", [b"nope", b'{"a":1,"a":2}', b"NaN", b"\xff", b'"\\ud800"', b"1 2", b"{"])
def test_what_stands_before_a_bad_line_is_handed_out(bad: bytes) -> None:
    batches = documents(read(b"1\n2\n" + bad + b"\n3\n"))
    assert next(batches) == [(1, "1"), (2, "2")]
    with pytest.raises(UsageError, match="in line 3"):
        next(batches)


def test_a_batch_fits_into_one_request() -> None:
    short = [len(batch) for batch in documents(read(b"1\n" * 2500))]
    assert short == [1000, 1000, 500]
    long = [len(batch) for batch in documents(read(b'"%b"\n' % (b"x" * 300_000) * 3))]
    assert long == [1, 1, 1]


# ---- publishing over a connection that has its troubles


class Troubled(Connection):
    """Raises what it is given, one after the other; then the hub accepts."""

    def __init__(self, *troubles: HubError) -> None:
        self.troubles, self.bodies = list(troubles), list[bytes | None]()

    def ask(self, method: str, path: str, body: bytes | None = None, *more: Any, **others: Any) -> Any:
        self.bodies.append(body)
        if self.troubles:
            raise self.troubles.pop(0)
        return {"cursor": "e:1"}


def limited(wait: float | None) -> HubError:
    return HubError("rate_limited", "Too fast.", retry_after=wait)


def post(hub: Connection, *texts: str) -> Any:
    return publish.post(hub, list(enumerate(texts, 1)), "a:b")


def test_a_publish_is_tried_again_with_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub = Troubled(Disconnected("idle"), limited(0.25), limited(60.0))
    assert post(hub, "1", "2") == {"cursor": "e:1"}
    assert waits == [0.25, 5.0]
    assert len(set(hub.bodies)) == 1
    assert hub.bodies[0] is not None
    events = [json.loads(line) for line in hub.bodies[0].splitlines()]
    assert [(e["event"], e["data"]) for e in events] == [("a:b", 1), ("a:b", 2)]
    assert len({e["id"] for e in events}) == 2


@pytest.mark.parametrize("trouble", [Disconnected("cut"), limited(0)])
def test_a_publish_gives_up_in_the_end(trouble: HubError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub = Troubled(*[trouble] * 100)
    with pytest.raises(type(trouble)):
        post(hub, "1")
    assert len(hub.bodies) == publish.PUBLISH_TRIES


def test_a_refused_publish_is_not_tried_again() -> None:
    hub = Troubled(limited(None))
    with pytest.raises(HubError):
        post(hub, "1")
    assert len(hub.bodies) == 1
