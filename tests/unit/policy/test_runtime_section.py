"""The `runtime` part of a policy: what is read, what is refused, what a diff shows of it."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests import pki
from verifier.errors import PolicyError
from verifier.policy.diff import diff_policies
from verifier.policy.parse import parse_policy
from verifier.policy.runtime.reference import Handling, SignatureUse
from verifier.policy.runtime.section import describe

A, B = "aa" * 32, "bb" * 32


def openssl(*arguments) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def policy(runtime: str, pcrs: str = "[7, 10]", unjudged: str = "[7]") -> str:
    return f"""
schema: vtpm-attest/policy/1
id: p
quote: {{pcrs: {pcrs}}}
rules:
  - {{id: sb, claim: configuration, secure_boot: enabled}}
unjudged: [{{pcrs: {unjudged}, why: not what this is about}}]
runtime: {runtime}
"""


def test_what_is_left_out_is_denied():
    section = parse_policy(policy(f"{{sets: [{{sha256: {A}, name: web}}]}}")).runtime
    assert [(each.sha256, each.name) for each in section.sets] == [(A, "web")]
    options = section.options
    assert {
        options.unknown_path,
        options.unknown_module,
        options.violations,
        options.unknown_key,
        options.policy_load,
        options.unknown_buffer,
    } == {Handling.DENY}
    assert options.signatures is SignatureUse.IGNORED
    assert options.targets is None
    assert parse_policy(policy("null", pcrs="[7]")).runtime is None


def test_a_policy_that_says_everything(tmp_path):
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        tmp_path / "k",
        "-subj",
        "/CN=IMA",
        "-out",
        tmp_path / "c",
    )
    pem = "".join(f"\n        {line}" for line in (tmp_path / "c").read_text().splitlines())
    section = parse_policy(
        policy(
            f"""
  sets: [{{sha256: {A}}}]
  staged: [{{sha256: {B}, name: next}}]
  excludes:
    - {{paths: ["/tmp/**", "regex:/var/log/[a-z]+"], why: users write there}}
  unknown_files: warn
  violations: allow
  signatures:
    use: required
    keys:
      - |{pem}
    learn_keyrings: [.ima]
  ignored_keyrings: [.blacklist]
  device_mapper: [{{target: verity, attributes: {{root_digest: ab}}}}]
"""
        )
    ).runtime
    assert section.excludes[0].paths.texts == ("/tmp/**", "regex:/var/log/[a-z]+")
    (key,) = section.keys
    said = openssl("x509", "-in", tmp_path / "c", "-noout", "-ext", "subjectKeyIdentifier").decode()
    assert key.key_id == bytes.fromhex(said.split()[-1].replace(":", ""))[-4:]
    assert key.name == "CN=IMA"
    assert section.options.unknown_path is Handling.WARN
    assert section.options.targets[0].attributes == {"root_digest": "ab"}
    assert list(describe(section)) == [
        f"what runs is judged by {A[:16]}; staged: next",
        "file signatures are required: 1 keys, and those of .ima",
        "/tmp/** regex:/var/log/[a-z]+ is not judged: users write there",
        "keys on .blacklist are not judged",
        "unknown path: warn",
        "violations: allow",
    ]


SET = f"sets: [{{sha256: {A}}}]"
WRONG = {
    "PCR 10 not quoted": (policy(f"{{{SET}}}", pcrs="[7]"), "add it to quote.pcrs"),
    "PCR 10 unjudged": (policy(f"{{{SET}}}", unjudged="[7, 10]"), "judged by a rule and listed as unjudged"),
    "nothing known": (policy("{}"), "nothing could ever be known"),
    "no digest": (policy("{sets: [{sha256: abc}]}"), "sha256"),
    "a set twice": (policy(f"{{sets: [{{sha256: {A}}}, {{sha256: {A}}}]}}"), "names a set twice"),
    "a set in force and staged": (policy(f"{{{SET}, staged: [{{sha256: {A}}}]}}"), "in force and staged"),
    "a word nobody knows": (policy(f"{{{SET}, violations: maybe}}"), "deny, warn, allow"),
    "an unknown key": (policy(f"{{{SET}, unknown_file: deny}}"), "unknown_file"),
    "excluding everything": (
        policy(f"{{{SET}, excludes: [{{paths: ['/**'], why: because I say so}}]}}"),
        "excludes-everything",
    ),
    "a pattern that is none": (
        policy(f"{{{SET}, excludes: [{{paths: ['regex:('], why: because I say so}}]}}"),
        r"runtime.excludes\[0\].*missing",
    ),
    "an exclude without a reason": (policy(f"{{{SET}, excludes: [{{paths: ['/tmp/*'], why: x}}]}}"), "why"),
    "signatures without keys": (policy(f"{{{SET}, signatures: {{use: required}}}}"), "no key may sign"),
    "keys without a use": (
        policy(f"{{{SET}, signatures: {{use: ignored, learn_keyrings: [.ima]}}}}"),
        "signatures are ignored",
    ),
    "no certificate": (
        policy(f"{{{SET}, signatures: {{use: accepted, keys: [x]}}}}"),
        "not an X.509 certificate or public key",
    ),
    "a keyring learned and ignored": (
        policy(f"{{{SET}, ignored_keyrings: [.ima], signatures: {{use: accepted, learn_keyrings: [.ima]}}}}"),
        "learned and ignored",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_is_refused_names_its_place(name):
    source, said = WRONG[name]
    with pytest.raises(PolicyError, match=said):
        parse_policy(source)


def test_a_diff_shows_what_changed_in_the_runtime_part():
    before = parse_policy(policy(f"{{{SET}, unknown_files: warn}}"))
    after = parse_policy(
        policy(f"{{sets: [{{sha256: {B}}}], excludes: [{{paths: ['/tmp/*'], why: users write there}}]}}")
    )
    changes = {each.where: (each.before, each.after) for each in diff_policies(before, after)}
    assert changes["runtime.sets[0].sha256"] == (A, B)
    assert changes["runtime.options.unknown_path"] == ("warn", "deny")
    assert changes["runtime.excludes[0].paths"] == (None, "/tmp/*")
    assert [each.where for each in diff_policies(after, after)] == []
    without = parse_policy(policy("null", pcrs="[7]"))
    assert "runtime.sets[0].sha256" in {each.where for each in diff_policies(before, without)}


def test_a_certificate_whose_subject_cannot_be_read_is_refused():
    """What nobody could be told of signs for nobody."""
    der = pki.Ca.root("Unreadable").der
    spoilt = pki.pem("CERTIFICATE", der.replace(b"Unreadable", b"\xff" * 10)).decode()
    source = policy(f"{{{SET}, signatures: {{use: accepted, keys: [{json.dumps(spoilt)}]}}}}")
    with pytest.raises(PolicyError, match=r"not an X\.509 certificate"):
        parse_policy(source)
