"""Certificates of attestation keys that end while the service runs: those it issues, and those that vouch for a machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.faults.test_expired import LATER, LONG, SHORT, estate
from tests.harness import Guest, b64, unb64
from tests.simulator.ca import SoftwareCa
from verifier.crypto.keys import public_key
from verifier.ports import Scope
from verifier.tcg.public import parse_public

CLOUD = SoftwareCa("cloud", name="A cloud's AK CA")


def vouched(guest: Guest, lifetime: timedelta) -> bytes:
    """What a cloud issues for the AK of its machine."""
    return CLOUD.issue_ak(
        public_key(parse_public(guest.tpm.ak_public)),
        not_after=(datetime.now(UTC) + lifetime).replace(microsecond=0),
    )


@pytest.mark.slow
async def test_one_that_the_verifier_issued(tmp_path):
    """It ends with what it was issued on, and comes back with the next affirming verdict alone."""
    async with estate(tmp_path, extra='[ak_certificates]\nlifetime = "1h"') as verifier:
        guest = await verifier.guest(801)
        path = f"/v1/attesters/{guest.attester_id}/ak-certificate"

        async def fetched():
            return await verifier.call("GET", path, scope=Scope.RELYING_PARTY)

        first = x509.load_der_x509_certificate(
            unb64((await guest.attest(want_ak_certificate=True)).json["ak_certificate"])
        )
        assert (await fetched()).status == 200
        verifier.turn(LATER)
        assert first.not_valid_after_utc < datetime.now(UTC) + LATER
        answer = await fetched()
        assert (answer.status, answer.code) == (409, "ak-certificate-withheld")
        await guest.attest()
        second = x509.load_pem_x509_certificates((await fetched()).content)[0]
        assert second.public_key() == first.public_key()
        assert second.not_valid_after_utc > datetime.now(UTC) + LATER


@pytest.mark.slow
async def test_one_that_vouches_for_a_machine(tmp_path):
    """Nobody enrols with it any more; whoever is enrolled goes on and is named."""
    (tmp_path / "cloud.pem").write_bytes(CLOUD.root.public_bytes(Encoding.PEM))
    extra = f"""
        [enrollment]
        methods = ["ak-certificate", "token"]
        [trust]
        ak_anchors = ["{tmp_path / "cloud.pem"}"]
    """
    async with estate(tmp_path, extra=extra) as verifier:

        async def begun(guest: Guest, lifetime: timedelta):
            body = guest.enrollment(
                await verifier.token(Scope.JOIN),
                ek_certificates=[],
                ak_certificates=[b64(vouched(guest, lifetime))],
            )
            return await verifier.post("/v1/enrollments", body)

        guest, late = Guest.booted(verifier, 802), Guest.booted(verifier, 803)
        enrolled = await begun(guest, SHORT)
        assert enrolled.status == 201, enrolled.content
        guest.attester_id = (await guest.activate(enrolled.json)).json["attester_id"]
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        verifier.turn(LATER)
        assert (await verifier.verdict(guest))["status"] == "none", "nothing is affirmed past its time"
        refused = await begun(late, SHORT)
        assert (refused.status, refused.code) == (403, "ek-certificate-expired")
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        assert await verifier.lost() == [guest.attester_id]
        assert (await begun(late, LONG)).status == 201
