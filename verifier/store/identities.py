"""What a guest says of itself, as columns. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import structs

from verifier.ports import GuestIdentity
from verifier.store import values
from verifier.store.rows import Values

MAX_UUIDS: Final = 64
"""SMBIOS UUIDs remembered of one attester: enough to call it a clone, and a bound on what it can fill."""


def merged(before: GuestIdentity, said: GuestIdentity) -> GuestIdentity:
    """What the guest says of itself now; what it does not mention stays as it was."""
    new = {
        name.name: value for name in structs.fields(said) if (value := getattr(said, name.name)) is not None
    }
    return structs.replace(before, **new)


def identity_values(attester_id: str, identity: GuestIdentity, uuids: frozenset[str]) -> Values:
    """Columns of `attester` that follow from what a guest says of itself."""
    return {
        "b_id": attester_id,
        "b_identity": values.json_text(identity),
        "b_smbios_uuids": values.json_text(sorted(uuids)),
        "b_search_text": values.search_text(attester_id, identity.hostname, uuids),
    }


def uuid_values(attester_id: str, tenant: str, claimed: str) -> Values:
    """A row of `attester_uuid`. The key is bounded, whatever a guest sends: a long claim is indexed by digest."""
    return {"attester_id": attester_id, "tenant": tenant, "smbios_uuid": uuid_key(claimed)}


def uuid_key(claimed: str) -> str:
    """The form in which a claimed UUID is looked up."""
    key = (values.plain_text(claimed) or "").strip().lower()
    longest = 64
    return key if len(key) <= longest else hashlib.sha256(key.encode()).hexdigest()
