"""The messages by which an agent asks for a secret: evidence of now goes with the question, the verdict with the answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from agent.wire import limits
from agent.wire.messages import AttestationReply, AttestationRequest, Message, Reply

SecretName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Point = Annotated[bytes, Meta(min_length=65, max_length=65)]
"""Of P-256, uncompressed (SEC 1, section 2.3.3)."""


class ReleaseRequest(Message, frozen=True, kw_only=True):
    """Ask for a secret, with evidence of now."""

    evidence: AttestationRequest
    """As for an attestation, but the quote and all that is certified with it are over
    SHA-256("vtpm-attest secret asked v1" || 0x00 || `evidence.nonce` || `reply_key` || name of the secret)."""
    reply_key: Point
    """An ephemeral key of the one who asks: the answer can be read only with its private half."""


class ReleaseReply(Reply, frozen=True, kw_only=True):
    """The secret, for the TPM and the process that asked, and the verdict it was released on.

    AES-256-GCM with a nonce of zeros, `context` as associated data and the key
    HKDF-SHA256(salt none, input credential secret || ECDH(`reply_key`, `verifier_key`), info `context`), where `context` is
    SHA-256("vtpm-attest secret answered v1" || 0x00 || what was quoted || `verifier_key` || sequence of the verdict (u64) ||
    `revision` (u64) || attester id).
    """

    attestation: AttestationReply
    revision: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    """Of the secret: it counts the times it was put."""
    credential_blob: bytes
    """TPM2B_ID_OBJECT, size prefix included: its secret is half of the key."""
    encrypted_secret: bytes
    """TPM2B_ENCRYPTED_SECRET, size prefix included."""
    verifier_key: Point
    ciphertext: Annotated[bytes, Meta(min_length=17, max_length=limits.MAX_SECRET + 16)]
    """The tag at its end."""
