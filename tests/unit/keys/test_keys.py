"""Secrets of the service: made once, private, rotated without a gap."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import stat
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import jwt
import pytest
from cryptography import x509
from joserfc import jwk
from joserfc import jwt as joserfc_jwt

from verifier.errors import VerifierFault
from verifier.keys.secret import nonce_key
from verifier.keys.signer import FileSigner, rotate
from verifier.keys.tls import TlsFiles, own_tls

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def clock():
    return NOW


def signed(signer: FileSigner, claims: dict[str, object]) -> str:
    return asyncio.run(signer.sign_jwt(claims))


def verified(signer: FileSigner, token: str) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_dict(dict(signer.jwks()))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["ES256"], options={"verify_iat": False})


def test_two_libraries_verify_what_is_signed(tmp_path):
    signer = FileSigner(tmp_path, clock)
    token = signed(signer, {"sub": "a", "n": 1})
    assert verified(signer, token) == {"sub": "a", "n": 1}
    keys = jwk.KeySet.import_key_set(dict(signer.jwks()))
    assert joserfc_jwt.decode(token, keys).claims == {"sub": "a", "n": 1}


def test_the_kid_is_the_rfc_7638_thumbprint(tmp_path):
    (key,) = FileSigner(tmp_path, clock).jwks()["keys"]
    assert key["kid"] == jwk.ECKey.import_key({k: key[k] for k in ("kty", "crv", "x", "y")}).thumbprint()
    assert "d" not in key


def test_a_changed_token_does_not_verify(tmp_path):
    signer = FileSigner(tmp_path, clock)
    head, _, signature = signed(signer, {"ear_status": 96}).split(".")
    forged = f"{head}.{jwt.utils.base64url_encode(b'{}').decode()}.{signature}"
    with pytest.raises(jwt.InvalidSignatureError):
        verified(signer, forged)


def test_a_running_signer_follows_a_rotation_and_publishes_both_keys_for_the_overlap(tmp_path):
    now = [NOW]
    signer = FileSigner(tmp_path, lambda: now[0])
    old = signed(signer, {"n": 1})
    new, (retired,) = rotate(tmp_path, timedelta(hours=24), NOW)
    later = signed(signer, {"n": 2})
    assert jwt.get_unverified_header(later)["kid"] == new.kid != retired.kid
    assert verified(signer, old) == {"n": 1}
    assert verified(signer, later) == {"n": 2}
    now[0] = NOW + timedelta(hours=24)
    assert [key["kid"] for key in signer.jwks()["keys"]] == [new.kid]
    rotate(tmp_path, timedelta(hours=24), now[0])
    assert not list(tmp_path.glob(f"*{retired.kid}*"))  # an expired key is removed, not kept for ever
    assert verified(signer, later) == {"n": 2}


def test_a_second_signer_on_the_same_folder_uses_the_same_key(tmp_path):
    first, second = FileSigner(tmp_path, clock), FileSigner(tmp_path, clock)
    assert first.jwks() == second.jwks()


@pytest.mark.parametrize("damage", ["index", "key", "gone"])
def test_damaged_keys_are_a_fault_of_ours(tmp_path, damage):
    kid = FileSigner(tmp_path, clock).jwks()["keys"][0]["kid"]
    target = tmp_path / ("keys.json" if damage == "index" else f"ear-{kid}.pem")
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(b"no")
    with pytest.raises(VerifierFault):
        FileSigner(tmp_path, clock)


def test_everything_secret_is_private(tmp_path):
    FileSigner(tmp_path / "keys", clock)
    nonce_key(tmp_path)
    own_tls(tmp_path / "tls", ["localhost"], NOW)
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (
            0o700 if path.is_dir() else 0o644 if path.suffix == ".pem" and "tls" in str(path) else 0o600
        )


def test_the_nonce_key_is_kept_and_is_not_the_secret(tmp_path):
    key = nonce_key(tmp_path)
    assert nonce_key(tmp_path) == key
    assert len(key) == 32
    assert key != (tmp_path / "service.secret").read_bytes()
    (tmp_path / "service.secret").write_bytes(b"short")
    with pytest.raises(VerifierFault, match=r"service\.secret"):
        nonce_key(tmp_path)


def _nonce_key(path):
    return nonce_key(path)


def test_processes_that_start_together_agree(tmp_path):
    with get_context("spawn").Pool(2) as pool:
        assert len(set(pool.map(_nonce_key, [tmp_path] * 4))) == 1


# --- TLS


def server_certificate(files: TlsFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def names(certificate: x509.Certificate) -> set[str]:
    return {
        str(n.value)
        for n in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    }


def test_the_own_ca_is_kept_and_the_certificate_renewed_in_time(tmp_path):
    files = own_tls(tmp_path, ["localhost", "127.0.0.1", "::1"], NOW)
    ca, first = files.ca_fingerprint(), server_certificate(files)
    assert names(first) == {"localhost", "127.0.0.1", "::1"}
    assert ca == hashlib.sha256(files.ca_der()).digest()
    own_tls(tmp_path, ["localhost"], NOW + timedelta(days=59))
    assert server_certificate(files) == first
    own_tls(tmp_path, ["localhost"], NOW + timedelta(days=61))
    renewed = server_certificate(files)
    assert renewed != first
    own_tls(tmp_path, ["localhost", "other.example"], NOW + timedelta(days=62))
    assert "other.example" in names(server_certificate(files))
    assert files.ca_fingerprint() == ca


def test_an_unpinned_client_refuses_and_a_pinned_one_accepts(tmp_path):
    files = own_tls(tmp_path, ["localhost"], datetime.now(UTC))
    for cafile, accepted in ((files.ca, True), (None, False)):
        client = ssl.create_default_context(cafile=cafile)
        assert handshake(files.context(), client, "localhost") is accepted
    client = ssl.create_default_context(cafile=files.ca)
    assert not handshake(files.context(), client, "evil.example")


def test_old_protocol_versions_are_refused(tmp_path):
    context = own_tls(tmp_path, ["localhost"], datetime.now(UTC)).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    suites = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert suites
    assert all(name.startswith("ECDHE") and ("GCM" in name or "CHACHA20" in name) for name in suites)


def test_a_key_that_does_not_fit_is_a_fault(tmp_path):
    files = own_tls(tmp_path / "a", ["localhost"], NOW)
    other = own_tls(tmp_path / "b", ["localhost"], NOW)
    with pytest.raises(VerifierFault, match="does not belong to"):
        TlsFiles(certificate=files.certificate, key=other.key, ca=None).context()


def handshake(server_context: ssl.SSLContext, client_context: ssl.SSLContext, name: str) -> bool:
    """TLS in memory, both sides."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return client.version() is not None and client.getpeercert() is not None


@pytest.mark.parametrize("spoil", [lambda index: index.write_text("[{"), lambda index: index.unlink()])
def test_a_running_service_goes_on_with_the_keys_it_has_read(tmp_path, spoil):
    signer, index = FileSigner(tmp_path, clock), tmp_path / "keys.json"
    kept, before = index.read_bytes(), signer.jwks()
    spoil(index)
    assert verified(signer, signed(signer, {"n": 1})) == {"n": 1}
    assert signer.jwks() == before
    if index.exists():
        with pytest.raises(VerifierFault, match=r"keys\.json is damaged"):
            FileSigner(tmp_path, clock)
    index.write_bytes(kept)
    new, _ = rotate(tmp_path, timedelta(hours=1), NOW)
    assert jwt.get_unverified_header(signed(signer, {"n": 1}))["kid"] == new.kid
