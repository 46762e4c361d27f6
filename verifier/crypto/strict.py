"""The first certificate reader: `cryptography`, which refuses what RFC 5280 does not allow."""

from __future__ import annotations

from cryptography import x509

from verifier.crypto.cert_algorithms import read_key, read_signature_algorithm
from verifier.crypto.certificate import (
    AlternativeNames,
    BasicConstraints,
    Certificate,
    ExtensionSet,
    KeyUsage,
)
from verifier.crypto.der import Envelope
from verifier.refusals import REFUSALS

_USAGE_BITS = {
    "digital_signature": KeyUsage.DIGITAL_SIGNATURE,
    "content_commitment": KeyUsage.CONTENT_COMMITMENT,
    "key_encipherment": KeyUsage.KEY_ENCIPHERMENT,
    "data_encipherment": KeyUsage.DATA_ENCIPHERMENT,
    "key_agreement": KeyUsage.KEY_AGREEMENT,
    "key_cert_sign": KeyUsage.KEY_CERT_SIGN,
    "crl_sign": KeyUsage.CRL_SIGN,
}


class NotStrictError(Exception):
    """`cryptography` does not read this certificate; the message says why."""


def read_strict(envelope: Envelope) -> Certificate:
    """Read a certificate with `cryptography`.

    Raises:
        NotStrictError: it is outside the profile `cryptography` reads. The second reader decides.
        MalformedInputError: its key or its signature algorithm does not parse; no reader would help.
    """
    key = read_key(envelope.spki)
    try:
        parsed = x509.load_der_x509_certificate(envelope.der)
        not_before, not_after = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        extensions = _read_extensions(parsed.extensions)
    except REFUSALS as error:
        raise NotStrictError(str(error)) from error
    return Certificate(
        der=envelope.der,
        signed=envelope.signed,
        serial=envelope.serial,
        issuer=envelope.issuer,
        subject=envelope.subject,
        not_before=not_before,
        not_after=not_after,
        key=key.key,
        key_algorithm=key.algorithm,
        spki=key.spki,
        algorithm=read_signature_algorithm(envelope.algorithm),
        signature=envelope.signature,
        extensions=extensions,
    )


def _read_extensions(extensions: x509.Extensions) -> ExtensionSet:
    found: dict[str, object] = {}
    present, critical = set(), set()
    for extension in extensions:
        value = extension.value
        oid = extension.oid.dotted_string
        present.add(oid)
        if extension.critical:
            critical.add(oid)
        match value:
            case x509.BasicConstraints():
                found["basic_constraints"] = BasicConstraints(value.ca, value.path_length)
            case x509.KeyUsage():
                found["key_usage"] = _read_key_usage(value)
            case x509.ExtendedKeyUsage():
                found["extended_key_usage"] = tuple(purpose.dotted_string for purpose in value)
            case x509.SubjectKeyIdentifier():
                found["subject_key_id"] = value.digest
            case x509.AuthorityKeyIdentifier():
                found["authority_key_id"] = value.key_identifier
            case x509.SubjectAlternativeName():
                found["alternative_names"] = _read_alternative_names(value)
            case _:
                pass  # not decoded; the lists above are what refuses it
    return ExtensionSet(present=frozenset(present), critical=frozenset(critical), **found)  # type: ignore[arg-type]


def _read_key_usage(value: x509.KeyUsage) -> KeyUsage:
    usage = KeyUsage(0)
    for attribute, bit in _USAGE_BITS.items():
        if getattr(value, attribute):
            usage |= bit
    # The two below are undefined without keyAgreement (RFC 5280, section 4.2.1.3); asking raises.
    if value.key_agreement:
        usage |= KeyUsage.ENCIPHER_ONLY if value.encipher_only else KeyUsage(0)
        usage |= KeyUsage.DECIPHER_ONLY if value.decipher_only else KeyUsage(0)
    return usage


def _read_alternative_names(value: x509.SubjectAlternativeName) -> AlternativeNames:
    directory: list[tuple[str, str]] = []
    other_names: list[tuple[str, bytes]] = []
    has_directory = False
    for name in value:
        if isinstance(name, x509.DirectoryName):
            has_directory = True
            directory += [
                (attribute.oid.dotted_string, attribute.value)
                for attribute in name.value
                if isinstance(attribute.value, str)
            ]
        elif isinstance(name, x509.OtherName):
            other_names.append((name.type_id.dotted_string, name.value))
    return AlternativeNames(tuple(directory), has_directory, tuple(other_names))
