"""Images, variables and revocation lists that a boot is predicted from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tests import pe, pki
from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.simulator.keys import private_key
from tests.unit.predict.conftest import issue, unpacked, vectors
from tests.unit.predict.test_uki import EVERYTHING
from tests.unit.predict.test_variables import hashes_list, update
from verifier.errors import EvidenceError
from verifier.predict.authenticode import read_image
from verifier.predict.pe import authenticode_digest, parse_pe
from verifier.predict.revocations import read_revocations, reference_set
from verifier.predict.secure_boot import describe_signatures
from verifier.predict.shim import is_shim, read_shim
from verifier.predict.uki import is_uki, read_uki, section_events
from verifier.predict.variable_store import read_variable_store
from verifier.predict.variables import from_efivars, parse_guid, signature_database, split_lists
from verifier.tcg.algorithms import HashAlg

RAISES = (EvidenceError,)
RUNS = 300
MEMORY = Bound(200, 4 << 20)
CALLS = Bound(200, 100_000)


def image(data: bytes) -> None:
    read = parse_pe(data)
    authenticode_digest(read, HashAlg.SHA256)
    describe_signatures(read_image("fuzz", data))
    if is_uki(read):
        section_events(read_uki(read), HashAlg.SHA256)
    if is_shim(read):
        read_shim(read)


def revocations(data: bytes) -> None:
    assert reference_set(read_revocations(data), "fuzz", "fuzz")


READERS: tuple[Callable[[bytes], object], ...] = (
    image,
    revocations,
    read_variable_store,
    lambda data: split_lists(signature_database(data, bytes(16))),
    lambda data: from_efivars({"SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": data}),
    lambda data: parse_guid(data.decode("utf-8", "surrogateescape")),
)


def seeds() -> Iterator[bytes]:
    sbat = pe.Part(
        ".sbat",
        b"sbat,1,SBAT Version\nsystemd-stub,1,The systemd Developers,systemd,257.13,https://systemd.io/\n",
    )
    plain = pe.build()
    uki = pe.build(pe.Shape(parts=(*pe.Shape().parts, sbat, pe.Part(".linux", plain), *EVERYTHING)))
    shim = pe.build(
        pe.Shape(
            parts=(
                *pe.Shape().parts,
                sbat,
                pe.Part(".vendor_cert", bytes(16)),
                pe.Part(".sbatlevel", bytes(64)),
            )
        )
    )
    signer = issue("fuzz", key=private_key("rsa2048", "fuzz signer")).signer()
    listed = {
        "images": {"x64": [{"authenticodeHash": "AB" * 32, "filename": "a.efi", "description": "d"}]},
        "svns": [{"value": "01" + "00" * 31}],
        "certificates": [{"subjectName": "s"}],
    }
    lists = hashes_list(b"a" * 32, b"b" * 32)
    stores = [unpacked(store)[:60_000] for store in vectors("boots")["stores"].values()]
    yield from choices(
        {
            0: [
                plain,
                uki,
                shim,
                pe.sign(plain, signer),
                pe.sign(uki, signer),
                pe.build(pe.Shape(pe32=True)),
            ],
            1: [lists, update(lists), json.dumps(listed).encode(), b'{"images":' + b"[" * 3000],
            2: stores,
            3: [lists, update(lists), pki.Ca.root().der],
            4: [b"\6\0\0\0\1"],
            5: [b"8be4df61-93ca-11d2-aa0d-00e098032b8c"],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
