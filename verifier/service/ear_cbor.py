"""The CBOR form of EAR claims: integer labels instead of names (draft-ietf-rats-ear, section 3; RFC 9711, section 10.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.reasons import Claim

LABELS: Final[Mapping[str, int]] = {
    "iss": 1,
    "sub": 2,
    "aud": 3,
    "exp": 4,
    "iat": 6,
    "eat_nonce": 10,
    "eat_profile": 265,
    "submods": 266,
    "ear_status": 1000,
    "ear_trustworthiness_vector": 1001,
    "ear_appraisal_policy_ids": 1003,
    "ear_verifier_id": 1004,
}
_VERIFIER_ID: Final = {"developer": 0, "build": 1}
_VECTOR: Final = {claim.value: number for number, claim in enumerate(Claim)}
"""AR4SI section 4: the claims' numbers are their order."""


def cwt_claims(claims: Mapping[str, object]) -> dict[object, object]:
    """Claims of the current profile with their labels; private ones keep their names. `eat_nonce` becomes the text's bytes."""
    found: dict[object, object] = {}
    for name, value in claims.items():
        found[LABELS.get(name, name)] = _value(name, value)
    return found


def _value(name: str, value: object) -> object:
    match name, value:
        case "eat_nonce", str():
            return value.encode()
        case "submods", Mapping():
            return {part: cwt_claims(appraisal) for part, appraisal in value.items()}
        case "ear_verifier_id", Mapping():
            return {_VERIFIER_ID[key]: text for key, text in value.items()}
        case "ear_trustworthiness_vector", Mapping():
            return {_VECTOR[key]: number for key, number in value.items()}
        case _:
            return value
