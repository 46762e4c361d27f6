"""A boot log as (pcr, type, digests, data), by the two layouts of the TCG PC Client Platform Firmware Profile."""

from __future__ import annotations

import struct

from verifier.tcg.algorithms import HASH_BY_ID, HashAlg

EV_NO_ACTION = 3


def parse_log(log: bytes) -> list[tuple[int, int, dict[HashAlg, bytes], bytes]]:
    """Every event of a well-formed log in order, SHA-1 layout or crypto-agile."""
    events = []
    pcr, kind, digest, data, offset = _legacy_event(log, 0)
    events.append((pcr, kind, {HashAlg.SHA1: digest}, data))
    agile = data.startswith(b"Spec ID Event03\0")
    while offset < len(log):
        if agile:
            pcr, kind, digests, data, offset = _agile_event(log, offset)
        else:
            pcr, kind, digest, data, offset = _legacy_event(log, offset)
            digests = {HashAlg.SHA1: digest}
        events.append((pcr, kind, digests, data))
    return events


def _legacy_event(log: bytes, offset: int):
    pcr, kind, digest, size = struct.unpack_from("<II20sI", log, offset)
    end = offset + 32 + size
    return pcr, kind, digest, log[offset + 32 : end], end


def _agile_event(log: bytes, offset: int):
    pcr, kind, count = struct.unpack_from("<III", log, offset)
    offset += 12
    digests = {}
    for _ in range(count):
        alg = HASH_BY_ID[struct.unpack_from("<H", log, offset)[0]]
        digests[alg] = log[offset + 2 : offset + 2 + alg.size]
        offset += 2 + alg.size
    (size,) = struct.unpack_from("<I", log, offset)
    end = offset + 4 + size
    return pcr, kind, digests, log[offset + 4 : end], end
