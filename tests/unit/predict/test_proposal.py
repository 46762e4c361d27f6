"""A prediction written down as a policy: what it accepts, what it leaves unjudged, and that it is sound."""

from __future__ import annotations

import pytest

from tests import pe
from tests.unit.predict import loaders
from tests.unit.predict.test_boot import OFF, boot
from verifier.policy.model import CommandLineRule, PcrRule, Policy, SecureBootRule, SequenceRule
from verifier.policy.parse import parse_policy
from verifier.policy.writing import PolicyHead
from verifier.predict.boot import predict_boot, predict_parts
from verifier.predict.model import Prediction
from verifier.predict.pe import parse_pe
from verifier.predict.proposal import propose
from verifier.predict.uki import from_parts
from verifier.tcg.algorithms import HashAlg


def policy_of(prediction: Prediction, severity: str = "contraindicated") -> Policy:
    head = PolicyHead(id="image", description="of a test", bank=prediction.bank, severity=severity)
    return parse_policy(propose(prediction, head).source)


def rules(policy: Policy, kind: type) -> list:
    return [rule for rule in policy.rules if isinstance(rule, kind)]


def test_a_unified_kernel_image_becomes_sequences_untouched_pcrs_and_a_command_line(pki, variables):
    prediction = predict_boot(boot({"uki.efi": pe.sign(loaders.uki(), pki.db.signer())}, variables))
    policy = policy_of(prediction)
    assert policy.quote.pcrs == {4, 7, 8, 9, 11, 12, 13}
    assert policy.unjudged == {}
    assert {rule.pcr for rule in rules(policy, SequenceRule)} == {4, 7, 9, 11}
    untouched = {rule.pcr: set(rule.accepted.digests) for rule in rules(policy, PcrRule)}
    assert untouched == {8: {bytes(32)}, 12: {bytes(32)}, 13: {bytes(32)}}
    (line,) = rules(policy, CommandLineRule)
    assert line.any_of == {"root=/dev/vda2 quiet"}
    (secure_boot,) = rules(policy, SecureBootRule)
    assert secure_boot.enabled
    for rule in rules(policy, SequenceRule):
        steps = [set(step.accepted.digests) for step in rule.steps]
        assert steps == [{event.digest} for event in prediction.pcrs[rule.pcr].events]


def test_what_is_not_predicted_is_quoted_and_unjudged_with_its_reason(pki, variables):
    chain = {
        "shim": pe.sign(loaders.shim(pki.stranger.der), pki.db.signer()),
        "grub": pe.sign(loaders.grub(), pki.stranger.signer()),
        "vmlinuz": pe.sign(loaders.kernel(), pki.stranger.signer()),
    }
    policy = policy_of(predict_boot(boot(chain, variables)))
    assert set(policy.unjudged) == {8, 9}
    assert "GRUB measures" in policy.unjudged[8]
    (boot_rule,) = [rule for rule in rules(policy, SequenceRule) if rule.pcr == 4]
    assert [step.optional for step in boot_rule.steps] == [False, False, False, False, False, True]


def test_secure_boot_is_demanded_even_where_its_variables_are_unknown(pki):
    image = pe.sign(loaders.uki(), pki.db.signer())
    policy = policy_of(predict_boot(boot({"uki.efi": image}, None, secure_boot=True)))
    assert rules(policy, SecureBootRule)[0].enabled
    assert 7 in policy.quote.pcrs
    assert "variables" in policy.unjudged[7]


def test_secure_boot_off_is_demanded_as_off():
    assert not rules(policy_of(predict_boot(boot({"uki.efi": loaders.uki()}, OFF))), SecureBootRule)[
        0
    ].enabled


@pytest.mark.parametrize("bank", [HashAlg.SHA256, HashAlg.SHA384])
def test_parts_make_a_policy_that_says_nothing_of_secure_boot(bank):
    stub = parse_pe(pe.build(pe.Shape(parts=loaders.stub(254))))
    contents = {".linux": loaders.kernel(), ".cmdline": b"quiet", ".initrd": b"i"}
    policy = policy_of(predict_parts(from_parts(stub, contents), bank), "warning")
    assert policy.quote.bank is bank
    assert not rules(policy, SecureBootRule)
    assert set(policy.unjudged) == {4, 7}
    assert {rule.head.severity.value for rule in policy.rules} == {"warning"}


def test_what_an_image_ships_is_named_so_that_an_update_replaces_reference_values_alone(pki, variables):
    prediction = predict_boot(boot({"uki.efi": pe.sign(loaders.uki(), pki.db.signer())}, variables))
    proposal = propose(prediction, PolicyHead(id="image", description="", bank=prediction.bank))
    shipped = [event.digest.hex() for pcr in (4, 9, 11) for event in prediction.pcrs[pcr].events]
    assert all(digest in proposal.reference_values for digest in shipped)
    assert [digest for digest in shipped if digest in proposal.policy] == [
        HashAlg.SHA256.digest(bytes(4)).hex()
    ]
