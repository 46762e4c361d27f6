"""AKs that came with the machine, as clouds and makers lay them into a TPM, on a real one: agent and verifier as processes."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.ak import read_key_certificates
from agent.esapi import open_tpm
from agent.templates import AkKind, ak_template
from scripts.demo import BIN, Verifier
from tests import swtpm
from tests.nv import define_nv
from tests.simulator import SoftwareCa
from tests.simulator.ca import key_usage
from verifier.crypto.keys import public_key
from verifier.tcg.public import parse_public

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]
CLOUD = SoftwareCa("cloud", name="A cloud's AK CA")
MAKER = SoftwareCa("maker", name="A maker's device CA")
RESIDENCY, RESTRICTED = "2.23.133.11.1.1", "2.23.133.11.1.3"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    work = tmp_path_factory.mktemp("provisioned")
    (work / "tpm-vendor-ca").mkdir()
    for name, ca in (("cloud", CLOUD), ("maker", MAKER)):
        (work / f"{name}.pem").write_bytes(ca.root.public_bytes(Encoding.PEM))
    for name in ("swtpm-localca-rootca-cert.pem", "issuercert.pem"):  # no EK certificate is trusted here
        (work / "tpm-vendor-ca" / name).write_bytes(SoftwareCa("nobody's").root.public_bytes(Encoding.PEM))
    more = f"""
[enrollment]
methods = ["ak-certificate|device-certificate", "token"]
[trust]
ak_anchors = ["{work / "cloud.pem"}"]
device_anchors = ["{work / "maker.pem"}"]
"""
    with Verifier.running(work, more=more) as running:
        yield running


@pytest.fixture
def machine(tmp_path):
    """A TPM without any EK certificate, as most clouds' are."""
    made = swtpm.manufacture(tmp_path / "tpm", tmp_path / "vendor", certificates=False)
    with swtpm.Swtpm(made.state) as running:
        yield running


def made_key(machine, template):
    with open_tpm(machine.tcti) as tpm, tpm.primary(template) as key:
        return public_key(parse_public(key.public))


def persist(machine, template: bytes, handle: int) -> None:
    from tpm2_pytss import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE
    from tpm2_pytss.constants import ESYS_TR

    with machine.esapi() as esapi:
        public, _ = TPM2B_PUBLIC.unmarshal(template)
        key = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), public, ESYS_TR.ENDORSEMENT)[0]
        esapi.evict_control(ESYS_TR.OWNER, key, handle)
        esapi.flush_context(key)


def iak_certificate(key, ca=MAKER) -> bytes:
    policies = x509.CertificatePolicies(
        [x509.PolicyInformation(x509.ObjectIdentifier(one), None) for one in (RESIDENCY, RESTRICTED)]
    )
    return ca.issue(
        key,
        eku=False,
        usage=key_usage("digital_signature"),
        extensions=[(policies, False)],
        san=False,
        subject=x509.Name.from_rfc4514_string("CN=server-1"),
    )


def google(machine, kind=AkKind.ECC_P256, *, ca=CLOUD, certified=None) -> None:
    """Template and certificate in NV; the key is made from the template."""
    index = {AkKind.ECC_P256: 0x01C10002, AkKind.RSA_2048: 0x01C10000}[kind]
    template = ak_template(kind, 77)
    define_nv(machine, index, ca.issue_ak(certified or made_key(machine, template)) + b"\xff" * 40)
    define_nv(machine, index + 1, template[2:])


def azure(machine, *, ca=CLOUD) -> None:
    """A persistent key and its certificate in NV."""
    template = ak_template(AkKind.RSA_2048, 78)
    persist(machine, template, 0x81000003)
    define_nv(machine, 0x01C101D0, ca.issue_ak(made_key(machine, template)))


def maker(machine, *, ca=MAKER) -> None:
    """An IAK beside an IDevID, both persistent."""
    template = ak_template(AkKind.ECC_P256, 79)
    persist(machine, template, 0x81020001)
    define_nv(machine, 0x01C90100, iak_certificate(made_key(machine, template), ca))


def agent(machine, tmp_path, *arguments, verifier=None):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VTPM_ATTEST_")}
    command = [
        BIN / "attest-agent",
        *arguments,
        "--tcti",
        machine.tcti,
        "--state-dir",
        tmp_path / "agent",
        "--json",
    ]
    if verifier is not None:
        command += ["--server", verifier.url, "--token", verifier.join_token]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done, json.loads(done.stdout)


def attester(verifier, attester_id):
    environment = os.environ | {
        "ATTESTCTL_SERVER": verifier.url,
        "ATTESTCTL_CA": str(verifier.ca),
        "ATTESTCTL_TOKEN": verifier.dashboard_token,
    }
    import ssl
    import urllib.request

    request = urllib.request.Request(
        f"{verifier.url}/v1/attesters/{attester_id}",
        headers={"Authorization": f"Bearer {environment['ATTESTCTL_TOKEN']}"},
    )
    context = ssl.create_default_context(cafile=str(verifier.ca))
    with urllib.request.urlopen(request, context=context) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("lay", "endorsed_by"),
    [
        (google, "ak-certificate"),
        (lambda machine: google(machine, AkKind.RSA_2048), "ak-certificate"),
        (azure, "ak-certificate"),
        (maker, "device-certificate"),
    ],
    ids=["google-ecc", "google-rsa", "azure", "maker-iak"],
)
def test_its_certificate_endorses_the_machine_and_its_key_signs(
    verifier, machine, tmp_path, lay, endorsed_by
):
    lay(machine)
    kept = tmp_path / "ak.pem"
    options = ("--ak", "certified", "--ak-certificate", str(kept))
    enrolled, document = agent(machine, tmp_path, "enroll", *options, verifier=verifier)
    assert enrolled.returncode == 0, enrolled.stderr
    assert document["ak"] == "certified"
    shown = attester(verifier, document["attester_id"])
    assert shown["endorsement"]["profile"]["methods"] == [endorsed_by, "token"]
    _, answer = agent(machine, tmp_path, "attest", "--once", "--ak-certificate", str(kept), verifier=verifier)
    codes = {finding["code"]: finding["status"] for finding in answer["verdict"]["findings"]}
    assert codes["quote-verified"] == "passed"


def test_without_such_a_key_the_agent_says_what_to_use(machine, tmp_path, verifier):
    done, document = agent(machine, tmp_path, "enroll", "--ak", "certified", verifier=verifier)
    assert done.returncode == 78
    assert "no certificate in this TPM is for an attestation key" in document["error"]["message"]
    assert "--ak" in document["error"]["remedy"]


def test_a_certificate_of_another_key_is_no_ak(machine, tmp_path, verifier):
    google(machine, certified=made_key(machine, ak_template(AkKind.ECC_P256, 1)))
    done, _ = agent(machine, tmp_path, "enroll", "--ak", "certified", verifier=verifier)
    assert done.returncode == 78


@pytest.mark.parametrize(
    ("lay", "code"),
    [
        (google, "ek-certificate-untrusted"),
        (azure, "ek-certificate-untrusted"),
        (maker, "ek-certificate-untrusted"),
    ],
)
def test_a_stranger_s_certificate_is_refused(machine, tmp_path, verifier, lay, code):
    lay(machine, ca=SoftwareCa("stranger"))
    done, document = agent(machine, tmp_path, "enroll", "--ak", "certified", verifier=verifier)
    assert done.returncode == 65
    assert document["error"]["code"] == code


def test_a_cloud_s_certificate_does_not_endorse_a_key_the_agent_made(machine, tmp_path, verifier):
    google(machine)
    done, document = agent(machine, tmp_path, "enroll", verifier=verifier)
    assert done.returncode == 65
    assert document["error"]["code"] == "key-certificate-missing"


def test_unreadable_certificates_are_notes(machine):
    define_nv(machine, 0x01C10002, b"no certificate")
    azure(machine)
    maker(machine)
    with open_tpm(machine.tcti) as tpm:
        found = read_key_certificates(tpm)
    assert [slot.name for slot, _ in found.ak] == ["Azure"]
    assert len(found.device) == 1
    assert [note[:13] for note in found.notes] == ["NV 0x01c10002"]
