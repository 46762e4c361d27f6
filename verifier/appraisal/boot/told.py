"""What a boot log is told of quoted PCRs: the values of those it measures, and of the others whether they hold anything.

An IMA list moves its PCR with every file that runs, and no event of a boot log is about that PCR. What is concluded
from the log does not depend on such a value, and here it cannot: the log is held against what this module lets through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.appraisal.boot.explain import UKI_PCR
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import ParsedEventLog, initial_value
from verifier.tcg.userspace_log import UserspaceLog

_ALWAYS: Final = frozenset({0, UKI_PCR})
"""What these hold without any event follows from the log's locality, or from phases that no log tells of."""
_SOMETHING: Final = {bank: bytes((0x5A,)) * bank.size for bank in HashAlg}
"""Stands for whatever was extended: neither zeros nor ones, as PCRs are after a reset."""


def measured_pcrs(log: ParsedEventLog, userspace: UserspaceLog | None) -> frozenset[int]:
    """The PCRs whose values matter to what these logs prove. Follows from their bytes alone."""
    named = {event.pcr for event in log.events}
    if userspace is not None:
        named.update(event.pcr for event in userspace.events if event.pcr is not None)
    return _ALWAYS | named


def told_to_log(
    pcrs: Mapping[HashAlg, Mapping[int, bytes]], measured: frozenset[int]
) -> dict[HashAlg, Mapping[int, bytes]]:
    """The quoted PCRs with every value that does not matter replaced by one that says as much as does."""
    told: dict[HashAlg, Mapping[int, bytes]] = {}
    for bank, values in pcrs.items():
        told[bank] = known = dict(values)
        for pcr in known.keys() - measured:
            if known[pcr] != initial_value(pcr, bank):
                known[pcr] = _SOMETHING[bank]
    return told
