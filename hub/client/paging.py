"""The pages of hub:state and hub:history, followed to their end."""

from collections.abc import Mapping
from typing import Any

LISTS = {"hub:state": "items", "hub:history": "events"}
LIMIT = 100  # events that hub:history looks for if nobody says how many


def next_page(command: str, args: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the args that ask for the rest of an answer; None if it has all that was asked for."""
    if command not in LISTS or not answer.get("more"):
        return None
    further = {**args, "after": answer["cursor"]}
    if command == "hub:history":
        further["limit"] = args.get("limit", LIMIT) - len(answer["events"])
        return further if further["limit"] else None
    return further


def joined(command: str, answer: Mapping[str, Any], page: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer and its next page as one. Of a last value that stands in both the later counts."""
    name = LISTS[command]
    rows = [*answer[name], *page[name]]
    if command == "hub:history":
        return {**page, name: rows, "complete": answer["complete"] and page["complete"]}
    found: dict[tuple[str, str], Any] = {}
    for row in rows:
        place = row["event"], row["key"]
        found.pop(place, None)  # to the end: they are in the order in which they last changed
        found[place] = row
    return {**page, name: list(found.values())}
