"""What a policy is told of an enrolled machine's EK."""

from __future__ import annotations

from datetime import UTC, datetime

from verifier.claims import EndorsementFacts
from verifier.ports import AttesterRecord, GuestIdentity
from verifier.service.endorsement_facts import endorsement_facts


def attester(endorsed_by: str, issuer: str | None, profile: dict[str, object]) -> AttesterRecord:
    return AttesterRecord(
        id="a",
        tenant="t",
        ek_fingerprint=bytes(32),
        ek_public=b"",
        ek_certificate=None,
        ek_issuer=issuer,
        ek_profile=profile,
        endorsed_by=endorsed_by,
        ak_name=b"",
        ak_public=b"",
        identity=GuestIdentity(),
        smbios_uuids=frozenset(),
        enrolled_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_what_a_validated_certificate_says_is_passed_on() -> None:
    profile = {
        "manufacturer_id": "id:564D5700",
        "manufacturer": "VMware",
        "model": "VMware TPM2",
        "version": "id:00020065",
        "virtual": True,
        "notes": ["no EKU"],
    }
    assert endorsement_facts(attester("certificate", "CN=CA", profile)) == EndorsementFacts(
        endorsed_by="certificate",
        issuer="CN=CA",
        manufacturer_id="id:564D5700",
        manufacturer="VMware",
        model="VMware TPM2",
        version="id:00020065",
        virtual=True,
    )


def test_of_an_ek_trusted_on_first_use_nothing_but_that_is_known() -> None:
    facts = endorsement_facts(attester("tofu", None, {"notes": ["trusted on first use"], "virtual": None}))
    assert facts == EndorsementFacts(endorsed_by="tofu")
