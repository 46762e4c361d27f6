"""OpenSSL's command as a second opinion about certificates. It shares no code with the readers under test that matters:
they parse by themselves, and only the arithmetic of a signature is the same library's."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from tests import pki

_ERROR = re.compile(r"^error (\d+) at (\d+) depth lookup: (.+)$", re.MULTILINE)


def verify(
    leaf: bytes,
    anchors: Path,
    *,
    at: datetime,
    helpers: Sequence[bytes] = (),
    crls: Sequence[bytes] = (),
) -> str:
    """`ok`, or why `openssl verify -partial_chain` does not accept a path to one of these anchors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "leaf.pem").write_bytes(pki.pem("CERTIFICATE", leaf))
        arguments = ["-trusted", str(anchors), "-attime", str(int(at.timestamp()))]
        if helpers:
            write_bundle(folder / "helpers.pem", helpers)
            arguments += ["-untrusted", str(folder / "helpers.pem")]
        if crls:
            (folder / "crls.pem").write_bytes(b"".join(pki.pem("X509 CRL", crl) for crl in crls))
            arguments += ["-CRLfile", str(folder / "crls.pem"), "-crl_check"]
        done = subprocess.run(
            ["openssl", "verify", "-partial_chain", "-no-CAfile", "-no-CApath", "-no-CAstore", *arguments,
             str(folder / "leaf.pem")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    if done.returncode == 0:
        return "ok"
    errors = _ERROR.findall(done.stdout + done.stderr)
    return errors[0][2] if errors else "not read"


def write_bundle(path: Path, certificates: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(pki.pem("CERTIFICATE", der) for der in certificates))
    return path


def signed_by(leaf: bytes, issuer: bytes, digest: str) -> bool:
    """Whether the issuer's key made the signature, by cutting with `asn1parse` and asking `dgst`.

    For certificates whose own key OpenSSL does not load, and which `verify` therefore refuses to look at.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "leaf.der").write_bytes(leaf)
        (folder / "issuer.der").write_bytes(issuer)
        outline = _run("asn1parse", "-inform", "DER", "-in", folder / "leaf.der")
        top = re.findall(r"^ *(\d+):d=1 ", outline, re.MULTILINE)
        for at, target in ((top[0], "tbs"), (top[2], "signature")):
            _run("asn1parse", "-inform", "DER", "-in", folder / "leaf.der", "-strparse", at, "-noout",
                 "-out", folder / target)  # fmt: skip
        (folder / "key.pem").write_text(
            _run("x509", "-inform", "DER", "-in", folder / "issuer.der", "-noout", "-pubkey")
        )
        done = subprocess.run(
            ["openssl", "dgst", f"-{digest}", "-verify", str(folder / "key.pem"), "-signature",
             str(folder / "signature"), str(folder / "tbs")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    return done.returncode == 0


def _run(*arguments: object) -> str:
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
