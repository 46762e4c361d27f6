"""TPM2B_PUBLIC as both distributions read it, the key in it, TPM2B_ID_OBJECT and TPMS_NV_PUBLIC."""

from __future__ import annotations

from collections.abc import Iterator

from agent.templates import TemplateError
from agent.templates import parse_public as agent_reads
from tests.fuzz.corpora import captured, choices, corpus
from tests.simulator import RSA_AK, RSA_EK, SoftwareTpm, marshal
from verifier.crypto import keys
from verifier.crypto.credential import make_credential
from verifier.errors import EvidenceError
from verifier.tcg.credential import parse_id_object
from verifier.tcg.nv import parse_nv_public
from verifier.tcg.public import ak_attribute_problems, ek_attribute_problems, parse_public

RAISES = (EvidenceError, TemplateError)
RUNS = 600
PUBLIC, ID_OBJECT, NV, AGENT = range(4)


def seeds() -> Iterator[bytes]:
    tpms = (SoftwareTpm("fuzz"), SoftwareTpm("fuzz", ak=RSA_AK, ek=RSA_EK))
    publics = [public for tpm in tpms for public in (tpm.ek_public, tpm.ak_public)]
    publics += [*captured("*.pub"), *corpus("tpm-public")]
    credential = make_credential(parse_public(tpms[0].ek_public), tpms[0].ak_name, bytes(32), fixed)
    nv = (
        marshal.u32(0x01500000)
        + marshal.u16(0x000B)
        + marshal.u32(0x20060046)
        + marshal.tpm2b(b"")
        + b"\0\x20"
    )
    yield from choices({PUBLIC: publics, ID_OBJECT: [credential.credential_blob], NV: [nv], AGENT: publics})


def fixed(count: int) -> bytes:
    """Randomness that is the same each time."""
    return b"\x01" * count


def target(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    if kind == bytes([ID_OBJECT]):
        assert parse_id_object(data).marshal() == data
    elif kind == bytes([NV]):
        assert len(parse_nv_public(data).name) >= 22
    elif kind == bytes([AGENT]):
        agent_reads(data)
    else:
        public = parse_public(data)
        assert public.name
        ak_attribute_problems(public)
        ek_attribute_problems(public)
        agent_reads(data)  # whatever the verifier takes, the agent can read
        keys.load_key.__wrapped__(data)
        keys.fingerprint(public)
        make_credential(public, public.name, bytes(min(32, public.name_alg.size)), fixed)
