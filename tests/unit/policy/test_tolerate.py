"""What a policy may say about quirks of the boot log, and how a change of it shows."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.conftest import ROOT
from tests.deviant import Case, Deviants
from tests.event_logs import boot
from verifier.appraisal.boot_facts import bind_log
from verifier.claims import Binding, ProvenClaims, QuoteFacts
from verifier.errors import PolicyError
from verifier.findings import Severity
from verifier.policy.diff import Change, diff_policies
from verifier.policy.explain import explain_events
from verifier.policy.learn import LearnOptions, Style, learn
from verifier.policy.model import PcrRule, Policy
from verifier.policy.parse import check_policy, parse_policy
from verifier.policy.schema import policy_schema
from verifier.policy.tolerate import describe, tolerated_pcrs, toleration_of
from verifier.quirk_texts import QUIRKS
from verifier.quirks import Certainty, Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo
from verifier.tcg.eventlog import parse_event_log

WHY = "every guest of this cluster has it"
VALUE = "aa" * 32


def policy(*entries: str) -> Policy:
    tolerate = f"tolerate: [{', '.join('{' + entry + '}' for entry in entries)}]\n" if entries else ""
    return parse_policy(
        "schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [0, 5, 7]}\n"
        f"rules:\n  - {{id: pcr0, claim: hardware, pcr: {{index: 0, any_of: [{VALUE}]}}}}\n"
        f"unjudged:\n  - {{pcrs: [5, 7], why: not what this test is about}}\n{tolerate}"
    )


VMWARE = f"quirk: vmware-pcr0, pcrs: [0], why: {WHY}"
EXIT = f"quirk: exit-boot-services-unlogged, pcrs: [5], severity: info, why: {WHY}"
EMPTY = f"quirk: zero-length-log, why: {WHY}"


def test_without_the_key_nothing_is_tolerated() -> None:
    assert policy().tolerated == ()


def test_a_toleration_is_for_one_quirk_in_the_pcrs_it_names() -> None:
    read = policy(VMWARE, EXIT, EMPTY).tolerated
    assert [(each.quirk, each.severity, each.why) for each in read] == [
        (Quirk.VMWARE_PCR0, Severity.WARNING, WHY),
        (Quirk.EXIT_BOOT_SERVICES_UNLOGGED, Severity.INFO, WHY),
        (Quirk.ZERO_LENGTH_LOG, Severity.WARNING, WHY),
    ]
    assert tolerated_pcrs(read) == {(Quirk.VMWARE_PCR0, 0), (Quirk.EXIT_BOOT_SERVICES_UNLOGGED, 5)}
    assert toleration_of(read, Quirk.VMWARE_PCR0, 0) == read[0]
    assert toleration_of(read, Quirk.VMWARE_PCR0, 5) is None
    assert toleration_of(read, Quirk.FIRMWARE_PCR0, 0) is None
    assert toleration_of(read, None, 0) is None
    assert toleration_of(read, Quirk.ZERO_LENGTH_LOG) == read[2]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (f"quirk: vmware-pcr1, pcrs: [0], why: {WHY}", "'vmware-pcr1' is no known quirk; they are"),
        (f"quirk: padded, why: {WHY}", "padded needs no toleration"),
        (f"quirk: vmware-pcr0, why: {WHY}", "name the `pcrs`"),
        (f"quirk: zero-length-log, pcrs: [0], why: {WHY}", "leave `pcrs` out"),
        (f"quirk: extra-tail-events, pcrs: [8], why: {WHY}", "PCR 8, which is not quoted"),
        (f"quirk: extra-tail-events, pcrs: [5, 5], why: {WHY}", "names a PCR twice"),
        (f"quirk: vmware-pcr0, pcrs: [5], why: {WHY}", "cannot occur in PCR 5"),
        (f"quirk: vmware-pcr0, pcrs: [0], severity: contraindicated, why: {WHY}", "tolerates nothing"),
        ("quirk: vmware-pcr0, pcrs: [0]", "why"),
        ("quirk: vmware-pcr0, pcrs: [0], why: short", "length >= 10"),
        (f"quirk: vmware-pcr0, pcrs: [0], all: true, why: {WHY}", "all"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: str, what: str) -> None:
    with pytest.raises(PolicyError) as raised:
        policy(entry)
    assert what in str(raised.value)


def test_one_quirk_in_one_pcr_is_tolerated_once() -> None:
    with pytest.raises(PolicyError, match="tolerated twice for PCR 0"):
        policy(VMWARE, VMWARE.replace(WHY, "another good reason"))


def test_a_change_of_what_is_tolerated_shows_pcr_by_pcr() -> None:
    tail = f"quirk: extra-tail-events, pcrs: [5], why: {WHY}"
    before, after = policy(VMWARE, tail), policy(EXIT, tail.replace("[5]", "[5, 7]"))
    assert [(each.change, each.where) for each in diff_policies(before, after)] == [
        (Change.REMOVED, "tolerate vmware-pcr0 PCR 0"),
        (Change.ADDED, "tolerate exit-boot-services-unlogged PCR 5"),
        (Change.ADDED, "tolerate extra-tail-events PCR 7"),
    ]
    (changed,) = diff_policies(policy(VMWARE), policy(VMWARE.replace("pcrs", "severity: info, pcrs")))
    assert (changed.before, changed.after) == (f"warning: {WHY}", f"info: {WHY}")


def test_people_read_what_is_tolerated_and_where() -> None:
    assert [what for what, _ in describe(policy(VMWARE, EMPTY))] == [
        "vmware-pcr0 in PCR 0",
        "zero-length-log",
    ]


@pytest.mark.parametrize("page", ["policy.md", "quirks.md"])
def test_the_guides_example_is_a_policys(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    (example,) = re.findall(r"```yaml[^\n]*\n(tolerate:.*?)```", text, re.DOTALL)
    source = (
        "schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [0]}\n"
        f"rules:\n  - {{id: pcr0, claim: hardware, pcr: {{index: 0, any_of: [{VALUE}]}}}}\n{example}"
    )
    policy, problems = check_policy(source)
    assert problems == ()
    assert policy is not None
    assert [(each.quirk, each.pcrs) for each in policy.tolerated] == [(Quirk.VMWARE_PCR0, frozenset({0}))]
    assert Draft202012Validator(policy_schema()).is_valid(yaml.safe_load(source))
    unknown = yaml.safe_load(source.replace("vmware-pcr0", "padded"))
    assert not Draft202012Validator(policy_schema()).is_valid(unknown)


def test_every_quirk_is_explained_and_stands_in_the_page() -> None:
    text = (ROOT / "docs" / "quirks.md").read_text()
    assert set(QUIRKS) == set(Quirk)
    for quirk, entry in QUIRKS.items():
        assert f"### `{quirk.value}`" in text
        for part in (entry.explanation, entry.shown_by, entry.source, entry.remedy):
            assert part.endswith((".", ")"))
            assert part in text
        assert entry.tolerable == (entry.certainty is not Certainty.HARMLESS)


# --- learned, explained


def claims_of(case: Case) -> ProvenClaims:
    """What a quote of a deviant log proves, nothing tolerated."""
    bound = bind_log(case.log, parse_event_log(case.log, allow_cut=True), case.quoted, None)
    clock = ClockInfo(clock=1, reset_count=1, restart_count=0, safe=True)
    quote = QuoteFacts(signature_hash=HashAlg.SHA256, pcrs=case.quoted, clock=clock, firmware_version=1)
    return ProvenClaims(quote=quote, boot=bound.facts)


CASES = {case.name: case for case in Deviants(boot("grub-sb-on").log).all() if case.pcrs}
OPTIONS = LearnOptions(id="learned", description="", bank=HashAlg.SHA256)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("name", CASES)
def test_a_quirk_is_learned_in_words_with_its_value_pinned(name: str, style: Style) -> None:
    case = CASES[name]
    learned = parse_policy(learn({"boot": claims_of(case)}, OPTIONS, style).source)
    (toleration,) = learned.tolerated
    assert (toleration.quirk, toleration.pcrs) == (case.quirk, frozenset(case.pcrs))
    assert toleration.severity is Severity.WARNING
    assert "in 1 of the 1 boots" in toleration.why
    for pcr in case.pcrs:
        (rule,) = (r for r in learned.rules if isinstance(r, PcrRule) and r.pcr == pcr)
        assert set(rule.accepted.digests) == {case.quoted[HashAlg.SHA256][pcr]}


def test_a_boot_that_replays_teaches_no_toleration() -> None:
    case = next(iter(CASES.values()))
    deviants = Deviants(boot("grub-sb-on").log)
    whole = replace(case, log=deviants.data, quoted=deviants.true)
    assert parse_policy(learn({"boot": claims_of(whole)}, OPTIONS).source).tolerated == ()
    mixed = parse_policy(learn({"a": claims_of(whole), "b": claims_of(case)}, OPTIONS).source)
    assert ["in 1 of the 2 boots" in each.why for each in mixed.tolerated] == [True]


def test_explain_says_that_a_quirk_leaves_an_event_unproven() -> None:
    case = next(case for case in CASES.values() if case.quirk is Quirk.FIRMWARE_PCR0)
    claims = claims_of(case)
    for entries, told in (
        ((), "not tolerated"),
        ((VMWARE.replace("vmware", "firmware"),), f"tolerated: {WHY}"),
    ):
        verdicts = explain_events(policy(*entries), claims, ())
        whys = {v.why_unjudged for v in verdicts if v.event.pcr == 0 and v.event.binding is Binding.UNBOUND}
        assert whys == {
            f"unproven, the log has firmware-pcr0 in this PCR ({told}); its PCR is judged as a whole by pcr0"
        }
