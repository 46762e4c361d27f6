"""TSS2 response codes in words: which of our errors one is, and what to do about it.

Codes: TPM 2.0 Library Specification, Part 2, section 6.6 (TPM_RC); layers: TCG TSS 2.0 Overview, section 3.
"""

from __future__ import annotations

from typing import Final

from agent.errors import NoTpmError, TpmAuthError, TpmBusyError, TpmError, TpmLockoutError

_LAYER_MASK: Final = 0xFF0000
_TCTI_LAYER: Final = 0x0A0000
_CODE_MASK: Final = 0xFFFF
_FORMAT_ONE: Final = 0x080
_FORMAT_ONE_CODE: Final = 0x0BF
"""Format-one codes carry a parameter, session or handle number in the other bits."""

_LOCKOUT: Final = 0x921
_INITIALIZE: Final = 0x100
_OUT_OF_SLOTS: Final = frozenset({0x902, 0x903, 0x904})  # object, session, memory
_NOT_NOW: Final = frozenset({0x908, 0x90A, 0x920, 0x922})  # yielded, testing, NV rate, retry
_AUTH: Final = frozenset({0x08E, 0x0A2})  # auth fail, bad auth
_HIERARCHY: Final = 0x085


def explain(rc: int, doing: str, text: str) -> TpmError:
    """The error for response code `rc`, met while `doing`."""
    code = rc & _CODE_MASK
    if rc & _LAYER_MASK == _TCTI_LAYER:
        return NoTpmError(
            f"{doing}: lost contact with the TPM: {text}", "check that the TPM or simulator still runs", rc=rc
        )
    if code == _LOCKOUT:
        return TpmLockoutError(
            f"{doing}: the TPM is in lockout after too many failed authorisations",
            "wait until its recovery time has passed, or reset it: `tpm2_dictionarylockout --clear-lockout`; then "
            "find the program that keeps using a wrong password",
            rc=rc,
        )
    if code in _OUT_OF_SLOTS:
        return TpmBusyError(
            f"{doing}: the TPM has no free slot",
            "another program leaves objects or sessions in the TPM: use /dev/tpmrm0, or `tpm2_flushcontext -t -s -l`",
            rc=rc,
        )
    if code in _NOT_NOW:
        return TpmBusyError(f"{doing}: the TPM is busy: {text}", "try again in a few seconds", rc=rc)
    if code == _INITIALIZE:
        return TpmError(
            f"{doing}: the TPM was not started", "run `tpm2_startup -c`, or reboot this machine", rc=rc
        )
    return _format_one(rc, code, doing, text)


def _format_one(rc: int, code: int, doing: str, text: str) -> TpmError:
    number = code & _FORMAT_ONE_CODE if code & _FORMAT_ONE else 0
    if number in _AUTH:
        return TpmAuthError(
            f"{doing}: authorisation refused",
            "the endorsement hierarchy seems to have a password (Windows and some tools set one): clear it with "
            "`tpm2_changeauth -c endorsement -p OLD`",
            rc=rc,
        )
    if number == _HIERARCHY:
        return TpmAuthError(
            f"{doing}: the endorsement hierarchy is switched off",
            "enable it in the firmware, then reboot",
            rc=rc,
        )
    return TpmError(f"{doing}: {text} ({rc:#x})", "look the code up with `tpm2_rc_decode`", rc=rc)
