"""What `attestctl ima` shows of a list: PURE, and nothing in it is proven by a TPM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.boot_aggregate import Aggregate, check_aggregate, is_boot_aggregate
from verifier.tcg.ima.entry import ByteOrder, ImaEntry, ImaFormatError, ListEncoding, shown
from verifier.tcg.ima.parse import decode_entry, fits, is_ascii, to_binary
from verifier.tcg.ima.replay import Route, Scan, replay
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.walk import detect_encoding, walk

Quoted = Mapping[HashAlg, Mapping[int, bytes]]
BANKS: Final = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
_SHOWN_MISFITS: Final = 20


def explain_ima(data: bytes, pcrs: Quoted | None = None) -> dict[str, Any]:
    """Parse and replay a list of either form; with `pcrs`, find the part of it that leads to them.

    `pcrs` of the document are what the whole list leads to in a kernel that extends each bank's own hash, `padded_pcrs`
    in one before Linux 5.8 that pads SHA-1. `leads_to` says per bank after how many entries the given value is reached.

    Raises:
        ImaFormatError: no IMA list. One that ends inside an entry is shown up to there, with a finding.
    """
    binary = to_binary(data)
    encoding = detect_encoding(binary) if binary else ListEncoding()
    entries, cut = _entries(binary, encoding)
    order = encoding.byte_order
    findings = _findings(entries, order)
    if cut is not None:
        findings.append(_finding(Reason.IMA_LIST_CUT, cut.detail, cut.entry))
    leads = None if pcrs is None else [_leads(binary, encoding, entries, bank, pcrs) for bank in _given(pcrs)]
    aggregates = [_aggregate(one, pcrs) for one in entries if is_boot_aggregate(one)]
    return {
        "format": "ascii" if is_ascii(data) else "binary",
        "byte_order": order,
        "template": "+".join(sorted({one.template_name for one in entries})) or None,
        "entries": len(entries),
        "pcrs": _values(entries, BankRule.OWN_HASH, order),
        "padded_pcrs": _values(entries, BankRule.PADDED_SHA1, order),
        "violations": sum(one.is_violation for one in entries),
        "boot_aggregate": aggregates[0]["digest"] if aggregates else None,
        "boot_aggregates": aggregates,
        "digest_algorithms": sorted({one.fields.algorithm for one in entries if one.fields.algorithm}),
        "signed": sum(bool(one.fields.signature) for one in entries),
        "leads_to": leads,
        "findings": findings,
        "measurements": [_measurement(one) for one in entries],
    }


def _entries(binary: bytes, encoding: ListEncoding) -> tuple[list[ImaEntry], ImaFormatError | None]:
    entries: list[ImaEntry] = []
    try:
        for index, raw in enumerate(walk(binary, encoding)):
            entries.append(decode_entry(raw, index, encoding.byte_order))
    except ImaFormatError as error:
        if not error.cut or not entries:
            raise
        return entries, error
    return entries, None


def _values(entries: Sequence[ImaEntry], rule: BankRule, order: ByteOrder) -> dict[str, dict[str, str]]:
    banks = [bank for bank in BANKS if rule is BankRule.OWN_HASH or bank is not HashAlg.SHA1]
    return {
        bank.label: {
            str(pcr): value.hex() for pcr, value in sorted(replay(entries, bank, rule, order).items())
        }
        for bank in banks
    }


def _given(pcrs: Quoted) -> list[HashAlg]:
    return [bank for bank in pcrs if bank.new is not None]


def _leads(
    binary: bytes, encoding: ListEncoding, entries: Sequence[ImaEntry], bank: HashAlg, pcrs: Quoted
) -> dict[str, Any]:
    """Whether and after how many entries the list reaches the bank's value of its first entry's PCR."""
    main = entries[0].pcr if entries else 10
    answer: dict[str, Any] = {"bank": bank.label, "pcr": main, "after_entries": None, "rule": None}
    if main not in pcrs[bank]:
        return answer | {"given": False}
    for rule in BankRule if bank is not HashAlg.SHA1 else (BankRule.OWN_HASH,):
        scan = Scan(binary, encoding, Route(bank, rule, {}, pcrs[bank], main))
        while not scan.advance(len(entries) + 1):
            pass
        if scan.found:
            return answer | {"given": True, "after_entries": scan.index, "rule": rule.value}
    return answer | {"given": True}


def _aggregate(entry: ImaEntry, pcrs: Quoted | None) -> dict[str, Any]:
    result = (
        Aggregate.UNCHECKABLE
        if pcrs is None
        else check_aggregate(entry.fields.algorithm or "", entry.fields.digest or b"", (pcrs,))
    )
    digest = (entry.fields.digest or b"").hex()
    return {"index": entry.index, "digest": f"{entry.fields.algorithm}:{digest}", "pcrs": result.value}


def _findings(entries: Sequence[ImaEntry], order: ByteOrder) -> list[dict[str, Any]]:
    """What is odd about the list itself."""
    misfits = [one for one in entries if not one.is_violation and not fits(one, order)]
    findings = [
        _finding(
            Reason.IMA_TEMPLATE_DIGEST,
            f"{_name(one)}: the template digest is not that of the template data",
            one.index,
        )
        for one in misfits[:_SHOWN_MISFITS]
    ]
    if len(misfits) > _SHOWN_MISFITS:
        findings.append(
            _finding(Reason.IMA_TEMPLATE_DIGEST, f"and {len(misfits) - _SHOWN_MISFITS} more", None)
        )
    counts = Counter(_name(one) for one in entries if one.is_violation)
    findings += [
        _finding(
            Reason.IMA_VIOLATION, f"{count} violation(s) of {name}; the PCR does not cover the name", None
        )
        for name, count in counts.items()
    ]
    return findings


def _finding(code: Reason, message: str, index: int | None) -> dict[str, Any]:
    return {"code": code.value, "message": message} | ({} if index is None else {"event_index": index})


def _name(entry: ImaEntry) -> str:
    return shown(entry.fields.path or "(no name)")


def _measurement(entry: ImaEntry) -> dict[str, Any]:
    fields = entry.fields
    one: dict[str, Any] = {
        "index": entry.index,
        "pcr": entry.pcr,
        "template": entry.template_name,
        "path": None if fields.path is None else shown(fields.path),
        "digest": None if fields.digest is None else f"{fields.algorithm}:{fields.digest.hex()}",
    }
    if entry.is_violation:
        one["violation"] = True
    if fields.digest_type.value != "ima":
        one["digest_type"] = fields.digest_type.value
    for key, raw in (("signature", fields.signature), ("buffer", fields.buffer), ("modsig", fields.modsig)):
        if raw:
            one[key] = raw.hex()
    return one
