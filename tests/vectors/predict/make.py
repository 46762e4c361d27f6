"""Make the vectors of this folder: boot, read back, keep what is small. See README.md.

    python -m tests.vectors.predict.make PACKAGES [NAME...]

PACKAGES is a folder with unpacked Debian packages, each in a folder `NAME_VERSION`. Code is never kept: of every
image of somebody else's the vectors hold headers, certificates and texts, with everything else zeroed, and the
digests that the true bytes have (`stand_ins`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests import pe
from tests.vectors.predict import lab
from verifier.predict.pe import PeImage, authenticode_digest, hash_chunks, parse_pe
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import Event, parse_event_log

ALGS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384)
COMMAND_LINE = "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable"
UNTIDY = b"  " + COMMAND_LINE.replace(" quiet", "\tquiet").encode() + b" \n\0"
"""Spaces and control characters, which stubs tidy up each in its own way."""
TEXTS = {
    ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".sdmagic", ".pcrpkey", ".pcrsig",
    ".data.ident", ".sbatlevel", ".vendor_cert",
}  # fmt: skip
SECRET = "LoaderBootSecret".encode("utf-16-le")
LOGS = ("stub 252 signed on own", "stub 257 signed on own", "shim, GRUB 2.06 on ms", "shim, stub 252 on ms")
"""Boots whose log is kept, to be judged under a predicted policy."""
OFF = lab.OVMF / "OVMF_VARS.fd"
Files = dict[str, bytes]


class Recorder:
    """Collects boots, and the skeleton of each image once."""

    def __init__(self) -> None:
        self.skeletons: dict[str, str] = {}
        self.stand_ins: dict[str, dict[str, str]] = {}
        self.boots: list[dict[str, object]] = []

    def image(self, data: bytes) -> str:
        """Keep the skeleton of an image; the name under which it is kept."""
        skeleton = self._skeleton(data)
        key = hashlib.sha256(skeleton).hexdigest()
        self.skeletons[key] = packed(skeleton)
        return key

    def _skeleton(self, data: bytes) -> bytes:
        image = parse_pe(data)
        kept = bytearray(len(data))
        for start, end in _kept(image):
            kept[start:end] = data[start:end]
        skeleton = parse_pe(bytes(kept))
        self._stand_in(
            lambda alg: authenticode_digest(skeleton, alg), lambda alg: authenticode_digest(image, alg)
        )
        kernel, hollow = image.section(".linux"), skeleton.section(".linux")
        if kernel is not None and hollow is not None:
            true, false = image.content(kernel), skeleton.content(hollow)
            self._stand_in(lambda alg: hash_chunks(false, alg), lambda alg: hash_chunks(true, alg))
            inner, inner_false = parse_pe(b"".join(true)), parse_pe(b"".join(false))
            self._stand_in(
                lambda alg: authenticode_digest(inner_false, alg), lambda alg: authenticode_digest(inner, alg)
            )
        return bytes(kept)

    def _stand_in(self, false: Callable[[HashAlg], bytes], true: Callable[[HashAlg], bytes]) -> None:
        if false(HashAlg.SHA256) != true(HashAlg.SHA256):
            self.stand_ins[false(HashAlg.SHA256).hex()] = {alg.label: true(alg).hex() for alg in ALGS}


def _kept(image: PeImage) -> Iterator[tuple[int, int]]:
    yield 0, image.header_size
    offset, size = image.certificates
    yield offset, offset + size
    yield from _strings(image)
    for section in image.sections:
        if section.name in TEXTS:
            yield section.raw_offset, section.raw_offset + section.raw_size
        elif section.name == ".linux":
            yield from _kept_of_kernel(image.data, section.raw_offset)
    found = image.data.find(SECRET)
    if found >= 0:
        yield found, found + len(SECRET)


def _kept_of_kernel(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Headers, and the text of the version."""
    yield start, start + 0x400
    version = start + 0x200 + struct.unpack_from("<H", data, start + 0x20E)[0]
    yield version, version + 32


def _strings(image: PeImage) -> Iterator[tuple[int, int]]:
    """Of the COFF string table: its size, and the long names of sections."""
    coff = struct.unpack_from("<I", image.data, 0x3C)[0] + 4
    symbols, count = struct.unpack_from("<II", image.data, coff + 8)
    if symbols:
        start = symbols + 18 * count
        yield start, start + 4
        for section in image.sections:
            name = section.name.encode() + b"\0"
            if len(name) > 9 and (at := image.data.find(b"\0" + name, start)) >= 0:
                yield at + 1, at + 1 + len(name)


def packed(data: bytes) -> str:
    return base64.b64encode(lzma.compress(data, lzma.FORMAT_ALONE, preset=9)).decode()


class Boots:
    """Real kernels behind systemd-stub, shim, GRUB and systemd-boot."""

    def __init__(self, packages: Path, work: Path) -> None:
        self.work = work
        self.packages = packages
        self.keys = lab.keys(work)
        self.stores = {
            "own": lab.own_store(work, self.keys),
            "ms": lab.microsoft_store(work, self.keys),
            "off": OFF,
        }
        self.initrd = lab.initrd(work)
        self.kernel = self.file("linux-image-6.1.*-cloud-amd64_*/boot/vmlinuz-*")
        self.shim = self.file("shim-signed_*/usr/lib/shim/shimx64.efi.signed")
        self.recorder = Recorder()

    def path(self, pattern: str) -> Path:
        return max(self.packages.glob(pattern))

    def file(self, pattern: str) -> bytes:
        return self.path(pattern).read_bytes()

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.crt"

    def uki(self, stub: str, signer: str | None, *, signature: bool = False, pad: int = 8) -> bytes:
        sections = [
            (".osrel", b"ID=vector\n"),
            (".cmdline", UNTIDY),
            (".uname", b"6.1"),
            (".initrd", self.initrd + b"\0"),
        ]
        sections.append((".linux", self.kernel))
        if signature:
            sections += [(".pcrpkey", b"-----BEGIN PUBLIC KEY-----\n"), (".pcrsig", b'{"sha256":[]}')]
        path = self.path(f"systemd-boot-efi_{stub}*/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
        return lab.make_uki(self.work, path, sections, signer=self.key(signer) if signer else None, pad=pad)

    def record(self, name: str, chain: Mapping[str, bytes], files: Files, store: str) -> None:
        guest = lab.boot(self.work, [lab.disk(self.work / "disk.img", files)], self.stores[store])
        if not guest.pcrs:
            raise SystemExit(f"{name}: the guest said nothing\n{guest.serial[-2000:]}")
        name = f"{name} on {store}"
        print(f"{name}: PCR 4 {guest.pcrs['sha256'][4][:16]}", flush=True)
        self.recorder.boots.append(
            {
                "name": name,
                "images": {label: self.recorder.image(data) for label, data in chain.items()},
                "variables": store,
                "pcrs": {
                    bank: {str(index): values[index] for index in (4, 7, 8, 9, 11, 12, 13, 14)}
                    for bank, values in guest.pcrs.items()
                },
                "command_line": guest.command_line,
                "log": packed(guest.log) if guest.log and name in LOGS else None,
            }
        )

    def ukis(self, stub: str) -> None:
        for name, image, store in (
            ("signed", self.uki(stub, "db"), "own"),
            ("signed by a leaf, with PCR signature", self.uki(stub, "leaf", signature=True), "own"),
            ("unsigned, not padded", self.uki(stub, None, signature=True, pad=1), "off"),
        ):
            self.record(f"stub {stub} {name}", {"uki.efi": image}, {"EFI/BOOT/BOOTX64.EFI": image}, store)

    def shim_ukis(self, stub: str) -> None:
        image = self.uki(stub, "db")
        for store in ("ms", "off"):
            files = {"EFI/BOOT/BOOTX64.EFI": self.shim, "EFI/BOOT/grubx64.efi": image}
            self.record(f"shim, stub {stub}", {"shim": self.shim, "uki.efi": image}, files, store)

    def grub(self, version: str) -> None:
        grub = self.file(
            f"grub-efi-amd64-signed_1+{version}*/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
        )
        config = f"set timeout=0\nlinux /vmlinuz {COMMAND_LINE}\ninitrd /initrd.img\nboot\n".encode()
        chain = {"shim": self.shim, "grub": grub, "vmlinuz": self.kernel}
        files = {
            "EFI/BOOT/BOOTX64.EFI": self.shim,
            "EFI/BOOT/grubx64.efi": grub,
            "EFI/debian/grub.cfg": config,
        }
        files |= {"vmlinuz": self.kernel, "initrd.img": self.initrd}
        for store in ("ms", "off"):
            self.record(f"shim, GRUB {version}", chain, files, store)

    def systemd_boot(self) -> None:
        image, config = self.uki("257", "db"), b"timeout 0\n"
        loader = self.file(
            "systemd-boot-efi-amd64-signed_257*/usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"
        )
        rest = {"EFI/Linux/vector.efi": image, "loader/loader.conf": config}
        for store in ("ms", "off"):
            files = {"EFI/BOOT/BOOTX64.EFI": self.shim, "EFI/BOOT/grubx64.efi": loader, **rest}
            chain = {"shim": self.shim, "systemd-boot": loader, "uki.efi": image}
            self.record("shim, systemd-boot 257, stub 257", chain, files, store)
        own = lab.sbsign(self.work, lab.unsign(self.work, loader), self.key("leaf"))
        for store in ("own", "off"):
            files = {"EFI/BOOT/BOOTX64.EFI": own, **rest}
            self.record("systemd-boot 257, stub 257", {"systemd-boot": own, "uki.efi": image}, files, store)

    def own_shim(self) -> None:
        """shim and what it loads, allowed by one entry of db: firmware and shim each measure it."""
        image = self.uki("252", "db")
        again = lab.sbsign(self.work, self.shim, self.key("db"))
        only = lab.sbsign(self.work, lab.unsign(self.work, self.shim), self.key("db"))
        for name, first in (("signed by us", only), ("signed thrice", again)):
            files = {"EFI/BOOT/BOOTX64.EFI": first, "EFI/BOOT/grubx64.efi": image}
            self.record(f"shim {name}, stub 252", {"shim": first, "uki.efi": image}, files, "own")

    def all(self) -> dict[str, object]:
        for stub in ("252", "254", "257", "262"):
            self.ukis(stub)
        for stub in ("252", "257", "262"):
            self.shim_ukis(stub)
        for version in ("2.06", "2.12", "2.14"):
            self.grub(version)
        self.systemd_boot()
        self.own_shim()
        return {
            "variables": {name: lab.variables(path) for name, path in self.stores.items()},
            "stores": {name: packed(path.read_bytes()) for name, path in self.stores.items()},
            "boots": self.recorder.boots,
            "skeletons": self.recorder.skeletons,
            "stand_ins": self.recorder.stand_ins,
        }


def signer(folder: Path, name: str, *along: str) -> pe.Signer:
    def certificate(of: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((folder / f"{of}.crt").read_bytes())

    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    return pe.Signer(key, certificate(name), [certificate(each) for each in along])


def shapes() -> dict[str, bytes]:
    """Unsigned images of every shape that OVMF starts."""
    code = pe.Part(".text", pe.NOTHING.ljust(0x200, b"\xcc"))
    data, more = pe.Part(".data", b"data" * 200), pe.Part(".more", b"more" * 50)
    return {
        "plain": pe.build(),
        "two sections": pe.build(pe.Shape(parts=[code, data])),
        "checksum set": pe.build(pe.Shape(checksum=0xDEADBEEF)),
        "bytes behind, odd length": pe.build(pe.Shape(parts=[code, data], trailing=b"trail")),
        "sections in another order in the file": pe.build(
            pe.Shape(parts=[code, data, more], file_order=[2, 0, 1])
        ),
        "section without bytes in the file": pe.build(
            pe.Shape(parts=[code, pe.Part(".bss", b"", 0x800), data])
        ),
        "hole between sections": pe.build(pe.Shape(parts=[code, pe.Part(".data", b"data" * 200, gap=0x400)])),
        "hole and bytes behind": pe.build(
            pe.Shape(parts=[code, pe.Part(".data", b"data" * 300, gap=0x200)], trailing=b"t" * 0x133)
        ),
        "no certificate directory": pe.build(pe.Shape(directories=4)),
        "six directories": pe.build(pe.Shape(directories=6)),
        "long section names": pe.build(
            pe.Shape(
                parts=[code, pe.Part("/0", b"x" * 30), pe.Part("/1", b"y" * 40)],
                long_names=[".vendor_cert", ".sbatlevel"],
            )
        ),
        "headers far behind": pe.build(pe.Shape(lfanew=0x180)),
    }


def signed_shapes(folder: Path) -> dict[str, bytes]:
    """Images for a db of our key, our CA, and the digests of two of them."""
    base = {
        name: pe.build(pe.Shape(parts=[pe.Part(".text", pe.NOTHING + name.encode() * 9)]))
        for name in "abcdefghi"
    }
    hole = pe.padded(
        pe.build(pe.Shape(parts=[pe.Part(".text", pe.NOTHING), pe.Part(".data", b"d" * 900, gap=0x200)]))
    )
    return {
        "by a key in db": pe.sign(base["a"], signer(folder, "db")),
        "by a leaf, the CA along": pe.sign(base["b"], signer(folder, "leaf", "ca")),
        "by a leaf alone": pe.sign(base["c"], signer(folder, "leaf")),
        "by a stranger, then by a key in db": pe.sign(
            pe.sign(base["d"], signer(folder, "stranger")), signer(folder, "db")
        ),
        "by a CA in db, then by a key in db": pe.sign(
            pe.sign(base["e"], signer(folder, "ca")), signer(folder, "db")
        ),
        "SHA-384": pe.sign(base["f"], signer(folder, "db"), "sha384"),
        "unsigned, digest in db": base["g"],
        "by a stranger, digest in db": pe.sign(base["h"], signer(folder, "stranger")),
        "bytes behind, signed": pe.sign(pe.build(pe.Shape(trailing=b"trail")), signer(folder, "db")),
        "hole, signed": pe.sign(
            hole, signer(folder, "db"), stated=authenticode_digest(parse_pe(hole), HashAlg.SHA256)
        ),
        "unsigned, not in db": base["i"],
    }


class Firmware:
    """Images of our own, on OVMF alone: what it measures of each, and which entry of db it measures for it."""

    def __init__(self, boots: Boots) -> None:
        self.boots = boots
        self.work = boots.work
        self.last = boots.uki("252", "db")

    def record(self, images: Mapping[str, bytes], store: Path) -> dict[str, object]:
        disks = [
            lab.disk(self.work / f"disk{index}.img", {"EFI/BOOT/BOOTX64.EFI": data})
            for index, data in enumerate([*images.values(), self.last])
        ]
        guest = lab.boot(self.work, disks, store)
        if guest.log is None:
            raise SystemExit(f"no log\n{guest.serial[-3000:]}")
        log = parse_event_log(guest.log)
        return {
            "variables": lab.variables(store),
            "images": {name: packed(data) for name, data in images.items()},
            "measured": [self._event(event, log.algorithms) for event in log.events if _told(event)],
        }

    @staticmethod
    def _event(event: Event, banks: tuple[HashAlg, ...]) -> dict[str, object]:
        digests = {bank.label: digest.hex() for bank, digest in zip(banks, event.digests, strict=True)}
        return {"pcr": event.pcr, "type": EventType(event.event_type).name, "digests": digests}

    def all(self) -> dict[str, object]:
        images = signed_shapes(self.boots.keys)
        return {"unsigned": self.record(shapes(), OFF), "signed": self.record(images, self._store(images))}

    def _store(self, images: Mapping[str, bytes]) -> Path:
        """db: our key, our CA, and the digests of two images."""
        changes: list[object] = []
        for name in ("unsigned, digest in db", "by a stranger, digest in db"):
            changes += ["--add-db-hash", lab.OWNER, pe.reference_digest(images[name]).hex()]
        (self.work / "firmware").mkdir()
        return lab.own_store(self.work / "firmware", self.boots.keys, *changes)


def _told(event: Event) -> bool:
    images = (EventType.EV_EFI_BOOT_SERVICES_APPLICATION, EventType.EV_EFI_VARIABLE_AUTHORITY)
    return event.event_type in images


def main() -> None:
    problem = lab.environment_problem()
    if problem:
        raise SystemExit(problem)
    packages, which = Path(sys.argv[1]), sys.argv[2:] or ["firmware", "boots"]
    with tempfile.TemporaryDirectory() as folder:
        boots = Boots(packages, Path(folder))
        makers: dict[str, Callable[[], dict[str, object]]] = {
            "firmware": Firmware(boots).all,
            "boots": boots.all,
        }
        for name in which:
            (lab.HERE / f"{name}.json").write_text(json.dumps(makers[name](), indent=1) + "\n")


if __name__ == "__main__":
    main()
