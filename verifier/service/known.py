"""Is this machine known already, with another TPM? Nobody takes a known machine's place by claiming its UUID.

The EK is what identifies; a SMBIOS UUID is a guest's own word, and the inventory's word is an operator's. So a new EK
under a known UUID is either a replaced vTPM, which the inventory or a person has to confirm, or an impostor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from verifier.appraisal.correlate import Correlation, GuestKeys, Outcome
from verifier.appraisal.lineage import machine_of
from verifier.appraisal.smbios import uuid_spellings
from verifier.errors import RefusedError
from verifier.ports import AttesterState, GuestIdentity, Lifecycle, Store
from verifier.reasons import Reason

AskInventory = Callable[[GuestKeys], Awaitable[Correlation]]
"""What the inventories say of a key and the SMBIOS UUID that was claimed with it."""
_AGREES: Final = frozenset({Outcome.MATCH, Outcome.EK_ONLY})
_SILENT: Final = frozenset(
    {Outcome.UUID_KNOWN_EK_UNKNOWN, Outcome.EK_NOT_LISTED, Outcome.UNKNOWN, Outcome.INVENTORY_STALE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Who is on record with what a machine brings.

    Attributes:
        attester: has this EK.
        namesakes: have other EKs and ever claimed the same SMBIOS UUID, or took this one's place. Retired ones are left
            out, and those for which the UUID was found to be a copy's.
        claimed: the UUID.
    """

    attester: AttesterState | None
    namesakes: tuple[AttesterState, ...]
    claimed: str | None

    @property
    def is_replacement(self) -> bool:
        """A TPM that speaks for nobody now asks for the place of a machine that has one, or had this one once."""
        if self.attester is None:
            return bool(self.namesakes)
        return self.attester.attester.lifecycle is Lifecycle.RETIRED

    @property
    def has_to_be_let_in_again(self) -> bool:
        """Somebody said that nobody with this TPM is heard until then."""
        line = None if self.attester is None else self.attester.lineage
        return line is not None and line.must_enroll

    def stands(self, ak_name: bytes) -> bool:
        """It is enrolled with exactly these keys, and nothing has to be asked of it anew."""
        if self.attester is None or self.is_replacement or self.has_to_be_let_in_again:
            return False
        record = self.attester.attester
        return record.lifecycle is Lifecycle.ENROLLED and record.ak_name == ak_name

    def refuse(self) -> None:
        """Refuse what no enrolment can heal.

        Raises:
            RefusedError: `attester-revoked`; `reenrollment-required` from a machine that was called a copy.
        """
        if self.attester is None:
            return
        record, line = self.attester.attester, self.attester.lineage
        if record.lifecycle is Lifecycle.REVOKED:
            raise RefusedError(Reason.ATTESTER_REVOKED, f"attester {record.id} of this EK was revoked")
        if line is not None and line.refuses(self.claimed):
            raise refused_copy(record.id, self.claimed)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The inventory lists this EK for the machine. `replaces`: whose place it takes; None: nobody's."""

    replaces: str | None


class KnownMachines:
    """Looks up who is known, and asks the inventory where that decides."""

    def __init__(self, store: Store, inventory: AskInventory | None) -> None:
        self._store = store
        self._inventory = inventory

    async def look(self, tenant: str, ek_fingerprint: bytes, identity: GuestIdentity) -> Known:
        """Who is on record with this EK, and with this UUID."""
        attester = await self._store.attester_of_ek(tenant, ek_fingerprint)
        found = await self._store.attesters_of_uuid(tenant, _spellings(identity.smbios_uuid))
        own = None if attester is None else attester.attester.id
        namesakes = (
            one
            for one in found
            if one.attester.id != own
            and one.attester.lifecycle is not Lifecycle.RETIRED
            and not (one.lineage is not None and one.lineage.refuses(identity.smbios_uuid))
        )
        others = list(namesakes)
        successor = None if attester is None else attester.attester.replaced_by
        if successor is not None and all(one.attester.id != successor for one in others):
            state = await self._store.attester_state(successor)
            if state is not None and state.attester.lifecycle is not Lifecycle.RETIRED:
                others.append(state)
        return Known(attester=attester, namesakes=tuple(others), claimed=identity.smbios_uuid)

    async def ask(self, ek_fingerprint: bytes, claimed: str | None) -> Correlation | None:
        """What the inventory says; None where there is none."""
        if self._inventory is None:
            return None
        return await self._inventory(GuestKeys(ek_fingerprint=ek_fingerprint, smbios_uuid=claimed))

    async def agreement(self, known: Known, found: Correlation | None) -> Agreement | None:
        """Whether the inventory settles whose place this EK takes; None: a person has to.

        It does if it lists the EK for the machine now, and at most one of those with the same UUID could have been
        that machine: one whose own EK the inventory lists for another machine only ever claimed the UUID.
        """
        if found is None or found.outcome not in _AGREES:
            return None
        before = [
            one.attester.id
            for one in known.namesakes
            if not await self._belongs_elsewhere(one, found, known.claimed)
        ]
        if len(before) > 1:
            return None
        return Agreement(before[0] if before else None)

    async def _belongs_elsewhere(self, one: AttesterState, found: Correlation, claimed: str | None) -> bool:
        other = await self.ask(one.attester.ek_fingerprint, claimed)
        if other is None or other.outcome is Outcome.INVENTORY_STALE:
            return False
        if other.outcome is Outcome.EK_OF_ANOTHER_MACHINE:
            return True
        machines = (other.machine, found.machine)
        return other.outcome in _AGREES and None not in machines and machines[0] != machines[1]


def may_be_decided(found: Correlation | None) -> bool:
    """Whether a person may decide although the inventory does not list the EK: not where it says whose it is."""
    return found is None or found.outcome in _SILENT


def refused_copy(attester_id: str, smbios_uuid: str | None) -> RefusedError:
    """What a machine is told that an operator has called a copy."""
    return RefusedError(
        Reason.REENROLLMENT_REQUIRED,
        f"an operator has called the machine with SMBIOS UUID {smbios_uuid} a copy of attester {attester_id}:"
        " give it a new vTPM, then enrol it",
    )


def _spellings(uuid: str | None) -> frozenset[str]:
    """Both spellings of a UUID, or the text itself where it is none; empty for what names no machine."""
    machine = machine_of(uuid)
    if uuid is None or machine is None:
        return frozenset()
    return uuid_spellings(uuid) or frozenset({machine})
