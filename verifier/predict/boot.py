"""From the files of a boot to a `Prediction`: PCR 4, and which PCRs else follow from what is given."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from verifier.predict import kernel, shim, uki
from verifier.predict.authenticode import BootImage
from verifier.predict.errors import PredictionError
from verifier.predict.model import PredictedEvent, PredictedPcr, Prediction, predicted_pcr
from verifier.predict.pe import PeImage, authenticode_digest, parse_pe
from verifier.predict.secure_boot import (
    SECURE_BOOT_PCR,
    Authority,
    authority_events,
    configuration_events,
    firmware_authority,
    separator,
)
from verifier.predict.variables import SecureBootVariables
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType

BOOT_PCR: Final = 4
GRUB_PCR: Final = 8
CALLING: Final = "Calling EFI Application from Boot Option"

_WHY_GRUB: Final = (
    "GRUB measures its commands, its configuration and the files it reads; learn it from a good boot"
)
_WHY_VARIABLES: Final = "the Secure Boot variables were not given"
_WHY_PARTS: Final = "it covers the built and signed image; give --uki"
_WHY_KERNEL: Final = "only x86 kernels from 6.1 on are known to measure their command line and initrd"
_WHY_DIFFERS: Final = "this systemd-stub adds a secret of the machine to the initrd that the kernel measures"
_WHY_LINE: Final = "the image leaves the command line to whoever boots it"


class Presence(enum.StrEnum):
    """Whether firmware measures something that not every firmware measures."""

    ALWAYS = "always"
    SOMETIMES = "sometimes"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What is booted, and on what.

    Attributes:
        images: every PE image in the order of loading, from the one that firmware starts.
        secure_boot: whether it is on.
        variables: None where they are not known.
        calling: whether firmware measures `CALLING` before the first image.
    """

    images: tuple[BootImage, ...]
    secure_boot: bool
    variables: SecureBootVariables | None
    bank: HashAlg
    calling: Presence = Presence.ALWAYS


def predict_boot(boot: Boot) -> Prediction:
    """The PCR values that a boot of these images leads to.

    Assumes firmware that measures as edk2 does, boots the first image at the first attempt, and finds nothing
    beside the images (credentials, extensions, another command line).

    Raises:
        PredictionError: the images would not boot under these variables, or do not make a boot.
        UnsupportedError: a loader of which is not known what it measures.
        MalformedInputError: a file that does not parse.
    """
    return _Predictor(boot).prediction()


def predict_parts(parts: uki.Uki, bank: HashAlg) -> Prediction:
    """What follows before a unified kernel image is built, from the contents of its sections."""
    predictor = _Collector(bank)
    predictor.uki(parts)
    for pcr in (BOOT_PCR, SECURE_BOOT_PCR):
        predictor.unpredicted[pcr] = _WHY_PARTS
    return predictor.prediction(None)


class _Collector:
    """Gathers what follows from the files, and why the rest does not."""

    def __init__(self, bank: HashAlg) -> None:
        self.bank = bank
        self.pcrs: dict[int, PredictedPcr] = {}
        self.unpredicted: dict[int, str] = {}
        self.command_line: str | None = None

    def add(
        self,
        pcr: int,
        events: Iterable[PredictedEvent] = (),
        endings: Iterable[tuple[str, ...]] = ((),),
    ) -> None:
        self.pcrs[pcr] = predicted_pcr(pcr, events, self.bank, endings)

    def uki(self, image: uki.Uki) -> None:
        """PCRs 8, 9, 11, 12 and 13 of a unified kernel image."""
        self.command_line = image.command_line
        self.add(uki.UKI_PCR, uki.section_events(image, self.bank), uki.PHASES)
        self.add(GRUB_PCR)
        self.add(uki.EXTENSION_PCR)
        if self.command_line is None:
            self.unpredicted[uki.OVERRIDE_PCR] = self.unpredicted[kernel.KERNEL_PCR] = _WHY_LINE
            return
        self.add(uki.OVERRIDE_PCR)
        version = kernel.kernel_version(image.sections[".linux"])
        if version is None or version < kernel.FIRST_MEASURING:
            self.unpredicted[kernel.KERNEL_PCR] = _WHY_KERNEL
            return
        if image.adds_secret:
            self.unpredicted[kernel.KERNEL_PCR] = _WHY_DIFFERS
            return
        initrd = uki.final_initrd(image) or None
        self.add(kernel.KERNEL_PCR, kernel.kernel_events(self.command_line, initrd, self.bank))

    def prediction(self, secure_boot: bool | None) -> Prediction:  # noqa: FBT001 - private, and it reads well
        return Prediction(
            bank=self.bank,
            pcrs=self.pcrs,
            unpredicted=self.unpredicted,
            secure_boot=secure_boot,
            command_line=self.command_line,
        )


class _Predictor:
    def __init__(self, boot: Boot) -> None:
        if not boot.images:
            raise PredictionError("there is no image to boot")
        if boot.variables is not None and boot.variables.enabled != boot.secure_boot:
            raise PredictionError("the variables say otherwise about Secure Boot", where="SecureBoot")
        self._boot = boot
        self._collector = _Collector(boot.bank)
        first = boot.images[0]
        self._shim = shim.read_shim(first.pe) if shim.is_shim(first.pe) else None
        last = boot.images[-1].pe
        self._uki = uki.read_uki(last) if uki.is_uki(last) else None

    def prediction(self) -> Prediction:
        boot, collector = self._boot, self._collector
        collector.add(BOOT_PCR, self._boot_events())
        if boot.variables is None:
            collector.unpredicted[SECURE_BOOT_PCR] = _WHY_VARIABLES
        else:
            events = configuration_events(boot.variables, boot.bank)
            collector.add(SECURE_BOOT_PCR, (*events, *self._authority_events(boot.variables)))
        if self._shim is not None:
            collector.add(shim.MOK_PCR, shim.mok_events(self._shim, boot.variables, boot.bank))
        if self._uki is not None:
            collector.uki(self._uki)
        elif any(_is_grub(image.pe) for image in boot.images):
            collector.unpredicted[GRUB_PCR] = collector.unpredicted[kernel.KERNEL_PCR] = _WHY_GRUB
        else:
            collector.unpredicted[kernel.KERNEL_PCR] = collector.unpredicted[uki.OVERRIDE_PCR] = _WHY_LINE
        return collector.prediction(boot.secure_boot)

    def _boot_events(self) -> list[PredictedEvent]:
        boot = self._boot
        events = []
        if boot.calling is not Presence.NEVER:
            events.append(
                PredictedEvent(
                    pcr=BOOT_PCR,
                    event_type=EventType.EV_EFI_ACTION,
                    label=CALLING,
                    digest=boot.bank.digest(CALLING.encode()),
                    optional=boot.calling is Presence.SOMETIMES,
                )
            )
        events.append(separator(BOOT_PCR, boot.bank))
        after_grub = False
        for image in boot.images:
            events += self._loaded_by_grub(image) if after_grub else [self._loaded(image.name, image.pe)]
            after_grub = after_grub or _is_grub(image.pe)
        if self._uki is not None:
            events += self._inner_kernel(self._uki)
        return events

    def _loaded(self, name: str, image: PeImage, *, optional: bool = False) -> PredictedEvent:
        return PredictedEvent(
            pcr=BOOT_PCR,
            event_type=EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
            label=name,
            digest=authenticode_digest(image, self._boot.bank),
            optional=optional,
        )

    def _loaded_by_grub(self, image: BootImage) -> list[PredictedEvent]:
        """GRUB has shim verify the kernel, which measures it: once or twice by version, and only with Secure Boot."""
        again = self._loaded(f"{image.name} (verified again)", image.pe, optional=True)
        return [self._loaded(image.name, image.pe, optional=not self._boot.secure_boot), again]

    def _inner_kernel(self, image: uki.Uki) -> list[PredictedEvent]:
        """With Secure Boot on, the stub vouches for its own kernel and firmware neither verifies nor measures it."""
        if self._boot.secure_boot or image.starts_kernel_itself:
            return []
        inner = parse_pe(b"".join(image.sections[".linux"]))
        return [self._loaded("kernel inside the image", inner)]

    def _authority_events(self, variables: SecureBootVariables) -> tuple[PredictedEvent, ...]:
        """Firmware and shim each measure an authority the first time they use it, whatever the other did."""
        boot = self._boot
        by_firmware: list[Authority] = []
        by_shim: list[Authority] = []
        if self._shim is not None:
            by_shim.append(shim.setup_authority(self._shim, variables, enabled=boot.secure_boot))
        for index, image in enumerate(boot.images if boot.secure_boot else ()):
            if self._shim is None or index == 0:
                by_firmware.append(firmware_authority(image, variables))
            else:
                by_shim.append(shim.shim_authority(image, self._shim, variables))
        return (*authority_events(by_firmware, boot.bank), *authority_events(by_shim, boot.bank))


def _is_grub(image: PeImage) -> bool:
    """GRUB's modules stand in a section of their own."""
    return any(section.name == "mods" for section in image.sections)
