"""A verifier that demands signatures uses no policy without one: submitted, stored, or found in a folder."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness import POLICY, FakeClock
from tests.unit.service.policy_store import PolicyStore
from verifier.errors import PolicyError, StoredDataDamaged, VerifierFault
from verifier.policy.assignment import PolicyRef
from verifier.policy.dsse import PolicySigners, key_id, sign
from verifier.policy_files import find_policies, load_policy, read_policy_signers
from verifier.reasons import Reason
from verifier.service.events import LocalEvents
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder

OURS, THEIRS = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
SOURCE = POLICY.encode()
SIGNED = sign(SOURCE, [OURS])
REF = PolicyRef("secure-boot")


@pytest.fixture
def store():
    return PolicyStore()


def service(store: PolicyStore, *keys: Ed25519PrivateKey) -> PolicyService:
    signers = PolicySigners.of(key.public_key() for key in keys) if keys else None
    return PolicyService(store, Recorder(store, LocalEvents()), FakeClock(), signers)


async def test_a_policy_signed_by_an_accepted_key_is_registered_and_judges(store) -> None:
    demanding = service(store, OURS, THEIRS)
    record = await demanding.register("default", SIGNED, "t")
    policy = await demanding.load("default", REF)
    assert policy.revision == record.revision
    plain = await service(PolicyStore()).register("default", SOURCE, "t")
    assert plain.revision == record.revision


@pytest.mark.parametrize("source", [SOURCE, sign(SOURCE, [THEIRS])])
async def test_any_other_is_refused_and_nothing_is_stored(store, source: bytes) -> None:
    with pytest.raises(PolicyError) as caught:
        await service(store, OURS).register("default", source, "t")
    assert caught.value.reason is Reason.POLICY_SIGNATURE
    assert not store.current


async def test_a_policy_stored_without_a_signature_is_not_used(store) -> None:
    """From before the demand, or by whoever can write to the database."""
    await service(store).register("default", SOURCE, "t")
    with pytest.raises(StoredDataDamaged, match="not signed"):
        await service(store, OURS).load("default", REF)
    await service(store, OURS).register("default", SIGNED, "t")
    assert await service(store, OURS).load("default", REF) is not None


async def test_a_stored_policy_that_was_swapped_is_not_used(store) -> None:
    demanding = service(store, OURS)
    await demanding.register("default", SIGNED, "t")
    ((key, record),) = store.current.items()
    store.current[key] = replace(record, source=sign(SOURCE.replace(b"10m", b"20m"), [THEIRS]).decode())
    with pytest.raises(StoredDataDamaged):
        await service(store, OURS).load("default", REF)


async def test_without_a_demand_signed_policies_are_taken_as_well(store) -> None:
    await service(store).register("default", SIGNED, "t")
    assert (await service(store).load("default", REF)).id == "secure-boot"


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_signers_are_read_from_files(tmp_path) -> None:
    assert read_policy_signers([]) is None
    (tmp_path / "ours.pem").write_bytes(public_pem(OURS))
    signers = read_policy_signers([tmp_path / "ours.pem"])
    assert signers is not None
    assert signers.ids == {key_id(OURS.public_key())}


@pytest.mark.parametrize(
    ("content", "problem"), [(b"nonsense", "not a PEM public key"), (None, "No such file")]
)
def test_a_signer_that_cannot_be_read_stops_the_service(
    tmp_path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "ours.pem").write_bytes(content)
    with pytest.raises(VerifierFault, match=f"policy_signers: .*{problem}"):
        read_policy_signers([tmp_path / "ours.pem"])


def test_signed_policies_are_found_in_a_folder(tmp_path) -> None:
    (tmp_path / "web.dsse.json").write_bytes(SIGNED)
    (tmp_path / "notes.json").write_text("{}")
    (found,) = find_policies(tmp_path)
    assert load_policy(found).id == "secure-boot"
