"""Hashes and proofs of RFC 6962: the reference tree of Certificate Transparency, and what no proof may pass with."""

from __future__ import annotations

import hashlib

import pytest

from verifier.transparency import merkle, tiles
from verifier.transparency.errors import ProofError

# Certificate Transparency's reference tree (certificate-transparency, merkletree tests): leaves, and the root after each.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(root)
    for root in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
# Its inclusion proofs: index and size, hashes from the leaf upward.
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
# Its consistency proofs: old and new size.
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
}
HASHES = list(map(merkle.leaf_hash, LEAVES))


def _reading(level: int, number: int) -> bytes:
    assert (level, number) == (0, 0)
    return b"".join(HASHES)


def _hex(hashes: object) -> list[str]:
    return [each.hex() for each in hashes]  # type: ignore[attr-defined]


def test_hashes_of_leaves_and_nodes_cannot_be_taken_for_each_other() -> None:
    left, right = HASHES[:2]
    assert merkle.leaf_hash(b"") == hashlib.sha256(b"\0").digest() == ROOTS[1]
    assert merkle.node_hash(left, right) == hashlib.sha256(b"\1" + left + right).digest() == ROOTS[2]
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


def test_roots_are_those_of_the_reference_tree() -> None:
    assert [tiles.root(size, _reading) for size in range(9)] == ROOTS
    assert ROOTS[0] == merkle.EMPTY_ROOT


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference_tree(index: int, size: int) -> None:
    proof = tiles.inclusion(index, size, _reading)
    assert _hex(proof) == INCLUSION[index, size]
    merkle.verify_inclusion(HASHES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference_tree(old: int, new: int) -> None:
    proof = tiles.consistency(old, new, _reading)
    assert _hex(proof) == CONSISTENCY[old, new]
    merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


def test_consistency_proof_of_another_implementation_holds() -> None:
    # The log `monkeys` of transparency-dev's witness tests: from 5 to 8 leaves.
    old = bytes.fromhex("e35b268c1522014ef412d2a54fa94838862d453631617b0307e5c77dcbeefc11")
    new = bytes.fromhex("57c2bd6a4959e043c1f9130e935ffc56c254745651efb183b59510abce2f49ba")
    proof = [
        bytes.fromhex(each)
        for each in (
            "b9e1d62618f7fee8034e4c5010f727ab24d8e4705cb296c374bf2025a87a10d2",
            "aac66cd7a79ce4012d80762fe8eec3a77f22d1ca4145c3f4cee022e7efcd599d",
            "89d0f753f66a290c483b39cd5e9eafb12021293395fad3d4a2ad053cfbcfdc9e",
            "29e40bb79c966f4c6fe96aff6f30acfce5f3e8d84c02215175d6e018a5dee833",
        )
    ]
    merkle.verify_consistency(5, old, 8, new, proof)
    with pytest.raises(ProofError, match="changed or dropped"):
        merkle.verify_consistency(5, new, 8, old, proof)


REFUSED_INCLUSION = {
    "other-leaf": (HASHES[4], 5, 8, 3, "another root"),
    "other-index": (HASHES[5], 4, 8, 3, "another root"),
    "index-past-the-end": (HASHES[5], 8, 8, 3, "is not in a tree of 8"),
    "negative-index": (HASHES[5], -1, 8, 3, "is not in a tree of 8"),
    "empty-tree": (HASHES[5], 0, 0, 3, "is not in a tree of 0"),
    "no-log-is-that-large": (HASHES[5], 5, 1 << 63, 3, "is not in a tree of"),
    "shorter": (HASHES[5], 5, 8, 2, "too short"),
    "size-of-a-higher-tree": (HASHES[5], 5, 9, 3, "too short"),
    "size-of-a-lower-tree": (HASHES[5], 3, 4, 3, "has 3 hashes, 2 are right"),
}


@pytest.mark.parametrize("case", REFUSED_INCLUSION)
def test_a_leaf_that_is_not_there_has_no_proof(case: str) -> None:
    leaf, index, size, length, why = REFUSED_INCLUSION[case]
    proof = tiles.inclusion(5, 8, _reading)[:length]
    with pytest.raises(ProofError, match=why):
        merkle.verify_inclusion(leaf, index, size, proof, ROOTS[8])


def test_a_hash_of_another_length_is_no_part_of_a_proof() -> None:
    *proof, last = tiles.inclusion(5, 8, _reading)
    with pytest.raises(ProofError, match="hash 2 of the proof has 31 bytes"):
        merkle.verify_inclusion(HASHES[5], 5, 8, [*proof, last[:-1]], ROOTS[8])


REFUSED_CONSISTENCY = {
    "shrunk": (8, ROOTS[8], 6, ROOTS[6], 3, "no later state"),
    "fork": (8, ROOTS[8], 8, ROOTS[7], 0, "two roots for the same 8 leaves"),
    "changed-before": (6, ROOTS[5], 8, ROOTS[8], 3, "changed or dropped"),
    "changed-after": (6, ROOTS[6], 8, ROOTS[7], 3, "does not lead to the root of 8"),
    "too-short": (6, ROOTS[6], 8, ROOTS[8], 2, "too few hashes"),
    "empty": (6, ROOTS[6], 8, ROOTS[8], 0, "is empty"),
    "too-long": (6, ROOTS[6], 7, ROOTS[7], 3, "does not lead|changed or dropped|too many"),
    "from-nothing-with-a-proof": (0, ROOTS[0], 8, ROOTS[8], 1, "not empty"),
    "from-another-nothing": (0, ROOTS[1], 8, ROOTS[8], 0, "SHA-256 of nothing"),
    "the-same-with-a-proof": (8, ROOTS[8], 8, ROOTS[8], 1, "not empty"),
    "negative": (-1, ROOTS[0], 8, ROOTS[8], 0, "no later state"),
}


@pytest.mark.parametrize("case", REFUSED_CONSISTENCY)
def test_a_log_that_was_rewritten_has_no_proof(case: str) -> None:
    old, old_root, new, new_root, length, why = REFUSED_CONSISTENCY[case]
    proof = tiles.consistency(6, 8, _reading)[:length]
    with pytest.raises(ProofError, match=why):
        merkle.verify_consistency(old, old_root, new, new_root, proof)


def test_an_unchanged_log_needs_no_proof() -> None:
    merkle.verify_consistency(8, ROOTS[8], 8, ROOTS[8], ())
    merkle.verify_consistency(0, ROOTS[0], 8, ROOTS[8], ())
