"""What is done to a guest. Each play yields the verdicts that its scenario lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.vm import bootfiles
from tests.vm.bootfiles import Key
from tests.vm.builds import Boot, built
from tests.vm.judging import Verdict
from tests.vm.lab import Lab
from tests.vm.machine import Machine
from tests.vm.verifier import wait_for

Play = Callable[[Lab], Iterator[Verdict]]


def booting(boot: Boot, right: Boot | None = None) -> Play:
    """The policy is of the right boot; the machine boots otherwise."""

    def play(lab: Lab) -> Iterator[Verdict]:
        lab.serve(right)
        yield lab.verdict(lab.booted(boot))

    return play


def good(lab: Lab) -> Iterator[Verdict]:
    """Units of the guest that wait for its verdict are started, too."""
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    asked = "systemctl is-active attested.target || true"
    wait_for("attested.target", 60, lambda: guest.shell(asked).strip() == "active")


def learned(right: Boot, other: Boot) -> Play:
    """The policy is predicted, then learned from the good boot; then the machine boots otherwise."""

    def play(lab: Lab) -> Iterator[Verdict]:
        lab.serve(right)
        guest = lab.booted(right)
        yield lab.verdict(guest)
        lab.learn(right)
        for boot in (right, other):
            lab.power_off(guest)
            guest.partition = built(boot).partition
            guest.start()
            yield lab.verdict(guest)

    return play


def ima_signature(signer: Key, digest: bytes) -> bytes:
    """`security.ima` of a file with this SHA-256, version 2, as evmctl makes it."""
    private = load_pem_private_key(signer.key.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    signature = private.sign(digest, padding.PKCS1v15(), Prehashed(SHA256()))
    key_id = x509.SubjectKeyIdentifier.from_public_key(private.public_key()).digest[-4:]
    return bytes([3, 2, 4]) + key_id + len(signature).to_bytes(2, "big") + signature


def unknown_binary(lab: Lab) -> Iterator[Verdict]:
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    guest.shell("cp /usr/bin/true /opt/implant && echo implant >> /opt/implant && /opt/implant")
    yield lab.verdict(guest, until=lab.covering(guest))


def signed_binary(lab: Lab) -> Iterator[Verdict]:
    """First one that a key of the policy signed, then one that a stranger signed."""
    certificate = bootfiles.key("vendor").certificate.read_text()
    lab.runtime = {"signatures": {"use": "accepted", "keys": [certificate]}}
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    for signer in ("vendor", "stranger"):
        tool = f"/opt/{signer}"
        # Not read before it is signed: reading is measured.
        guest.shell(f"cp /usr/bin/true {tool} && echo {signer} >> {tool}")
        content = (lab.files.tree / "usr/bin/true").read_bytes() + f"{signer}\n".encode()
        signature = ima_signature(bootfiles.key(signer), sha256(content).digest()).hex()
        guest.shell(
            f"python3 -c \"import os; os.setxattr('{tool}', 'security.ima', bytes.fromhex('{signature}'))\""
        )
        guest.shell(tool)
        yield lab.verdict(guest, until=lab.covering(guest))


def changed_file(lab: Lab) -> Iterator[Verdict]:
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    guest.shell("echo trojan >> /usr/bin/nproc && /usr/bin/nproc")
    yield lab.verdict(guest, until=lab.covering(guest))


def clone(lab: Lab) -> Iterator[Verdict]:
    """The original goes on, then the copy of all its state boots as another VM."""
    lab.serve()
    original = lab.booted()
    yield lab.verdict(original)
    lab.power_off(original)
    copy = lab.copied(original)
    original.start()
    yield lab.verdict(original)
    lab.older(original)
    lab.power_off(original)
    copy.start()
    yield lab.verdict(copy)


def rollback(lab: Lab) -> Iterator[Verdict]:
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    lab.power_off(guest)
    snapshot = lab.saved(guest)
    guest.start()
    yield lab.verdict(guest)
    lab.older(guest)
    lab.power_off(guest)
    lab.restore(guest, snapshot)
    guest.start()
    yield lab.verdict(guest)


def replaced_tpm(lab: Lab) -> Iterator[Verdict]:
    """Its enrolment waits for an operator; once approved, the machine is judged."""
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    lab.power_off(guest)
    guest.tpm = lab.other_tpm().state
    guest.start()
    waits = wait_for("an enrolment to decide", 240, lab.waiting)
    told = {waits["code"], *(conflict["code"] for conflict in waits["conflicts"])}
    yield {"status": "none", "lifecycle": waits["status"], "findings": [finding(code) for code in told]}
    lab.verifier.attestctl("enrollments", "approve", waits["id"], "--reason", "board replaced")
    yield lab.verdict(guest)


def finding(code: str) -> Verdict:
    return {"code": code, "status": "failed", "severity": "contraindicated", "message": ""}


def killed_agent(lab: Lab) -> Iterator[Verdict]:
    """systemd starts a killed one again; one that is kept down goes stale."""
    lab.validity = "30s"
    lab.serve()
    guest = lab.booted()
    yield lab.verdict(guest)
    guest.shell("systemctl kill --signal=KILL attest-agent")
    yield lab.verdict(guest, until=lab.covering(guest))
    guest.shell("systemctl stop attest-agent")
    yield lab.lifecycle("stale", 120)


def verifier_down(lab: Lab) -> Iterator[Verdict]:
    lab.serve()
    guest = lab.machine()
    lab.verifier.stop()
    guest.start()
    _agent_retries(guest)
    lab.verifier.start()
    yield lab.verdict(guest)


def network_late(lab: Lab) -> Iterator[Verdict]:
    lab.serve()
    guest = lab.machine()
    guest.start(link=False)
    _agent_retries(guest)
    guest.monitor("set_link", name="net0", up=True)
    yield lab.verdict(guest)


def _agent_retries(guest: Machine) -> None:
    wait_for(
        "the agent to wait for its verifier",
        240,
        lambda: "next try in" in guest.shell("journalctl -u attest-agent --no-pager"),
    )
