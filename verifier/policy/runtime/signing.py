"""Signed runtime sets: a DSSE envelope beside the set, around a statement that names it by its digest.

The set itself is not in the envelope: it may be large, and its SHA-256 stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from verifier.errors import PolicyError
from verifier.policy.dsse import Envelope, PolicySigners, PrivateKey, cosign, parse_envelope, verify
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.writing import digest_of
from verifier.reasons import Reason

PAYLOAD_TYPE: Final = "application/vnd.vtpm-attest.runtime-set.v1+json"
_SCHEMA: Final = "vtpm-attest/runtime-set-statement/1"


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is signed."""

    schema: str = _SCHEMA
    name: str
    sha256: str
    entries: int


def sign_set(runtime_set: RuntimeSet, keys: Iterable[PrivateKey]) -> bytes:
    """An envelope that vouches for the set, with a signature by every key."""
    statement = Statement(name=runtime_set.head.name, sha256=digest_of(runtime_set), entries=len(runtime_set))
    return cosign(Envelope(msgspec.json.encode(statement), PAYLOAD_TYPE, ()), keys)


def verify_set(runtime_set: RuntimeSet, envelope: bytes, signers: PolicySigners) -> tuple[str, ...]:
    """Key ids of the signers that vouch for exactly this set.

    Proven on return: one of them signed its digest as that of a runtime set. Not proven: that it is their latest.

    Raises:
        PolicyError: no envelope; (`policy-signature`) none of the signers signed it, or they signed another set.
    """
    read = parse_envelope(envelope)
    if read.payload_type != PAYLOAD_TYPE:
        raise PolicyError(f"payloadType is {read.payload_type!r}, not {PAYLOAD_TYPE!r}", where="DSSE")
    valid = verify(read, signers)
    try:
        statement = msgspec.json.decode(read.payload, type=Statement)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PolicyError(f"not a statement about a runtime set: {error}", where="DSSE") from error
    digest = digest_of(runtime_set)
    if statement.schema != _SCHEMA or statement.sha256 != digest:
        raise PolicyError(
            f"the signature is for {statement.name} {statement.sha256[:64]}, this is {digest}",
            where="DSSE",
            reason=Reason.POLICY_SIGNATURE,
        )
    return valid
