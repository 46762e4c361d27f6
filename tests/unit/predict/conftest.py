"""Keys, databases and recorded images for the tests of prediction."""

from __future__ import annotations

import base64
import json
import lzma
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests import pe
from tests.conftest import ROOT
from verifier.predict import kernel, uki
from verifier.predict import pe as image_module
from verifier.predict.pe import hash_chunks
from verifier.predict.variables import SecureBootVariables, certificate_list, parse_guid
from verifier.tcg.algorithms import HashAlg

VECTORS = ROOT / "tests" / "vectors" / "predict"
OWNER = parse_guid("77777777-7777-7777-7777-777777777777")


def unpacked(text: str) -> bytes:
    return lzma.decompress(base64.b64decode(text))


@lru_cache(maxsize=2)
def vectors(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_text())


@dataclass(frozen=True)
class Identity:
    """A key and its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def entry(self) -> bytes:
        return certificate_list(self.der, OWNER)

    def signer(self, *along: Identity) -> pe.Signer:
        return pe.Signer(self.key, self.certificate, [each.certificate for each in along])


def issue(
    name: str, issuer: Identity | None = None, *, ca: bool = True, usage: str | None = None, key: Any = None
) -> Identity:
    key = key or rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2001, 1, 1, tzinfo=UTC)  # long expired: firmware does not ask
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)]), critical=False)
    return Identity(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


@dataclass(frozen=True)
class Pki:
    db: Identity
    ca: Identity
    leaf: Identity
    stranger: Identity
    modules: Identity


@pytest.fixture(scope="session")
def pki() -> Pki:
    ca = issue("ca")
    return Pki(
        db=issue("db"),
        ca=ca,
        leaf=issue("leaf", ca, ca=False),
        stranger=issue("stranger"),
        modules=issue("modules", usage="1.3.6.1.4.1.2312.16.1.2"),
    )


@pytest.fixture
def variables(pki: Pki) -> SecureBootVariables:
    """Secure Boot on; db has the key `db` and the CA."""
    return SecureBootVariables(
        enabled=True, pk=pki.db.entry, kek=pki.db.entry, db=pki.db.entry + pki.ca.entry, dbx=b""
    )


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The recorded boots. Their images are skeletons, so whatever hashes a zeroed range gets the digest of the true one."""
    boots = vectors("boots")

    def stand_in(chunks: Any, alg: HashAlg) -> bytes:
        kept = tuple(chunks)
        true = boots["stand_ins"].get(hash_chunks(kept, HashAlg.SHA256).hex())
        return bytes.fromhex(true[alg.label]) if true else hash_chunks(kept, alg)

    for module in (image_module, uki, kernel):
        monkeypatch.setattr(module, "hash_chunks", stand_in)
    return boots
