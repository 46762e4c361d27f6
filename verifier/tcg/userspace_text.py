"""The strings systemd measures from userspace, and what they say (systemd, "TPM2 PCR Measurements Made by systemd").

Only proven text is to be read here; systemd's own `eventType` is a label.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from verifier.tcg.algorithms import HASH_BY_ID, HASH_BY_LABEL, HashAlg

IDENTITY_PCR: Final = 15
NVPCR_PCR: Final = 9
"""Where the start of every NvPCR is measured."""
MACHINE_ID: Final = "machine-id"
FILE_SYSTEM: Final = "file-system"
PRODUCT_ID: Final = "product-id"
NVPCR_INIT: Final = "nvpcr-init"
NVPCR_SEPARATOR: Final = "nvpcr-separator"
OS_SEPARATOR: Final = "os-separator"
_PREFIXES: Final = (MACHINE_ID, FILE_SYSTEM, PRODUCT_ID, NVPCR_INIT, "cryptsetup-keyslot", "verity", "login")
_WORDS: Final = (NVPCR_SEPARATOR, OS_SEPARATOR)
NAMES: Final = frozenset((*_PREFIXES, *_WORDS))
"""What `kind_of` can say: the names that events of systemd can have."""

_MACHINE_ID: Final = re.compile(r"machine-id:([0-9a-f]{32})")
_PRODUCT_ID: Final = re.compile(r"product-id:([0-9a-f]{32}|missing)")
_INIT: Final = re.compile(r"nvpcr-init:([A-Za-z0-9_.-]{1,64}):0x([0-9a-f]{1,8}):(.+)", re.DOTALL)
_ANCHOR: Final = re.compile(r"([a-z0-9_]{3,16}):([0-9a-f]{40,128})")
_NAME: Final = re.compile(r"([0-9a-f]{4})([0-9a-f]{40,128})")


def kind_of(text: str) -> str | None:
    """Which of systemd's measurements this is, by its text; None for a boot phase or a string nobody knows."""
    if text in _WORDS:
        return text
    prefix, colon, _ = text.partition(":")
    return prefix if colon and prefix in _PREFIXES else None


def machine_id(text: str) -> str | None:
    """The id of `machine-id:...`, 32 lower-case hexadecimal digits."""
    found = _MACHINE_ID.fullmatch(text)
    return None if found is None else found[1]


def product_id(text: str) -> str | None:
    """The UUID of `product-id:...` without hyphens, or `missing` where the firmware gives none."""
    found = _PRODUCT_ID.fullmatch(text)
    return None if found is None else found[1]


class NvPcrStart(NamedTuple):
    """How an NvPCR began, as measured into PCR 9.

    Attributes:
        name: systemd's name for it.
        handle: NV index.
        bank: algorithm of its digests.
        value: content it began with.
        index_name: Name of the index (systemd 262 and later); None where the start is a value nobody else can make
            (259 to 261: an HMAC under a secret of the machine).
    """

    name: str
    handle: int
    bank: HashAlg
    value: bytes
    index_name: bytes | None


def nvpcr_start(text: str) -> NvPcrStart | None:
    """Read `nvpcr-init:NAME:0xINDEX:...`; None where it is something else or of an unknown algorithm."""
    found = _INIT.fullmatch(text)
    if found is None:
        return None
    name, index, rest = found[1], int(found[2], 16), found[3]
    anchor = _ANCHOR.fullmatch(rest)
    if anchor is not None:
        bank, value = HASH_BY_LABEL.get(anchor[1]), bytes.fromhex(anchor[2])
        usable = bank is not None and bank.new is not None and len(value) == bank.size
        return NvPcrStart(name, index, bank, value, None) if usable and bank is not None else None
    named = _NAME.fullmatch(rest)
    bank = None if named is None else HASH_BY_ID.get(int(named[1], 16))
    if named is None or bank is None or bank.new is None or len(named[2]) != 2 * bank.size:
        return None
    # The first write extends zeros into zeros: what matters is who could do it, and the Name says that.
    return NvPcrStart(name, index, bank, bank.digest(bytes(2 * bank.size)), bytes.fromhex(rest))
