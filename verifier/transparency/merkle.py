"""Merkle trees as in RFC 6962, section 2.1; proofs are checked as in RFC 9162, sections 2.1.3.2 and 2.1.4.2."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from verifier.transparency.errors import ProofError

HASH: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
MAX_SIZE: Final = 1 << 62
"""Leaves; above every proof's reach, so that no number of a proof is too large to count with."""
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """Hash of an entry."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node over its two children."""
    return hashlib.sha256(_NODE + left + right).digest()


def fold(hashes: bytes) -> bytes:
    """Root over 2**n hashes of one level, concatenated."""
    sha256 = hashlib.sha256
    while len(hashes) > HASH:
        hashes = b"".join(
            [sha256(_NODE + hashes[at : at + 2 * HASH]).digest() for at in range(0, len(hashes), 2 * HASH)]
        )
    return hashes


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is at `index` of the tree of `size` leaves with this root.

    Proven on return: whoever stands by `root` stands by this leaf at this place. Not proven: who that is.

    Args:
        leaf: hash of the entry, as by `leaf_hash`.
        index: from 0.
        size: leaves of the tree.
        proof: hashes from the leaf upward.
        root: of the tree.

    Raises:
        ProofError: it is not, or the proof has another shape than one of this index and size.
    """
    _check_hashes(proof)
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"index {index} is not in a tree of {size} leaves")
    at, last, result = index, size - 1, leaf
    for number, sibling in enumerate(proof):
        if last == 0:
            raise ProofError(
                f"the proof has {len(proof)} hashes, {number} are right for index {index} of {size}"
            )
        if at & 1 or at == last:
            result = node_hash(sibling, result)
            at, last = _past_only_children(at, last)
        else:
            result = node_hash(result, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofError(f"the proof is too short: {len(proof)} hashes for index {index} of {size}")
    if result != root:
        raise ProofError(
            f"the proof leads from leaf {index} to another root than the tree of {size} leaves has"
        )


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `new_size` leaves begins with all leaves of the older tree, unchanged and in their order.

    Raises:
        ProofError: it does not, or the proof has another shape than one of these sizes.
    """
    _check_hashes(proof)
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise ProofError(f"a log of {new_size} leaves is no later state of one of {old_size}")
    if old_size == new_size and old_root != new_root:
        raise ProofError(
            f"two roots for the same {new_size} leaves: the log was rewritten, or shown differently"
        )
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ProofError("the root of no leaves is the SHA-256 of nothing, not this")
    if old_size in (0, new_size):
        if proof:
            raise ProofError(f"nothing is to be proven from {old_size} to {new_size}; the proof is not empty")
        return
    _check_grown(old_size, old_root, new_size, new_root, proof)


def _check_grown(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    path = iter(proof)
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # Where the old tree is one whole subtree of the new one its root is where the proof begins.
    old = new = old_root if at == 0 else _next(path, old_size, new_size)
    for sibling in path:
        if last == 0:
            raise ProofError(f"the proof has too many hashes for sizes {old_size} and {new_size}")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            at, last = _past_only_children(at, last)
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofError(f"the proof has too few hashes for sizes {old_size} and {new_size}")
    if old != old_root:
        raise ProofError(
            f"the log does not begin with the {old_size} leaves it had: they were changed or dropped"
        )
    if new != new_root:
        raise ProofError(f"the proof does not lead to the root of {new_size} leaves")


def _past_only_children(at: int, last: int) -> tuple[int, int]:
    """Up to where a node has a sibling to its left: above its right edge a tree has no nodes with one child."""
    while not at & 1 and at != 0:
        at, last = at >> 1, last >> 1
    return at, last


def _next(path: Iterator[bytes], old_size: int, new_size: int) -> bytes:
    found = next(path, None)
    if found is None:
        raise ProofError(f"the proof is empty; one from {old_size} to {new_size} leaves is not")
    return found


def _check_hashes(proof: Sequence[bytes]) -> None:
    for number, each in enumerate(proof):
        if len(each) != HASH:
            raise ProofError(f"hash {number} of the proof has {len(each)} bytes, not {HASH}")
