"""Which layout of its tables a store has, and how one of an older version becomes that of this one.

SQLite keeps two numbers for its users in the head of a file: whose it is (`application_id`), and of which layout
(`user_version`). A file without them is a hub's of before there were layouts, or a new one.
"""

import json
from typing import TYPE_CHECKING, Any

from ...errors import UsageError

if TYPE_CHECKING:
    from sqlite3 import Connection

APPLICATION = int.from_bytes(b"hubE")
LAYOUT = 1  # one more with each change that an older hub could not read


def refuse_newer(sql: "Connection", path: object) -> None:
    """Raise UsageError for a file that this hub does not know how to read. Nothing has been written to it before."""
    application, layout = _number(sql, "application_id"), _number(sql, "user_version")
    if application not in (0, APPLICATION):
        raise UsageError(f"{path} is another program's SQLite file: move it away, or name another state directory.")
    if application == APPLICATION and layout > LAYOUT:
        raise UsageError(
            f"The events in {path} were kept by a newer hub (layout {layout}; this one knows {LAYOUT}): "
            "run that one, or move them away and begin anew."
        )


def is_up_to_date(sql: "Connection") -> bool:
    return (_number(sql, "application_id"), _number(sql, "user_version")) == (APPLICATION, LAYOUT)


def bring_up_to_date(sql: "Connection") -> None:
    """Make the tables, which are there, those of this version, and note that. Belongs inside a transaction: whoever is
    killed in it begins once more."""
    _say_which_event_has_ended(sql)
    sql.execute(f"PRAGMA application_id = {APPLICATION}")
    sql.execute(f"PRAGMA user_version = {LAYOUT}")


def _number(sql: "Connection", pragma: str) -> int:
    return int(sql.execute(f"PRAGMA {pragma}").fetchone()[0])


def _say_which_event_has_ended(sql: "Connection") -> None:
    """To layout 1: a hub:stale names the number of the event that it ends. Before, it was the newest of the key; 0 if
    that is not kept any more."""
    stale = "SELECT seq, body FROM events WHERE name = 'hub:stale' ORDER BY seq"
    for seq, body in sql.execute(stale).fetchall():
        data: dict[str, Any] = json.loads(body)
        if "seq" not in data:
            data["seq"] = _newest(sql, data["event"], data["key"], seq)
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
            sql.execute("UPDATE events SET body = ?, size = size + ? WHERE seq = ?", (text, len(text) - len(body), seq))


def _newest(sql: "Connection", name: str, key: str, before: int) -> int:
    either = " UNION ALL ".join(
        f"SELECT max(seq) AS seq FROM {table} WHERE name = :name AND key = :key AND seq < :before"
        for table in ("events", "state")
    )
    found = sql.execute(f"SELECT max(seq) FROM ({either})", {"name": name, "key": key, "before": before}).fetchone()
    return found[0] or 0
