"""A simulated guest: boots one of several real images, enrols, attests, reboots, is updated; some are hostile."""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from agent.wire import messages as m
from agent.wire.codec import MSGPACK, decode, encode
from tests.bench.fleet.http import Connection
from tests.conftest import ROOT
from tests.simulator import ECC_AK, RSA_AK, AkProfile, SoftwareTpm

RATCHET_ATTRIBUTES = 0x02060044
IMAGES = ("uki-sb-on", "grub-sb-on", "uki-sb-on-reboot-1")
TAMPERED = "uki-sb-on-cmdline-tampered"


class RefusedError(Exception):
    """The verifier answered with a problem document."""

    def __init__(self, status: int, code: str, retry_after: float | None) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.retry_after = status, code, retry_after


class Conduct(enum.Enum):
    """What a guest is up to."""

    HONEST = "honest"
    TAMPERED = "tampered"
    """Boots an image with another command line: judged, and contraindicated by a policy that looks."""
    REPLAYING = "replaying"
    """Sends each piece of evidence twice: the second has to be refused."""
    FORGING = "forging"
    """Signs with a key that is not its AK: refused."""


@cache
def image(name: str) -> tuple[bytes, str]:
    """Boot log and kernel command line of a captured boot."""
    folder = ROOT / "policies" / "evidence" / name
    log = (folder / "binary_bios_measurements").read_bytes()
    return log, str(json.loads((folder / "meta.json").read_text()).get("cmdline", ""))


@dataclass
class Guest:
    """One machine with its connection. `seed` decides everything about it."""

    seed: int
    connection: Connection
    conduct: Conduct = Conduct.HONEST
    rsa: bool = False
    image: str = IMAGES[0]
    attester_id: str = ""
    boots: int = 0
    challenge: m.Challenge | None = None
    begun: m.EnrollmentReply | None = None
    hints: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tpm = SoftwareTpm(f"fleet-{self.seed}", ak=RSA_AK if self.rsa else ECC_AK)
        self.identity = m.GuestIdentity(
            smbios_uuid=str(UUID(bytes=hashlib.sha256(b"uuid %d" % self.seed).digest()[:16])),
            hostname=f"guest-{self.seed}",
            os="linux",
        )
        self.boot(self.image)

    def boot(self, name: str) -> None:
        """Start this image; what was held of the last boot is gone."""
        if self.boots:
            self.tpm.reboot()
        self.boots += 1
        self.image, self.challenge = name, None
        self.log, self.line = image(name)
        self.log_sha256 = hashlib.sha256(self.log).digest()
        self.boot_id = str(UUID(bytes=hashlib.sha256(b"boot %d %d" % (self.seed, self.boots)).digest()[:16]))
        self.tpm.replay_log(self.log)

    async def call(self, path: str, message: m.Message, reply: type[Any]) -> Any:
        """Send a message and read the answer; `RefusedError` where it is a problem."""
        status, headers, content = await self.connection.post(path, encode(message, MSGPACK))
        if status >= 400:
            problem = decode(content, m.Problem)
            after = headers.get("retry-after")
            raise RefusedError(status, problem.code, None if after is None else float(after))
        return decode(content, reply, MSGPACK)

    async def begin(self, token: str) -> m.EnrollmentReply:
        """EK and AK against a join token: the credential challenge."""
        asked = m.EnrollmentRequest(
            ek_public=self.tpm.ek_public,
            ak_public=self.tpm.ak_public,
            ek_certificates=[self.tpm.ek_certificate],
            identity=self.identity,
            join_token=token,
        )
        begun: m.EnrollmentReply = await self.call("/v1/enrollments", asked, m.EnrollmentReply)
        return begun

    async def enroll(self, token: str) -> None:
        """Begin and activate. Sent away between the two calls, it goes on with the second."""
        if self.begun is None:
            self.begun = await self.begin(token)
        begun = self.begun
        secret = self.tpm.activate(begun.credential_blob, begun.encrypted_secret)
        said = b"vtpm-attest activation v1" + begun.enrollment_id.encode() + self.tpm.ak_name
        proof = m.ActivationRequest(proof=hmac.digest(secret, said, "sha256"))
        done = await self.call(f"/v1/enrollments/{begun.enrollment_id}/activation", proof, m.ActivationReply)
        self.attester_id = done.attester_id

    def can_go_on_after(self, code: str) -> bool:
        """As the agent does: another challenge, or another enrolment, where that at hand is no good any more."""
        if self.attester_id:
            return code == "nonce-reused"  # its answer was lost with the connection
        gone = code in {"enrollment-expired", "not-found"}
        if gone:
            self.begun = None
        return gone

    async def attest(self) -> m.Verdict:
        """Over the challenge at hand, or a new one."""
        challenge, self.challenge = self.challenge, None
        if challenge is None:
            challenge = await self.call(
                "/v1/challenges", m.ChallengeRequest(attester_id=self.attester_id), m.Challenge
            )
        evidence = self.evidence(challenge)
        reply = await self.call("/v1/attestations", evidence, m.AttestationReply)
        self.challenge = reply.challenge
        if self.conduct is Conduct.REPLAYING:
            await self._must_be_refused(evidence)
        verdict: m.Verdict = reply.verdict
        return verdict

    async def _must_be_refused(self, evidence: m.AttestationRequest) -> None:
        try:
            await self.call("/v1/attestations", evidence, m.AttestationReply)
        except RefusedError:
            return
        raise AssertionError(f"guest {self.seed}: a replayed quote was accepted")

    def evidence(self, challenge: m.Challenge) -> m.AttestationRequest:
        """The one request of the steady state: the log by its digest where the verifier holds it."""
        selection = {part.bank: part.pcrs for part in challenge.selection}
        signer = self.tpm.make_ak(AkProfile(label="forged")) if self.conduct is Conduct.FORGING else None
        attest, signature = self.tpm.quote(challenge.nonce, selection, ak=signer)
        ratchet = self._ratchet(challenge)  # certified right after the quote, or it proves nothing
        values = self.tpm.pcrs("sha256")
        held = challenge.boot_log_sha256 == self.log_sha256
        return m.AttestationRequest(
            attester_id=self.attester_id,
            nonce=challenge.nonce,
            attest=attest,
            signature=signature,
            pcrs=[m.PcrBank(bank="sha256", values={str(pcr): values[pcr] for pcr in selection["sha256"]})],
            boot_log=m.LogPart(sha256=self.log_sha256) if held else m.LogPart(content=self.log),
            identity=self.identity,
            boot_id=self.boot_id,
            kernel_command_line=self.line,
            ratchet=ratchet,
        )

    def _ratchet(self, challenge: m.Challenge) -> m.RatchetProof | None:
        """As the agent keeps it: made at first use, moved on by what the challenge hands out, certified."""
        number, handed = challenge.ratchet_index, challenge.ratchet
        if number is None:
            return None
        if self.tpm.nv_index(number) is None:
            self.tpm.nv_define_extend(number, RATCHET_ATTRIBUTES)
            self.tpm.nv_extend(number, hashlib.sha256(b"ratchet %d" % self.seed).digest())
        index = self.tpm.nv_index(number)
        if index is not None and handed is not None and handed.base == index.value:
            self.tpm.nv_extend(number, handed.value)
            self.hints = {index.value: {"step": handed.step, "base": handed.base, "nonce": challenge.nonce}}
        attest, signature = self.tpm.nv_certify(challenge.nonce, number)
        return m.RatchetProof(attest=attest, signature=signature, **self.hints.get(index.value, {}))
