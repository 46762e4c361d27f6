"""`attestctl ak-certificate`: the X.509 certificate of an attester's AK, for whoever checks quotes without asking a verifier."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of


def ak_certificate(
    attester_id: str | None = None,
    *,
    root_only: bool = False,
    out: Path | None = None,
    where: Where | None = None,
) -> int:
    """Fetch the certificate of an attester's AK (issued or renewed now), or the CA certificates above all of them.

    It says that this verifier bound the key to a TPM it had reason to trust; the machine's state is in what the key signs.

    Example:
        attestctl ak-certificate 3f0c... --out ak.pem
        attestctl ak-certificate --root-only --out ak-ca.pem
        openssl verify -CAfile ak-ca.pem ak.pem

    Args:
        attester_id: id as `attestctl attesters` lists it.
        root_only: the CA certificates instead; needs no token.
        out: write the PEM there instead of printing it.
    """
    if (attester_id is None) is not root_only:
        output.fail(ValueError("name an attester, or ask for the CA certificates with --root-only"))
    at = where or Where()
    path = "/v1/ak-ca" if attester_id is None else f"/v1/attesters{path_of(attester_id, 'ak-certificate')}"
    pem: str = at.ask(lambda remote: remote.get(path, accept="application/pem-certificate-chain"))
    if out is not None:
        out.write_text(pem, encoding="ascii")
    certificates = x509.load_pem_x509_certificates(pem.encode())
    if at.json:
        output.print_json({"pem": pem, "certificates": [_described(one) for one in certificates]})
    elif out is None:
        output.out.print(pem, end="", soft_wrap=True)
    for one in certificates:
        output.err.print(
            f"[dim]{one.subject.rfc4514_string() or 'AK'}, valid until {one.not_valid_after_utc}[/]"
        )
    return 0


def _described(certificate: x509.Certificate) -> dict[str, str]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }
