"""TPM algorithm identifiers (TCG Algorithm Registry, rev 01.34, section 6.10 `TPM_ALG_ID`)."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Final


def _from_openssl(label: str) -> Callable[..., Any] | None:
    """A constructor for what `hashlib` has no function for, or None where OpenSSL lacks it too."""
    name = label.removesuffix("_256")
    return functools.partial(hashlib.new, name) if name in hashlib.algorithms_available else None


class HashAlg(enum.Enum):
    """A hash algorithm: its registry id, digest size in bytes and `hashlib` name."""

    SHA1 = (0x0004, 20, "sha1")
    SHA256 = (0x000B, 32, "sha256")
    SHA384 = (0x000C, 48, "sha384")
    SHA512 = (0x000D, 64, "sha512")
    SM3_256 = (0x0012, 32, "sm3_256")
    SHA3_256 = (0x0027, 32, "sha3_256")
    SHA3_384 = (0x0028, 48, "sha3_384")
    SHA3_512 = (0x0029, 64, "sha3_512")

    def __init__(self, tpm_id: int, size: int, label: str) -> None:
        self.tpm_id = tpm_id
        self.size = size
        self.label = label
        # SM3 depends on how OpenSSL was built; its absence must surface as unsupported, never as a pass.
        self.new: Callable[..., Any] | None = getattr(hashlib, label, None) or _from_openssl(label)

    # Members are singletons; Enum's own hash is a Python call on every dictionary access.
    __hash__ = object.__hash__

    def digest(self, data: bytes) -> bytes:
        """Digest of `data`; raises `ValueError` where this build lacks the algorithm."""
        if self.new is None:
            raise ValueError(f"{self.label} is not available in this build")
        result: bytes = self.new(data).digest()
        return result


HASH_BY_ID: Final[dict[int, HashAlg]] = {alg.tpm_id: alg for alg in HashAlg}
HASH_BY_LABEL: Final[dict[str, HashAlg]] = {alg.label: alg for alg in HashAlg}

TPM_ALG_RSA: Final = 0x0001
TPM_ALG_AES: Final = 0x0006
TPM_ALG_KEYEDHASH: Final = 0x0008
TPM_ALG_NULL: Final = 0x0010
TPM_ALG_RSASSA: Final = 0x0014
TPM_ALG_RSAES: Final = 0x0015
TPM_ALG_RSAPSS: Final = 0x0016
TPM_ALG_OAEP: Final = 0x0017
TPM_ALG_ECDSA: Final = 0x0018
TPM_ALG_ECC: Final = 0x0023
TPM_ALG_SYMCIPHER: Final = 0x0025
TPM_ALG_CFB: Final = 0x0043
