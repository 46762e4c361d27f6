"""A policy as it is registered and kept: YAML, or a signed envelope around YAML."""

from __future__ import annotations

from verifier.policy.dsse import PolicySigners, open_policy
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy


def parse_source(source: str | bytes, signers: PolicySigners | None = None) -> Policy:
    """The policy in `source`; its revision is the digest of the YAML, signed or not.

    With `signers` the result is proven to be one of theirs. Raises `PolicyError`: `policy-signature` where no accepted
    signature holds, `policy-invalid` where the policy must not be used.
    """
    raw = source.encode() if isinstance(source, str) else source
    return parse_policy(open_policy(raw, signers).payload)
