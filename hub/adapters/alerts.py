"""Alertmanager and Grafana: each alert of a notification by itself. They send the same, but for a few words."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import HubError
from .identities import part_of_id
from .reading import first_line, identity, mapping, moment, text
from .shape import Event, Given, Taken, passed_over

MOST = 5000  # alerts of one notification
LABELS = 32
NEVER = "0001-"  # how the end of an alert begins that has none


def sender(name: str) -> Callable[[Given], Taken]:
    """The adapter of one of the two."""

    def take(given: Given) -> Taken:
        """Each alert as alert:status; a repeat of the same is kept once. Raises HubError for too many."""
        alerts = given.body.get("alerts")
        if not isinstance(alerts, list):
            return passed_over({})
        if len(alerts) > MOST:  # all or none: nobody would miss the rest
            sentence = f"{len(alerts)} alerts in one notification; send at most {MOST} (max_alerts of the receiver)."
            raise HubError("too_large", sentence, status=413)
        found = [_event(name, mapping(alert), given.body) for alert in alerts]
        return Taken(list({event.id: event for event in found if event}.values()))

    return take


def _event(name: str, alert: Mapping[str, Any], whole: Mapping[str, Any]) -> Event | None:
    labels, notes = mapping(alert.get("labels")), mapping(alert.get("annotations"))
    status = text(alert.get("status") or whole.get("status"))
    if status not in ("firing", "resolved"):
        return None
    begun, ended = text(alert.get("startsAt")), text(alert.get("endsAt"))
    key = part_of_id(alert.get("fingerprint")) or _hash(*(f"{k}={v}" for k, v in sorted(labels.items())))
    data: dict[str, Any] = {
        "title": first_line(labels.get("alertname")) or first_line(whole.get("title")),
        "severity": identity(labels.get("severity")).lower(),
        "source": name,
        "description": text(notes.get("summary") or notes.get("description") or notes.get("message"), 500),
        "url": text(alert.get("generatorURL") or whole.get("externalURL"), 500),
        "started_at": moment(begun),
        "ended_at": None if ended.startswith(NEVER) else moment(ended),
        "labels": {identity(label): text(value) for label, value in list(labels.items())[:LABELS]},
    }
    told = {"id": key, "status": status, **{field: value for field, value in data.items() if value}}
    return Event("alert:status", told, _hash(name, key, status, begun, ended))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]
