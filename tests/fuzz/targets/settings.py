"""Settings of the verifier: its file, database URLs, and the texts in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conftest import ROOT
from tests.fuzz.corpora import as_file, choices, files
from tests.fuzz.targets import Bound
from verifier.errors import VtpmAttestError
from verifier.settings import load_settings
from verifier.store.location import parse_location

RAISES = (VtpmAttestError,)
RUNS = 500
MEMORY = Bound(200, 32 << 20)
"""Python's reader of TOML takes the square of a dotted key; the file is the operator's own."""
CALLS = Bound(400, 100_000)
READERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: load_settings(as_file(data, "verifier.toml"), {}),
    lambda data: parse_location(data.decode("utf-8", "surrogateescape")),
)


def seeds() -> Iterator[bytes]:
    toml = b'public_url = "https://v.test"\nstate_dir = "/tmp"\n[listen]\nport = 8443\n[limits]\nbody_timeout = "10s"\n[history]\nkeep = "90d"\n'
    yield from choices(
        {
            0: [
                toml,
                b"a" + b".a" * 300 + b" = 1",
                b"a = " + b"[" * 2000,
                *files(ROOT / "docker", "*.toml"),
            ],
            1: [b"sqlite:////var/lib/v.db", b"postgresql://u:p@h,h2:5432/n?sslmode=require", b"sqlite://"],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
