"""The border to the wire: the only module that knows `agent.wire`. Messages in, commands out, and back.

Whatever arrives here is checked for shape, size and consistency before anything else sees it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from agent.wire import limits, messages, secrets
from agent.wire.codec import JSON, MEDIA_TYPES, MSGPACK, WireError, decode, encode
from verifier.appraisal.alike import of_this
from verifier.appraisal.evidence import NvCertificate, PcrRequest, RatchetEvidence
from verifier.errors import EvidenceError, MalformedInputError
from verifier.ports import GuestIdentity
from verifier.ports_trust import IssuedCertificate
from verifier.reasons import Reason
from verifier.service.model import (
    Activation,
    AttestCommand,
    AttestOutcome,
    EnrollmentChallenge,
    EnrollmentCommand,
    ImaPart,
    IssuedChallenge,
    LogReference,
    VerdictView,
)
from verifier.service.secret_release import ReleaseOutcome
from verifier.web.pcr_values import pcr_values

__all__ = [
    "JSON",
    "MAX_BODY",
    "MAX_COMPRESSED_BODY",
    "MAX_JSON_BODY",
    "MAX_SECRET",
    "MAX_SMALL_BODY",
    "MEDIA_TYPES",
    "MSGPACK",
    "Problem",
    "Verdict",
    "decode_body",
    "encode",
]

T = TypeVar("T")

MAX_BODY: Final = limits.MAX_BODY
MAX_JSON_BODY: Final = limits.MAX_JSON_BODY
MAX_COMPRESSED_BODY: Final = limits.MAX_COMPRESSED_BODY
MAX_SMALL_BODY: Final = limits.MAX_SMALL_BODY
MAX_SECRET: Final = limits.MAX_SECRET
MAX_STRUCTURE: Final = max(limits.MAX_ATTEST, limits.MAX_SIGNATURE, limits.MAX_PUBLIC)
"""A TPM structure in a bundle."""

EnrollmentRequest = messages.EnrollmentRequest
EnrollmentReply = messages.EnrollmentReply
ActivationRequest = messages.ActivationRequest
ActivationReply = messages.ActivationReply
ChallengeRequest = messages.ChallengeRequest
Challenge = messages.Challenge
AttestationRequest = messages.AttestationRequest
AttestationReply = messages.AttestationReply
ReleaseRequest = secrets.ReleaseRequest
ReleaseReply = secrets.ReleaseReply
Identity = messages.GuestIdentity
LogPart = messages.LogPart
ImaMessage = messages.ImaPart
NvCertificateMessage = messages.NvCertificate
PcrBank = messages.PcrBank
PcrKey = messages.PcrKey
RatchetProof = messages.RatchetProof
Problem = messages.Problem
Verdict = messages.Verdict

_MAX_OFFSET: Final = (1 << 63) - 1
_BODY: Final = "request body"
_BYTE: Final = re.compile(r"\(byte (\d+)\)")


def decode_body(body: bytes | bytearray, kind: type[T], media_type: str) -> T:
    """Decode a request body; raises `MalformedInputError` with the byte offset where one is known."""
    try:
        return decode(body, kind, media_type)
    except WireError as error:
        text = str(error)
        found = _BYTE.search(text)
        if found is None and text == "Input data was truncated":
            raise MalformedInputError(_BODY, len(body), text, reason=Reason.MALFORMED_REQUEST) from error
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, text, structure=_BODY, offset=int(found[1]) if found else None
        ) from error


def rfc3339(moment: datetime) -> str:
    """UTC, whole seconds where there are no others."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return msgspec.json.encode(moment)[1:-1].decode()


def rfc3339_or_none(moment: datetime | None) -> str | None:
    """The same of what may not be there."""
    return None if moment is None else rfc3339(moment)


def enrollment_command(message: messages.EnrollmentRequest, source: str | None = None) -> EnrollmentCommand:
    """What a machine brings to be enrolled."""
    return EnrollmentCommand(
        ek_public=message.ek_public,
        ak_public=message.ak_public,
        ek_certificates=tuple(message.ek_certificates),
        ek_chain=tuple(message.ek_chain),
        ak_certificates=tuple(message.ak_certificates),
        device_certificates=tuple(message.idevid_certificates),
        join_token=message.join_token,
        identity=_identity(message.identity),
        source=source,
    )


def enrollment_reply(challenge: EnrollmentChallenge) -> messages.EnrollmentReply:
    """The credential challenge."""
    return messages.EnrollmentReply(
        enrollment_id=challenge.enrollment_id,
        credential_blob=challenge.credential_blob,
        encrypted_secret=challenge.encrypted_secret,
        expires_at=rfc3339(challenge.expires_at),
    )


def activation_reply(
    activation: Activation, certificate: IssuedCertificate | None
) -> messages.ActivationReply:
    """An enrolment that is complete, or waits for a person."""
    if activation.attester is None:
        wait = activation.retry_after
        return messages.ActivationReply(
            status="pending",
            enrollment_id=activation.enrollment_id,
            code=activation.waits_for,
            retry_after=None if wait is None else wait.total_seconds(),
        )
    return messages.ActivationReply(
        status="enrolled",
        attester_id=activation.attester.id,
        ak_certificate=None if certificate is None else certificate.certificate,
        ak_chain=[] if certificate is None else list(certificate.chain),
    )


def _selections(requests: tuple[PcrRequest, ...]) -> list[messages.PcrSelection]:
    return [messages.PcrSelection(bank=each.bank.label, pcrs=sorted(each.pcrs)) for each in requests]


_selection: Final = of_this(_selections)
"""As messages; nobody changes them, and all that one policy judges are asked for the same."""


def challenge_reply(challenge: IssuedChallenge) -> messages.Challenge:
    """A nonce and what to quote over it."""
    return messages.Challenge(
        nonce=challenge.nonce,
        expires_at=rfc3339(challenge.expires_at),
        selection=_selection(challenge.requests),
        boot_log_sha256=challenge.boot_log_sha256,
        want_userspace_log=True,
        userspace_log_sha256=challenge.userspace_log_sha256,
        want_ima_log=challenge.ima is not None,
        ima_offset=0 if challenge.ima is None else challenge.ima.offset,
        ima_boot=None if challenge.ima is None else challenge.ima.boot_id,
        ratchet_index=challenge.ratchet_index,
        ratchet=None
        if challenge.ratchet is None
        else messages.RatchetStep(
            step=challenge.ratchet.step, base=challenge.ratchet.base, value=challenge.ratchet.value
        ),
    )


def attest_command(message: messages.AttestationRequest, address: str | None = None) -> AttestCommand:
    """Evidence, consistent in itself; raises `MalformedInputError` or `EvidenceError` (too large)."""
    return AttestCommand(
        attester_id=message.attester_id,
        nonce=message.nonce,
        attest=message.attest,
        signature=message.signature,
        pcrs=pcr_values(
            tuple([(each.bank, tuple(each.values), tuple(each.values.values())) for each in message.pcrs])
        ),
        boot_log=_log(message.boot_log, "boot_log", limits.MAX_BOOT_LOG),
        userspace_log=_log(message.userspace_log, "userspace_log", limits.MAX_USERSPACE_LOG),
        ima=_ima(message.ima_log),
        nvpcrs=tuple([NvCertificate(each.public, each.attest, each.signature) for each in message.nvpcrs]),
        identity=_identity(message.identity),
        boot_id=message.boot_id,
        kernel_command_line=message.kernel_command_line,
        want_ear=message.want_ear,
        ear_audience=message.ear_audience,
        ratchet=_ratchet(message.ratchet),
        address=address,
    )


def attestation_reply(
    outcome: AttestOutcome, certificate: IssuedCertificate | None
) -> messages.AttestationReply:
    """The stored verdict and the next challenge."""
    return messages.AttestationReply(
        verdict=verdict_message(outcome.verdict),
        challenge=challenge_reply(outcome.challenge),
        next_in=outcome.next_in.total_seconds(),
        ear=outcome.ear,
        ak_certificate=None if certificate is None else certificate.certificate,
        ak_chain=[] if certificate is None else list(certificate.chain),
    )


def release_reply(outcome: ReleaseOutcome, certificate: IssuedCertificate | None) -> secrets.ReleaseReply:
    """The stored verdict, and the secret it was released on."""
    sealed = outcome.sealed
    return secrets.ReleaseReply(
        attestation=attestation_reply(outcome.attestation, certificate),
        revision=outcome.revision,
        credential_blob=sealed.credential_blob,
        encrypted_secret=sealed.encrypted_secret,
        verifier_key=sealed.verifier_key,
        ciphertext=sealed.ciphertext,
    )


def is_secret_name(text: str) -> bool:
    """Whether a secret can be called so."""
    try:
        msgspec.convert(text, secrets.SecretName)
    except msgspec.ValidationError:
        return False
    return True


def _read_findings(said: Sequence[Mapping[str, object]]) -> list[messages.Finding]:
    return [msgspec.convert(finding, messages.Finding) for finding in said]


_findings: Final = of_this(_read_findings)
"""As messages; nobody changes them, and most verdicts have the very findings that others had."""


def verdict_message(view: VerdictView) -> messages.Verdict:
    """A verdict as it stands."""
    record = view.record
    policy = None
    if record.policy_id is not None and record.policy_revision is not None:
        policy = messages.PolicyRef(id=record.policy_id, revision=record.policy_revision)
    return messages.Verdict(
        attester_id=record.attester_id,
        sequence=record.sequence,
        status=view.tier.label,  # type: ignore[arg-type]  # the labels are the wire's literals, kept by a test
        vector=dict(view.vector),
        findings=_findings(view.findings),
        policy=policy,
        evidence_sha256=record.evidence_sha256.hex(),
        clock=messages.ClockInfo(
            clock=record.clock.clock,
            reset_count=record.clock.reset_count,
            restart_count=record.clock.restart_count,
            safe=record.clock.safe,
        ),
        boot_id=record.boot_id,
        judged_at=rfc3339(record.judged_at),
        rejudged_at=rfc3339_or_none(record.rejudged_at),
        valid_until=rfc3339(record.valid_until),
        lifecycle=view.lifecycle.value,
    )


def identity_message(identity: GuestIdentity) -> messages.GuestIdentity:
    """What a guest says of itself."""
    return messages.GuestIdentity(
        smbios_uuid=identity.smbios_uuid,
        hostname=identity.hostname,
        os=identity.os,
        os_release=identity.os_release,
        machine_id=identity.machine_id,
        agent_version=identity.agent_version,
    )


def _identity(message: messages.GuestIdentity) -> GuestIdentity:
    return GuestIdentity(
        smbios_uuid=message.smbios_uuid,
        hostname=message.hostname,
        os=message.os,
        os_release=message.os_release,
        machine_id=message.machine_id,
        agent_version=message.agent_version,
    )


def _log(part: messages.LogPart | None, name: str, limit: int) -> LogReference | None:
    if part is None:
        return None
    if part.content is None and part.sha256 is None:
        raise _request_error(name, "neither `content` nor `sha256` is given")
    if part.content is not None:
        _check_size(part.content, name, limit)
        if part.sha256 is not None and hashlib.sha256(part.content).digest() != part.sha256:
            raise _request_error(name, "`sha256` is not the digest of `content`")
    return LogReference(content=part.content, sha256=part.sha256)


def _ima(part: messages.ImaPart | None) -> ImaPart | None:
    if part is None:
        return None
    name = "ima_log"
    _check_size(part.content, name, limits.MAX_IMA_LOG)
    if part.offset > _MAX_OFFSET:
        raise _request_error(name, f"`offset` {part.offset} is beyond any list")
    return ImaPart(content=part.content, offset=part.offset)


def _check_size(content: bytes | memoryview, name: str, limit: int) -> None:
    if len(content) > limit:
        raise EvidenceError(
            Reason.BODY_TOO_LARGE, f"{len(content)} bytes; at most {limit} are taken", structure=name
        )


def _ratchet(part: messages.RatchetProof | None) -> RatchetEvidence | None:
    if part is None:
        return None
    return RatchetEvidence(part.attest, part.signature, part.step, part.base, part.nonce)


def _request_error(where: str, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=where)


def schema_types() -> tuple[type[Any], ...]:
    """The message types the OpenAPI document describes, beside those of `web/messages.py`."""
    return (
        EnrollmentRequest,
        EnrollmentReply,
        ActivationRequest,
        ActivationReply,
        ChallengeRequest,
        Challenge,
        AttestationRequest,
        AttestationReply,
        ReleaseRequest,
        ReleaseReply,
        Verdict,
        Problem,
    )
