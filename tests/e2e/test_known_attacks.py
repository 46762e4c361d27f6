"""Attacks that were found in verifiers of this kind, or that its standards warn of, each tried on a running service.

None may end in an affirming verdict, in somebody else's place, or in anything stored that an honest call would not store.
"""

from __future__ import annotations

import ast
import hashlib
import struct

import pytest

from tests.conftest import ROOT
from tests.e2e.test_http_ima import status as status_of
from tests.e2e.test_http_ima import verifiers
from tests.harness import Guest, b64, boot_log, running, settings_for
from tests.ima_guest import MeasuringGuest
from tests.logs import EV_EFI_BOOT_SERVICES_APPLICATION, Written, agile_log, secure_boot, separators
from tests.simulator import AkProfile, SoftwareCa, Tamper
from verifier.ports import Scope
from verifier.tcg.algorithms import HashAlg

NO_ACTION = 3
PCRS = {"sha256": [0, 4, 7, 8, 9]}


@pytest.fixture
async def verifier(tmp_path):
    async with running(settings_for(tmp_path)) as harness:
        yield harness


def codes(verdict) -> set[str]:
    return {finding["code"] for finding in verdict["findings"] if finding["status"] != "passed"}


async def judged(guest, **changes):
    """The verdict of an attestation that was judged, which is never affirming here."""
    answer = await guest.attest(**changes)
    assert answer.status == 200, answer.content
    verdict = answer.json["verdict"]
    assert verdict["status"] in {"contraindicated", "none"}, verdict
    return verdict


async def refused(verifier, answer, before) -> str:
    assert answer.status >= 400, answer.content
    assert verifier.rows() == before, "nothing is stored of it"
    return answer.code


async def test_attack_registrar_uuid_takeover(verifier):
    """Whoever enrols under a known machine's UUID takes its place: its key is replaced, and its verdicts are the thief's."""
    victim = await verifier.guest(1)
    thief = Guest.booted(verifier, 2)
    thief.identity |= {"smbios_uuid": victim.identity["smbios_uuid"], "hostname": victim.identity["hostname"]}
    begun = await verifier.post("/v1/enrollments", thief.enrollment(await verifier.token(Scope.JOIN)))
    if begun.status == 201:
        done = await thief.activate(begun.json)
        assert done.json.get("attester_id") != victim.attester_id
        assert done.json.get("status") != "enrolled", "an operator decides who replaces whom"
    answer = await victim.attest()
    assert answer.json["verdict"]["status"] == "affirming"
    attester = (await verifier.get(f"/v1/attesters/{victim.attester_id}")).json
    assert victim.tpm.ak_name.hex() in str(attester)


async def test_attack_event_text_unbound_from_its_digest(verifier):
    """Secure Boot was off and was measured as off; the log's text says it was on."""
    events = [Written(0, 0x8, b"1\0"), secure_boot(on=True, measured_on=False), *separators()]
    guest = Guest.booted(
        verifier, log=agile_log([*events, Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", b"loader")])
    )
    await guest.enroll()
    await judged(guest)


async def test_attack_software_ak(verifier):
    """A key that signs whatever it is told: with honest attributes it is refused, with false ones no TPM activates it."""
    guest = Guest.booted(verifier)
    before = verifier.rows()
    honest = guest.tpm.make_ak(AkProfile(resident=False, attributes=0x00040040))
    token = await verifier.token(Scope.JOIN)
    answer = await verifier.post("/v1/enrollments", guest.enrollment(token, ak_public=b64(honest.public)))
    assert answer.code == "ak-attributes"
    lying = guest.tpm.make_ak(AkProfile(resident=False))
    begun = await verifier.post("/v1/enrollments", guest.enrollment(token, ak_public=b64(lying.public)))
    assert begun.status == 201, "it says of itself what an AK says"
    guess = await verifier.post(
        f"/v1/enrollments/{begun.json['enrollment_id']}/activation", {"proof": b64(bytes(32))}
    )
    assert (guess.status, guess.code) == (403, "activation-failed")
    assert verifier.rows()["attester"] == before["attester"]


async def test_attack_boot_that_is_checked_once_only(verifier):
    """A clean boot, and then another one in the same evidence's place."""
    guest = await verifier.guest()
    assert (await guest.attest()).json["verdict"]["status"] == "affirming"
    good = guest.log
    guest.reboot(boot_log(secure=False))
    await judged(guest)
    await judged(guest, boot_log={"content": b64(good)})
    await judged(guest, boot_log={"sha256": b64(hashlib.sha256(good).digest())})


async def test_attack_inverted_tomtou_flag(tmp_path):
    """A file that changed while it was measured leaves an entry of zeros. A verifier that reads the flag the wrong way round passes over it."""
    async with verifiers(tmp_path) as (harness, _):
        guest = await MeasuringGuest.enrolled(harness)
        assert status_of(await guest.attest()) == "affirming"
        guest.kernel.violation("/usr/bin/sudo")
        assert status_of(await guest.attest()) != "affirming"


def test_attack_password_hash_that_anybody_can_make_the_service_compute():
    """A slow hash before authentication is a way to exhaust the service. Tokens are random: SHA-256 is enough, and there is no other."""
    slow = {"scrypt", "pbkdf2_hmac", "bcrypt", "argon2", "Scrypt", "PBKDF2HMAC", "Argon2id", "crypt"}
    for path in (ROOT / "verifier").rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not names & slow, path


async def test_attack_nonce_of_another_attester(verifier):
    one, other = await verifier.guest(1), await verifier.guest(2)
    challenge = await one.challenge()
    before = verifier.rows()
    assert await refused(verifier, await other.attest(challenge), before) == "nonce-foreign"
    assert (await one.attest(challenge)).json["verdict"]["status"] == "affirming", "and it is not spent"


@pytest.mark.parametrize("pcrs", [[], [0], [0, 4, 8, 9]], ids=["none", "one", "without 7"])
async def test_attack_pcr_selection_downgrade(verifier, pcrs):
    """What is not quoted is not proven, whatever is sent beside the quote."""
    guest = await verifier.guest()
    assert codes(await judged(guest, selection={"sha256": pcrs})) & {"quote-pcr-selection"}


async def test_attack_selection_that_repeats_a_bank(verifier):
    """Two selections of one bank: what was asked for, and a PCR of it again with whatever value suits."""
    guest = await verifier.guest()
    asked = struct.pack(">HB", 0x000B, 3) + bytes((0x91, 0x03, 0))
    again = struct.pack(">HB", 0x000B, 3) + bytes((0x80, 0, 0))
    tamper = Tamper(selection=struct.pack(">I", 2) + asked + again)
    answer = await guest.attest(quote={"tamper": tamper})
    assert answer.status >= 400 or answer.json["verdict"]["status"] != "affirming", answer.content


@pytest.mark.parametrize("alg", [HashAlg.SHA1], ids=["sha1"])
async def test_attack_algorithm_downgrade_of_the_signature(verifier, alg):
    """The AK's scheme says SHA-256; a signature over a weaker hash is not the AK's."""
    guest = await verifier.guest()
    answer = await guest.attest(quote={"tamper": Tamper(hash_alg=alg)})
    assert answer.status >= 400 or answer.json["verdict"]["status"] != "affirming", answer.content


async def test_attack_ak_with_a_weak_scheme(verifier):
    """Its AK signs SHA-1 digests, for which collisions can be made: a quote could be another's as well."""
    guest = Guest.booted(verifier)
    guest.tpm.ak = guest.tpm.make_ak(AkProfile(hash_alg=HashAlg.SHA1))
    begun = await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
    guest.attester_id = (await guest.activate(begun.json)).json["attester_id"]
    answer = await guest.attest()
    assert (answer.status, answer.code) == (403, "quote-signature-algorithm")


async def test_attack_mixed_banks(verifier):
    """PCR values of the SHA-1 bank, quoted and sent as those of SHA-256's."""
    guest = await verifier.guest()
    sha1 = guest.tpm.pcrs("sha1")
    values = {str(pcr): b64(sha1[pcr]) for pcr in PCRS["sha256"]}
    for changes in (
        {"selection": {"sha1": PCRS["sha256"]}},
        {"selection": {"sha1": PCRS["sha256"]}, "pcrs": [{"bank": "sha1", "values": values}]},
        {"selection": {"sha1": [0, 4], "sha256": [7, 8, 9]}},
    ):
        answer = await guest.attest(**changes)
        assert answer.status >= 400 or answer.json["verdict"]["status"] != "affirming", (
            changes,
            answer.content,
        )
    short = await guest.attest(pcrs=[{"bank": "sha256", "values": values}])
    assert short.status >= 400 or short.json["verdict"]["status"] != "affirming", short.content


@pytest.mark.parametrize("locality", [3, 4])
async def test_attack_forged_startup_locality(verifier, locality):
    """A log may say where PCR 0 began; only a value that leads to the quoted one is believed."""
    begins = Written(0, NO_ACTION, b"StartupLocality\0" + bytes((locality,)))
    events = [begins, Written(0, 0x8, b"1\0"), secure_boot(on=True), *separators()]
    guest = Guest.booted(
        verifier, log=agile_log([*events[1:], Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"p", b"loader")])
    )
    await guest.enroll()
    await judged(
        guest,
        boot_log={
            "content": b64(
                agile_log([*events, Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"p", b"loader")])
            )
        },
    )


async def test_attack_separator_confusion(verifier):
    """What the operating system measures after firmware has closed a PCR is told as if firmware had."""
    early = [Written(0, 0x8, b"1\0"), secure_boot(on=False), *separators(), secure_boot(on=True)]
    guest = Guest.booted(verifier, log=agile_log(early))
    await guest.enroll()
    await judged(guest)


async def test_attack_ek_certificate_for_another_key(verifier):
    guest, other = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
    token = await verifier.token(Scope.JOIN)
    before = verifier.rows()
    answer = await verifier.post(
        "/v1/enrollments", guest.enrollment(token, ek_certificates=[b64(other.tpm.ek_certificate)])
    )
    assert await refused(verifier, answer, before) == "ek-certificate-key-mismatch"


async def test_attack_ca_with_the_name_of_a_trusted_one(verifier):
    """The same subject, another key: a chain is signatures, not names."""
    genuine, impostor = SoftwareCa(), SoftwareCa("impostor", intermediate=True)
    assert impostor.root.subject == genuine.root.subject
    guest = Guest.booted(verifier, 5, ca=impostor)
    chain = [guest.tpm.ek_certificate, *impostor.intermediates_der, *impostor.anchors_der]
    body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[b64(der) for der in chain])
    answer = await verifier.post("/v1/enrollments", body)
    assert (answer.status, answer.code) == (403, "ek-certificate-untrusted")


async def test_attack_cross_tenant_evidence(verifier):
    """An attester of one tenant, its evidence offered to the checks of another."""
    guest = await verifier.guest()
    theirs = await verifier.token(Scope.RELYING_PARTY, tenant="globex")
    before = verifier.rows()
    challenge = await guest.challenge()
    body = {"nonce": b64(bytes(16)), "evidence": guest.evidence(challenge)}
    answer = await verifier.call("POST", "/v1/appraisals", token=theirs, json=body)
    assert answer.status >= 400
    seen = await verifier.call("GET", f"/v1/attesters/{guest.attester_id}/verdict", token=theirs)
    assert (seen.status, seen.code) == (404, "not-found")
    assert {**verifier.rows(), "token": 0} == {**before, "token": 0}


async def test_attack_cross_tenant_evidence_of_one_machine(verifier):
    """One machine, enrolled in two tenants with the same keys: what it says to one of them counts nothing with the other."""
    here, there = Guest.booted(verifier), Guest.booted(verifier)
    there.tpm = here.tpm
    here.keeps_ratchet = there.keeps_ratchet = (
        False  # an answer to the other's challenge would move that one's on
    )
    await here.enroll()
    await there.enroll(await verifier.token(Scope.JOIN, tenant="globex"))
    assert here.attester_id != there.attester_id
    assert (await here.attest()).json["verdict"]["status"] == "affirming"
    challenge, before = await here.challenge(), verifier.rows()
    assert await refused(verifier, await there.attest(challenge), before) == "nonce-foreign"
    held = {"sha256": b64(hashlib.sha256(here.log).digest())}
    own, before = await there.challenge(), verifier.rows()
    assert await refused(verifier, await there.attest(own, boot_log=held), before) == "boot-log-missing", (
        "nobody can find out what another tenant's machines sent"
    )
    assert (await here.attest(challenge)).json["verdict"]["status"] == "affirming", "and it is not spent"


async def test_attack_quote_made_for_another_purpose(verifier):
    """Other structures that an AK signs (certified keys, NV, time) begin alike; only a quote is a quote."""
    guest = await verifier.guest()
    for kind in (0x8014, 0x8017, 0x8019, 0x801A, 0x801C):
        answer = await guest.attest(quote={"tamper": Tamper(attest_type=kind)})
        assert answer.status >= 400 or answer.json["verdict"]["status"] != "affirming", hex(kind)


async def test_attack_structure_that_no_tpm_made(verifier):
    """TPM_GENERATED keeps a restricted key from signing what only looks like the TPM's."""
    guest = await verifier.guest()
    answer = await guest.attest(quote={"tamper": Tamper(magic=0)})
    assert answer.status >= 400 or answer.json["verdict"]["status"] != "affirming"
