"""What `hub publish` sends over a connection that has its troubles, and what it says of what looks mistyped."""

import argparse
import json
from typing import Any

import pytest

from hub.cli import publish
from hub.cli.http import Connection, Silent
from hub.client.discovery import Disconnected, NoHub
from hub.errors import HubError
from hub.wire.mistyped import mistyped


class Troubled(Connection):
    """Raises what it is given, one after the other; then the hub accepts."""

    def __init__(self, *troubles: Exception) -> None:
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


STOPS = HubError("shutting_down", "The hub is stopping.", retry_after=1)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_hub_that_has_said_that_it_stops_is_waited_for(monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    """Some seconds: then none is there."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.append(now.pop() + seconds))
    if weakened:
        monkeypatch.setattr(publish, "COMES_BACK", -1.0)
    hub = Troubled(STOPS, NoHub("None."), NoHub("None."))
    if weakened:
        with pytest.raises(NoHub):
            post(hub, "1")
        return
    assert post(hub, "1") == {"cursor": "e:1"}
    assert (len(set(hub.bodies)), now) == (1, [3.0])
    with pytest.raises(NoHub):
        post(Troubled(STOPS, *[NoHub("None.")] * 100), "1")
    assert now[0] <= 3.0 + publish.PUBLISH_TRIES


def test_a_publish_that_comes_too_fast_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub = Troubled(*[limited(0)] * 100)
    with pytest.raises(HubError) as refused:
        post(hub, "1")
    assert refused.value.code == "rate_limited"
    assert len(hub.bodies) == publish.PUBLISH_TRIES


def test_a_refused_publish_is_not_tried_again() -> None:
    hub = Troubled(limited(None))
    with pytest.raises(HubError):
        post(hub, "1")
    assert len(hub.bodies) == 1


GONE = NoHub("No hub answers.")


@pytest.mark.parametrize("troubles", [[Disconnected("It broke.")] * 100, [Disconnected("It broke."), GONE]])
def test_where_an_answer_was_lost_it_may_be_published(troubles: list[Exception]) -> None:
    hub = Troubled(*troubles)
    with pytest.raises(Disconnected, match=r"^It broke\. It may have published the event all the same\.$"):
        post(hub, "1")
    assert len(hub.bodies) == min(len(troubles), publish.PUBLISH_TRIES)
    with pytest.raises(Disconnected, match="published what stands in lines 1 to 2 all the same"):
        post(Troubled(*troubles), "1", "2")


def test_where_nothing_was_asked_it_is_not() -> None:
    with pytest.raises(NoHub, match=r"^No hub answers\.$"):
        post(Troubled(GONE), "1")


def test_a_silent_hub_is_heard_of_and_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    hub = Troubled(*[Silent("It has said nothing for 10 s.")] * 100)
    with pytest.raises(Disconnected, match="It may have published the event"):
        post(hub, "1")
    assert len(hub.bodies) == publish.SILENT_TRIES
    assert capsys.readouterr().err == "hub: It has said nothing for 10 s. It is asked again.\n" * 2


# ---- what fits


DATA = {"data": ["It does not fit."]}


class Told(publish.Rest):
    """Keeps what it says."""

    def __init__(self) -> None:
        self.told = list[str]()

    def add(self, why: str) -> None:
        self.told.append(why)


def what_fits(hub: Connection, *texts: str) -> tuple[Any, list[str]]:
    rest = Told()
    args = argparse.Namespace(event="a:b", id=None, ttl=None)
    return publish._what_fits(hub, list(enumerate(texts, 1)), rest, args), rest.told


@pytest.mark.parametrize(
    ("details", "left", "told"),
    [
        ({"0": DATA}, [2, 3], ["Line 1: data: It does not fit."]),
        ({"1": DATA, "2": DATA}, [1], ["Line 2: data: It does not fit.", "Line 3: data: It does not fit."]),
    ],
)
def test_a_batch_is_sent_again_without_what_does_not_fit(details: Any, left: list[int], told: list[str]) -> None:
    hub = Troubled(HubError("invalid_message", "1 of 3 events do not fit.", details))
    assert what_fits(hub, "1", "2", "3") == ({"cursor": "e:1"}, told)
    assert hub.bodies[1] is not None
    assert [json.loads(line)["data"] for line in hub.bodies[1].splitlines()] == left


@pytest.mark.parametrize("error", [HubError("invalid_message", "No.", DATA), HubError("too_large", "No.")])
def test_a_line_alone_may_not_fit(error: HubError) -> None:
    answer, told = what_fits(Troubled(error), "1")
    assert (answer, len(told)) == (None, 1)


@pytest.mark.parametrize(
    "error",
    [
        HubError("forbidden", "No."),
        HubError("broker_unavailable", "No."),
        HubError("invalid_message", "No.", {"event": ["No name."]}),
    ],
)
@pytest.mark.parametrize("texts", [["1"], ["1", "2"]])
def test_what_is_refused_for_another_reason_ends_it(error: HubError, texts: list[str]) -> None:
    with pytest.raises(HubError):
        what_fits(Troubled(error), *texts)


# ---- names


@pytest.mark.parametrize(
    ("event", "near"),
    [
        ("task:progres", "task:progress"),
        ("tasks:progress", "task:progress"),
        ("agent:status-change", "agent:status_change"),
        ("task:progress", None),
        ("orders:paid", None),
        ("a:b", None),
    ],
)
def test_a_name_that_looks_mistyped_raises_a_question(event: str, near: str | None) -> None:
    assert mistyped(event) == (near and f"Nobody knows {event}; did you mean {near}?")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["id=a", "progres=60"], "progres; did you mean progress?"),
        (['{"id": "a", "Status": "failed"}'], "Status; did you mean status?"),
        (["id=a", "start=now", "duration:=5"], "start; did you mean started_at?"),
        (["id=a", "progress=60", "progres=60"], None),  # it has both
        (["id=a", "colour=red", "ttl=5"], None),  # its own, or a flag
        (["id=a", "progress=60"], None),
        (["[1]"], None),
        ([], None),
        (["-"], None),
    ],
)
def test_a_field_that_looks_mistyped_raises_a_question(words: list[str], said: str | None) -> None:
    def asked(event: str) -> str | None:
        return publish._mistyped(argparse.Namespace(event=event, words=words))

    assert asked("task:progress") == (said and f"task:progress has no field {said}")
    assert asked("orders:paid") is None
