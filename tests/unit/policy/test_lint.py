"""Every lint problem has a policy that shows it; rules that make sense show none."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from tests.conftest import ROOT
from verifier.errors import PolicyError
from verifier.policy.lint import Level, Problem, ProblemId
from verifier.policy.parse import check_policy, parse_policy
from verifier.policy_files import find_policies, read_policy_source
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import extend_all, initial_value

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
ZERO, EMPTY = "00" * 32, hashlib.sha256(b"").hexdigest()
WHY = "not what this test is about"


def check(
    *rules: str, pcrs: tuple[int, ...] = (4, 7, 8), judged: tuple[int, ...] = (), **fields: str
) -> list[Problem]:
    """Problems of a policy of these rules; `judged` are the PCRs they cover."""
    unjudged = [pcr for pcr in pcrs if pcr not in judged]
    lines = [
        "schema: vtpm-attest/policy/1",
        "id: p",
        f"quote: {{pcrs: {list(pcrs)}{fields.pop('quote', '')}}}",
        *(f"{key}: {value}" for key, value in fields.items()),
        "rules:",
    ]
    for number, rule in enumerate(rules):
        head = f"id: r{number}" + ("" if "claim:" in rule else ", claim: configuration")
        lines.append(f"  - {{{head}, {rule}}}")
    if unjudged:
        lines += ["unjudged:", f"  - {{pcrs: {unjudged}, why: {WHY}}}"]
    _, problems = check_policy("\n".join(lines))
    return list(problems)


def ids(problems: list[Problem]) -> set[tuple[str, str]]:
    return {(problem.id.value, problem.where) for problem in problems}


def cel(text: str, claim: str = "configuration") -> str:
    return f'claim: {claim}, cel: "{text}"'


def event(
    accepted: str | None = None, occurs: str = "once", name: str = "", pcr: int = 4, **head: str
) -> str:
    parts = [f"pcr: {pcr}", f"occurs: {occurs}"] + ([f"name: {name}"] if name else [])
    parts += [f"any_of: [{accepted}]"] if accepted else []
    return ", ".join([*(f"{key}: {value}" for key, value in head.items()), f"event: {{{', '.join(parts)}}}"])


def sequence(*steps: str, pcr: int = 4, **head: str) -> str:
    listed = ", ".join(
        f"{{any_of: [{step.rstrip('?')}]{', optional: true' if step.endswith('?') else ''}}}"
        for step in steps
    )
    return ", ".join(
        [*(f"{k}: {v}" for k, v in head.items()), f"sequence: {{pcr: {pcr}, steps: [{listed}]}}"]
    )


def pcr(*accepted: str, index: int = 4, **head: str) -> str:
    listed = ", ".join(accepted)
    return ", ".join(
        [*(f"{k}: {v}" for k, v in head.items()), f"pcr: {{index: {index}, any_of: [{listed}]}}"]
    )


SB = "secure_boot: enabled"
INFO = "severity: info"

SET = "{sha256: " + A + "}"


def ran(rest: str) -> list[Problem]:
    return check(SB, pcrs=(7, 10), judged=(10,), runtime=f"{{sets: [{SET}], {rest}}}")


def excluding(*paths: str) -> list[Problem]:
    listed = ", ".join(f"{{paths: ['{path}'], why: {WHY}}}" for path in paths)
    return ran(f"excludes: [{listed}]")


PROBLEMS = {
    "the IMA list without a runtime part": (
        check(cel("runtime.known > 100", "executables")),
        "list-unread",
        "rule r0",
    ),
    "excluding everything": (excluding("/tmp/**", "regex:.*"), "excludes-everything", "runtime.excludes[1]"),
    "excluding everything in parts": (
        excluding("regex:/[a-m].*", "regex:/[n-z].*"),
        "excludes-everything",
        "runtime.excludes",
    ),
    "excluding programs": (excluding("/usr/bin/*"), "excludes-programs", "runtime.excludes[0]"),
    "unknown files allowed": (ran("unknown_files: allow"), "unknown-allowed", "runtime.unknown_files"),
    "unknown modules not denied": (
        ran("unknown_modules: warn"),
        "unknown-allowed",
        "runtime.unknown_modules",
    ),
    "unknown key": (check("sekure_boot: enabled"), "document", "rules[0]"),
    "all info": (check(f"{INFO}, {SB}", f"{INFO}, command_line: {{forbid: [x]}}"), "info-only", "rules"),
    "a PCR at info": (check(pcr(A, severity="info"), SB, judged=(4,)), "covered-by-info", "quote.pcrs"),
    "log ignored": (check(SB, boot_log="ignored"), "log-ignored", "rule r0"),
    "log ignored by CEL": (
        check(cel("boot.phases == []", "executables"), pcrs=(11,), boot_log="ignored"),
        "log-ignored",
        "rule r0",
    ),
    "Secure Boot without PCR 7": (check(SB, pcrs=(4,)), "unquoted-pcr", "rule r0"),
    "command line without its PCRs": (
        check("command_line: {forbid: [x]}", pcrs=(4, 7)),
        "unquoted-pcr",
        "rule r0",
    ),
    "claim without its PCR": (check(cel("boot.phases == []", "executables")), "unquoted-pcr", "rule r0"),
    "claim that needs two PCRs": (
        check(cel("!boot.windows.safe_mode"), pcrs=(7, 12)),
        "unquoted-pcr",
        "rule r0",
    ),
    "index outside the quote": (
        check(cel(f"quote.pcrs[9] == '{A}'", "hardware")),
        "unquoted-pcr",
        "rule r0",
    ),
    "no claims": (check(cel("'a' == 'a'")), "no-claims", "rule r0"),
    "tautology": (
        check(cel("boot.secure_boot.enabled || !boot.secure_boot.enabled")),
        "always-true",
        "rule r0",
    ),
    "contradiction in itself": (
        check(cel("boot.secure_boot.enabled && !boot.secure_boot.enabled")),
        "always-false",
        "rule r0",
    ),
    "idle part": (
        check(cel("boot.secure_boot.enabled && size(boot.phases) >= 0"), pcrs=(7, 11)),
        "idle-part",
        "rule r0",
    ),
    "two words": (check("command_line: {forbid: ['init=/bin/sh quiet']}"), "impossible-word", "rule r0"),
    "empty word": (check("command_line: {require: ['']}"), "impossible-word", "rule r0"),
    "no line left": (
        check("command_line: {any_of: [a b, a c], require: [a], forbid: [b, c]}"),
        "always-false",
        "rule r0",
    ),
    "dead line": (check("command_line: {any_of: [a b, a c], forbid: [c]}"), "dead-line", "rule r0"),
    "duplicate": (check(SB, f"severity: warning, {SB}"), "duplicate-rule", "rule r1"),
    "Secure Boot on and off": (check(SB, "secure_boot: disabled"), "contradiction", "rule r1"),
    "Secure Boot and CEL": (check(SB, cel("!boot.secure_boot.enabled")), "contradiction", "rule r1"),
    "required and forbidden": (
        check("command_line: {require: [a]}", "command_line: {forbid: [a]}"),
        "contradiction",
        "rule r1",
    ),
    "other lines": (
        check("command_line: {any_of: [a]}", "command_line: {any_of: [b, c]}"),
        "contradiction",
        "rule r1",
    ),
    "CEL that follows": (
        check(cel("boot.secure_boot.enabled && !boot.secure_boot.audit_mode"), SB),
        "implied-rule",
        "rule r1",
    ),
    "CEL that follows, before": (
        check(SB, cel("boot.secure_boot.enabled && !boot.secure_boot.audit_mode")),
        "implied-rule",
        "rule r0",
    ),
    "event nobody measures": (check(sequence(A, B), event(C), judged=(4,)), "contradiction", "rule r1"),
    "named event nobody measures": (
        check(event(C, name="kernel", pcr=7), sequence(A, B, pcr=7), judged=(7,)),
        "contradiction",
        "rule r1",
    ),
    "event twice in the sequence": (check(sequence(A, A), event(A), judged=(4,)), "contradiction", "rule r1"),
    "forbidden but golden": (
        check(sequence(A, B), event(B, occurs="never"), judged=(4,)),
        "contradiction",
        "rule r1",
    ),
    "forbidden and impossible": (
        check(sequence(A, B), event(C, occurs="never"), judged=(4,)),
        "implied-rule",
        "rule r1",
    ),
    "already demanded": (check(sequence(A, B), event(B), judged=(4,)), "implied-rule", "rule r1"),
    "already demanded once or more": (
        check(sequence(A, B), event(f"{B}, {C}", occurs="at-least-once"), judged=(4,)),
        "implied-rule",
        "rule r1",
    ),
    "optional and golden anyway": (
        check(sequence(A, B, pcr=7), event(f"{A}, {B}", occurs="optional", name="x", pcr=7), judged=(7,)),
        "implied-rule",
        "rule r1",
    ),
    "two sequences": (check(sequence(A), sequence(B), judged=(4,)), "contradiction", "rule r1"),
    "a wider sequence": (check(sequence(A), sequence(A, f"{B}?"), judged=(4,)), "implied-rule", "rule r1"),
    "other golden values": (check(pcr(A), pcr(B), judged=(4,)), "contradiction", "rule r1"),
    "more golden values": (check(pcr(A), pcr(A, B), judged=(4,)), "implied-rule", "rule r1"),
    "value and sequence disagree": (check(pcr(A), sequence(A), judged=(4,)), "contradiction", "rule r1"),
    "forbidden and demanded": (check(event(A, occurs="never"), event(A)), "contradiction", "rule r1"),
    "forbidden and demanded by name": (
        check(event(occurs="never", name="x", pcr=7), event(A, name="x", pcr=7)),
        "contradiction",
        "rule r1",
    ),
    "one name, other digests": (
        check(event(A, name="x", pcr=7), event(B, name="x", pcr=7)),
        "contradiction",
        "rule r1",
    ),
    "forbidden twice": (
        check(event(f"{A}, {B}", occurs="never"), event(A, occurs="never")),
        "implied-rule",
        "rule r1",
    ),
    "demanded twice": (
        check(event(A, name="x", pcr=7), event(f"{A}, {B}", occurs="at-least-once", pcr=7)),
        "implied-rule",
        "rule r1",
    ),
    "once is at least once": (
        check(event(A, name="x", pcr=7), event(f"{A}, {B}", occurs="at-least-once", name="x", pcr=7)),
        "implied-rule",
        "rule r1",
    ),
    "zero in a sequence": (check(sequence(A, ZERO), judged=(4,)), "zero-digest", "rule r0 step 1"),
    "zero in an event": (check(event(ZERO)), "zero-digest", "rule r0"),
    "nothing measured": (check(sequence(EMPTY), judged=(4,)), "empty-digest", "rule r0 step 0"),
    "sha1 signature": (
        check(SB, quote=", signature_hashes: [sha1, sha256]"),
        "weak-hash",
        "quote.signature_hashes",
    ),
    "sha1 bank": (check(SB, quote=", bank: sha1"), "weak-hash", "quote.bank"),
    "a quirk of another PCR": (
        check(SB, tolerate=f"[{{quirk: vmware-pcr0, pcrs: [4], why: {WHY}}}]"),
        "impossible-quirk",
        "tolerate",
    ),
    "a quirk whose value nothing judges": (
        check(SB, sequence(A), tolerate=f"[{{quirk: event-unlogged, pcrs: [4], why: {WHY}}}]", judged=(4,)),
        "tolerated-unjudged",
        "tolerate",
    ),
    "a quirk of what a rule reads": (
        check(SB, tolerate=f"[{{quirk: truncated-log, pcrs: [7], why: {WHY}}}]"),
        "tolerated-unproven",
        "rule r0",
    ),
    "no log, and a rule that reads it": (
        check(SB, tolerate=f"[{{quirk: zero-length-log, why: {WHY}}}]"),
        "tolerated-unproven",
        "rule r0",
    ),
    "a quirk of a log that is ignored": (
        check(
            pcr(A),
            boot_log="ignored",
            tolerate=f"[{{quirk: bank-capped, pcrs: [7], why: {WHY}}}]",
            judged=(4,),
        ),
        "log-ignored",
        "tolerate",
    ),
    "a name of a PCR without names": (
        check(event(A, name="MokList", pcr=14), pcrs=(14,)),
        "unbound-name",
        "rule r0",
    ),
    "a file by its name": (check(event(A, name="/vmlinuz", pcr=9), pcrs=(9,)), "unbound-name", "rule r0"),
    "a section there is not": (check(event(A, name=".evil", pcr=11), pcrs=(11,)), "unbound-name", "rule r0"),
    "another AR4SI claim": (
        check(cel("boot.secure_boot.enabled", "hardware")),
        "claim-mismatch",
        "rule r0",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_found_by_its_id_and_place_and_no_other(name: str) -> None:
    problems, identifier, where = PROBLEMS[name]
    assert ids(problems) == {(identifier, where)}
    for problem in problems:
        assert problem.message
        assert problem.remedy.endswith(".")


def test_every_problem_has_a_policy_that_shows_it() -> None:
    assert {identifier for _, identifier, _ in PROBLEMS.values()} == {each.value for each in ProblemId}


GOLDEN_4 = extend_all(initial_value(4, HashAlg.SHA256), [bytes.fromhex(A)], HashAlg.SHA256).hex()
FINE = {
    "plain": check(SB, sequence(A, B), judged=(4,)),
    "a quirk that leaves the events proven": check(
        SB,
        sequence(A, B),
        judged=(4,),
        tolerate=f"[{{quirk: final-events-duplicated, pcrs: [4, 7], why: {WHY}}}]",
    ),
    "a quirk of a pinned PCR": check(
        SB, pcr(A), judged=(4,), tolerate=f"[{{quirk: event-unlogged, pcrs: [4], why: {WHY}}}]"
    ),
    "graver than what implies it": check(
        sequence(A, B, severity="warning"), event(B, severity="contraindicated"), judged=(4,)
    ),
    "a runtime part": ran("unknown_files: warn"),
    "a rule on the IMA list beside its part": check(
        cel("runtime.known > 100", "executables"), pcrs=(10,), judged=(10,), runtime=f"{{sets: [{SET}]}}"
    ),
    "narrow excludes": excluding("/tmp/**", "/var/lib/docker/**", "/usr/bin/known"),
    "a runtime part beside an info rule": check(
        f"{INFO}, {SB}", pcrs=(7, 10), judged=(10,), runtime=f"{{sets: [{SET}]}}"
    ),
    "for another claim": check(sequence(A, B), event(B, claim="executables"), judged=(4,)),
    "same question, other claim": check(SB, f"claim: executables, {SB}"),
    "info beside its opposite": check(SB, f"{INFO}, secure_boot: disabled"),
    "info on an unjudged PCR": check(pcr(A, severity="info"), SB),
    "event of an optional step": check(sequence(A, f"{B}?"), event(B), judged=(4,)),
    "one of several": check(sequence(f"{A}, {B}"), event(A), judged=(4,)),
    "revoked among golden": check(sequence(f"{A}, {B}"), event(B, occurs="never"), judged=(4,)),
    "forbidden name": check(sequence(A, pcr=7), event(occurs="never", name="x", pcr=7), judged=(7,)),
    "two events": check(event(A), event(B)),
    "names that can be proven": check(
        event(A, name="SecureBoot", pcr=7),
        event(A, name=".cmdline", pcr=11),
        event(occurs="never", name="nvpcr-init", pcr=9),
        event(A, name="machine-id", pcr=15),
        pcrs=(7, 9, 11, 15),
    ),
    "two events of other names": check(event(A, name="x", pcr=7), event(B, name="y", pcr=7)),
    "zero value of a PCR": check(pcr(ZERO), judged=(4,)),
    "overlapping values": check(pcr(A, B), pcr(B, C), judged=(4,)),
    "value beside a sequence, other PCRs": check(pcr(A, index=8), sequence(A), judged=(4, 8)),
    "CEL on other claims": check(cel("boot.secure_boot.enabled"), cel("!boot.secure_boot.audit_mode")),
    "CEL that reads more": check(
        cel("boot.secure_boot.enabled"), cel("boot.secure_boot.enabled || boot.secure_boot.audit_mode")
    ),
    "golden lines": check("command_line: {any_of: [a b, a c], require: [a], forbid: [d]}"),
    "mixed lines": check("command_line: {any_of: [a, b]}", "command_line: {any_of: [b, c]}"),
    "optional step alone": check(sequence(f"{A}?"), judged=(4,)),
    "CEL with an index": check(cel(f"quote.pcrs[4] == '{A}'", "hardware")),
}


@pytest.mark.parametrize("name", FINE)
def test_rules_that_can_change_a_verdict_are_left_alone(name: str) -> None:
    assert FINE[name] == []


def test_a_value_that_the_sequence_leads_to_follows_from_it() -> None:
    problems = check(sequence(A), pcr(GOLDEN_4), judged=(4,))
    assert ids(problems) == {("implied-rule", "rule r1")}
    assert check(pcr(A, index=11), sequence(A, pcr=11), pcrs=(11,), judged=(11,)) == []
    assert check(sequence(f"{A}, {B}"), pcr(GOLDEN_4), judged=(4,)) == []


def test_sequences_with_many_ways_to_pass_are_not_compared() -> None:
    steps = [f"{A}, {B}"] * 7
    assert check(sequence(*steps), pcr(A), judged=(4,)) == []
    assert check(sequence(*steps), sequence(C), judged=(4,)) == []


@pytest.mark.parametrize("name", PROBLEMS)
def test_errors_are_refused_when_a_policy_is_parsed_and_warnings_are_not(name: str) -> None:
    problems, identifier, _ = PROBLEMS[name]
    entry = ProblemId(identifier).entry
    assert all(problem.level is entry.level for problem in problems)
    assert entry.about.endswith(".")


def test_the_first_error_is_the_one_a_parse_refuses_with_its_remedy() -> None:
    text = "schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [4]}\nrules: [{id: r, claim: hardware, cel: '1 == 1'}]\n"
    text += f"unjudged: [{{pcrs: [4], why: {WHY}}}]"
    with pytest.raises(PolicyError, match=r"reads no claim \(no-claims\)\. Compare a claim") as caught:
        parse_policy(text)
    assert caught.value.structure == "rule r"


def test_errors_come_before_warnings() -> None:
    problems = check(cel("boot.secure_boot.enabled", "hardware"), "secure_boot: disabled", f"{INFO}, {SB}")
    levels = [problem.level for problem in problems]
    assert all(first is Level.ERROR or second is Level.WARNING for first, second in pairwise(levels))


@pytest.mark.parametrize("policy", find_policies(ROOT / "policies"), ids=lambda path: path.name)
def test_shipped_policies_have_no_problem(policy) -> None:
    _, problems = check_policy(read_policy_source(policy))
    assert problems == ()
