"""Bytes to `Certificate`: `cryptography` first, asn1crypto for what it refuses."""

from __future__ import annotations

import functools

from verifier.crypto.certificate import Certificate
from verifier.crypto.der import open_envelope
from verifier.crypto.lenient import read_lenient
from verifier.crypto.strict import NotStrictError, read_strict


def parse_certificate(der: bytes) -> Certificate:
    """Parse one DER certificate, without padding. Proves nothing but that it can be read.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED: neither reader takes it.
    """
    envelope = open_envelope(der)
    try:
        return read_strict(envelope)
    except NotStrictError as refusal:
        return read_lenient(envelope, str(refusal))


@functools.lru_cache(maxsize=256)
def parse_authority(der: bytes) -> Certificate:
    """`parse_certificate`, remembered: a fleet's TPMs send the same few intermediates again and again."""
    return parse_certificate(der)
