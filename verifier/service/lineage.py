"""Each attester's past: what is known of it, what is handed out for the next time, and whose word counts no more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from verifier.appraisal.checks.clone import advanced
from verifier.appraisal.evidence import History
from verifier.appraisal.lineage import Guest, Lineage
from verifier.appraisal.place import Handed, Place
from verifier.crypto.ratchet import RatchetChain, extended
from verifier.ports import AttesterRecord, AttesterState, GuestIdentity
from verifier.service.known import refused_copy
from verifier.service.nonces import MARK_SIZE

_NO_PAUSE: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatchetRules:
    """How ratchets are kept.

    Attributes:
        key: of the values handed out; None: no ratchet is asked for.
        hardware_pause: a TPM that is known to be hardware gets a value at most this often, because its NV memory
            wears out; a virtual one gets one with every verdict.
    """

    key: bytes | None
    hardware_pause: timedelta

    def chain(self, attester_id: str) -> RatchetChain | None:
        """The ratchet an attester is asked to keep."""
        return None if self.key is None else RatchetChain(self.key, attester_id)

    def due(self, attester: AttesterRecord, line: Lineage, at: datetime) -> bool:
        """Whether a challenge that is answered `at` then brings a value."""
        if self.key is None or line.ratchet is None:
            return False
        pause = self.hardware_pause if attester.ek_profile.get("virtual") is False else _NO_PAUSE
        return line.moved_at is None or at - line.moved_at >= pause

    def handed(self, attester: AttesterRecord, line: Lineage, nonce: bytes, at: datetime) -> Handed | None:
        """The value that comes with a nonce. Nothing is stored: of many challenges any may be the one answered."""
        chain, base = self.chain(attester.id), line.ratchet
        if chain is None or base is None or not self.due(attester, line, at):
            return None
        step = line.step + 1
        return Handed(step, base, chain.value(step, base, nonce))


NO_RATCHETS: Final = RatchetRules(key=None, hardware_pause=_NO_PAUSE)


def mark_of(position: int, evidence_sha256: bytes | None) -> bytes:
    """Tells the state of an attester's past from every other, also from those of a database that was lost since.

    The position alone would not: after a restored backup it comes to the same numbers again.
    """
    return hashlib.sha256(position.to_bytes(8, "big") + (evidence_sha256 or b"")).digest()[:MARK_SIZE]


def mark_of_state(state: AttesterState) -> bytes:
    """`mark_of` what is stored."""
    return mark_of(state.position, None if state.latest is None else state.latest.evidence_sha256)


def line_of(state: AttesterState) -> Lineage:
    """The line of states known so far; that of an attester from before there were any begins with its last boot."""
    if state.lineage is not None or state.boot is None:
        return state.lineage or Lineage()
    uuid = state.attester.identity.smbios_uuid
    guest = Guest(
        smbios_uuid=uuid,
        boot_id=state.boot.boot_id,
        hostname=state.attester.identity.hostname,
        clock=state.boot.clock,
        ratchet=None,
        seen_at=state.boot.seen_at,
    )
    return Lineage(clock=state.boot.clock, smbios_uuid=uuid, guests=(guest,))


def history_of(state: AttesterState) -> History:
    """What was proven of this attester before."""
    line, boot = line_of(state), state.boot
    return History(
        last_clock=line.clock,
        last_firmware_version=None if boot is None else boot.firmware_version,
        last_boot_id=None if boot is None else boot.boot_id,
        last_seen=None if boot is None else boot.seen_at,
        smbios_uuids=state.attester.smbios_uuids,
        lineage=line,
    )


def refuse_copy(state: AttesterState, identity: GuestIdentity) -> None:
    """Refuse evidence of a machine that an operator has decided not to hear.

    Raises:
        RefusedError: `reenrollment-required` from a machine that was called a copy.
    """
    if state.lineage is not None and state.lineage.refuses(identity.smbios_uuid):
        raise refused_copy(state.attester.id, identity.smbios_uuid)


def is_overtaken(place: Place | None, *, current: bool) -> bool:
    """Whether evidence would be taken for more than it is, because other evidence overtook it on its way.

    `current` False says that it was made over a nonce from before the newest evidence was judged. It may be older
    than that, and honestly show an older state, which proves nothing.
    """
    return not current and place is not None and (place.parted or place.adopted)


def next_line(state: AttesterState, place: Place | None, rules: RatchetRules, now: datetime) -> Lineage:
    """The attester's past with this evidence in it."""
    line = line_of(state)
    if place is None:
        return line
    return advanced(line, place, now, due=rules.due(state.attester, line, now))


def expecting(line: Lineage, handed: Handed | None) -> Lineage:
    """The line once a verdict brings this value. What it leads to is known then without the key it was made with."""
    following = None if handed is None else extended(handed.base, handed.value)
    return structs.replace(line, ratchet_next=following)
