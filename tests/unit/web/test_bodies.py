"""Compressed bodies: expanded within a limit, or refused; never anything else."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.web.bodies import expand

COMPRESS = {"gzip": gzip.compress, "zstd": zstandard.compress}


def streamed(data: bytes) -> bytes:
    """A zstd frame that does not announce its size."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize("encoding", COMPRESS)
@given(data=st.binary(max_size=5000))
def test_what_fits_comes_back(encoding, data):
    assert expand(COMPRESS[encoding](data), encoding, len(data)) == data


def test_a_frame_of_unannounced_size_comes_back():
    assert expand(streamed(b"abc" * 10_000), "zstd", 30_000) == b"abc" * 10_000


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, streamed])
def test_a_bomb_stops_at_the_limit(compress):
    encoding = "gzip" if compress is gzip.compress else "zstd"
    bomb = compress(bytes(200_000_000))
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(EvidenceError) as caught:
        expand(bomb, encoding, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is Reason.BODY_TOO_LARGE
    assert peak < 40_000_000
    assert time.process_time() - started < 1


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d + d, lambda _: b"", lambda _: b"plain"]
)
def test_what_is_not_exactly_one_body_is_refused(encoding, damage):
    with pytest.raises(EvidenceError) as caught:
        expand(damage(COMPRESS[encoding](b"hello" * 100)), encoding, 10_000)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("encoding", COMPRESS)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused_or_expand(encoding, data):
    with contextlib.suppress(EvidenceError):
        assert len(expand(data, encoding, 1000)) <= 1000
