"""What is held of a boot's IMA list: how far it is proven, and what each policy that reads it made of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from verifier.appraisal.ima.state import ImaState
from verifier.errors import StoredDataDamaged
from verifier.ports import BootRecord
from verifier.service.model import ImaWanted


class ImaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Kept with a boot, written with the attestation that changed it.

    Attributes:
        offset: bytes of the guest's list that are proven: the next part begins there.
        base: bytes proven of this boot before the guest's list began anew (kexec without the old list, or a kernel that
            trimmed it). What is stored of the boot is these and `offset` more.
        resend: what came last did not fit; the next challenge asks for the whole list.
        states: by revision of the runtime reference that judged; all of them end at `offset`.
    """

    offset: int = 0
    base: int = 0
    resend: bool = False
    states: Mapping[bytes, ImaState] = msgspec.field(default_factory=dict)

    @property
    def proven(self) -> int:
        """Bytes proven of this boot, all of which were stored."""
        return self.base + self.offset

    def to_json(self) -> str:
        """As text; `read_record` gives it back, equal."""
        states = {key.hex(): msgspec.Raw(state.to_json().encode()) for key, state in self.states.items()}
        plain = _Plain(offset=self.offset, base=self.base, resend=self.resend, states=states)
        return msgspec.json.encode(plain).decode()


def read_record(text: str) -> ImaRecord:
    """Read what `to_json` wrote; raises `StoredDataDamaged` for anything else."""
    try:
        plain = _decoder.decode(text)
        states = {bytes.fromhex(key): ImaState.from_json(bytes(raw)) for key, raw in plain.states.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoredDataDamaged(f"what is stored of an IMA list does not parse: {error}") from error
    return ImaRecord(offset=plain.offset, base=plain.base, resend=plain.resend, states=states)


_WHOLE: Final = ImaWanted()


def wanted(boot: BootRecord | None) -> ImaWanted:
    """From where an attester that was last seen in `boot` shall send its list.

    A record that cannot be read asks for the whole list, as a boot that nobody has seen does.
    """
    if boot is None or boot.ima is None or boot.boot_id is None:
        return _WHOLE
    try:
        head = _head_decoder.decode(boot.ima)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _WHOLE
    return _WHOLE if head.resend else ImaWanted(offset=head.offset, boot_id=boot.boot_id)


class _Head(msgspec.Struct):
    """All that a challenge needs: the states are not decoded for it."""

    offset: int
    resend: bool


class _Plain(msgspec.Struct):
    offset: int
    base: int
    resend: bool
    states: dict[str, msgspec.Raw]


_decoder: Final = msgspec.json.Decoder(_Plain)
_head_decoder: Final = msgspec.json.Decoder(_Head)
