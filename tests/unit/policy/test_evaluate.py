"""Rules over proven claims: what passes, what fails, what cannot be judged, and what a finding tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from verifier.claims import Binding, BootFacts, EventFact, ProvenClaims, QuoteFacts, SecureBootFacts
from verifier.findings import Status
from verifier.policy.evaluate import evaluate
from verifier.policy.parse import parse_policy, read_policy
from verifier.reasons import Reason, Tier
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo

SHA256 = HashAlg.SHA256


def digest(text: str) -> bytes:
    return SHA256.digest(text.encode())


def event(index: int, pcr: int, measured: str, *, name: str | None = None, bound: bool = True) -> EventFact:
    return EventFact(
        index=index,
        pcr=pcr,
        event_type=0xD,
        type_name="EV_IPL",
        digests={SHA256: digest(measured)},
        binding=Binding.BOUND if bound else Binding.UNBOUND,
        name=name,
        text=measured if bound else None,
        after_separator=False,
    )


EVENTS = (
    event(0, 4, "loader", bound=False),
    event(1, 4, "kernel", bound=False),
    event(2, 8, "quiet", name="login"),
)
BOOT = BootFacts(
    digest=bytes(32),
    banks=(SHA256,),
    events=EVENTS,
    secure_boot=SecureBootFacts(enabled=True),
    kernel_command_line="root=/dev/vda2 quiet",
    startup_locality=None,
)
QUOTE = QuoteFacts(
    pcrs={SHA256: {pcr: digest(f"pcr{pcr}") for pcr in (4, 7, 8)}},
    clock=ClockInfo(1, 1, 0, True),
    firmware_version=1,
    signature_hash=SHA256,
)
CLAIMS = ProvenClaims(quote=QUOTE, boot=BOOT)


def judge(rule: str, claims: ProvenClaims = CLAIMS, severity: str = "contraindicated"):
    read = read_policy if severity == "info" else parse_policy  # a policy of nothing but that is refused
    policy = read(
        "schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [4, 7, 8]}\nboot_log: required\nrules:\n"
        f"  - {{id: rule, claim: configuration, severity: {severity}, {rule}}}\n"
        "unjudged:\n"
        f"  - {{pcrs: {[pcr for pcr in (4, 7, 8) if not covers(rule, pcr)]}, why: not what this test is about}}\n"
    )
    return evaluate(policy, claims)


def covers(rule: str, pcr: int) -> bool:
    return f"sequence: {{pcr: {pcr}," in rule or f"pcr: {{index: {pcr}," in rule


def hexed(*texts: str) -> str:
    return "[" + ", ".join(f'"{digest(text).hex()}"' for text in texts) + "]"


def without_log() -> ProvenClaims:
    return structs.replace(CLAIMS, boot=None)


def unexplained(pcr: int) -> ProvenClaims:
    return structs.replace(CLAIMS, boot=replace(BOOT, unlogged_pcrs=(pcr,)))


SEQUENCE = f"sequence: {{pcr: 4, steps: [{{label: loader, any_of: {hexed('loader')}}}, {{label: kernel, any_of: {hexed('kernel', 'kernel2')}}}]}}"

PASSES = {
    "pcr": (f"pcr: {{index: 4, any_of: {hexed('other', 'pcr4')}}}", Reason.PCR_MATCHES),
    "sequence": (SEQUENCE, Reason.EVENT_MATCHES),
    "event by name": (
        f"event: {{pcr: 8, name: login, any_of: {hexed('quiet')}}}",
        Reason.EVENT_MATCHES,
    ),
    "event by digest": (f"event: {{pcr: 4, any_of: {hexed('kernel')}}}", Reason.EVENT_MATCHES),
    "event never by digest": (
        f"event: {{pcr: 4, occurs: never, any_of: {hexed('bad')}}}",
        Reason.EVENT_MATCHES,
    ),
    "event never by name": ("event: {pcr: 8, name: verity, occurs: never}", Reason.EVENT_MATCHES),
    "secure boot": ("secure_boot: enabled", Reason.SECURE_BOOT_ON),
    "command line": (
        'command_line: {require: [quiet], forbid: ["lockdown=none"]}',
        Reason.COMMAND_LINE_MATCHES,
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_golden_boot_passes(name: str) -> None:
    rule, reason = PASSES[name]
    (finding,) = judge(rule)
    assert (finding.reason, finding.status, finding.remedy) == (reason, Status.PASSED, None)


FAILS = {
    "pcr": (f"pcr: {{index: 4, any_of: {hexed('x')}}}", Reason.PCR_MISMATCH, 4, None),
    "another event": (SEQUENCE.replace(hexed("loader"), hexed("x")), Reason.EVENT_MISMATCH, 4, 0),
    "event by name": (
        f"event: {{pcr: 8, name: login, any_of: {hexed('x')}}}",
        Reason.EVENT_MISMATCH,
        8,
        2,
    ),
    "no such name": (
        f"event: {{pcr: 8, name: machine-id, any_of: {hexed('x')}}}",
        Reason.EVENT_MISSING,
        8,
        None,
    ),
    "no such digest": (f"event: {{pcr: 4, any_of: {hexed('x')}}}", Reason.EVENT_MISSING, 4, None),
    "forbidden": (
        f"event: {{pcr: 4, occurs: never, any_of: {hexed('kernel')}}}",
        Reason.EVENT_UNEXPECTED,
        4,
        1,
    ),
    "forbidden name": ("event: {pcr: 8, name: login, occurs: never}", Reason.EVENT_UNEXPECTED, 8, 2),
    "secure boot": ("secure_boot: disabled", Reason.SECURE_BOOT_ON, 7, None),
    "forbidden word": ("command_line: {forbid: [quiet]}", Reason.COMMAND_LINE_MISMATCH, None, None),
    "missing word": ("command_line: {require: [ro]}", Reason.COMMAND_LINE_MISMATCH, None, None),
    "other line": ("command_line: {any_of: [ro]}", Reason.COMMAND_LINE_MISMATCH, None, None),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_deviation_names_its_place_and_what_was_found(name: str) -> None:
    rule, reason, pcr, index = FAILS[name]
    (finding,) = judge(rule)
    assert (finding.reason, finding.status, finding.pcr, finding.event_index) == (
        reason,
        Status.FAILED,
        pcr,
        index,
    )
    assert finding.tier is Tier.CONTRAINDICATED
    assert finding.remedy
    assert finding.expected or finding.actual


@pytest.mark.parametrize(
    ("rule", "claims", "reason"),
    [
        (SEQUENCE, without_log(), Reason.BOOT_LOG_MISSING),
        (SEQUENCE, unexplained(4), Reason.BOOT_LOG_MISMATCH),
        (PASSES["event by digest"][0], unexplained(4), Reason.BOOT_LOG_MISMATCH),
        ("secure_boot: enabled", unexplained(7), Reason.SECURE_BOOT_UNPROVEN),
        (
            "secure_boot: enabled",
            structs.replace(CLAIMS, boot=replace(BOOT, secure_boot=SecureBootFacts())),
            Reason.SECURE_BOOT_UNPROVEN,
        ),
        (
            "command_line: {forbid: [x]}",
            structs.replace(CLAIMS, boot=replace(BOOT, kernel_command_line=None)),
            Reason.COMMAND_LINE_UNPROVEN,
        ),
        (
            PASSES["pcr"][0],
            structs.replace(CLAIMS, quote=QUOTE._replace(pcrs={HashAlg.SHA1: {}})),
            Reason.PCR_NOT_QUOTED,
        ),
        (
            SEQUENCE,
            structs.replace(CLAIMS, boot=replace(BOOT, banks=(HashAlg.SHA1,))),
            Reason.BOOT_LOG_MISSING,
        ),
    ],
)
def test_what_cannot_be_judged_is_said_and_never_passes(
    rule: str, claims: ProvenClaims, reason: Reason
) -> None:
    (finding,) = judge(rule, claims)
    assert (finding.reason, finding.status) == (reason, Status.NOT_EVALUATED)
    assert finding.tier is Tier.NONE
    (lenient,) = judge(rule, claims, severity="warning")
    assert lenient.tier is Tier.WARNING


def test_an_added_event_is_one_finding_however_many_follow() -> None:
    extra = replace(BOOT, events=(event(9, 4, "implant", bound=False), *EVENTS))
    (finding,) = judge(SEQUENCE, structs.replace(CLAIMS, boot=extra))
    assert (finding.reason, finding.event_index, finding.expected) == (Reason.EVENT_UNEXPECTED, 9, "nothing")


def test_a_missing_event_is_named_by_its_label() -> None:
    (finding,) = judge(SEQUENCE, structs.replace(CLAIMS, boot=replace(BOOT, events=EVENTS[1:])))
    assert finding.reason is Reason.EVENT_MISSING
    assert "loader" in finding.message


def test_an_event_that_must_stand_once_may_not_stand_twice() -> None:
    twice = replace(BOOT, events=(*EVENTS, event(3, 8, "quiet", name="login")))
    (finding,) = judge(
        FAILS["event by name"][0].replace(hexed("x"), hexed("quiet")), structs.replace(CLAIMS, boot=twice)
    )
    assert (finding.reason, finding.event_index) == (Reason.EVENT_UNEXPECTED, 3)


def test_taking_an_events_name_away_does_not_hide_it_from_a_never_rule() -> None:
    """An edited text unbinds an event; absence of its name then proves nothing."""
    nameless = replace(BOOT, events=(event(2, 8, "quiet", bound=False),))
    (finding,) = judge("event: {pcr: 8, name: login, occurs: never}", structs.replace(CLAIMS, boot=nameless))
    assert (finding.reason, finding.status) == (Reason.EVENT_DATA_UNBOUND, Status.NOT_EVALUATED)
    rule = f"event: {{pcr: 8, name: login, occurs: never, any_of: {hexed('quiet')}}}"
    (by_digest,) = judge(rule, structs.replace(CLAIMS, boot=nameless))
    assert (by_digest.reason, by_digest.status) == (Reason.EVENT_UNEXPECTED, Status.FAILED)


def test_unbound_text_is_never_shown_as_found() -> None:
    (finding,) = judge(SEQUENCE.replace(hexed("loader"), hexed("x")))
    assert finding.actual == digest("loader").hex()


def test_a_severity_of_info_reports_without_moving_the_verdict() -> None:
    (finding,) = judge(f"pcr: {{index: 4, any_of: {hexed('x')}}}", severity="info")
    assert (finding.status, finding.tier) == (Status.FAILED, Tier.AFFIRMING)
