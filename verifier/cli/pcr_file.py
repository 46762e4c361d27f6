"""PCR values from a file: JSON, or what `tpm2_pcrread` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

MAX_FILE: Final = 128 * 1024 * 1024
"""Bytes; a bundle of `collect` is such a file."""
_BANK: Final = re.compile(r"^\s*(sha1|sha256|sha384|sha512|sm3_256)\s*:\s*$")
_VALUE: Final = re.compile(r"^\s*(\d{1,2})\s*:\s*(?:0x)?([0-9A-Fa-f]+)\s*$")
Pcrs = dict[HashAlg, dict[int, bytes]]


def read_pcrs(path: Path) -> Pcrs:
    """Values per bank.

    JSON is `{"sha256": {"0": "hex", ...}, ...}`, by itself or under `pcrs` as in a bundle of `attest-agent collect`; an
    evidence folder has it in its `pcrs.json`. Anything else is read as output of `tpm2_pcrread`.

    Raises `EvidenceError` naming the file and what is wrong with it.
    """
    file = path / "pcrs.json" if path.is_dir() else path
    try:
        if file.stat().st_size > MAX_FILE:
            raise _bad(file, f"is larger than {MAX_FILE} bytes")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(file, getattr(error, "strerror", None) or str(error)) from error
    banks = _json(file, text) if text.lstrip().startswith("{") else dict(_lines(text))
    pcrs = {bank: _values(file, bank, values) for bank, values in banks.items() if values}
    if not pcrs:
        raise _bad(file, "has no PCR values: neither JSON of banks nor output of tpm2_pcrread")
    return pcrs


def _bad(path: Path, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=path.name)


def _json(path: Path, text: str) -> dict[HashAlg, Mapping[str, Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is not JSON: {error}") from error
    banks = document.get("pcrs", document)
    if not isinstance(banks, dict):
        raise _bad(path, "'pcrs' is not an object of banks")
    return {
        HASH_BY_LABEL[name]: values
        for name, values in banks.items()
        if name in HASH_BY_LABEL and isinstance(values, dict)
    }


def _lines(text: str) -> Iterator[tuple[HashAlg, dict[str, str]]]:
    """Banks, each followed by its values; a bank that is switched off has none."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if bank := _BANK.match(line):
            values = {}
            if bank[1] in HASH_BY_LABEL:
                yield HASH_BY_LABEL[bank[1]], values
        elif value := _VALUE.match(line):
            values[value[1]] = value[2]


def _values(path: Path, bank: HashAlg, values: Mapping[str, Any]) -> dict[int, bytes]:
    result: dict[int, bytes] = {}
    for index, value in values.items():
        try:
            pcr, digest = int(index), bytes.fromhex(value)
        except (TypeError, ValueError):
            raise _bad(path, f"{bank.label} PCR {index!r} is not hexadecimal") from None
        if len(digest) != bank.size:
            raise _bad(path, f"{bank.label} PCR {pcr} has {len(digest)} bytes, not {bank.size}")
        result[pcr] = digest
    return result
