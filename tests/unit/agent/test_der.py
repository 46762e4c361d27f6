"""Finding the end of a certificate and the key in it, on real EK certificates."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import given
from hypothesis import strategies as st

from agent import der
from tests.conftest import ROOT, shared_path

OURS = sorted((ROOT / "policies" / "evidence").glob("*/ek_*_cert.der"))
CERTIFICATE = OURS[0].read_bytes()


def key_of(content: bytes) -> tuple[bytes, ...]:
    key = x509.load_der_x509_certificate(content).public_key()
    numbers = key.public_numbers()
    values = (numbers.n,) if isinstance(key, RSAPublicKey) else (numbers.x, numbers.y)
    return tuple(value.to_bytes((value.bit_length() + 7) // 8, "big") for value in values)


@pytest.mark.parametrize("path", OURS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_key_is_the_one_cryptography_finds(path):
    assert der.subject_key(path.read_bytes()) == key_of(path.read_bytes())


def test_real_vendor_certificates_too():
    """Also those that `cryptography` refuses: the agent must not be pickier than the verifier."""
    checked = 0
    for path in shared_path("corpus").rglob("*"):
        if path.suffix.lower() not in {".der", ".crt", ".cer", ".cert"} or not path.is_file():
            continue
        content = path.read_bytes()
        if content[:1] != b"\x30":
            continue
        try:
            expected = key_of(der.trim(content))
        except Exception:  # noqa: BLE001 - whatever another library cannot read
            continue
        assert der.subject_key(der.trim(content)) == expected, path.name
        checked += 1
    assert checked > 20


@pytest.mark.parametrize("padding", [b"", b"\xff" * 700, bytes(10)])
def test_padding_is_trimmed(padding):
    assert der.trim(CERTIFICATE + padding) == CERTIFICATE


def test_a_chain_is_split_at_its_certificates_and_what_follows_is_reported():
    second = OURS[1].read_bytes()
    assert der.split(CERTIFICATE + b"\xff" * 9 + second + b"\xff" * 3) == (
        [CERTIFICATE, second],
        len(CERTIFICATE) + len(second) + 12,
    )
    assert der.split(CERTIFICATE + b"garbage") == ([CERTIFICATE], len(CERTIFICATE))
    assert der.split(CERTIFICATE + second[:-1]) == ([CERTIFICATE], len(CERTIFICATE))
    assert der.split(b"") == ([], 0)


@given(st.integers(0, len(CERTIFICATE) - 1), st.integers(1, 255), st.integers(0, len(CERTIFICATE)))
def test_damage_gives_a_key_or_the_one_error(position, flip, cut):
    damaged = bytearray(CERTIFICATE)
    damaged[position] ^= flip
    for content in (bytes(damaged), CERTIFICATE[:cut]):
        with contextlib.suppress(der.DerError):
            der.subject_key(der.trim(content))


@given(st.binary(max_size=64))
def test_random_bytes_give_the_one_error_or_a_sequence(content):
    with contextlib.suppress(der.DerError):
        assert content.startswith(der.trim(content))
    found, end = der.split(content)
    assert end <= len(content)
    assert sum(map(len, found)) <= end


@pytest.mark.parametrize(
    "before",
    [b"", b"SIZE", b"\x10\x01\x00SIZE", b"\x10\x01\x00SIZE\x10\x02"],
    ids=["bare", "TPM2B", "TCG", "TCG full"],
)
@pytest.mark.parametrize("behind", [b"", b"\xff" * 50])
def test_what_makers_write_before_a_certificate_is_taken_off(before, behind):
    size = len(CERTIFICATE).to_bytes(2, "big")
    assert der.trim(before.replace(b"SIZE", size) + CERTIFICATE + behind) == CERTIFICATE


@pytest.mark.parametrize(
    "data", [b"", b"0", b"\x10\x01\x00", b"\x04\xb0", b"\x04\xb0\x31" + CERTIFICATE, b"\xff" * 64]
)
def test_what_is_no_certificate_is_an_error_and_nothing_else(data):
    with pytest.raises(der.DerError):
        der.trim(data)
