"""Permission questions of agents: what is asked, what each decision is in the sender's words, and what ends a question.

An "allow" leaves the hub only behind an accepted answer in the audit log, whatever happens in whatever order.
"""

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from running import PATIENCE, HubInside, hub_app, hub_process, until
from samples import adapter_of, sample

from hub.adapters import waits
from hub.commands.asked import account
from hub.commands.asked import seconds as at
from hub.commands.settling import Settling
from hub.web import toolcalls

BY = account(os.geteuid())
STATUS = "agent:status_change"
PERMISSION = sample("claude-05-permission-request")
ALLOWED = sample("claude-response-allow")
SESSION = f"claude-code:{PERMISSION['session_id']}"
TERMINAL = "answer in the terminal"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


@asynccontextmanager
async def asking(
    hub: HubInside, body: Mapping[str, Any], adapter: str = "claude-code", query: str = ""
) -> AsyncIterator["asyncio.Task[Any]"]:
    """A hook that asks on a connection of its own; its answer's JSON, None for an empty one."""

    async def ask() -> Any:
        async with ClientSession() as http:
            url = f"{hub.url}hooks/{adapter}?ask=1{query}"
            async with http.post(url, data=json.dumps(body).encode()) as response:
                assert response.status == 200, await response.text()
                text = await response.text()
                return json.loads(text) if text else None

    task = asyncio.create_task(ask())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientError):
            await task


async def opened(hub: HubInside, count: int = 1) -> dict[str, Any]:
    """The newest open question, once there are so many."""
    await until(lambda: len(list(hub.hub.questions.records())) == count, f"{count} open questions")
    return list(hub.hub.questions.records())[-1]


async def answer(hub: HubInside, question: Mapping[str, Any], chosen: str) -> Any:
    args = {"question": question["id"], "answer": chosen}
    return (await hub.post("api/commands/hub:answer", args)).json


async def decided(hub: HubInside, name: str, chosen: str, query: str = "") -> Any:
    """What goes back for a sample when a person has chosen this."""
    async with asking(hub, sample(name), adapter_of(name), query) as hook:
        assert await answer(hub, await opened(hub), chosen) == {"accepted": True}
        return await hook


def denied(text: Any) -> Any:
    return json.loads(json.dumps(text).replace("<by>", BY).replace("Denied in hub by user", f"Denied in hub by {BY}"))


@pytest.mark.parametrize(
    ("name", "chosen", "words"),
    [
        ("claude-05-permission-request", "allow", ALLOWED),
        ("claude-05-permission-request", "deny", denied(sample("claude-response-deny"))),
        ("claude-05-permission-request", TERMINAL, {}),
        ("codex-04-permission-request", "allow", sample("codex-response-allow")),
        ("codex-04-permission-request", "deny", denied(sample("codex-response-deny"))),
        ("codex-04-permission-request", TERMINAL, None),
        ("cursor-02-before-shell-execution", "allow", {"permission": "allow"}),
        ("cursor-02-before-shell-execution", "deny", {"permission": "deny"}),
        ("cursor-02-before-shell-execution", TERMINAL, sample("cursor-response-ask")),
        ("claude-13-ask-user-question", "Half even", sample("claude-response-ask-user-answer")),
        ("claude-13-ask-user-question", TERMINAL, {}),
        ("claude-14-elicitation", "staging", sample("claude-response-elicitation")),
        (
            "claude-14-elicitation",
            "decline",
            {"hookSpecificOutput": {"hookEventName": "Elicitation", "action": "decline"}},
        ),
        ("claude-14-elicitation", TERMINAL, {}),
    ],
)
async def test_a_decision_in_the_senders_words(hub: HubInside, name: str, chosen: str, words: Any) -> None:
    assert await decided(hub, name, chosen) == words


@pytest.mark.parametrize(
    ("chosen", "words"),
    [("allow", {"behavior": "allow"}), ("deny", denied(sample("copilot-response-permission-deny"))), (TERMINAL, {})],
)
async def test_copilots_permission_request(hub: HubInside, chosen: str, words: Any) -> None:
    body = sample("copilot-03-pre-tool-use")
    async with asking(hub, body, "copilot", "&event=permissionRequest") as hook:
        await answer(hub, await opened(hub), chosen)
        assert await hook == words


COPILOT = {  # as version 1.0.102 sends it
    "hookName": "permissionRequest",
    "sessionId": "5dbcfb5b-4edb-4e3f-b83d-6c2b0dd2cf52",
    "timestamp": 1796125112971,
    "cwd": "/home/user/lib",
    "toolName": "bash",
    "toolInput": {"command": "touch made.txt"},
    "permissionSuggestions": [],
}


@pytest.mark.parametrize("query", ["", "&event=permissionRequest"])
async def test_what_copilot_asks_can_be_seen(hub: HubInside, query: str) -> None:
    async with asking(hub, COPILOT, "copilot", query) as hook:
        question = await opened(hub)
        assert question["question"] == "copilot in lib: bash: touch made.txt"
        assert question["details"]["input"] == {"command": "touch made.txt"}
        ran = COPILOT | {
            "hookName": None,
            "toolArgs": {"command": "touch made.txt", "description": "Make a file"},
            "toolResult": {},
        }
        await hub.post("hooks/copilot?event=postToolUse", ran)  # decided in the terminal
        assert await hook == {}


@pytest.mark.parametrize(
    ("name", "nothing"),
    [
        ("claude-05-permission-request", {}),
        ("codex-04-permission-request", None),
        ("cursor-02-before-shell-execution", sample("cursor-response-ask")),
    ],
)
async def test_what_cannot_be_seen_is_not_asked(hub: HubInside, name: str, nothing: Any) -> None:
    body = {field: value for field, value in sample(name).items() if field not in ("tool_input", "command")}
    async with asking(hub, body, adapter_of(name)) as hook:
        assert await hook == nothing
    async with asking(hub, COPILOT | {"toolInput": None}, "copilot") as hook:
        assert await hook == {}
    assert not await hub.records("question.asked")


async def test_what_is_asked(hub: HubInside) -> None:
    async with asking(hub, PERMISSION):
        question = await opened(hub)
        assert question["question"] == "claude-code in shop: Bash: rm -rf build/cache"
        assert question["options"] == ["allow", "deny", TERMINAL]
        assert question["details"] == {
            "agent": f"claude-code:{PERMISSION['session_id']}",
            "cwd": "/home/user/shop",
            "tool": "Bash",
            "input": PERMISSION["tool_input"],
        }
        assert (question["default"], question["id"][:6]) == (None, "while-")
        assert status(hub) == "waiting_approval"


@pytest.mark.parametrize(
    ("adapter", "name", "query", "seconds"),
    [
        ("claude-code", "claude-05-permission-request", "", 290),
        ("codex", "codex-04-permission-request", "", 110),
        ("codex", "codex-04-permission-request", "&timeout=7", 7),
    ],
)
async def test_how_long_it_waits(hub: HubInside, adapter: str, name: str, query: str, seconds: float) -> None:
    async with asking(hub, sample(name), adapter, query):
        question = await opened(hub)
        assert at(question["deadline"]) - at(question["asked_at"]) == pytest.approx(seconds, abs=0.1)


def status(hub: HubInside, task: str = f"claude-code:{PERMISSION['session_id']}/{PERMISSION['prompt_id']}") -> Any:
    found = hub.hub.state.get("task:progress", task)
    return found and found.data["status"]


async def test_the_turn_goes_on_behind_a_decision(hub: HubInside) -> None:
    assert await decided(hub, "claude-05-permission-request", "allow") == ALLOWED
    assert status(hub) == "running"
    await decided(hub, "claude-05-permission-request", TERMINAL)
    assert status(hub) == "waiting_approval"


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_to_one_leaves_what_waits_beside_it(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(waits, "decided", lambda pending, wait: [])
    other = PERMISSION | {"tool_name": "Read", "tool_input": {"file_path": "/notes"}}
    async with asking(hub, PERMISSION) as first:
        await answer(hub, await opened(hub), TERMINAL)
        assert await first == {}
        async with asking(hub, other) as second:
            await answer(hub, await opened(hub), "allow")
            assert await second == ALLOWED
    if weakened:
        assert status(hub) == "running"
        return
    assert status(hub) == "waiting_approval", "the first still stands in the terminal"
    ran = sample("claude-07-post-tool-use")
    await hub.post("hooks/claude-code", ran | {"tool_name": "Read", "tool_input": {"file_path": "/notes"}})
    assert status(hub) == "waiting_approval"
    await hub.post("hooks/claude-code", ran)
    assert status(hub) == "running"


@pytest.mark.parametrize(
    "name", ["claude-05-permission-request", "codex-04-permission-request", "cursor-02-before-shell-execution"]
)
async def test_nobody_answers_in_time(hub: HubInside, name: str) -> None:
    async with asking(hub, sample(name), adapter_of(name), "&timeout=1") as hook:
        nothing = {"codex": None, "cursor": sample("cursor-response-ask")}
        assert await hook == nothing.get(adapter_of(name), {})
    assert hub.counted("hub_hooks_total", adapter_of(name), "unanswered") == 1


async def test_a_wrong_answer_is_none(hub: HubInside) -> None:
    async with asking(hub, PERMISSION) as hook:
        question = await opened(hub)
        for wrong in ("Allow", "yes", "", "allow "):
            args = {"question": question["id"], "answer": wrong}
            (await hub.post("api/commands/hub:answer", args)).refused(422, "invalid_args")
        assert not hook.done()


async def test_all_of_a_command_is_shown(hub: HubInside) -> None:
    body = PERMISSION | {"tool_input": {"command": "ls\nrm -rf /\n" + "x" * 3000}}
    async with asking(hub, body):
        text = (await opened(hub))["question"]
        assert "rm -rf /" in text
    assert text.endswith(" more characters are not shown)")


OWN = sample("claude-13-ask-user-question")


def asked(questions: Any) -> Any:
    return OWN | {"tool_input": {"questions": questions}}


def labelled(*labels: Any, **more: Any) -> Any:
    return asked([{"question": "Which?", "options": [{"label": label} for label in labels], **more}])


UNASKED = {
    "several questions": asked(OWN["tool_input"]["questions"] * 2),
    "none": asked([]),
    "no list": asked("?"),
    "multiSelect": labelled("a", "b", multiSelect=True),
    "too many": labelled(*(f"label {n}" for n in range(14))),
    "hub's own": labelled("a", "Allow"),
    "hub's own sentence": labelled("a", TERMINAL),
    "twice the same": labelled("a", "a"),
    "no labels": labelled(),
    "an empty one": labelled("a", " "),
    "no text": labelled("a", 7),
    "too long": labelled("a", "x" * 201),
    "secrets that become the same": labelled("ghp_" + "a1B2" * 9, "ghp_" + "c3D4" * 9),
    "a form of two": sample("claude-14-elicitation")
    | {"requested_schema": {"properties": {"a": {"enum": ["x"]}, "b": {"enum": ["y"]}}}},
    "a form of a text": sample("claude-14-elicitation")
    | {"requested_schema": {"properties": {"a": {"type": "string"}}}},
    "half a character": labelled("a", "b\ud83d"),
    "a link": sample("claude-14-elicitation") | {"mode": "url"},
    "a tool before it runs": sample("claude-03-pre-tool-use"),
    "gemini": sample("gemini-03-before-tool"),
    "copilot's tools": sample("copilot-03-pre-tool-use"),
}


@pytest.mark.parametrize("body", UNASKED.values(), ids=UNASKED)
async def test_what_is_not_asked(hub: HubInside, body: Any) -> None:
    async with asking(hub, body) as hook:
        assert await hook == {}
    assert not await hub.records("question.asked")


async def test_thirteen_labels_are_asked(hub: HubInside) -> None:
    async with asking(hub, labelled(*(f"label {n}" for n in range(13)))) as hook:
        question = await opened(hub)
        assert question["options"] == [*(f"label {n}" for n in range(13)), TERMINAL]
        await answer(hub, question, "label 7")
        assert (await hook)["hookSpecificOutput"]["updatedInput"]["answers"] == {"Which?": "label 7"}


async def test_without_ask_nobody_is_asked(hub: HubInside) -> None:
    for query in ("", "?ask=0"):
        assert (await hub.post(f"hooks/claude-code{query}", PERMISSION)).json == {}
    assert status(hub) == "waiting_approval"
    assert not await hub.records("question.asked")


async def test_what_goes_back_is_what_came_not_what_was_kept(hub: HubInside) -> None:
    secret = "ghp_" + "a1B2" * 9
    async with asking(hub, labelled(f"use {secret}", "use another")) as hook:
        question = await opened(hub)
        assert secret not in json.dumps(question)
        await answer(hub, question, question["options"][0])
        assert (await hook)["hookSpecificOutput"]["updatedInput"]["answers"] == {"Which?": f"use {secret}"}


# ---- what ends a question


@pytest.mark.parametrize("name", ["claude-07-post-tool-use", "claude-15-stop", "claude-19-session-end"])
async def test_it_is_withdrawn_when_it_has_been_decided_elsewhere(hub: HubInside, name: str) -> None:
    async with asking(hub, PERMISSION) as hook:
        await opened(hub)
        await hub.post("hooks/claude-code", sample(name))
        assert await hook == {}
    assert [record["details"]["answer"] for record in await hub.recorded("question.withdrawn")] == [None]


@pytest.mark.parametrize("weakened", [False, True])
async def test_it_is_withdrawn_when_its_subagent_or_its_turn_is_over(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.adapters.claude_code.over", lambda hook, found: frozenset())
    prompt = sample("claude-02-user-prompt-submit")
    async with asking(hub, PERMISSION | {"agent_id": "a1f9c3"}) as subagents, asking(hub, PERMISSION) as first:
        await opened(hub, 2)
        await hub.post("hooks/claude-code", prompt)  # its own, late
        await hub.post("hooks/claude-code", sample("claude-10-subagent-stop"))
        assert await subagents == {}
        await opened(hub)
        async with asking(hub, PERMISSION | {"prompt_id": "next"}):
            question = await opened(hub, 2)
            await hub.post("hooks/claude-code", prompt | {"prompt_id": "next"})  # what stood in the first was cancelled
            if weakened:
                assert await opened(hub, 2)
                return
            assert await first == {}
            assert await opened(hub) == question


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_late_stop_of_an_earlier_turn_leaves_the_question_of_the_next(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.adapters.claude_code.closes", lambda hook, given: True)
    prompt, stop = sample("claude-02-user-prompt-submit"), sample("claude-15-stop")
    for turn in ("first", "next"):
        await hub.post("hooks/claude-code", prompt | {"prompt_id": turn})
    async with asking(hub, PERMISSION | {"prompt_id": "next"}) as hook:
        question = await opened(hub)
        await hub.post("hooks/claude-code", stop | {"prompt_id": "first"})
        if weakened:
            assert await hook == {}
            return
        assert await answer(hub, question, "allow") == {"accepted": True}
        assert await hook == ALLOWED
    async with asking(hub, PERMISSION | {"prompt_id": "next"}) as hook:
        await opened(hub)
        await hub.post("hooks/claude-code", stop | {"prompt_id": "next"})
        assert await hook == {}


async def test_a_prompt_of_who_names_no_turns_ends_the_questions_before_it(hub: HubInside) -> None:
    body = {"sessionId": "s", "toolName": "bash", "toolArgs": {"command": "ls"}, "hook_event_name": "PermissionRequest"}
    async with asking(hub, body, "copilot") as hook:
        await opened(hub)
        await hub.post("hooks/copilot", {"sessionId": "s", "prompt": "Go on"})
        assert await hook == {}


async def test_another_tool_or_session_does_not_withdraw_it(hub: HubInside) -> None:
    ran = sample("claude-07-post-tool-use")
    async with asking(hub, PERMISSION) as hook:
        question = await opened(hub)
        await hub.post("hooks/claude-code", ran | {"tool_input": {"command": "rm -rf build"}})
        await hub.post("hooks/claude-code", ran | {"session_id": "another"})
        await hub.post("hooks/claude-code", sample("claude-15-stop") | {"session_id": "another"})
        assert await answer(hub, question, "allow") == {"accepted": True}
        assert await hook == ALLOWED


async def test_it_is_withdrawn_when_its_hook_is_killed(hub: HubInside) -> None:
    async with asking(hub, PERMISSION) as hook:
        question = await opened(hub)
        hook.cancel()
        await hub.recorded("question.withdrawn")
        assert await answer(hub, question, "allow") == {"accepted": False}


async def test_a_hub_that_stops_decides_nothing(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as running:
        task = asyncio.create_task(_raw(running.url))
        while (
            b"hub:question" not in await (await running.http.get(f"{running.url}api/state?topics=hub:question")).read()
        ):
            await asyncio.sleep(0.01)
        running.signal()
        assert await task == "{}"
        assert await running.ended() == 0


async def _questions(http: ClientSession, url: str) -> Any:
    async with http.get(f"{url}api/state?topics=hub:question") as came:
        return (await came.json())["items"]


async def _raw(url: str) -> str:
    async with ClientSession() as http, http.post(f"{url}hooks/claude-code?ask=1", data=json.dumps(PERMISSION)) as came:
        return await came.text()


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_end_of_its_process_withdraws_what_an_agent_asks(hub: HubInside, weakened: bool) -> None:
    """The hook of a killed agent may live on, with its connection: nobody needs the answer any more."""
    if weakened:
        hub.hub.liveness.on_ended = lambda agent: None
    agent = await asyncio.create_subprocess_exec("sleep", "1000")
    other = PERMISSION | {"session_id": "another"}
    async with asking(hub, PERMISSION) as asked:
        await opened(hub)
        async with asking(hub, other) as going_on:
            kept = await opened(hub, 2)
            name = f"claude-code:{PERMISSION['session_id']}"
            await hub.post("api/events", {"event": STATUS, "data": {"id": name, "status": "active", "pid": agent.pid}})
            agent.kill()
            await agent.wait()
            await until(lambda: not len(hub.hub.liveness), "it is noticed")
            if weakened:
                assert len(list(hub.hub.questions.records())) == 2
            else:
                assert await asked == {}
                assert await opened(hub) == kept
            assert not going_on.done()


RAN = sample("claude-07-post-tool-use") | {"tool_input": PERMISSION["tool_input"]}


async def begun(hub: HubInside, call: str, **more: Any) -> None:
    await hub.post("hooks/claude-code", RAN | {"hook_event_name": "PreToolUse", "tool_use_id": call, **more})


async def has_run(hub: HubInside, call: str, **more: Any) -> None:
    await hub.post("hooks/claude-code", RAN | {"tool_use_id": call, **more})


async def test_a_request_behind_the_word_that_its_tool_has_run_asks_nothing(hub: HubInside) -> None:
    await begun(hub, "one")
    await has_run(hub, "one")
    before = hub.hub.cursor
    assert (await hub.post("hooks/claude-code?ask=1", PERMISSION)).json == {}
    assert hub.hub.cursor == before, "and the turn does not wait"
    async with asking(hub, PERMISSION) as hook:  # the next one is another
        assert await answer(hub, await opened(hub), "allow") == {"accepted": True}
        assert await hook == ALLOWED
    await has_run(hub, "two")  # it was allowed, and has run: that was its own
    async with asking(hub, PERMISSION):
        await opened(hub)


async def test_the_same_command_again_is_asked_anew(hub: HubInside) -> None:
    """Whatever is known of the first: nobody waits unseen."""
    await hub.post("hooks/claude-code", RAN)
    async with asking(hub, PERMISSION):
        await opened(hub)
        assert status(hub) == "waiting_approval"
    await begun(hub, "one")
    await has_run(hub, "one")
    await begun(hub, "two")
    async with asking(hub, PERMISSION):
        await opened(hub)


async def test_the_end_of_the_first_takes_the_question_about_the_second_not_away(hub: HubInside) -> None:
    await begun(hub, "one")
    async with asking(hub, PERMISSION) as hook:
        await answer(hub, await opened(hub), "allow")
        assert await hook == ALLOWED
    await begun(hub, "two")
    async with asking(hub, PERMISSION) as hook:
        question = await opened(hub)
        await has_run(hub, "one")  # it comes late
        assert await answer(hub, question, "deny") == {"accepted": True}
        assert (await hook)["hookSpecificOutput"]["decision"]["behavior"] == "deny"


async def test_one_that_has_run_ends_one_of_two_questions_that_are_the_same(hub: HubInside) -> None:
    """Two subagents wait for the same: that one went on says nothing of the other."""
    async with asking(hub, PERMISSION | {"agent_id": "a"}) as first:
        await opened(hub)
        async with asking(hub, PERMISSION | {"agent_id": "b"}) as second:
            question = await opened(hub, 2)
            await hub.post("hooks/claude-code", RAN | {"agent_id": "a"})
            assert await first == {}
            assert await answer(hub, question, "allow") == {"accepted": True}
            assert await second == ALLOWED


@pytest.mark.parametrize("waits", [{"agent_id": "b"}, {}], ids=["another subagent", "the agent"])
async def test_what_a_subagent_has_run_ends_no_question_of_another(hub: HubInside, waits: dict[str, str]) -> None:
    async with asking(hub, PERMISSION | {"agent_id": "a"}) as first, asking(hub, PERMISSION | waits) as second:
        await opened(hub, 2)
        own, other = sorted(hub.hub.questions.records(), key=lambda one: one["details"]["agent"] != f"{SESSION}/a")
        assert await answer(hub, own, "allow") == {"accepted": True}
        assert await first == ALLOWED
        await hub.post("hooks/claude-code", RAN | {"agent_id": "a"})
        assert await answer(hub, other, "allow") == {"accepted": True}
        assert await second == ALLOWED


async def test_what_ran_before_does_not_hide_a_call_that_has_begun(hub: HubInside) -> None:
    await hub.post("hooks/claude-code", RAN)
    await begun(hub, "two")
    async with asking(hub, PERMISSION):
        await opened(hub)


async def test_what_ran_a_while_ago_hides_nothing(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    await begun(hub, "one")
    await has_run(hub, "one")
    monkeypatch.setattr(toolcalls, "LATE_SECONDS", -1.0)
    async with asking(hub, PERMISSION):
        await opened(hub)


# ---- in whatever order


class Agents(RuleBasedStateMachine):
    """Agents ask, people answer, connections break, tools run, the hub stops and comes back."""

    places: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self._place = next(self.places)
        self._stack, self._runner = AsyncExitStack(), asyncio.Runner()
        self._numbers = itertools.count()
        self.hooks: dict[str, asyncio.Task[Any]] = {}
        self.hub = self.run(self._start())

    def run(self, work: Any) -> Any:
        return self._runner.run(work)

    async def _start(self) -> HubInside:
        return await self._stack.enter_async_context(hub_app(self._place))

    @rule()
    def ask(self) -> None:
        command = f"make {next(self._numbers)}"
        self.run(self._ask(command))

    async def _ask(self, command: str) -> None:
        body = PERMISSION | {"tool_input": {"command": command}, "session_id": command}
        before = len(await self.hub.records("question.asked"))
        self.hooks[command] = asyncio.create_task(_hooked(self.hub.url, body))
        while len(await self.hub.records("question.asked")) == before:
            await asyncio.sleep(0.002)

    @precondition(lambda self: self.hooks)
    @rule(data=st.data(), chosen=st.sampled_from(["allow", "allow", "deny", TERMINAL, "Allow"]), then=st.integers(0, 3))
    def answer(self, data: st.DataObject, chosen: str, then: int) -> None:
        command = data.draw(st.sampled_from([*self.hooks]))
        self.run(self._answer(command, chosen, then))

    @precondition(lambda self: self.hooks)
    @rule()
    def allow(self) -> None:
        self.run(self._answer(next(reversed(self.hooks)), "allow", 0))

    async def _answer(self, command: str, chosen: str, then: int) -> None:
        """And something else at the same moment."""
        found = [each for each in self.hub.hub.questions.records() if each["details"]["input"]["command"] == command]
        others = [self._nothing, self._ran, self._stopped, self._killed]
        answers = [answer(self.hub, question, chosen) for question in found]
        *accepted, _ = await asyncio.gather(*answers, others[then](command))
        if {"accepted": True} in accepted or then:  # then the answer is on its way, or its connection is gone
            await self._over(command)

    async def _over(self, *commands: str) -> None:
        """Wait for the end of these hooks: so it does not depend on the machine which of them are left."""
        _, others = await asyncio.wait([self.hooks[command] for command in commands], timeout=PATIENCE)
        assert not others

    async def _nothing(self, command: str) -> None: ...

    async def _ran(self, command: str) -> None:
        body = sample("claude-07-post-tool-use") | {"tool_input": {"command": command}, "session_id": command}
        await self.hub.post("hooks/claude-code", body)

    async def _stopped(self, command: str) -> None:
        await self.hub.post("hooks/claude-code", sample("claude-15-stop") | {"session_id": command})

    async def _killed(self, command: str) -> None:
        self.hooks[command].cancel()

    @precondition(lambda self: self.hooks)
    @rule(data=st.data(), how=st.sampled_from(["_ran", "_stopped", "_killed"]))
    def end(self, data: st.DataObject, how: str) -> None:
        command = data.draw(st.sampled_from([*self.hooks]))
        self.run(getattr(self, how)(command))
        self.run(self._over(command))

    @precondition(lambda self: self.hooks)
    @rule()
    def restart(self) -> None:
        self.run(self._restart())

    async def _restart(self) -> None:
        await self._stack.aclose()
        await self._over(*self.hooks)
        self.hub = await self._start()

    @invariant()
    def allowed_is_answered(self) -> None:
        """What has come back so far."""
        self.run(self._check())

    async def _check(self) -> None:
        await asyncio.sleep(0.002)
        for command in [command for command, hook in self.hooks.items() if hook.done()]:
            hook = self.hooks.pop(command)
            if not hook.cancelled() and hook.exception() is None and hook.result() != {}:
                assert hook.result() in (ALLOWED, denied(sample("claude-response-deny")))
                assert await self._on_record(command) == ("allow" if hook.result() == ALLOWED else "deny")

    async def _on_record(self, command: str) -> str | None:
        records = await self.hub.hub.audit.tail(1000)
        asked = [each for each in records if each["action"] == "question.asked"]
        ids = {each["details"]["id"] for each in asked if each["details"]["question"].endswith(f"Bash: {command}")}
        ends = [each for each in records if each["action"] == "question.answered" and each["details"]["id"] in ids]
        return ends[0]["details"]["answer"] if ends else None

    def teardown(self) -> None:
        self.run(self._finish())
        self._runner.close()

    async def _finish(self) -> None:
        for hook in self.hooks.values():
            hook.cancel()
        await asyncio.gather(*self.hooks.values(), return_exceptions=True)
        await self._stack.aclose()


async def _hooked(url: str, body: Any) -> Any:
    async with ClientSession() as http, http.post(f"{url}hooks/claude-code?ask=1", data=json.dumps(body)) as came:
        return json.loads(await came.text())


def machine(tmp_path: Path) -> type[Agents]:
    class Here(Agents):
        places = (tmp_path / str(number) for number in itertools.count())

    return Here


@pytest.mark.timeout(300)
def test_nothing_is_allowed_without_an_answer_on_record(tmp_path: Path) -> None:
    chosen = settings(max_examples=12, stateful_step_count=12, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(machine(tmp_path), settings=chosen)


def test_weakened_something_would_be_allowed_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def recorded(self: Settling, action: str, *args: Any) -> None:
        if action != "question.answered":
            await record(self, action, *args)

    record = Settling.record
    monkeypatch.setattr(Settling, "record", recorded)
    weakened = machine(tmp_path)()
    weakened.ask()
    weakened.allow()
    with pytest.raises(AssertionError):
        weakened.allowed_is_answered()
    weakened.teardown()
