"""Claims of what systemd measures from userspace: the machine, its disks, NvPCRs (docs/binding.md)."""

from __future__ import annotations

from typing import Final

from verifier.claims import UserspaceFacts
from verifier.policy.claim_entry import Kind, Value, View, claim, userspace
from verifier.policy.claim_readers import hexed, listed
from verifier.reasons import Claim
from verifier.tcg.userspace_text import IDENTITY_PCR, NVPCR_PCR

_INSTANCE: Final = (Claim.INSTANCE_IDENTITY, Claim.CONFIGURATION)
_NVPCR: Final = (Claim.CONFIGURATION, Claim.EXECUTABLES, Claim.HARDWARE)


def _volume_keys(view: View) -> Value | None:
    """Digests of PCR 15 without proven text, in the policy's bank."""
    found = None if view.boot is None else view.boot.details
    return None if found is None else hexed(key[view.bank] for key in found.userspace.volume_keys)


def _nvpcrs(facts: UserspaceFacts) -> Value:
    """NvPCR to its content."""
    return {name: each.value.hex() for name, each in facts.nvpcrs.items()}


def _nvpcr_texts(facts: UserspaceFacts) -> Value:
    """NvPCR to its texts, where all are proven."""
    return {name: list(each.texts) for name, each in facts.nvpcrs.items() if each.texts is not None}


USERSPACE: Final = (
    claim(
        "boot.machine_id",
        Kind.STRING,
        "The machine id that systemd measured, if nothing before it in PCR 15 could be another in disguise.",
        userspace(lambda facts: facts.machine_id),
        IDENTITY_PCR,
        speaks_for=_INSTANCE,
    ),
    claim(
        "boot.file_systems",
        Kind.STRINGS,
        "What systemd measured of file systems (`file-system:` with type, UUID, label and partition); complete, or not"
        " proven: an event of PCR 15 without proven text might be another.",
        userspace(lambda facts: listed(facts.file_systems)),
        IDENTITY_PCR,
        speaks_for=_INSTANCE,
    ),
    claim(
        "boot.volume_keys",
        Kind.STRINGS,
        "Digests of PCR 15 that no proven text explains: systemd-cryptsetup measures an HMAC under a volume's key.",
        _volume_keys,
        IDENTITY_PCR,
        speaks_for=(Claim.STORAGE_OPAQUE, Claim.INSTANCE_IDENTITY),
    ),
    claim(
        "boot.identity_texts",
        Kind.STRINGS,
        "All proven texts of PCR 15, in order. A running system can add to them, and hide one among"
        " `boot.volume_keys`: compare both.",
        userspace(lambda facts: list(facts.identity_texts)),
        IDENTITY_PCR,
        speaks_for=_INSTANCE,
    ),
    claim(
        "boot.nvpcrs",
        Kind.TEXT_MAP,
        "NvPCRs of systemd: name to certified content, of those whose start was measured into PCR 9 before systemd's"
        " separator.",
        userspace(_nvpcrs),
        NVPCR_PCR,
        speaks_for=_NVPCR,
    ),
    claim(
        "boot.nvpcr_texts",
        Kind.TEXTS_BY_NAME,
        "All texts measured into each NvPCR, in order (`product-id:`, `cryptsetup-keyslot:`, `verity:`, `login:`); only"
        " of those where all are proven.",
        userspace(_nvpcr_texts),
        NVPCR_PCR,
        speaks_for=_NVPCR,
    ),
    claim(
        "boot.product_id",
        Kind.STRING,
        "The machine's UUID in the NvPCR `hardware`: 32 hexadecimal digits, or `missing`.",
        userspace(lambda facts: facts.product_id),
        NVPCR_PCR,
        speaks_for=(Claim.INSTANCE_IDENTITY, Claim.HARDWARE),
    ),
)
