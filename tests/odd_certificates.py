"""EK certificates that nobody here has seen: every algorithm, every odd encoding, every way to be wrong.

Each says whether it must be accepted (`words` None), or a part of the reason why not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests import pki
from tests.simulator.keys import private_key


@dataclass(frozen=True)
class Case:
    name: str
    certificate: bytes
    anchors: tuple[bytes, ...]
    words: str | None = None
    helpers: tuple[bytes, ...] = ()
    at: datetime = pki.NOW


ROOT = pki.Ca.root("Odd Root")
SUB = ROOT.below("Odd Sub")
RSA_ROOT = pki.Ca.root("Odd RSA", kind="rsa2048")
P384 = ec.derive_private_key(0x1234567, ec.SECP384R1())
P521 = ec.derive_private_key(0x1234567, ec.SECP521R1())
UNKNOWN = pki.extension("1.2.3.4", pki.utf8("?"), critical=True)
SM2_POINT = bytes.fromhex(
    "0432c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"
    "bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"
)
SM2 = pki.seq(
    pki.seq(pki.oid("1.2.840.10045.2.1"), pki.oid("1.2.156.10197.1.301")), pki.tlv(3, b"\0", SM2_POINT)
)
ECDSA_SHA512 = pki.Algorithm(pki.seq(pki.oid("1.2.840.10045.4.3.4")), hashes.SHA512())


def case(name: str, certificate: bytes | None = None, words: str | None = None, **changes) -> Case:
    """By `ROOT` unless told otherwise."""
    where = {key: changes.pop(key) for key in ("anchors", "helpers", "at") if key in changes}
    made = ROOT.ek(**changes) if certificate is None else certificate
    return Case(name, made, where.pop("anchors", (ROOT.der,)), words, **where)


def ca(key, name: str) -> pki.Ca:
    subject = pki.common_name(name)
    algorithm = ECDSA_SHA512 if key is P521 else pki.ALGORITHMS["ecdsa-sha384"]
    return pki.Ca(name, key, subject, pki.ca_body(key, subject, subject, key).signed_by(key, algorithm))


def tower(height: int) -> tuple[pki.Ca, tuple[bytes, ...]]:
    """The lowest of so many CAs below the root, and all of them."""
    lowest, made = ROOT, []
    for level in range(height):
        lowest = lowest.below(f"Odd level {level}")
        made.append(lowest.der)
    return lowest, tuple(made)


def _keys() -> list[Case]:
    p384, p521 = ca(P384, "Odd P-384"), ca(P521, "Odd P-521")
    rsa = {size: private_key(f"rsa{size}", "pki odd").public_key() for size in (2048, 3072, 4096)}
    return [
        case("RSA-2048 key", key=rsa[2048]),
        case("RSA-3072 key", key=rsa[3072]),
        case("RSA-4096 key", key=rsa[4096]),
        case("RSA-1024 key", words="RSA key of 1024 bits", key=private_key("rsa1024", "odd").public_key()),
        case("RSAES-OAEP key", key=rsa[2048], spki=pki.oaep_spki(rsa[2048])),
        case("P-384 key", key=P384.public_key()),
        case("P-521 key", key=P521.public_key()),
        case("Brainpool key", key=ec.derive_private_key(77, ec.BrainpoolP256R1()).public_key()),
        case(
            "secp256k1 key",
            words="curve secp256k1",
            key=ec.derive_private_key(77, ec.SECP256K1()).public_key(),
        ),
        case("SM2 key", words="(SM2 1.2.156.10197.1.301) are not supported", spki=SM2),
        case("signed by P-384", p384.ek(algorithm=pki.ALGORITHMS["ecdsa-sha384"]), anchors=(p384.der,)),
        case("signed by P-521", p521.ek(algorithm=ECDSA_SHA512), anchors=(p521.der,)),
        *(
            case(f"signed by {label}", RSA_ROOT.ek(algorithm=pki.ALGORITHMS[label]), anchors=(RSA_ROOT.der,))
            for label in ("rsa-pss-sha256", "rsa-pss-sha384", "rsa-sha384", "rsa-sha512")
        ),
        case(
            "signed by MD5",
            RSA_ROOT.ek(algorithm=pki.ALGORITHMS["rsa-md5"]),
            "not accepted",
            anchors=(RSA_ROOT.der,),
        ),
        case("signed by SHA-1", words="not accepted", algorithm=pki.ALGORITHMS["ecdsa-sha1"]),
    ]


def _numbers_and_dates() -> list[Case]:
    def utc(text: str) -> bytes:
        return pki.tlv(0x17, text.encode())

    def general(text: str) -> bytes:
        return pki.tlv(0x18, text.encode())

    early = pki.Ca.root("Odd Early", not_before=utc("500101000000Z"), not_after=general("99991231235959Z"))
    in_1950 = datetime(1950, 6, 1, tzinfo=UTC)
    return [
        case("serial negative", serial=-(1 << 70)),
        case("serial zero", serial=0),
        case("serial of 40 bytes", serial=1 << 318),
        case("ends in UTCTime 2049", not_after=utc("491231235959Z")),
        case("ends in GeneralizedTime 2050", not_after=general("20500101000000Z")),
        case("ends in GeneralizedTime 9999", not_after=general("99991231235959Z")),
        case("begins in GeneralizedTime 2024", not_before=general("20240101000000Z")),
        case("begins in UTCTime 1950", early.ek(not_before=utc("500101000000Z")), anchors=(early.der,)),
        case(
            "UTCTime 50 is 1950 and not 2050",
            early.ek(not_before=utc("500101000000Z"), not_after=utc("500701000000Z")),
            "expired at 1950-07-01",
            anchors=(early.der,),
        ),
        case(
            "valid in 1950",
            early.ek(not_before=utc("500101000000Z"), not_after=utc("500701000000Z")),
            anchors=(early.der,),
            at=in_1950,
        ),
        case("no seconds", not_before=utc("2401010000Z")),
        case("offset in place of Z", not_before=utc("240101000000+0000")),
        case("fraction of a second", not_before=general("20240101000000.5Z")),
        case("no time", words="not a time", not_before=pki.utf8("2024-01-01")),
        case("the 31st of June", words="time", not_after=utc("330631000000Z")),
        case("ends before it begins", words="expired", not_after=utc("230101000000Z")),
        case("expired", words="expired at 2026-05-31", not_after=utc("260531000000Z")),
        case("not yet valid", words="is not valid before", not_before=utc("260701000000Z")),
    ]


def _names() -> list[Case]:
    def san(value: bytes, *, critical: bool = True) -> bytes:
        return pki.extension(pki.SUBJECT_ALT_NAME, value, critical=critical)

    def text(tag: int, encoding: str) -> bytes:
        return pki.seq(
            *(
                pki.rdn((kind, pki.tlv(tag, value.encode(encoding))))
                for kind, value in (
                    (pki.MANUFACTURER, "id:53544D20"),
                    (pki.MODEL, "ST33"),
                    (pki.VERSION, "id:00010101"),
                )
            )
        )

    email = pki.seq(pki.tlv(0x81, b"tpm@example.com"))
    return [
        case("empty subject, critical name"),
        case("empty subject, name not critical", directory=b"", extra=(pki.directory_san(pki.tpm_name()),)),
        case("TPM named in the subject alone", directory=b"", subject=pki.tpm_name()),
        case("named in both", subject=pki.tpm_name()),
        case("named in BMPString", directory=text(0x1E, "utf-16-be")),
        case("named in T61String", directory=text(0x14, "latin-1")),
        case("named in UniversalString", directory=text(0x1C, "utf-32-be")),
        case("named in IA5String", directory=text(0x16, "ascii")),
        case("named in PrintableString", directory=text(0x13, "ascii")),
        case("one RDN of three", directory=pki.seq(pki.rdn(
            (pki.VERSION, pki.utf8("id:01")), (pki.MODEL, pki.utf8("x")), (pki.MANUFACTURER, pki.utf8("id:4E544300"))
        ))),
        case("no name, no purpose", words="nothing in it speaks of a TPM", directory=b"", purposes=()),
        case("purpose without name", directory=b""),
        case("name without purpose", purposes=()),
        case("critical e-mail name", words="holds no directory name", directory=b"", extra=(san(email),)),
    ]  # fmt: skip


def _extensions() -> list[Case]:
    bare = pki.ek_body(pki.EK_KEY.public_key())
    twice = replace(bare, issuer=ROOT.subject, extensions=(*bare.extensions, bare.extensions[0]))
    version_1 = replace(bare, issuer=ROOT.subject, extensions=(), version=b"")
    purposes = pki.extension(pki.EXTENDED_KEY_USAGE, pki.seq(pki.oid(pki.EK_PURPOSE)), critical=True)
    return [
        case("unknown critical extension", words="1.2.3.4 cannot be enforced", extra=(UNKNOWN,)),
        case("unknown extension", extra=(pki.extension("1.2.3.4", pki.utf8("?")),)),
        case("extension twice", twice.signed_by(ROOT.key), "a second time"),
        case("no extensions", replace(twice, extensions=()).signed_by(ROOT.key), "nothing in it speaks"),
        case("version 1", version_1.signed_by(ROOT.key), "not an X.509 version 3"),
        case("critical purpose", purposes=(), extra=(purposes,)),
        case("any purpose", purposes=("2.5.29.37.0",)),
        case("purpose of a server", words="other purposes", purposes=("1.3.6.1.5.5.7.3.1",)),
        case("purpose of an AK", words="other purposes", purposes=(pki.AK_PURPOSE,)),
        case("purpose of an EK among others", purposes=("1.3.6.1.5.5.7.3.1", pki.EK_PURPOSE)),
        case("no key usage", usage=()),
        case("key usage of a signing key", words="neither encipherment", usage=(pki.DIGITAL_SIGNATURE,)),
        case("it is a CA", words="it is a CA", ca=True, usage=(pki.CERT_SIGN, pki.KEY_AGREEMENT)),
        case("name constraints", words="2.5.29.30 cannot", extra=(pki.extension("2.5.29.30", pki.seq(pki.tlv(0xA0, pki.seq(pki.tlv(0x82, b"example.com")))), critical=True),)),
    ]  # fmt: skip


def _paths() -> list[Case]:
    seven, sevens = tower(6)
    eight, eights = tower(7)
    short = pki.Ca.root("Odd Short", path_length=0)
    below = short.below("Odd Below")
    no_ca = ROOT.below("Odd no CA", ca=False)
    no_usage = ROOT.below("Odd no usage", usage=(pki.CRL_SIGN,))
    limited = ROOT.below("Odd limited", extra=(pki.extended_key_usage("1.3.6.1.5.5.7.3.1"),))
    odd_ca = ROOT.below("Odd critical", extra=(UNKNOWN,))
    stranger = pki.Ca.root("Odd Root", seed="a stranger")
    dns = pki.seq(pki.tlv(0xA0, pki.seq(pki.tlv(0x82, b"example.com"))))
    constrained = ROOT.below("Odd names", extra=(pki.extension("2.5.29.30", dns, critical=True),))
    forged = bytearray(ROOT.ek())
    forged[-5] ^= 1
    return [
        case("intermediate alone is the anchor", SUB.ek(), anchors=(SUB.der,)),
        case("intermediate and root are anchors", SUB.ek(), anchors=(SUB.der, ROOT.der)),
        case("root over an intermediate", SUB.ek(), helpers=(SUB.der,)),
        case("intermediate missing", SUB.ek(), "no trust anchor"),
        case("eight certificates", seven.ek(), helpers=sevens),
        case("nine certificates", eight.ek(), "more than 8", helpers=eights),
        case(
            "path too long for its root", below.ek(), "allows 0", anchors=(short.der,), helpers=(below.der,)
        ),
        case("issuer is no CA", no_ca.ek(), "is not a CA", helpers=(no_ca.der,)),
        case("issuer may not sign", no_usage.ek(), "may not sign", helpers=(no_usage.der,)),
        case("issuer for servers", limited.ek(), "limited to the purposes", helpers=(limited.der,)),
        case("issuer with a critical unknown", odd_ca.ek(), "cannot be enforced", helpers=(odd_ca.der,)),
        case("issuer with name constraints", constrained.ek(), "2.5.29.30", helpers=(constrained.der,)),
        case("another root of the same name", stranger.ek(), "was not signed"),
        case("both roots of one name", stranger.ek(), anchors=(ROOT.der, stranger.der)),
        case("changed signature", bytes(forged), "was not signed"),
    ]


CASES = (*_keys(), *_numbers_and_dates(), *_names(), *_extensions(), *_paths())
