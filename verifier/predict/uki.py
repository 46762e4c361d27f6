"""Unified kernel images: what systemd-stub measures into PCR 11, and what it hands to the kernel.

systemd, "TPM2 PCR Measurements Made by systemd" and systemd-stub(7); which sections, in which order, since which
version: docs/prediction.md, with what was checked on real boots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from verifier.errors import UnsupportedError
from verifier.predict.cpio import archive_of_one
from verifier.predict.errors import PredictionError
from verifier.predict.model import PredictedEvent
from verifier.predict.pe import Chunk, PeImage, Section, hash_chunks
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType

UKI_PCR: Final = 11
OVERRIDE_PCR: Final = 12
EXTENSION_PCR: Final = 13
STRUCTURE: Final = "systemd-stub"

SECTIONS: Final[tuple[tuple[str, int], ...]] = (
    (".linux", 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", 252),
    (".profile", 257),
    (".dtbauto", 257),
    (".hwids", 257),
    (".efifw", 258),
)
"""Measured sections in the stub's order, with the version of the first stub that knows them."""
OLDEST: Final = 252
PHASES: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("enter-initrd",),
    ("enter-initrd", "leave-initrd"),
    ("enter-initrd", "leave-initrd", "sysinit"),
    ("enter-initrd", "leave-initrd", "sysinit", "ready"),
    ("sysinit",),
    ("sysinit", "ready"),
)
"""Words that systemd-pcrphase has extended into PCR 11 by some moment of a boot, with and without an initrd that
runs it; the boot log does not have them (systemd-pcrphase.service(8))."""

_MAGIC_SECTION: Final = ".sdmagic"
_MAGIC: Final = re.compile(rb"LoaderInfo: systemd-stub (\d{3})[^#]{0,60}####")
_SINCE: Final = dict(SECTIONS)
_READ: Final = frozenset({*_SINCE, ".pcrsig"})
_PROFILE: Final = ".profile"
_SBAT: Final = ".sbat"
_UNDECIDABLE: Final = (".dtbauto", ".efifw")
"""Several of a kind stand in an image, and the stub picks by the machine it runs on."""
_PACKED: Final = (
    (".pcrsig", "tpm2-pcr-signature.json", 252),
    (".pcrpkey", "tpm2-pcr-public-key.pem", 252),
    (".osrel", "os-release", 257),
    (".profile", "profile", 257),
)
"""Sections that the stub appends to the initrd as files of their own, in this order, and since when."""
_LEADING_TRIMMED: Final = 255
_CONTROL: Final = re.compile("[\0-\x1f]")
_ALIGNMENT: Final = 4
_STARTS_ITSELF: Final = 258
_SECRET_VARIABLE: Final = "LoaderBootSecret".encode("utf-16-le")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uki:
    """What one boot of a unified kernel image works with.

    Attributes:
        version: of the stub, for example 252.
        sections: content of each section as it stands in memory, by name.
        adds_secret: the stub can add a secret of the machine to the initrd, so that its digest differs everywhere.
    """

    version: int
    sections: Mapping[str, tuple[Chunk, ...]]
    adds_secret: bool

    @property
    def starts_kernel_itself(self) -> bool:
        """Whether the stub starts its kernel without asking firmware, which then never measures it."""
        return self.version >= _STARTS_ITSELF

    def text(self, name: str) -> str | None:
        """A section as text up to its first NUL; None where it is missing.

        Raises `PredictionError` where it is not UTF-8.
        """
        content = self.sections.get(name)
        if content is None:
            return None
        try:
            return b"".join(content).split(b"\0", 1)[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise PredictionError("is not UTF-8 text", where=name) from error

    @property
    def command_line(self) -> str | None:
        """What the stub tells the kernel: control characters become spaces, those around the text go."""
        text = self.text(".cmdline")
        if text is None:
            return None
        spaced = _CONTROL.sub(" ", text)
        return spaced.strip(" ") if self.version >= _LEADING_TRIMMED else spaced.rstrip(" ")


def is_uki(image: PeImage) -> bool:
    """Whether an image carries a kernel the way unified kernel images do."""
    return any(section.name == ".linux" for section in image.sections)


def read_uki(image: PeImage, version: int | None = None) -> Uki:
    """Read the sections that the stub works with when nobody chooses another profile than the first.

    Args:
        image: the unified kernel image.
        version: of the stub, where the image does not say it.

    Raises:
        UnsupportedError: a stub older than 252 or not systemd's, or sections of which the stub picks one by the
            machine.
        PredictionError: there is no kernel in it.
    """
    known = version if version is not None else stub_version(image)
    selected = _selected(image, known)
    if ".linux" not in selected:
        raise PredictionError("has no .linux section, so it is no unified kernel image")
    return Uki(
        version=known,
        sections={name: image.content(section) for name, section in selected.items()},
        adds_secret=adds_secret(image),
    )


def from_parts(stub: PeImage, contents: Mapping[str, bytes]) -> Uki:
    """What an image built of this stub and these sections will work with.

    The stub's own `.sbat` counts where none is given; tools that merge that of the kernel into it must be told.

    Raises:
        UnsupportedError: as `read_uki`, or a section that no stub knows.
    """
    unknown = sorted(set(contents) - _READ)
    if unknown:
        raise UnsupportedError(f"no stub reads a section {unknown[0]}", structure=STRUCTURE)
    sections: dict[str, tuple[Chunk, ...]] = {
        name: (content,) for name, content in contents.items() if content
    }
    own = stub.section(_SBAT)
    if own is not None and _SBAT not in sections:
        sections[_SBAT] = stub.content(own)
    return Uki(version=stub_version(stub), sections=sections, adds_secret=adds_secret(stub))


def _selected(image: PeImage, version: int) -> dict[str, Section]:
    """The sections before the first `.profile`, and over them those from it to the next one."""
    groups: list[dict[str, Section]] = [{}]
    for section in image.sections:
        if section.name in _UNDECIDABLE:
            raise UnsupportedError(
                f"which {section.name} is taken depends on the machine", structure=STRUCTURE
            )
        if section.name not in _READ or not section.virtual_size:
            continue
        if section.name == _PROFILE and version >= _SINCE[_PROFILE]:
            groups.append({})
        if section.name in groups[-1]:
            raise UnsupportedError(
                f"two sections are called {section.name}, and stubs differ in which they take",
                structure=STRUCTURE,
            )
        groups[-1][section.name] = section
    return {name: section for group in groups[:2] for name, section in group.items()}


def stub_version(image: PeImage) -> int:
    """Version of systemd-stub, as the image says itself.

    Raises:
        UnsupportedError: another stub, or one from before 252, which measured other things.
    """
    section = image.section(_MAGIC_SECTION)
    match = _MAGIC.search(b"".join(image.content(section))) if section is not None else None
    if match is None:
        raise UnsupportedError("the image does not say which systemd-stub it has", structure=STRUCTURE)
    version = int(match[1])
    if version < OLDEST:
        raise UnsupportedError(f"systemd-stub {version} is older than {OLDEST}", structure=STRUCTURE)
    return version


def adds_secret(image: PeImage) -> bool:
    """Whether the stub knows the variable in which a machine's boot secret is kept."""
    own = (section for section in image.sections if section.name not in _READ)
    return any(_SECRET_VARIABLE in bytes(chunk) for section in own for chunk in image.content(section))


def measured_sections(version: int) -> tuple[str, ...]:
    """Names of the sections that a stub measures, in its order."""
    return tuple(name for name, since in SECTIONS if version >= since)


def section_events(uki: Uki, bank: HashAlg) -> tuple[PredictedEvent, ...]:
    """PCR 11 as the stub extends it: for each section its name with NUL, then its content."""
    digests = {
        name: hash_chunks(uki.sections[name], bank)
        for name in measured_sections(uki.version)
        if name in uki.sections
    }
    return events_of_sections(digests, bank)


def events_of_sections(digests: Mapping[str, bytes], bank: HashAlg) -> tuple[PredictedEvent, ...]:
    """The same from digests of the contents, in the order given."""
    return tuple(
        PredictedEvent(pcr=UKI_PCR, event_type=EventType.EV_IPL, label=label, digest=digest)
        for name, content in digests.items()
        for label, digest in ((f"{name} (name)", bank.digest(name.encode() + b"\0")), (name, content))
    )


def final_initrd(uki: Uki) -> tuple[Chunk, ...]:
    """The initrd that the kernel gets: microcode, the image's own, then the sections that the stub packs as files.

    Without credentials and extensions that lie beside the image: those the stub measures into PCRs 12 and 13,
    which must stay untouched.
    """
    order = (".ucode", ".initrd") if uki.version >= _SINCE[".ucode"] else (".initrd",)
    parts = [uki.sections[name] for name in order if name in uki.sections]
    for name, file_name, since in _PACKED:
        if name in uki.sections and uki.version >= since:
            parts.append((archive_of_one(file_name, b"".join(uki.sections[name])),))
    if len(parts) == 1:
        return parts[0]
    return tuple(chunk for part in parts for chunk in (*part, *_padding(part)))


def _padding(part: Iterable[Chunk]) -> tuple[bytes, ...]:
    short = -sum(len(chunk) for chunk in part) % _ALIGNMENT
    return (bytes(short),) if short else ()
