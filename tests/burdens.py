"""Requests and frames of a chosen size that are bad, or good and laborious: what one of them may cost is bounded.

A body is a function from a size to bytes of about that size. `VALUES` are JSON, to be put anywhere; `EVENTS` and
`LINES` are published; `ENVELOPES` and `SCHEMAS` are frames of a WebSocket; `of_fields` makes a body for each field of a
schema; `CHUNKS` are bodies as they are on the wire, `HEADS` the whole of a request without a body.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

Body = Callable[[int], bytes]

JSON, NDJSON = "application/json", "application/x-ndjson"


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def repeated(piece: str, head: str = "", tail: str = "", joint: str = "") -> Body:
    """The piece, as often as there is room for it; `{n}` in it is another number each time."""

    def body(size: int) -> bytes:
        room = size - len(head) - len(tail)
        count = max(1, room // (len(piece.replace("{n}", "1234567")) + len(joint)))
        return (head + joint.join(piece.replace("{n}", f"{n:07d}") for n in range(count)) + tail).encode()

    return body


# ---- values: one text of JSON each, as long as asked for

VALUES: dict[str, Body] = {
    "small numbers": repeated("0", "[", "]", ","),
    "integers of 20 digits": repeated("1234567890{n}890", "[", "]", ","),
    "floats": repeated("1.5e-7", "[", "]", ","),
    "long floats": repeated("0." + "1" * 400, "[", "]", ","),
    "words": repeated('"a"', "[", "]", ","),
    "literals": repeated("null", "[", "]", ","),
    "lists": repeated("[]", "[", "]", ","),
    "objects": repeated("{}", "[", "]", ","),
    "objects with a key": repeated('{"a":1}', "[", "]", ","),
    "keys": repeated('"key{n}":0', "{", "}", ","),
    "keys of words": repeated('"key{n}":"a"', "{", "}", ","),
    "a key twice": repeated('"key{n}":0', '{"key0000001":0,', "}", ","),
    "empty key, many times": repeated('"":0', "{", "}", ","),
    "deep lists": repeated("[" * 24 + "]" * 24, "[", "]", ","),
    "deep objects": repeated('{"a":' * 24 + "0" + "}" * 24, "[", "]", ","),
    "too deep": repeated("[" * 64),
    "a text": repeated("a", '"', '"'),
    "a text of brackets": repeated("[", '"', '"'),
    "a text of quotes": repeated('\\"', '"', '"'),
    "a text of backslashes": repeated("\\\\", '"', '"'),
    "a text of escapes": repeated("\\u00e9", '"', '"'),
    "a text of pairs": repeated("\\ud83d\\ude00", '"', '"'),
    "a text of lone surrogates": repeated("\\ud83d", '"', '"'),
    "a text of controls": repeated("\\u0001", '"', '"'),
    "a text that is no ASCII": repeated("é", '"', '"'),
    "a text without its end": repeated("a", '"'),
    "texts without their end": repeated('"a', "["),
    "a long integer": repeated("1"),
    "a long fraction": repeated("1", "0."),
    "a large exponent": repeated("0", "1e"),
    "spaces": repeated(" ", "", "0"),
    "line breaks": repeated("\n", "", "0"),
    "tokens": repeated('"Bearer abc{n}x"', "[", "]", ","),
    "keys that name secrets": repeated('"password{n}":0', "{", "}", ","),
    "keys that end in what names a secret": repeated('"{n}_token":0', "{", "}", ","),
    "keys that may name secrets": repeated('"{n}_tokens":0', "{", "}", ","),
    "keys that name none after all": repeated('"has{n}_pwd":0', "{", "}", ","),
    "keys that hold a credential": repeated('"Bearer a{n}":0', "{", "}", ","),
    "keys that may hold one": repeated('"Basic {n} token":0', "{", "}", ","),
    "objects with a key that names a secret": repeated('{"pwd":1}', "[", "]", ","),
    "short texts that hold a credential": repeated('"Bearer a"', "[", "]", ","),
    "deeper lists": repeated("[" * 28 + "]" * 28, "[", "]", ","),
    "keys that are secrets": repeated('"ghp_{n}a":0', "{", "}", ","),
    "JSON in a text": repeated('{\\"token\\":\\"{n}\\"},', '"[', ']"'),
    "nothing but opening quotes of JSON": repeated('\\"token\\":', '"', '"'),
}


def data(name: str, value: Body, **more: Any) -> Body:
    """An event of this name whose data is the value."""
    return inside(f'{{"event":"{name}","data":', value, "}")


def inside(head: str, value: Body, tail: str) -> Body:
    return lambda size: head.encode() + value(max(1, size - len(head) - len(tail))) + tail.encode()


# ---- the fields of the known event types, and the args of the commands

TYPES: dict[str, str] = {
    "agent:status_change": '"id":"x","status":"idle"',
    "task:progress": '"id":"x"',
    "governance:vote_cast": '"vote_id":"x"',
    "security:threat_detected": '"type":"x","severity":"low"',
    "audit:new_event": '"action":"x"',
    "agent:tool_call": '"agent":"x","tool":"Bash","phase":"started"',
    "alert:status": '"id":"x","status":"firing"',
    "memory:stats_update": '"total_entries":1',
}
WRONG: dict[str, Body] = {
    "wrong by key": repeated('"k{n}":[]', "{", "}", ","),
    "words by key": repeated('"k{n}":"a"', "{", "}", ","),
    "votes by key": repeated('"k{n}":"approve"', "{", "}", ","),
    "numbers by key": repeated('"k{n}":7', "{", "}", ","),
    "lists": repeated("[]", "[", "]", ","),
    "words": repeated('"a"', "[", "]", ","),
    "patterns": repeated('"a{n}:*"', "[", "]", ","),
    "a text": repeated("a", '"', '"'),
    "an integer": lambda size: b"1" * 20,
}


def of_fields(fields: dict[str, list[str]], frame: Callable[[str, str], tuple[str, str]]) -> Iterator[tuple[str, Body]]:
    """Every wrong value in every field of every one, and unknown fields."""
    for name, known in fields.items():
        head, tail = frame(name, "")
        yield f"{name}: unknown fields", inside(head, repeated('"x{n}":0', "", "", ","), tail)
        for field in known:
            for what, value in WRONG.items():
                head, tail = frame(name, field)
                yield f"{name}: {field}: {what}", inside(f'{head}"{field}":', value, tail)


def event_of(name: str, field: str) -> tuple[str, str]:
    needed = ",".join(part for part in TYPES.get(name, "").split(",") if part and not part.startswith(f'"{field}"'))
    return f'{{"event":"{name}","data":{{{needed}{"," if needed else ""}', "}}"


def args_of(name: str, field: str) -> tuple[str, str]:
    return "{", "}"


def frame_of(name: str, field: str) -> tuple[str, str]:
    return f'{{"type":"command","id":"1","payload":{{"command":"{name}","args":{{', "}}}"


FRAME = '{"type":"command","id":"1","payload":{"command":"a:b"'
ENVELOPES: dict[str, Body] = {
    "unknown fields of a frame": repeated('"x{n}":0', f"{FRAME}}},", "}", ","),
    "unknown fields of a payload": repeated('"x{n}":0', f"{FRAME},", "}}", ","),
    "a long type": repeated("a", '{"type":"', '"}'),
    "a long id": repeated("a", '{"type":"command","id":"', '","payload":{"command":"a:b"}}'),
    "a long name": repeated("a", '{"type":"command","id":"1","payload":{"command":"a:', '"}}'),
    "a name of many parts": repeated("a:", '{"type":"command","id":"1","payload":{"command":"', 'a"}}'),
    "a long time": repeated("1", '{"type":"command","id":"1","timestamp":"2026-01-01T00:00:00.', 'Z","payload":{}}'),
    "a long time without an end": repeated("1", '{"type":"command","id":"1","timestamp":"', '","payload":{}}'),
    "not JSON": repeated("a"),
    "a list": repeated("{}", "[", "]", ","),
    "args that are a list": repeated("0", f'{FRAME},"args":[', "]}}", ","),
}


def offered(schema: Any) -> Body:
    """A frame that offers as many commands with this schema as there is room for."""
    head = '{"type":"command","id":"1","payload":{"command":"hub:provide","args":{"commands":['
    text = json.dumps(schema, separators=(",", ":"))
    return lambda size: repeated(f'{{"name":"a:b{{n}}","args":{text}}}', head, "]}}}", ",")(
        min(size, len(head) + 256 * (len(text) + 30) + 3)
    )


def doubling(depth: int) -> dict[str, Any]:
    """Each refers twice to the next: two to the power of `depth` ways through a few lines."""
    both = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": both | {f"a{depth}": {}}, "$ref": "#/$defs/a0"}


SCHEMAS: dict[str, Body] = {
    "empty": offered({}),
    "properties": offered({"properties": {f"a{n}": {} for n in range(18)}}),
    "schemas without end": repeated(
        "{}",
        '{"type":"command","id":"1","payload":{"command":"hub:provide","args":'
        '{"commands":[{"name":"a:b","args":{"allOf":[',
        "]}}]}}}",
        ",",
    ),
    "values that are none": offered({"properties": {f"a{n}": 5 for n in range(200)}}),
    "ways that double, a few": offered(doubling(7)),
    "ways that double": offered(doubling(10)),
    "ways that double, many": offered(doubling(40)),
    "lists of names": offered({"dependentRequired": {f"a{n}": ["b", "c", "d"] for n in range(100)}}),
    "a list of values": offered({"enum": list(range(3000))}),
    "expressions": offered({"properties": {f"a{n}": {"pattern": f"((a|b){{1,9}}){{1,9}}{n}"} for n in range(8)}}),
    "a long expression": offered({"pattern": "[ab]c?" * 680}),
    "nothing, repeated": offered({"pattern": "(((){9999}){9999}){9999}"}),
    "much of nothing, repeated": offered({"pattern": "(" + "a{0}" * 1000 + "b){990}"}),
}

EVENTS: dict[str, Body] = {
    "an array of numbers": repeated("0", "[", "]", ","),
    "an array of objects": repeated("{}", "[", "]", ","),
    "an array of bad names": repeated('{"event":"x","data":0}', "[", "]", ","),
    "an array of good events": repeated('{"event":"a:b","data":0}', "[", "]", ","),
    "a thousand with unknown fields": lambda size: dumps(
        [{f"x{n:07d}": 0 for n in range(size // 13_000)} for _ in range(1000)]
    ),
    "a thousand with wrong votes": lambda size: dumps(
        [
            {"event": "governance:vote_cast", "data": {"vote_id": "x", "votes": dict.fromkeys(map(str, range(k)), 0)}}
            for k in [max(1, (size // 1000 - 70) // 8)] * 1000
        ]
    ),
    "a thousand that are good": lambda size: dumps(
        [{"event": "task:progress", "data": {"id": str(n), "message": "x" * (size // 1000 - 80)}} for n in range(1000)]
    ),
    "unknown fields of an event": repeated('"x{n}":0', '{"event":"a:b","data":0,', "}", ","),
    "a long name": repeated("a", '{"event":"a:', '","data":0}'),
    "a name of many parts": repeated("a:", '{"event":"', 'a","data":0}'),
    "a long id": repeated("a", '{"event":"a:b","data":0,"id":"', '"}'),
    "a long ttl": repeated("1", '{"event":"a:b","data":0,"ttl":0.', "}"),
}
LINES: dict[str, Body] = {
    "lines of numbers": repeated("0\n"),
    "empty lines": repeated("\n"),
    "lines of spaces": repeated(" \n"),
    "lines of objects": repeated("{}\n"),
    "lines of good events": repeated('{"event":"a:b","data":0}\n'),
    "lines that are not JSON": repeated("a\n"),
    "bad lines behind good ones": repeated("x", '{"event":"a:b","data":0}\n' * 900),
    "carriage returns": repeated("\r"),
}


# ---- bodies in chunks, as they are on the wire; but for the end of the last one

CHUNKS: dict[str, Body] = {
    "of one byte": repeated("1\r\n \r\n"),
    "of five bytes": repeated("5\r\n     \r\n"),
    "of a hundred bytes": repeated("64\r\n" + " " * 100 + "\r\n"),
    "with extensions": repeated("1;a=b\r\n \r\n"),
    "with a long extension": repeated("a", "1;", "\r\n \r\n"),
    "with zeros before the size": repeated("0", "", "1\r\n \r\n"),
}

# ---- heads of requests: as large as a line may be, in several lines


def asked(target: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: 127.0.0.1:PORT", "Connection: close", *lines, "", ""]).encode()


def queried(path: str, piece: str, joint: str = "&") -> Body:
    return lambda size: asked(f"{path}?" + repeated(piece, "", "", joint)(size - 100).decode())


def headed(name: str, piece: str) -> Body:
    return lambda size: asked("/healthz", f"{name}: " + repeated(piece)(size - 100).decode())


HEADS: dict[str, Body] = {
    **{
        f"{path} {what}": queried(path, piece, joint)
        for path in ("/api/events", "/api/state", "/events", "/ws")
        for what, piece, joint in (
            ("topics", "topics=a{n}:b", "&"),
            ("one list of topics", "topics=a:b" + ",a:b" * 8, "&"),
            ("bad topics", "topics=a", "&"),
            ("commas", "topics=,,,,", "&"),
            ("stars", "topics=*:*:*:*:*", "&"),
            ("unknown names", "x{n}=1", "&"),
            ("after", "after=1", "&"),
            ("a long cursor", "after=" + "1" * 50, "1" * 50),
            ("ampersands", "&", ""),
            ("escapes", "topics=%41%41%3A%2a", "&"),
        )
    },
    "a long limit": queried("/api/events", "limit=" + "9" * 50, "9" * 50),
    "Last-Event-ID": lambda size: asked("/events", "Last-Event-ID: " + "1" * (size - 100)),
    "cookies": headed("Cookie", "a{n}=1; "),
    "one cookie": headed("Cookie", "a"),
    "quotes in a cookie": headed("Cookie", '"\\'),
    "Accept": headed("Accept", "text/plain;q=0.{n},"),
    "Forwarded": headed("Forwarded", "for=1,"),
    "Origin": headed("Origin", "a"),
    "Connection": headed("Connection", "a,"),
    "Authorization": headed("Authorization", "Bearer "),
    "many headers": lambda size: asked("/healthz", *[f"X-{n}: {'a' * (size // 60)}" for n in range(60)]),
    "a long path": lambda size: asked("/" + "a" * (size - 100)),
    "a path of slashes": lambda size: asked("/" * (size - 100)),
    "a path of escapes": lambda size: asked("/%41" * ((size - 100) // 4)),
    "a long command": lambda size: asked("/api/commands/" + "a:" * (size // 2 - 100)),
}
