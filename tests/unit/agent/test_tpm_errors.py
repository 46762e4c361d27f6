"""Response codes in words; numbers from TPM 2.0 Part 2, section 6.6."""

from __future__ import annotations

import pytest

from agent.errors import NoTpmError, TpmAuthError, TpmBusyError, TpmError, TpmLockoutError
from agent.tpm_errors import explain


@pytest.mark.parametrize(
    ("rc", "kind", "remedy"),
    [
        (0x921, TpmLockoutError, "tpm2_dictionarylockout"),
        (0x902, TpmBusyError, "/dev/tpmrm0"),
        (0x903, TpmBusyError, "flushcontext"),
        (0x908, TpmBusyError, "try again"),
        (0x922, TpmBusyError, "try again"),
        (0x100, TpmError, "tpm2_startup"),
        (0x98E, TpmAuthError, "tpm2_changeauth"),
        (0x9A2, TpmAuthError, "tpm2_changeauth"),
        (0x185, TpmAuthError, "firmware"),
        (0xA000A, NoTpmError, "still runs"),
        (0x1C4, TpmError, "tpm2_rc_decode"),
        (0x70001, TpmError, "tpm2_rc_decode"),
    ],
)
def test_each_code_has_its_kind_and_its_way_out(rc, kind, remedy):
    error = explain(rc, "quoting", "text of the library")
    assert type(error) is kind
    assert remedy in error.remedy
    assert error.message.startswith("quoting: ")
    assert error.rc == rc
    assert error.transient is (kind in {TpmLockoutError, TpmBusyError})
