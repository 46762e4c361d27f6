"""Runtime references from a folder: sets found by digest, shared, taken up when they are put there, never guessed."""

from __future__ import annotations

import json
import pickle
import shutil
from datetime import UTC, datetime

import pytest

from tests.conftest import ROOT
from tests.runtime_sets import a_set, entry
from verifier.appraisal.appraise import appraise as judge
from verifier.appraisal.evidence import Expectation, History
from verifier.cli import attestctl
from verifier.cli.bundle import read_bundle
from verifier.errors import VerifierFault
from verifier.policy.parse import parse_policy
from verifier.policy.runtime.writing import digest_of
from verifier.ports_runtime import SetMissing
from verifier.reasons import Reason, Tier
from verifier.runtime_references import FolderReferences
from verifier.runtime_sets.files import load_set, save_set

EVIDENCE = ROOT / "policies/evidence"
OLD = a_set(entry("/usr/bin/a", b"1"), name="old")
NEW = a_set(entry("/usr/bin/a", b"2"), name="new")


def policy_text(*sets, staged=()) -> str:
    def listed(digests):
        return ", ".join(f"{{sha256: {digest}}}" for digest in digests)

    return f"""
schema: vtpm-attest/policy/1
id: ran
quote: {{pcrs: [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]}}
rules:
  - {{id: sb, claim: configuration, secure_boot: enabled}}
unjudged: [{{pcrs: [0, 1, 2, 3, 4, 5, 7, 8, 9, 11], why: this policy is about what runs}}]
runtime: {{sets: [{listed(sets)}], staged: [{listed(staged)}]}}
"""


def policy(*sets, **more):
    return parse_policy(policy_text(*map(digest_of, sets), **more))


async def test_sets_are_found_by_their_digest_whatever_they_are_called(tmp_path):
    save_set(tmp_path / "z.rtset.zst", OLD)
    save_set(tmp_path / "a.rtset", NEW)
    (tmp_path / "broken.rtset").write_bytes(b"\x28\xb5\x2f\xfdbroken")
    (tmp_path / "notes.txt").write_text("not a set")
    references = FolderReferences([tmp_path])
    wanted = policy(OLD, NEW)
    assert references.reads(wanted)
    recipe = pickle.loads(pickle.dumps(await references.recipe(wanted)))
    assert recipe.revision == wanted.runtime.revision
    made = recipe.make()
    assert made.revision == recipe.revision
    assert made._sets[0] is recipe.make()._sets[0], "one copy for every policy and revision"


async def test_a_set_that_is_not_there_is_a_fault_and_no_verdict_until_it_is_put_there(tmp_path):
    references = FolderReferences([tmp_path])
    wanted = policy(OLD)
    with pytest.raises(VerifierFault, match=f"names the runtime set  ?{digest_of(OLD)}, which is not in"):
        await references.recipe(wanted)
    save_set(tmp_path / "x.rtset", NEW)
    with pytest.raises(VerifierFault, match="which is not in"):
        await references.recipe(wanted)
    save_set(tmp_path / "x.rtset", OLD)  # hot-swapped under the same name
    assert (await references.recipe(wanted)).make().revision == wanted.runtime.revision
    with pytest.raises(VerifierFault, match="neither runtime_sets_dir nor policies_dir is set"):
        await FolderReferences([]).recipe(wanted)
    with pytest.raises(VerifierFault, match="runtime_sets_dir: "):
        await FolderReferences([tmp_path / "gone"]).recipe(wanted)


async def test_a_set_of_another_name_is_not_the_one(tmp_path):
    save_set(tmp_path / "x.rtset.zst", OLD)
    text = policy_text(digest_of(OLD)).replace("{sha256:", "{name: mine, sha256:")
    with pytest.raises(SetMissing, match="names the runtime set mine"):
        await FolderReferences([tmp_path]).recipe(parse_policy(text))
    named = parse_policy(text.replace("mine", "old"))
    assert (await FolderReferences([tmp_path]).recipe(named)).make().revision == named.runtime.revision


async def test_a_set_that_was_changed_on_the_way_is_a_fault(tmp_path):
    only_here = a_set(entry("/usr/bin/a", b"3"), name="only-here")
    save_set(tmp_path / "x.rtset", only_here)
    recipe = await FolderReferences([tmp_path]).recipe(policy(only_here))
    (tmp_path / "x.rtset").write_bytes((tmp_path / "x.rtset").read_bytes().replace(b"only-here", b"other"))
    with pytest.raises(VerifierFault, match="its SHA-256 is"):
        recipe.make()


def test_whoever_forgets_to_have_the_list_judged_gets_no_pass():
    bundle = read_bundle(EVIDENCE / "uki-sb-on", ak="ecc")
    expectation = Expectation(
        ak_public=bundle.ak_public, ak_activated=False, nonce=bundle.nonce, request=(), assumed=True
    )
    now = datetime(2026, 11, 28, tzinfo=UTC)
    result = judge(bundle.evidence, expectation, policy(OLD), History(), now)
    assert Reason.IMA_LIST_MISSING in {finding.reason for finding in result.findings}
    assert result.tier is Tier.NONE


@pytest.fixture
def appraise(tmp_path, capsys):
    def run(sample, *arguments):
        command = ["appraise", str(sample), "--policy", str(tmp_path / "policy.yaml")]
        with pytest.raises(SystemExit) as caught:
            attestctl.main([*command, "--ak-trusted", "--json", *map(str, arguments)])
        printed = capsys.readouterr()
        document = json.loads(printed.out) if printed.out else {"findings": []}
        return caught.value.code, {finding["code"] for finding in document["findings"]}, printed.err

    return run


def make_good(tmp_path) -> str:
    path = tmp_path / "sets/good.rtset.zst"
    with pytest.raises(SystemExit):
        attestctl.main(
            [
                "runtime",
                "make",
                "ima",
                str(EVIDENCE / "uki-sb-on/binary_runtime_measurements"),
                "--out",
                str(path),
            ]
        )
    return digest_of(load_set(path))


def test_a_captured_boot_is_judged_by_the_command(tmp_path, appraise, capsys):
    good = make_good(tmp_path)
    capsys.readouterr()
    sample = EVIDENCE / "uki-sb-on"
    (tmp_path / "policy.yaml").write_text(policy_text(good))
    code, found, _ = appraise(sample, "--runtime-sets", tmp_path / "sets")
    assert (code, "ima-files-known" in found) == (0, True)
    code, _, said = appraise(sample)
    assert code == 69
    assert "which is not in" in said
    shutil.copy(tmp_path / "sets/good.rtset.zst", tmp_path)
    assert appraise(sample)[0] == 0

    save_set(tmp_path / "new.rtset", NEW)
    (tmp_path / "policy.yaml").write_text(policy_text(digest_of(NEW), staged=[good]))
    code, found, _ = appraise(sample)
    assert (code, "ima-files-staged" in found) == (1, True)
    (tmp_path / "policy.yaml").write_text(policy_text(digest_of(NEW)))
    code, found, _ = appraise(sample)
    assert (code, "ima-file-unknown" in found) == (2, True)


def test_a_policy_that_reads_the_list_never_passes_without_one(tmp_path, appraise, capsys):
    good = make_good(tmp_path)
    capsys.readouterr()
    sample = tmp_path / "without"
    shutil.copytree(EVIDENCE / "uki-sb-on", sample)
    (sample / "binary_runtime_measurements").unlink()
    (tmp_path / "policy.yaml").write_text(policy_text(good))
    code, found, _ = appraise(sample, "--runtime-sets", tmp_path / "sets")
    assert (code, "ima-list-missing" in found) == (3, True)


async def test_a_set_beside_the_policy_that_names_it_is_found(tmp_path):
    (tmp_path / "web").mkdir()
    references = FolderReferences([], [tmp_path])
    with pytest.raises(VerifierFault, match="which is not in"):
        await references.recipe(policy(OLD))
    save_set(tmp_path / "web" / "x.rtset", OLD)
    assert (await references.recipe(policy(OLD))).make().revision == policy(OLD).runtime.revision
