"""A kernel's IMA and its TPM, as far as lists and PCRs go; written from the kernel's sources, apart from the parser.

Entries are packed and hashed here by hand, so that a mistake in `verifier.tcg.ima` cannot hide in its own tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
TEMPLATES = {
    "ima": "d|n",
    "ima-ng": "d-ng|n-ng",
    "ima-ngv2": "d-ngv2|n-ng",
    "ima-sig": "d-ng|n-ng|sig",
    "ima-sigv2": "d-ngv2|n-ng|sig",
    "ima-buf": "d-ng|n-ng|buf",
    "ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
    "evm-sig": "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
}


@dataclass
class ImaKernel:
    """Measures into a list and into PCRs, as the kernel does after it booted.

    Attributes:
        template: of files; a name, or a format as in `ima_template_fmt`.
        order: byte order of the machine, `<` or `>`.
        banks: active PCR banks.
        padded: a kernel before 5.8: SHA-1 padded into every bank.
        digest: digest of the list's own template digests: `sha1`, or that of a per-algorithm list.
    """

    template: str = "ima-ng"
    order: str = "<"
    banks: tuple[str, ...] = ("sha1", "sha256")
    padded: bool = False
    digest: str = "sha1"
    pcr: int = 10
    algorithm: str = "sha256"
    boot: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    pcrs: dict[str, dict[int, bytes]] = field(default_factory=dict)
    binary: bytearray = field(default_factory=bytearray)
    lines: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.boot:
            self.boot = {
                bank: {pcr: bytes([pcr + 1]) * SIZES[bank] for pcr in range(10)} for bank in self.banks
            }
        self.pcrs = {bank: dict(self.boot.get(bank, {})) for bank in self.banks}
        self.aggregate()

    @property
    def list(self) -> bytes:
        return bytes(self.binary)

    @property
    def ascii(self) -> bytes:
        return "".join(line + "\n" for line in self.lines).encode("utf-8", "surrogateescape")

    def aggregate(self, pcrs: range = range(10)) -> None:
        """The entry a kernel begins with; again after kexec."""
        if self.template == "ima":
            digest = hashlib.sha1(b"".join(self.boot["sha1"][pcr] for pcr in range(8))).digest()
        else:
            bank = self.algorithm if self.algorithm in self.banks else self.banks[0]
            covered = range(8) if bank == "sha1" else pcrs
            digest = hashlib.new(bank, b"".join(self.boot[bank][pcr] for pcr in covered)).digest()
        self._add(self.template, "boot_aggregate", digest, {})

    def measure(
        self, path: str, content: bytes | str = b"", *, pcr: int | None = None, **fields: bytes
    ) -> bytes:
        """Measure a file; returns its digest."""
        raw = content.encode() if isinstance(content, str) else content
        digest = hashlib.new("sha1" if self.template == "ima" else self.algorithm, raw).digest()
        self._add(self.template, path, digest, fields, pcr=pcr)
        return digest

    def measure_digest(self, path: str, digest: bytes, **fields: bytes) -> None:
        self._add(self.template, path, digest, fields)

    def buffer(self, name: str, content: bytes) -> bytes:
        """Measure critical data, or a key loaded onto keyring `name`."""
        digest = hashlib.new(self.algorithm, content).digest()
        self._add("ima-buf", name, digest, {"buf": content})
        return digest

    def violation(self, path: str) -> None:
        """ToMToU or open writers: nothing in the list tells them apart."""
        size = 20 if self.template == "ima" else SIZES[self.algorithm]
        self._add(self.template, path, bytes(size), {}, violation=True)

    def _add(
        self,
        template: str,
        path: str,
        digest: bytes,
        fields: Mapping[str, bytes],
        *,
        violation: bool = False,
        pcr: int | None = None,
    ) -> None:
        pcr = self.pcr if pcr is None else pcr
        # As ima_write_template_field_data: blanks would be read as separators of the ascii list.
        name = path.encode("utf-8", "surrogateescape").replace(b" ", b"_")
        parts = [
            self._field(field, digest, name, fields) for field in TEMPLATES.get(template, template).split("|")
        ]
        if template == "ima":
            data = digest + struct.pack(self.order + "I", len(name)) + name
            hashed = digest + name.ljust(256, b"\0")
        else:
            data = hashed = b"".join(struct.pack(self.order + "I", len(part)) + part for part in parts)
        entry = bytes(SIZES[self.digest]) if violation else hashlib.new(self.digest, hashed).digest()
        size = b"" if template == "ima" else struct.pack(self.order + "I", len(data))
        self.offsets.append(len(self.binary))
        self.binary += struct.pack(self.order + "I", pcr) + entry
        self.binary += struct.pack(self.order + "I", len(template)) + template.encode() + size + data
        self.lines.append(self._line(pcr, entry, template, parts))
        for bank in self.banks:
            self._extend(bank, pcr, hashed, violation=violation)

    def _field(self, name: str, digest: bytes, path: bytes, fields: Mapping[str, bytes]) -> bytes:
        key = name.replace("-", "_")
        if key in fields:
            return fields[key]
        algorithm = "sha1" if self.template == "ima" else self.algorithm
        return {
            "d": digest,
            "d-ng": algorithm.encode() + b":\0" + digest,
            "d-ngv2": b"ima:" + algorithm.encode() + b":\0" + digest,
            "n": path + b"\0",
            "n-ng": path + b"\0",
            "xattrnames": b"security.selinux\0",
            "iuid": struct.pack(self.order + "I", 1000),
            "igid": struct.pack(self.order + "I", 100),
            "imode": struct.pack(self.order + "H", 0o100755),
        }.get(name, b"")

    def _line(self, pcr: int, entry: bytes, template: str, parts: list[bytes]) -> str:
        texts = []
        names = TEMPLATES.get(template, template).split("|")
        for name, part in zip(names, parts, strict=True):
            if name in {"n", "n-ng", "xattrnames"}:
                texts.append(part[:-1].decode("utf-8", "surrogateescape"))
            elif name in {"d-ng", "d-ngv2", "d-modsig"} and part:
                label, _, digest = part.partition(b":\0")
                texts.append(f"{label.decode()}:{digest.hex()}")
            elif name in {"iuid", "igid", "imode"}:
                texts.append(str(int.from_bytes(part, "little" if self.order == "<" else "big")))
            else:
                texts.append(part.hex())
        return f"{pcr:2d} {entry.hex()} {template} {' '.join(texts)}"

    def _extend(self, bank: str, pcr: int, hashed: bytes, *, violation: bool) -> None:
        size = SIZES[bank]
        if violation:
            value = (b"\xff" * 20).ljust(size, b"\0") if self.padded else b"\xff" * size
        elif self.padded:
            value = hashlib.sha1(hashed).digest().ljust(size, b"\0")
        else:
            value = hashlib.new(bank, hashed).digest()
        before = self.pcrs[bank].get(pcr, bytes(size))
        self.pcrs[bank][pcr] = hashlib.new(bank, before + value).digest()
