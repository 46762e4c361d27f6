"""What runtime sets are made of: packages, container images, initramfs and plain archives, compressed in any way."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from tests import archives as made
from tests.conftest import ROOT
from tests.fuzz.corpora import as_file, choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.ima import seeds as lists
from verifier.errors import EvidenceError
from verifier.runtime_sets.deb import DebOptions, deb_entries
from verifier.runtime_sets.ima_list import ima_entries
from verifier.runtime_sets.image import tar_entries
from verifier.runtime_sets.initramfs import initramfs_entries
from verifier.runtime_sets.making import Limits, Making
from verifier.runtime_sets.rpm import RpmOptions, rpm_entries

RAISES = (EvidenceError,)
RUNS = 400
LIMIT = 1 << 20
MEMORY = Bound(200, 24 << 20)
"""A member that expands is held chunk by chunk; decoders have windows of their own."""
CALLS = Bound(400, 100_000)


def making() -> Making:
    return Making(limits=Limits(size=LIMIT, files=1_000))


READERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: list(deb_entries([as_file(data, "a.deb")], making(), DebOptions())),
    lambda data: list(rpm_entries([as_file(data, "a.rpm")], making(), RpmOptions())),
    lambda data: list(tar_entries(as_file(data, "a.tar"), making())),
    lambda data: list(initramfs_entries([as_file(data, "initrd")], making())),
    lambda data: list(ima_entries([as_file(data, "list")], making())),
)


def seeds() -> Iterator[bytes]:
    tree = made.tar(("usr/", None), ("usr/bin/a", b"program"), made.link("usr/bin/b", "a"))
    cpio = made.cpio(
        ("usr", b"", made.FOLDER), ("usr/bin", b"", made.FOLDER), ("usr/bin/a", b"program", made.FILE)
    )
    packed = [gzip.compress(cpio, mtime=0), lzma.compress(cpio), bz2.compress(cpio), zstandard.compress(cpio)]
    with tempfile.TemporaryDirectory() as folder:
        deb = made.deb(Path(folder), {"/usr/bin/a": b"program"}, compression="gzip").read_bytes()
    rpm = (ROOT / "tests/vectors/rpm/tiny-1.2-3.noarch.rpm").read_bytes()
    yield from choices(
        {
            0: [deb],
            1: [rpm],
            2: [tree, gzip.compress(tree, mtime=0), made.oci(tree)],
            3: [cpio, *packed, bytes(512) + packed[0], cpio + bytes(4) + packed[1]],
            4: list(lists())[:6],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
