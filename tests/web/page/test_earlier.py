"""What the page finds in the store, at a start, of what is no longer in memory."""

from pathlib import Path

from running import hub_app, until

from hub.web.page.frame import BOARD
from hub.web.page.slices import Slices


async def test_threats_and_casts_that_are_not_in_memory_are_found_at_a_start(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as first:
        publish = first.hub.publish
        await publish("security:threat_detected", {"type": "inject", "severity": "critical"})
        await publish("governance:vote_cast", {"vote_id": "v", "agent": "a", "option": "approve", "topic": "Merge?"})
        for number in range(3):
            await publish("a:b", {"n": number})
        await publish("governance:vote_cast", {"vote_id": "v", "agent": "b", "option": "reject"})
        await publish("security:threat_detected", {"type": "leak", "severity": "high", "mitigated": True})
    async with hub_app(tmp_path, window_events=1) as second:
        board = second.app[BOARD]
        await second.hub.publish("governance:vote_cast", {"vote_id": "v", "agent": "a", "option": "abstain"})
        await until(lambda: len(board.counted.threats) == 2, "what was found in the store")
        await board.catch_up(Slices())
        assert [threat.type for threat in board.counted.threats] == ["inject", "leak"]
        (vote,) = board.counted.open_votes()
        assert (vote.topic, vote.ballots) == ("Merge?", {"a": "abstain", "b": "reject"})
        assert "inject" in (await second.get("", panel="threats")).text
        await second.post("api/commands/hub:seen", {"event": "security:threat_detected", "key": "1"})
        assert "inject" not in (await second.get("", panel="threats")).text
