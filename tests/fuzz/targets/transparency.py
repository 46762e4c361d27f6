"""What a log shows of itself: notes, checkpoints, proofs, entries, keys, paths of tiles. Each has one form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.unit.transparency.test_entries import AUDIT, VERDICT, Kept, bundle_of, hashes, key_of
from verifier.transparency import checkpoint, entries, tiles
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.cosignature import cosign, cosigned
from verifier.transparency.errors import LogError, NoteError
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey

RAISES = (LogError,)
RUNS = 1500
MEMORY = Bound(100, 1 << 20)
CALLS = Bound(100, 50_000)
LOG, WITNESS = key_of(1), KeySigner.parse(key_of(2).encode(), Algorithm.COSIGNATURE_V1)
GOOD = bundle_of(entries.audit_entry(AUDIT))


def note(data: bytes) -> None:
    read = Note.parse(data)
    assert Note.parse(read.encode()) == read
    cosigned(read, [WITNESS.key])
    opened = checkpoint.opened(data, [LOG.key])
    assert opened.checkpoint.size == 1000, "believed, and not one that was signed"


def proof(data: bytes) -> None:
    read = Bundle.parse(data)
    assert Bundle.parse(read.encode()) == read
    read.proven([LOG.key])
    assert dataclasses.replace(read, checkpoint="") == dataclasses.replace(GOOD, checkpoint=""), "believed"


def growth(data: bytes) -> None:
    read = Consistency.parse(data)
    assert Consistency.parse(read.encode()) == read


def key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        read = KeySigner.parse(text)
    except NoteError:
        assert VerifierKey.parse(text).encode() == text.strip()
    else:
        assert KeySigner.parse(read.encode()).key == read.key


READERS: tuple[Callable[[bytes], object], ...] = (
    note,
    proof,
    growth,
    key,
    entries.parse,
    lambda data: tiles.parse_tile_path(data.decode("utf-8", "surrogateescape")),
)


def seeds() -> Iterator[bytes]:
    signed = Note.parse(GOOD.checkpoint)
    twice = dataclasses.replace(
        signed, signatures=(*signed.signatures, cosign(signed.text, WITNESS, 1_700_000_000))
    )
    kept = Kept()
    kept.append(*hashes(20))
    grown = Consistency(7, 20, tiles.consistency(7, 20, kept.read))
    yield from choices(
        {
            0: [GOOD.checkpoint.encode(), twice.encode().encode()],
            1: [GOOD.encode()],
            2: [grown.encode()],
            3: [LOG.encode().encode(), LOG.key.encode().encode(), WITNESS.key.encode().encode()],
            4: [entries.audit_entry(AUDIT), entries.verdict_entry(VERDICT)],
            5: [
                b"tile/0/x001/234.p/12",
                b"tile/" + b"9" * 5000 + b"/000",
                b"tile/0/" + b"x001/" * 2000 + b"000",
            ],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
