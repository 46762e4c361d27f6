"""`attestctl runtime make`: runtime sets from packages, images, file systems and lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from verifier.cli.runtime_options import Hashing, SetFile, make
from verifier.policy.runtime.entry import Entry
from verifier.runtime_sets.deb import DebOptions, deb_entries
from verifier.runtime_sets.deb_index import installed, packages_below, packages_of_index
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.ima_list import ima_entries
from verifier.runtime_sets.image import tar_entries
from verifier.runtime_sets.initramfs import initramfs_entries
from verifier.runtime_sets.making import Layout, Making
from verifier.runtime_sets.rootfs import rootfs_entries
from verifier.runtime_sets.rpm import RpmOptions, rpm_entries

app = App(
    name="make", help="Make a runtime set: hash what is in packages, images, file systems; or take a list."
)

Options = Annotated[Hashing, Parameter(name="*")]
Target = Annotated[SetFile, Parameter(name="*")]
Paths = list[Path]
DEFAULTS: Final = Hashing()


@app.command(name="deb")
def make_deb(
    paths: Paths,
    /,
    *,
    target: Target,
    hashing: Options = DEFAULTS,
    packages: Path | None = None,
    status: Path | None = None,
    layout: Layout = Layout.BOTH,
    conffiles: bool = True,
    scripts: bool = True,
) -> int:
    """From Debian packages: files, folders of them, or a mirror with the index that says which.

    Every file is hashed; the md5sums of packages are not looked at. Files of /bin, /sbin and /lib are listed below
    /usr too, and maintainer scripts where dpkg runs them from.

    Examples:
        attestctl runtime make deb ./archives --out web.rtset.zst

        attestctl runtime make deb /srv/mirror --packages /srv/mirror/dists/bookworm/main/binary-amd64/Packages.xz --out bookworm.rtset.zst

        attestctl runtime make deb ./debs --status guest-status --exclude "/usr/share/doc/**" --out guest.rtset

    Args:
        paths: packages, or folders that are searched for *.deb; with --packages, the root of the mirror.
        target: the set that is written.
        hashing: what is hashed and how.
        packages: a mirror's index: its packages, whose SHA-256 must be as it says.
        status: a machine's /var/lib/dpkg/status: only what is installed there, and a note of what is missing.
        layout: names of files in /bin, /sbin, /lib: both, below /usr (merged), or as packed.
        conffiles: list configuration files as they are packed.
        scripts: list maintainer scripts.
    """

    def entries(making: Making) -> Iterable[Entry]:
        only = None if status is None else installed(status)
        if packages is None:
            found = packages_below(paths, ".deb")
        elif len(paths) == 1:
            found = packages_of_index(packages, paths[0])
        else:
            raise MakingError("with --packages, give one folder: the root of the mirror")
        return deb_entries(found, making, DebOptions(conffiles=conffiles, scripts=scripts, only=only))

    return make(target, hashing, entries, layout)


@app.command(name="rpm")
def make_rpm(
    paths: Paths,
    /,
    *,
    target: Target,
    hashing: Options = DEFAULTS,
    layout: Layout = Layout.BOTH,
    config: bool = True,
    header_digests: bool = False,
) -> int:
    """From RPM packages: files, or folders of them.

    Examples:
        attestctl runtime make rpm /srv/repo/Packages --out el9.rtset.zst

        attestctl runtime make rpm ./rpms --header-digests --no-config --out el9.rtset

    Args:
        paths: packages, or folders that are searched for *.rpm.
        target: the set that is written.
        hashing: what is hashed and how.
        layout: names of files in /bin, /sbin, /lib: both, below /usr (merged), or as packed.
        config: list configuration files as they are packed.
        header_digests: take the digests in the packages' headers where they are of the hash wanted; faster.
    """
    options = RpmOptions(config=config, header_digests=header_digests)
    return make(
        target, hashing, lambda making: rpm_entries(packages_below(paths, ".rpm"), making, options), layout
    )


@app.command(name="tar")
def make_tar(
    path: Path, /, *, target: Target, hashing: Options = DEFAULTS, platform: str | None = None
) -> int:
    """From a tar archive: of a root filesystem, or a container image (`docker save`, OCI layout).

    Links are followed as the kernel does; the layers of an image are put over each other, whiteouts applied, each
    checked against its digest.

    Examples:
        attestctl runtime make tar rootfs.tar.xz --out guest.rtset.zst

        attestctl runtime make tar image.tar --platform linux/amd64 --hash sha256 sha384 --out image.rtset

    Args:
        path: the archive.
        target: the set that is written.
        hashing: what is hashed and how.
        platform: of an image for several.
    """
    return make(target, hashing, lambda making: tar_entries(path, making, platform=platform))


@app.command(name="rootfs")
def make_rootfs(
    root: Path, /, *, target: Target, hashing: Options = DEFAULTS, source: str = "", everything: bool = False
) -> int:
    """From a root filesystem that is mounted or unpacked.

    Without /proc, /sys, /dev, /run, /tmp and /var/tmp. What runs from it may have been changed: prefer an image.

    Examples:
        attestctl runtime make rootfs /mnt/image --source web-2026-11 --out web.rtset.zst

        attestctl runtime make rootfs /mnt/root --exclude "/home/**" "/var/log/**" --out root.rtset.zst

    Args:
        root: the folder that is / of the system.
        target: the set that is written.
        hashing: what is hashed and how.
        source: name of the source of its entries; the folder by default.
        everything: /proc and the others too.
    """
    return make(
        target,
        hashing,
        lambda making: rootfs_entries(
            root, making, source=source or root.name or "rootfs", everything=everything
        ),
    )


@app.command(name="initramfs")
def make_initramfs(paths: Paths, /, *, target: Target, hashing: Options = DEFAULTS) -> int:
    """From initramfs images: concatenated cpio archives, compressed or not.

    Examples:
        attestctl runtime make initramfs /boot/initrd.img-6.1.0-55-cloud-amd64 --out initrd.rtset

    Args:
        paths: the images.
        target: the set that is written.
        hashing: what is hashed and how.
    """
    return make(target, hashing, lambda making: initramfs_entries(paths, making))


@app.command(name="ima")
def make_ima(paths: Paths, /, *, target: Target, hashing: Options = DEFAULTS, source: str = "") -> int:
    """From IMA lists of machines that are known to be good: nothing in a list says that they are.

    The digests are those in the lists; --hash has no say.

    Examples:
        attestctl runtime make ima policies/evidence/uki-sb-on-ima-ng/ascii_runtime_measurements --out good.rtset

        attestctl runtime make ima *.ima --exclude "/tmp/**" --source golden --out golden.rtset.zst

    Args:
        paths: ascii_runtime_measurements or binary_runtime_measurements.
        target: the set that is written.
        hashing: what is left out.
        source: name of the source of the entries; the file by default.
    """
    return make(target, hashing, lambda making: ima_entries(paths, making, source=source))
