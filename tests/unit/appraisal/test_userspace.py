"""What systemd measures from userspace is believed exactly as far as quoted PCRs and certified indices prove it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from msgspec import structs

from tests.logs import EV_EFI_BOOT_SERVICES_APPLICATION, EV_IPL, Written, agile_event, agile_log
from tests.simulator import SoftwareTpm, Tamper
from tests.unit.appraisal.machines import NONCE, NOW, SHA256, boot_events, codes
from tests.unit.appraisal.test_memo import Spy
from tests.userspace import CRYPTSETUP, HARDWARE, MACHINE_ID, PRODUCT, ROOT, Systemd, record
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Evidence, Expectation, History, NvCertificate, PcrRequest
from verifier.appraisal.memo import Memo
from verifier.appraisal.result import Appraisal
from verifier.claims import Binding, EventFact
from verifier.errors import MalformedInputError
from verifier.policy.catalogue import CATALOGUE, Value, View
from verifier.policy.parse import parse_policy
from verifier.reasons import Reason, Tier
from verifier.tcg.algorithms import HashAlg

SHA1 = HashAlg.SHA1
PCRS = tuple(range(16))
OTHER_ID = "ffffffffffffffffffffffffffffffff"
SECRET = b"the anchor secret of systemd 259"
UKI = [
    *boot_events(),
    Written(9, EV_IPL, b"initrd", b"the initrd"),
    Written(11, EV_IPL, ".linux\0".encode("utf-16-le"), b".linux\0"),
    Written(11, EV_IPL, ".linux\0".encode("utf-16-le"), b"a kernel"),
]
LOG = agile_log(UKI)
POLICY = parse_policy(
    b"""\
schema: vtpm-attest/policy/1
id: machine
description: which machine this is
validity: 10m
quote: {bank: sha256, pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]}
boot_log: required
rules:
  - id: machine-id
    severity: contraindicated
    claim: instance-identity
    cel: boot.machine_id == '%s'
unjudged:
  - pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    why: a policy for tests
"""
    % MACHINE_ID.encode()
)


@dataclass
class Guest:
    """A machine that booted `log` and whose systemd measured; `sent` is the log it shows."""

    tpm: SoftwareTpm
    systemd: Systemd
    log: bytes = LOG
    sent: bytes | None = None
    banks: tuple[HashAlg, ...] = (SHA256,)
    certify: Sequence[int] = (HARDWARE, CRYPTSETUP)

    @classmethod
    def booted(cls, log: bytes = LOG, **boot: object) -> Guest:
        tpm = SoftwareTpm(7)
        tpm.replay_log(log)
        return cls(tpm, Systemd(tpm).boot(**boot), log)

    def evidence(self, *, tamper: Tamper | None = None, **changes: object) -> Evidence:
        attest, signature = self.tpm.quote(NONCE, dict.fromkeys(self.banks, PCRS))
        values = {bank: {pcr: self.tpm.pcrs(bank)[pcr] for pcr in PCRS} for bank in self.banks}
        certificates = tuple(self.certificate(index, tamper=tamper) for index in self.certify)
        sent = self.systemd.log if self.sent is None else self.sent
        evidence = Evidence(
            attest, signature, values, boot_log=self.log, userspace_log=sent, nvpcrs=certificates
        )
        return structs.replace(evidence, **changes)

    def certificate(self, handle: int, *, tamper: Tamper | None = None) -> NvCertificate:
        extra = {} if tamper is None else {"tamper": tamper}
        index = self.tpm.nv_index(handle)
        assert index is not None
        return NvCertificate(index.public, *self.tpm.nv_certify(NONCE, handle, **extra))

    def judged(self, evidence: Evidence | None = None, memo: Memo | None = None) -> Appraisal:
        request = (PcrRequest(bank=SHA256, pcrs=frozenset(PCRS)),)
        expected = Expectation(self.tpm.ak_public, ak_activated=True, nonce=NONCE, request=request)
        return appraise(evidence or self.evidence(), expected, POLICY, History(), NOW, memo)

    def read(self, name: str, evidence: Evidence | None = None) -> Value | None:
        claims = self.judged(evidence).claims
        assert claims is not None
        return CATALOGUE[name].read(View(claims, SHA256))

    def events(self, pcr: int) -> list[EventFact]:
        claims = self.judged().claims
        assert claims is not None
        assert claims.boot is not None
        return [event for event in claims.boot.events if event.pcr == pcr]


# --- what is proven


@pytest.mark.parametrize("secret", [None, SECRET], ids=["systemd 262", "systemd 259"])
def test_an_ordinary_boot_proves_the_machine_its_disks_its_phases_and_its_nvpcrs(
    secret: bytes | None,
) -> None:
    guest = Guest.booted(secret=secret)
    assert guest.judged().tier is Tier.AFFIRMING
    assert guest.read("boot.unexplained_pcrs") == []
    assert guest.read("boot.machine_id") == MACHINE_ID
    assert guest.read("boot.file_systems") == [ROOT]
    assert guest.read("boot.volume_keys") == []
    assert guest.read("boot.identity_texts") == [f"machine-id:{MACHINE_ID}", ROOT]
    assert guest.read("boot.phases") == ["enter-initrd", "leave-initrd", "sysinit", "ready"]
    assert guest.read("boot.product_id") == PRODUCT.removeprefix("product-id:")
    assert guest.read("boot.nvpcr_texts") == {"hardware": [PRODUCT], "cryptsetup": []}
    assert guest.read("boot.nvpcrs") == {
        "hardware": guest.tpm.nv_index(HARDWARE).value.hex(),
        "cryptsetup": guest.tpm.nv_index(CRYPTSETUP).value.hex(),
    }
    passed = {finding.reason for finding in guest.judged().findings}
    assert {Reason.USERSPACE_LOG_REPLAYS, Reason.NV_INDEX_CERTIFIED} <= passed


def test_every_quoted_bank_must_agree() -> None:
    guest = Guest.booted()
    guest.banks = (SHA256, SHA1)
    assert guest.read("boot.machine_id") == MACHINE_ID
    # Extended in one bank only: no number of events explains PCR 15 in both.
    guest.tpm.extend(15, {SHA1: bytes(20)})
    assert guest.read("boot.machine_id") is None
    assert guest.read("boot.unexplained_pcrs") == [15]


def test_events_of_an_encrypted_machine_are_listed_but_its_id_might_be_another_in_disguise() -> None:
    guest = Guest.booted(encrypted=True)
    assert guest.read("boot.machine_id") is None
    assert guest.read("boot.file_systems") is None
    assert len(guest.read("boot.volume_keys")) == 1
    assert guest.read("boot.identity_texts") == [f"machine-id:{MACHINE_ID}", ROOT]
    keyslot = guest.read("boot.nvpcr_texts")["cryptsetup"]
    assert keyslot == ["cryptsetup-keyslot:root:1e023a55-60f9-4b6b-9b80-67438dc5f065:tpm2:1"]


def test_a_volume_key_has_no_proven_text_although_the_log_shows_one() -> None:
    guest = Guest.booted(encrypted=True)
    (key,) = [event for event in guest.events(15) if event.binding is Binding.UNBOUND]
    assert b"cryptsetup:root:" in guest.systemd.log
    assert (key.name, key.text) == (None, None)
    assert key.digests


def test_a_key_that_unlocked_later_leaves_the_machine_id_proven() -> None:
    guest = Guest.booted()
    guest.systemd.volume_key("data")
    assert guest.read("boot.machine_id") == MACHINE_ID
    assert guest.read("boot.file_systems") is None


def test_without_the_log_phases_are_guessed_and_the_rest_is_unexplained_as_ever() -> None:
    guest = Guest.booted()
    evidence = guest.evidence(userspace_log=None)
    assert guest.read("boot.phases", evidence) == ["enter-initrd", "leave-initrd", "sysinit", "ready"]
    assert guest.read("boot.unexplained_pcrs", evidence) == [9, 15]
    assert guest.read("boot.machine_id", evidence) is None
    assert guest.read("boot.nvpcrs", evidence) is None


def test_phases_that_an_administrator_added_are_read_with_the_log_alone() -> None:
    guest = Guest.booted()
    guest.systemd.phase("storage-target-mode", "ready")
    assert guest.read("boot.phases")[-3:] == ["ready", "storage-target-mode", "ready"]
    assert guest.read("boot.phases", guest.evidence(userspace_log=None)) is None


def test_systemds_own_phases_are_no_events_so_that_a_golden_sequence_holds_with_and_without_the_log() -> None:
    guest = Guest.booted()
    assert [event.name for event in guest.events(11)] == [None, ".linux"]
    guest.systemd.phase("storage-target-mode")
    assert [event.text for event in guest.events(11)][-2:] == ["ready", "storage-target-mode"]


# --- the log and the quote at different moments


def test_a_log_ahead_of_the_quote_proves_what_was_quoted() -> None:
    guest = Guest.booted()
    evidence = guest.evidence()
    guest.systemd.machine_id(OTHER_ID)
    guest.systemd.phase("shutdown")
    late = structs.replace(evidence, userspace_log=guest.systemd.log)
    assert guest.read("boot.machine_id", late) == MACHINE_ID
    assert guest.read("boot.phases", late) == ["enter-initrd", "leave-initrd", "sysinit", "ready"]
    claims = guest.judged(late).claims
    later = [event for event in claims.boot.events if not event.digests and event.type_name.startswith("SYS")]
    assert [(event.pcr, event.binding, event.text) for event in later] == [
        (15, Binding.UNBOUND, None),
        (11, Binding.UNBOUND, None),
    ]


def test_a_log_behind_the_quote_proves_nothing_of_that_pcr_and_all_of_the_others() -> None:
    guest = Guest.booted()
    guest.sent = guest.systemd.log
    guest.systemd.file_system("file-system:ext4:var")
    assert guest.read("boot.machine_id") is None
    assert guest.read("boot.unexplained_pcrs") == [15]
    assert guest.read("boot.product_id") == PRODUCT.removeprefix("product-id:")
    (finding,) = [f for f in guest.judged().findings if f.reason is Reason.USERSPACE_LOG_UNEXPLAINED]
    assert finding.pcr == 15


def test_a_phase_that_the_log_does_not_have_yet_is_found_as_without_it() -> None:
    guest = Guest.booted()
    guest.sent = guest.systemd.log
    guest.systemd.phase("shutdown")
    assert guest.read("boot.phases")[-1] == "shutdown"


def test_what_no_log_names_leaves_pcr_15_unexplained_and_accuses_nobody() -> None:
    guest = Guest.booted()
    guest.tpm.measure(15, b"a tool of its own")
    assert guest.read("boot.unexplained_pcrs") == [15]
    assert Reason.BOOT_LOG_MISMATCH not in codes(guest.judged())


def test_a_torn_last_record_costs_only_itself() -> None:
    guest = Guest.booted()
    guest.sent = guest.systemd.log + record({SHA256: bytes(32)}, "x", "phase", pcr=15)[:30]
    assert guest.read("boot.machine_id") == MACHINE_ID


def test_a_log_that_cannot_be_read_refuses_the_evidence_and_says_where() -> None:
    guest = Guest.booted()
    guest.sent = guest.systemd.log + b"\x1e{}\n"
    with pytest.raises(MalformedInputError) as caught:
        guest.judged()
    assert caught.value.offset == len(guest.systemd.log) + 1


# --- forged logs


def edited(records: list[bytes], number: int, **content: object) -> bytes:
    document = json.loads(records[number][1:])
    document["content"] |= content
    return b"\x1e" + json.dumps(document).encode() + b"\n"


def identity_record(guest: Guest) -> int:
    return next(number for number, one in enumerate(guest.systemd.records) if b'"machine-id:' in one)


def replaced(guest: Guest, number: int, new: Sequence[bytes]) -> bytes:
    records = guest.systemd.records
    return b"".join([*records[:number], *new, *records[number + 1 :]])


def as_other_machine(guest: Guest) -> bytes:
    number = identity_record(guest)
    return edited(guest.systemd.records, number, string=f"machine-id:{OTHER_ID}")


def others_log() -> bytes:
    """The true log of a machine with another id."""
    systemd = Systemd(SoftwareTpm(8))
    systemd.machine_id(OTHER_ID)
    systemd.file_system()
    return systemd.log


FORGERIES: dict[str, Callable[[Guest], bytes]] = {
    "text changed, digest kept": lambda g: replaced(g, identity_record(g), [as_other_machine(g)]),
    "digest changed with the text": lambda g: replaced(
        g,
        identity_record(g),
        [
            record(
                {bank: bank.digest(f"machine-id:{OTHER_ID}".encode()) for bank in (SHA1, SHA256)},
                f"machine-id:{OTHER_ID}",
                "machine-id",
                pcr=15,
            )
        ],
    ),
    "dropped": lambda g: replaced(g, identity_record(g), []),
    "duplicated": lambda g: replaced(g, identity_record(g), [g.systemd.records[identity_record(g)]] * 2),
    "reordered": lambda g: b"".join(reversed(g.systemd.records)),
    "another machine's": lambda g: others_log(),
    "emptied": lambda g: b"",
    "its label changed": lambda g: replaced(
        g, identity_record(g), [edited(g.systemd.records, identity_record(g), eventType="volume-key")]
    ),
    "text taken out": lambda g: replaced(
        g, identity_record(g), [edited(g.systemd.records, identity_record(g), string=None)]
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_edit_of_the_log_makes_a_machine_another(forgery: str) -> None:
    guest = Guest.booted()
    honest = guest.judged()
    guest.sent = FORGERIES[forgery](guest)
    forged = guest.judged()
    seen = CATALOGUE["boot.machine_id"].read(View(forged.claims, SHA256))
    assert seen in (None, MACHINE_ID)
    if forgery == "its label changed":  # nobody reads it
        assert seen == MACHINE_ID
    else:
        assert seen is None
    assert forged.tier >= honest.tier, "a worse tier has a higher number"


def test_a_compromised_machine_cannot_hide_its_id_and_measure_another() -> None:
    guest = Guest.booted()
    hidden = replaced(guest, identity_record(guest), [as_other_machine(guest)])
    before = len(guest.systemd.records)
    guest.systemd.machine_id(OTHER_ID)  # what root can do at any time
    guest.sent = hidden + guest.systemd.records[before]
    assert guest.read("boot.identity_texts") == [ROOT, f"machine-id:{OTHER_ID}"]
    assert guest.read("boot.machine_id") is None
    assert len(guest.read("boot.volume_keys")) == 1
    guest.sent = None
    assert guest.read("boot.machine_id") is None, "two ids are none"


def test_an_event_moved_from_one_log_to_the_other_is_read_as_the_same_event() -> None:
    """What a loader measured into PCR 12 does not vanish by standing in systemd's log."""
    lines = [
        *UKI,
        Written(12, EV_IPL, "quiet debug\0".encode("utf-16-le"), "quiet debug".encode("utf-16-le")),
    ]
    guest = Guest.booted(agile_log(lines))
    in_place = guest.judged(guest.evidence(kernel_command_line="quiet")).claims
    digests = {bank: bank.digest("quiet debug".encode("utf-16-le")) for bank in (SHA1, SHA256)}
    guest.log = agile_log(UKI)
    guest.sent = record(digests, "os-separator", "os-separator", pcr=12) + guest.systemd.log
    moved = guest.judged(guest.evidence(kernel_command_line="quiet")).claims
    assert moved.boot.kernel_command_line == in_place.boot.kernel_command_line
    assert moved.boot.details.loader_lines is None
    assert 12 not in moved.boot.unlogged_pcrs


def test_an_image_cannot_pass_for_a_text_of_systemd() -> None:
    image = b"MZ\x90\x00 a loader of the attacker's, whole"
    guest = Guest.booted(agile_log([*UKI, Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", image)]))
    images = guest.read("boot.images")
    guest.log = agile_log(UKI)
    digests = {bank: bank.digest(image) for bank in (SHA1, SHA256)}
    # Not UTF-8, so that no JSON text says it; the nearest a forger comes is another text.
    guest.sent = record(digests, image.decode("latin-1"), "os-separator", pcr=4) + guest.systemd.log
    assert guest.read("boot.images") == images
    assert SHA256.digest(image).hex() in images


def test_the_os_separator_of_systemd_explains_the_pcrs_and_disturbs_no_reader() -> None:
    guest = Guest.booted()
    shown = ("boot.images", "boot.secure_boot.authorities", "boot.loader.lines", "boot.shim.mok_list_trusted")
    before = {name: guest.read(name) for name in shown}
    guest.systemd.os_separator()
    assert guest.read("boot.unexplained_pcrs") == []
    assert {name: guest.read(name) for name in shown} == before
    assert [event.text for event in guest.events(7)][-1] == "os-separator"
    without = guest.evidence(userspace_log=None)
    assert set(range(8)) <= set(guest.read("boot.unexplained_pcrs", without))


# --- NvPCRs


def test_nothing_is_known_of_an_nvpcr_that_is_not_certified() -> None:
    guest = Guest.booted()
    guest.certify = ()
    assert guest.read("boot.nvpcrs") == {}
    assert guest.read("boot.product_id") is None


@pytest.mark.parametrize(
    "tamper",
    [Tamper(corrupt_signature=True), Tamper(nonce=bytes(32)), Tamper(attest_type=0x8018)],
    ids=["signature", "nonce", "type"],
)
def test_a_certificate_that_does_not_hold_is_a_finding_and_proves_nothing(tamper: Tamper) -> None:
    guest = Guest.booted()
    if tamper.attest_type is not None:
        quote = guest.evidence()
        evidence = structs.replace(
            quote, nvpcrs=(structs.replace(quote.nvpcrs[0], attest=quote.attest, signature=quote.signature),)
        )
    else:
        evidence = guest.evidence(tamper=tamper)
    result = guest.judged(evidence)
    assert Reason.NV_INDEX_INVALID in codes(result)
    assert result.tier is Tier.CONTRAINDICATED
    assert guest.read("boot.nvpcrs", evidence) == {}


def test_a_certificate_is_believed_only_for_the_index_whose_name_it_has() -> None:
    guest = Guest.booted()
    evidence = guest.evidence()
    one, other = evidence.nvpcrs
    crossed = structs.replace(evidence, nvpcrs=(structs.replace(one, public=other.public), one, one))
    result = guest.judged(crossed)
    problems = [f.message for f in result.findings if f.reason is Reason.NV_INDEX_INVALID]
    assert len(problems) == 2
    assert guest.read("boot.nvpcrs", crossed) == {"hardware": guest.tpm.nv_index(HARDWARE).value.hex()}


@pytest.mark.parametrize("secret", [None, SECRET], ids=["systemd 262", "systemd 259"])
def test_an_nvpcr_that_was_made_anew_is_not_the_one_that_was_measured(secret: bytes | None) -> None:
    """Delete the index, define it so that anybody may write, and measure the history one would like."""
    guest = Guest.booted(secret=secret)
    guest.tpm.nv_undefine(HARDWARE)
    guest.tpm.nv_define_extend(HARDWARE, 0x00060046 if secret is None else 0x08060044)
    guest.tpm.nv_extend(HARDWARE, bytes(32))
    forged = "product-id:" + "0" * 32
    guest.systemd.nvpcr_extend(HARDWARE, forged)
    mine = guest.systemd.records[-1]
    guest.sent = b"".join(one for one in guest.systemd.records if PRODUCT.encode() not in one)
    assert mine in guest.sent
    assert guest.read("boot.product_id") is None
    assert "hardware" not in guest.read("boot.nvpcrs")


def test_a_start_that_is_measured_after_systemds_separator_starts_nothing() -> None:
    guest = Guest.booted()
    guest.systemd.nvpcr("verity", 0x01D10202)
    guest.certify = (0x01D10202,)
    assert guest.read("boot.nvpcrs") == {}
    # Not even where the separator is given another text in the log, or stands in the boot log.
    number = next(n for n, one in enumerate(guest.systemd.records) if b"nvpcr-separator" in one)
    hidden = edited(guest.systemd.records, number, string="something else")
    guest.systemd.nvpcrs_done()
    guest.sent = replaced(guest, number, [hidden])
    assert guest.read("boot.nvpcrs") == {}


def test_without_a_separator_no_start_is_believed() -> None:
    tpm = SoftwareTpm(7)
    tpm.replay_log(LOG)
    systemd = Systemd(tpm)
    systemd.nvpcr("hardware", HARDWARE)
    guest = Guest(tpm, systemd, certify=(HARDWARE,))
    assert guest.read("boot.nvpcrs") == {}
    systemd.nvpcrs_done()
    assert set(guest.read("boot.nvpcrs")) == {"hardware"}


def test_an_nvpcr_whose_log_was_edited_keeps_its_proven_value_and_loses_its_texts() -> None:
    guest = Guest.booted()
    number = next(n for n, one in enumerate(guest.systemd.records) if PRODUCT.encode() in one)
    guest.sent = replaced(guest, number, [edited(guest.systemd.records, number, string="product-id:missing")])
    assert guest.read("boot.product_id") is None
    assert guest.read("boot.nvpcrs")["hardware"] == guest.tpm.nv_index(HARDWARE).value.hex()
    guest.sent = replaced(guest, number, [])
    assert guest.read("boot.nvpcr_texts") == {"cryptsetup": []}


def test_an_index_that_is_no_nvpcr_is_certified_and_means_nothing() -> None:
    guest = Guest.booted()
    guest.tpm.nv_define_extend(0x01800001, 0x00060046)
    guest.tpm.nv_extend(0x01800001, bytes(32))
    guest.certify = (0x01800001,)
    assert guest.read("boot.nvpcrs") == {}
    assert guest.judged().tier is Tier.AFFIRMING


def test_an_index_that_can_be_written_is_none() -> None:
    """An ordinary index with the content of one's choice; the simulator signs whatever attributes say."""
    guest = Guest.booted()
    guest.tpm.nv_define_extend(0x01D10203, 0x08060004)
    guest.tpm.nv_extend(0x01D10203, bytes(32))
    guest.certify = (0x01D10203,)
    assert Reason.NV_INDEX_INVALID in codes(guest.judged())


def test_an_extra_event_in_a_firmware_pcr_is_explained_only_by_what_led_there() -> None:
    guest = Guest.booted()
    guest.tpm.measure(7, b"unlogged")
    assert 7 in guest.read("boot.unexplained_pcrs")
    assert Reason.BOOT_LOG_MISMATCH in codes(guest.judged())


def test_events_appended_to_the_boot_log_instead_are_what_they_were() -> None:
    """The log of systemd adds no power over editing the boot log: the same event there proves the same."""
    guest = Guest.booted()
    text = f"machine-id:{MACHINE_ID}".encode()
    moved = guest.log + agile_event(Written(15, 0x73790000, text))
    guest.log = moved
    guest.sent = replaced(guest, identity_record(guest), [])
    assert guest.read("boot.machine_id") == MACHINE_ID


def test_a_word_that_was_not_measured_is_no_phase() -> None:
    guest = Guest.booted()
    guest.systemd.phase("storage-target-mode")
    last = len(guest.systemd.records) - 1
    guest.sent = replaced(guest, last, [edited(guest.systemd.records, last, string="shutdown")])
    assert guest.read("boot.phases") is None
    assert guest.read("boot.unexplained_pcrs") == []


# --- what is remembered


def test_what_a_log_proved_is_reused_for_the_same_log_and_the_same_indices_alone() -> None:
    guest, memo = Guest.booted(), Spy()
    first = guest.judged(memo=memo)
    assert guest.judged(memo=memo).findings == first.findings
    assert memo.hits == 2, "the log and the policy, each read once"
    guest.sent = replaced(guest, identity_record(guest), [as_other_machine(guest)])
    assert guest.judged(memo=memo).tier is Tier.NONE
    assert guest.judged(guest.evidence(userspace_log=None), memo).tier is Tier.CONTRAINDICATED
    guest.sent = None
    guest.tpm.nv_extend(HARDWARE, bytes(32))  # same PCRs, same logs
    again = guest.judged(memo=memo)
    assert CATALOGUE["boot.product_id"].read(View(again.claims, SHA256)) is None
    assert memo.hits == 2
