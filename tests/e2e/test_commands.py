"""The commands as people run them: a real verifier process over HTTPS, a real TPM, the agent, attestctl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from scripts.demo import BIN, Verifier, attest, guest_tpm, token
from scripts.forger import forge
from tests import swtpm
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory):
    work = tmp_path_factory.mktemp("commands")
    swtpm.with_vendor_ca(work)
    with Verifier.running(work) as running:
        yield running


@pytest.fixture(scope="module")
def good(verifier: Verifier):
    """A guest that booted well, enrolled and attested: (its TPM, the agent's answer)."""
    with guest_tpm(verifier.work, 1) as tpm:
        yield tpm, attest(verifier, tpm, 1, "uki-sb-on")


def attestctl(
    verifier: Verifier, *arguments: str, secret: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "ATTESTCTL_SERVER": verifier.url,
        "ATTESTCTL_CA": str(verifier.ca),
        "ATTESTCTL_TOKEN": secret or verifier.dashboard_token,
    }
    return subprocess.run(
        [BIN / "attestctl", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_a_good_guest_is_affirming_and_its_ear_verifies(verifier: Verifier, good) -> None:
    _, answer = good
    assert answer["verdict"]["status"] == "affirming"
    header = jwt.get_unverified_header(answer["ear"])
    jwks = json.loads(
        subprocess.run(
            [sys.executable, "-c", "import ssl,sys,urllib.request as u;print(u.urlopen(sys.argv[1],context=ssl.create_default_context(cafile=sys.argv[2])).read().decode())", f"{verifier.url}/.well-known/jwks.json", str(verifier.ca)],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    key = jwt.PyJWKSet.from_dict(jwks)[header["kid"]]
    claims = jwt.decode(answer["ear"], key, algorithms=["ES256"])
    assert claims["submods"]["vtpm"]["ear_status"] == 2


def test_attestctl_fetches_the_ak_certificate_and_the_ca_above_it(verifier: Verifier, good, tmp_path) -> None:
    attester = good[1]["verdict"]["attester_id"]
    leaf, ca = tmp_path / "ak.pem", tmp_path / "ca.pem"
    assert attestctl(verifier, "ak-certificate", attester, "--out", str(leaf)).returncode == 0
    assert attestctl(verifier, "ak-certificate", "--root-only", "--out", str(ca)).returncode == 0
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", ca, leaf], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    shown = json.loads(attestctl(verifier, "ak-certificate", attester, "--json").stdout)
    assert shown["pem"] == leaf.read_text()
    assert len(shown["certificates"]) == 3
    assert attestctl(verifier, "ak-certificate").returncode == 64


def test_attestctl_shows_the_fleet_and_exits_with_the_verdict(verifier: Verifier, good) -> None:
    _, answer = good
    attester = answer["verdict"]["attester_id"]
    status = json.loads(attestctl(verifier, "status", "--json").stdout)
    assert status["counts"]["affirming"] >= 1
    listed = attestctl(verifier, "attesters")
    assert attester in listed.stdout
    assert "web-01" in listed.stdout
    verdict = attestctl(verifier, "verdict", attester)
    assert verdict.returncode == 0
    assert "affirming" in verdict.stdout
    history = json.loads(attestctl(verifier, "history", attester, "--json").stdout)
    assert [item["status"] for item in history["verdicts"]] == ["affirming"]
    ear = attestctl(verifier, "verdict", attester, "--ear")
    assert jwt.decode(ear.stdout.strip(), options={"verify_signature": False})["sub"] == attester


def test_attestctl_shows_whose_tpm_an_attester_is(verifier: Verifier, good) -> None:
    attester = good[1]["verdict"]["attester_id"]
    shown = attestctl(verifier, "attester", attester)
    assert shown.returncode == 0, shown.stderr
    rows = dict(re.findall(r"^(\S.*?) {2,}(\S.*?) *$", shown.stdout, re.MULTILINE))
    assert rows["attester"] == f"{attester} (enrolled)"
    assert rows["hostname"] == "web-01"
    assert rows["trusted by"] == "certificate, token"
    assert rows["TPM"].startswith("IBM (software TPM), swtpm, id:")
    assert rows["TPM"].endswith("virtual")
    assert rows["EK key"].endswith("the key the certificate is for")
    assert rows["EK certificate"] == "EKU present, SAN present, revocation unchecked"
    assert "swtpm" in rows["EK issuer"]
    assert "verdict: affirming" in shown.stdout
    document = json.loads(attestctl(verifier, "attester", attester, "--json").stdout)
    profile = document["endorsement"]["profile"]
    assert (profile["virtual"], profile["eku_present"], profile["key_matches"]) == (True, True, True)
    missing = attestctl(verifier, "attester", "nobody")
    assert (missing.returncode, missing.stdout) == (69, "")
    assert "not-found" in missing.stderr


def test_a_policy_is_tried_on_labelled_guests_and_taken_back(verifier: Verifier, good, tmp_path) -> None:
    attester = good[1]["verdict"]["attester_id"]
    secret = token(verifier.config, "operator")

    def run(*arguments: str) -> str:
        done = attestctl(verifier, *arguments, secret=secret)
        assert done.returncode == 0, done.stderr
        return done.stdout

    policy = tmp_path / "later.yaml"
    source = (ROOT / "policies" / "permissive" / "policy.yaml").read_text()
    policy.write_text(source.replace("id: permissive", "id: later", 1))
    revision = json.loads(run("policy", "push", str(policy), "--json"))["revision"]
    staged = policy.with_name("staged.yaml")
    staged.write_text(policy.read_text() + "# next\n")
    next_revision = json.loads(run("policy", "push", str(staged), "--stage", "--json"))["revision"]
    assert "no labels" in run("label", attester)
    assert "tier=web" in run("label", attester, "tier=web")
    command = ("policy", "assign", "later", "--label", "tier=web", "--revision", next_revision)
    made = json.loads(run(*command, "--mode", "observe", "--json"))
    assert made["revision"] != revision
    assert made["id"] in run("policy", "assignments")
    why = run("policy", "assignments", "--attester", attester)
    assert "uki-strict" in why
    assert f"later ({next_revision[:16]}) is tried, mode observe" in why
    assert "removed" in run("policy", "unassign", made["id"])
    assert "nothing is assigned" in run("policy", "assignments")
    assert "no labels" in run("label", attester, "--none")
    refused = attestctl(verifier, "policy", "unassign", made["id"], secret=secret)
    assert refused.returncode == 69
    assert "not-found" in refused.stderr
    unsure = attestctl(verifier, "policy", "assign", "later", "--label", "web", secret=secret)
    assert unsure.returncode == 65
    assert "KEY=VALUE" in unsure.stderr


def test_a_tampered_guest_is_told_apart_and_the_exit_code_says_so(verifier: Verifier, good) -> None:
    with guest_tpm(verifier.work, 2) as tpm:
        bad = attest(verifier, tpm, 2, "uki-sb-on-cmdline-tampered")["verdict"]
    shown = attestctl(verifier, "verdict", bad["attester_id"])
    assert shown.returncode == 2
    assert "lockdown=none" in shown.stdout
    assert "event 30" in shown.stdout
    listed = json.loads(attestctl(verifier, "attesters", "--status", "contraindicated", "--json").stdout)
    assert [item["id"] for item in listed["attesters"]] == [bad["attester_id"]]


def test_rule_2_a_software_ak_cannot_enrol_with_a_real_tpm_behind_it(verifier: Verifier) -> None:
    with guest_tpm(verifier.work, 3) as tpm:
        honest, lying = forge(tpm.tcti, verifier.url, verifier.join_token)
    assert (honest.status, honest.code) == (403, "ak-attributes")
    assert lying.code == "activation-failed"
    assert lying.status in {400, 403}


def test_a_reboot_of_the_real_tpm_keeps_the_attester_and_is_no_rollback(verifier: Verifier, good) -> None:
    tpm, answer = good
    tpm.reboot()
    again = attest(verifier, tpm, 1, "uki-sb-on")
    assert again["verdict"]["attester_id"] == answer["verdict"]["attester_id"]
    findings = {finding["code"] for finding in again["verdict"]["findings"]}
    assert "clock-continues" in findings


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["verdict", "att-unknown"], 69, "404 not-found"),
        (["verdict", "x", "--server", "http://127.0.0.1"], 64, "not an https:// address"),
        (["verdict", "x", "--server", "https://127.0.0.1:1"], 69, "cannot reach"),
        (["verdict", "x", "--ca", "/dev/null"], 64, "CA file"),
        (["verdict"], 64, ""),
        (["frobnicate"], 64, ""),
    ],
)
def test_errors_of_attestctl_name_what_is_wrong_and_leave_the_verdict_codes_alone(
    verifier: Verifier, arguments: list[str], code: int, says: str
) -> None:
    done = attestctl(verifier, *arguments)
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert not done.stdout


def test_a_token_without_the_scope_is_told_which_one_it_lacks(verifier: Verifier) -> None:
    secret = token(verifier.config, "relying-party")
    done = attestctl(verifier, "history", "att-x", secret=secret)
    assert done.returncode == 77
    assert "403 forbidden" in done.stderr
    assert attestctl(verifier, "status", secret="vta1.AAAA").returncode == 77


def test_the_demo_runs_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.demo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("affirming", "contraindicated", "refused (403)", "ear_trustworthiness_vector"):
        assert word in done.stdout


def test_collect_writes_a_bundle_that_appraise_reads(verifier: Verifier, good, tmp_path: Path) -> None:
    tpm, _ = good
    out = tmp_path / "bundle.json"
    root = verifier.work / "guest1" / "root"
    command = [BIN / "attest-agent", "collect", "--out", out, "--tcti", tpm.tcti, "--root", root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    policy = ROOT / "policies" / "uki-strict"
    untrusted = attestctl(verifier, "appraise", str(out), "--policy", str(policy), "--json")
    assert untrusted.returncode == 3
    trusted = attestctl(verifier, "appraise", str(out), "--policy", str(policy), "--ak-trusted", "--json")
    assert (trusted.returncode, json.loads(trusted.stdout)["status"]) == (0, "affirming")
