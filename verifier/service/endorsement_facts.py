"""What a policy may read of how an enrolled machine is trusted: from the stored profile to typed facts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import structs

from verifier.appraisal.alike import of_these, of_this
from verifier.appraisal.correlate import InventoryView
from verifier.claims import CloudInstance, DeviceFacts, EndorsementFacts
from verifier.errors import StoredDataDamaged
from verifier.ports import AttesterRecord
from verifier.service.inventory_facts import inventory_facts


def endorsement_facts(attester: AttesterRecord, inventory: InventoryView | None = None) -> EndorsementFacts:
    """The facts, as enrolment proved and stored them; where no certificate was validated, only the methods.

    What the inventories say is of now.
    """
    proven = _of_record((attester.ek_profile, attester.endorsed_by, attester.ek_issuer))
    if inventory is None:
        return proven
    return structs.replace(proven, inventory=inventory_facts(inventory))


@lru_cache(maxsize=1024)
def _proven(endorsed_by: str, issuer: str | None, encoded: bytes) -> EndorsementFacts:
    """What follows from a stored profile: the machines of one kind share it."""
    profile: dict[str, object] = msgspec.json.decode(encoded)
    ak = _mapping(profile.get("ak"))
    methods = profile.get("methods")
    return EndorsementFacts(
        endorsed_by=endorsed_by,
        methods=tuple(map(str, methods)) if isinstance(methods, list) else None,
        issuer=issuer,
        manufacturer_id=_text(profile, "manufacturer_id"),
        manufacturer=_text(profile, "manufacturer"),
        model=_text(profile, "model"),
        version=_text(profile, "version"),
        virtual=_flag(profile, "virtual"),
        eku_present=_flag(profile, "eku_present"),
        san_present=_flag(profile, "san_present"),
        revocation=_text(profile, "revocation"),
        ak_issuer=_text(ak, "issuer"),
        cloud=_cloud(_mapping(ak.get("gce"))),
        device=_device(profile.get("devices")),
        inventory=None,
    )


def _of_stored(stored: tuple[object, ...]) -> EndorsementFacts:
    profile, endorsed_by, issuer = stored
    return _proven(
        str(endorsed_by),
        None if issuer is None else str(issuer),
        msgspec.json.encode(profile, order="sorted"),
    )


_of_record: Final = of_these(_of_stored, kept=4_096)
"""A record that stays in memory is not encoded to be found again."""


def facts_mapping(facts: EndorsementFacts) -> Mapping[str, object]:
    """The facts as they are stored with a verdict; what is None is left out. Nobody may change it."""
    return _mapped(facts)


def _map(facts: EndorsementFacts) -> Mapping[str, object]:
    built: dict[str, object] = msgspec.to_builtins(facts)
    return {name: value for name, value in built.items() if value is not None}


_mapped: Final = of_this(_map)


def read_facts(stored: Mapping[str, object]) -> EndorsementFacts:
    """The reverse of `facts_mapping`.

    Raises:
        StoredDataDamaged: they are not what this version knows.
    """
    try:
        return msgspec.convert(stored, EndorsementFacts)
    except msgspec.ValidationError as error:
        raise StoredDataDamaged(f"stored facts of an EK cannot be read: {error}") from error


def _cloud(gce: Mapping[str, object]) -> CloudInstance | None:
    if not gce:
        return None
    return CloudInstance(
        project_id=str(gce["project_id"]),
        zone=str(gce["zone"]),
        instance_id=str(gce["instance_id"]),
        instance_name=str(gce["instance_name"]),
    )


def _device(devices: object) -> DeviceFacts | None:
    """The first; a machine has one identity, whose IAK and IDevID agree."""
    if not isinstance(devices, list) or not devices:
        return None
    device = _mapping(devices[0])
    return DeviceFacts(
        issuer=_text(device, "issuer") or "",
        manufacturer=_text(device, "manufacturer"),
        model=_text(device, "model"),
        serial=_text(device, "serial"),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(profile: Mapping[str, object], key: str) -> str | None:
    value = profile.get(key)
    return value if isinstance(value, str) else None


def _flag(profile: Mapping[str, object], key: str) -> bool | None:
    value = profile.get(key)
    return value if isinstance(value, bool) else None
