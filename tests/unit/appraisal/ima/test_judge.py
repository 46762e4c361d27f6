"""What a quote proves of a list is judged, entry by entry; nothing else is, and nothing is skipped."""

from __future__ import annotations

import dataclasses

import pytest

from tests.ima_kernel import ImaKernel
from tests.runtime_reference import ALLOW, DENY, WARN, Known
from verifier.appraisal.ima.judge import Continuity, ImaOutcome, judge, judge_in_steps
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL, MAX_RETAINED, ImaState
from verifier.findings import Severity, Status
from verifier.policy.runtime.reference import Handling, RuntimeOptions, SignatureUse
from verifier.reasons import Reason, Tier
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.ima.entry import ImaFormatError
from verifier.tcg.ima.rules import BankRule

SHA256 = HashAlg.SHA256
GOOD = ("/usr/bin/a", "/usr/bin/b", "/usr/lib/c.so")
QuotedPcrs = dict[HashAlg, dict[int, bytes]]


def quote(kernel: ImaKernel, *banks: str) -> QuotedPcrs:
    return {HASH_BY_LABEL[bank]: dict(kernel.pcrs[bank]) for bank in banks or ("sha256",)}


def known(**options: object) -> Known:
    reference = Known(options=RuntimeOptions(**options))  # type: ignore[arg-type]
    for path in GOOD:
        reference.knows(path, path)
    return reference


def started(**options: object) -> ImaKernel:
    kernel = ImaKernel(**options)  # type: ignore[arg-type]
    for path in GOOD:
        kernel.measure(path, path)
    return kernel


def judged(
    kernel: ImaKernel, reference: Known | None = None, state: ImaState = INITIAL, *, tail: bool = True
) -> ImaOutcome:
    offset = state.offset if tail else 0
    segment = ImaSegment(kernel.list[offset:], offset, len(kernel.list))
    return judge(state, segment, quote(kernel), known() if reference is None else reference)


def codes(outcome: ImaOutcome) -> list[str]:
    return [one.reason.value for one in outcome.findings]


def worst(outcome: ImaOutcome) -> Tier:
    return max(one.tier for one in outcome.findings)


# --- what is good


@pytest.mark.parametrize("fast", [True, False], ids=["accepted", "looked-up"])
@pytest.mark.parametrize("padded", [False, True], ids=["own-hash", "padded"])
def test_a_list_of_known_files_passes(fast: bool, padded: bool) -> None:
    reference = known()
    reference.fast = fast
    kernel = started(padded=padded)
    outcome = judged(kernel, reference)
    assert outcome.continuity is Continuity.FIRST
    assert codes(outcome) == ["ima-list-replays", "ima-files-known"]
    assert worst(outcome) is Tier.AFFIRMING
    assert outcome.claims is not None
    assert (outcome.claims.entries, outcome.claims.known, outcome.claims.kernels) == (4, 3, 1)
    assert outcome.claims.boot_aggregate is True
    assert outcome.state.aggregates == {10: {SHA256: kernel.pcrs["sha256"][10]}}
    assert outcome.state.rules == {SHA256: BankRule.PADDED_SHA1 if padded else BankRule.OWN_HASH}
    assert (outcome.consumed, outcome.unproven, outcome.resend) == (len(kernel.list), 0, False)
    assert ("/usr/bin/a" in reference.asked) is not fast


@pytest.mark.parametrize("template", ["ima-sig", "evm-sig", "d-ng|n-ng|imode"])
def test_known_digest_and_path_are_accepted_whatever_fields_follow(template: str) -> None:
    kernel, reference = started(template=template), known()
    kernel.measure("/usr/bin/a", "/usr/bin/b")
    outcome = judged(kernel, reference)
    assert reference.asked == ["/usr/bin/a"], "none but the changed one is looked up"
    assert outcome.claims is not None
    assert (outcome.claims.known, outcome.claims.wrong) == (3, 1)


def test_where_signatures_are_required_nothing_is_accepted_unlooked() -> None:
    kernel = started(template="ima-sig")
    outcome = judged(kernel, known(signatures=SignatureUse.REQUIRED))
    assert codes(outcome).count("ima-signature-missing") == 3


def test_without_a_reference_a_list_is_proven_and_never_passes() -> None:
    kernel = started()
    outcome = judge(INITIAL, ImaSegment(kernel.list), quote(kernel), None)
    assert codes(outcome) == ["ima-list-replays", "ima-reference-missing"]
    assert worst(outcome) is Tier.NONE
    assert outcome.claims is not None
    assert outcome.claims.unknown == 3


def test_a_machine_whose_ima_measured_nothing_never_passes() -> None:
    pcrs: QuotedPcrs = {SHA256: {10: bytes(32)}}
    outcome = judge(INITIAL, ImaSegment(b""), pcrs, known())
    assert "ima-list-missing" in codes(outcome)
    assert worst(outcome) is Tier.CONTRAINDICATED


# --- files


def test_an_unknown_file_is_named_with_its_digest_its_place_and_a_likely_reason() -> None:
    kernel = started()
    digest = kernel.measure("/tmp/miner", "x")
    outcome = judged(kernel)
    (finding,) = [one for one in outcome.findings if one.reason is Reason.IMA_FILE_UNKNOWN]
    assert (finding.status, finding.severity) == (Status.FAILED, Severity.CONTRAINDICATED)
    assert (finding.pcr, finding.event_index, finding.actual) == (10, 4, f"sha256:{digest.hex()}")
    assert finding.message == (
        "/tmp/miner is not among the known files: it lies where users can write: a program that somebody brought along"
    )
    assert "ima-files-known" not in codes(outcome)


def test_a_changed_file_is_named_with_what_was_expected() -> None:
    kernel = started()
    kernel.measure("/usr/bin/a", "tampered")
    (finding,) = [one for one in judged(kernel).findings if one.reason is Reason.IMA_FILE_CHANGED]
    assert finding.expected == f"sha256:{known().files['/usr/bin/a'][0].hex()}"
    assert finding.message == (
        "/usr/bin/a has another content than the known files: its package was updated since the set was made, or the"
        " file was tampered with (coreutils 9.1-1 (debian-12))"
    )


@pytest.mark.parametrize(
    ("handling", "tier"),
    [(DENY, Tier.CONTRAINDICATED), (WARN, Tier.WARNING), (ALLOW, Tier.AFFIRMING)],
)
@pytest.mark.parametrize(
    "what", ["unknown_path", "unknown_module", "violations", "unknown_key", "policy_load", "unknown_buffer"]
)
def test_each_handling_moves_the_verdict_by_its_name(what: str, handling: Handling, tier: Tier) -> None:
    kernel = started()
    match what:
        case "unknown_path":
            kernel.measure("/usr/bin/z", "z")
        case "unknown_module":
            kernel.measure("/lib/modules/6.1/x.ko.xz", "z")
        case "violations":
            kernel.violation("/var/log/x")
        case "unknown_key":
            kernel.buffer(".ima", b"key")
        case "policy_load":
            kernel.measure("/etc/ima/ima-policy", "measure")
        case _:
            kernel.buffer("kexec-cmdline", b"quiet")
    assert worst(judged(kernel, known(**{what: handling}))) is tier
    others = {
        name: ALLOW
        for name in (
            "unknown_path",
            "unknown_module",
            "violations",
            "unknown_key",
            "policy_load",
            "unknown_buffer",
        )
        if name != what
    }
    assert worst(judged(kernel, known(**others))) is Tier.CONTRAINDICATED, "no other switch covers it"


def test_a_changed_module_is_denied_whatever_is_said_of_unknown_ones() -> None:
    kernel = started()
    kernel.measure("/lib/modules/6.1/x.ko", "tampered")
    reference = known(unknown_module=ALLOW).knows("/lib/modules/6.1/x.ko", "x")
    assert worst(judged(kernel, reference)) is Tier.CONTRAINDICATED


def test_staged_files_are_a_warning_and_excluded_ones_pass_and_both_are_counted() -> None:
    kernel = started()
    kernel.measure("/usr/bin/a", "next version")
    kernel.measure("/var/cache/x", "anything")
    reference = known()
    reference.staged = Known().knows("/usr/bin/a", "next version").files
    reference.excludes = ("/var/cache/*",)
    outcome = judged(kernel, reference)
    assert worst(outcome) is Tier.WARNING
    assert Reason.IMA_FILES_STAGED in {finding.reason for finding in outcome.findings}
    assert outcome.claims is not None
    assert (outcome.claims.staged, outcome.claims.excluded) == (1, 1)
    kernel = started()
    kernel.measure("/var/cache/x", "anything")
    assert worst(judged(kernel, reference)) is Tier.AFFIRMING


def test_a_digest_of_another_kind_is_not_the_files() -> None:
    kernel = ImaKernel(template="ima-sigv2")
    digest = known().files["/usr/bin/a"][0]
    kernel.measure("/usr/bin/a", "/usr/bin/a", d_ngv2=b"verity:sha256:\0" + digest)
    assert "ima-file-changed" in codes(judged(kernel))


def test_at_most_a_hundred_findings_are_kept_and_the_rest_weighs_as_much() -> None:
    kernel = started()
    for number in range(MAX_RETAINED):
        kernel.measure(f"/usr/bin/{number}", "z")
    kernel.measure("/usr/bin/a", "tampered")
    kernel.measure("/usr/bin/a", "tampered again")
    outcome = judged(kernel, known(unknown_path=WARN))
    assert len([one for one in outcome.findings if one.status is Status.FAILED]) == MAX_RETAINED + 1
    last = outcome.findings[-1]
    assert (last.reason, last.severity) == (Reason.IMA_MORE, Severity.CONTRAINDICATED)
    assert "2 ima-file-changed" in last.message
    kernel.measure("/usr/bin/another", "z")
    assert judged(kernel, known(unknown_path=WARN)).findings[-1].severity is Severity.CONTRAINDICATED


LIKELY = {
    "/usr/lib/modules/6.1/extra/x.ko.zst": "a module of another kernel",
    "/dev/shm/.x": "users can write",
    "/memfd:x (deleted)": "run from memory or deleted",
    "/usr/lib/python3/x.pyc": "made on the machine",
    "/usr/bin/new": "a package that no set covers",
}


@pytest.mark.parametrize("path", sorted(LIKELY))
def test_a_finding_says_what_is_most_likely(path: str) -> None:
    kernel = started()
    kernel.measure(path, "x")
    (finding,) = [one for one in judged(kernel).findings if one.tier is not Tier.AFFIRMING]
    assert LIKELY[path] in finding.message


def test_a_copy_of_a_known_file_is_told_as_one() -> None:
    kernel = started()
    kernel.measure("/opt/copy", "/usr/bin/a")
    (finding,) = [one for one in judged(kernel).findings if one.tier is not Tier.AFFIRMING]
    assert "its content is that of /usr/bin/a" in finding.message


# --- violations


def test_violations_say_what_is_proven_and_which_kind_it_looks_like() -> None:
    kernel = started()
    kernel.violation("/usr/bin/a")
    kernel.violation("/var/log/x")
    kernel.measure("/var/log/x", "x")
    outcome = judged(kernel, known(unknown_path=ALLOW))
    first, second = [one for one in outcome.findings if one.reason is Reason.IMA_VIOLATION]
    assert "written while it was in use" in first.message
    assert "opened for reading while it was being written" in second.message
    assert "which no PCR covers" in first.message
    assert first.actual is None
    assert outcome.claims is not None
    assert outcome.claims.violations == 2


def test_excluding_a_path_does_not_excuse_a_violation_that_only_names_it() -> None:
    kernel = started()
    kernel.violation("/var/cache/x")
    reference = known()
    reference.excludes = ("*",)
    assert "ima-violation" in codes(judged(kernel, reference))


def test_hiding_a_violation_behind_a_template_digest_does_not_work() -> None:
    kernel = started()
    kernel.violation("/usr/bin/a")
    at = kernel.offsets[-1]
    shown = bytearray(kernel.list)
    shown[at + 4 : at + 24] = b"\1" * 20
    outcome = judge(INITIAL, ImaSegment(bytes(shown)), quote(kernel), known())
    assert outcome.continuity is Continuity.REWRITTEN


# --- labels that no PCR covers


def test_a_file_posing_as_a_buffer_by_its_template_name_is_judged_as_the_file_it_is() -> None:
    kernel = started(template="ima-sig")
    kernel.measure("/usr/bin/evil", "evil", sig=b"\x03whatever")
    forged = kernel.list.replace(b"ima-sig", b"ima-buf")
    reference = known(unknown_buffer=ALLOW, unknown_key=ALLOW)
    outcome = judge(INITIAL, ImaSegment(forged), quote(kernel), reference)
    assert outcome.continuity is Continuity.FIRST, "template names are not measured"
    assert "ima-file-unknown" in codes(outcome)


@pytest.mark.parametrize(
    ("path", "signature"),
    [("memfd:evil", b"\x03whatever"), ("/usr/bin/evil", b"\x03evil")],
    ids=["no-path", "signature-is-content"],
)
def test_no_file_passes_for_critical_data(path: str, signature: bytes) -> None:
    kernel = started(template="ima-sig")
    kernel.measure(path, signature if path.startswith("/") else b"evil", sig=signature)
    forged = kernel.list.replace(b"ima-sig", b"ima-buf")
    reference = known(unknown_buffer=ALLOW, unknown_key=ALLOW)
    assert "ima-file-unknown" in codes(judge(INITIAL, ImaSegment(forged), quote(kernel), reference))


def test_a_file_called_boot_aggregate_is_not_one() -> None:
    kernel = started()
    kernel.measure("boot_aggregate", "evil")
    outcome = judged(kernel)
    assert "ima-file-unknown" in codes(outcome)
    assert outcome.claims is not None
    assert outcome.claims.kernels == 1


def test_an_entry_with_neither_path_nor_digest_never_passes() -> None:
    kernel = started()
    forged = kernel.list.replace(b"ima-ng", b"ima-xx")
    reference = known()
    reference.fast = False
    outcome = judge(INITIAL, ImaSegment(forged), quote(kernel), reference)
    assert "ima-template-unknown" in codes(outcome)


# --- racing the kernel


def test_nothing_is_judged_before_it_is_proven_and_nothing_is_skipped() -> None:
    kernel, reference = started(), known()
    early = quote(kernel)
    kernel.measure("/usr/bin/evil", "evil")
    first = judge(INITIAL, ImaSegment(kernel.list), early, reference)
    assert worst(first) is Tier.AFFIRMING
    assert first.unproven == len(kernel.list) - kernel.offsets[-1]
    assert "/usr/bin/evil" not in reference.asked
    assert "bytes that came after the quote wait" in first.findings[0].message
    second = judged(kernel, reference, first.state)
    assert second.continuity is Continuity.CONTINUED
    assert "ima-file-unknown" in codes(second)


def test_every_race_on_the_way_leads_to_the_same_judgement() -> None:
    kernel = started()
    quotes = [quote(kernel)]
    for number in range(25):
        match number % 5:
            case 0:
                kernel.violation("/var/log/x")
            case 1:
                kernel.measure(f"/usr/bin/evil{number}", "evil")
            case 2:
                kernel.buffer(".ima", b"key")
            case _:
                kernel.measure(GOOD[0], GOOD[0])
        quotes.append(quote(kernel))
    whole = judge(INITIAL, ImaSegment(kernel.list), quotes[-1], known())
    for ahead in (0, 1, 4):
        state = INITIAL
        for number, pcrs in enumerate(quotes):
            end = (
                kernel.offsets[min(len(kernel.offsets) - 1, 4 + number + ahead)]
                if number + 1 < len(quotes)
                else None
            )
            data = kernel.list[: max(end or len(kernel.list), state.offset)][state.offset :]
            outcome = judge(state, ImaSegment(data, state.offset), pcrs, known())
            assert outcome.continuity in {Continuity.FIRST, Continuity.CONTINUED}
            state = outcome.state
        assert state == whole.state
        assert outcome.findings[2:] == whole.findings[2:]


def test_a_bad_entry_stays_bad_until_reboot() -> None:
    kernel = started()
    kernel.measure("/usr/bin/evil", "evil")
    first = judged(kernel)
    again = judged(kernel, state=first.state)
    assert again.continuity is Continuity.UNCHANGED
    assert worst(again) is Tier.CONTRAINDICATED
    kernel.measure("/usr/bin/a", "/usr/bin/a")
    later = judged(kernel, state=ImaState.from_json(again.state.to_json()))
    assert later.continuity is Continuity.CONTINUED
    assert [one for one in later.findings if one.reason is Reason.IMA_FILE_UNKNOWN] == [
        one for one in first.findings if one.reason is Reason.IMA_FILE_UNKNOWN
    ]


def test_a_torn_end_behind_the_quote_waits() -> None:
    kernel = started()
    early, whole = quote(kernel), len(kernel.list)
    kernel.measure("/usr/bin/evil", "evil")
    outcome = judge(INITIAL, ImaSegment(kernel.list[:-5]), early, known())
    assert outcome.consumed == whole
    with pytest.raises(ImaFormatError):
        judge(INITIAL, ImaSegment(kernel.list[:whole] + b"\xff" * 40), {SHA256: {10: b"\7" * 32}}, known())


def test_pauses_come_in_between_and_change_nothing() -> None:
    kernel = started()
    for number in range(500):
        kernel.measure(f"/usr/bin/evil{number}", "evil")
    steps = judge_in_steps(INITIAL, ImaSegment(kernel.list), quote(kernel), known(), entries=50)
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value == judged(kernel)
            break
        pauses += 1
    assert pauses >= 10


# --- what a list can be to what was known


def test_a_whole_list_that_contains_what_was_known_goes_on_from_there() -> None:
    kernel, reference = started(), known()
    first = judged(kernel, reference)
    kernel.measure("/usr/bin/evil", "evil")
    outcome = judged(kernel, reference, first.state, tail=False)
    assert outcome.continuity is Continuity.CONTINUED
    assert outcome.consumed == len(kernel.list)
    assert outcome.state == judged(kernel, reference, first.state).state


def test_a_reboot_is_told_by_a_whole_list_and_forgets_what_was_found() -> None:
    kernel = started()
    kernel.measure("/usr/bin/evil", "evil")
    state = judged(kernel).state
    rebooted = started()
    rebooted.measure("/usr/bin/b", "/usr/bin/b")
    outcome = judged(rebooted, state=state, tail=False)
    assert outcome.continuity is Continuity.REBOOTED
    assert codes(outcome) == ["ima-list-replays", "ima-list-rebooted", "ima-files-known"]
    assert outcome.state == judged(rebooted).state


def test_a_list_that_starts_anew_goes_on_from_the_pcr_and_forgets_nothing() -> None:
    kernel = started()
    kernel.measure("/usr/bin/evil", "evil")
    state = judged(kernel).state
    kernel.binary.clear()
    kernel.aggregate()
    kernel.measure("/usr/bin/a", "/usr/bin/a")
    outcome = judged(kernel, state=state, tail=False)
    assert outcome.continuity is Continuity.ROTATED
    assert {"ima-list-rotated", "ima-file-unknown"} <= set(codes(outcome))
    assert (outcome.state.count, outcome.state.offset) == (7, len(kernel.list))
    assert outcome.claims is not None
    assert outcome.claims.kernels == 2
    kernel.measure("/usr/bin/b", "/usr/bin/b")
    assert judged(kernel, state=outcome.state).continuity is Continuity.CONTINUED


def test_a_list_carried_over_kexec_has_a_second_boot_aggregate() -> None:
    kernel = started()
    kernel.aggregate()
    kernel.measure("/usr/bin/a", "/usr/bin/a")
    outcome = judged(kernel)
    assert worst(outcome) is Tier.AFFIRMING
    assert outcome.claims is not None
    assert outcome.claims.kernels == 2


@pytest.mark.parametrize("tail", [True, False], ids=["tail", "whole"])
def test_a_changed_list_is_no_longer_believed(tail: bool) -> None:
    kernel = started()
    state = judged(kernel).state
    kernel.measure("/usr/bin/evil", "evil")
    kernel.measure("/usr/bin/a", "/usr/bin/a")
    offset = state.offset if tail else 0
    hidden = kernel.list[: kernel.offsets[-2]] + kernel.list[kernel.offsets[-1] :]
    outcome = judge(state, ImaSegment(hidden[offset:], offset), quote(kernel), known())
    assert outcome.continuity is Continuity.REWRITTEN
    assert worst(outcome) is Tier.CONTRAINDICATED
    assert outcome.claims is None
    assert outcome.state == state
    assert outcome.resend is tail


def test_a_list_that_ends_before_the_quote_is_behind() -> None:
    kernel = started()
    state = judged(kernel).state
    kernel.measure("/usr/bin/evil", "evil")
    outcome = judge(state, ImaSegment(b"", state.offset), quote(kernel), known())
    assert (outcome.continuity, worst(outcome)) == (Continuity.BEHIND, Tier.NONE)


def test_a_list_shorter_than_what_was_proven_is_truncated() -> None:
    kernel = started()
    state = judged(kernel).state
    kernel.measure("/usr/bin/evil", "evil")
    outcome = judge(state, ImaSegment(kernel.list[: kernel.offsets[2]]), quote(kernel), known())
    assert (outcome.continuity, worst(outcome)) == (Continuity.TRUNCATED, Tier.CONTRAINDICATED)


def test_another_reference_judges_the_whole_list_or_says_that_it_cannot() -> None:
    kernel = started()
    kernel.measure("/usr/bin/z", "z")
    state = judged(kernel).state
    newer = dataclasses.replace(known().knows("/usr/bin/z", "z"), revision=b"two")
    tail = judged(kernel, newer, state)
    assert (tail.continuity, worst(tail), tail.resend) == (Continuity.STALE, Tier.NONE, True)
    assert tail.claims is None
    whole = judged(kernel, newer, state, tail=False)
    assert whole.continuity is Continuity.FIRST
    assert worst(whole) is Tier.AFFIRMING
    assert whole.state.revision == b"two"


def test_an_offset_nobody_knows_is_not_guessed_at() -> None:
    kernel = started()
    state = judged(kernel).state
    outcome = judge(
        state, ImaSegment(kernel.list[kernel.offsets[1] :], kernel.offsets[1]), quote(kernel), known()
    )
    assert (outcome.continuity, outcome.resend) == (Continuity.STALE, True)
    outcome = judge(
        INITIAL, ImaSegment(kernel.list[kernel.offsets[1] :], kernel.offsets[1]), quote(kernel), known()
    )
    assert (outcome.continuity, outcome.resend) == (Continuity.STALE, True)


# --- banks and PCRs


def test_every_quoted_bank_has_to_tell_the_same() -> None:
    kernel = started(banks=("sha1", "sha256", "sha384"))
    pcrs = quote(kernel, "sha1", "sha256", "sha384")
    outcome = judge(INITIAL, ImaSegment(kernel.list), pcrs, known())
    assert worst(outcome) is Tier.AFFIRMING
    assert set(outcome.state.aggregates[10]) == set(pcrs)
    pcrs[HashAlg.SHA1][10] = bytes(20)
    outcome = judge(INITIAL, ImaSegment(kernel.list), pcrs, known())
    assert "ima-list-mismatch" in codes(outcome)
    assert "bank sha1" in outcome.findings[1].message


def test_a_list_that_is_not_quoted_is_not_proven() -> None:
    kernel = started()
    pcrs = quote(kernel)
    del pcrs[SHA256][10]
    outcome = judge(INITIAL, ImaSegment(kernel.list), pcrs, known())
    assert (outcome.continuity, worst(outcome), outcome.claims) == (Continuity.UNQUOTED, Tier.NONE, None)


def test_a_quote_of_a_bank_that_the_state_does_not_know_needs_the_whole_list() -> None:
    kernel = started()
    state = judged(kernel).state
    pcrs = quote(kernel, "sha1")
    tail = judge(state, ImaSegment(b"", state.offset), pcrs, known())
    assert (tail.continuity, tail.resend) == (Continuity.STALE, True)
    whole = judge(state, ImaSegment(kernel.list), pcrs, known())
    assert worst(whole) is Tier.AFFIRMING


def test_a_kernel_that_measures_into_another_pcr_is_followed_there() -> None:
    kernel = started(pcr=11)
    outcome = judged(kernel)
    assert worst(outcome) is Tier.AFFIRMING
    assert outcome.state.main == 11


def test_entries_of_a_second_pcr_are_proven_where_it_is_quoted_and_never_pass_where_it_is_not() -> None:
    kernel = started()
    kernel.measure("/usr/bin/evil", "evil", pcr=12)
    assert "ima-file-unknown" in codes(judged(kernel))
    pcrs = quote(kernel)
    del pcrs[SHA256][12]
    outcome = judge(INITIAL, ImaSegment(kernel.list), pcrs, known())
    assert "ima-file-unknown" not in codes(outcome), "it is behind the last proven entry"
    kernel.measure("/usr/bin/a", "/usr/bin/a", pcr=12)
    kernel.measure("/usr/bin/a", "/usr/bin/a")
    pcrs = quote(kernel)
    del pcrs[SHA256][12]
    outcome = judge(INITIAL, ImaSegment(kernel.list), pcrs, known())
    assert "ima-pcr-unproven" in codes(outcome)
    assert outcome.claims is not None
    assert (outcome.claims.unproven, outcome.claims.known) == (2, 4), (
        "a known file is no more proven than others"
    )
    assert "ima-file-unknown" not in codes(outcome)
    assert worst(outcome) is Tier.NONE


def test_lists_of_per_algorithm_files_and_big_endian_machines_are_judged_alike() -> None:
    reference = known()
    reference.fast = False
    for options in (
        {"digest": "sha256"},
        {"order": ">"},
        {"template": "ima-sigv2"},
        {"template": "d-ng|n-ng|imode"},
    ):
        kernel = started(**options)
        assert worst(judged(kernel, reference)) is Tier.AFFIRMING, options


def test_a_first_entry_with_a_digest_of_no_hash_is_no_boot_aggregate() -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.binary.clear()
    kernel.pcrs["sha256"].pop(10)
    kernel.measure_digest("boot_aggregate", b"\1" * 100_000)
    outcome = judged(kernel)
    assert "ima-file-unknown" in codes(outcome)
    assert outcome.state.summary.aggregate is None
