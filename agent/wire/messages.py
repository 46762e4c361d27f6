"""The messages of `/v1`, as msgspec structs: JSON by default (bytes as base64), MessagePack by Content-Type.

These types are the wire and nothing more: the verifier converts them at its border (`web/wire_codec.py`) and
the core never sees them. Unknown fields of a request are refused, so that a misspelt one cannot be silently
ignored; unknown fields of a reply are skipped, so that an older agent understands a newer verifier.
TPM structures travel in the byte order and marshalling of the TPM 2.0 Library Specification, Part 2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.wire import limits

Nonce = Annotated[bytes, Meta(min_length=limits.NONCE_SIZE, max_length=limits.NONCE_SIZE)]
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Text = Annotated[str, Meta(max_length=limits.MAX_TEXT)]
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
Bank = Annotated[str, Meta(min_length=3, max_length=16, extra_json_schema={"pattern": "^[a-z0-9_]+$"})]
"""Which are known is for its reader to say; a pattern is looked for at some cost, each time."""
PcrIndex = Annotated[int, Meta(ge=0, le=31)]
PcrKey = Annotated[
    str, Meta(min_length=1, max_length=2, extra_json_schema={"pattern": "^([0-9]|[0-2][0-9]|3[01])$"})
]
"""A number from 0 to 31 as a key: what else is two characters long is for its reader to refuse, as of `Bank`."""
Digest = Annotated[bytes, Meta(min_length=20, max_length=64)]
Tier = Literal["none", "affirming", "warning", "contraindicated"]


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of every message."""


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything a verifier answers with."""


class GuestIdentity(Message, frozen=True, kw_only=True):
    """What the guest says of itself. Nothing here is proven; it names, correlates and is shown."""

    smbios_uuid: Text | None = None
    hostname: Text | None = None
    os: Text | None = None
    os_release: Text | None = None
    machine_id: Text | None = None
    agent_version: Text | None = None


class EnrollmentRequest(Message, frozen=True, kw_only=True):
    """Ask to be enrolled: who endorses the TPM (EK) and which key will sign quotes (AK)."""

    ek_public: Annotated[bytes, Meta(max_length=limits.MAX_PUBLIC)]
    """TPM2B_PUBLIC of the EK the challenge shall be encrypted to."""
    ak_public: Annotated[bytes, Meta(max_length=limits.MAX_PUBLIC)]
    """TPM2B_PUBLIC of the AK."""
    ek_certificates: Annotated[
        list[Annotated[bytes, Meta(max_length=limits.MAX_CERTIFICATE)]],
        Meta(max_length=limits.MAX_CERTIFICATES),
    ] = []
    """DER, as read from NV and trimmed; any number of EK certificates, the one of `ek_public` among them."""
    ek_chain: Annotated[
        list[Annotated[bytes, Meta(max_length=limits.MAX_CERTIFICATE)]],
        Meta(max_length=limits.MAX_CERTIFICATES),
    ] = []
    """DER issuer certificates from the NV chain area: hints for path building, never trusted by themselves."""
    ak_certificates: Annotated[
        list[Annotated[bytes, Meta(max_length=limits.MAX_CERTIFICATE)]],
        Meta(max_length=limits.MAX_CERTIFICATES),
    ] = []
    """DER, as read from NV: what a cloud issued for attestation keys of this TPM."""
    idevid_certificates: Annotated[
        list[Annotated[bytes, Meta(max_length=limits.MAX_CERTIFICATE)]],
        Meta(max_length=limits.MAX_CERTIFICATES),
    ] = []
    """DER, as read from NV: IDevID and IAK certificates of the machine's maker."""
    join_token: Text | None = None
    identity: GuestIdentity = GuestIdentity()


class EnrollmentReply(Reply, frozen=True, kw_only=True):
    """A credential only the TPM that holds both keys can open (TPM 2.0 Part 1, section 24)."""

    enrollment_id: Id
    credential_blob: bytes
    """TPM2B_ID_OBJECT, size prefix included."""
    encrypted_secret: bytes
    """TPM2B_ENCRYPTED_SECRET, size prefix included."""
    expires_at: str


class ActivationRequest(Message, frozen=True, kw_only=True):
    """HMAC-SHA256(activated secret, "vtpm-attest activation v1" || enrollment id || AK name)."""

    proof: Sha256
    want_ak_certificate: bool = False


class ActivationReply(Reply, frozen=True, kw_only=True):
    """`enrolled`: attest now. `pending`: a person must decide; send the proof again after `retry_after` seconds."""

    status: Literal["enrolled", "pending"]
    attester_id: Id | None = None
    """With `enrolled`."""
    enrollment_id: Id | None = None
    """With `pending`: where to send the proof again. May be another one, if this machine has asked before."""
    code: str | None = None
    """With `pending`: `enrollment-pending`, or `identity-replaced` for a machine that is known with another TPM."""
    retry_after: float | None = None
    ak_certificate: bytes | None = None
    """DER, issued by the verifier for this AK; absent where none was asked for, or none is issued."""
    ak_chain: list[bytes] = []
    """DER of what is above it, its issuer first."""


class ChallengeRequest(Message, frozen=True, kw_only=True):
    """Ask for a nonce."""

    attester_id: Id


class PcrSelection(Reply, frozen=True, kw_only=True):
    """One bank and the PCR indices to quote, ascending."""

    bank: Bank
    pcrs: Annotated[list[PcrIndex], Meta(max_length=32)]


class RatchetStep(Reply, frozen=True, kw_only=True):
    """A value to extend into the ratchet's index before it is certified, if it holds `base`; and its number."""

    step: int
    base: Sha256
    value: Sha256


class Challenge(Reply, frozen=True, kw_only=True):
    """A single-use nonce, what to quote, and what the verifier already holds."""

    nonce: Nonce
    expires_at: str
    selection: Annotated[list[PcrSelection], Meta(max_length=8)]
    boot_log_sha256: Sha256 | None = None
    """Digest of the boot log last proven by this attester; name it instead of sending it again."""
    want_ima_log: bool = False
    """The verifier reads the IMA list wherever PCR 10 is quoted; one that does not say so passes it over."""
    ima_offset: int = 0
    """Bytes of the binary IMA list already proven for `ima_boot`; 0 asks for the whole list."""
    ima_boot: Text | None = None
    """The `boot_id` that came with them. In another boot the list is sent whole."""
    ratchet_index: int | None = None
    """NV index of the ratchet this machine is asked to keep; absent: none is wanted."""
    ratchet: RatchetStep | None = None
    want_userspace_log: bool = False
    """The verifier reads what systemd measures from userspace; one that does not say so refuses it."""
    userspace_log_sha256: Sha256 | None = None
    """As `boot_log_sha256`, of that log."""


class LogPart(Message, frozen=True, kw_only=True):
    """A log, whole (`content`) or by digest alone (`sha256`)."""

    content: bytes | None = None
    sha256: Sha256 | None = None
    """Of the whole log."""


class ImaPart(Message, frozen=True, kw_only=True):
    """The IMA list from a byte of it on."""

    content: memoryview
    """Looked at where it lies in the message: it may be megabytes."""
    offset: Annotated[int, Meta(ge=0)] = 0


class PcrBank(Message, frozen=True, kw_only=True):
    """PCR values as read beside the quote; believed only when they hash to the quoted digest."""

    bank: Bank
    values: Annotated[dict[PcrKey, Digest], Meta(max_length=32)]


class RatchetProof(Message, frozen=True, kw_only=True):
    """The ratchet's NV index, certified by the AK over the nonce of the quote (TPM2_NV_Certify)."""

    attest: Annotated[bytes, Meta(max_length=limits.MAX_ATTEST)]
    """TPMS_ATTEST as signed."""
    signature: Annotated[bytes, Meta(max_length=limits.MAX_SIGNATURE)]
    """TPMT_SIGNATURE."""
    step: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    """Number of the value that was extended last, if it is remembered."""
    base: Sha256 | None = None
    """Content of the index before that."""
    nonce: Nonce | None = None
    """What that value came with."""


class NvCertificate(Message, frozen=True, kw_only=True):
    """An NV index that can only be extended, certified by the AK over the nonce of the quote (TPM2_NV_Certify)."""

    public: Annotated[bytes, Meta(max_length=limits.MAX_NV_PUBLIC)]
    """TPMS_NV_PUBLIC; believed only where its Name is the certified one."""
    attest: Annotated[bytes, Meta(max_length=limits.MAX_ATTEST)]
    """TPMS_ATTEST as signed."""
    signature: Annotated[bytes, Meta(max_length=limits.MAX_SIGNATURE)]
    """TPMT_SIGNATURE."""


class AttestationRequest(Message, frozen=True, kw_only=True):
    """Evidence over a nonce: the quote authenticates it, so no other credential is needed."""

    attester_id: Id
    nonce: Nonce
    attest: Annotated[bytes, Meta(max_length=limits.MAX_ATTEST)]
    """TPMS_ATTEST as signed (the content of the TPM2B_ATTEST, no size prefix)."""
    signature: Annotated[bytes, Meta(max_length=limits.MAX_SIGNATURE)]
    """TPMT_SIGNATURE."""
    pcrs: Annotated[list[PcrBank], Meta(max_length=8)]
    boot_log: LogPart | None = None
    ima_log: ImaPart | None = None
    """The kernel's binary IMA list from `offset` on, in its own byte order, read after the quote was taken. It may have
    grown since: the verifier judges what the quote covers. With it, `pcrs` may hold PCR 10 as it was before the quote."""
    identity: GuestIdentity = GuestIdentity()
    boot_id: Text | None = None
    """The kernel's random boot id, to tell a reboot from a rollback; not proven."""
    kernel_command_line: Annotated[str, Meta(max_length=limits.MAX_COMMAND_LINE)] | None = None
    """Believed only where a measured digest covers exactly this text."""
    ratchet: RatchetProof | None = None
    userspace_log: LogPart | None = None
    """What systemd measured from userspace (`/run/log/systemd/tpm2-measure.log`), whole or by digest."""
    nvpcrs: Annotated[list[NvCertificate], Meta(max_length=limits.MAX_NVPCRS)] = []
    """The NV indices that log names."""
    want_ear: bool = False
    ear_audience: Annotated[str, Meta(min_length=1, max_length=256, pattern="^[!-~]+$")] | None = None
    """For whom that EAR is (`aud`): the relying party it will be shown to."""
    want_ak_certificate: bool = False


class Finding(Reply, frozen=True, kw_only=True):
    """One reason of a verdict; `code` is a stable entry of the reasons dictionary."""

    code: str
    status: Literal["passed", "failed", "not-evaluated"]
    severity: Literal["info", "warning", "contraindicated"]
    claim: str
    message: str
    remedy: str | None = None
    rule: str | None = None
    pcr: int | None = None
    event_index: int | None = None
    expected: str | None = None
    actual: str | None = None
    quirk: str | None = None
    """Known deviation of boot logs that fits, by its stable name."""


class PolicyRef(Reply, frozen=True, kw_only=True):
    """Which policy judged, by id and by digest of its revision."""

    id: str
    revision: str


class ClockInfo(Reply, frozen=True, kw_only=True):
    """TPMS_CLOCK_INFO of the judged quote; `clock` in milliseconds."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


class Verdict(Reply, frozen=True, kw_only=True):
    """The stored result of one appraisal. After `valid_until` it says nothing of the present."""

    attester_id: Id
    sequence: int
    status: Tier
    vector: dict[str, int]
    findings: list[Finding]
    policy: PolicyRef | None = None
    evidence_sha256: str | None = None
    clock: ClockInfo | None = None
    boot_id: str | None = None
    judged_at: str
    """When its evidence came and was judged."""
    rejudged_at: str | None = None
    """When the same evidence was judged again, by a later policy; absent where it was not."""
    valid_until: str
    lifecycle: Literal["pending", "enrolled", "stale", "revoked", "retired"] = "enrolled"


class AttestationReply(Reply, frozen=True, kw_only=True):
    """The verdict, the next challenge, and how many seconds until it is due."""

    verdict: Verdict
    challenge: Challenge
    next_in: float
    ear: str | None = None
    ak_certificate: bytes | None = None
    """As in `ActivationReply`; the same one until the next verdict renews it."""
    ak_chain: list[bytes] = []


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem document; `code` is stable, `offset` counts bytes into `structure`."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    remedy: str = ""
    structure: str | None = None
    offset: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
