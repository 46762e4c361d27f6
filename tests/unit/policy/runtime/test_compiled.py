"""A policy's runtime part, compiled: what it says of files, buffers and keys, and of real lists."""

from __future__ import annotations

import hashlib
import pickle

import pytest

from tests.conftest import ROOT
from tests.runtime_sets import BASH, a_set, entry, many
from verifier.appraisal.ima.judge import judge
from verifier.appraisal.ima.state import INITIAL
from verifier.cli.bundle import read_bundle
from verifier.findings import Status
from verifier.policy.runtime.buckets import DigestContainer
from verifier.policy.runtime.compiled import CompiledReference
from verifier.policy.runtime.entry import KIND_OF, Entry, Kind
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import RuntimeOptions, SignatureUse, Verdict
from verifier.policy.runtime.runtime_set import Head, assemble
from verifier.policy.runtime.section import Exclude, NamedSet, RuntimeSection
from verifier.policy.runtime.writing import digest_of
from verifier.reasons import Reason
from verifier.runtime_sets.ima_list import ima_entries
from verifier.runtime_sets.making import Making
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType

EVIDENCE = ROOT.parent / "shared/evidence"
GOOD = ROOT / "policies/evidence/uki-sb-on/binary_runtime_measurements"
NEWER = BASH._replace(version="5.2.15-10")
RUNNING = a_set(
    entry("/usr/bin/bash", b"old", BASH),
    entry("/usr/bin/bash", b"new", NEWER),
    entry("/opt/Größe", b"g"),
    entry(b"/opt/\xff", b"odd"),
    Entry(b"/usr/bin/tree", KIND_OF[Kind.VERITY, HashAlg.SHA256], bytes(32)),
    Entry(b".ima", KIND_OF[Kind.BUFFER, HashAlg.SHA256], hashlib.sha256(b"certificate").digest()),
    name="running",
)
STAGED = a_set(entry("/usr/bin/bash", b"next", BASH._replace(version="5.3")), name="staged")
ALL = {digest_of(each): each for each in (RUNNING, STAGED)}


def section(**more) -> RuntimeSection:
    return RuntimeSection(
        sets=(NamedSet(digest_of(RUNNING), "running"),), staged=(NamedSet(digest_of(STAGED)),), **more
    )


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


REFERENCE = CompiledReference(
    section(
        excludes=(Exclude(Patterns(["/tmp/**"]), "users write there"),),
        ignored_keyrings=frozenset({".blacklist"}),
    ),
    ALL,
    HashAlg.SHA256,
)


def file(path: str, content: bytes, algorithm: str = "sha256", kind: DigestType = DigestType.FILE):
    return REFERENCE.file(path, algorithm, hashlib.new(algorithm, content).digest(), kind)


def test_what_is_said_of_files():
    known = file("/usr/bin/bash", b"old")
    assert (known.verdict, known.source) == (Verdict.KNOWN, "bash 5.2.15-2+b7 amd64 (deb) in running")
    assert file("/usr/bin/bash", b"next").verdict is Verdict.KNOWN_STAGED
    assert file("/opt/Größe", b"g").verdict is Verdict.KNOWN
    assert file(b"/opt/\xff".decode("utf-8", "surrogateescape"), b"odd").verdict is Verdict.KNOWN
    assert file("/tmp/x", b"x") == (Verdict.EXCLUDED, (), "exclude /tmp/**", None)
    assert file("/usr/bin/evil", b"x") == (Verdict.UNKNOWN_PATH, (), None, None)
    moved = file("/usr/bin/sh", b"old")
    assert (moved.verdict, moved.digest_known_as) == (Verdict.UNKNOWN_PATH, "/usr/bin/bash")


def test_expected_digests_are_the_newest_first():
    wrong = file("/usr/bin/bash", b"evil")
    assert wrong.verdict is Verdict.WRONG_DIGEST
    assert wrong.expected == tuple(("sha256", sha256(each)) for each in (b"next", b"new", b"old"))


@pytest.mark.parametrize("algorithm", ["sha1", "sha512", "md5"])
def test_another_hash_is_not_known(algorithm):
    assert file("/usr/bin/bash", b"old", algorithm).verdict is Verdict.UNKNOWN_PATH


def test_a_digest_of_the_wrong_length_or_kind_is_not_known():
    assert (
        REFERENCE.file("/usr/bin/bash", "sha256", b"\1" * 20, DigestType.FILE).verdict is Verdict.UNKNOWN_PATH
    )
    assert REFERENCE.file("/usr/bin/tree", "sha256", bytes(32), DigestType.VERITY).verdict is Verdict.KNOWN
    assert (
        REFERENCE.file("/usr/bin/tree", "sha256", bytes(32), DigestType.FILE).verdict is Verdict.UNKNOWN_PATH
    )


def test_what_is_said_of_buffers():
    good, bad = sha256(b"certificate"), sha256(b"another")
    assert REFERENCE.buffer(".ima", "sha256", good).verdict is Verdict.KNOWN
    assert REFERENCE.buffer(".ima", "sha256", bad).expected == (("sha256", good),)
    assert REFERENCE.buffer(".evm", "sha256", good).verdict is Verdict.UNKNOWN_PATH
    assert REFERENCE.buffer(".blacklist", "sha256", bad).verdict is Verdict.EXCLUDED
    assert REFERENCE.file(".ima", "sha256", good, DigestType.FILE).verdict is Verdict.UNKNOWN_PATH


def template(path: bytes, content: bytes, prefix: bytes = b"sha256:\0") -> bytes:
    field = prefix + content
    return len(field).to_bytes(4, "little") + field + (len(path) + 1).to_bytes(4, "little") + path + b"\0"


def test_whole_entries_that_are_accepted_are_those_that_are_known():
    accepted = REFERENCE.accepted(HashAlg.SHA256)
    assert sha256(template(b"/usr/bin/bash", sha256(b"old"))) in accepted
    assert sha256(template(b"/usr/bin/tree", bytes(32), b"verity:sha256:\0")) in accepted
    assert (
        sha256(template(b"/usr/bin/bash", sha256(b"next"))) not in accepted
    )  # staged: looked at, and counted
    assert sha256(template(b"/usr/bin/sh", sha256(b"old"))) not in accepted
    assert sha256(template(b".ima", sha256(b"certificate"))) not in accepted
    assert len(accepted) == 5
    old = hashlib.sha1(template(b"/usr/bin/bash", sha256(b"old"))).digest()
    assert old in REFERENCE.accepted(HashAlg.SHA1)
    required = CompiledReference(
        section(options=RuntimeOptions(signatures=SignatureUse.REQUIRED)), ALL, HashAlg.SHA256
    )
    assert sha256(template(b"/usr/bin/bash", sha256(b"old"))) not in required.accepted(HashAlg.SHA256)


def test_large_sets_accept_the_same(monkeypatch):
    whole = many(5000)
    wanted = RuntimeSection(sets=(NamedSet(digest_of(whole)),))
    small = CompiledReference(wanted, {digest_of(whole): whole}, HashAlg.SHA256)
    monkeypatch.setattr("verifier.policy.runtime.compiled._SMALL", 10)
    large = CompiledReference(wanted, {digest_of(whole): whole}, HashAlg.SHA256)
    assert large.revision == small.revision
    container = large.accepted(HashAlg.SHA256)
    assert isinstance(container, DigestContainer)
    assert len(container) == 5000
    for each in whole:
        data = sha256(template(each.path, each.digest))
        assert data in container
        assert data[::-1] not in container
    assert b"" not in container
    assert None not in container


def test_sets_must_be_the_ones_that_are_named():
    with pytest.raises(RuntimeSetError, match="not at hand"):
        CompiledReference(section(), {}, HashAlg.SHA256)
    other = RuntimeSection(sets=(NamedSet(digest_of(RUNNING), "another"),))
    with pytest.raises(RuntimeSetError, match="is 'running', the policy calls it 'another'"):
        CompiledReference(other, ALL, HashAlg.SHA256)


def test_the_revision_changes_with_whatever_an_answer_depends_on():
    base = section()
    others = [
        RuntimeSection(sets=base.sets),
        RuntimeSection(sets=base.staged, staged=base.sets),
        section(excludes=(Exclude(Patterns(["/x"]), "w"),)),
        section(ignored_keyrings=frozenset({".x"})),
        section(options=RuntimeOptions(signatures=SignatureUse.ACCEPTED)),
        section(options=RuntimeOptions(targets=())),
    ]
    revisions = {each.revision for each in (base, *others)}
    assert len(revisions) == len(others) + 1
    assert pickle.loads(pickle.dumps(others[2])) == others[2]


SAMPLES = [
    ("uki-sb-on", {Reason.IMA_LIST_REPLAYS, Reason.IMA_FILES_KNOWN}),
    ("uki-sb-on-ima-unknown-exe", {Reason.IMA_LIST_REPLAYS, Reason.IMA_FILE_UNKNOWN}),
    ("uki-sb-on-ima-violation", {Reason.IMA_LIST_REPLAYS, Reason.IMA_FILE_UNKNOWN, Reason.IMA_VIOLATION}),
]


@pytest.mark.parametrize(("name", "expected"), SAMPLES)
@pytest.mark.parametrize("staged", [False, True])
def test_real_boots_are_judged_by_a_set_made_of_a_good_one(name, expected, staged):
    folder = EVIDENCE / name
    if not folder.exists():
        pytest.skip(f"{folder} is not there: captured boots lie beside the repository")
    good = assemble(Head(name="good"), ima_entries([GOOD], Making()))
    named, nothing = NamedSet(digest_of(good)), NamedSet(digest_of(STAGED))
    wanted = RuntimeSection(sets=(nothing,) if staged else (named,), staged=(named,) if staged else ())
    reference = CompiledReference(wanted, {**ALL, digest_of(good): good}, HashAlg.SHA256)
    evidence = read_bundle(folder, ak="ecc").evidence
    outcome = judge(INITIAL, evidence.ima.segment, evidence.pcrs, reference)
    found = {finding.reason for finding in outcome.findings if finding.severity.value != "info"}
    if staged:
        expected = (expected - {Reason.IMA_FILES_KNOWN}) | {Reason.IMA_FILES_STAGED}
    assert found == expected
    if staged:
        (warned,) = [each for each in outcome.findings if each.reason is Reason.IMA_FILES_STAGED]
        assert (warned.status, warned.severity.value) == (Status.FAILED, "warning")
        assert outcome.claims.staged > 100
