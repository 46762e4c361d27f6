"""`attestctl ek check`: judge EK certificates offline, with the very code that enrolment runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.certificate import Certificate
from verifier.crypto.ek import ValidatedEk, validate_ek
from verifier.crypto.nv_content import unwrap
from verifier.crypto.profile import read_profile
from verifier.errors import EvidenceError, MalformedInputError, VtpmAttestError
from verifier.inventory.anchor_files import AnchorCollection, read_anchors
from verifier.tcg.public import Public, parse_public

EXIT_REFUSED: Final = 2
_PRESENT: Final = {True: "present", False: "absent"}
MAX_FILE: Final = 1024 * 1024
"""Bytes of a certificate file; an EK certificate with its chain is a few KB."""


def check(
    certs: list[Path],
    *,
    anchors: Path,
    crls: Path | None = None,
    public: Path | None = None,
    at: datetime | None = None,
    json: bool = False,
) -> int:
    """Check EK certificates: chain, dates, profile, manufacturer. Exit code: 0 all trusted, 2 any refused.

    A trusted certificate says which TPM maker vouches for a key. It does not prove that any machine holds
    that key: enrolment does.

    Examples:
        attestctl ek check policies/evidence/uki-sb-on/ek_rsa_cert.der --anchors policies/evidence/ca

        attestctl ek check ek.pem --anchors download.zip --json

        attestctl ek check ek.der --anchors download.zip --public ek.pub

    Args:
        certs: certificate files, DER as read from NV or PEM; further certificates of a file help its first.
        anchors: folder, PEM, DER, VMCA download.zip or TrustedTpm.cab with the CAs to trust.
        crls: file or folder with revocation lists, besides those among the anchors.
        public: the TPM's own EK (TPM2B_PUBLIC, as `tpm2_createek -u` writes it): every certificate has to be for it.
        at: judge as of this time (RFC 3339); now by default.
        json: print one JSON document.
    """
    try:
        trusted = read_anchors(anchors)
        if not len(trusted.anchors):
            raise MalformedInputError(str(anchors), 0, "no usable trust anchor in there")
        lists = (*trusted.crls, *(read_anchors(crls).crls if crls else ()))
        ek = parse_public(_read(public)) if public else None
        inputs = [(path, _read(path)) for path in certs]
    except (OSError, VtpmAttestError) as error:
        output.fail(error)
    now = _utc(at) if at else output.utcnow()
    rules = _Rules(trusted.anchors, lists, ek, now)
    results = [_check_one(path.name, bundle, rules) for path, bundle in inputs]
    if json:
        output.print_json(_document(results, trusted, now))
    else:
        _show(results, trusted)
    return 0 if all(result["trusted"] for result in results) else EXIT_REFUSED


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise MalformedInputError(str(path), 0, f"more than {MAX_FILE} bytes: not a certificate")
    return data


@dataclass(frozen=True, slots=True)
class _Rules:
    """What certificates are held against."""

    anchors: TrustAnchors
    crls: tuple[bytes, ...]
    ek: Public | None
    now: datetime


def _check_one(name: str, data: bytes, rules: _Rules) -> dict[str, object]:
    try:
        certificate, *helpers = split_bundle(data)
    except EvidenceError as error:
        return {"file": name} | _refusal(error)
    try:
        valid = validate_ek(
            certificate,
            intermediates=helpers,
            anchors=rules.anchors,
            crls=rules.crls,
            ek_public=rules.ek,
            now=rules.now,
        )
    except EvidenceError as error:
        return {"file": name} | _refusal(error) | _unproven(certificate)
    facts = _facts(parse_certificate(valid.certificate))
    return {"file": name, "trusted": True} | facts | _proven(valid, matched=rules.ek is not None)


def _refusal(error: EvidenceError) -> dict[str, object]:
    return {
        "trusted": False,
        "code": error.reason.value,
        "message": str(error),
        "remedy": error.reason.entry.remedy,
    }


def _unproven(data: bytes) -> dict[str, object]:
    """What a refused certificate says, if it can be read: for people who look for the cause."""
    try:
        certificate = parse_certificate(unwrap(data).der)
        facts = _facts(certificate)
        if certificate.key is not None:
            facts["profile"] = read_profile(certificate, certificate.key).as_mapping()
    except EvidenceError:
        return {}
    return facts


def _facts(certificate: Certificate) -> dict[str, object]:
    return {
        "subject": certificate.subject_text,
        "issuer": certificate.issuer_text,
        "serial": f"{certificate.serial:x}",
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "certificate_sha256": certificate.fingerprint.hex(),
        "key_fingerprint": certificate.key_fingerprint.hex(),
    }


def _proven(valid: ValidatedEk, *, matched: bool) -> dict[str, object]:
    return {
        "key_matches": True if matched else None,
        "revocation": valid.revocation.value,
        "profile": valid.profile.as_mapping(),
        "chain": [parse_certificate(der).subject_text for der in valid.chain],
        "anchor_sha256": valid.anchor.hex(),
        "expires_at": valid.expires_at.isoformat(),
    }


def _document(
    results: list[dict[str, object]], trusted: AnchorCollection, now: datetime
) -> dict[str, object]:
    return {
        "trusted": all(result["trusted"] for result in results),
        "at": now.isoformat(),
        "certificates": results,
        "anchors": {
            "count": len(trusted.anchors),
            "sha256": trusted.anchors.digest.hex(),
            "rejected": [
                {"source": one.source, "subject": one.subject, "problem": one.problem}
                for one in trusted.rejected
            ],
        },
    }


def _show(results: Iterable[Mapping[str, object]], trusted: AnchorCollection) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "certificate", "TPM", "what was found"):
        table.add_column(column, overflow="fold")
    for result in results:
        mark = "[green]ok[/]" if result["trusted"] else "[red]FAIL[/]"
        table.add_row(mark, escape(str(result["file"])), _tpm_text(result), _verdict_text(result))
    output.out.print(table)
    output.out.print(f"[dim]{len(trusted.anchors)} trust anchors[/]")
    for one in trusted.rejected:
        output.err.print(f"[yellow]not used as an anchor:[/] {escape(one.source)}: {escape(one.problem)}")


def _tpm_text(result: Mapping[str, object]) -> str:
    profile = result.get("profile")
    if not isinstance(profile, dict):
        return ""
    kind = {True: "virtual", False: "hardware", None: "unknown kind"}[profile["virtual"]]
    lines = [profile["manufacturer"] or "unknown manufacturer", profile["model"], profile["version"], kind]
    usage = f"EKU {_PRESENT[profile['eku_present']]}, SAN {_PRESENT[profile['san_present']]}"
    text = "\n".join(escape(str(line)) for line in [*lines, profile["key"], usage] if line)
    return text if result["trusted"] else f"[dim]{text}\n(says the certificate)[/]"


def _verdict_text(result: Mapping[str, object]) -> str:
    if not result["trusted"]:
        detail = escape(f"{result['code']}: {result['message']}")
        return f"{detail}\n[dim]next: {escape(str(result['remedy']))}[/]"
    chain, profile = result["chain"], result["profile"]
    if not (isinstance(chain, list) and isinstance(profile, dict)):
        raise TypeError("a trusted certificate has a chain and a profile")
    lines = [f"signed by {name}" for name in chain[1:]]
    lines.append(f"valid until {str(result['expires_at'])[:10]}, revocation {result['revocation']}")
    if result["key_matches"]:
        lines.append("for the EK given")
    return escape("\n".join(lines + [f"note: {note}" for note in profile["notes"]]))
