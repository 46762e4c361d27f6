"""`attestctl ek check`: what it prints, for whom, and how it exits."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests import pki
from tests.conftest import ROOT, shared_path
from verifier.cli import ek
from verifier.cli.attestctl import main
from verifier.reasons import Reason

EVIDENCE = ROOT / "policies" / "evidence"
EK = EVIDENCE / "uki-sb-on" / "ek_rsa_cert.der"
CA = EVIDENCE / "ca"
LAB = pki.Ca.root("Lab")
AT = "2026-12-01T00:00:00Z"


@pytest.fixture
def lab(tmp_path):
    folder = tmp_path / "anchors"
    folder.mkdir()
    (folder / "lab.pem").write_bytes(pki.pem("CERTIFICATE", LAB.der))
    return folder


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def document(capsys) -> dict:
    captured = capsys.readouterr()
    return json.loads(captured.out)


class TestJson:
    def test_trusted(self, capsys):
        assert run("ek", "check", EK, "--anchors", CA, "--json", "--at", AT) == 0
        said = document(capsys)
        assert said["trusted"] is True
        assert said["anchors"]["count"] >= 2
        (one,) = said["certificates"]
        assert (one["file"], one["trusted"]) == ("ek_rsa_cert.der", True)
        assert one["chain"] == ["CN=unknown", "CN=swtpm-localca"]
        assert one["profile"]["vendor"] == "IBM"
        assert one["profile"]["virtual"] is True
        assert len(one["key_fingerprint"]) == len(one["anchor_sha256"]) == 64
        assert one["expires_at"].startswith("9999-")

    def test_refused_says_why_what_to_do_and_what_the_certificate_claims(self, capsys, lab):
        vmware = shared_path("corpus/google_go-tpm/certs/cert-ek_VMW_8cdd06be35.der")
        assert run("ek", "check", vmware, "--anchors", lab, "--json") == ek.EXIT_REFUSED
        said = document(capsys)
        (one,) = said["certificates"]
        assert said["trusted"] is one["trusted"] is False
        assert one["code"] == Reason.EK_CERTIFICATE_UNTRUSTED.value
        assert "OU=VMware Engineering" in one["message"]
        assert one["remedy"]
        assert one["profile"]["model"] == "VMware TPM2"
        assert "chain" not in one

    def test_one_refusal_among_many_is_a_refusal(self, capsys, lab, tmp_path):
        good, bad = tmp_path / "good.der", tmp_path / "bad.der"
        good.write_bytes(LAB.ek() + b"\xff" * 9)
        bad.write_bytes(b"\x30\x03\x02\x01\x01")
        assert run("ek", "check", good, bad, "--anchors", lab, "--json") == ek.EXIT_REFUSED
        first, second = document(capsys)["certificates"]
        assert first["trusted"]
        assert first["profile"]["notes"] == ["9 bytes of padding behind the certificate"]
        assert second["code"] == Reason.EK_CERTIFICATE_MALFORMED.value
        assert "profile" not in second

    def test_unusable_anchors_are_named(self, capsys, lab, tmp_path):
        (lab / "oops.der").write_bytes(LAB.ek())
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek())
        assert run("ek", "check", path, "--anchors", lab, "--json") == 0
        (rejected,) = document(capsys)["anchors"]["rejected"]
        assert rejected["source"] == "oops.der"
        assert "not a CA" in rejected["problem"]

    def test_a_chain_in_one_file_helps(self, capsys, lab, tmp_path):
        sub = LAB.below("Sub")
        path = tmp_path / "chain.pem"
        path.write_bytes(pki.pem("CERTIFICATE", sub.ek()) + pki.pem("CERTIFICATE", sub.der))
        assert run("ek", "check", path, "--anchors", lab, "--json") == 0
        assert document(capsys)["certificates"][0]["chain"] == ["", "CN=Sub", "CN=Lab"]

    def test_the_report_says_whether_revocation_was_looked_up(self, capsys, lab, tmp_path):
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek())
        for crl, status in ((None, "unchecked"), (pki.crl(LAB), "current")):
            if crl is not None:
                (lab / "lab.r0").write_bytes(crl)
            assert run("ek", "check", path, "--anchors", lab, "--json", "--at", "2026-06-01T00:00:00Z") == 0
            assert document(capsys)["certificates"][0]["revocation"] == status

    @pytest.mark.parametrize("where", ["beside the anchors", "on their own"])
    def test_revocation_lists(self, capsys, lab, tmp_path, where):
        path, crl = tmp_path / "ek.der", pki.crl(LAB, (77,))
        path.write_bytes(LAB.ek())
        (lab if where == "beside the anchors" else tmp_path).joinpath("lab.r0").write_bytes(crl)
        more = () if where == "beside the anchors" else ("--crls", tmp_path / "lab.r0")
        assert run("ek", "check", path, "--anchors", lab, "--json", *more) == ek.EXIT_REFUSED
        assert document(capsys)["certificates"][0]["code"] == Reason.EK_CERTIFICATE_REVOKED.value

    def test_as_of_another_time(self, capsys, lab, tmp_path):
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek())
        for at, code in (("2025-01-01T00:00:00Z", 0), ("2040-01-01T00:00:00Z", ek.EXIT_REFUSED)):
            assert run("ek", "check", path, "--anchors", lab, "--json", "--at", at) == code
            said = document(capsys)
            assert said["at"].startswith(at[:10])
        assert said["certificates"][0]["code"] == Reason.EK_CERTIFICATE_EXPIRED.value

    def test_a_time_without_zone_is_utc(self, capsys, lab, tmp_path):
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek())
        assert ek.check([path], anchors=lab, at=datetime(2025, 1, 1), json=True) == 0  # noqa: DTZ001
        assert document(capsys)["at"] == "2025-01-01T00:00:00+00:00"


class TestTheTpmsOwnKey:
    """--public: the certificate's key is the TPM's EK, or the certificate is refused."""

    public = EVIDENCE / "uki-sb-on" / "ek_rsa.pub"

    def test_its_own_certificate(self, capsys):
        assert run("ek", "check", EK, "--anchors", CA, "--at", AT, "--public", self.public, "--json") == 0
        assert document(capsys)["certificates"][0]["key_matches"] is True
        assert run("ek", "check", EK, "--anchors", CA, "--at", AT, "--public", self.public) == 0
        assert "for the EK given" in capsys.readouterr().out

    def test_another_tpms(self, capsys):
        other = EVIDENCE / "uki-sb-off" / "ek_rsa_cert.der"
        code = run("ek", "check", other, "--anchors", CA, "--at", AT, "--public", self.public, "--json")
        assert code == ek.EXIT_REFUSED
        (one,) = document(capsys)["certificates"]
        assert one["code"] == Reason.EK_CERTIFICATE_KEY_MISMATCH.value

    def test_without_it_nothing_is_said(self, capsys):
        assert run("ek", "check", EK, "--anchors", CA, "--at", AT, "--json") == 0
        assert document(capsys)["certificates"][0]["key_matches"] is None

    def test_a_file_that_is_no_public_area(self, capsys):
        assert run("ek", "check", EK, "--anchors", CA, "--public", EK) >= 64
        assert capsys.readouterr().out == ""


class TestForPeople:
    def test_trusted(self, capsys):
        assert run("ek", "check", EK, "--anchors", CA, "--at", AT) == 0
        text = capsys.readouterr().out
        for words in (
            "EKU present",
            "revocation unchecked",
            "ok",
            "IBM (software TPM)",
            "virtual",
            "CN=swtpm-localca",
            "trust anchors",
        ):
            assert words in text

    def test_refused(self, capsys, lab):
        assert run("ek", "check", EK, "--anchors", lab) == ek.EXIT_REFUSED
        text = " ".join(capsys.readouterr().out.split())
        for words in ("FAIL", "ek-certificate-untrusted", "says the certificate", "next:"):
            assert words in text

    def test_a_certificate_cannot_write_markup(self, capsys, lab, tmp_path):
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek(directory=pki.tpm_name(model="[bold red]x[/]")))
        assert run("ek", "check", path, "--anchors", lab) == 0
        assert "[bold red]x[/]" in capsys.readouterr().out

    def test_unusable_anchors_go_to_stderr(self, capsys, lab, tmp_path):
        (lab / "oops.der").write_bytes(LAB.ek())
        path = tmp_path / "ek.der"
        path.write_bytes(LAB.ek(directory=b""))
        assert run("ek", "check", path, "--anchors", lab) == 0
        captured = capsys.readouterr()
        assert "oops.der" in captured.err
        assert "oops.der" not in captured.out


class TestUsage:
    @pytest.mark.parametrize("missing", ["certificate", "anchors"])
    def test_missing_file(self, capsys, lab, tmp_path, missing):
        nowhere = tmp_path / "nowhere"
        certificate, anchors = (nowhere, lab) if missing == "certificate" else (EK, nowhere)
        assert run("ek", "check", certificate, "--anchors", anchors, "--json") >= 64
        captured = capsys.readouterr()
        assert "nowhere" in captured.err
        assert captured.out == ""

    def test_no_anchor_in_the_folder(self, capsys, tmp_path):
        assert run("ek", "check", EK, "--anchors", tmp_path) >= 64
        assert "no usable trust anchor" in " ".join(capsys.readouterr().err.split())

    def test_no_certificate_named(self, capsys):
        assert run("ek", "check", "--anchors", CA) >= 64

    def test_a_file_that_is_no_certificate(self, lab, tmp_path, monkeypatch):
        monkeypatch.setattr(ek, "MAX_FILE", 100)
        assert run("ek", "check", EK, "--anchors", lab) >= 64

    def test_damaged_pem_is_a_refused_certificate(self, capsys, lab, tmp_path):
        path = tmp_path / "ek.pem"
        path.write_text("-----BEGIN CERTIFICATE-----\nAA")
        assert run("ek", "check", path, "--anchors", lab, "--json") == ek.EXIT_REFUSED
        assert document(capsys)["certificates"][0]["code"] == Reason.EK_CERTIFICATE_MALFORMED.value
