"""Trust rule 5: what was concluded before is reused only for the very same bytes, PCRs and policy revision."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from tests.logs import agile_log
from tests.unit.appraisal.machines import LINE, LOG, NOW, SHA256, Machine, boot_events, golden
from tests.unit.policy.test_catalogue import NEVER_MEASURED, captured
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import History, JudgedHistory
from verifier.appraisal.memo import (
    BootKey,
    EvaluationKey,
    LocalMemo,
    WholeOutcome,
    boot_key,
    evaluation_key,
)
from verifier.claims import (
    CloudInstance,
    DeviceFacts,
    EndorsementFacts,
    InventoryFacts,
    QuoteFacts,
    RuntimeFacts,
)
from verifier.policy.catalogue import CATALOGUE, View
from verifier.policy.model import RuntimeSection
from verifier.policy.parse import parse_policy
from verifier.reasons import Reason, Tier
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo

CLOCK = ClockInfo(clock=5, reset_count=1, restart_count=0, safe=True)
ENDORSED = EndorsementFacts(endorsed_by="certificate", virtual=True)
RAN = RuntimeFacts(*[1] * 12, True, 1, 0)
EVERYTHING = EndorsementFacts(
    endorsed_by="certificate",
    methods=("certificate",),
    issuer="CN=CA",
    manufacturer_id="id:564D5700",
    manufacturer="VMware",
    model="VMware TPM2",
    version="id:00020065",
    virtual=True,
    eku_present=True,
    san_present=True,
    revocation="current",
    ak_issuer="CN=AK CA",
    cloud=CloudInstance(project_id="p", zone="z", instance_id="1", instance_name="i"),
    device=DeviceFacts(issuer="CN=Maker", manufacturer="Maker", model="M", serial="00"),
    inventory=InventoryFacts(
        outcome="match",
        source="dc1",
        machine="web-1",
        instance_uuid="11111111-2222-3333-4444-555555555555",
        secure_boot=True,
        encrypted=True,
    ),
)


class Spy(LocalMemo):
    """Keeps everything, evaluations too, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations: dict[EvaluationKey, tuple] = {}
        self.boots_kept: list[BootKey] = []
        self.hits = 0

    def boot(self, key):
        found = super().boot(key)
        self.hits += found is not None
        return found

    def keep_boot(self, key, outcome, log_size):
        self.boots_kept.append(key)
        super().keep_boot(key, outcome, log_size)

    def evaluation(self, key):
        found = self.evaluations.get(key)
        self.hits += found is not None
        return found

    def keep_evaluation(self, key, findings):
        self.evaluations[key] = findings


def judged(machine, memo, *, policy=None, evidence=None, history=None, **expected):
    evidence = evidence or machine.evidence()
    return appraise(
        evidence, machine.expectation(**expected), policy or golden(), history or History(), NOW, memo
    )


def hits(memo, *arguments, **options) -> int:
    before = memo.hits
    judged(*arguments[:1], memo, *arguments[1:], **options)
    return memo.hits - before


@pytest.fixture
def machine():
    return Machine.booted()


@pytest.fixture
def warm(machine):
    memo = Spy()
    judged(machine, memo, endorsement=ENDORSED)
    return memo


def test_the_same_boot_under_the_same_policy_is_read_and_judged_once(machine, warm):
    cold = judged(machine, None, endorsement=ENDORSED)
    again = judged(machine, warm, endorsement=ENDORSED)
    assert warm.hits == 2
    assert again.findings == cold.findings
    assert (again.tier, again.vector, again.claims.boot) == (cold.tier, cold.vector, cold.claims.boot)


def test_another_nonce_and_a_later_clock_still_hit_and_the_quote_is_judged_anew(machine, warm):
    other = bytes(32)
    evidence = machine.evidence(nonce=other)
    assert hits(warm, machine, evidence=evidence, nonce=other, endorsement=ENDORSED) == 2
    wrong = judged(machine, warm, evidence=evidence, endorsement=ENDORSED)
    assert not wrong.authenticated
    assert wrong.findings[0].reason is Reason.QUOTE_NONCE


def test_a_moved_pcr_misses_both(machine, warm):
    machine.tpm.extend(9, {SHA256: bytes(32)})
    assert hits(warm, machine, endorsement=ENDORSED) == 0
    assert judged(machine, warm, endorsement=ENDORSED).tier is Tier.CONTRAINDICATED


def test_a_quote_of_other_pcrs_misses_both(machine, warm):
    fewer = machine.evidence(selection={SHA256: (0, 4, 7, 8)})
    memo_policy = golden()
    policy = dataclasses.replace(
        memo_policy, quote=dataclasses.replace(memo_policy.quote, pcrs=frozenset({0, 4, 7, 8}))
    )
    assert hits(warm, machine, evidence=fewer, policy=policy, request=(), endorsement=ENDORSED) == 0


def test_another_byte_of_the_log_misses_both(machine, warm):
    for log in (LOG + b"\0" * 4, agile_log(boot_events(kernel=b"kernel 2"))):
        evidence = machine.evidence(boot_log=log)
        try:
            assert hits(warm, machine, evidence=evidence, endorsement=ENDORSED) == 0
        except Exception as error:  # noqa: BLE001 - a log that does not parse must not be found either
            assert "EventLog" in str(error) or "TCG" in str(error)


def test_another_command_line_misses_both(machine, warm):
    evidence = machine.evidence(kernel_command_line=LINE + " debug")
    assert hits(warm, machine, evidence=evidence, endorsement=ENDORSED) == 0


def test_another_policy_revision_is_evaluated_anew_over_the_same_facts(machine, warm):
    policy = dataclasses.replace(golden(), revision="0" * 64)
    assert hits(warm, machine, policy=policy, endorsement=ENDORSED) == 1


def test_another_endorsement_is_evaluated_anew(machine, warm):
    facts = structs.replace(ENDORSED, virtual=False)
    assert hits(warm, machine, endorsement=facts) == 1
    assert hits(warm, machine, endorsement=ENDORSED, ak_activated=False) == 1


def test_a_missing_log_is_never_taken_from_an_earlier_one(machine, warm):
    result = judged(machine, warm, evidence=machine.evidence(boot_log=None), endorsement=ENDORSED)
    assert warm.hits == 0
    assert result.claims.boot is None


def test_a_digest_that_the_caller_computed_is_not_computed_again(machine, warm):
    digest = HashAlg.SHA256.digest(LOG)
    evidence = machine.evidence(boot_log_sha256=digest)
    assert hits(warm, machine, evidence=evidence, endorsement=ENDORSED) == 2


def test_what_cannot_be_read_is_not_kept(machine):
    memo = Spy()
    with pytest.raises(Exception, match="byte"):
        judged(machine, memo, evidence=machine.evidence(boot_log=b"\xee" * 64))
    assert memo.boots_kept == []


class Everything(Spy):
    """Keeps what logs and policy came to together as well, and counts that alone."""

    def __init__(self) -> None:
        super().__init__()
        self.wholes: dict[EvaluationKey, WholeOutcome] = {}
        self.sizes: list[int] = []
        self.taken = 0

    def whole(self, key):
        found = self.wholes.get(key)
        self.taken += found is not None
        return found

    def keep_whole(self, key, outcome, log_size):
        self.wholes[key] = outcome
        self.sizes.append(log_size)


@pytest.fixture
def knowing(machine):
    memo = Everything()
    judged(machine, memo, endorsement=ENDORSED)
    return memo


def of_quote(machine):
    """Golden, but for what it asks of the quote."""
    policy = golden()
    return dataclasses.replace(
        policy, quote=dataclasses.replace(policy.quote, pcrs=frozenset({0, 4, 7, 8}))
    ), machine.evidence(selection={SHA256: (0, 4, 7, 8)})


OTHERWISE = {
    "another boot log": lambda m: {
        "evidence": m.evidence(boot_log=agile_log(boot_events(kernel=b"kernel 2")))
    },
    "no boot log": lambda m: {"evidence": m.evidence(boot_log=None)},
    "an empty boot log": lambda m: {"evidence": m.evidence(boot_log=b"")},
    "another command line": lambda m: {"evidence": m.evidence(kernel_command_line=f"{LINE} debug")},
    "a log of systemd's": lambda m: {"evidence": structs.replace(m.evidence(), userspace_log=b"")},
    "a moved PCR": lambda m: (m.tpm.extend(9, {SHA256: bytes(32)}), {"evidence": m.evidence()})[1],
    "fewer PCRs": lambda m: dict(zip(("policy", "evidence"), of_quote(m), strict=True)) | {"request": ()},
    "another revision": lambda _: {"policy": dataclasses.replace(golden(), revision="0" * 64)},
    "another endorsement": lambda _: {"endorsement": structs.replace(ENDORSED, virtual=False)},
    "an AK nobody activated": lambda _: {"ak_activated": False},
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_whatever_is_otherwise_is_judged_as_if_nothing_had_been_before(machine, knowing, change):
    options = {"endorsement": ENDORSED} | change(machine)
    remembering = judged(machine, knowing, **options)
    assert knowing.taken == 0
    anew = judged(machine, None, **options)
    assert remembering.findings == anew.findings
    assert remembering.claims.boot == anew.claims.boot


def test_logs_and_policy_are_taken_together_and_the_quote_is_judged_anew(machine, knowing):
    other = bytes(32)
    evidence = machine.evidence(nonce=other)
    again = judged(machine, knowing, evidence=evidence, nonce=other, endorsement=ENDORSED)
    assert (knowing.taken, knowing.hits) == (1, 0)
    anew = judged(machine, None, evidence=evidence, nonce=other, endorsement=ENDORSED)
    assert again.findings == anew.findings
    assert (again.tier, again.vector, again.claims) == (anew.tier, anew.vector, anew.claims)
    wrong = judged(machine, knowing, evidence=evidence, endorsement=ENDORSED)
    assert wrong.findings[0].reason is Reason.QUOTE_NONCE
    assert knowing.taken == 1
    assert knowing.sizes == [len(LOG)]


def test_what_a_list_was_judged_with_is_not_taken_for_what_none_was(machine):
    """A policy that reads the IMA list says so when none came, and nothing of that is kept as a whole."""
    memo = Everything()
    policy = dataclasses.replace(golden(), runtime=RuntimeSection(sets=()))
    for _ in range(2):
        found = judged(machine, memo, policy=policy)
        assert Reason.IMA_PCR_UNPROVEN in {one.reason for one in found.findings}
    assert memo.wholes == {}


def facts(**changes):
    values = {
        "pcrs": {SHA256: {0: bytes(32), 7: b"\1" * 32}},
        "clock": CLOCK,
        "firmware_version": 1,
        "signature_hash": SHA256,
    } | changes
    return QuoteFacts(**values)


@pytest.mark.parametrize(
    "other",
    [
        facts(pcrs={SHA256: {0: bytes(32), 7: b"\2" * 32}}),
        facts(pcrs={SHA256: {0: bytes(32)}}),
        facts(pcrs={SHA256: {0: bytes(32), 8: b"\1" * 32}}),
        facts(pcrs={HashAlg.SHA3_256: {0: bytes(32), 7: b"\1" * 32}}),
        facts(pcrs={SHA256: {0: bytes(32), 7: b"\1" * 32}, HashAlg.SHA1: {0: bytes(20)}}),
    ],
)
def test_keys_differ_in_every_bank_index_and_value(other):
    assert boot_key(b"", facts().pcrs, None) != boot_key(b"", other.pcrs, None)


def test_keys_do_not_depend_on_the_order_of_what_is_equal():
    one = facts(pcrs={SHA256: {0: bytes(32), 7: bytes(32)}, HashAlg.SHA1: {0: bytes(20)}})
    two = facts(pcrs={HashAlg.SHA1: {0: bytes(20)}, SHA256: {7: bytes(32), 0: bytes(32)}})
    assert boot_key(b"", one.pcrs, None) == boot_key(b"", two.pcrs, None)


def test_values_that_somebody_changes_have_another_key_from_then_on():
    values = {SHA256: {7: bytes(32)}}
    before = boot_key(b"", values, None)
    values[SHA256][7] = b"\1" * 32
    assert boot_key(b"", values, None) != before


@pytest.mark.parametrize("change", [{"firmware_version": 2}, {"signature_hash": HashAlg.SHA384}])
def test_what_a_policy_can_read_of_the_quote_is_in_the_key(change):
    policy, boot = golden(), boot_key(b"", facts().pcrs, None)
    assert evaluation_key(policy, boot, facts(), None) != evaluation_key(policy, boot, facts(**change), None)


CEL = """\
schema: vtpm-attest/policy/1
id: cel
description: for tests
validity: 10m
quote: {{bank: sha256, pcrs: [0]}}
boot_log: ignored
rules:
  - {{id: rule, severity: warning, claim: hardware, cel: "{cel}"}}
unjudged: [{{pcrs: [0], why: a policy for tests}}]
"""


def test_a_policy_that_reads_the_clock_is_evaluated_at_every_clock(machine):
    reading = parse_policy(CEL.format(cel="quote.clock.reset_count < 1000u"))
    other = parse_policy(CEL.format(cel="quote.signature_hash == 'sha256'"))
    assert reading.reads_clock
    assert not other.reads_clock
    memo = Spy()
    for expected in (0, 0):
        assert hits(memo, machine, policy=reading) == expected
    assert hits(memo, machine, policy=other) == 0
    assert hits(memo, machine, policy=other) == 1


@pytest.mark.parametrize("clock", [ClockInfo(6, 1, 0, True), ClockInfo(5, 2, 1, False)])
def test_every_claim_that_depends_on_the_clock_is_named_as_such(clock):
    """The one thing of a quote that the key may leave out; asked of every claim that a captured boot can prove."""
    read = set()
    for boot in ("uki-sb-on", "grub-sb-on", "windows-sb-on"):
        claims = structs.replace(captured(boot), endorsement=EVERYTHING, runtime=RAN)
        later = structs.replace(claims, quote=claims.quote._replace(clock=clock))
        for name, entry in CATALOGUE.items():
            first, second = entry.read(View(claims, SHA256)), entry.read(View(later, SHA256))
            assert first == second or name.startswith("quote.clock.")
            read |= {name} if first is not None else set()
    assert CATALOGUE.keys() - read <= NEVER_MEASURED


def test_a_rule_over_the_boots_claims_is_reused_for_the_same_boot_and_judged_anew_for_another(machine):
    boot_rule = CEL.format(cel="!boot.grub.commands.exists(c, c.contains('debug'))")
    policy = parse_policy(boot_rule.replace("pcrs: [0]", "pcrs: [0, 4, 8, 9]").replace("ignored", "required"))
    memo = Spy()
    first = judged(machine, memo, policy=policy)
    assert [f.reason for f in first.findings if f.rule == "rule"] == [Reason.RULE_HOLDS]
    assert hits(memo, machine, policy=policy) == 2, "the boot, and what the policy makes of it"
    machine.reboot(agile_log(boot_events(f"{LINE} debug")))
    other = judged(machine, memo, policy=policy)
    assert [f.reason for f in other.findings if f.rule == "rule"] == [Reason.RULE_BROKEN]


def test_findings_of_an_earlier_history_are_taken_as_they_were(machine):
    first = judged(machine, None)
    kept = JudgedHistory(tuple(f for f in first.findings if f.reason is Reason.CLOCK_FIRST_SEEN))
    assert len(kept.findings) == 1
    again = judged(machine, None, history=kept)
    assert [f for f in again.findings if f.reason is Reason.CLOCK_FIRST_SEEN] == list(kept.findings)
    assert again.tier is Tier.AFFIRMING


def test_without_findings_of_the_history_of_then_nothing_is_affirming(machine):
    again = judged(machine, None, history=JudgedHistory(()))
    assert again.tier is Tier.NONE
    assert [f.reason for f in again.findings if f.tier is not Tier.AFFIRMING] == [Reason.HISTORY_UNJUDGED]
