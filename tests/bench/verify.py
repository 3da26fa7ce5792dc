"""How many records a second `hub audit verify` checks: python tests/bench/verify.py [--records 200000]

The log is written by the hub's own writer, record by record what calls leave: half of them `command.called`, with args,
half `command.finished`. Best and median of the rounds; a busy machine is no bug.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hub.audit.records import Entry, entry
from hub.audit.verdict import INTACT
from hub.audit.verify import verify
from hub.audit.writer import LogFile
from hub.wire.ids import new_id

CALLS = (
    ("hub:ping", {"n": 7}),
    ("hub:history", {"limit": 3, "topics": ["task:*"]}),
    ("orders:cancel", {"order": 4711, "reason": "the customer has called"}),
    ("hub:state", {"topics": ["agent:*", "task:*"]}),
)


def calls(count: int) -> Iterator[Entry]:
    actors = [{"client": new_id(), "peer": f"127.0.0.1:{40000 + n}", "uid": 1000} for n in range(20)]
    for number in range(count):
        command, args = CALLS[number % len(CALLS)]
        actor, details = actors[number % len(actors)], {"id": new_id(), "command": command}
        yield entry("command.called", actor, "OPERATOR", {**details, "args": args})
        yield entry("command.finished", actor, "OPERATOR", {**details, "outcome": "ok", "ms": number % 977 / 100})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        log = LogFile(Path(directory))
        entries = list(calls(options.records // 2))
        for start in range(0, len(entries), 4096):
            log.append(entries[start : start + 4096])
        log.close()
        rates = []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            verdict = verify(Path(directory))
            rates.append(verdict.records / (time.perf_counter() - begun))
            assert verdict.status == INTACT, verdict
    print(f"{verdict.records} records: {max(rates):,.0f} a second at best, median {statistics.median(rates):,.0f}")


if __name__ == "__main__":
    main()
