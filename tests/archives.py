"""Tiny archives made byte by byte (cpio, RPM) or with the tools that make real ones (dpkg-deb, tarfile)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import struct
import subprocess
import tarfile
from pathlib import Path

import zstandard


def cpio(*members: tuple[str, bytes, int], inodes: dict[str, int] | None = None) -> bytes:
    """A newc archive of (name, content, mode). Names with an inode are links to each other."""
    data = b""
    inodes = inodes or {}
    for number, (name, content, mode) in enumerate([*members, ("TRAILER!!!", b"", 0)], 1):
        links = sum(inode == inodes.get(name) for inode in inodes.values()) or 1
        raw = name.encode() + b"\0"
        fields = (inodes.get(name, number), mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        entry = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        entry += bytes(-len(entry) % 4)
        data += entry + content + bytes(-len(content) % 4)
    return data


FILE, LINK, FOLDER, DEVICE = 0o100755, 0o120777, 0o040755, 0o020600


def deb(folder: Path, files: dict[str, bytes], *, compression: str = "xz", links=(), **control) -> Path:
    """A package made by dpkg-deb. `links`: (target, name) of hard links."""
    tree = folder / "tree"
    for name, content in files.items():
        path = tree / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for target, name in links:
        (tree / name.lstrip("/")).hardlink_to(tree / target.lstrip("/"))
    scripts = control.pop("scripts", {})
    fields = {"Package": "tiny", "Version": "1:2.0-3", "Architecture": "amd64"} | control
    fields |= {"Maintainer": "Nobody <nobody@example.org>", "Description": "tiny"}
    debian = tree / "DEBIAN"
    debian.mkdir(parents=True)
    (debian / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    for name, content in scripts.items():
        (debian / name).write_bytes(content)
        (debian / name).chmod(0o755 if name != "conffiles" else 0o644)
    out = folder / f"{fields['Package']}_{compression}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", tree, out],
        check=True,
        capture_output=True,
    )
    return out


def tar(*members: tuple[str, bytes | None] | tarfile.TarInfo, kind=tarfile.GNU_FORMAT) -> bytes:
    """An archive of (name, content) — None: a folder — and of members as they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            if member[1] is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def oci(*layers: bytes, platforms: int = 1) -> bytes:
    """An OCI layout in a tar archive, with the same layers for every platform."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    described = [blob(layer) for layer in layers]
    manifests = []
    for number in range(platforms):
        manifest = blob(json.dumps({"schemaVersion": 2, "layers": described, "number": number}).encode())
        manifests.append(manifest | {"platform": {"os": "linux", "architecture": ("amd64", "arm64")[number]}})
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    return tar(*(files | blobs).items())


COMPRESSED = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=False).compress(data),
    "zstd-checksum": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "zstd-stream": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
    "two-gzips": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "two-zstds": lambda data: b"".join(
        zstandard.ZstdCompressor().compress(part) for part in (data[:700], data[700:])
    ),
}


def rpm(
    files: list[tuple[str, bytes, int]], *, compress=gzip.compress, digests=None, stripped=False
) -> bytes:
    """A package of (path, content, flags): lead, empty signature header, header, cpio payload."""
    folders = sorted({path.rpartition("/")[0] + "/" for path, _, _ in files})
    digests = digests or [hashlib.sha256(content).hexdigest() for _, content, _ in files]
    count = len(files)

    def numbers(kind, values):
        return kind, count, b"".join(value.to_bytes({3: 2, 4: 4}[kind], "big") for value in values)

    def words(kind, values):
        return kind, len(values), b"".join(value.encode() + b"\0" for value in values)

    tags = {
        1000: words(6, ["tiny"]),
        1001: words(6, ["1.2"]),
        1002: words(6, ["3"]),
        1022: words(6, ["noarch"]),
        1028: numbers(4, [len(content) for _, content, _ in files]),
        1030: numbers(3, [FILE] * count),
        1035: words(8, digests),
        1037: numbers(4, [flags for _, _, flags in files]),
        1116: numbers(4, [folders.index(path.rpartition("/")[0] + "/") for path, _, _ in files]),
        1117: words(8, [path.rpartition("/")[2] for path, _, _ in files]),
        1118: words(8, folders),
        5011: (4, 1, (8).to_bytes(4, "big")),
    }
    if stripped:
        payload = b"".join(
            b"07070X%08x" % index + bytes(2) + content + bytes(-len(content) % 4)
            for index, (_, content, _) in enumerate(files)
        )
        payload += cpio()
    else:
        payload = cpio(*((f".{path}", content, FILE) for path, content, flags in files if not flags & 64))
    lead = b"\xed\xab\xee\xdb\x03\x00" + bytes(90)
    return lead + _header({}) + _header(tags) + compress(payload)


def _header(tags) -> bytes:
    index, data = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        data += bytes(-len(data) % {3: 2, 4: 4}.get(kind, 1))
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += value
    return b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(tags), len(data)) + index + data
