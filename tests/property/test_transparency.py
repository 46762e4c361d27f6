"""The log's trees: every proof of every small log holds, no changed bit does, and no bytes break a parser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.transparency.reference import Reference
from tests.unit.transparency.test_tiles import Kept, hashes
from verifier.transparency import entries, merkle, tiles
from verifier.transparency.bundle import Bundle
from verifier.transparency.checkpoint import Checkpoint, opened
from verifier.transparency.errors import LogError, ProofError
from verifier.transparency.notes import KeySigner, Note, VerifierKey

MOST = 300
LEAVES = hashes(MOST)
REFERENCE = Reference(LEAVES)
TREE = Kept()
ROOTS = [merkle.EMPTY_ROOT] + [TREE.append(leaf) for leaf in LEAVES]

sizes = st.integers(1, MOST)


def test_every_proof_of_every_size_holds() -> None:
    """Made as the RFC says, so that what checks proofs is not held against what makes them here."""
    for size in range(1, MOST + 1):
        assert ROOTS[size] == REFERENCE.root(size)
        for index in range(size):
            merkle.verify_inclusion(LEAVES[index], index, size, REFERENCE.path(index, size), ROOTS[size])
        for old in range(size + 1):
            merkle.verify_consistency(old, ROOTS[old], size, ROOTS[size], REFERENCE.proof(old, size))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), size=sizes)
def test_proofs_from_tiles_are_those_of_the_rfc(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    assert list(tiles.inclusion(index, size, TREE.read)) == REFERENCE.path(index, size)
    assert list(tiles.consistency(index, size, TREE.read)) == REFERENCE.proof(index, size)


def _flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data) ^ (1 << bit)).to_bytes(len(data))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=sizes)
def test_no_changed_bit_of_an_inclusion_proof_is_believed(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    parts = [LEAVES[index], ROOTS[size], *tiles.inclusion(index, size, TREE.read)]
    for at in range(len(parts)):
        for bit in range(0, 256, 5):
            leaf, root, *proof = [*parts[:at], _flipped(parts[at], bit), *parts[at + 1 :]]
            with pytest.raises(ProofError):
                merkle.verify_inclusion(leaf, index, size, proof, root)
    leaf, root, *proof = parts
    for other in set(range(size + 2)) - {index}:
        with pytest.raises(ProofError):
            merkle.verify_inclusion(leaf, other, size, proof, root)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), new=sizes)
def test_no_changed_bit_of_a_consistency_proof_is_believed(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new))
    parts = [ROOTS[old], ROOTS[new], *tiles.consistency(old, new, TREE.read)]
    for at in range(len(parts)):
        for bit in range(0, 256, 5):
            before, after, *proof = [*parts[:at], _flipped(parts[at], bit), *parts[at + 1 :]]
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, before, new, after, proof)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.integers(0, 90), max_size=8))
def test_a_log_does_not_depend_on_how_it_grew(parts: list[int]) -> None:
    kept, leaves = Kept(), hashes(sum(parts))
    reference = Reference(leaves)
    for part in parts:
        root = kept.append(*leaves[kept.size : kept.size + part])
        assert root == reference.root(kept.size) == tiles.root(kept.size, kept.read)


KEY = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
PARSERS: dict[str, Callable[[bytes], object]] = {
    "note": Note.parse,
    "checkpoint": lambda data: opened(data, [KEY]),
    "checkpoint-text": lambda data: Checkpoint.parse(data.decode(errors="surrogateescape")),
    "key": lambda data: VerifierKey.parse(data.decode(errors="surrogateescape")),
    "private-key": lambda data: KeySigner.parse(data.decode(errors="surrogateescape")),
    "tile-path": lambda data: tiles.parse_tile_path(data.decode(errors="surrogateescape")),
    "entry": entries.parse,
    "bundle": Bundle.parse,
}
SAMPLES = [
    b"log\n5\n41smjBUiAU70EtKlT6lIOIYtRTYxYXsDB+XHfcvu/BE=\n\n\xe2\x80\x94 log AAAAAAE=\n",
    b"PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    b"PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
    b"tile/0/x001/x234/067.p/12",
    b'{"kind":"audit/1","tenant":"t","at":1,"actor":"a","action":"b","subject":"c","reason":"","detail":"{}"}',
    b'{"format":"vtpm-attest-log-proof/1","entry":"{}","index":0,"proof":[],"checkpoint":"log\\n"}',
]


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    sample = draw(st.sampled_from(SAMPLES))
    at = draw(st.integers(0, len(sample)))
    return sample[:at] + draw(st.binary(max_size=6)) + sample[at + draw(st.integers(0, 8)) :]


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), _damaged()))
def test_parsers_return_or_raise_their_one_error(name: str, data: bytes) -> None:
    with contextlib.suppress(LogError):
        PARSERS[name](data)
