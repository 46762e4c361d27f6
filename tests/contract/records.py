"""Records as the service makes them, each different where it must be."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from datetime import UTC, datetime, timedelta

from verifier.ports import (
    DEFAULT_TENANT,
    AttesterRecord,
    BootRecord,
    GuestIdentity,
    PolicyRecord,
    Recording,
    Scope,
    Store,
    TokenRecord,
    VerdictRecord,
)
from verifier.ports_enrollment import AuditEntry, EnrollmentRecord
from verifier.reasons import Tier
from verifier.tcg.attest import ClockInfo

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOBODY = GuestIdentity()
_numbers = itertools.count(1)


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def audit_entry(**changes) -> AuditEntry:
    """What someone did."""
    made = AuditEntry(
        tenant=DEFAULT_TENANT, at=NOW, actor="tok-1", action="thing.changed", subject="x-1", reason=""
    )
    return dataclasses.replace(made, **changes)


def token(**changes) -> TokenRecord:
    """An unlimited join token that expires in an hour."""
    number = next(_numbers)
    made = TokenRecord(
        id=f"tok-{number}",
        tenant=DEFAULT_TENANT,
        secret_hash=sha256(b"secret %d" % number),
        scopes=frozenset({Scope.JOIN}),
        label="lab",
        created_at=NOW,
        expires_at=NOW + 60 * MINUTE,
    )
    return dataclasses.replace(made, **changes)


def enrollment(**changes) -> EnrollmentRecord:
    """A pending activation of a machine never seen before."""
    number = next(_numbers)
    made = EnrollmentRecord(
        id=f"enr-{number}",
        tenant=DEFAULT_TENANT,
        created_at=NOW,
        expires_at=NOW + 10 * MINUTE,
        ek_fingerprint=sha256(b"ek %d" % number),
        ek_public=b"\x00\x04ek%d" % number,
        ek_certificate=b"\x30\x82\x00" * 100,
        ek_issuer="CN=swtpm-localca",
        ek_profile={"manufacturer": "IBM", "virtual": True, "notes": ["no EKU"], "version": None},
        endorsed_by="certificate",
        ak_name=b"\x00\x0b" + sha256(b"ak %d" % number),
        ak_public=b"\x00\x04ak%d" % number,
        expected_proof=sha256(b"proof %d" % number),
        identity=GuestIdentity(smbios_uuid=f"4c4c4544-{number:04x}", hostname=f"guest-{number}", os="debian"),
        token_id=None,
    )
    return dataclasses.replace(made, **changes)


def policy(**changes) -> PolicyRecord:
    """A first revision."""
    made = PolicyRecord(
        id="strict", tenant=DEFAULT_TENANT, revision=sha256(b"1").hex(), source="id: strict\n", created_at=NOW
    )
    return dataclasses.replace(made, **changes)


async def enrol(store: Store, attester_id: str, *, now: datetime = NOW, **changes) -> AttesterRecord:
    """An attester, by way of an enrolment."""
    pending = enrollment(**changes)
    await store.add_enrollment(pending)
    attester = await store.complete_enrollment(pending.id, attester_id, now)
    assert attester is not None
    return attester


CLOCK = ClockInfo(clock=2**63 + 5, reset_count=2**32 - 1, restart_count=3, safe=True)
FINDINGS = (
    {"code": "quote-verified", "status": "passed", "severity": "info", "message": "\u201cgenuine\u201d\x00", "pcr": None},
    {"code": "pcr-mismatch", "status": "failed", "severity": "contraindicated", "message": "PCR 7", "pcr": 7},
)  # fmt: skip


def recording(
    attester_id: str,
    *,
    at: datetime = NOW,
    tier: Tier = Tier.AFFIRMING,
    tenant: str = DEFAULT_TENANT,
    nonce_hash: bytes | None = None,
    clock: ClockInfo = CLOCK,
    boot_log: bytes = b"boot log" * 100,
    quote: bytes | None = None,
    identity: GuestIdentity = NOBODY,
) -> Recording:
    """One attestation with a fresh nonce, its boot log and its quote."""
    quote = quote if quote is not None else os.urandom(700)
    return Recording(
        nonce_hash=nonce_hash or os.urandom(32),
        nonce_expires_at=at + 5 * MINUTE,
        verdict=VerdictRecord(
            attester_id=attester_id,
            tenant=tenant,
            sequence=0,
            tier=tier,
            vector={"hardware": 2, "executables": 2},
            findings=FINDINGS,
            policy_id="strict",
            policy_revision="ab" * 32,
            evidence_sha256=sha256(quote),
            clock=clock,
            boot_id="2b1c",
            judged_at=at,
            valid_until=at + 15 * MINUTE,
        ),
        boot=BootRecord(
            clock=clock,
            firmware_version=0xFFFF_0000_1234_5678,
            boot_log_sha256=sha256(boot_log),
            boot_id="2b1c",
            seen_at=at,
        ),
        identity=identity,
        blobs={sha256(boot_log): boot_log, sha256(quote): quote},
        evidence={"boot-log": sha256(boot_log).hex(), "quote": sha256(quote).hex()},
    )
