"""POST /hooks/{adapter}: what comes of each sample over the wire, and what goes back."""

import asyncio
import contextlib
import hashlib
import hmac
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from running import HubInside, hub_app
from samples import EXPECTED, HOOKS, PAYLOADS, adapter_of, is_within, sample

from hub.adapters import reading
from hub.adapters.senders import SILENT
from hub.adapters.shape import Event
from hub.web import hooks

PROMPT, TOOL, STOP = (sample(f"claude-{name}") for name in ("02-user-prompt-submit", "03-pre-tool-use", "15-stop"))
ELICITATION, RUN = sample("claude-14-elicitation"), sample("github-workflow-run-completed")
TASK = f"claude-code:{PROMPT['session_id']}/{PROMPT['prompt_id']}"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


async def events(hub: HubInside, after: str) -> list[dict[str, Any]]:
    page = (await hub.get("api/events", after=after, limit="1000")).json
    return [event["payload"] for event in page["events"]]


def status(hub: HubInside, task: str = TASK) -> Any:
    found = hub.hub.state.get("task:progress", task)
    return found and found.data["status"]


async def send(hub: HubInside, name: str, query: str = "") -> Any:
    """Send a sample as its sender would, and return what comes back."""
    body = sample(name)
    request = body.pop("_request", {})
    headers: Mapping[str, str] = request.get("headers", {}) | {"Content-Type": "text/plain"}
    answer = await hub.post(f"hooks/{adapter_of(name)}{query}", json.dumps(body).encode(), headers)
    assert answer.status == 200, answer.text
    return answer.json if answer.text else None


@pytest.mark.parametrize("name", HOOKS)
async def test_a_sample_becomes_its_events(hub: HubInside, name: str) -> None:
    before = str(hub.hub.cursor)
    answer = await send(hub, name)
    found = await events(hub, before)
    for want in EXPECTED[name]:
        assert [each for each in found if is_within(want, each)], (want, found)
    assert answer == (None if adapter_of(name) in SILENT else {})
    assert (EXPECTED[name] == []) == (found == [])


@pytest.mark.parametrize("adapter", ["claude-code", "codex", "gemini", "copilot", "cursor", "github", "grafana"])
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b"{", b"garbage", b"\xff\xfe", b'"text"', b"[" * 200_000, b"{}", b'{"a":1}']
)
async def test_what_says_nothing_is_passed_over(hub: HubInside, adapter: str, body: bytes) -> None:
    before = hub.hub.cursor
    answer = await hub.post(f"hooks/{adapter}?ask=1", body, {})
    assert (answer.status, answer.text) == (200, "" if adapter in SILENT else "{}")
    assert hub.hub.cursor == before


async def test_a_sample_that_was_cut_off_says_nothing(hub: HubInside) -> None:
    whole = (PAYLOADS / "claude-05-permission-request.json").read_bytes().strip()
    before = hub.hub.cursor
    for length in range(0, len(whole), 7):
        answer = await hub.post("hooks/claude-code?ask=1", whole[:length], {})
        assert (answer.status, answer.text) == (200, "{}")
    assert hub.hub.cursor == before


async def test_what_is_deep_and_large_is_cut_down(hub: HubInside) -> None:
    deep: Any = json.dumps(TOOL | {"tool_input": {"command": "x" * 3_000_000}, "tool_response": "DEEP"})
    body = deep.replace('"DEEP"', "[" * 50_000 + "]" * 50_000).encode()
    assert (await hub.ask("POST", "hooks/claude-code", data=io.BytesIO(body))).status == 200
    call = (await hub.get("api/events", limit="2")).json["events"][0]["payload"]["data"]
    assert (call["tool"], len(call["summary"])) == ("Bash", 200)


@pytest.mark.parametrize("adapter", ["claude-code", "codex", "github"])
@pytest.mark.parametrize("is_told", [True, False])
async def test_of_what_is_too_large_nothing_is_taken(hub: HubInside, adapter: str, is_told: bool) -> None:
    data = json.dumps(PROMPT | {"prompt": "x" * (hooks.LARGEST + 1)}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 64 * 1024):
            yield data[at : at + 64 * 1024]

    answer = await hub.ask("POST", f"hooks/{adapter}?ask=1", data=io.BytesIO(data) if is_told else chunks())
    assert (answer.status, answer.text) == (200, "" if adapter in SILENT else "{}")
    assert hub.hub.cursor.seq == 0
    assert hub.counted("hub_hooks_total", adapter, "unreadable") == 1


async def most_at_once(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> int:
    """Twenty senders of 4 MiB each: of how many of them the hub has something in its hands at once."""
    running, most = 0, 0
    came = hooks._came

    async def counted(*args: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0)
            return await came(*args)
        finally:
            running -= 1

    monkeypatch.setattr(hooks, "_came", counted)
    data = b"[" + b" " * (hooks.LARGEST - 2) + b"]"
    answers = await asyncio.gather(*(hub.ask("POST", "hooks/gemini", data=io.BytesIO(data)) for _ in range(20)))
    assert 200 in {answer.status for answer in answers} <= {200, 429}  # on a slow machine some are told to come again
    return most


async def test_large_bodies_are_weighed_together(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await most_at_once(hub, monkeypatch) <= hooks.ROOM // hooks.LARGEST


async def test_weakened_all_of_them_would_be_taken_at_once(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_room", lambda *args: contextlib.nullcontext())
    assert await most_at_once(hub, monkeypatch) > hooks.ROOM // hooks.LARGEST


async def test_one_that_came_at_the_same_time_does_not_reopen_a_turn(hub: HubInside) -> None:
    await hub.post("hooks/claude-code", PROMPT)
    many = [hub.post("hooks/claude-code", TOOL) for _ in range(20)]
    await asyncio.gather(*many[:10], hub.post("hooks/claude-code", STOP), *many[10:])
    assert status(hub) == "succeeded"


async def test_an_unknown_adapter_and_a_bad_query(hub: HubInside) -> None:
    (await hub.post("hooks/emacs", {})).refused(404, "unknown_command")
    answer = await hub.post("hooks/githab", {})
    assert "no adapter 'githab'; did you mean github? Known are claude-code, codex, " in answer.text
    (await hub.post("hooks/claude-code?timeout=soon", PROMPT)).refused(400, "invalid_args")
    (await hub.post("hooks/claude-code?timeout=0", PROMPT)).refused(400, "invalid_args")
    (await hub.post("hooks/claude-code?question=1", PROMPT)).refused(400, "invalid_args")
    assert (await hub.get("hooks/claude-code")).status == 405


async def test_the_guard_stands_before_it(hub: HubInside) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        assert (await hub.post("hooks/claude-code", PROMPT, headers)).status in (403, 421)
    assert status(hub) is None


async def test_it_is_counted_by_who_sent_it(hub: HubInside) -> None:
    await send(hub, "claude-15-stop")
    await hub.post("hooks/claude-code", sample("copilot-03-pre-tool-use"))
    await hub.post("hooks/claude-code", PROMPT | {"hook_event_name": "Sneezed"})
    await hub.post("hooks/codex", b"?")
    counted = hub.counted("hub_hooks_total")
    assert counted == {
        "claude-code": {"taken": 1, "passed_over": 1},
        "copilot": {"taken": 1},
        "codex": {"unreadable": 1},
    }


async def test_secrets_are_taken_out(hub: HubInside) -> None:
    secret = "ghp_" + "a1B2" * 9
    await hub.post("hooks/claude-code", TOOL | {"tool_input": {"command": f"curl -H 'Authorization: Bearer {secret}'"}})
    assert secret not in (await hub.get("api/events")).text


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("path", "change", "begin", "secret"),
    [
        ("claude-code", lambda said: ELICITATION | {"mcp_server_name": said}, "x DB_PASSWORD=", "Ty4Qwb8DwkNhFdnXsiVp"),
        ("claude-code", lambda said: ELICITATION | {"mcp_server_name": said}, "x ", "Bearer Ty4Qwb8DwkNhFdnXsiVp"),
        ("github", lambda said: RUN | {"repository": {"full_name": said}}, "a\n", "ghp_" + "a1B2" * 9),
        ("github", lambda said: RUN | {"repository": {"full_name": said}}, "a\u200b", "ghp_" + "a1B2" * 9),
    ],
)
async def test_a_secret_is_found_before_its_text_becomes_a_name(
    path: str,
    change: Callable[[str], Any],
    begin: str,
    secret: str,
    weakened: bool,
    hub: HubInside,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if weakened:
        for module in ("claude_code", "reading"):
            monkeypatch.setattr(f"hub.adapters.{module}.cleaned", lambda text: (text, True))
    assert (await hub.post(f"hooks/{path}", change(begin + secret))).status == 200
    told = (await hub.get("api/events")).text + (await hub.get("api/state")).text
    assert (re.sub("[^A-Za-z0-9]", "_", secret) in re.sub("[^A-Za-z0-9]", "_", told)) is weakened


async def test_who_was_heard(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        assert (await hub.get("hooks")).json == {}
        await hub.post("hooks/claude-code", sample("claude-06-notification-permission"))
        await hub.post("hooks/claude-code", sample("copilot-07-agent-stop"))
        await hub.post("hooks/codex", b"?")
        assert (await hub.get("hooks")).json.keys() == {"claude-code", "copilot"}
        assert not await hub.records("command.called")
    async with hub_app(tmp_path) as hub:  # what is still known
        assert (await hub.get("hooks")).json.keys() == {"copilot"}


async def test_half_a_character_is_taken(hub: HubInside) -> None:
    body = json.dumps(TOOL | {"tool_input": {"command": "echo \ud83d \U0001f41d"}}).encode()
    assert (await hub.post("hooks/claude-code?ask=1", body, {})).status == 200
    call = (await hub.get("api/events", topics="agent:tool_call")).json["events"][0]["payload"]["data"]
    assert call["summary"] == "echo ? \U0001f41d"


# ---- services


async def test_github_is_believed_with_its_signature_only(hub: HubInside) -> None:
    hub.hub.github_secret = b"swordfish"
    body = (PAYLOADS / "github-workflow-run-completed.json").read_bytes()
    right = {"X-GitHub-Event": "workflow_run", "X-Hub-Signature-256": signed(b"swordfish", body)}
    for signature in ("", "sha256=", "sha256=" + "0" * 64, signed(b"other", body), right["X-Hub-Signature-256"][7:]):
        answer = await hub.post("hooks/github", body, right | {"X-Hub-Signature-256": signature})
        answer.refused(401, "forbidden")
    (await hub.post("hooks/github", body + b" ", right)).refused(401, "forbidden")
    assert status(hub, "github:user/shop/9911") is None
    assert (await hub.post("hooks/github", body, right)).status == 200
    assert status(hub, "github:user/shop/9911") == "failed"


async def test_weakened_anybody_could_report_a_run(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hub.github_secret = b"swordfish"
    monkeypatch.setattr("hub.adapters.github.is_signed", lambda *args: True)
    assert (await hub.post("hooks/github", sample("github-workflow-run-completed"))).status == 200
    assert status(hub, "github:user/shop/9911") == "failed"


def signed(secret: bytes, body: bytes) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


async def test_a_run_of_a_workflow_from_its_beginning(hub: HubInside) -> None:
    whole = sample("github-workflow-run-completed")
    seen = []
    for action, conclusion, attempt in (
        ("requested", None, 1),
        ("in_progress", None, 1),
        ("completed", "success", 1),
        ("in_progress", None, 1),  # late
        ("in_progress", None, 2),
        ("completed", "skipped", 2),
        ("completed", "timed_out", 2),
    ):
        run = whole["workflow_run"] | {"conclusion": conclusion, "run_attempt": attempt}
        await hub.post("hooks/github", whole | {"action": action, "workflow_run": run})
        seen.append(status(hub, "github:user/shop/9911"))
    assert seen == ["queued", "running", "succeeded", "succeeded", "running", "cancelled", "failed"]
    assert hub.hub.state.get("task:progress", "github:user/shop/9911").data["error"] == "timed_out"  # type: ignore[union-attr]


async def test_a_delivery_that_is_repeated_is_kept_once(hub: HubInside) -> None:
    headers = {"X-GitHub-Event": "workflow_run", "X-GitHub-Delivery": "0b0e1f50-0000-11f0-8000-000000000002"}
    await hub.post("hooks/github", sample("github-workflow-run-completed"), headers)
    before = hub.hub.cursor
    await hub.post("hooks/github", sample("github-workflow-run-completed"), headers)
    assert hub.hub.cursor == before
    await hub.post("hooks/github", sample("github-workflow-run-completed"), headers | {"X-GitHub-Event": "push"})
    assert hub.hub.cursor == before


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_captured_delivery_publishes_nothing_more(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the headers, which nobody has signed, and whatever has come since."""
    if weakened:
        monkeypatch.setattr("hub.adapters.github.Event", lambda name, data, id: Event(name, data))
    hub.hub.github_secret = b"swordfish"
    whole = sample("github-workflow-run-completed")
    bodies = []
    for action, attempt in (("requested", 1), ("in_progress", 1)):
        run = whole["workflow_run"] | {"conclusion": None, "run_attempt": attempt}
        bodies.append(json.dumps(whole | {"action": action, "workflow_run": run}).encode())
    for body in bodies:
        await hub.post("hooks/github", body, {"X-Hub-Signature-256": signed(b"swordfish", body)})
    before = hub.hub.cursor.seq
    assert before == 2
    for delivery in range(3):
        for body in bodies:
            headers = {"X-Hub-Signature-256": signed(b"swordfish", body), "X-GitHub-Delivery": f"another-{delivery}"}
            assert (await hub.post("hooks/github", body, headers)).status == 200
    assert (hub.hub.cursor.seq == before) is not weakened
    assert status(hub, "github:user/shop/9911") == "running"


async def test_a_captured_delivery_whose_first_is_forgotten_changes_nothing(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history does not reach so far back: nothing is told again that is known, and no attempt is known again behind
    a newer one."""
    monkeypatch.setattr("hub.adapters.github.Event", lambda name, data, id: Event(name, data))
    whole = sample("github-workflow-run-completed")
    seen = []
    for action, conclusion, attempt in (
        ("completed", "success", 1),
        ("completed", "success", 1),
        ("in_progress", None, 2),
        ("completed", "success", 1),
        ("completed", "failure", 2),
        ("completed", "success", 1),
        ("completed", "failure", 2),
    ):
        run = whole["workflow_run"] | {"conclusion": conclusion, "run_attempt": attempt}
        await hub.post("hooks/github", whole | {"action": action, "workflow_run": run})
        seen.append((status(hub, "github:user/shop/9911"), hub.hub.cursor.seq))
    assert seen == [
        *[("succeeded", 1)] * 2,
        *[("running", 2)] * 2,
        *[("failed", 3)] * 3,
    ]


async def test_an_alert_that_is_repeated_is_kept_once_and_its_end_is_another(hub: HubInside) -> None:
    firing = sample("alertmanager-v4-firing")
    await hub.post("hooks/alertmanager", firing)
    before = hub.hub.cursor
    await hub.post("hooks/alertmanager", firing)
    assert hub.hub.cursor == before
    over = firing["alerts"][0] | {"status": "resolved", "endsAt": "2026-11-25T10:50:00Z"}
    await hub.post("hooks/alertmanager", firing | {"status": "resolved", "alerts": [over]})
    alert = hub.hub.state.get("alert:status", "1a30ba71cca2921f")
    assert alert is not None
    assert (alert.data["status"], alert.data["ended_at"]) == ("resolved", "2026-11-25T10:50:00.000Z")


async def test_of_many_alerts_all_are_kept_or_none(hub: HubInside) -> None:
    def body(count: int) -> dict[str, Any]:
        return {"version": "4", "alerts": [{"status": "firing", "fingerprint": f"{n:x}"} for n in range(count)]}

    assert (await hub.post("hooks/alertmanager", body(1500))).status == 200
    assert len(hub.hub.state.of("alert:status")) == 1500
    before = hub.hub.cursor
    (await hub.post("hooks/alertmanager", body(5001))).refused(413, "too_large")
    assert hub.hub.cursor == before


async def test_a_github_form(hub: HubInside) -> None:
    body = urlencode({"payload": json.dumps(sample("github-workflow-run-completed"))}).encode()
    assert (await hub.post("hooks/github", body, {"X-GitHub-Event": "workflow_run"})).status == 200
    assert status(hub, "github:user/shop/9911") == "failed"


SECRET = "hunter2-of-the-database"
SAID: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"claude-code {field}": ("claude-code", {"hook_event_name": event, field: "SAID"})
        for event, field in (
            ("Notification", "message"),
            ("UserPromptSubmit", "prompt"),
            ("StopFailure", "error"),
            ("PostToolUseFailure", "error"),
            ("TaskCreated", "task_subject"),
        )
    },
    **{
        f"claude-code {field} of {event}": (
            "claude-code",
            {"hook_event_name": event, "tool_name": "Bash", "tool_input": {field: "SAID"}},
        )
        for event in ("PreToolUse", "PermissionRequest")
        for field in ("command", "description", "url")
    },
    "claude-code error_details": (
        "claude-code",
        {"hook_event_name": "StopFailure", "error": "unknown", "error_details": "SAID"},
    ),
    "codex": ("codex", {"hook_event_name": "UserPromptSubmit", "turn_id": "t", "prompt": "SAID"}),
    "gemini": ("gemini", {"hook_event_name": "BeforeAgent", "prompt": "SAID"}),
    "copilot": ("copilot", {"hook_event_name": "UserPromptSubmit", "sessionId": "ID", "prompt": "SAID"}),
    "cursor": ("cursor", {"hook_event_name": "beforeSubmitPrompt", "conversation_id": "ID", "prompt": "SAID"}),
    "alertmanager": (
        "alertmanager",
        {
            "alerts": [
                {
                    "status": "firing",
                    "fingerprint": "ID",
                    "annotations": {"summary": "SAID"},
                    "labels": {"alertname": "SAID"},
                }
            ]
        },
    ),
    "github": (
        "github",
        {
            "action": "completed",
            "repository": {"full_name": "o/r"},
            "workflow_run": {"id": "ID", "name": "SAID", "display_title": "SAID", "conclusion": "failure"},
        },
    ),
}


@pytest.mark.parametrize("weakened", [False, True])
async def test_no_sender_leaves_a_part_of_a_secret_where_its_words_are_cut(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(reading, "cleaned", lambda text: (text, True))
    for at, (name, (adapter, body)) in enumerate(SAID.items()):
        left = False
        for length in [*range(150, 200, 6), *range(456, 512, 6)]:
            said = f"{'a' * (length - 21)} postgres://u:{SECRET}@h/db {'b' * 600}"
            sent = json.dumps({"session_id": f"{at}-{length}", **body}).replace("SAID", said)
            sent = sent.replace("ID", str(length))
            before = str(hub.hub.cursor)
            assert (await hub.post(f"hooks/{adapter}", sent.encode())).status == 200
            found = json.dumps(await events(hub, before))
            assert "\\u2026" in found, (name, found)
            left = left or SECRET[:5] in found
        assert left is weakened, name
