"""CloudEvents on POST /api/events, over the wire."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app
from samples import EXPECTED, is_within, sample

STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


async def published(hub: HubInside) -> list[dict[str, Any]]:
    return [event["payload"] for event in (await hub.get("api/events")).json["events"]]


@pytest.mark.parametrize(
    ("name", "headers"),
    [("cloudevents-structured", STRUCTURED), ("cloudevents-batch", BATCH), ("cloudevents-binary", {})],
)
async def test_the_samples(hub: HubInside, name: str, headers: dict[str, str]) -> None:
    body = sample(name)
    if "_request" in body:
        body, headers = body["_request"]["body"], body["_request"]["headers"]
    for accepted in (len(EXPECTED[name]), 0):  # the second time they are known
        answer = await hub.post("api/events", body, headers)
        assert (answer.status, answer.json["accepted"]) == (200, accepted)
    found = await published(hub)
    assert len(found) == len(EXPECTED[name])
    assert all(is_within(want, each) for want, each in zip(EXPECTED[name], found, strict=True))


async def test_a_binary_one_without_data(hub: HubInside) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "door:opened"}
    answer = await hub.ask("POST", "api/events", headers=headers, skip_auto_headers=["Content-Type"])
    assert answer.status == 200, answer.text
    assert await published(hub) == [{"event": "door:opened", "data": None}]


async def test_other_formats(hub: HubInside) -> None:
    told = sample("cloudevents-binary")["_request"]
    for kind in ("application/cloudevents+avro", "application/xml", "text/plain", "application/cloudevents"):
        headers = told["headers"] | {"content-type": kind}
        refused = (await hub.post("api/events", told["body"], headers)).refused(415, "invalid_message")
        assert "must be JSON" in refused["error"]
    assert await published(hub) == []


async def test_what_does_not_fit_publishes_nothing(hub: HubInside) -> None:
    batch = sample("cloudevents-batch")
    for odd in (
        {"specversion": "0.3"},
        {"id": None},
        {"source": ""},
        {"type": 7},
        {"type": "hub:stale"},
        {"type": "task:progress", "data": {}},
    ):
        answer = await hub.post("api/events", [batch[0], batch[1] | odd], BATCH)
        assert (answer.status, [*answer.json["details"]]) == (422, ["1"]), odd
        assert (await hub.post("api/events", batch[1] | odd, STRUCTURED)).status == 422
    (await hub.post("api/events", b"{", STRUCTURED)).refused(400, "invalid_json")
    (await hub.post("api/events", batch, STRUCTURED)).refused(422, "invalid_message")
    (await hub.post("api/events", batch * 501, BATCH)).refused(413, "too_large")
    binary = sample("cloudevents-binary")["_request"]
    headers = {name: value for name, value in binary["headers"].items() if name != "ce-id"}
    (await hub.post("api/events", binary["body"], headers)).refused(422, "invalid_message")
    assert await published(hub) == []


async def test_secrets_are_taken_out(hub: HubInside) -> None:
    one = json.loads(json.dumps(sample("cloudevents-structured")))
    one["data"]["password"] = "swordfish"
    await hub.post("api/events", one, STRUCTURED)
    assert "swordfish" not in (await hub.get("api/events")).text
