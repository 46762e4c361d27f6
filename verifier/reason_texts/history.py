"""Codes about clock, copies, rollbacks and inventories."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

HISTORY: Final = {
    Reason.CLOCK_FIRST_SEEN: Entry(
        "First attestation", "There is no history to compare the clock with.", "Nothing to do."
    ),
    Reason.CLOCK_CONTINUES: Entry(
        "The clock continues", "Clock and counters go on from the last attestation.", "Nothing to do."
    ),
    Reason.CLOCK_ROLLBACK: Entry(
        "The TPM's state went back",
        "Clock or counters are lower than proven before: a snapshot or backup with the vTPM's state (.nvram) was restored, or a "
        "copy of this machine runs.",
        "If the restore was meant, `attestctl resolve` (or enrol it again with a join token); otherwise look for a copy.",
    ),
    Reason.CLOCK_UNSAFE: Entry(
        "The TPM was not shut down in order",
        "After a power loss its clock may repeat a few minutes; this is noted, not held against it.",
        "Nothing to do, unless it happens at every boot.",
    ),
    Reason.FIRMWARE_CHANGED: Entry(
        "The TPM's firmware changed",
        "Its firmware version differs from the last attestation.",
        "Expected after a hypervisor or TPM update; otherwise find out who did it.",
    ),
    Reason.CLONE_PROVEN: Entry(
        "One TPM, two machines",
        "Two lines of state of one TPM have both gone on after they had parted: two copies of the machine run (or one that is "
        "switched to and fro between snapshots). Which of them is the original, nobody can tell from what they show.",
        "See both with `attestctl clones`; say which one stays with `attestctl resolve`, and give the other a new vTPM.",
    ),
    Reason.ROLLBACK: Entry(
        "An earlier state was brought back",
        "This machine showed a state of its TPM that it had left behind: a snapshot or backup was restored, or a copy of it runs. "
        "It stays so until somebody says that it was meant.",
        "If it was, `attestctl resolve` (or enrol it again with a join token); otherwise look for the copy.",
    ),
    Reason.BOOT_ID_CHANGED: Entry(
        "Another kernel in the same TPM boot",
        "The kernel's boot id changed though the TPM was neither reset nor restarted: kexec does that, and so does a copy that was "
        "started from a saved memory. If the earlier id comes back, it is a clone.",
        "Nothing to do if the machine uses kexec.",
    ),
    Reason.BOOT_COUNTER_ROLLBACK: Entry(
        "Windows' boot count went back",
        "The count of boots that Windows keeps in the TPM is lower than proven before, under the same counter.",
        "Treat it as a rollback: find out who restored the machine, then `attestctl resolve`.",
    ),
    Reason.RATCHET_STARTED: Entry(
        "The ratchet starts",
        "Its content is known from here on; there is nothing to compare it with.",
        "Nothing to do.",
    ),
    Reason.RATCHET_CONTINUES: Entry(
        "The ratchet goes on",
        "The TPM shows the content last proven, or the one that follows it.",
        "Nothing to do.",
    ),
    Reason.RATCHET_RESUMED: Entry(
        "The ratchet is ahead of the verifier",
        "The TPM shows a content that only this verifier can have led to, later than everything in its database: the database is "
        "an older copy.",
        "Find out who restored the verifier's database; of the machine nothing is wrong.",
    ),
    Reason.RATCHET_UNSUPPORTED: Entry(
        "No ratchet",
        "The TPM shows no ratchet and never did: no room for an NV index, an owner password, or an agent that does not know it. "
        "Copies and restored states are then found by clock and boot id alone.",
        "Free an NV index or clear the owner's password, and enrol again, if you want clones found sooner.",
    ),
    Reason.RATCHET_MISSING: Entry(
        "The ratchet is gone",
        "This TPM had a ratchet and shows none now: its index was deleted, the TPM was cleared, or somebody withholds it.",
        "Look at `attest-agent status` on the machine; if the index was deleted on purpose, enrol it again.",
    ),
    Reason.RATCHET_INVALID: Entry(
        "The ratchet's certificate proves nothing",
        "It is not signed by the enrolled AK over this nonce, right after the quote, for the extend-only index that was asked for.",
        "Look for a program that has defined the index otherwise; undefine it and enrol again.",
    ),
    Reason.RATCHET_ROLLBACK: Entry(
        "The ratchet went back",
        "The TPM shows a content that it had left behind: its NV memory was restored, or a copy of it speaks.",
        "If the restore was meant, `attestctl resolve`; otherwise look for the copy.",
    ),
    Reason.RATCHET_DIVERGED: Entry(
        "The ratchet went two ways",
        "From one content the TPM went on by one value, and this evidence by another: a copy of it runs, or a snapshot with memory "
        "was brought back. If the TPM known before goes on as well, it is a copy, and the verdict says so.",
        "See both with `attestctl clones`, and resolve it there.",
    ),
    Reason.RATCHET_FOREIGN: Entry(
        "The ratchet holds something else",
        "No value this verifier handed out leads to what the index holds: another program extended it, it was deleted and made "
        "again, or it is that of a copy whose past is lost.",
        "Find the program; if the index was made anew on purpose, enrol the machine again.",
    ),
    Reason.RATCHET_STALLED: Entry(
        "The ratchet stands still",
        "A value came with each of the last challenges and the TPM shows the same content as before all of them: its NV memory "
        "cannot be written, or somebody keeps it from moving. Meanwhile the ratchet does not tell copies apart.",
        "Look at the agent's notes (`journalctl -u attest-agent`) for what the TPM said.",
    ),
    Reason.BOOT_ID_KEPT: Entry(
        "The TPM was reset under a running kernel",
        "Its reset count rose and the kernel's boot id stayed: the TPM was reset or exchanged without a reboot. PCRs start anew "
        "then and can be filled with what was measured on another boot. A hibernation that lost its power does the same.",
        "Reboot the machine; if it was not hibernated, find out who reset its TPM.",
    ),
    Reason.IMA_OFFSET_UNKNOWN: Entry(
        "The IMA list begins where nothing is held",
        "The list was sent from an offset up to which the verifier does not hold this boot's list, or holds it no longer. "
        "Nothing is concluded from that.",
        "Ask for a new challenge and send the whole list. The agent does so by itself.",
    ),
    Reason.EVIDENCE_OVERTAKEN: Entry(
        "Newer evidence came first",
        "While this evidence was on its way, other evidence of the attester was judged, and this one does not come after it. "
        "Nothing is concluded from that.",
        "Ask for a new challenge and attest again.",
    ),
    Reason.HISTORY_UNJUDGED: Entry(
        "The history was not judged",
        "Stored evidence was judged again, and at its first judgement nothing was concluded about clock, copies or restored "
        "states, because the quote did not hold under the policy of then. What the history was then, nobody keeps.",
        "Wait for the machine's next attestation, which is judged whole.",
    ),
    Reason.EVIDENCE_UNAVAILABLE: Entry(
        "Stored evidence is not there, or damaged",
        "It was dropped by `evidence.keep`, or what is stored no longer matches its digest; the message names the digest. "
        "It is never judged, and counts as a verdict of nothing.",
        "Wait for the machine's next attestation, or restore the database from a backup if digests do not match.",
    ),
    Reason.CLONE_SUSPECTED: Entry(
        "Two machines, one TPM",
        "Different SMBIOS UUIDs were claimed under one EK: the VM was cloned with its vTPM, or its UUID was changed.",
        "On vSphere, clone with `replace`, or enrol the copy anew after giving it a new vTPM.",
    ),
}
