"""systemd: a unit that has failed, from `OnFailure=` and the environment of the unit that it starts."""

from .identities import hidden
from .reading import identity, mapping, text
from .shape import Event, Given, Taken, passed_over


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
    task = {"id": f"systemd:{hidden(unit)}", "name": unit, "ended_at": given.now}
    if result == "success":
        return Taken([Event("task:progress", task | {"status": "succeeded"})])
    error = f"{result} ({status})" if result and status else result or "failed"
    return Taken([Event("task:progress", task | {"status": "failed", "error": error})])
