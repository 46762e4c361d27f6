"""The guest's root file system: Debian with systemd and Python, and the Debian package of this working tree's agent.

Made once and kept: `base-*.tar` for a list of packages, `root-*/` (tree and ext4 image) for a tar and the agent's files.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.vm.tools import BIN, BUILD, GUEST, ROOT, LabError, digest, run

SUITE = "bookworm"
"""The package of the agent is for the release it is built on, and that has to be the one with the Python of `.venv`: 3.11."""
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "python3", "busybox-static", "tpm-udev", "libtss2-tcti-device0"),
    *("libtss2-esys-3.0.2-0", "libtss2-mu0", "libtss2-rc0", "libtss2-tctildr0"),
)
"""What a guest needs, and what the agent's package depends on."""
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/zoneinfo")
MASKED = (
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
    ),
    *("e2scrub_reap.service", "getty@tty1.service", "getty.target", "systemd-logind.service", "dbus.service"),
    *("systemd-timesyncd.service", "systemd-networkd.service", "systemd-journal-flush.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service"),
    *("systemd-firstboot.service", "systemd-random-seed.service", "systemd-machine-id-commit.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "systemd-sysusers.service"),
    *(
        "modprobe@.service",
        "systemd-binfmt.service",
        "proc-sys-fs-binfmt_misc.automount",
        "systemd-remount-fs.service",
    ),
)
MACHINE_ID = "0123456789abcdef0123456789abcdef"
SETTINGS = "/sys/firmware/qemu_fw_cfg/by_name/opt/vtpm-attest/{}/raw"
"""Where a guest finds what QEMU was told to pass on."""


@dataclass(frozen=True)
class RootFs:
    """The tree as it was packed (for runtime sets), and its image."""

    tree: Path
    image: Path


def root_filesystem() -> RootFs:
    """Build what is not there yet."""
    base = _base()
    names = run("git", "ls-files", "-z", "agent", cwd=ROOT).decode().split("\0")[:-1]
    units = sorted(path for path in GUEST.iterdir() if path.is_file())
    files = [*(ROOT / name for name in names), ROOT / "scripts/build-deb.sh", *units, Path(__file__)]
    sources = [path.read_bytes() for path in files]
    folder = BUILD / f"root-{digest([base.name.encode(), *sources])}"
    made = RootFs(folder / "tree", folder / "root.ext4")
    if not made.image.exists():
        for old in BUILD.glob("root-*"):
            shutil.rmtree(old)
        made.tree.mkdir(parents=True)
        run("tar", "-xf", base, "-C", made.tree, "--numeric-owner")
        _furnish(made.tree, units)
        _pack(made)
    return made


def _base() -> Path:
    """Debian as the machine's own apt gets it."""
    path = BUILD / f"base-{digest([SUITE.encode(), *(name.encode() for name in PACKAGES)])}.tar"
    if path.exists():
        return path
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != SUITE:
        raise LabError(
            f"the guest is built from this machine's apt sources, which are not those of Debian {SUITE}"
        )
    if os.geteuid() != 0:
        raise LabError("building the guest needs root (file owners in its root file system)")
    BUILD.mkdir(parents=True, exist_ok=True)
    sources = BUILD / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in apt_sources()))
    part = path.with_suffix(".part")
    hooks = [f"--dpkgopt=path-exclude=/{folder}/*" for folder in UNUSED]
    run(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", f"--include={','.join(PACKAGES)}"),
        *('--aptopt=Acquire::Languages "none"', *hooks, SUITE, part, sources),
    )
    return part.rename(path)


def apt_sources() -> list[str]:
    """One line for each of Debian's own archives that this machine uses."""
    wanted = "$(ORIGIN)|$(CODENAME)|$(SIGNED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    targets = run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").decode().splitlines()
    lines = []
    for target in dict.fromkeys(targets):
        origin, codename, signed_by, uri, release, component = target.split("|")
        if origin == "Debian" and codename.split("-")[0] == SUITE:
            key = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            lines.append(f"deb {key}{uri} {release} {component}")
    if not lines:
        raise LabError("apt knows no archive of Debian; run apt-get update")
    return lines


def _furnish(tree: Path, units: list[Path]) -> None:
    """Install the agent's package as its users do and the units of this laboratory; take out what only costs time."""
    for folder in ("var/cache/apt", "var/lib/apt/lists", "dev", *UNUSED):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder).mkdir(parents=True)
    package = ROOT / run(ROOT / "scripts/build-deb.sh", BIN.parent, cwd=ROOT).decode().split()[-1]
    shutil.copy(package, tree / "tmp/agent.deb")
    run("chroot", tree, "dpkg", "--install", "--force-confnew", "/tmp/agent.deb")
    (tree / "tmp/agent.deb").unlink()
    run("systemctl", f"--root={tree}", "enable", "attest-agent.service")
    _link(tree / "etc/vtpm-attest/agent.toml", SETTINGS.format("agent.toml"))
    system = tree / "etc/systemd/system"
    for unit in units:
        shutil.copy(unit, system / unit.name)
        (system / unit.name).chmod(0o644)
        _link(system / "multi-user.target.wants" / unit.name, f"/etc/systemd/system/{unit.name}")
    for name in MASKED:
        _link(system / name, "/dev/null")
    _link(system / "default.target", "/lib/systemd/system/multi-user.target")
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/machine-id").write_text(f"{MACHINE_ID}\n")
    (tree / "etc/fstab").write_text("")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _pack(made: RootFs) -> None:
    part = made.image.with_suffix(".part")
    megabytes = int(run("du", "-sm", made.tree).split()[0]) + 64
    run("truncate", "-s", f"{megabytes}M", part)
    run(
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal,^metadata_csum",
        "-m",
        "0",
        "-L",
        "root",
        "-d",
        made.tree,
        part,
    )
    part.rename(made.image)
