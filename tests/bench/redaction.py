"""How long redaction holds the loop: hostile inputs of 64 KiB, four times as much, and 1 MiB.

    python tests/bench/redaction.py

Linear work takes four times as long for four times as much: the ratio shows what grows faster. At most 100 ms for
64 KiB and 400 ms for 1 MiB are promised.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from corpus import HOSTILE

from hub import redaction, secretnames

KIB = 1024


def text(piece: str) -> Callable[[int], Any]:
    return lambda size: piece * (size // len(piece))


def after(head: str, piece: str) -> Callable[[int], Any]:
    return lambda size: head + piece * (size // len(piece))


def keys(pattern: str) -> Callable[[int], Any]:
    return lambda size: {pattern.format(number): 0 for number in range(size // (len(pattern) + 8))}


def nested(size: int) -> Any:
    """JSON in a text in JSON in a text, as deep as the size allows."""
    value: Any = {"password": "x", "pad": "y" * (size // 3)}
    while len(encoded := json.dumps(value)) < size:
        value = {"text": encoded}
    return value


CORPUS: dict[str, Callable[[int], Any]] = {
    **{f"text of {piece!r}": text(piece) for piece in HOSTILE},
    **{f"Bearer and {piece!r}": after("Bearer ", piece) for piece in ("a", "/", "-", " ", "%20")},
    **{f"a URL and {piece!r}": after("x://a:b/", piece) for piece in ("a", ":", "://", "/", "@", "a:")},
    **{
        f"a secret member and {piece!r}": after('{"token":', piece) for piece in ("[", "[]", "a[", '"', '\\"', " ", "{")
    },
    **{
        f"the value of a secret and {piece!r}": after(head, piece)
        for head, piece in (
            *(
                ("token = (", "("),
                ("token = (", "'a',"),
                ("token = f(", '"a" + '),
                ('token = """', '"'),
                ("token = '", "\\'"),
            ),
            *(
                ("token = x", " or x"),
                ('token = "a"', ' "b"'),
                ('"token": f(', "{"),
                ('"token": """', "'"),
                ("token: |\n ", "a\n "),
            ),
            *(
                ("<token>", "a"),
                ("<token ", "<"),
                ('["--token","', '","'),
                ("token: x[", "a: "),
                ('token = "a" or ', "("),
            ),
        )
    },
    "keys that are secrets": keys("ghp_{:08x}"),
    "keys that hold secrets": keys("{:08x} AKIAAAAAAAAAAAAAAAA"),
    "keys that name secrets": keys("token{:08d}"),
    "keys that name counts": keys("{:08d}max_tokens"),
    "keys": keys("key{:08d}"),
    "keys in capitals": keys("{:08d}" + "A" * 100),
    "one key": lambda size: {"A" * size: 1},
    "one key of words": lambda size: {"a-" * (size // 2): 1},
    "one key that is a secret": lambda size: {"sk-a1b2c3 " * (size // 10): 1},
    "keys, and one secret": lambda size: {**keys("key{:08d}")(size), "password": 1},
    "numbered keys, in the way": lambda size: {
        **{f"[redacted] {number}": 0 for number in range(size // 32)},
        **{f"ghp_{number:08x}": 0 for number in range(size // 32)},
    },
    "texts": lambda size: ["Bearer abc123"] * (size // 16),
    "pairs": lambda size: [["password", "a1b2c3d4"]] * (size // 26),
    "pairs, and one that is none": lambda size: [[[["password", "a"]] * (size // 32), [["a"], 1]]],
    "lists": lambda size: [[]] * (size // 3) + ["Bearer abc123"],
    "dicts of tokens": lambda size: [{"tokens": {"a": 1}}] * (size // 22),
    "JSON in JSON": nested,
}


def seconds(value: Any) -> float:
    """The longest step of an event loop in which it is cleaned as an event is: what is looked through in a thread is
    nobody's step."""
    times = []
    for _ in range(3):
        redaction._harmless.clear()
        secretnames._use.cache_clear()
        steps = [0.0]

        def timed(handle: asyncio.Handle, steps: list[float] = steps) -> None:
            start = time.thread_time()
            RUN(handle)
            steps.append(time.thread_time() - start)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
        asyncio.run(cleaned(value))
        times.append(max(steps))
    return min(times)


RUN = asyncio.Handle._run


async def cleaned(value: Any) -> None:
    await redaction.redact_each([value], asyncio.to_thread)


def main() -> int:
    bad = 0
    for name, make in CORPUS.items():
        small, quarter, large = (seconds(make(size)) for size in (64 * KIB, 256 * KIB, 1024 * KIB))
        ratio = large / quarter
        verdict = "" if small <= 0.1 and large <= 0.4 and (ratio < 8 or large < 0.02) else "  TOO MUCH"
        bad += bool(verdict)
        if verdict or "-v" in sys.argv:
            line = f"64 KiB {small * 1e3:6.1f} ms, 1 MiB {large * 1e3:6.1f} ms = {ratio:.1f} x 256 KiB"
            print(f"{name:45.45} {line}{verdict}")
    print(f"{len(CORPUS) - bad} of {len(CORPUS)} are linear and in time")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
