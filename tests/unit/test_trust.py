"""Trust as configured: joined from all places, and never guessed at."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator import SoftwareCa
from verifier.errors import VerifierFault
from verifier.trust import load_trust


def test_files_and_folders_are_joined(tmp_path):
    """Two roots of one name, as after a rebuilt vCenter, are two anchors."""
    first, second = SoftwareCa(1), SoftwareCa(2)
    (tmp_path / "lin").mkdir()
    (tmp_path / "lin" / "abcd.0").write_bytes(first.root.public_bytes(Encoding.PEM))
    (tmp_path / "lin" / "README.md").write_text("not a certificate")
    (tmp_path / "bundle").write_bytes(b"".join(ca.root.public_bytes(Encoding.PEM) for ca in (first, second)))
    trust = load_trust([tmp_path / "lin", tmp_path / "bundle"])
    assert (len(trust.anchors), trust.crls, trust.rejected) == (2, (), ())
    assert len(load_trust([]).anchors) == 0


def test_what_is_no_ca_in_a_folder_is_named_and_not_trusted(tmp_path):
    leaf = SoftwareCa().issue(ec.generate_private_key(ec.SECP256R1()).public_key())
    (tmp_path / "leaf.der").write_bytes(leaf)
    trust = load_trust([tmp_path])
    assert len(trust.anchors) == 0
    assert "not a CA" in trust.rejected[0].problem


@pytest.mark.parametrize(
    "content", [b"-----BEGIN CERTIFICATE-----\nzz", b"no", b"", b"PK\x03\x04zz", b"\x30\x03abc"]
)
def test_a_file_named_by_itself_that_is_of_no_use_stops_the_service(tmp_path, content):
    (tmp_path / "anchor.pem").write_bytes(content)
    with pytest.raises(VerifierFault, match=r"anchor\.pem"):
        load_trust([tmp_path / "anchor.pem"])


def test_a_path_that_is_not_there_stops_the_service(tmp_path):
    with pytest.raises(VerifierFault, match="gone"):
        load_trust([tmp_path / "gone"])
