"""A forger for the demo and the tests: a genuine TPM's EK, and attestation keys made in software.

Two attempts. A key whose public area tells the truth (it is neither fixed to a TPM nor restricted) can be
loaded and activated by a real TPM, so only the verifier's look at the attributes stops it. A key whose
public area lies cannot be activated by any TPM, so its owner has to guess the proof.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from agent.ek import chosen_ek, read_endorsements
from agent.errors import RefusedError
from agent.esapi import open_tpm
from agent.join_token import JoinToken
from agent.transport import Server, Transport, fetch_pinned_ca, trusting
from agent.wire.messages import (
    ActivationReply,
    ActivationRequest,
    EnrollmentReply,
    EnrollmentRequest,
    GuestIdentity,
)
from tests.simulator import GOOD_AK_ATTRIBUTES, AkProfile, AttestationKey

SIGN, USER_WITH_AUTH = 0x00040000, 0x00000040


@dataclass(frozen=True)
class Forgery:
    """How an attempt ended."""

    story: str
    status: int
    code: str
    detail: str


def forge(tcti: str, url: str, join_token: str) -> tuple[Forgery, Forgery]:
    """Try both; each must end in a refusal."""
    token = JoinToken.parse(join_token)
    server = Server.parse(url)
    with (
        open_tpm(tcti) as tpm,
        Transport(server, trusting(fetch_pinned_ca(server, token.ca_fingerprint))) as transport,
    ):
        endorsements = read_endorsements(tpm)
        with chosen_ek(tpm, endorsements) as chosen:

            def enroll(attributes: int) -> EnrollmentReply:
                key = AttestationKey(AkProfile(attributes=attributes, resident=False), secrets.token_hex(8))
                request = EnrollmentRequest(
                    ek_public=chosen.key.public,
                    ak_public=key.public,
                    ek_certificates=endorsements.ders,
                    ek_chain=list(endorsements.chain),
                    join_token=join_token,
                    identity=GuestIdentity(hostname="web-03"),
                )
                return transport.post("/v1/enrollments", request, EnrollmentReply)

            def lie() -> None:
                offer = enroll(GOOD_AK_ATTRIBUTES)
                guess = ActivationRequest(proof=secrets.token_bytes(32))
                transport.post(f"/v1/enrollments/{offer.enrollment_id}/activation", guess, ActivationReply)

            honest = _refused("key in software, attributes told truly", lambda: enroll(SIGN | USER_WITH_AUTH))
            return honest, _refused("key in software, attributes forged", lie)


def _refused(story: str, attempt: Callable[[], object]) -> Forgery:
    try:
        attempt()
    except RefusedError as error:
        return Forgery(story, error.problem.status, error.code, error.problem.detail)
    return Forgery(story, 200, "accepted", "the forger got in")
