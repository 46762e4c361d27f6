"""A TPM 2.0 in Python that really signs and really activates, for speed and for hostile cases.

It marshals, derives and decrypts with code of its own (and `cryptography`'s, where there is a choice), so
that it agrees with `verifier` only where both follow the specification. What it is not: a TPM. It has no
command interface, no authorization, no sessions, and a private key is an attribute away.

`SoftwareTpm(seed)` is a machine: everything about it follows from the seed, but RSA keys, which are made once
per process and seed.
"""

from tests.simulator.ca import SoftwareCa
from tests.simulator.keys import (
    ECC_AK,
    ECC_EK,
    GOOD_AK_ATTRIBUTES,
    GOOD_EK_ATTRIBUTES,
    RSA_AK,
    RSA_EK,
    AkProfile,
    AttestationKey,
    EkProfile,
)
from tests.simulator.tpm import Clock, SoftwareTpm, Tamper, TpmRefusal, parse_log

__all__ = [
    "ECC_AK",
    "ECC_EK",
    "GOOD_AK_ATTRIBUTES",
    "GOOD_EK_ATTRIBUTES",
    "RSA_AK",
    "RSA_EK",
    "AkProfile",
    "AttestationKey",
    "Clock",
    "EkProfile",
    "SoftwareCa",
    "SoftwareTpm",
    "Tamper",
    "TpmRefusal",
    "parse_log",
]
