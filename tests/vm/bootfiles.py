"""What a guest boots from: kernel, initrd, unified kernel image, EFI system partition, Secure Boot keys and variables."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.vm.tools import BIN, BUILD, OVMF, LabError, run

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
OWNER = "77777777-7777-7777-7777-777777777777"
_CLOUD = re.compile(r"linux-image-6\.1\.0-\d+-cloud-amd64")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio-rng", "qemu_fw_cfg", "efivarfs")
BOOT_IMAGE = "EFI/BOOT/BOOTX64.EFI"
OS_RELEASE = b'ID=debian\nVERSION_ID=12\nPRETTY_NAME="vtpm-attest test guest"\n'
COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 mitigations=off cryptomgr.notests ima_policy=tcb root=/dev/vdb net.ifnames=0"
    " no_timer_check tsc=reliable panic=-1 systemd.show_status=no"
)
INIT = """\
#!/bin/sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys
for module in $($B cat /modules); do $B insmod /lib/modules/$module; done
tries=0; while [ ! -b /dev/vdb ] && [ $tries -lt 200 ]; do $B usleep 20000; tries=$((tries+1)); done
$B mount -t ext4 -o rw,noatime /dev/vdb /root || exec /bin/sh
for folder in dev proc sys; do $B mount --move /$folder /root/$folder; done
exec $B switch_root /root /usr/lib/systemd/systemd
"""


@dataclass(frozen=True)
class Kernel:
    """A packaged kernel, unpacked."""

    release: str
    image: Path
    root: Path


@dataclass(frozen=True)
class Key:
    """A signing key with its certificate."""

    key: Path
    certificate: Path


@cache
def kernel(*, older: bool = False) -> Kernel:
    """Debian's cloud kernel, or the one before it."""
    names = [
        name
        for name in run("apt-cache", "pkgnames", "linux-image-6.1.0-").decode().split()
        if _CLOUD.fullmatch(name)
    ]
    shown = run("apt-cache", "policy", *sorted(names, key=_number)).decode()
    names = re.findall(r"^(\S+):\n.*\n +Candidate: [^(\s]", shown, re.MULTILINE)
    if len(names) < 2:
        raise LabError("apt has no two cloud kernels 6.1; run apt-get update")
    name = names[-2 if older else -1]
    release = name.removeprefix("linux-image-")
    root = unpacked(name)
    return Kernel(release, root / "boot" / f"vmlinuz-{release}", root)


def _number(package: str) -> int:
    return int(package.split("-")[3])


def unpacked(package: str) -> Path:
    """The files of a Debian package."""
    folder = BUILD / "packages" / package
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package, cwd=part)
        (archive,) = part.glob("*.deb")
        run("dpkg-deb", "-x", archive, part)
        archive.unlink()
        part.rename(folder)
    return folder


def initrd(path: Path, source: Kernel, extra: Mapping[str, str]) -> Path:
    """busybox, a few modules and a script; `extra` are further files."""
    files = {"init": INIT, **extra}
    tree = path.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "dev", "proc", "sys", "root", "lib/modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    modules = _modules(source)
    for module in modules:
        shutil.copy(module, tree / "lib/modules" / module.name)
    for file, text in {**files, "modules": "".join(f"{module.name}\n" for module in modules)}.items():
        (tree / file).write_text(text)
        (tree / file).chmod(0o755)
    items = sorted(tree.rglob("*"))
    for item in items:
        os.utime(item, (0, 0), follow_symlinks=False)  # the same files, the same initrd
    names = [str(item.relative_to(tree)) for item in items]
    archive = run(
        *("cpio", "--null", "-o", "-H", "newc", "--reproducible", "-R", "0:0", "--quiet"),
        cwd=tree,
        given=b"".join(name.encode() + b"\0" for name in names),
    )
    path.write_bytes(run("zstd", "-q", "-10", "-c", given=archive))
    shutil.rmtree(tree)
    return path


def _modules(source: Kernel) -> list[Path]:
    """In the order of loading."""
    run("depmod", "-b", source.root, source.release)
    ordered: dict[Path, None] = {}
    for module in MODULES:
        shown = run("modprobe", "-d", source.root, "-S", source.release, "--show-depends", module).decode()
        for line in shown.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod":
                ordered[Path(rest.split()[0])] = None
    return list(ordered)


def key(name: str) -> Key:
    """Made at first use; the same in every later run of this build folder."""
    folder = BUILD / "keys"
    made = Key(folder / f"{name}.key", folder / f"{name}.crt")
    if not made.certificate.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650"),
            *("-subj", f"/CN=vm test {name}/", "-keyout", made.key, "-out", made.certificate),
        )
    return made


def variables(path: Path, *changes: object, source: Path = OVMF / "OVMF_VARS.fd") -> Path:
    """A variable store of OVMF with these changes of virt-fw-vars."""
    run(BIN / "virt-fw-vars", "-l", "WARNING", "-i", source, "-o", path, *changes)
    return path


def own_keys(path: Path, *db: str, secure_boot: bool = True) -> Path:
    """Secure Boot with keys of our own; `db` are the names of those that may sign images."""
    changes: list[object] = [
        "--set-pk",
        OWNER,
        key("PK").certificate,
        "--add-kek",
        OWNER,
        key("KEK").certificate,
    ]
    for signer in db:
        changes += ["--add-db", OWNER, key(signer).certificate]
    variables(path, *changes, "--sb")
    return path if secure_boot else variables(path, "--set-false", "SecureBootEnable", source=path)


def owners_keys(path: Path, *mok: str) -> Path:
    """Secure Boot with Microsoft's keys, as Debian ships them; `mok` are the names of keys that the owner gave shim."""
    changes: list[object] = []
    for signer in mok:
        changes += ["--add-mok", OWNER, key(signer).certificate]
    return variables(path, *changes, source=OVMF / "OVMF_VARS.ms.fd")


def uki(path: Path, source: Kernel, ramdisk: Path, command_line: str, signer: str | None) -> Path:
    """A unified kernel image of systemd's stub; times and checksum zeroed, so that a rebuild is the same file."""
    folder, unsigned = path.parent, path.with_suffix(".unsigned.efi")
    texts = {".osrel": OS_RELEASE, ".cmdline": command_line.encode(), ".uname": source.release.encode()}
    sections = []
    for section, content in texts.items():
        file = folder / f"section{section}"
        file.write_bytes(content)
        sections.append((section, file))
    arguments: list[object] = []
    address = _end_of(STUB)
    for section, file in (*sections, (".initrd", ramdisk), (".linux", source.image)):
        arguments += ["--add-section", f"{section}={file}", "--change-section-vma", f"{section}={address:#x}"]
        address = _page(address + file.stat().st_size)
    run("objcopy", *arguments, STUB, unsigned)
    image = bytearray(unsigned.read_bytes())
    header = struct.unpack_from("<I", image, 0x3C)[0]
    image[header + 8 : header + 12] = image[header + 0x58 : header + 0x5C] = bytes(4)
    unsigned.write_bytes(image + bytes(-len(image) % 8))
    if signer is None:
        return unsigned.rename(path)
    return sign(unsigned, path, key(signer))


def sign(unsigned: Path, signed: Path, signer: Key) -> Path:
    run("sbsign", "--key", signer.key, "--cert", signer.certificate, "--output", signed, unsigned)
    return signed


def _end_of(image: Path) -> int:
    rows = re.findall(
        r"^ +\d+ \S+ +([0-9a-f]{8}) +([0-9a-f]+)", run("objdump", "-h", image).decode(), re.MULTILINE
    )
    return _page(max(int(start, 16) + int(size, 16) for size, start in rows))


def _page(address: int) -> int:
    return (address + 0xFFF) & ~0xFFF


def shim_and_grub(
    folder: Path, source: Kernel, ramdisk: Path, command_line: str
) -> tuple[Path, Path, dict[str, Path]]:
    """Debian's signed shim and GRUB, and what lies where on the EFI system partition."""
    shim = unpacked("shim-signed") / "usr/lib/shim/shimx64.efi.signed"
    grub = unpacked("grub-efi-amd64-signed") / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    settings = folder / "grub.cfg"
    settings.write_text(f"set timeout=0\nlinux /vmlinuz {command_line}\ninitrd /initrd.img\nboot\n")
    files = {
        BOOT_IMAGE: shim,
        "EFI/BOOT/grubx64.efi": grub,
        "EFI/debian/grub.cfg": settings,
        "vmlinuz": source.image,
        "initrd.img": ramdisk,
    }
    return shim, grub, files


def system_partition(path: Path, files: Mapping[str, Path]) -> Path:
    """A GPT disk with an EFI system partition that holds these files."""
    megabytes = sum(file.stat().st_size for file in files.values()) // (1 << 20) + 40
    path.unlink(missing_ok=True)
    run("truncate", "-s", f"{megabytes + 2}M", path)
    identity = ("-U", "33333333-3333-3333-3333-333333333333", "-u", "1:11111111-1111-1111-1111-111111111111")
    run("sgdisk", "-n", f"1:2048:+{megabytes}M", "-t", "1:ef00", *identity, path)
    partition = f"{path}@@1M"
    run("mformat", "-i", partition, "-T", megabytes * 2048, "-h", 16, "-s", 63, "-F", "-v", "ESP", "::")
    made: set[str] = set()
    for name, file in files.items():
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in made:
                run("mmd", "-i", partition, f"::/{parent}")
                made.add(str(parent))
        run("mcopy", "-i", partition, file, f"::/{name}")
    return path
