"""What the log hears of what goes on, or comes and goes."""

from collections import Counter
from types import SimpleNamespace

import pytest

from hub.stream.brokers import rarely
from hub.stream.brokers.entries import FACTS, Stream
from hub.stream.brokers.redislog import RedisLog
from hub.wire.names import Cursor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(rarely, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def test_the_same_is_said_once_a_minute(clock: SimpleNamespace) -> None:
    seldom = rarely.Rarely()
    said = []
    for _ in range(13):
        said.append((seldom.may("a"), seldom.may("b")))
        clock.now += 10
    assert said == [(True, True) if n % 6 == 0 else (False, False) for n in range(13)]
    for n in range(rarely.MOST + 1):
        assert seldom.may(str(n))
    assert len(seldom._said) <= rarely.MOST


@pytest.mark.parametrize("weakened", [False, True])
def test_the_last_word_on_an_outage_is_how_it_stands(
    clock: SimpleNamespace, weakened: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that comes and goes each second there is one word, and of its end when it has held."""
    if weakened:
        monkeypatch.setattr(rarely, "HELD", 0.0)
    outage = rarely.Outage()
    outage.say(None)
    for _ in range(5):
        outage.say("NOPERM.")
        clock.now += 1
        outage.say(None)
        clock.now += rarely.HELD / 2
        outage.say(None)
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    cannot, can = "events cannot be kept: NOPERM", "events can be kept again"
    assert told == ([cannot, can] * 5 if weakened else [cannot])
    clock.now += rarely.HELD
    outage.say(None)
    outage.say("OOM.")
    assert [record.levelname for record in caplog.records][-1] == "ERROR"
    assert caplog.text.count(can) == (5 if weakened else 1)


def test_the_log_hears_each_news_of_a_stream_once_a_minute(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    told, stream = RedisLog(), Stream.read([None] * FACTS)
    for _ in range(13):
        told.skipped("abcd", 7, 9)
        told.lost(Cursor("abcd", 9), stream)
        told.foreign("hub:events", 1)
        told.other_epoch("efgh", "noeviction")
        told.failed(ValueError("no"))
        clock.now += 10
    found = Counter(record.funcName for record in caplog.records)
    assert found == dict.fromkeys(("skipped", "lost", "foreign", "other_epoch", "failed"), 3)
    assert "efgh (6 of them since this was told last)" in caplog.text
