"""What an appraisal takes in: bytes as they came, and what the verifier already knows. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec import Struct

from verifier.appraisal.correlate import InventoryView
from verifier.appraisal.ima.segment import ImaEvidence
from verifier.appraisal.lineage import Lineage
from verifier.claims import EndorsementFacts
from verifier.crypto.ratchet import RatchetChain
from verifier.findings import Finding
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo


class PcrRequest(Struct, frozen=True):
    """What the quote had to cover: PCR indices of one bank."""

    bank: HashAlg
    pcrs: frozenset[int]


class RatchetEvidence(Struct, frozen=True):
    """The ratchet's NV index, certified by the AK over the nonce. Nothing in it is believed yet.

    Attributes:
        attest: TPMS_ATTEST of an NV certification, as signed.
        signature: TPMT_SIGNATURE.
        step: number of the value extended last, as the agent remembers it.
        base: content before that.
        nonce: what that value came with.
    """

    attest: bytes
    signature: bytes
    step: int | None = None
    base: bytes | None = None
    nonce: bytes | None = None


class NvCertificate(Struct, frozen=True):
    """An NV index, certified by the AK over the nonce. Nothing in it is believed yet.

    Attributes:
        public: TPMS_NV_PUBLIC.
        attest: TPMS_ATTEST of an NV certification, as signed.
        signature: TPMT_SIGNATURE.
    """

    public: bytes
    attest: bytes
    signature: bytes


class Evidence(Struct, frozen=True):
    """One attestation's bytes. Nothing in it is believed yet.

    Attributes:
        attest: TPMS_ATTEST as signed.
        signature: TPMT_SIGNATURE.
        pcrs: values as read beside the quote, per bank.
        boot_log: whole boot log, or None when none was sent or held.
        kernel_command_line: what the guest says it was booted with; a candidate preimage, not a fact.
        smbios_uuid: what the guest says it is.
        boot_id: the kernel's random id of this boot; not proven.
        boot_log_sha256: SHA-256 of `boot_log` where the caller has computed it from these bytes already; never
            what a sender says it is. None: it is computed here when it is needed.
        ratchet: the certified index, or None when none was sent.
        hostname: what the guest calls itself; shown to people, judged by nothing.
        address: where it was sent from; likewise.
        userspace_log: what systemd says it measured from userspace, or None when none was sent or held.
        userspace_log_sha256: of it; as `boot_log_sha256`.
        nvpcrs: certified NV indices that the userspace log names.
        ima: what was sent of the IMA list, with the state it goes on from; None when nothing was sent.
    """

    attest: bytes
    signature: bytes
    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    boot_log: bytes | None = None
    kernel_command_line: str | None = None
    smbios_uuid: str | None = None
    boot_id: str | None = None
    boot_log_sha256: bytes | None = None
    ratchet: RatchetEvidence | None = None
    hostname: str | None = None
    address: str | None = None
    userspace_log: bytes | None = None
    userspace_log_sha256: bytes | None = None
    nvpcrs: tuple[NvCertificate, ...] = ()
    ima: ImaEvidence | None = None


class Expectation(Struct, frozen=True):
    """What the verifier demanded of this quote.

    `nonce` None means that freshness cannot be judged (an offline bundle); `ak_activated` False means that
    no activation ever bound this AK to an EK.
    """

    ak_public: bytes
    """TPM2B_PUBLIC of the AK that must have signed."""
    ak_activated: bool
    nonce: bytes | None
    request: tuple[PcrRequest, ...]
    assumed: bool = False
    """The AK and the nonce are taken on someone's word (`attestctl appraise --ak-trusted`): both assumptions
    become findings."""
    endorsement: EndorsementFacts | None = None
    """What enrolment proved of the EK this AK was activated with; without an activation it says nothing."""
    ratchet: RatchetChain | None = None
    """The ratchet this attester is asked to keep; None where it is not asked for one."""
    inventory: InventoryView | None = None
    """What the inventories say of the EK this AK was activated with; None where there are none."""


class History(Struct, frozen=True):
    """What was proven of this attester before; empty at its first attestation.

    `last_clock` is that of the line of states in `lineage`, whatever parted from it since.
    """

    last_clock: ClockInfo | None = None
    last_firmware_version: int | None = None
    last_boot_id: str | None = None
    last_seen: datetime | None = None
    smbios_uuids: frozenset[str] = frozenset()
    lineage: Lineage = Lineage()


INVENTORY_REASONS: Final = frozenset(
    {
        Reason.INVENTORY_MATCHES,
        Reason.INVENTORY_MISMATCH,
        Reason.INVENTORY_SHARED_KEY,
        Reason.INVENTORY_KEY_REPLACED,
        Reason.INVENTORY_SILENT,
        Reason.INVENTORY_STALE,
        Reason.INVENTORY_EVENT,
    }
)
"""Of findings that `check_inventory` makes."""
HISTORY_REASONS: Final = frozenset(
    {
        Reason.CLOCK_FIRST_SEEN,
        Reason.CLOCK_CONTINUES,
        Reason.CLOCK_ROLLBACK,
        Reason.CLOCK_UNSAFE,
        Reason.FIRMWARE_CHANGED,
        Reason.CLONE_SUSPECTED,
        Reason.CLONE_PROVEN,
        Reason.ROLLBACK,
        Reason.BOOT_ID_CHANGED,
        Reason.BOOT_COUNTER_ROLLBACK,
        Reason.RATCHET_STARTED,
        Reason.RATCHET_CONTINUES,
        Reason.RATCHET_RESUMED,
        Reason.RATCHET_UNSUPPORTED,
        Reason.RATCHET_MISSING,
        Reason.RATCHET_INVALID,
        Reason.RATCHET_ROLLBACK,
        Reason.RATCHET_DIVERGED,
        Reason.RATCHET_FOREIGN,
        Reason.RATCHET_STALLED,
        Reason.BOOT_ID_KEPT,
        Reason.HISTORY_UNJUDGED,
    }
)
"""What the checks of an attester's past conclude, and nothing else does under its own name."""


@dataclass(frozen=True, slots=True)
class JudgedHistory:
    """What the history checks concluded when this evidence was first judged.

    Stored evidence that is judged again is held against the history of then, which nobody keeps; its findings are.
    Without any, nothing was concluded, and the verdict cannot be affirming (`history-unjudged`).
    """

    findings: tuple[Finding, ...]
    inventory: tuple[Finding, ...] = ()
    """What the inventories had to say then."""

    @classmethod
    def among(cls, findings: Iterable[Finding]) -> JudgedHistory:
        """Those of a whole verdict, in their order; a rule's findings are a policy's, whatever their reason."""
        own = [one for one in findings if one.rule is None]
        return cls(
            tuple(one for one in own if one.reason in HISTORY_REASONS),
            tuple(one for one in own if one.reason in INVENTORY_REASONS),
        )
