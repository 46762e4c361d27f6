"""Anchors from what vendors hand out: every layout read by content, every size bounded."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests import pki
from verifier.crypto.anchors import TrustAnchors
from verifier.errors import MalformedInputError
from verifier.inventory import anchor_files, cabinet
from verifier.inventory.anchor_files import read_anchors

ROOT = pki.Ca.root()
TWIN = pki.Ca.root(seed="rebuilt")
OTHER = pki.Ca.root("Other")
BOTH = TrustAnchors.from_der([ROOT.der, TWIN.der])
CRL = pki.crl(ROOT, (5,))


def certificate_pem(ca: pki.Ca) -> bytes:
    return pki.pem("CERTIFICATE", ca.der)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def vmca_download() -> dict[str, bytes]:
    """The layout of a vCenter's download.zip after a rebuild: two roots under one name, the same files thrice."""
    members = {}
    for folder, certificate_end, crl_end in (("lin", "", ""), ("mac", "", ""), ("win", ".crt", ".crl")):
        members[f"certs/{folder}/0a1b2c3d.0{certificate_end}"] = certificate_pem(ROOT)
        members[f"certs/{folder}/0a1b2c3d.1{certificate_end}"] = certificate_pem(TWIN)
        members[f"certs/{folder}/0a1b2c3d.r0{crl_end}"] = pki.pem("X509 CRL", CRL)
    return members


class TestVmca:
    def test_archive(self, tmp_path):
        path = tmp_path / "download.zip"
        path.write_bytes(zipped(vmca_download()))
        found = read_anchors(path)
        assert found.anchors == BOTH
        assert found.crls == (CRL,)
        assert (found.rejected, found.ignored) == ((), ())

    @pytest.mark.parametrize("folder", ["lin", "win"])
    def test_unpacked(self, tmp_path, folder):
        for name, content in vmca_download().items():
            if f"/{folder}/" in name:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(content)
        found = read_anchors(tmp_path)
        assert (found.anchors, found.crls) == (BOTH, (CRL,))

    def test_archive_in_a_folder_beside_other_files(self, tmp_path):
        (tmp_path / "vcenter.zip").write_bytes(zipped(vmca_download()))
        (tmp_path / "other.cer").write_bytes(OTHER.der)
        (tmp_path / "README").write_text("Roots of the lab.\n")
        found = read_anchors(tmp_path)
        assert found.anchors == BOTH | TrustAnchors.from_der([OTHER.der])
        assert found.ignored == ("README",)


class TestFiles:
    def read(self, tmp_path, content, name="anchors"):
        (tmp_path / name).write_bytes(content)
        return read_anchors(tmp_path / name)

    def test_der(self, tmp_path):
        assert self.read(tmp_path, ROOT.der).anchors == TrustAnchors.from_der([ROOT.der])

    def test_pem_bundle_with_a_list(self, tmp_path):
        bundle = b"# lab\n" + certificate_pem(ROOT) + pki.pem("X509 CRL", CRL) + certificate_pem(TWIN)
        found = self.read(tmp_path, bundle)
        assert (found.anchors, found.crls) == (BOTH, (CRL,))

    def test_der_list(self, tmp_path):
        assert self.read(tmp_path, CRL).crls == (CRL,)

    @pytest.mark.parametrize("wrap", [lambda der: der, lambda der: pki.pem("PKCS7", der)], ids=["DER", "PEM"])
    def test_pkcs7(self, tmp_path, wrap):
        certificates = [x509.load_der_x509_certificate(ca.der) for ca in (ROOT, TWIN)]
        bundle = pkcs7.serialize_certificates(certificates, Encoding.DER)
        assert self.read(tmp_path, wrap(bundle)).anchors == BOTH

    def test_nv_padding(self, tmp_path):
        assert len(self.read(tmp_path, ROOT.der + b"\xff" * 20).anchors) == 1

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (ROOT.ek(), "not a CA certificate"),
            (b"\x30\x03\x02\x01\x01", "tbsCertificate"),
            (b"-----BEGIN CERTIFICATE-----\nAA", ""),
            (pki.pem("X509 CRL", b"\x30\x00"), "CertificateList"),
            (pki.pem("PKCS7", b"\x30\x00"), ""),
        ],
        ids=["end certificate", "other DER", "cut PEM", "broken list", "broken PKCS7"],
    )
    def test_what_cannot_be_used_is_named_and_the_rest_is_read(self, tmp_path, content, problem):
        (tmp_path / "a").write_bytes(content)
        (tmp_path / "b").write_bytes(ROOT.der)
        found = read_anchors(tmp_path)
        assert len(found.anchors) == 1
        (rejected,) = found.rejected
        assert rejected.source == "a"
        assert problem in rejected.problem

    @pytest.mark.parametrize("content", [b"", b"hello", pki.pem("PUBLIC KEY", b"\x30\x00")])
    def test_other_files_are_ignored(self, tmp_path, content):
        assert self.read(tmp_path, content).ignored == ("anchors",)

    def test_missing(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            read_anchors(tmp_path / "nowhere")


class TestBounds:
    def refused(self, tmp_path, content, words):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(MalformedInputError, match=words):
            read_anchors(tmp_path / "archive")

    def test_zip_that_expands(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_ARCHIVE", 100_000)
        self.refused(tmp_path, zipped({"a": bytes(60_000), "b": bytes(60_000)}), "expands to more than")

    def test_zip_that_lies_about_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_ARCHIVE", 100_000)
        honest = zipped({"a": bytes(1_000_000)})
        lying = honest.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10))
        assert lying != honest
        (tmp_path / "archive").write_bytes(lying)
        with pytest.raises(MalformedInputError):
            read_anchors(tmp_path / "archive")

    def test_number_of_members(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_FILES", 3)
        self.refused(tmp_path, zipped({str(n): b"" for n in range(4)}), "more than 3 files")

    def test_number_of_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_FILES", 3)
        for n in range(4):
            (tmp_path / str(n)).write_bytes(b"")
        with pytest.raises(MalformedInputError, match="more than 3 files"):
            read_anchors(tmp_path)

    def test_size_of_a_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_ARCHIVE", 100)
        self.refused(tmp_path, ROOT.der, "more than 100 bytes")

    def test_size_of_pem(self, tmp_path, monkeypatch):
        monkeypatch.setattr(anchor_files, "MAX_CRL", 100)
        (tmp_path / "anchors").write_bytes(certificate_pem(ROOT))
        (rejected,) = read_anchors(tmp_path).rejected
        assert "bytes of PEM" in rejected.problem

    @pytest.mark.parametrize("keep", [30, 60, 200])
    def test_damaged_zip(self, tmp_path, keep):
        self.refused(tmp_path, zipped(vmca_download())[:keep], "cannot be read")

    def test_member_with_a_false_checksum(self, tmp_path):
        whole = bytearray(zipped({"a": b"hello" * 100}))
        whole[40] ^= 0xFF
        self.refused(tmp_path, bytes(whole), "cannot be read")

    def test_member_without_a_name(self, tmp_path):
        whole = zipped({"a": b""})
        nameless = whole.replace(b"\x01\x00\x00\x00a", b"\x00\x00\x00\x00", 1)
        central = nameless.index(b"PK\x01\x02")
        nameless = bytearray(nameless)
        nameless[central + 28] = 0
        self.refused(tmp_path, bytes(nameless), "cannot be read")

    def test_encrypted_zip(self, tmp_path):
        whole = bytearray(zipped({"a": b"hello"}))
        whole[6] |= 1
        whole[whole.index(b"PK\x01\x02") + 8] |= 1
        self.refused(tmp_path, bytes(whole), "cannot be read")


def cab(members: dict[str, bytes]) -> bytes:
    library = pytest.importorskip(
        "cabarchive", reason="SKIPPED FOR WANT OF cabarchive: cabinets were not read"
    )
    archive = library.CabArchive()
    for name, content in members.items():
        archive[name] = library.CabFile(content)
    return bytes(archive.save(compress=True))


class TestCabinet:
    """TrustedTpm.cab: a folder per maker, RootCA and IntermediateCA below, and some scripts."""

    members: ClassVar = {
        "Acme\\RootCA\\root.cer": ROOT.der,
        "Acme\\IntermediateCA\\twin.crt": certificate_pem(TWIN),
        "setup.ps1": b"# installs these\r\n",
    }

    def test_trusted_tpm_cab(self, tmp_path):
        (tmp_path / "TrustedTpm.cab").write_bytes(cab(self.members))
        found = read_anchors(tmp_path / "TrustedTpm.cab")
        assert found.anchors == BOTH
        assert found.ignored == ("TrustedTpm.cab/setup.ps1",)

    @pytest.mark.parametrize("keep", [5, 40, 80, 200])
    def test_damaged(self, keep):
        with pytest.raises(MalformedInputError, match="cabinet"):
            list(cabinet.read_members("x", cab(self.members)[:keep], 100_000))

    def test_every_byte_may_be_wrong(self):
        whole = cab(self.members)
        for at in range(len(whole)):
            broken = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
            if not broken.startswith(cabinet.MAGIC):
                continue
            try:
                list(cabinet.read_members("x", broken, 100_000))
            except MalformedInputError:
                continue

    def test_expansion_is_bounded_before_anything_is_unpacked(self, monkeypatch):
        whole = cab({"a": bytes(500_000)})
        monkeypatch.setattr(cabinet, "_library", lambda _: pytest.fail("unpacked"))
        with pytest.raises(MalformedInputError, match="expands to more than"):
            list(cabinet.read_members("x", whole, 400_000))

    def test_files_that_share_one_folder_count_each(self, monkeypatch):
        """Ten files over the same 60,000 bytes are 600,000 to copy."""
        head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 1000, 44, b"\x03\x01", 1, 10, 0, 0, 0)
        folder = struct.pack("<IHH", 900, 1, 0)
        files = b"".join(struct.pack("<IIHHHH", 60_000, 0, 0, 0, 0, 0) + b"a\x00" for _ in range(10))
        whole = (head + folder + files).ljust(900, b"\0") + struct.pack("<IHH", 0, 0, 0)
        monkeypatch.setattr(cabinet, "_library", lambda _: pytest.fail("unpacked"))
        with pytest.raises(MalformedInputError, match="expands to more than"):
            list(cabinet.read_members("x", whole, 100_000))

    def test_number_of_files(self):
        head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 1000, 44, b"\x03\x01", 0, 65_000, 0, 0, 0)
        with pytest.raises(MalformedInputError, match="files"):
            list(cabinet.read_members("x", head, 100_000))

    def test_compression_the_library_does_not_read(self):
        whole = bytearray(cab(self.members))
        whole[42:44] = struct.pack("<H", 3)
        with pytest.raises(MalformedInputError, match="cabextract"):
            list(cabinet.read_members("x", bytes(whole), 100_000))

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "cabarchive", None)
        head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 36, 36, b"\x03\x01", 0, 0, 0, 0, 0)
        with pytest.raises(MalformedInputError, match="needs the package cabarchive"):
            list(cabinet.read_members("x", head, 100_000))

    def test_reserved_areas_are_stepped_over(self):
        """Microsoft's signed cabinets carry their signature in one."""
        library = pytest.importorskip("cabarchive", reason="SKIPPED FOR WANT OF cabarchive")
        assert library
        content = ROOT.der
        head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 0, 36 + 4 + 20 + 8, b"\x03\x01", 1, 1, 4, 0, 0)
        reserve = struct.pack("<HBB", 20, 0, 0) + bytes(20)
        file = struct.pack("<IIHHHH", len(content), 0, 0, 0x5421, 0, 0x20) + b"root.cer\x00"
        start = len(head) + len(reserve) + 8 + len(file)
        folder = struct.pack("<IHH", start, 1, 0)
        data = struct.pack("<IHH", 0, len(content), len(content)) + content
        whole = head + reserve + folder + file + data
        assert dict(cabinet.read_members("x", whole, 100_000)) == {"root.cer": content}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_an_archive_that_would_be_expanded_at_one_go_is_refused(tmp_path, method):
    """A kilobyte of bzip2 holds gigabytes, and `zipfile` bounds the output of no method but deflate."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    with pytest.raises(MalformedInputError, match="packed in a way that is not read"):
        read_anchors(path)


def test_a_cabinet_whose_folders_share_their_blocks_is_refused_before_they_are_added_up(tmp_path):
    folders, blocks = 40, 5_000
    head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 0, 36 + 8 * folders, b"\x03\x01", folders, 0, 0, 0, 0)
    path = tmp_path / "bomb.cab"
    path.write_bytes(head + struct.pack("<IHH", 36 + 8 * folders, blocks, 0) * folders + bytes(8 * blocks))
    with pytest.raises(MalformedInputError, match="more data blocks than there is room for"):
        read_anchors(path)


@pytest.mark.parametrize("wrapped", [False, True], ids=["DER", "PKCS7"])
def test_a_certificate_with_an_extension_twice_is_refused_by_name_and_the_rest_is_read(tmp_path, wrapped):
    twice = pki.Ca.root("Twice", extra=(pki.basic_constraints(ca=True),)).der
    signed = pki.seq(
        pki.integer(1),
        pki.tlv(0x31),
        pki.seq(pki.oid("1.2.840.113549.1.7.1")),
        pki.tlv(0xA0, twice),
        pki.tlv(0x31),
    )
    bundle = pki.seq(pki.oid("1.2.840.113549.1.7.2"), pki.tlv(0xA0, signed))
    (tmp_path / "good.der").write_bytes(ROOT.der)
    (tmp_path / "odd.der").write_bytes(bundle if wrapped else twice)
    found = read_anchors(tmp_path)
    assert found.anchors == TrustAnchors.from_der([ROOT.der])
    (refused,) = found.rejected
    assert "odd.der" in refused.source
    assert "a second time" in refused.problem
