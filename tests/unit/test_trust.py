"""Trust folders: read as operators have them, and never guessed at."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator import SoftwareCa
from tests.simulator.ca import NOT_BEFORE
from verifier.errors import VerifierFault
from verifier.trust import load_trust


def crl() -> x509.CertificateRevocationList:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOT_BEFORE)
    return builder.next_update(NOT_BEFORE + timedelta(days=1)).sign(key, SHA256())


def test_a_folder_as_vcenter_gives_it_out_is_read(tmp_path):
    first, second = SoftwareCa(1), SoftwareCa(2)  # two roots of one name, as after a rebuild
    (tmp_path / "lin").mkdir()
    (tmp_path / "lin" / "abcd.0").write_bytes(first.root.public_bytes(Encoding.PEM))
    (tmp_path / "win.crt").write_bytes(second.root.public_bytes(Encoding.DER))
    (tmp_path / "lin" / "abcd.r0").write_bytes(crl().public_bytes(Encoding.PEM))
    (tmp_path / "other.crl").write_bytes(crl().public_bytes(Encoding.DER))
    (tmp_path / "README.md").write_text("not a certificate")
    trust = load_trust([tmp_path])
    assert (len(trust.anchors), len(trust.crls), trust.unusable) == (2, 2, ())


def test_a_file_named_by_itself_is_read_whatever_its_name(tmp_path):
    (tmp_path / "bundle").write_bytes(SoftwareCa(1).root.public_bytes(Encoding.PEM) * 2)
    assert len(load_trust([tmp_path / "bundle"]).anchors) == 1


def test_what_is_no_ca_is_named_and_not_trusted(tmp_path):
    leaf = SoftwareCa().issue(ec.generate_private_key(ec.SECP256R1()).public_key())
    (tmp_path / "leaf.der").write_bytes(leaf)
    trust = load_trust([tmp_path])
    assert len(trust.anchors) == 0
    assert "not a CA" in trust.unusable[0].problem


@pytest.mark.parametrize(
    ("name", "content"), [("x.pem", b"-----BEGIN CERTIFICATE-----\nzz"), ("x.crl", b"no")]
)
def test_a_file_that_cannot_be_read_stops_the_service(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VerifierFault, match=name):
        load_trust([tmp_path])
    with pytest.raises(VerifierFault, match="gone"):
        load_trust([tmp_path / "gone.pem"])
