"""A verifier with `policy_signers`: at start, over HTTP, and in a verdict."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness import POLICY, running, settings_for
from verifier.errors import VerifierFault
from verifier.policy.dsse import sign
from verifier.ports import Scope

OURS, THEIRS = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
YAML = {"Content-Type": "application/yaml"}


def demanding(tmp_path, *, start_with: bytes | None = None):
    """Settings that name our key; with `start_with` as the only policy of the folder."""
    key = tmp_path / "ours.pem"
    key.write_bytes(OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    settings = settings_for(tmp_path, POLICY_SIGNERS=str(key))
    if start_with is not None:
        (tmp_path / "policies" / "secure-boot.yaml").unlink()
        (tmp_path / "policies" / "secure-boot.dsse.json").write_bytes(start_with)
    return settings


async def test_a_signed_policy_of_the_folder_judges(tmp_path, clock):
    async with running(demanding(tmp_path, start_with=sign(POLICY.encode(), [OURS])), clock) as verifier:
        verdict = (await (await verifier.guest()).attest()).json["verdict"]
        assert (verdict["status"], verdict["policy"]["id"]) == ("affirming", "secure-boot")


@pytest.mark.parametrize("source", [None, sign(POLICY.encode(), [THEIRS])])
async def test_the_service_does_not_start_with_a_policy_of_someone_else(tmp_path, clock, source):
    with pytest.raises(VerifierFault, match=r"policies/secure-boot.*sign"):
        async with running(demanding(tmp_path, start_with=source), clock):
            pass


async def test_over_http_only_signed_policies_are_taken(tmp_path, clock):
    policy = POLICY.replace("id: secure-boot", "id: other", 1).encode()
    async with running(demanding(tmp_path, start_with=sign(POLICY.encode(), [OURS])), clock) as verifier:

        async def post(source: bytes):
            return await verifier.call(
                "POST", "/v1/policies", data=source, headers=YAML, scope=Scope.OPERATOR
            )

        for refused in (policy, sign(policy, [THEIRS])):
            answer = await post(refused)
            assert (answer.status, answer.code) == (422, "policy-signature")
        made = await post(sign(policy, [OURS]))
        assert (made.status, made.json["id"]) == (201, "other")


async def test_a_policy_may_be_tried_before_anyone_signs_it(tmp_path, clock):
    """It judges nothing, and whoever is to sign wants to know what it would do."""
    stricter = POLICY.replace("enabled", "disabled").encode()
    async with running(demanding(tmp_path, start_with=sign(POLICY.encode(), [OURS])), clock) as verifier:
        await (await verifier.guest()).attest()
        for source in (stricter, sign(stricter, [THEIRS])):
            path = "/v1/policies/secure-boot/dry-run"
            tried = await verifier.call("POST", path, data=source, headers=YAML, scope=Scope.OPERATOR)
            assert (tried.status, tried.json["counts"]["worse"]) == (200, 1)
            kept = await verifier.call(
                "POST", "/v1/policies", data=source, headers=YAML, scope=Scope.OPERATOR
            )
            assert (kept.status, kept.code) == (422, "policy-signature")


async def test_the_fleet_is_judged_again_by_a_signed_policy(tmp_path, clock):
    lax = POLICY.replace("secure_boot: enabled", "secure_boot: disabled").encode()
    async with running(demanding(tmp_path, start_with=sign(POLICY.encode(), [OURS])), clock) as verifier:
        await (await verifier.guest()).attest()
        added = await verifier.call(
            "POST", "/v1/policies", data=sign(lax, [OURS]), headers=YAML, scope=Scope.OPERATOR
        )
        assert added.status == 201, added.content
        found = await verifier.call("POST", "/v1/policies/secure-boot/rejudge", scope=Scope.OPERATOR)
        assert (found.status, found.json["counts"]["worse"], found.json["counts"]["stored"]) == (200, 1, 1)
