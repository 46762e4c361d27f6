"""A runtime reference that knows nothing: a list is proven and counted by it, and nothing is called good."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from verifier.policy.runtime.reference import Handling, Lookup, RuntimeOptions, SigningKey, Verdict
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType

_UNKNOWN: Final = Lookup(Verdict.UNKNOWN_PATH)

_ALLOWING: Final = RuntimeOptions(
    unknown_path=Handling.ALLOW,
    unknown_module=Handling.ALLOW,
    violations=Handling.ALLOW,
    unknown_key=Handling.ALLOW,
    policy_load=Handling.ALLOW,
    unknown_buffer=Handling.ALLOW,
)


@dataclass(frozen=True, slots=True)
class Nothing:
    """See the module. Its silence is a finding of its own, so single entries are not."""

    revision: bytes = b""
    options: RuntimeOptions = _ALLOWING

    def accepted(self, algorithm: HashAlg) -> Container[bytes]:
        """None."""
        del algorithm
        return frozenset()

    def file(self, path: str, algorithm: str, digest: bytes, digest_type: DigestType) -> Lookup:
        """Unknown."""
        del path, algorithm, digest, digest_type
        return _UNKNOWN

    def buffer(self, name: str, algorithm: str, digest: bytes) -> Lookup:
        """Unknown."""
        del name, algorithm, digest
        return _UNKNOWN

    def keys(self, key_id: bytes) -> tuple[SigningKey, ...]:
        """None."""
        del key_id
        return ()


NOTHING: Final = Nothing()
