"""EK certificates of the corpus, and made-up ones of every odd kind, judged by us and by `openssl verify`.

Where the two differ, `certificates.toml` says why. An entry that no longer differs fails as well.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests import openssl
from tests.conftest import shared_path
from tests.odd_certificates import CASES, Case
from tests.unit.crypto.test_ek_corpus import AT, EXPECTED, IN_2020, KINDS
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.ek import validate_ek
from verifier.errors import EvidenceError

LEDGER = tomllib.loads((Path(__file__).parent / "certificates.toml").read_text())


@pytest.fixture(scope="module")
def store() -> TrustAnchors:
    found, _ = TrustAnchors.sift(
        path.read_bytes() for path in sorted(shared_path("corpus/tpm-ca-store").glob("*.der"))
    )
    return found


@pytest.fixture(scope="module")
def bundle(store, tmp_path_factory) -> Path:
    return openssl.write_bundle(tmp_path_factory.mktemp("ca") / "store.pem", (one.der for one in store))


def ours(certificate: bytes, anchors: TrustAnchors, at=AT, **options) -> str:
    """`ok`, or code and detail."""
    try:
        validate_ek(certificate, anchors=anchors, ek_public=None, now=at, **options)
    except EvidenceError as error:
        return f"{error.reason.value}: {error}"
    return "ok"


def hold(name: str, we: str, they: str, section: str) -> None:
    """Agreement, or a known difference, each way of it and no other."""
    entry = LEDGER[section].get(name)
    if entry is None:
        assert (we == "ok") == (they == "ok"), f"we: {we}; openssl: {they}"
    else:
        assert (we == "ok") != (they == "ok"), f"agreed on {we!r}: take {name!r} out of the ledger"
        assert entry["openssl"] in they
        assert entry["ours"] in we
        assert entry["why"]


@pytest.mark.parametrize("file", EXPECTED)
def test_corpus(file, store, bundle):
    certificate = split_bundle(shared_path(f"corpus/{file}").read_bytes())[0]
    hold(file, ours(certificate, store), openssl.verify(certificate, bundle, at=AT), "corpus")


OAEP = [
    "google_go-attestation/certs/cert-leaf_IFX_7deed572cc.der",
    "nsacyber_HIRS/certs/cert-ek_STM_07d685f939.der",
    "nsacyber_HIRS/certs/cert-ek_STM_411a4bb673.der",
    "nsacyber_HIRS/certs/cert-ek_STM_6de7b2a29b.der",
    "nsacyber_paccor/certs/cert-ek_STM_79ead4d39e.der",
]


@pytest.mark.parametrize("file", OAEP)
def test_certificates_whose_key_openssl_does_not_load_are_held_against_it_in_two_steps(file, store, bundle):
    """The issuer's path by `verify`, the certificate's own signature by `dgst`; a changed byte shows in both."""
    certificate = shared_path(f"corpus/{file}").read_bytes()
    assert openssl.verify(certificate, bundle, at=IN_2020) != "ok"
    leaf = parse_certificate(certificate)
    at = IN_2020.replace(year=2018)
    valid = validate_ek(certificate, anchors=store, ek_public=None, now=at)
    issuer = valid.chain[1]
    assert openssl.verify(issuer, bundle, at=at) == "ok"
    assert openssl.signed_by(certificate, issuer, "sha1")
    serial = leaf.serial.to_bytes(20, "big").lstrip(b"\0")
    changed = certificate.replace(serial, serial[:-1] + bytes([serial[-1] ^ 1]), 1)
    assert changed != certificate
    assert not openssl.signed_by(changed, issuer, "sha1")
    assert "was not signed" in ours(changed, store, at)


def test_every_certificate_of_the_manifest_that_may_be_an_eks_is_judged():
    rows = (line.split("\t") for line in shared_path("corpus/MANIFEST.tsv").read_text().splitlines()[1:])
    assert {row[0] for row in rows if row[1] in KINDS} == set(EXPECTED)


def test_chains_another_tool_found_in_the_store_are_found_and_those_it_did_not_find_are_not(store):
    """corpus/VALIDATION_certs.tsv was made by other means: what ends at a self-signed root of the store, ends there."""
    rows = [line.split("\t") for line in shared_path("corpus/VALIDATION_certs.tsv").read_text().splitlines()]
    held = {one.subject_text for one in store}
    looked = 0
    for file, *_, chain in rows[1:]:
        if file not in EXPECTED:
            continue
        said = ours(split_bundle(shared_path(f"corpus/{file}").read_bytes())[0], store)
        if "NO ISSUER FOUND" in chain.split(" > ")[0]:
            assert "no trust anchor" in said or "malformed" in said, file
            looked += 1
        elif "no trust anchor" in said:
            issuer = parse_certificate(
                split_bundle(shared_path(f"corpus/{file}").read_bytes())[0]
            ).issuer_text
            assert issuer not in held, file  # the chain is beside the store, not in it
            looked += 1
    assert looked >= 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_odd_certificates(case: Case, tmp_path):
    anchors = TrustAnchors.from_der(case.anchors)
    trusted = openssl.write_bundle(tmp_path / "anchors.pem", case.anchors)
    we = ours(case.certificate, anchors, case.at, intermediates=case.helpers)
    they = openssl.verify(case.certificate, trusted, at=case.at, helpers=case.helpers)
    hold(case.name, we, they, "odd")
    if case.words is None:
        assert we == "ok"
    else:
        assert case.words in we


def test_the_ledger_names_nothing_that_is_not_there():
    assert set(LEDGER["corpus"]) <= set(EXPECTED)
    assert set(LEDGER["odd"]) <= {case.name for case in CASES}
