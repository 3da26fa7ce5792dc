"""What a frame of the stream means to a client."""

from typing import Any

import pytest

from hub.client.items import Gap, Received, arrival

TIME = "2026-01-02T03:04:05.678Z"


def event(seq: int, data: Any = None, name: str = "a:b") -> dict[str, Any]:
    payload = {"event": name, "data": data}
    return {"type": "event", "id": f"id{seq}", "timestamp": TIME, "cursor": f"e:{seq}", "payload": payload}


def notice(name: str, **data: Any) -> dict[str, Any]:
    return {"type": "event", "id": "n", "timestamp": TIME, "payload": {"event": name, "data": data}}


def test_an_event_keeps_every_field_of_its_envelope() -> None:
    frame = event(7, {"n": 1}, "task:progress")
    assert arrival(frame) == ("e:7", Received("task:progress", {"n": 1}, "id7", TIME, "e:7", frame))


def test_a_mark_only_moves_the_position() -> None:
    assert arrival(notice("hub:mark", cursor="e:9")) == ("e:9", None)


@pytest.mark.parametrize(("before", "position"), [("e:18", "e:17"), ("e:1", "e:0"), ("e-f:10", "e-f:9")])
def test_the_position_behind_a_gap_has_the_gaps_end_still_to_come(before: str, position: str) -> None:
    frame = notice("hub:gap", after="e:5", before=before, count=12, reason="slow")
    assert arrival(frame) == (position, Gap("e:5", before, 12, "slow", frame))


def test_a_frame_that_is_no_event_means_nothing_to_the_stream() -> None:
    assert arrival({"type": "error", "id": None, "payload": {"error": "No.", "code": "internal"}}) is None
