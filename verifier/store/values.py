"""How a value of a record is stored in a column, and read back. Pure; the only place that knows both forms.

Times are integer microseconds since 1970-01-01 UTC: they sort, have no zone and are the same in every database.
A u64 is kept as the signed integer of the same 64 bits, as neither SQLite nor PostgreSQL has an unsigned one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from verifier.appraisal.inventory import InventoryEvent, InventoryMachine
from verifier.appraisal.lineage import Lineage
from verifier.errors import StoredDataDamaged
from verifier.ports import GuestIdentity, Scope

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SIGN: Final = 1 << 63
_MODULUS: Final = 1 << 64

_SEARCH_BYTES: Final = 2_048
"""An index entry of PostgreSQL holds 2,704 bytes, its other columns included."""

DAY: Final = 86_400_000_000
"""Microseconds."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises over content that nobody here wrote."""

_encoder: Final = msgspec.json.Encoder()
_identity_decoder: Final = msgspec.json.Decoder(GuestIdentity)
_lineage_decoder: Final = msgspec.json.Decoder(Lineage)
_machine_decoder: Final = msgspec.json.Decoder(InventoryMachine)
_event_decoder: Final = msgspec.json.Decoder(InventoryEvent)
_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_labels_decoder: Final = msgspec.json.Decoder(dict[str, str])
_strings_decoder: Final = msgspec.json.Decoder(list[str])


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC. A time without a zone is a programming error, not a guess."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return (moment - _EPOCH) // _MICROSECOND


def micros_or_none(moment: datetime | None) -> int | None:
    """`micros`, where there is one."""
    return None if moment is None else micros(moment)


def moment(stored: int) -> datetime:
    """The reverse of `micros`."""
    return _EPOCH + timedelta(microseconds=stored)


def moment_or_none(stored: int | None) -> datetime | None:
    """`moment`, where there is one."""
    return None if stored is None else moment(stored)


def signed64(value: int) -> int:
    """The signed integer with the bits of this u64."""
    if not 0 <= value < _MODULUS:
        raise ValueError(f"{value} is not a u64")
    return value - _MODULUS if value >= _SIGN else value


def unsigned64(stored: int) -> int:
    """The reverse of `signed64`."""
    return stored + _MODULUS if stored < 0 else stored


def json_text(value: object) -> str:
    """JSON without spaces. Escapes NUL, which PostgreSQL has no place for in text."""
    return _encoder.encode(value).decode()


def plain_text(value: str | None) -> str | None:
    """Text as a guest may have sent it, without the NUL that PostgreSQL refuses."""
    return None if value is None else value.replace("\x00", "\ufffd")


def read_identity(stored: str) -> GuestIdentity:
    """A guest's claims of itself."""
    try:
        return _identity_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("identity", error) from error


def read_lineage(stored: str | None) -> Lineage | None:
    """A line of TPM states, where one is recorded."""
    if stored is None:
        return None
    try:
        return _lineage_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("line of TPM states", error) from error


def read_machine(stored: str) -> InventoryMachine:
    """A machine of an inventory."""
    try:
        return _machine_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("machine of an inventory", error) from error


def read_inventory_event(stored: str) -> InventoryEvent:
    """An event of an inventory."""
    try:
        return _event_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("event of an inventory", error) from error


def read_object(stored: str) -> dict[str, Any]:
    """Any JSON object."""
    try:
        return _object_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("JSON object", error) from error


def read_labels(stored: str) -> dict[str, str]:
    """An object of strings: labels, or the digests of evidence by role."""
    try:
        return _labels_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("labels", error) from error


def read_strings(stored: str) -> list[str]:
    """A list of strings."""
    try:
        return _strings_decoder.decode(stored)
    except UNREADABLE as error:
        raise damaged("list of strings", error) from error


def scopes_text(scopes: Iterable[Scope]) -> str:
    """Scopes in one order, whatever the set's was."""
    return json_text(sorted(scope.value for scope in scopes))


def read_scopes(stored: str) -> frozenset[Scope]:
    """The reverse of `scopes_text`."""
    try:
        return frozenset(map(Scope, read_strings(stored)))
    except ValueError as error:
        raise damaged("scope", error) from error


def search_text(attester_id: str, hostname: str | None, uuids: Iterable[str]) -> str:
    """What a search looks through: lower case, one name a line, cut off where an index could not hold more."""
    lines = [attester_id, hostname or "", *sorted(uuids)]
    text = "\n".join(line.replace("\n", " ") for line in lines).lower().replace("\x00", "\ufffd")
    return text.encode()[:_SEARCH_BYTES].decode(errors="ignore")


def json_bytes(value: Mapping[str, object]) -> bytes:
    """JSON as bytes, to be addressed by content."""
    return _encoder.encode(value)


def damaged(what: str, error: Exception) -> StoredDataDamaged:
    """A column that does not hold what only this module writes there."""
    return StoredDataDamaged(f"a stored {what} does not parse: {error}")
