"""A policy can demand everything that is known of a machine's identity: with it affirming, without it never."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.unit.policy.test_evaluate import CLAIMS
from tests.unit.policy.test_evaluate_cel import cel
from verifier.claims import CloudInstance, DeviceFacts, EndorsementFacts, InventoryFacts
from verifier.findings import Status
from verifier.policy.identity_claims import IDENTITY
from verifier.reasons import Reason, Tier

FACTS = EndorsementFacts(
    endorsed_by="certificate",
    methods=("certificate", "token"),
    issuer="CN=CA, DC=vsphere, DC=local",
    manufacturer_id="id:564D5700",
    manufacturer="VMware (vTPM)",
    model="VMware TPM2",
    version="id:00020065",
    virtual=True,
    eku_present=True,
    san_present=True,
    revocation="current",
    ak_issuer="CN=EK/AK CA Intermediate",
    cloud=CloudInstance(project_id="project", zone="zone", instance_id="77", instance_name="web-1"),
    device=DeviceFacts(issuer="CN=Maker", manufacturer="Acme", model="X1", serial="0a0b"),
    inventory=InventoryFacts(
        outcome="match",
        source="dc1",
        machine="web-1",
        instance_uuid="11111111-2222-3333-4444-555555555555",
        secure_boot=True,
        encrypted=True,
    ),
)
NOTHING = EndorsementFacts(endorsed_by="tofu")
DEMANDS = {
    "identity.endorsed_by": "== 'certificate'",
    "identity.methods": "== ['certificate', 'token']",
    "identity.ek.issuer": "== 'CN=CA, DC=vsphere, DC=local'",
    "identity.ek.manufacturer_id": "== 'id:564D5700'",
    "identity.ek.manufacturer": "== 'VMware (vTPM)'",
    "identity.ek.model": "== 'VMware TPM2'",
    "identity.ek.version": "== 'id:00020065'",
    "identity.ek.virtual": "== true",
    "identity.ek.eku_present": "== true",
    "identity.ek.san_present": "== true",
    "identity.ek.revocation": "== 'current'",
    "identity.ak.issuer": "== 'CN=EK/AK CA Intermediate'",
    "identity.cloud.project_id": "== 'project'",
    "identity.cloud.zone": "== 'zone'",
    "identity.cloud.instance_id": "== '77'",
    "identity.cloud.instance_name": "== 'web-1'",
    "identity.device.issuer": "== 'CN=Maker'",
    "identity.device.manufacturer": "== 'Acme'",
    "identity.device.model": "== 'X1'",
    "identity.device.serial": "== '0a0b'",
    "identity.inventory.outcome": "== 'match'",
    "identity.inventory.source": "== 'dc1'",
    "identity.inventory.machine": "== 'web-1'",
    "identity.inventory.instance_uuid": "== '11111111-2222-3333-4444-555555555555'",
    "identity.inventory.secure_boot": "== true",
    "identity.inventory.encrypted": "== true",
}


def judged(expression: str, facts: EndorsementFacts | None):
    return cel(expression, structs.replace(CLAIMS, endorsement=facts))


def test_every_claim_of_the_identity_is_looked_at_here():
    assert set(DEMANDS) == {entry.name for entry in IDENTITY}


@pytest.mark.parametrize("name", DEMANDS)
def test_a_demand_passes_with_what_it_asks_for_and_with_nothing_else(name):
    demand = f"{name} {DEMANDS[name]}"
    assert judged(demand, FACTS).tier is Tier.AFFIRMING
    assert judged(f"!({demand})", FACTS).tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("name", sorted(set(DEMANDS) - {"identity.endorsed_by"}))
def test_what_no_certificate_says_is_not_evaluated_whichever_way_it_is_asked(name):
    for facts in (NOTHING, None):
        for expression in (f"{name} {DEMANDS[name]}", f"!({name} {DEMANDS[name]})"):
            finding = judged(expression, facts)
            assert (finding.reason, finding.status) == (Reason.CLAIM_UNPROVEN, Status.NOT_EVALUATED)
            assert finding.tier is Tier.NONE


def test_a_certificate_without_eku_or_san_fails_a_policy_that_demands_them():
    bare = structs.replace(FACTS, eku_present=False, san_present=False)
    assert judged("identity.ek.eku_present && identity.ek.san_present", bare).status is Status.FAILED
