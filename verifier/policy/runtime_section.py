"""From the `runtime` part of a document to a `RuntimeSection`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from verifier.errors import PolicyError
from verifier.policy.document_runtime import RuntimeDocument, SetDocument, SignaturesDocument
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import (
    Handling,
    RuntimeOptions,
    SignatureUse,
    SigningKey,
    TargetRule,
)
from verifier.policy.runtime.section import Exclude, NamedSet, RuntimeSection
from verifier.refusals import REFUSALS

PCR: Final = 10
_KEY_ID: Final = 4
W_ = TypeVar("W_", Handling, SignatureUse)


def read_runtime(document: RuntimeDocument | None, quoted: Iterable[int]) -> RuntimeSection | None:
    """What a policy says of IMA lists; None where it does not read them.

    Raises:
        PolicyError: with the key; for what can never pass, or would let everything pass.
    """
    if document is None:
        return None
    if PCR not in quoted:
        raise PolicyError("PCR 10 proves the IMA list; add it to quote.pcrs", where="runtime")
    use, keys, learn = _signatures(document.signatures)
    sets, staged = _sets(document.sets, "runtime.sets"), _sets(document.staged, "runtime.staged")
    both = {each.sha256 for each in sets} & {each.sha256 for each in staged}
    if both:
        raise PolicyError(f"set {min(both)[:16]}… is in force and staged", where="runtime.staged")
    if not sets and use is SignatureUse.IGNORED:
        raise PolicyError("names no set and no signatures, so nothing could ever be known", where="runtime")
    return RuntimeSection(
        sets=sets,
        staged=staged,
        excludes=tuple(
            Exclude(_patterns(each.paths, number), each.why) for number, each in enumerate(document.excludes)
        ),
        ignored_keyrings=frozenset(document.ignored_keyrings),
        keys=keys,
        options=_options(document, use, learn),
    )


def _options(document: RuntimeDocument, use: SignatureUse, learn: frozenset[str]) -> RuntimeOptions:
    both = learn & set(document.ignored_keyrings)
    if both:
        raise PolicyError(f"keyring {min(both)} is learned and ignored", where="runtime.ignored_keyrings")
    return RuntimeOptions(
        unknown_path=_word(Handling, document.unknown_files, "unknown_files"),
        unknown_module=_word(Handling, document.unknown_modules, "unknown_modules"),
        violations=_word(Handling, document.violations, "violations"),
        signatures=use,
        learn_keyrings=learn,
        unknown_key=_word(Handling, document.unknown_keys, "unknown_keys"),
        policy_load=_word(Handling, document.policy_loads, "policy_loads"),
        unknown_buffer=_word(Handling, document.critical_data, "critical_data"),
        targets=None
        if document.device_mapper is None
        else tuple(TargetRule(each.target, dict(each.attributes)) for each in document.device_mapper),
    )


def _sets(documents: Iterable[SetDocument], where: str) -> tuple[NamedSet, ...]:
    found = tuple(NamedSet(each.sha256, each.name) for each in documents)
    if len({each.sha256 for each in found}) != len(found):
        raise PolicyError("names a set twice", where=where)
    return found


def _patterns(texts: list[str], number: int) -> Patterns:
    try:
        return Patterns(texts)
    except RuntimeSetError as error:
        raise PolicyError(error.detail, where=f"runtime.excludes[{number}]") from error


def _signatures(
    document: SignaturesDocument | None,
) -> tuple[SignatureUse, tuple[SigningKey, ...], frozenset[str]]:
    if document is None:
        return SignatureUse.IGNORED, (), frozenset()
    where = "signatures"
    use = _word(SignatureUse, document.use, f"{where}.use")
    keys, learn = tuple(map(_key, document.keys)), frozenset(document.learn_keyrings)
    if use is SignatureUse.IGNORED and (keys or learn):
        raise PolicyError("keys are named, and signatures are ignored", where=f"runtime.{where}")
    if use is not SignatureUse.IGNORED and not (keys or learn):
        raise PolicyError("no key may sign, so no signature could ever be good", where=f"runtime.{where}")
    return use, keys, learn


def _key(pem: str) -> SigningKey:
    """A certificate, named as the kernel names keys, or a bare public key, named as a certificate without an id is."""
    where = "runtime.signatures.keys"
    try:
        if "PUBLIC KEY" in pem:
            return _signing_key(load_pem_public_key(pem.encode()), None, "a bare public key")
        found = x509.load_pem_x509_certificates(pem.encode())
        if len(found) != 1:
            raise PolicyError("one certificate an entry", where=where)
        (certificate,) = found
        extensions = certificate.extensions
        public = certificate.public_key()
        name = certificate.subject.rfc4514_string()  # parsed only when asked for
    except REFUSALS as error:
        raise PolicyError(f"not an X.509 certificate or public key in PEM: {error}", where=where) from error
    try:
        identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        identifier = None
    return _signing_key(public, identifier, name)


def _signing_key(key: object, identifier: bytes | None, name: str) -> SigningKey:
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise PolicyError(
            "files are signed with RSA and EC keys; this is another kind", where="runtime.signatures.keys"
        )
    own = identifier or x509.SubjectKeyIdentifier.from_public_key(key).digest
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(own[-_KEY_ID:], public, name)


def _word(kind: type[W_], text: str, key: str) -> W_:
    try:
        return kind(text)
    except ValueError:
        choices = ", ".join(each.value for each in kind)
        raise PolicyError(f"{text!r} is not one of {choices}", where=f"runtime.{key}") from None
