"""What a webhook sends: a Standard Webhook (standardwebhooks.com, specification 1.0), or a CloudEvent 1.0 in structured
mode."""

import base64
import hashlib
import hmac
from typing import NamedTuple

from ..configfile.shapes import Webhook
from ..stream.events import Event
from ..wire.strictjson import dumpb, dumps
from ..wire.timestamps import now
from .follower import Missing


class Outgoing(NamedTuple):
    """What is sent of one event, or of a gap."""

    id: str
    content_type: str
    body: bytes


def headers(outgoing: Outgoing, secret: bytes | None, seconds: int) -> dict[str, str]:
    """What goes with one try, `seconds` after the beginning of 1970."""
    headers = {
        "webhook-id": outgoing.id,
        "webhook-timestamp": str(seconds),
        "content-type": outgoing.content_type,
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, outgoing.id, seconds, outgoing.body)
    return headers


def signature(secret: bytes, id: str, seconds: int, body: bytes) -> str:
    """The signature of one try: HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{id}.{seconds}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def of_event(event: Event, entry: Webhook) -> Outgoing:
    """What is sent of an event, in the form that the entry wants."""
    cursor = event.cursor
    if entry.format == "standard":
        return _standard(str(cursor), event.name, event.timestamp, event.body)
    return _cloudevent(str(cursor), cursor.epoch, event.name, event.timestamp, str(cursor.seq), event.body)


def of_gap(gap: Missing, entry: Webhook) -> Outgoing:
    """As `of_event`, of events that are not kept any more."""
    id, data = f"gap-{gap.before}", dumpb(gap.data)
    if entry.format == "standard":
        return _standard(id, "hub:gap", now(), data)
    return _cloudevent(id, gap.before.epoch, "hub:gap", now(), str(gap.before.seq - 1), data)


def _standard(id: str, type: str, timestamp: str, data: bytes) -> Outgoing:
    body = b'{"type":%b,"timestamp":"%b","data":%b}' % (dumpb(type), timestamp.encode(), data)
    return Outgoing(id, "application/json", body)


def _cloudevent(id: str, epoch: str, type: str, time: str, sequence: str, data: bytes) -> Outgoing:
    head = {
        "specversion": "1.0",
        "id": id,
        "source": f"urn:hub:{epoch}",
        "type": type,
        "time": time,
        "datacontenttype": "application/json",
        "sequence": sequence,
    }
    return Outgoing(id, "application/cloudevents+json", f'{dumps(head)[:-1]},"data":'.encode() + data + b"}")
