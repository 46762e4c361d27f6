"""The state of an IMA list between two attestations survives the store, or is refused."""

from __future__ import annotations

import pytest

from verifier.appraisal.ima.state import INITIAL, ImaCounts, ImaState, ImaSummary
from verifier.errors import StoredDataDamaged
from verifier.findings import Finding, Severity, Status
from verifier.policy.runtime.reference import SigningKey
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ListEncoding
from verifier.tcg.ima.rules import BankRule

FULL = ImaState(
    count=383,
    main=10,
    offset=58247,
    encoding=ListEncoding("big", 32),
    aggregates={
        10: {HashAlg.SHA256: b"\x01" * 32, HashAlg.SHA1: b"\x02" * 20},
        11: {HashAlg.SHA256: b"\x03" * 32},
    },
    rules={HashAlg.SHA256: BankRule.PADDED_SHA1},
    revision=b"\xff" * 32,
    summary=ImaSummary(
        counts=ImaCounts(known=380, violations=2, boot_aggregates=1),
        unknown_modules=3,
        policy_loads=1,
        findings=(
            Finding(
                reason=Reason.PCR_MISMATCH,
                status=Status.FAILED,
                severity=Severity.CONTRAINDICATED,
                claim=Claim.EXECUTABLES,
                message="/var/tmp/näme",
                pcr=10,
                event_index=7,
            ),
        ),
        more={"pcr-mismatch": 2},
        learned=(SigningKey(b"\x00\x01\x02\xff", b"\x30\x82", "CN=x"),),
        more_worst=Severity.WARNING,
        aggregate=("sha256", b"\x05" * 32),
        boot_aggregate=True,
    ),
)


@pytest.mark.parametrize("state", [INITIAL, FULL], ids=["initial", "full"])
def test_a_state_survives_the_store(state: ImaState) -> None:
    assert ImaState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        FULL.to_json()[:-2],
        FULL.to_json().replace("sha256", "sha999"),
        FULL.to_json().replace("383", "x"),
    ],
    ids=["empty", "null", "object", "cut", "algorithm", "count"],
)
def test_a_damaged_state_is_our_fault_and_never_a_fresh_start(text: str) -> None:
    with pytest.raises(StoredDataDamaged, match="IMA state"):
        ImaState.from_json(text)


def test_another_revision_starts_over() -> None:
    assert FULL.usable(b"\xff" * 32)
    assert not FULL.usable(b"\xfe" * 32)
    assert INITIAL.usable(b"anything")
