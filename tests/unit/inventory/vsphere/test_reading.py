"""What is read of a virtual machine, over the wire, from a vCenter with real EK certificates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyVmomi import vim

from tests.conftest import shared_path
from tests.eventually import eventually
from tests.unit.inventory.vsphere.conftest import named, status_of
from tests.vsphere_endpoint.estate import signing_request, vtpm
from verifier.appraisal.inventory import EventKind
from verifier.crypto.cert_reader import parse_certificate
from verifier.inventory.eks import certificate_fingerprint

REAL = (
    "corpus/google_go-tpm/certs/cert-ek_VMW_8cdd06be35.der",
    "corpus/google_go-tpm/certs/cert-ek_VMW_e6534a28e1.der",
)


def fingerprints(*certificates: bytes) -> frozenset[bytes]:
    return frozenset(map(certificate_fingerprint, certificates))


async def test_a_machine_is_read_with_everything_that_identifies_it(vcenter):
    web = vcenter.estate.add("web")
    vcenter.estate.take_snapshot(web, "before the upgrade")
    vcenter.estate.take_snapshot(web, "after it")
    vcenter.estate.revert(web, "before the upgrade")
    async with vcenter.synced(labels={"site": "north"}) as inventory:
        found = await named(inventory, "web")
        assert (await inventory.lookup_smbios(web.config.uuid)) == (found,)
        for certificate in web.ek_certificates:
            assert await inventory.lookup_ek(certificate_fingerprint(certificate)) == (found,)
    assert str(found.key) == f"dc1/{web.moid}"
    assert (found.instance_uuid, found.smbios_uuid) == (web.config.instanceUuid, web.config.uuid)
    assert set(found.ek_certificates) == set(web.ek_certificates)
    assert (found.has_vtpm, found.secure_boot, found.template) == (True, True, False)
    assert (found.encrypted_key_id, found.vcenter) == ("native/key-1", "127.0.0.1")
    assert [(one.name, one.current) for one in found.snapshots] == [
        ("before the upgrade", True),
        ("after it", False),
    ]
    assert found.labels == {"site": "north"}
    assert found.problems == ()


@pytest.mark.parametrize("order", [1, -1])
async def test_both_endorsement_keys_count_in_whatever_order_they_are_listed(vcenter, order):
    web = vcenter.estate.add("web")
    certificates = web.ek_certificates[::order]
    web.config.hardware.device = [vtpm(*certificates)]
    async with vcenter.synced() as inventory:
        assert (await named(inventory, "web")).ek_fingerprints == fingerprints(*certificates)


async def test_a_vtpm_whose_certificates_are_still_to_come_is_known_by_its_requests(vcenter):
    request, key = signing_request("p256", "unsigned")
    web = vcenter.estate.add("web")
    web.config.hardware.device = [vtpm(requests=[request])]
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    async with vcenter.synced() as inventory:
        found = await named(inventory, "web")
        signed = vcenter.estate.ca.issue(key)
        assert found.ek_fingerprints == fingerprints(signed)
        # A third-party CA signs it later: the same key, so nothing has happened to the machine.
        web.config.hardware.device = [vtpm(signed, requests=[request])]
        vcenter.estate.touch(web)
        await eventually(lambda: _lists(inventory, signed))
        assert (await inventory.changes(None)).events == ()
    assert parse_certificate(signed).key_fingerprint in found.ek_fingerprints
    assert spki  # the key that was asked for


async def _lists(inventory, certificate: bytes) -> bool:
    return (await named(inventory, "web")).ek_certificates == (certificate,)


async def test_a_machine_without_a_vtpm_says_so_and_one_that_cannot_be_read_does_not(vcenter):
    vcenter.estate.add("plain", tpm=False)
    hidden = vcenter.estate.add("hidden")
    hidden.unreadable = {"config.hardware.device", "config.keyId"}
    async with vcenter.synced() as inventory:
        plain, secret = await named(inventory, "plain"), await named(inventory, "hidden")
        warnings = (await status_of(inventory)).warnings
    assert (plain.has_vtpm, plain.ek_fingerprints) == (False, frozenset())
    assert (secret.has_vtpm, secret.ek_fingerprints) == (None, frozenset())
    assert secret.smbios_uuid == hidden.config.uuid
    assert "config.hardware.device: the user may not read it" in secret.problems
    assert warnings == ("1 machines could not be read in full",)


async def test_a_host_that_is_cut_off_does_not_make_its_machines_vanish(vcenter):
    web = vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        before = await named(inventory, "web")
        web.disconnected = True
        vcenter.estate.touch(web)
        await eventually(lambda: _has_problems(inventory))
        during = await named(inventory, "web")
        assert (await inventory.changes(None)).events == ()
    assert during.problems == ("its configuration is not available",)
    assert replace(during, problems=(), secure_boot=None, encrypted_key_id=None) == replace(
        before, secure_boot=None, encrypted_key_id=None
    )


async def _has_problems(inventory) -> bool:
    return bool((await named(inventory, "web")).problems)


async def test_a_certificate_that_cannot_be_read_is_told_of_and_the_other_still_counts(vcenter):
    web = vcenter.estate.add("web")
    good = web.ek_certificates[1]
    web.config.hardware.device = [vtpm(b"\x30\x03\x02\x01\x00", good)]
    async with vcenter.synced() as inventory:
        found = await named(inventory, "web")
    assert found.ek_fingerprints == fingerprints(good)
    assert [one.partition(":")[0] for one in found.problems] == ["EK certificate 1"]


async def test_secure_boot_off_and_no_boot_options_are_told_apart(vcenter):
    vcenter.estate.add("off", bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=False))
    vcenter.estate.add("bios", bootOptions=None)
    async with vcenter.synced() as inventory:
        assert (await named(inventory, "off")).secure_boot is False
        assert (await named(inventory, "bios")).secure_boot is None


async def test_real_vtpm_certificates_are_found_by_their_keys(vcenter):
    ders = [shared_path(name).read_bytes() for name in REAL]
    web = vcenter.estate.add("web")
    web.config.hardware.device = [vtpm(*ders)]
    async with vcenter.synced() as inventory:
        for der in ders:
            (found,) = await inventory.lookup_ek(parse_certificate(der).key_fingerprint)
            assert found.name == "web"


async def test_thousands_of_machines_come_in_pages_with_progress(vcenter):
    """One EK certificate for all: making thousands is not what is tested here."""
    device = vtpm(vcenter.estate.ek_certificate())
    for number in range(2500):
        vcenter.estate.add(f"vm{number}", tpm=False).config.hardware.device = [device]
    async with vcenter.synced(page_size=200, timeout=timedelta(seconds=60)) as inventory:
        machines = await inventory.machines()
        assert len(machines) == 2500
        assert all(one.has_vtpm for one in machines)
        read = list(vcenter.service.read)
        assert max(map(len, read)) == 200
        assert sorted(moid for page in read for moid in page) == sorted(vcenter.estate.machines)
        done = [one.done for one in vcenter.progress if one.total == 2500]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 2500)
        # One of them is renamed: that one is read, and no other.
        vcenter.estate.rename(vcenter.estate.machines["vm-1000"], "renamed")
        await eventually(lambda: named(inventory, "renamed"))
        assert vcenter.service.read[len(read) :] == [["vm-1000"]]
        assert not [one for one in (await inventory.changes(None)).events if one.kind is EventKind.ADDED]
