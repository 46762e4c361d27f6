"""What goes into the use cases and what comes out: frozen, typed, free of the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec import Struct

from verifier.appraisal.evidence import NvCertificate, PcrRequest, RatchetEvidence
from verifier.appraisal.place import Handed
from verifier.ports import AttesterRecord, AttesterState, GuestIdentity, Lifecycle, VerdictRecord
from verifier.ports_queries import Standing
from verifier.reasons import Tier
from verifier.tcg.algorithms import HashAlg


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentCommand:
    """A machine asks to be enrolled; nothing in it is believed yet."""

    ek_public: bytes
    ak_public: bytes
    ek_certificates: Sequence[bytes]
    ek_chain: Sequence[bytes]
    ak_certificates: Sequence[bytes] = ()
    device_certificates: Sequence[bytes] = ()
    """IAK and IDevID."""
    join_token: str | None
    identity: GuestIdentity
    source: str | None = None
    """Network address it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentChallenge:
    """A credential only the TPM that holds both EK and AK can open."""

    enrollment_id: str
    credential_blob: bytes
    encrypted_secret: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What came of a proof of activation: an attester, or the wait for a person."""

    enrollment_id: str
    """To ask again with."""
    attester: AttesterRecord | None
    waits_for: str | None = None
    """`enrollment-pending` or `identity-replaced`, without an attester."""
    retry_after: timedelta | None = None


class IssuedChallenge(Struct, frozen=True, kw_only=True):
    """A nonce, what to quote over it, and the boot log the verifier holds already."""

    nonce: bytes
    expires_at: datetime
    requests: tuple[PcrRequest, ...]
    """One per bank."""
    boot_log_sha256: bytes | None
    userspace_log_sha256: bytes | None = None
    ratchet_index: int | None = None
    """NV index of the ratchet the attester is asked to keep; None where it is not asked for one."""
    ima: ImaWanted | None = None
    """None: no policy reads the list."""
    ratchet: Handed | None = None
    """What it shall extend into that index first; None where nothing is known of the index, or no value is due."""


class ImaWanted(Struct, frozen=True, kw_only=True):
    """The IMA list is asked for: from `offset` on if the attester is still in the boot it calls `boot_id`, else whole."""

    offset: int = 0
    boot_id: str | None = None


class ImaPart(Struct, frozen=True, kw_only=True):
    """A part of the guest's binary IMA list, from byte `offset` on. It may be megabytes, so it is not copied."""

    content: memoryview | bytes
    offset: int


class LogReference(Struct, frozen=True, kw_only=True):
    """A log: its bytes, or the digest of bytes that were sent before."""

    content: bytes | None
    sha256: bytes | None


class AttestCommand(Struct, frozen=True, kw_only=True):
    """Evidence over a nonce; the quote has yet to authenticate it."""

    attester_id: str
    nonce: bytes
    attest: bytes
    signature: bytes
    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    boot_log: LogReference | None
    identity: GuestIdentity
    boot_id: str | None
    kernel_command_line: str | None
    want_ear: bool
    ear_audience: str | None = None
    ratchet: RatchetEvidence | None = None
    userspace_log: LogReference | None = None
    nvpcrs: tuple[NvCertificate, ...] = ()
    ima: ImaPart | None = None
    address: str | None = None
    """Where it came from."""
    asked: bytes | None = None
    """What was quoted, where that says more than the nonce: see `verifier.crypto.release.asked`."""

    @property
    def quoted(self) -> bytes:
        """What quote and certificates have to be over."""
        return self.nonce if self.asked is None else self.asked


class VerdictView(Struct, frozen=True, kw_only=True):
    """A stored verdict as it stands now: past its time it is `none`, never green."""

    record: VerdictRecord
    lifecycle: Lifecycle
    tier: Tier
    vector: Mapping[str, int]
    findings: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingView:
    """What is known of one attester now, for a relying party."""

    standing: Standing
    lifecycle: Lifecycle
    tier: Tier
    """`none` while it never attested."""
    verdict: VerdictView | None


class AttestOutcome(Struct, frozen=True, kw_only=True):
    """The stored verdict, the next challenge, when it is due, and the EAR where one was asked for."""

    verdict: VerdictView
    attester: AttesterRecord
    challenge: IssuedChallenge
    next_in: timedelta
    ear: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttesterView:
    """One attester as the fleet view shows it."""

    attester: AttesterRecord
    lifecycle: Lifecycle
    tier: Tier
    """What is known of it now; `none` while it never attested."""
    verdict: VerdictView | None
    state: AttesterState
