"""What became of a question, for who wanted to answer it and was not the first."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .http import Connection

ANSWER = "hub:answer"
QUESTIONS = "/api/state?topics=hub:question"


def was_not_first(command: str, result: Any) -> bool:
    """Whether this is an answer to a question that did not count."""
    return command == ANSWER and isinstance(result, Mapping) and result.get("accepted") is False


def what_counts(hub: Connection, id: Any) -> str:
    """Who has answered the question, or why nobody will. Raises as `Connection.ask`."""
    found = _question(hub, id)
    match found.get("status"):
        case "answered":
            return f"Yours is not the answer: {found.get('by')} has answered {found.get('answer')!r} before."
        case "timed_out" if found.get("answer") is not None:
            return f"Yours is not the answer: the time was up, so {found['answer']!r} counts."
        case "timed_out":
            return "Yours is not the answer: the time was up."
        case "withdrawn":
            return "Yours is not the answer: the question was withdrawn."
    return "Yours is not the answer: there is no such question, or it has been over for long."


def _question(hub: Connection, id: Any) -> Mapping[str, Any]:
    """The last value of a question, empty if there is none."""
    page = hub.ask("GET", QUESTIONS)
    while True:
        for item in page["items"]:
            if item["key"] == id:
                return item["data"] if isinstance(item["data"], dict) else {}
        if not page["more"]:
            return {}
        page = hub.ask("GET", f"{QUESTIONS}&after={quote(page['cursor'])}")
