"""How guests boot, and what their verifiers go by: built at most once in a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.vm import bootfiles
from tests.vm.bootfiles import BOOT_IMAGE, COMMAND_LINE
from tests.vm.tools import BUILD, attestctl, digest

POLICY = "guest"


@dataclass(frozen=True)
class Boot:
    """How an image is made, and the firmware's variables: the good one as it stands here."""

    command_line: str = COMMAND_LINE
    initrd: Mapping[str, str] = field(default_factory=dict, hash=False)
    older_kernel: bool = False
    signer: str = "db"
    db: tuple[str, ...] = ("db",)
    secure_boot: bool = True
    grub: bool = False
    """By Debian's shim and GRUB, under Microsoft's keys, instead of a unified kernel image; `mok` are then the owner's keys."""
    mok: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A boot's files."""

    images: tuple[object, ...]
    """As `attestctl policy predict` is told of them."""
    initrd: Path
    partition: Path
    variables: Path


@cache
def built(boot: Boot) -> Built:
    """The boot's files, in a folder of their own."""
    folder = BUILD / "boot" / digest([json.dumps(asdict(boot), sort_keys=True).encode()])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kernel = bootfiles.kernel(older=boot.older_kernel)
    ramdisk = bootfiles.initrd(folder / "initrd.img", kernel, boot.initrd)
    store, partition = folder / "variables.fd", folder / "esp.img"
    if boot.grub:
        shim, grub, files = bootfiles.shim_and_grub(folder, kernel, ramdisk, boot.command_line)
        bootfiles.owners_keys(store, *boot.mok)
        images: tuple[object, ...] = ("--chain", shim, grub, kernel.image)
    else:
        image = bootfiles.uki(folder / "linux.efi", kernel, ramdisk, boot.command_line, boot.signer)
        bootfiles.own_keys(store, *boot.db, secure_boot=boot.secure_boot)
        images, files = ("--uki", image), {BOOT_IMAGE: image}
    return Built(images, ramdisk, bootfiles.system_partition(partition, files), store)


@cache
def predicted(boot: Boot) -> Path:
    """What `attestctl policy predict` makes of the boot's files."""
    made = built(boot)
    folder = made.partition.parent / POLICY
    attestctl("policy", "predict", *made.images, "--efivars", made.variables, "--out", folder)
    return folder


@dataclass(frozen=True)
class RuntimeSet:
    """A file of known digests, and how policies name it."""

    file: Path
    named: Mapping[str, Any]


@cache
def runtime_set(kind: str, source: Path) -> RuntimeSet:
    """What `attestctl runtime make` makes of a root file system or an initrd."""
    file = source.with_name(f"{source.name}.rtset")
    shown = json.loads(attestctl("runtime", "make", kind, source, "--out", file, "--json"))
    return RuntimeSet(file, {"sha256": shown["sha256"], "name": shown["name"]})
