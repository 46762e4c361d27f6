"""Which endorsement key speaks for this TPM: reading EK certificates and making the key they certify.

Nothing here is a trust decision. The verifier validates the certificate and challenges the key; this module only
finds the pair that belongs together, so that an honest machine is not refused for a clumsy choice.
TCG EK Credential Profile for TPM Family 2.0, version 2.5, section 2.2.1 (NV) and annex B (templates).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from msgspec import Struct

from agent import der
from agent.certified import certifies, nv_certificate, persistent_keys
from agent.errors import ConfigError, TpmError
from agent.templates import (
    EK_CHAIN_RANGE,
    EK_SLOTS,
    EkSlot,
    TemplateError,
    normalised,
    parse_public,
    with_nonce,
)
from agent.tpm import Key, Tpm
from agent.wire.limits import MAX_CERTIFICATE, MAX_CERTIFICATES

AUTO: Final = "auto"
EK_CHOICES: Final = (AUTO, *(slot.name for slot in EK_SLOTS if slot.template is not None))


class EkCertificate(Struct, frozen=True):
    """A certificate as found in NV, trimmed to its DER."""

    slot: EkSlot
    der: bytes


class Endorsements(Struct, frozen=True):
    """What NV holds, and what was odd about it."""

    certificates: tuple[EkCertificate, ...]
    chain: tuple[bytes, ...]
    indices: frozenset[int]
    notes: tuple[str, ...]

    @property
    def ders(self) -> list[bytes]:
        """All certificates, for the wire."""
        return [certificate.der for certificate in self.certificates]


class ChosenEk(Struct, frozen=True):
    """An EK ready for use. `certificate` is the DER that certifies exactly this key, or None."""

    slot: str
    key: Key
    certificate: bytes | None
    notes: tuple[str, ...]


def read_endorsements(tpm: Tpm) -> Endorsements:
    """All EK certificates and the issuer chain. Unreadable or malformed content becomes a note, never an error."""
    indices = frozenset(tpm.nv_indices())
    notes: list[str] = []
    certificates: list[EkCertificate] = []
    for slot in EK_SLOTS:
        if slot.certificate_index not in indices:
            continue
        content = nv_certificate(tpm, slot.certificate_index, f"{slot.name} EK certificate", notes)
        if content is not None:
            certificates.append(EkCertificate(slot, content))
    chain = _read_chain(tpm, indices, notes)
    return Endorsements(tuple(certificates), chain, indices, tuple(notes))


def _read_chain(tpm: Tpm, indices: frozenset[int], notes: list[str]) -> tuple[bytes, ...]:
    """Issuer certificates: one stream cut into indices, so it is joined before it is split."""
    stream = b""
    for index in EK_CHAIN_RANGE:
        if index not in indices:
            break
        try:
            stream += tpm.nv_read(index)
        except TpmError as error:
            notes.append(f"NV {index:#010x} (EK issuer chain) ignored: {error}")
            break
    chain, end = der.split(stream)
    if end < len(stream):
        notes.append(f"EK issuer chain: {len(stream) - end} bytes after certificate {len(chain)} are not one")
    return tuple(der_ for der_ in chain if len(der_) <= MAX_CERTIFICATE)[:MAX_CERTIFICATES]


@contextmanager
def chosen_ek(
    tpm: Tpm, endorsements: Endorsements, prefer: str = AUTO, remembered: str | None = None
) -> Iterator[ChosenEk]:
    """The EK to enrol with, for the length of the block.

    `remembered`, the slot last enrolled with, comes first while it works: another EK would be another attester. Then,
    in this order: a persistent key that a certificate certifies (nothing to create), a primary made anew for each
    certificate in the order of `EK_SLOTS`, and at last, with a note, a key without certificate.

    Raises:
        ConfigError: `prefer` names an EK this TPM cannot make.
        TpmError: no EK could be made at all.
    """
    if prefer not in EK_CHOICES:
        raise ConfigError(f"no EK is called {prefer!r}", f"use one of {', '.join(EK_CHOICES)}")
    slots = _slots(prefer, remembered)
    wanted = [item for slot in slots for item in endorsements.certificates if item.slot is slot]
    persistent = _persistent_match(tpm, wanted)
    if persistent is not None:
        handle, certificate = persistent
        with tpm.persistent(handle) as key:
            yield ChosenEk(certificate.slot.name, key, certificate.der, endorsements.notes)
            return
    notes = list(endorsements.notes)
    for certificate in wanted:
        found = _certified(tpm, endorsements, certificate, notes)
        if found is not None:
            key, owner = found
            with owner:
                yield ChosenEk(certificate.slot.name, key, certificate.der, tuple(notes))
                return
    notes.append(
        "no EK certificate in this TPM"
        if not endorsements.certificates
        else f"no EK certificate of this TPM certifies a key this agent could make (--ek {prefer})"
    )
    slot, key, owner = _uncertified(tpm, endorsements, slots, notes)
    with owner:
        yield ChosenEk(slot.name, key, None, tuple(notes))


def _slots(prefer: str, remembered: str | None) -> tuple[EkSlot, ...]:
    """The EKs in question, best first."""
    allowed = [slot for slot in EK_SLOTS if prefer in {AUTO, slot.name}]
    return tuple(sorted(allowed, key=lambda slot: slot.name != remembered))


def _persistent_match(tpm: Tpm, certificates: Sequence[EkCertificate]) -> tuple[int, EkCertificate] | None:
    if not certificates:
        return None
    keys = list(persistent_keys(tpm))
    for certificate in certificates:
        for handle, area in keys:
            if certifies(certificate.der, area):
                return handle, certificate
    return None


def _certified(
    tpm: Tpm, endorsements: Endorsements, certificate: EkCertificate, notes: list[str]
) -> tuple[Key, ExitStack] | None:
    """The certified key and what flushes it, or None with a note. Made once: an RSA primary can take seconds."""
    if certificate.slot.template is None:
        notes.append(f"{certificate.slot.name}: certificate passed on, but this agent cannot make that key")
        return None
    for template in _templates(tpm, endorsements, certificate.slot, notes):
        with ExitStack() as owner:
            try:
                key = owner.enter_context(tpm.primary(template))
            except TpmError as error:
                if error.transient:
                    raise
                notes.append(f"{certificate.slot.name}: {error}")
                continue
            if certifies(certificate.der, parse_public(key.public)):
                return key, owner.pop_all()
    notes.append(f"{certificate.slot.name}: the TPM makes another key than the certificate's")
    return None


def _templates(tpm: Tpm, endorsements: Endorsements, slot: EkSlot, notes: list[str]) -> Iterator[bytes]:
    """Templates to try, best first: from NV, with the NV nonce, the profile's default.

    swtpm labels the low range's nonce index a template, so what lies there is told apart by its content.
    """
    default = slot.template
    if default is None:
        return
    base = default
    stored = {
        index: _nv(tpm, endorsements, index, notes)
        for index in (slot.template_index, slot.nonce_index)
        if index
    }
    for index, content in stored.items():
        if content is None:
            continue
        try:
            base = normalised(content)
            stored[index] = None
            break
        except TemplateError:
            if index == slot.template_index:
                notes.append(f"NV {index:#010x}: not an EK template, the profile's default is used")
    nonce = stored.get(slot.nonce_index) if slot.nonce_index else None
    if nonce is not None:
        try:
            yield with_nonce(base, nonce)
        except TemplateError as error:
            notes.append(f"NV {slot.nonce_index:#010x}: {error}")
    yield base
    if base != default:
        yield default


def _nv(tpm: Tpm, endorsements: Endorsements, index: int, notes: list[str]) -> bytes | None:
    if index not in endorsements.indices:
        return None
    try:
        return tpm.nv_read(index)
    except TpmError as error:
        notes.append(f"NV {index:#010x} ignored: {error}")
        return None


def _uncertified(
    tpm: Tpm, endorsements: Endorsements, slots: Sequence[EkSlot], notes: list[str]
) -> tuple[EkSlot, Key, ExitStack]:
    """The first EK the TPM can make at all."""
    failure: TpmError | None = None
    for slot in slots:
        for template in _templates(tpm, endorsements, slot, notes):
            with ExitStack() as owner:
                try:
                    key = owner.enter_context(tpm.primary(template))
                except TpmError as error:
                    if error.transient:
                        raise
                    failure = failure or error
                    continue
                return slot, key, owner.pop_all()
    raise failure or TpmError(
        "this TPM makes none of the EKs the profile knows", "look at `attest-agent status`"
    )
