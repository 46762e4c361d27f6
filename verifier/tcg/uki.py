"""Sections of a unified kernel image that systemd-stub measures (systemd, "TPM2 PCR Measurements")."""

from __future__ import annotations

from typing import Final

UKI_SECTIONS: Final = (
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".uname",
    ".sbat",
    ".pcrpkey",
    ".profile",
    ".dtbauto",
    ".hwids",
    ".efifw",
)
"""In the order in which the stub measures them."""
