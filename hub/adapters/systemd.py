"""systemd: a unit that has failed, from `OnFailure=` and the environment of the unit that it starts."""

from typing import Any

from .identities import hidden, part_of_id
from .reading import identity, mapping, text
from .shape import Event, Given, Taken, passed_over
from .turns import TASK


def take(given: Given) -> Taken:
    """A task for the unit. Where several have failed at once, the environment says nothing of any."""
    told = mapping(given.body.get("env"))
    words = given.body.get("argv")
    unit = identity(given.event or told.get("MONITOR_UNIT"), 200)
    if isinstance(words, list) and words:
        unit = identity(words[0], 200) or unit
    if not unit:
        return passed_over({})
    result, status = text(told.get("MONITOR_SERVICE_RESULT")), text(told.get("MONITOR_EXIT_STATUS"))
    task: dict[str, Any] = {"id": f"systemd:{hidden(unit)}", "name": unit, "status": "succeeded"}
    if result != "success":
        error = f"{result} ({status})" if result and status else result or "failed"
        task |= {"status": "failed", "error": error}
    run = part_of_id(told.get("MONITOR_INVOCATION_ID"))
    known = given.last.value(TASK, task["id"]) or {}
    is_told = run and (run, task["status"]) == (known.get("invocation"), known.get("status"))
    task["ended_at"] = known.get("ended_at", given.now) if is_told else given.now  # told again, it is the same end
    return Taken([Event(TASK, task | ({"invocation": run} if run else {}))])
