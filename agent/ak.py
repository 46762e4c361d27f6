"""Which attestation key signs: one the agent makes, or one that came with the machine and has a certificate.

Google puts certificate and template of an AK into the NV of its vTPMs, Azure a certificate for the persistent key
0x81000003, makers of hardware an IAK and its certificate (TCG, "TPM 2.0 Keys for Device Identity and Attestation").
Whether such a certificate is worth anything, the verifier decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from agent.certified import certifies, nv_certificate, persistent_keys
from agent.errors import ConfigError, TpmError
from agent.templates import AkKind, Attribute, TemplateError, ak_template, normalised, parse_public
from agent.tpm import Key, Tpm
from agent.wire.limits import MAX_CERTIFICATES

CERTIFIED: Final = "certified"
AK_CHOICES: Final = (*(kind.value for kind in AkKind), CERTIFIED)
_AK_BITS: Final = Attribute.RESTRICTED | Attribute.SIGN


class AkSlot(Struct, frozen=True):
    """Where a cloud puts the certificate of an AK, and the template the key is made from; None: it is persistent."""

    name: str
    certificate_index: int
    template_index: int | None


AK_SLOTS: Final = (
    AkSlot("Google, ECC", 0x01C10002, 0x01C10003),
    AkSlot("Google, RSA", 0x01C10000, 0x01C10001),
    AkSlot("Azure", 0x01C101D0, None),
)
"""In order of preference: an ECC key is made in milliseconds."""
DEVICE_RANGE: Final = range(0x01C90000, 0x01C90300)
"""IDevID and IAK certificates; which is which, they say themselves."""


class KeyCertificates(Struct, frozen=True):
    """Certificates of signing keys in NV, and what was odd about them."""

    ak: tuple[tuple[AkSlot, bytes], ...]
    device: tuple[bytes, ...]
    notes: tuple[str, ...]

    @property
    def ak_ders(self) -> list[bytes]:
        """Those of AKs, for the wire."""
        return [certificate for _, certificate in self.ak]


def read_key_certificates(tpm: Tpm) -> KeyCertificates:
    """All of them; unreadable or malformed content becomes a note, never an error."""
    indices = frozenset(tpm.nv_indices())
    notes: list[str] = []
    aks: list[tuple[AkSlot, bytes]] = []
    for slot in AK_SLOTS:
        if slot.certificate_index in indices:
            found = nv_certificate(tpm, slot.certificate_index, f"AK certificate, {slot.name}", notes)
            if found is not None:
                aks.append((slot, found))
    devices: list[bytes] = []
    for index in sorted(indices.intersection(DEVICE_RANGE))[:MAX_CERTIFICATES]:
        found = nv_certificate(tpm, index, "device certificate", notes)
        if found is not None:
            devices.append(found)
    return KeyCertificates(tuple(aks), tuple(devices), tuple(notes))


@contextmanager
def opened_ak(tpm: Tpm, choice: str, generation: int) -> Iterator[Key]:
    """The AK, for the length of the block.

    Args:
        tpm: the TPM that has it.
        choice: an `AkKind`, made by this agent; or `certified`, one that came with the machine.
        generation: of a made one; see `ak_template`.

    Raises:
        ConfigError: `certified`, and no certificate in this TPM is for a restricted signing key it has.
        TpmError: the key could not be made.
    """
    if choice != CERTIFIED:
        with tpm.primary(ak_template(AkKind(choice), generation)) as made:
            yield made
            return
    certificates = read_key_certificates(tpm)
    handle = _persistent_ak(tpm, [*certificates.ak_ders, *certificates.device])
    if handle is not None:
        with tpm.persistent(handle) as key:
            yield key
            return
    template = _template_ak(tpm, certificates)
    if template is None:
        raise ConfigError(
            "no certificate in this TPM is for an attestation key that it has",
            f"use one of {', '.join(AkKind)} with --ak; `attest-agent status` lists the certificates",
        )
    with tpm.primary(template) as key:
        yield key


def _persistent_ak(tpm: Tpm, certificates: list[bytes]) -> int | None:
    """Handle of a restricted signing key that one of the certificates is for, in the order of the certificates."""
    if not certificates:
        return None
    keys = [(handle, area) for handle, area in persistent_keys(tpm) if area.attributes & _AK_BITS == _AK_BITS]
    for certificate in certificates:
        for handle, area in keys:
            if certifies(certificate, area):
                return handle
    return None


def _template_ak(tpm: Tpm, certificates: KeyCertificates) -> bytes | None:
    """The template in NV that makes the key of its certificate."""
    for slot, certificate in certificates.ak:
        if slot.template_index is None:
            continue
        try:
            template = normalised(tpm.nv_read(slot.template_index))
            with tpm.primary(template) as key:
                made = parse_public(key.public)
        except TemplateError:
            continue
        except TpmError as error:
            if error.transient:
                raise
            continue
        if certifies(certificate, made):
            return template
    return None
