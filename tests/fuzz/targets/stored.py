"""Rows as a database may give them back: what is not what we wrote is damage, named, and never judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator

import msgspec

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.simulator import SoftwareCa
from verifier.appraisal.ima.state import INITIAL, ImaState
from verifier.crypto.anchors import TrustAnchors
from verifier.errors import StoredDataDamaged
from verifier.service import bundle
from verifier.service.anchor_sets import AnchorSet
from verifier.service.endorsement_facts import read_facts
from verifier.service.ima_record import ImaRecord, read_record
from verifier.service.verdicts import read_finding
from verifier.store import blobs, rows, values

RAISES = (StoredDataDamaged,)
RUNS = 2000
MEMORY = Bound(100, 2 << 20)


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Columns of text; a driver gives no more than text, which may hold anything."""
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def blob(data: bytes) -> bytes:
    """Content that does not fit its digest, or its size, or is no frame."""
    size = int.from_bytes(data[:4], "little")
    stored = blobs.PackedBlob(
        hashlib.sha256(data).digest(), data[4] % 4 if len(data) > 4 else 0, size, data[5:]
    )
    return blobs.unpack(stored)


def of_object(read: Callable[[dict[str, object]], object]) -> Callable[[bytes], object]:
    return lambda data: read(values.read_object(data.decode("utf-8", "surrogateescape")))


def same(state: ImaState) -> None:
    assert ImaState.from_json(state.to_json()) == state


READERS: tuple[Callable[[bytes], object], ...] = (
    text(values.read_identity),
    text(values.read_lineage),
    text(values.read_machine),
    text(values.read_inventory_event),
    text(values.read_object),
    text(values.read_labels),
    text(values.read_strings),
    text(values.read_scopes),
    rows.read_judgement,
    lambda data: same(ImaState.from_json(data)),
    text(read_record),
    AnchorSet.decode,
    bundle.unpack,
    blob,
    of_object(read_facts),
    of_object(read_finding),
)


def seeds() -> Iterator[bytes]:
    record = ImaRecord(offset=5, base=2, states={bytes(32): INITIAL})
    content = b"content" * 100
    packed = blobs.pack(hashlib.sha256(content).digest(), content)
    finding = {
        "code": "quote-pcr-values",
        "status": "failed",
        "severity": "contraindicated",
        "claim": "configuration",
    }
    evidence = {
        "format": bundle.FORMAT, "attester_id": "att-1", "ak_public": b"", "nonce": bytes(32),
        "request": [{"bank": "sha256", "pcrs": [1]}], "attest": b"", "signature": b"", "pcrs": {"sha256": {1: bytes(32)}},
        "boot_log_sha256": None, "kernel_command_line": None, "smbios_uuid": None, "boot_id": None, "ratchet": None,
    }  # fmt: skip
    trusted = AnchorSet(TrustAnchors.from_der(SoftwareCa().anchors_der), ())
    yield from choices(
        {
            0: [b'{"hostname":"a","smbios_uuid":"b"}', b"{}"],
            1: [b"{}", b"null"],
            2: [b'{"key":{"source":"s","id":"i"},"name":"n"}'],
            3: [b"{}"],
            4: [b'{"a":[1,2.5,null,{"b":true}]}', b'{"a":' + b"[" * 3000],
            5: [b'{"a":"b"}'],
            6: [b'["a"]', b"[" * 3000],
            7: [b'["admin"]', b"admin read"],
            8: [json.dumps({"vector": {"a": 1}, "findings": [finding]}).encode()],
            9: [INITIAL.to_json().encode()],
            10: [record.to_json().encode()],
            11: [trusted.encode()[1]],
            12: [msgspec.msgpack.encode(evidence)],
            13: [
                len(content).to_bytes(4, "little") + b"\x01" + packed.content,
                b"\xff\xff\xff\x0f\x01" + packed.content,
            ],
            14: [b'{"endorsed_by":"certificate"}'],
            15: [json.dumps(finding | {"message": "m"}).encode()],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
