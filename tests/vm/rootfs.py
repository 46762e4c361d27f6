"""The guest's root file system: Debian with systemd and Python, and the agent of this working tree.

Made once and kept: `base-*.tar` for a list of packages, `root-*/` (tree and ext4 image) for a tar and the agent's files.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.vm.tools import BUILD, GUEST, ROOT, LabError, digest, run

SUITE = "bookworm"
"""The guest's Python has to be the one that the agent's compiled dependencies were installed for: 3.11."""
PACKAGES = (
    *("systemd", "systemd-sysv", "python3", "busybox-static"),
    *(
        "libtss2-esys-3.0.2-0",
        "libtss2-fapi1",
        "libtss2-tctildr0",
        "libtss2-tcti-device0",
        "libtss2-mu0",
        "libtss2-rc0",
    ),
)
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
SITE = "usr/lib/attest-agent"


@dataclass(frozen=True)
class RootFs:
    """The tree as it was packed (for runtime sets), and its image."""

    tree: Path
    image: Path


def root_filesystem() -> RootFs:
    """Build what is not there yet."""
    base = _base()
    agent = _agent_files()
    units = sorted(path for path in GUEST.iterdir() if path.is_file())
    sources = [path.read_bytes() for path in (*agent.values(), *units, Path(__file__))]
    folder = BUILD / f"root-{digest([base.name.encode(), *sources])}"
    made = RootFs(folder / "tree", folder / "root.ext4")
    if not made.image.exists():
        for old in BUILD.glob("root-*"):
            shutil.rmtree(old)
        made.tree.mkdir(parents=True)
        run("tar", "-xf", base, "-C", made.tree, "--numeric-owner")
        _furnish(made.tree, agent, units)
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


def _agent_files() -> dict[str, Path]:
    """The agent and what it depends on: path in the guest -> file here."""
    files = {
        f"{SITE}/agent/{path.relative_to(ROOT / 'agent')}": path for path in (ROOT / "agent").rglob("*.py")
    }
    todo, seen = [Requirement("vtpm-attest-agent[tpm]")], set()
    while todo:
        requirement = todo.pop()
        dist = distribution(requirement.name)
        if dist.name in seen:
            continue
        seen.add(dist.name)
        if dist.name != "vtpm-attest-agent":
            for file in dist.files or ():
                if file.parts[0] != ".." and "__pycache__" not in file.parts:
                    files[f"{SITE}/{file}"] = Path(str(dist.locate_file(file)))
        extras = {*requirement.extras} or {""}
        for text in dist.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return dict(sorted(files.items()))


def _furnish(tree: Path, agent: dict[str, Path], units: list[Path]) -> None:
    """Install the agent, the units of this laboratory, and take out what only costs time."""
    for folder in ("var/cache/apt", "var/lib/apt/lists", "dev", *UNUSED):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder).mkdir(parents=True)
    for name, source in agent.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, tree / name)
    system = tree / "etc/systemd/system"
    for unit in units:
        place = system / unit.name if unit.suffix else tree / "usr/bin" / unit.name
        shutil.copy(unit, place)
        place.chmod(0o644 if unit.suffix else 0o755)
        if unit.suffix == ".service":
            _link(system / "multi-user.target.wants" / unit.name, f"/etc/systemd/system/{unit.name}")
    for name in MASKED:
        _link(system / name, "/dev/null")
    _link(system / "default.target", "/lib/systemd/system/multi-user.target")
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/machine-id").write_text(f"{MACHINE_ID}\n")
    (tree / "etc/fstab").write_text("")
    (tree / "etc/vtpm-attest").mkdir()
    _link(
        tree / "etc/vtpm-attest/agent.toml",
        "/sys/firmware/qemu_fw_cfg/by_name/opt/vtpm-attest/agent.toml/raw",
    )
    run(
        *(
            "chroot",
            tree,
            "/usr/bin/python3",
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
        ),
        f"/{SITE}",
    )


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
