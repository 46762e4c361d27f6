"""Codes about boot logs."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

BOOT: Final = {
    Reason.BOOT_LOG_MISSING: Entry(
        "No usable boot log",
        "The policy judges the boot log and none came that could be used.",
        "Check that /sys/kernel/security/tpm0/binary_bios_measurements exists and that the agent may read it.",
    ),
    Reason.BOOT_LOG_REPLAYS: Entry(
        "The boot log replays", "Its events add up to the quoted PCRs.", "Nothing to do."
    ),
    Reason.BOOT_LOG_MISMATCH: Entry(
        "The boot log does not replay",
        "Its events do not add up to a quoted PCR: the log was edited or cut, or something extended the PCR without logging it. "
        "No event of that PCR is believed. The message says after which event log and value part, as far as that can be told, and which "
        "known quirk fits.",
        "Hold it against the PCRs with `attestctl eventlog --pcrs`; a known quirk must be tolerated by the policy in words.",
    ),
    Reason.BOOT_LOG_BANK_MISSING: Entry(
        "The log lacks the quoted bank",
        "It has no digests of the bank that was quoted.",
        "Quote a bank the firmware logs; SHA-1 logs cannot support a SHA-256 policy.",
    ),
    Reason.EVENT_DATA_UNBOUND: Entry(
        "Event text is not bound",
        "The digest does not cover the text, so nobody vouches for it. It is shown and never judged.",
        "Nothing to do; write rules on digests or on bound events.",
    ),
    Reason.BOOT_LOG_QUIRK: Entry(
        "A known quirk of the boot log, tolerated",
        "The log does not lead to a quoted PCR as it stands, a known quirk fits, and the policy tolerates it for this PCR. What the quirk "
        "leaves unproven stays unproven.",
        "See docs/quirks.md for what makes the quirk go away.",
    ),
    Reason.BOOT_LOG_CUT: Entry(
        "The boot log ends inside an event",
        "Everything before its last event can be read, and events behind may be missing. PCRs that replay are believed all the same.",
        "Have the agent read the whole log; look for a full log area of the firmware.",
    ),
    Reason.BOOT_LOG_EMPTY: Entry(
        "The boot log has no measured event",
        "A log came and says nothing: it has no byte, or no event that extends a PCR. Nothing is believed of it, not even that nothing was "
        "measured.",
        "Check that firmware hands a log to the guest; judge guests that have none by `pcr` rules.",
    ),
    Reason.USERSPACE_LOG_REPLAYS: Entry(
        "The userspace log replays",
        "Events that systemd measured after the boot lead on from the boot log to the quoted PCRs.",
        "Nothing to do.",
    ),
    Reason.USERSPACE_LOG_UNEXPLAINED: Entry(
        "The userspace log does not explain a PCR",
        "systemd's log has events of this PCR, but no number of them leads to the quoted value, so none is believed: "
        "something extended it without a word in that log, or the log was edited.",
        "Find out what else extends this PCR; claims that come from it stay unproven.",
    ),
    Reason.NV_INDEX_CERTIFIED: Entry(
        "NV indices are certified",
        "The AK certified what these NV indices hold, over the same nonce and right after the quote.",
        "Nothing to do.",
    ),
    Reason.NV_INDEX_INVALID: Entry(
        "The certificate of an NV index cannot be believed",
        "It is not signed by the enrolled AK over this nonce right after the quote, or not of an index that can only be extended.",
        "Attest again; if it stays, find out what on this machine changes the evidence.",
    ),
}
