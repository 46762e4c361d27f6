"""attestctl policy: lint, schema, learn with comparison, sign and verify."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.cli.test_attestctl import EVIDENCE, STRICT, Run, run
from verifier.policy.parse import parse_policy
from verifier.policy.schema import policy_schema

__all__ = ["run"]

UKI = str(EVIDENCE / "uki-sb-on")
BAD = """
schema: vtpm-attest/policy/1
id: bad
quote: {pcrs: [7]}
rules:
  - {id: a, claim: configuration, secure_boot: enabled}
  - {id: b, claim: configuration, secure_boot: disabled}
  - {id: c, claim: hardware, cel: boot.secure_boot.enabled || boot.secure_boot.audit_mode}
unjudged:
  - {pcrs: [7], why: not what this test is about}
"""
SUSPICIOUS = BAD.replace("  - {id: b, claim: configuration, secure_boot: disabled}\n", "")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def to(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return to


# --- lint, schema


def test_lint_lists_every_problem_with_its_remedy(run: Run, write) -> None:
    code, out, err = run("policy", "lint", write("bad.yaml", BAD))
    assert (code, out) == (65, "")
    for part in ("contradiction", "rule b", "claim-mismatch", "rule c", "remove or widen"):
        assert part in err
    code, out, _ = run("policy", "lint", write("bad.yaml", BAD), "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["id"]) == (65, False, "bad")
    assert [problem["id"] for problem in document["problems"]] == ["contradiction", "claim-mismatch"]
    assert set(document["problems"][0]) == {"id", "level", "where", "message", "remedy"}


def test_warnings_fail_only_when_asked_to(run: Run, write) -> None:
    path = write("warn.yaml", SUSPICIOUS)
    code, out, _ = run("policy", "lint", path)
    assert code == 0
    assert "claim-mismatch" in out
    assert "ok bad" in out
    assert run("policy", "lint", path, "--strict")[0] == 65
    assert json.loads(run("policy", "lint", path, "--json")[1])["ok"] is True


def test_lint_of_what_is_no_policy_is_one_problem(run: Run, write) -> None:
    code, out, _ = run("policy", "lint", write("x.yaml", "schema: x"), "--json")
    assert code == 65
    assert [problem["id"] for problem in json.loads(out)["problems"]] == ["document"]
    assert run("policy", "lint", "no-such-file")[0] == 65


def test_schema_prints_the_schema_and_nothing_else(run: Run) -> None:
    code, out, err = run("policy", "schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == policy_schema()


# --- learn


def test_learn_shows_the_difference_and_whom_it_fails(run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "next.yaml")
    arguments = [
        "policy",
        "learn",
        UKI,
        str(EVIDENCE / "uki-sb-on-reboot-1"),
        "--out",
        out,
        "--against",
        STRICT,
    ]
    code, text, _ = run(
        *arguments, "--check", str(EVIDENCE / "uki-sb-on-reboot-2"), str(EVIDENCE / "grub-sb-on")
    )
    assert code == 0
    assert "description" in text
    assert "1 of 4 guest(s) would not be affirming" in text
    assert "grub-sb-on" in text


def test_learn_tells_programs_whose_verdict_would_change(run: Run, tmp_path: Path) -> None:
    new, out = str(EVIDENCE / "uki-sb-on-initrd-modified"), str(tmp_path / "next.yaml")
    _, text, _ = run("policy", "learn", new, "--out", out, "--against", STRICT, "--check", UKI, "--json")
    document = json.loads(text)
    assert document["revision"] == parse_policy(Path(out).read_bytes()).revision
    assert {change["where"] for change in document["changes"]} >= {"description"}
    learned, checked = document["guests"]
    assert (learned["learned"], learned["status_before"], learned["status"]) == (
        True,
        "contraindicated",
        "affirming",
    )
    assert (checked["learned"], checked["status_before"], checked["status"]) == (
        False,
        "affirming",
        "contraindicated",
    )
    assert set(checked["rules"]) == {"pcr-4", "pcr-9", "pcr-11"}
    assert checked["unproven"] == []


def test_learn_without_anything_to_compare_says_that_all_pass(run: Run, tmp_path: Path) -> None:
    _, text, _ = run("policy", "learn", UKI, "--out", str(tmp_path / "p.yaml"), "--style", "claims")
    assert "1 guest(s) judged, all of them affirming" in text
    same = ["policy", "learn", UKI, "--out", str(tmp_path / "p.yaml"), "--style", "claims"]
    _, text, _ = run(*same, "--against", str(tmp_path / "p.yaml"))
    assert "no difference from the policy in force" in text


def test_reference_values_of_an_earlier_proposal_do_not_stay(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "web" / "policy.yaml"
    run("policy", "learn", UKI, "--out", str(out))
    assert (out.parent / "reference-values.yaml").exists()
    run("policy", "learn", UKI, "--out", str(out), "--style", "claims")
    assert not (out.parent / "reference-values.yaml").exists()
    assert run("policy", "lint", str(out.parent), "--strict")[0] == 0


# --- sign, verify


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Made as docs/policy.md says."""
    kinds = {
        "ed25519": ["-algorithm", "ed25519"],
        "es256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    }
    made = {}
    for kind, options in kinds.items():
        private, public = str(tmp_path / f"{kind}.pem"), str(tmp_path / f"{kind}.pub.pem")
        openssl("genpkey", *options, "-out", private)
        openssl("pkey", "-in", private, "-pubout", "-out", public)
        made[kind] = (private, public)
    return made


@pytest.mark.parametrize("kind", ["ed25519", "es256"])
def test_a_policy_is_signed_verified_and_used(run: Run, tmp_path: Path, keys, kind: str) -> None:
    private, public = keys[kind]
    signed = str(tmp_path / "uki.dsse.json")
    code, text, _ = run("policy", "sign", STRICT, "--key", private, "--out", signed)
    assert (code, "signed by" in text) == (0, True)
    document = json.loads(run("policy", "verify", signed, "--key", public, "--json")[1])
    assert (document["ok"], document["id"], len(document["signers"])) == (True, "uki-strict", 1)
    assert run("policy", "verify", signed, "--key", public)[0] == 0
    assert run("appraise", UKI, "--policy", signed, "--ak-trusted")[0] == 0
    assert run("policy", "lint", signed)[0] == 0
    assert run("policy", "diff", STRICT, signed)[:2] == (0, "no difference\n")


def test_no_other_key_verifies_it(run: Run, tmp_path: Path, keys) -> None:
    signed = str(tmp_path / "uki.dsse.json")
    run("policy", "sign", STRICT, "--key", keys["es256"][0], "--out", signed)
    code, _, err = run("policy", "verify", signed, "--key", keys["ed25519"][1])
    assert code == 65
    assert "policy-signature" in err
    code, text, _ = run("policy", "verify", STRICT, "--key", keys["es256"][1], "--json")
    assert (code, json.loads(text)["code"]) == (65, "policy-signature")


def test_signing_again_adds_a_signature(run: Run, tmp_path: Path, keys) -> None:
    first, both = str(tmp_path / "one.dsse.json"), str(tmp_path / "sub" / "both.dsse.json")
    run("policy", "sign", STRICT, "--key", keys["es256"][0], "--out", first)
    assert run("policy", "sign", first, "--key", keys["ed25519"][0], "--out", both)[0] == 0
    publics = [part for kind in keys for part in ("--key", keys[kind][1])]
    assert len(json.loads(run("policy", "verify", both, *publics, "--json")[1])["signers"]) == 2


def test_a_policy_no_verifier_would_use_is_not_signed(run: Run, tmp_path: Path, write, keys) -> None:
    out = tmp_path / "bad.dsse.json"
    code, _, err = run("policy", "sign", write("bad.yaml", BAD), "--key", keys["es256"][0], "--out", str(out))
    assert code == 65
    assert "contradiction" in err
    assert not out.exists()
    assert run("policy", "sign", STRICT, "--key", keys["es256"][1], "--out", str(out))[0] == 65


def test_openssl_agrees_on_what_was_signed(run: Run, tmp_path: Path, keys) -> None:
    """An Ed25519 signature over the encoding that protocol.md of DSSE gives, checked by OpenSSL."""
    import base64

    signed = tmp_path / "uki.dsse.json"
    run("policy", "sign", STRICT, "--key", keys["ed25519"][0], "--out", str(signed))
    envelope = json.loads(signed.read_text())
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    (tmp_path / "message").write_bytes(
        b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(payload)) + payload
    )
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    public, message, signature = keys["ed25519"][1], str(tmp_path / "message"), str(tmp_path / "sig")
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", message, "-sigfile", signature)
    assert (
        payload
        == (ROOT / "policies/uki-strict/policy.yaml").read_bytes()
        + b"\n---\n"
        + (ROOT / "policies/uki-strict/reference-values.yaml").read_bytes()
    )


def test_explain_tells_what_is_no_single_events_fault_and_marks_what_was_read(run: Run) -> None:
    tampered = str(EVIDENCE / "uki-sb-on-cmdline-tampered")
    code, out, _ = run("policy", "explain", tampered, "--policy", str(ROOT / "policies" / "uki-guest"))
    assert code == 1
    assert "'lockdown=none' is forbidden" in out
    (line,) = [line for line in out.splitlines() if line.startswith("33 ")]
    assert "lowered-guard (broken)" in line
    assert "(1) the rules above judge" in out
    document = json.loads(
        run("policy", "explain", tampered, "--policy", str(ROOT / "policies" / "uki-guest"), "--json")[1]
    )
    assert "command-line-mismatch" in {finding["code"] for finding in document["findings"]}
    assert document["events"][33]["broken"] == ["lowered-guard"]
    good = str(EVIDENCE / "uki-sb-on")
    assert run("policy", "explain", good, "--policy", str(ROOT / "policies" / "uki-guest"))[0] == 0


# --- diff of boots


def changes(run: Run, before: str, after: str) -> list[dict]:
    code, out, _ = run("policy", "diff", str(EVIDENCE / before), str(EVIDENCE / after), "--json")
    assert code == 1
    return [row for row in json.loads(out)["changes"] if row["pcr"] != 10]


def test_a_diff_of_boots_says_what_is_different_within_an_event(run: Run) -> None:
    (database,) = changes(run, "uki-sb-on", "uki-sb-on-extra-db-key")
    (added,) = database["parts"]
    assert added.startswith("+ x509 ")
    assert added.endswith(" CN=vmlab db2")
    assert database["proven"]
    line = [row for row in changes(run, "uki-sb-on", "uki-sb-on-cmdline-tampered") if row["parts"]]
    assert [(row["pcr"], row["parts"]) for row in line] == [
        (9, ["+ lockdown=none", "+ module.sig_enforce=0"]),
        (11, ["+ lockdown=none", "+ module.sig_enforce=0"]),
    ]
    windows = changes(run, "windows-sb-on", "windows-test-signing")
    assert {tuple(row["parts"]) for row in windows} == {("- testsigning=0", "+ testsigning=1")}


def test_a_diff_of_boots_for_people_marks_labels_and_tells_why_a_pcr_stands_alone(run: Run) -> None:
    good, off = str(EVIDENCE / "uki-sb-on"), str(EVIDENCE / "uki-sb-off")
    _, out, _ = run("policy", "diff", good, off)
    rows = out.splitlines()
    added = next(row for row in rows if row.startswith("added"))
    assert "PCR 4 EV_EFI_BOOT_SERVICES_APPLICATION" in added
    assert "(label)" in added, "nothing signed says where the image came from"
    secure_boot = next(row for row in rows if "SecureBoot = 1" in row)
    assert "(label)" not in secure_boot
    assert "the kernel's integrity list extends it" in next(row for row in rows if "PCR 10" in row)
    assert any(row.startswith("removed") and "CN=vmlab db" in row for row in rows)


# --- revocations


def test_a_published_list_becomes_reference_values_that_a_policy_requires(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    digest = "ab" * 32
    published = tmp_path / "dbx_info.json"
    published.write_text(
        json.dumps(
            {
                "images": {"x64": [{"authenticodeHash": digest, "filename": "shim.efi", "companyName": "A"}]},
                "certificates": [{"subjectName": "CN = Old CA"}],
            }
        )
    )
    out = folder / "reference-values-dbx.yaml"
    code, text, err = run("policy", "revocations", str(published), "--set-id", "dbx-1", "--out", str(out))
    assert (code, text) == (0, "")
    assert "1 revocations" in err
    assert "ref:dbx-1/*" in err
    assert "left out: certificate CN = Old CA" in err
    (folder / "policy.yaml").write_text(
        "schema: vtpm-attest/policy/1\nid: web\nquote: {pcrs: [7]}\nrules:\n"
        "  - {id: revoked, claim: configuration, revocations: {require: ['ref:dbx-1/*']}}\n"
        "unjudged: [{pcrs: [7], why: judged by the rule above}]\n"
    )
    code, text, _ = run("appraise", UKI, "--policy", str(folder), "--ak-trusted")
    assert code == 2
    assert "1 of 1 required revocations are missing" in text
    assert f"{digest} (shim.efi, A)" in text
    document = json.loads(run("policy", "revocations", str(published), "--json")[1])
    assert [entry["digest"] for entry in document["entries"]] == [digest]


def test_what_is_no_list_of_revocations_is_an_input_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "dbx.bin"
    path.write_bytes(b"not a dbx, whatever its name says, and long enough to be one")
    code, out, err = run("policy", "revocations", str(path))
    assert (code, out) == (65, "")
    assert "neither signature lists" in err
    assert run("policy", "revocations", str(tmp_path / "absent"))[0] == 64
