"""A blob is its digest, or it is damage by name; whatever a row says of itself, reading it is bounded."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from verifier.errors import StoredDataDamaged
from verifier.store import blobs


def _packed(data):
    return blobs.pack(hashlib.sha256(data).digest(), data)


@given(st.binary(max_size=3000), st.integers(1, 50))
def test_every_content_comes_back(part, times):
    data = part * times
    assert blobs.unpack(_packed(data)) == data


def test_what_compresses_is_compressed_and_what_does_not_is_kept_as_it_is():
    log = b"\x04\x00\x00\x00EV_EFI_BOOT_SERVICES_APPLICATION" * 1000
    assert _packed(log).codec == blobs.ZSTD
    assert len(_packed(log).content) < len(log) // 20
    noise = hashlib.shake_256(b"").digest(1000)
    assert _packed(noise) == blobs.PackedBlob(hashlib.sha256(noise).digest(), blobs.RAW, 1000, noise)


@given(st.binary(min_size=300, max_size=2000), st.data())
def test_one_changed_byte_anywhere_is_damage(data, draw):
    packed = _packed(data + b"A" * 300)
    at = draw.draw(st.integers(0, len(packed.content) - 1))
    content = bytearray(packed.content)
    content[at] ^= draw.draw(st.integers(1, 255))
    damaged = structs.replace(packed, content=bytes(content))
    try:
        found = blobs.unpack(damaged)
    except StoredDataDamaged as error:
        found = str(error)
    # A bit of the frame's header that no decoder looks at leaves the content as it was.
    assert found == data + b"A" * 300 or (isinstance(found, str) and packed.digest.hex() in found)


@pytest.mark.parametrize(
    "changes",
    [
        {"content": b""},
        {"content": b"not a frame"},
        {"size": 1},
        {"size": -1},
        {"size": blobs.MAX_SIZE + 1},
        {"codec": blobs.RAW},
        {"codec": 7},
        {"digest": b"\x00" * 32},
    ],
)
def test_a_row_that_lies_is_damage_by_name(changes):
    damaged = structs.replace(_packed(b"a boot log " * 100), **changes)
    with pytest.raises(StoredDataDamaged, match=damaged.digest.hex()):
        blobs.unpack(damaged)


def test_a_frame_that_expands_without_end_is_never_expanded():
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(StoredDataDamaged):
            blobs.unpack(blobs.PackedBlob(b"\x00" * 32, blobs.ZSTD, 1000, bomb))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_caller_cannot_store_under_a_wrong_digest_or_without_limit(monkeypatch):
    with pytest.raises(ValueError, match="not the digest"):
        blobs.pack(b"\x00" * 32, b"content")
    monkeypatch.setattr(blobs, "MAX_SIZE", 10)
    with pytest.raises(ValueError, match="exceeds"):
        _packed(b"x" * 11)
