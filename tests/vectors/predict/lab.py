"""Boot images under QEMU (TCG), OVMF and swtpm, and read back what firmware, loaders and kernel measured.

Needs Debian 12's qemu-system-x86, ovmf, swtpm, swtpm-tools, sbsigntool, binutils, gcc, gdisk, mtools, and the PyPI
package virt-firmware (`virt-fw-vars`) on the PATH. A boot takes 9 to 16 s on two cores without KVM.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
OVMF = Path("/usr/share/OVMF")
BANKS = "sha1,sha256,sha384"
OWNER = "77777777-7777-7777-7777-777777777777"
TIMEOUT = 150
_TERMINAL = re.compile(r"\x1b\[[0-9;?=]*[a-zA-Z]")


@dataclass
class Guest:
    """What one boot left behind; `log` is None where the kernel got none."""

    pcrs: dict[str, dict[int, str]] = field(default_factory=dict)
    log: bytes | None = None
    command_line: str = ""
    serial: str = ""


def run(*words: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([str(word) for word in words], check=False, capture_output=True, **options)
    if done.returncode:
        raise SystemExit(f"{words[0]}: {done.stderr.decode()[-2000:]}")
    return done


def cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An initramfs (format newc) of these names, modes and contents."""
    out = b""
    for inode, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % value for value in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def initrd(work: Path) -> bytes:
    """One static program, `init.c`: a guest that prints its PCRs and its log and goes."""
    binary = work / "init"
    flags = "-Os -ffreestanding -fno-builtin -nostdlib -static -fno-stack-protector -fcf-protection=none"
    links = "-fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-n -s"
    run("gcc", *flags.split(), *links.split(), "-o", binary, HERE / "init.c")
    return cpio([("init", 0o100755, binary.read_bytes())])


def keys(work: Path) -> Path:
    """A Secure Boot PKI of its own, made anew each time: PK, KEK, db, an unknown key, and a CA with a leaf."""
    folder = work / "keys"
    folder.mkdir()
    for name in ("PK", "KEK", "db", "stranger", "ca"):
        run(
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650", "-subj"], f"/CN=vector {name}/",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt",
        )  # fmt: skip
    request, leaf = folder / "leaf.csr", folder / "leaf.crt"
    run(
        *["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj"], "/CN=vector leaf/",
        "-keyout", folder / "leaf.key", "-out", request,
    )  # fmt: skip
    run(
        *["openssl", "x509", "-req", "-days", "3650", "-sha256", "-CAcreateserial"],
        "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-out", leaf,
    )  # fmt: skip
    return folder


def variable_store(source: Path, target: Path, *changes: object) -> Path:
    run("virt-fw-vars", "-l", "WARNING", "-i", source, "-o", target, *changes)
    return target


def own_store(work: Path, folder: Path, *changes: object) -> Path:
    """Secure Boot on, with keys of our own only."""
    return variable_store(
        OVMF / "OVMF_VARS.fd", work / "own.fd", "--set-pk", OWNER, folder / "PK.crt", "--add-kek", OWNER,
        folder / "KEK.crt", "--add-db", OWNER, folder / "db.crt", "--add-db", OWNER, folder / "ca.crt", "--sb", *changes,
    )  # fmt: skip


def microsoft_store(work: Path, folder: Path) -> Path:
    """As Debian ships it, and our key in db as well."""
    return variable_store(
        OVMF / "OVMF_VARS.ms.fd", work / "ms.fd", "--add-db", OWNER, folder / "db.crt"
    )  # fmt: skip


def make_uki(
    work: Path, stub: Path, sections: Sequence[tuple[str, bytes]], *, signer: Path | None = None, pad: int = 8
) -> bytes:
    """Append sections to a stub; times and checksum zeroed, so that a rebuild is the same file."""
    listing = run("objdump", "-h", stub).stdout.decode()
    rows = re.findall(r"^ +\d+ \S+ +([0-9a-f]{8}) +([0-9a-f]+)", listing, re.MULTILINE)
    address = _page(max(int(start, 16) + int(size, 16) for size, start in rows))
    arguments: list[object] = []
    for index, (name, content) in enumerate(sections):
        path = work / f"section{index}"
        path.write_bytes(content)
        arguments += ["--add-section", f"{name}={path}", "--change-section-vma", f"{name}={address:#x}"]
        address = _page(address + len(content))
    unsigned = work / "uki.efi"
    run("objcopy", *arguments, stub, unsigned)
    image = bytearray(unsigned.read_bytes())
    header = struct.unpack_from("<I", image, 0x3C)[0]
    image[header + 8 : header + 12] = bytes(4)
    image[header + 0x58 : header + 0x5C] = bytes(4)
    image += bytes(-len(image) % pad)
    return sbsign(work, bytes(image), signer) if signer else bytes(image)


def sbsign(work: Path, image: bytes, signer: Path) -> bytes:
    unsigned, signed = work / "unsigned.efi", work / "signed.efi"
    unsigned.write_bytes(image)
    run(
        "sbsign",
        "--key",
        signer.with_suffix(".key"),
        "--cert",
        signer.with_suffix(".crt"),
        "--output",
        signed,
        unsigned,
    )
    return signed.read_bytes()


def unsign(work: Path, image: bytes) -> bytes:
    path = work / "stripped.efi"
    path.write_bytes(image)
    while (
        subprocess.run(["sbattach", "--remove", str(path)], capture_output=True, check=False).returncode == 0
    ):
        pass
    return path.read_bytes()


def disk(path: Path, files: Mapping[str, bytes]) -> Path:
    """A GPT disk with an EFI system partition that holds these files."""
    megabytes = sum(len(data) for data in files.values()) // (1 << 20) + 40
    path.unlink(missing_ok=True)
    run("truncate", "-s", f"{megabytes + 2}M", path)
    run("sgdisk", "-n", f"1:2048:+{megabytes}M", "-t", "1:ef00", path)
    partition = f"{path}@@1M"
    run("mformat", "-i", partition, "-T", megabytes * 2048, "-h", 16, "-s", 63, "-F", "-v", "ESP", "::")
    made: set[str] = set()
    for name, data in files.items():
        parts = name.split("/")
        for folder in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if folder not in made:
                run("mmd", "-i", partition, f"::/{folder}")
                made.add(folder)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            run("mcopy", "-i", partition, file.name, f"::/{name}")
    return path


def boot(work: Path, disks: Sequence[Path], store: Path) -> Guest:
    """Boot from `disks` in order on a fresh TPM."""
    template = work / "tpm"
    if not template.exists():
        template.mkdir()
        run("swtpm_setup", "--tpm2", "--tpmstate", template, "--pcr-banks", BANKS, "--overwrite")
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        shutil.copytree(template, folder / "tpm")
        shutil.copy(store, folder / "vars.fd")
        socket = folder / "sock"
        tpm = subprocess.Popen(
            [
                "swtpm",
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={folder}/tpm",
                "--ctrl",
                f"type=unixio,path={socket}",
            ]
        )
        while not socket.exists():
            time.sleep(0.01)
        machine = subprocess.Popen(
            _qemu(folder, disks), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            serial, _ = machine.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            machine.kill()
            serial, _ = machine.communicate()
        tpm.terminate()
        tpm.wait()
    return _read(serial)


def _qemu(folder: Path, disks: Sequence[Path]) -> list[str]:
    words = (
        "qemu-system-x86_64 -machine q35,smm=off -accel tcg,tb-size=512 -cpu max -m 1024 -smp 1 -nodefaults"
    )
    words += " -display none -monitor none -serial stdio -no-reboot -device virtio-rng-pci"
    words += f" -drive if=pflash,format=raw,unit=0,file={OVMF}/OVMF_CODE.fd,readonly=on"
    words += (
        f" -drive if=pflash,format=raw,unit=1,file={folder}/vars.fd -chardev socket,id=c,path={folder}/sock"
    )
    words += " -tpmdev emulator,id=t,chardev=c -device tpm-crb,tpmdev=t"
    for index, path in enumerate(disks):
        words += f" -drive if=none,id=d{index},format=raw,file={path},snapshot=on,cache=unsafe"
        words += f" -device virtio-blk-pci,drive=d{index},bootindex={index + 1}"
    return words.split()


def _read(serial: bytes) -> Guest:
    text = _TERMINAL.sub("", serial.decode("latin-1")).replace("\r", "")
    guest = Guest(serial=text)
    match = re.search(r"VECTOR-BEGIN\n(.*?)LOG\n([0-9a-f\n]*)CMDLINE\n(.*?)\n*VECTOR-END", text, re.DOTALL)
    if match is None:
        return guest
    for bank, index, value in re.findall(r"^PCR (\S+) (\d+) ([0-9A-F]+)$", match[1], re.MULTILINE):
        guest.pcrs.setdefault(bank, {})[int(index)] = value.lower()
    guest.log = bytes.fromhex(match[2]) or None
    guest.command_line = match[3]
    return guest


def variables(store: Path) -> dict[str, str]:
    """`Name-GUID` to the hex of attributes and value, as efivarfs of the booted guest would show them."""
    out = run("virt-fw-vars", "-l", "ERROR", "-i", store, "--output-json", "/dev/stdout").stdout.decode()
    listed = json.loads(out[out.index("{") :])["variables"]
    values = {f"{v['name']}-{v['guid']}": struct.pack("<I", v["attr"]).hex() + v["data"] for v in listed}
    on = any(name.startswith("SecureBootEnable-") and value.endswith("01") for name, value in values.items())
    kept = {name: value for name, value in values.items() if name.split("-")[0] in ("PK", "KEK", "db", "dbx")}
    return kept | {"SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "06000000" + ("01" if on else "00")}


def _page(address: int) -> int:
    return (address + 0xFFF) & ~0xFFF


def environment_problem() -> str | None:
    """What is missing on this machine, or None."""
    tools = (
        "qemu-system-x86_64 swtpm swtpm_setup sbsign sbattach objcopy gcc sgdisk mformat virt-fw-vars openssl"
    )
    missing = [tool for tool in tools.split() if shutil.which(tool) is None]
    if missing or not (OVMF / "OVMF_CODE.fd").exists():
        return (
            f"missing: {', '.join([*missing, 'ovmf'] if not (OVMF / 'OVMF_CODE.fd').exists() else missing)}"
        )
    return None


os.environ.setdefault("MTOOLS_SKIP_CHECK", "1")
