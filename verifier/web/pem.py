"""Certificates as people and tools keep them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Final

PEM_CHAIN: Final = "application/pem-certificate-chain"
"""RFC 8555, section 9.1: PEM, each certificate certified by the one behind it."""


def pem_chain(certificates: Iterable[bytes]) -> bytes:
    """DER certificates, one PEM block after another."""
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in certificates).encode()
