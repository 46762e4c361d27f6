"""Paths to a trust anchor: what ends one, what breaks one, and which fault is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests import pki
from tests.simulator import SoftwareCa, SoftwareTpm
from verifier.crypto import paths
from verifier.crypto.ek import TrustAnchors, validate_ek
from verifier.errors import RefusedError
from verifier.reasons import Reason

pytestmark = pytest.mark.usefixtures("either_reader")

ROOT = pki.Ca.root()
SUB = ROOT.below("Sub")
DAY = timedelta(days=1)


def chain(certificate, *anchors, helpers=(), now=pki.NOW, crls=()):
    trusted = TrustAnchors.from_der(anchors)
    return validate_ek(
        certificate, intermediates=helpers, anchors=trusted, crls=crls, ek_public=None, now=now
    ).chain


def refusal(certificate, *anchors, **arguments) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chain(certificate, *anchors, **arguments)
    return caught.value


def untrusted(certificate, *anchors, **arguments) -> str:
    error = refusal(certificate, *anchors, **arguments)
    assert error.reason is Reason.EK_CERTIFICATE_UNTRUSTED
    return error.detail


class TestAnchors:
    def test_root_over_an_intermediate(self):
        certificate = SUB.ek()
        assert chain(certificate, ROOT.der, helpers=(SUB.der,)) == (certificate, SUB.der, ROOT.der)

    def test_intermediate_is_an_anchor_of_its_own(self):
        certificate = SUB.ek()
        assert chain(certificate, SUB.der) == (certificate, SUB.der)
        assert chain(certificate, SUB.der, ROOT.der) == (certificate, SUB.der)

    def test_intermediate_alone_is_not_trusted(self):
        assert "no trust anchor" in untrusted(SUB.ek(), helpers=(SUB.der, ROOT.der))

    def test_no_help_no_path(self):
        assert "'CN=Sub'" in untrusted(SUB.ek(), ROOT.der)

    def test_simulated_vtpm(self):
        ca = SoftwareCa(7, intermediate=True)
        tpm = SoftwareTpm(7, ca=ca)
        assert len(chain(tpm.ek_certificate, *ca.anchors_der, helpers=ca.intermediates_der)) == 3


class TestOneNameManyKeys:
    """A rebuilt vCenter: several VMCA roots with one distinguished name."""

    first = pki.Ca.root("CA", seed="vmca 1")
    second = pki.Ca.root("CA", seed="vmca 2")

    def test_each_certificate_ends_at_the_root_that_signed_it(self):
        for ca in (self.first, self.second):
            assert chain(ca.ek(), self.first.der, self.second.der)[-1] == ca.der

    def test_even_without_key_identifiers(self):
        roots = [pki.Ca.root("CA", seed=f"vmca {n}") for n in range(20)]
        for ca in (roots[0], roots[11]):
            certificate = ca.issue(pki.ek_body(pki.EK_KEY.public_key()))
            assert chain(certificate, *(root.der for root in roots))[-1] == ca.der

    def test_key_identifier_saves_signature_checks(self, monkeypatch):
        roots = [pki.Ca.root("CA", seed=f"vmca {n}") for n in range(20)]
        checks = []
        honest = paths.signature_holds
        monkeypatch.setattr(paths, "signature_holds", lambda *a: checks.append(a) or honest(*a))
        chain(roots[11].ek(), *(root.der for root in roots))
        assert len(checks) == 1

    def test_name_alone_is_no_trust(self):
        assert "was not signed with the key" in untrusted(self.first.ek(), self.second.der)

    def test_name_and_key_identifier_are_no_trust_either(self):
        body = pki.ek_body(pki.EK_KEY.public_key(), authority=self.second.key_identifier)
        assert "was not signed with the key" in untrusted(self.first.issue(body), self.second.der)

    def test_wrong_key_identifier_does_not_shut_out_the_true_issuer(self):
        body = pki.ek_body(pki.EK_KEY.public_key(), authority=b"x" * 20)
        valid = validate_ek(
            self.first.issue(body),
            anchors=TrustAnchors.from_der([self.first.der]),
            ek_public=None,
            now=pki.NOW,
        )
        assert sum("another key identifier" in note for note in valid.profile.notes) == 1


class TestNames:
    """Names are compared as RFC 5280, section 7.1, and never guessed."""

    @pytest.mark.parametrize(
        "written",
        [
            pki.seq(pki.rdn(("2.5.4.3", pki.printable("Root")))),
            pki.seq(pki.rdn(("2.5.4.3", pki.utf8("ROOT")))),
            pki.seq(pki.rdn(("2.5.4.3", pki.utf8("  Root ")))),
            pki.seq(pki.rdn(("2.5.4.3", pki.tlv(0x1E, "Root".encode("utf-16-be"))))),
        ],
        ids=["string type", "case", "blanks", "BMPString"],
    )
    def test_one_name_in_another_writing(self, written):
        body = replace(pki.ek_body(pki.EK_KEY.public_key()), issuer=written)
        assert chain(body.signed_by(ROOT.key), ROOT.der)

    def test_another_name_with_the_right_key(self):
        body = replace(pki.ek_body(pki.EK_KEY.public_key()), issuer=pki.common_name("Roots"))
        assert "no trust anchor" in untrusted(body.signed_by(ROOT.key), ROOT.der)


class TestCrossSigning:
    """A VMCA below a corporate root, with its old self-signed certificate still about."""

    corporate = pki.Ca.root("Corporate")
    vmca = pki.Ca.root("VMCA")
    cross = vmca.reissued(corporate)

    def test_both_ways_up(self):
        certificate = self.vmca.ek()
        assert chain(certificate, self.vmca.der)[-1] == self.vmca.der
        helpers = (self.vmca.der, self.cross.der)
        assert chain(certificate, self.corporate.der, helpers=helpers)[-1] == self.corporate.der

    def test_a_way_around_an_expired_twin(self):
        key = self.vmca.key
        body = pki.ca_body(
            key, self.vmca.subject, self.vmca.subject, key, not_after=pki.time(pki.START + DAY)
        )
        expired = body.signed_by(key)
        found = chain(self.vmca.ek(), expired, self.corporate.der, helpers=(self.cross.der,))
        assert found[1:] == (self.cross.der, self.corporate.der)

    def test_a_renewed_root_beside_the_expired_one(self):
        key, subject = self.corporate.key, self.corporate.subject
        body = pki.ca_body(key, subject, subject, key, not_after=pki.time(pki.START + DAY))
        for expired in (replace(body, serial=serial).signed_by(key) for serial in range(1, 5)):
            found = chain(self.vmca.ek(), expired, self.corporate.der, helpers=(self.cross.der,))
            assert found[-1] == self.corporate.der

    def test_a_circle_ends(self):
        left, right = pki.Ca.root("Left"), pki.Ca.root("Right")
        helpers = (left.reissued(right).der, right.reissued(left).der)
        assert "no trust anchor" in untrusted(left.ek(), self.corporate.der, helpers=helpers)


class TestDates:
    def test_to_the_second_and_no_further(self):
        certificate = ROOT.ek()
        for now in (pki.START, pki.END):
            assert chain(certificate, ROOT.der, now=now)
        for now in (pki.START - timedelta(seconds=1), pki.END + timedelta(seconds=1)):
            assert refusal(certificate, ROOT.der, now=now).reason is Reason.EK_CERTIFICATE_EXPIRED

    def test_no_well_defined_end(self):
        assert chain(ROOT.ek(not_after=pki.tlv(0x18, b"99991231235959Z")), ROOT.der)

    @pytest.mark.parametrize("field", ["not_before", "not_after"])
    def test_every_certificate_of_the_path_counts(self, field):
        wrong = {field: pki.time(pki.NOW + DAY if field == "not_before" else pki.NOW - DAY)}
        sub = ROOT.below("Sub", **wrong)
        old_root = pki.Ca.root(**wrong)
        for certificate, anchor, helpers in (
            (ROOT.ek(**wrong), ROOT, ()),
            (sub.ek(), ROOT, (sub.der,)),
            (old_root.ek(), old_root, ()),
        ):
            error = refusal(certificate, anchor.der, helpers=helpers)
            assert error.reason is Reason.EK_CERTIFICATE_EXPIRED
            assert ("not valid before" if field == "not_before" else "expired at") in error.detail

    def test_a_date_is_told_before_a_missing_issuer_and_after_a_false_signature(self):
        old = ROOT.ek(not_after=pki.time(pki.NOW - DAY))
        stranger = pki.Ca.root(seed="stranger")
        assert refusal(old, ROOT.der, stranger.der).reason is Reason.EK_CERTIFICATE_EXPIRED
        assert refusal(old, stranger.der).reason is Reason.EK_CERTIFICATE_UNTRUSTED


class TestAuthority:
    """Who may sign."""

    def below(self, **changes) -> str:
        sub = ROOT.below("Sub", **changes)
        return untrusted(sub.ek(), ROOT.der, helpers=(sub.der,))

    def test_end_certificate_signs_nothing(self):
        assert "not a CA" in self.below(ca=False)

    def test_no_basic_constraints_signs_nothing(self):
        body = pki.ca_body(SUB.key, SUB.subject, ROOT.subject, ROOT.key)
        bare = replace(body, extensions=body.extensions[1:]).signed_by(ROOT.key)
        assert "not a CA" in untrusted(SUB.ek(), ROOT.der, helpers=(bare,))

    @pytest.mark.parametrize("usage", [(), (pki.CRL_SIGN,), (pki.DIGITAL_SIGNATURE,)])
    def test_key_usage_must_say_so(self, usage):
        assert "may not sign certificates" in self.below(usage=usage)

    def test_old_root_without_key_usage_may_be_an_anchor(self):
        root = pki.Ca.root(usage=())
        assert chain(root.ek(), root.der)

    def test_extension_nobody_enforces(self):
        unknown = pki.extension("1.2.3.4", pki.utf8("?"), critical=True)
        assert "cannot be enforced" in self.below(extra=(unknown,))
        assert "cannot be enforced" in self.below(extra=(pki.extension("2.5.29.30", pki.seq()),))

    def test_purposes_of_a_ca_bind_those_below(self):
        assert "limited to the purposes" in self.below(extra=(pki.extended_key_usage(pki.AK_PURPOSE),))
        for purpose in (pki.EK_PURPOSE, "2.5.29.37.0"):
            sub = ROOT.below("Sub", extra=(pki.extended_key_usage("1.2.3", purpose),))
            assert chain(sub.ek(), ROOT.der, helpers=(sub.der,))

    def test_weak_issuer(self):
        assert "RSA key of 1024 bits" in self.below(kind="rsa1024")

    def test_issuer_with_a_key_nobody_can_use(self):
        spki = pki.seq(pki.seq(pki.oid("1.3.101.112")), pki.tlv(0x03, bytes(33)))
        sub = ROOT.below("Sub", spki=spki)
        assert "not supported" in untrusted(SUB.ek(), ROOT.der, helpers=(sub.der,))


class TestPathLength:
    def test_counts_the_authorities_below(self):
        for limit, allowed in ((None, True), (1, True), (0, False)):
            root = pki.Ca.root(path_length=limit)
            sub = root.below("One")
            if allowed:
                assert chain(sub.ek(), root.der, helpers=(sub.der,))
            else:
                assert "allows 0" in untrusted(sub.ek(), root.der, helpers=(sub.der,))
            assert chain(root.ek(), root.der)

    def test_binds_an_intermediate(self):
        sub = ROOT.below("One", path_length=0)
        deep = sub.below("Two")
        assert "allows 0" in untrusted(deep.ek(), ROOT.der, helpers=(deep.der, sub.der))

    def test_self_issued_certificates_do_not_count(self):
        root = pki.Ca.root(path_length=0)
        renewed = root.below("Root", seed="renewed root", subject=root.subject)
        assert len(chain(renewed.ek(), root.der, helpers=(renewed.der,))) == 3


class TestLimits:
    def test_depth(self):
        tower = [ROOT]
        for level in range(paths.MAX_PATH - 1):
            tower.append(tower[-1].below(f"Level {level}"))
        helpers = tuple(ca.der for ca in tower[1:])
        assert len(chain(tower[-2].ek(), ROOT.der, helpers=helpers)) == paths.MAX_PATH
        assert f"more than {paths.MAX_PATH}" in untrusted(tower[-1].ek(), ROOT.der, helpers=helpers)

    def test_signature_checks(self):
        roots = [pki.Ca.root("CA", seed=f"many {n}") for n in range(paths.MAX_SIGNATURE_CHECKS + 1)]
        certificate = pki.Ca.root("CA", seed="another").issue(pki.ek_body(pki.EK_KEY.public_key()))
        assert "signature checks" in untrusted(certificate, *(root.der for root in roots))

    def test_hostile_intermediates_of_one_name(self):
        helpers = tuple(pki.Ca.root("CA", seed=f"many {n}").der for n in range(32))
        assert "candidates" in untrusted(pki.Ca.root("CA").ek(), ROOT.der, helpers=helpers)

    def test_no_hostile_key_is_used_before_it_is_proven(self, monkeypatch):
        stranger = pki.Ca.root("Stranger").below("Sub", seed="stranger sub", subject=SUB.subject)
        forged = replace(pki.ca_body(stranger.key, SUB.subject, ROOT.subject, ROOT.key)).signed_by(
            stranger.key
        )
        used = []
        honest = paths.signature_holds
        monkeypatch.setattr(paths, "signature_holds", lambda *a: used.append(a[0]) or honest(*a))
        untrusted(stranger.ek(), ROOT.der, helpers=(forged,))
        assert used == [ROOT.key.public_key()]


class TestSignatures:
    rsa_root = pki.Ca.root("RSA", kind="rsa2048")

    @pytest.mark.parametrize(
        "label", [label for label in pki.ALGORITHMS if "sha1" not in label and "md5" not in label]
    )
    def test_accepted_algorithms(self, label):
        ca = self.rsa_root if label.startswith("rsa") else ROOT
        assert chain(ca.ek(algorithm=pki.ALGORITHMS[label]), ca.der)

    @pytest.mark.parametrize("label", ["rsa-md5", "rsa-sha1", "ecdsa-sha1"])
    def test_broken_hashes(self, label):
        ca = self.rsa_root if label.startswith("rsa") else ROOT
        assert "not accepted" in untrusted(ca.ek(algorithm=pki.ALGORITHMS[label]), ca.der)

    def test_sha1_of_the_first_tpms_2_0_on_the_end_certificate_alone(self):
        old = pki.time(paths.SHA1_LEAVES_BEFORE - DAY)
        root = pki.Ca.root("RSA", kind="rsa2048", not_before=old)
        sha1 = pki.ALGORITHMS["rsa-sha1"]
        certificate = root.ek(algorithm=sha1, not_before=old)
        valid = validate_ek(
            certificate, anchors=TrustAnchors.from_der([root.der]), ek_public=None, now=pki.NOW
        )
        assert "signed with SHA-1, before 2019" in valid.profile.notes
        assert "SHA1" in valid.profile.signature
        sub = root.below("Sub", kind="rsa2048", algorithm=sha1, not_before=old)
        assert "not accepted" in untrusted(sub.ek(not_before=old), root.der, helpers=(sub.der,))
        assert "not accepted" in untrusted(
            root.ek(algorithm=sha1, not_before=pki.time(paths.SHA1_LEAVES_BEFORE)), root.der
        )

    def test_algorithm_that_does_not_fit_the_key(self):
        certificate = self.rsa_root.ek()
        swapped = certificate.replace(
            pki.ALGORITHMS["rsa-sha256"].identifier, pki.ALGORITHMS["rsa-sha512"].identifier
        )
        assert len(swapped) == len(certificate)
        assert "was not signed" in untrusted(swapped, self.rsa_root.der)
        ecdsa = replace(pki.ek_body(pki.EK_KEY.public_key()), issuer=self.rsa_root.subject).signed_by(
            ROOT.key
        )
        assert "was not signed" in untrusted(ecdsa, self.rsa_root.der)

    def test_any_changed_bit_of_the_signed_bytes_counts(self):
        certificate = bytearray(ROOT.ek())
        at = bytes(certificate).index(b"VMware TPM2")
        certificate[at] ^= 0x01
        assert "was not signed" in untrusted(bytes(certificate), ROOT.der)
