"""Messages of background checks: a bundle as `attest-agent` writes it, over a relying party's nonce."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from verifier.service.background_check import CheckCommand
from verifier.web import wire_codec as wire
from verifier.web.messages import Body, Id, ProfileName

Hex = Annotated[str, Meta(pattern="^([0-9a-fA-F]{2})*$", max_length=128)]
Bytes = Annotated[bytes, Meta(max_length=wire.MAX_STRUCTURE)]
Text = Annotated[str, Meta(max_length=1024)]


class File(Struct, frozen=True, kw_only=True):
    """Part of a file format that may grow: what is not known here is passed over, and helps nobody."""


class CollectedQuote(File, frozen=True, kw_only=True):
    """TPMS_ATTEST as signed and TPMT_SIGNATURE."""

    attest: Bytes
    signature: Bytes


class CollectedRatchet(File, frozen=True, kw_only=True):
    """The ratchet's index, certified over what the quote is over, and the step that led to its content."""

    attest: Bytes
    signature: Bytes
    step: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    base: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None
    nonce: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None


class CollectedIndex(File, frozen=True, kw_only=True):
    """A certified NV index: TPMS_NV_PUBLIC, TPMS_ATTEST and TPMT_SIGNATURE."""

    public: Annotated[bytes, Meta(max_length=256)]
    attest: Bytes
    signature: Bytes


class CollectedIdentity(File, frozen=True, kw_only=True):
    """What the guest says it is; unproven."""

    smbios_uuid: Text | None = None
    hostname: Text | None = None


class CollectedEvidence(File, frozen=True, kw_only=True):
    """A bundle of `attest-agent attest --nonce` or `collect`. Bytes are base64, PCR values hex."""

    format: Literal["vtpm-attest/bundle/1"]
    ak_public: Bytes
    """TPM2B_PUBLIC of the AK."""
    ek_public: Bytes | None = None
    """TPM2B_PUBLIC of the EK."""
    quote: CollectedQuote
    pcrs: Annotated[dict[Annotated[str, Meta(max_length=16)], dict[wire.PcrKey, Hex]], Meta(max_length=8)]
    """By bank and index."""
    boot_log: bytes | None = None
    userspace_log: bytes | None = None
    ima_log: bytes | None = None
    """The kernel's binary list, whole."""
    nvpcrs: Annotated[list[CollectedIndex], Meta(max_length=8)] = msgspec.field(default_factory=list)
    ratchet: CollectedRatchet | None = None
    identity: CollectedIdentity = CollectedIdentity()
    kernel_command_line: Annotated[str, Meta(max_length=16384)] | None = None
    boot_id: Text | None = None


class AppraisalRequest(Body, frozen=True):
    """Evidence to be judged against a nonce of the relying party's own."""

    nonce: Annotated[bytes, Meta(min_length=8, max_length=64)]
    """Base64. Never used before, and not to be guessed: it alone says that the evidence is new."""
    evidence: CollectedEvidence
    attester_id: Id | None = None
    """Whose evidence it has to be; absent: whoever has the EK of the bundle."""


class AppraisalQuery(Body, frozen=True):
    """For an EAR: for whom it is (`aud`), and its profile."""

    audience: Annotated[str, Meta(min_length=1, max_length=256, pattern="^[!-~]+$")] | None = None
    profile: ProfileName | None = None


class AppraisalReply(Body, frozen=True):
    """What the evidence proves. It is nobody's latest verdict: `verdict.sequence` is 0."""

    nonce: bytes
    """As it was sent, base64."""
    verdict: wire.Verdict


def check_command(message: AppraisalRequest, address: str | None) -> CheckCommand:
    """Evidence, consistent in itself; raises `EvidenceError` for logs that are too large or PCR values that are none."""
    found = message.evidence
    return CheckCommand(
        nonce=message.nonce,
        ak_public=found.ak_public,
        ek_public=found.ek_public,
        attester_id=message.attester_id,
        evidence=wire.attest_command(_as_attestation(found), address),
    )


def eat_nonce(nonce: bytes) -> str:
    """The nonce as an EAR has it: base64url without padding."""
    return urlsafe_b64encode(nonce).rstrip(b"=").decode("ascii")


def _as_attestation(found: CollectedEvidence) -> wire.AttestationRequest:
    ratchet = found.ratchet
    return wire.AttestationRequest(
        attester_id="",
        nonce=b"",
        attest=found.quote.attest,
        signature=found.quote.signature,
        pcrs=[
            wire.PcrBank(bank=bank, values={index: bytes.fromhex(value) for index, value in values.items()})
            for bank, values in found.pcrs.items()
        ],
        boot_log=_part(found.boot_log),
        userspace_log=_part(found.userspace_log),
        ima_log=None if found.ima_log is None else wire.ImaMessage(content=memoryview(found.ima_log)),
        nvpcrs=[
            wire.NvCertificateMessage(public=each.public, attest=each.attest, signature=each.signature)
            for each in found.nvpcrs
        ],
        ratchet=None
        if ratchet is None
        else wire.RatchetProof(
            attest=ratchet.attest,
            signature=ratchet.signature,
            step=ratchet.step,
            base=ratchet.base,
            nonce=ratchet.nonce,
        ),
        identity=wire.Identity(smbios_uuid=found.identity.smbios_uuid, hostname=found.identity.hostname),
        boot_id=found.boot_id,
        kernel_command_line=found.kernel_command_line,
    )


def _part(log: bytes | None) -> wire.LogPart | None:
    return None if log is None else wire.LogPart(content=log)
