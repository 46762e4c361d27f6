"""What each quirk is: explanation, evidence and remedy. Held against the enum by a test; source of docs/quirks.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.quirks import Certainty, Quirk, QuirkEntry

_ANY: Final = frozenset({*range(17), 23})
"""PCRs of a static boot."""
_FIRMWARE: Final = frozenset(range(8))
_OPERATING_SYSTEM: Final = frozenset({*range(8, 17), 23})
_NO_PCR: Final[frozenset[int]] = frozenset()
_NOTHING: Final = "Nothing: it is read over, and shown."
_FIRMWARE_UPDATE: Final = "Update the firmware"
_PIN: Final = "Tolerate it in words and pin the PCR's value by a `pcr` rule; its events stay unproven."

_HARMLESS: Final[Mapping[Quirk, QuirkEntry]] = {
    Quirk.PADDED: QuirkEntry(
        title="The rest of the buffer is filled up",
        certainty=Certainty.HARMLESS,
        pcrs=_NO_PCR,
        explanation="Behind the last event only 0x00 or only 0xff follows, to the end: a copy of the whole memory area.",
        shown_by="The parser meets nothing but filler.",
        source="CCEL tables of TDX guests; dumps of ACPI log areas.",
        remedy=_NOTHING,
    ),
    Quirk.SPEC_ID_SIZE_OMITS_VENDOR_INFO: QuirkEntry(
        title="The first event is longer than it says",
        certainty=Certainty.HARMLESS,
        pcrs=_NO_PCR,
        explanation="The size of the Spec ID event does not count the vendor information that it carries.",
        shown_by="The vendor information has the size that it states itself.",
        source="tpm2-tss and tpm2-tools test logs (specid-vendordata).",
        remedy=_NOTHING,
    ),
    Quirk.STARTUP_LOCALITY_PADDED: QuirkEntry(
        title="The StartupLocality record has bytes behind it",
        certainty=Certainty.HARMLESS,
        pcrs=_NO_PCR,
        explanation="Firmware that logs events of a fixed size fills the record up with zeros. The record is measured by nobody: "
        "it chooses PCR 0's first value, which is believed only when PCR 0 then replays.",
        shown_by="Zeros follow the locality, and nothing else.",
        source="coreboot (Dasharo/dasharo-issues#1476: read by fwupd and tpm2_eventlog, not by systemd-pcrlock).",
        remedy=_NOTHING,
    ),
}

_REPAIRED: Final[Mapping[Quirk, QuirkEntry]] = {
    Quirk.MISSING_STARTUP_LOCALITY: QuirkEntry(
        title="The startup locality is not said, or wrong",
        certainty=Certainty.REPAIRED,
        pcrs=frozenset({0}),
        explanation="TPM2_Startup came from locality 3, or an H-CRTM measured first (locality 4), and the log has no record of it or "
        "names another one. PCR 0 then starts from another value.",
        shown_by="PCR 0 replays exactly when it starts from one of the other localities (0, 3, 4).",
        source="TCG PFP, section 10.4.5.3, has the record; coreboot's Intel CBnT code lacked it (Dasharo/coreboot#699).",
        remedy=f"{_FIRMWARE_UPDATE}, or tolerate it: the locality is proven by the value.",
    ),
    Quirk.EXTRA_TAIL_EVENTS: QuirkEntry(
        title="The log goes on where the PCR does not",
        certainty=Certainty.REPAIRED,
        pcrs=_ANY,
        explanation="The last events of this PCR were logged and never extended: a log of a later moment than the quote, records that "
        "firmware appends, or text that someone added.",
        shown_by="The log leads to the quoted value exactly, up to an event before its end.",
        source="fwupd, HSI test TPM.ReconstructionPcr0, names extra events as one of two causes.",
        remedy="Find out who writes the events behind the one named; they are believed by nobody, tolerated or not.",
    ),
    Quirk.FINAL_EVENTS_DUPLICATED: QuirkEntry(
        title="Events of the final events table stand there twice",
        certainty=Certainty.REPAIRED,
        pcrs=_ANY,
        explanation="After the first GetEventLog firmware writes each event into the log and into the final events table; whoever joins the "
        "two must leave the copies out (TCG EFI Protocol Specification, section 7). Readers that do not make such logs.",
        shown_by="A run of events stands twice in a row, and without the copy the PCR replays exactly.",
        source="Linux patch of June 2019, `tpm: Don't duplicate events from the final event log in the TCG2 log`; rhboot/shim#158.",
        remedy="Update the kernel or whatever joins the two; or tolerate it: the copies are left out and nothing else.",
    ),
    Quirk.EVENT_NOT_EXTENDED: QuirkEntry(
        title="An event was logged and not extended",
        certainty=Certainty.REPAIRED,
        pcrs=_ANY,
        explanation="Firmware logged an event and did not extend it, or logged it twice, or logged digests of zeros for what it did not "
        "measure in this bank.",
        shown_by="Without one event, or without all events whose digest is zero, the PCR replays exactly.",
        source="fwupd, HSI test TPM.ReconstructionPcr0; zero digests: tpm2-software/tpm2-tools#3224.",
        remedy=f"{_FIRMWARE_UPDATE}; the event named is believed by nobody, tolerated or not.",
    ),
    Quirk.EXIT_BOOT_SERVICES_UNLOGGED: QuirkEntry(
        title="ExitBootServices was measured after the log was read",
        certainty=Certainty.REPAIRED,
        pcrs=frozenset({5}),
        explanation="Firmware measures two strings into PCR 5 when the kernel takes over. They are in the final events table, which some "
        "firmware does not keep and some kernels do not read.",
        shown_by="PCR 5 replays exactly when those strings follow the log (up to four of them: a failed attempt is measured too).",
        source="google/go-attestation, TestEBSVerifyWorkaround, and its log of such a machine; tianocore/edk2#9925 for the orders.",
        remedy="Update kernel or firmware; or tolerate it: the log's own events of PCR 5 are all proven.",
    ),
    Quirk.BANK_CAPPED: QuirkEntry(
        title="The bank was closed with a digest of zeros",
        certainty=Certainty.REPAIRED,
        pcrs=_ANY,
        explanation="Software that measures in one bank extends zeros into the others, so that nobody can use them later. It does not log that.",
        shown_by="The PCR replays exactly when one digest of zeros follows the log.",
        source="Windows 10 on a Lenovo T480s (immune-gmbh/guard-oss, TestInvalidLenovoEventlog: its SHA-1 bank).",
        remedy="Quote the bank that is in use, usually sha256; or tolerate it: the log's own events are all proven.",
    ),
}

_PROVEN: Final[Mapping[Quirk, QuirkEntry]] = {
    Quirk.EVENT_UNLOGGED: QuirkEntry(
        title="An event was extended and not logged",
        certainty=Certainty.PROVEN,
        pcrs=_ANY,
        explanation="Something well known was extended and left out: a separator, a string that firmware measures, or an event that was "
        "extended twice and logged once. It is not believed although it fits: whoever takes a separator away makes later events look early.",
        shown_by="With one such event put in at one place, the PCR replays exactly.",
        source="tianocore/edk2#10009 and #9925 (ExitBootServices strings not recorded); systemd/systemd#41948 (missing in PCR 5).",
        remedy=f"{_FIRMWARE_UPDATE}. {_PIN}",
    ),
    Quirk.PCR_NEVER_EXTENDED: QuirkEntry(
        title="The PCR has its first value, and the log has events",
        certainty=Certainty.PROVEN,
        pcrs=_ANY,
        explanation="The TPM was reset after the boot, the bank was switched on later, or firmware logs for a bank it does not extend. A "
        "TPM that was reset alone can be fed any boot: treat it as an attack until it is explained.",
        shown_by="The quoted value is that after a TPM reset.",
        source="google/go-attestation, issue 157 (PCRs that are partly zero).",
        remedy="Switch the bank on in the firmware's settings, or quote another one; look for a TPM reset in the clock findings.",
    ),
}

_FITS: Final[Mapping[Quirk, QuirkEntry]] = {
    Quirk.BANK_DIGESTS_WRONG: QuirkEntry(
        title="The log's digests are wrong in this bank",
        certainty=Certainty.FITS,
        pcrs=_ANY,
        explanation="Firmware logs wrong digests in one bank, or extends it differently.",
        shown_by="The same PCR replays in another quoted bank that is not SHA-1.",
        source="immune-gmbh/guard-oss works around such logs of Lenovo machines by serial number.",
        remedy="Quote only the bank that replays.",
    ),
    Quirk.VMWARE_PCR0: QuirkEntry(
        title="PCR 0 of a VMware guest",
        certainty=Certainty.FITS,
        pcrs=frozenset({0}),
        explanation="Guests on VMware have been reported whose log replays to every PCR but 0. The report is open and nobody has published "
        "which measurement the log lacks; a value that stays the same from boot to boot can be pinned.",
        shown_by="PCR 0 alone of PCRs 0 to 7 does not replay, no other quirk explains it, and the log names VMware's virtual hardware: a firmware version `VMW…`, or boot entries `EFI VMware Virtual …`.",
        source="google/go-tpm-tools#223 (2022: RHEL 8 guest with vTPM, `the following registers failed to replay: [0]`).",
        remedy=f"{_PIN} Learn the value anew after updates of ESXi or of the virtual hardware.",
    ),
    Quirk.FIRMWARE_PCR0: QuirkEntry(
        title="PCR 0 alone does not replay",
        certainty=Certainty.FITS,
        pcrs=frozenset({0}),
        explanation="Something below the firmware that writes the log measured first (Boot Guard, an authenticated code module, a management "
        "controller), or firmware logs another digest than it extended.",
        shown_by="PCR 0 alone of PCRs 0 to 7 does not replay, and no other quirk explains it.",
        source="An HPE DL160 in immune-gmbh/guard-oss (dl160-fwupd-report); fwupd/firmware-dell#34; fwupd/fwupd#1937, #4098.",
        remedy=f"{_FIRMWARE_UPDATE}. {_PIN}",
    ),
    Quirk.EXTENDED_AFTER_LOG: QuirkEntry(
        title="The operating system extended the PCR after the boot",
        certainty=Certainty.FITS,
        pcrs=_OPERATING_SYSTEM,
        explanation="PCRs 8 to 16 and 23 are open to the operating system: IMA with another PCR, systemd's NvPCR anchors, boot phases of a "
        "resumed boot. The boot log ends before.",
        shown_by="All of PCRs 0 to 7 that are quoted and logged replay, and no other quirk explains this one.",
        source="google/go-attestation#498 (NvPCR in PCR 9); immune-gmbh/guard-oss, hahuri-invalid-eventlog (IMA in PCR 11).",
        remedy="Move the measurement to a PCR of its own, send its log, or leave the PCR out of the quote. A value that varies cannot be pinned.",
    ),
    Quirk.TRUNCATED_LOG: QuirkEntry(
        title="The log ends inside an event",
        certainty=Certainty.FITS,
        pcrs=_ANY,
        explanation="The buffer was full, or the copy was cut: every event but the last, which is incomplete, can be read. PCRs whose events "
        "are all there replay and are believed; events behind the cut are missing.",
        shown_by="The last event needs more bytes than there are; PCRs that do not replay are put down to the cut.",
        source="Firmware areas of fixed size (tianocore/edk2#12732, rhboot/shim#657: log full); readers with a fixed buffer.",
        remedy="Have the agent read the whole file; update firmware that has too small a log area.",
    ),
    Quirk.ZERO_LENGTH_LOG: QuirkEntry(
        title="The log has no measured event",
        certainty=Certainty.FITS,
        pcrs=_NO_PCR,
        explanation="The file is there and empty, or has only a header or filler. Firmware of some clouds hands no log to the guest.",
        shown_by="No byte, or no event that extends a PCR.",
        source="Azure Trusted Launch (agentrust-io/cmcp#433: binary_bios_measurements of zero bytes).",
        remedy="Judge such guests by `pcr` rules; a policy that reads events cannot judge them.",
    ),
}

QUIRKS: Final[Mapping[Quirk, QuirkEntry]] = {**_HARMLESS, **_REPAIRED, **_PROVEN, **_FITS}
