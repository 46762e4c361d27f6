"""An event as others read it: CloudEvents 1.0 in JSON, the same bytes on every stream and every attempt. Pure."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from verifier.ports_events import EventRecord

MEDIA_TYPE: Final = "application/cloudevents+json"
TYPE_PREFIX: Final = "vtpm-attest."
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - says that what follows is one
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def event_id(event: EventRecord) -> str:
    """The same for one event wherever it is sent; the time is in it so that a restored database repeats none."""
    return f"evt-{event.position}-{round((event.at - _EPOCH).total_seconds() * 1_000_000):x}"


def document(event: EventRecord, source: str) -> bytes:
    """The event in the JSON format (CloudEvents 1.0.2, JSON Event Format, section 2).

    Args:
        event: as stored; two calls with one event and source give the same bytes.
        source: URL of this verifier; together with `id` it names the event.
    """
    data: dict[str, object] = dict(event.data)
    if event.attester_id is not None:
        data |= {"attester_id": event.attester_id, "labels": dict(event.labels)}
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id(event),
            "source": source,
            "type": TYPE_PREFIX + event.kind.value,
            "subject": event.subject,
            "time": event.at.isoformat().replace("+00:00", "Z"),
            "sequence": str(event.position),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def secret_text(secret: bytes) -> str:
    """A signing secret as it is shown, once (Standard Webhooks, "Signature scheme")."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(secret: bytes, message_id: str, body: bytes, at: datetime) -> Mapping[str, str]:
    """The headers of Standard Webhooks 1.0 over these bytes: id, whole seconds since 1970, HMAC-SHA256 over
    `id.timestamp.body`. Proves to whoever has the secret who sent it and when, and nothing to anyone else.
    """  # noqa: D205 - one sentence does not fit one line
    timestamp = str(int((at - _EPOCH).total_seconds()))
    signature = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
