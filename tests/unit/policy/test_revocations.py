"""Which of the revocations that a policy requires a machine lacks: read from published lists, judged, compared."""

from __future__ import annotations

import contextlib
import functools
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.event_logs import CORPUS
from tests.unit.policy.test_catalogue import captured
from tests.unit.policy.test_lint import check, ids
from verifier.appraisal.boot_facts import bind_log
from verifier.claims import ProvenClaims, SignatureDatabase
from verifier.errors import EvidenceError, PolicyError
from verifier.findings import Finding, Status
from verifier.policy.diff import diff_policies
from verifier.policy.evaluate import evaluate
from verifier.policy.explain import explain_events
from verifier.policy.parse import parse_policy
from verifier.predict.revocations import read_revocations, reference_set
from verifier.reasons import Reason
from verifier.tcg import uefi
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log, replay
from verifier.tcg.guid import guid_bytes
from verifier.tcg.signature_list import SecurityVersion, parse_security_version

SHA256 = HashAlg.SHA256
OWNER = guid_bytes("77fa9abd-0359-4d32-bd60-28f4e78f784b")
SHA256_TYPE = guid_bytes("c1c41626-504c-4092-aca9-41f936934328")
X509_TYPE = guid_bytes("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
TBS_TYPE = guid_bytes("3bd2a492-96c0-4079-b420-fcf98ef103ed")
PKCS7_TYPE = guid_bytes("4aafd29d-68df-49ee-8aa9-347d375665a7")
DIGESTS = [SHA256.digest(bytes([number])) for number in range(12)]
SVN = {
    version: bytes.fromhex("01612b139dd5598843ab1c185c3cb2eb92")
    + struct.pack("<HH", *reversed(version))
    + bytes(11)
    for version in ((5, 0), (7, 0), (7, 2))
}
HEAD = """\
schema: vtpm-attest/policy/1
id: revoking
quote: {pcrs: [7]}
rules:
  - id: revoked
    claim: configuration
    revocations: {RULE}
unjudged: [{pcrs: [7], why: a policy for tests}]
"""


def signature_list(kind: bytes, *entries: bytes) -> bytes:
    size = 16 + len(entries[0])
    body = b"".join(OWNER + entry for entry in entries)
    return kind + struct.pack("<III", 28 + len(body), 0, size) + body


def update(lists: bytes, certificate: bytes = b"\x30\x82 not checked") -> bytes:
    """EFI_VARIABLE_AUTHENTICATION_2 with the lists behind it."""
    head = struct.pack("<IHH", 24 + len(certificate), 0x0200, 0x0EF1)
    return bytes(16) + head + PKCS7_TYPE + certificate + lists


def policy(rule: str, references: str = "") -> str:
    text = HEAD.replace("{RULE}", rule)
    return f"{text}---\n{references}" if references else text


def judged(rule: str, claims: ProvenClaims, references: str = "") -> Finding:
    (finding,) = evaluate(parse_policy(policy(rule, references)), claims)
    return finding


def with_dbx(
    *digests: bytes, certificates: tuple[bytes, ...] = (), tbs: tuple[bytes, ...] = ()
) -> ProvenClaims:
    """A captured boot with another dbx."""
    claims = captured("grub-sb-on")
    assert claims.boot is not None
    assert claims.boot.details is not None
    kinds = {"sha256": frozenset(digests), "x509-sha256": frozenset(tbs)}
    dbx = SignatureDatabase(8, certificates, kinds, len(digests) + len(certificates) + len(tbs))
    details = replace(claims.boot.details, databases={**claims.boot.details.databases, "dbx": dbx})
    return structs.replace(claims, boot=replace(claims.boot, decode=lambda: details))


def required(*digests: bytes) -> str:
    return "{require: [" + ", ".join(digest.hex() for digest in digests) + "]}"


def test_all_that_is_required_is_there() -> None:
    finding = judged(required(*DIGESTS[:3]), with_dbx(*DIGESTS))
    assert (finding.reason, finding.status, finding.pcr) == (Reason.REVOCATIONS_PRESENT, Status.PASSED, 7)


def test_what_is_missing_is_named_with_its_note_and_no_more_than_eight_in_full() -> None:
    revoked = read_revocations(signature_list(SHA256_TYPE, *DIGESTS))
    finding = judged("{require: ['ref:dbx/*']}", with_dbx(DIGESTS[0]), reference_set(revoked, "dbx", ""))
    assert (finding.reason, finding.status) == (Reason.REVOCATIONS_MISSING, Status.FAILED)
    assert "11 of 12 required revocations are missing" in finding.message
    assert finding.expected is not None
    assert [digest.hex() in finding.expected for digest in DIGESTS] == [False] + [True] * 8 + [False] * 3
    assert finding.expected.endswith(" and 3 more")
    assert finding.actual == "dbx with 1 entries (event 8)"
    named = {"images": {"x64": [{"authenticodeHash": DIGESTS[1].hex(), "filename": "shim.efi"}]}}
    references = reference_set(read_revocations(json.dumps(named).encode()), "dbx", "")
    finding = judged("{require: ['ref:dbx/*']}", with_dbx(DIGESTS[0]), references)
    assert finding.expected == f"{DIGESTS[1].hex()} (shim.efi)"


def test_certificates_and_their_signed_parts_are_revocations_too() -> None:
    claims = with_dbx(DIGESTS[0], certificates=(DIGESTS[1],), tbs=(DIGESTS[2] + bytes(16),))
    assert judged(required(*DIGESTS[:3]), claims).status is Status.PASSED
    assert judged(required(*DIGESTS[:4]), claims).expected == DIGESTS[3].hex()


def test_a_security_version_is_met_by_a_later_one_and_not_by_an_earlier() -> None:
    assert parse_security_version(SVN[7, 2]) == SecurityVersion("bootmgfw.efi", 7, 2)
    assert parse_security_version(DIGESTS[0]) is None
    assert judged(required(SVN[7, 0]), with_dbx(SVN[5, 0], SVN[7, 2])).status is Status.PASSED
    for held in ((SVN[5, 0],), (DIGESTS[0],)):
        finding = judged(required(SVN[7, 0]), with_dbx(*held))
        assert (finding.status, finding.expected) == (Status.FAILED, "bootmgfw.efi below version 7.0")


def test_shims_level_is_held_against_generations() -> None:
    claims = captured("grub-sb-on")  # sbat,1,2025021800 shim,4 grub,5
    assert judged("{sbat: {shim: 4, grub: 5}}", claims).status is Status.PASSED
    finding = judged("{sbat: {shim: 5, grub: 5, grub.debian: 4}}", claims)
    assert (finding.status, finding.reason) == (Status.FAILED, Reason.REVOCATIONS_MISSING)
    assert finding.expected == "shim below generation 5, grub.debian below generation 4"
    assert finding.actual is not None
    assert "shim,4" in finding.actual


def test_an_unproven_dbx_or_level_is_not_an_empty_one() -> None:
    claims = captured("uki-sb-on")  # no shim
    for rule, evidence, what in (
        ("{sbat: {shim: 1}}", claims, "SbatLevel is not proven"),
        (required(DIGESTS[0]), structs.replace(claims, boot=None), "dbx is not proven"),
        (
            "{require: ['" + "ab" * 32 + "'], sbat: {shim: 1}}",
            structs.replace(claims, boot=None),
            "dbx and shim's SbatLevel are",
        ),
    ):
        finding = judged(rule, evidence)
        assert (finding.reason, finding.status) == (Reason.CLAIM_UNPROVEN, Status.NOT_EVALUATED)
        assert what in finding.message


def test_a_dbx_of_a_pcr_that_does_not_replay_proves_nothing() -> None:
    claims = with_dbx(*DIGESTS)
    assert claims.boot is not None
    unexplained = structs.replace(claims, boot=replace(claims.boot, unlogged_pcrs=(7,)))
    assert judged(required(DIGESTS[0]), unexplained).status is Status.NOT_EVALUATED


# --- published files

LISTS = signature_list(SHA256_TYPE, *DIGESTS[:2]) + signature_list(TBS_TYPE, DIGESTS[2] + bytes(16))


@pytest.mark.parametrize(
    "data",
    [LISTS, b"\x27\0\0\0" + LISTS, update(LISTS)],
    ids=["lists", "efivarfs", "update"],
)
def test_a_list_is_read_in_each_of_its_forms(data: bytes) -> None:
    assert [entry.digest for entry in read_revocations(data).entries] == DIGESTS[:3]


def test_the_json_beside_an_update_is_read_and_says_what_it_cannot_name() -> None:
    document = {
        "images": {
            "x64": [
                {"authenticodeHash": DIGESTS[0].hex().upper(), "filename": "shim.efi ", "companyName": "A"}
            ],
            "arm64": [{"authenticodeHash": DIGESTS[1].hex()}],
        },
        "certificates": [{"subjectName": "CN = Old CA", "thumbprint": "00" * 20}],
        "svns": [{"value": SVN[5, 0].hex().upper()}],
    }
    data = json.dumps(document).encode()
    found = read_revocations(data, "x64")
    assert [(entry.digest, entry.note) for entry in found.entries] == [
        (DIGESTS[0], "shim.efi, A"),
        (SVN[5, 0], "bootmgfw.efi below version 5.0"),
    ]
    (skipped,) = found.skipped
    assert "CN = Old CA" in skipped
    assert len(read_revocations(data).entries) == 3
    with pytest.raises(PolicyError, match="it has x64, arm64"):
        read_revocations(data, "riscv64")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "revokes nothing"),
        (b"MZ" * 40, "neither signature lists"),
        (update(LISTS[:-1]), "EFI_SIGNATURE_LIST at byte"),
        (update(b""), "revokes nothing"),
        (signature_list(guid_bytes("826ca512-cf10-4ac9-b187-be01496631bd"), bytes(20)), "revokes nothing"),
        (b"{", "not a list of revocations"),
        (b'{"images": {"x64": [{"authenticodeHash": "zz"}]}}', "no SHA-256 digest"),
        (b'{"images": ["x"]}', "not a list of revocations"),
    ],
)
def test_what_is_no_list_is_refused_with_what_is_wrong(data: bytes, says: str) -> None:
    with pytest.raises((PolicyError, EvidenceError), match=says):
        read_revocations(data)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda tail: update(LISTS) + tail)))
@settings(max_examples=300)
def test_any_bytes_are_a_list_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(PolicyError, EvidenceError):
        assert read_revocations(data).entries


# --- real machines


@functools.cache
def machine(name: str) -> ProvenClaims:
    """A real log, taken as if a quote had said what it replays to."""
    data = (CORPUS / name).read_bytes()
    log = parse_event_log(data)
    values = {SHA256: replay(log, SHA256)}
    facts = bind_log(data, log, values, None).facts
    return ProvenClaims(captured("grub-sb-on").quote._replace(pcrs=values), facts)


def dbx_of(name: str) -> bytes:
    for event in parse_event_log((CORPUS / name).read_bytes()).events:
        variable = uefi.parse_variable(event.data)
        if variable is not None and variable.name == "dbx":
            return variable.value
    raise AssertionError(name)


NEW, OLD, CUT = (
    "keylime_rust-keylime/uefi_log.bin",
    "keylime_python3-uefi-eventlog/201123-eventlog.bin",
    "kgoldman_ibmtss/dell1.log",
)


@pytest.mark.skipif(not (CORPUS / NEW).is_file(), reason="the shared corpus is not here")
def test_a_machine_with_an_old_dbx_lacks_what_a_new_one_has() -> None:
    revoked = read_revocations(update(dbx_of(NEW)))
    assert len(revoked.entries) == 482
    assert {entry.name.split("-")[0] for entry in revoked.entries} == {"sha256", "x509"}
    references = reference_set(revoked, "dbx-new", "of a machine of 2024")
    rule = "{require: ['ref:dbx-new/*']}"
    assert judged(rule, machine(NEW), references).status is Status.PASSED
    for name, held in ((OLD, 77), (CUT, 84)):
        finding = judged(rule, machine(name), references)
        assert finding.reason is Reason.REVOCATIONS_MISSING
        assert f"dbx with {held} entries" in (finding.actual or "")
        lacking = int(finding.message.split(" of ")[0])
        assert lacking == len({e.digest for e in revoked.entries} - all_of(dbx_of(name)))


def all_of(lists: bytes) -> set[bytes]:
    return {entry.digest for entry in read_revocations(lists).entries}


# --- the rule in a policy


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("{}", "requires nothing, so it would always pass"),
        ("{require: [], sbat: {}}", "requires nothing, so it would always pass"),
        ("{require: ['ref:dbx/*']}", "is not defined"),
        ("{require: [abcd]}", "has 2 bytes"),
        ("{sbat: {shim: 0}}", ">= 1"),
        ("{required: [x]}", "unknown field"),
    ],
)
def test_a_rule_that_could_never_fail_or_means_nothing_is_refused(rule: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        parse_policy(policy(rule))


def test_lint_knows_what_the_rule_needs_and_what_follows_from_it() -> None:
    more, less = (f"revocations: {required(*DIGESTS[:n])}" for n in (3, 2))
    assert ids(check(more, pcrs=(4,))) == {("unquoted-pcr", "rule r0")}
    assert ids(check(more, pcrs=(7,), boot_log="ignored")) == {("log-ignored", "rule r0")}
    assert ids(check(more, less, pcrs=(7,))) == {("implied-rule", "rule r1")}
    assert ids(check(more, more, pcrs=(7,))) == {("duplicate-rule", "rule r1")}
    assert (
        ids(check("revocations: {sbat: {shim: 4}}", "revocations: {sbat: {shim: 3, grub: 1}}", pcrs=(7,)))
        == set()
    )
    assert ids(check(f"claim: hardware, {more}", pcrs=(7,))) == {("claim-mismatch", "rule r0")}
    assert ids(check(more, pcrs=(7,))) == set()


def test_a_diff_names_each_revocation_that_was_added() -> None:
    before, after = (parse_policy(policy(required(*DIGESTS[:n]))) for n in (10, 12))
    changes = diff_policies(before, after)
    assert [(change.change.value, change.where.split()[-1]) for change in changes] == [
        ("added", DIGESTS[10].hex()),
        ("added", DIGESTS[11].hex()),
    ]


def test_explain_points_at_the_dbx_that_was_read() -> None:
    claims = captured("grub-sb-on")
    rules = parse_policy(policy(required(DIGESTS[0])))
    read = [v for v in explain_events(rules, claims, evaluate(rules, claims)) if v.rules]
    assert [(v.event.name, v.rules, v.broken) for v in read] == [("dbx", ("revoked",), ("revoked",))]


def test_the_bank_of_the_policy_does_not_change_what_a_revocation_is() -> None:
    text = policy(required(DIGESTS[0])).replace("quote: {pcrs", "quote: {bank: sha384, pcrs")
    (rule,) = parse_policy(text).rules
    assert DIGESTS[0] in rule.required.digests  # type: ignore[union-attr]


def test_a_wildcard_uses_all_of_a_set_and_of_no_other(tmp_path: Path) -> None:
    references = reference_set(read_revocations(LISTS), "dbx", "")
    other = references.replace("id: dbx", "id: dbx-2", 1)
    parse_policy(policy("{require: ['ref:dbx/*']}", references))
    with pytest.raises(PolicyError, match=r"dbx-2/.* is used by no rule"):
        parse_policy(policy("{require: ['ref:dbx/*']}", f"{references}---\n{other}"))
