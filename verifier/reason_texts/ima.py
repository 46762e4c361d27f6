"""Codes about IMA lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.reasons import Entry, Reason

IMA: Final[Mapping[Reason, Entry]] = {
    Reason.IMA_LIST_MISSING: Entry(
        "No IMA list came",
        "The policy judges what the machine ran, and no IMA measurement list came with the quote.",
        "Boot with an IMA policy (`ima_policy=tcb` on the kernel command line) and let the agent send the list: it "
        "asks the verifier.",
    ),
    Reason.IMA_LIST_REPLAYS: Entry(
        "The IMA list leads to the quoted PCR",
        "Every entry up to the quoted value is proven, in order. Entries that came after the quote wait for the "
        "next one.",
        "Nothing to do.",
    ),
    Reason.IMA_LIST_MISMATCH: Entry(
        "The IMA list does not lead to the quoted PCR",
        "No part of the list gives the quoted value: an entry was changed, left out, inserted or moved, or "
        "something else extended the PCR. Nothing of what was sent is believed.",
        "Hold the list against the PCRs on the machine (`attestctl ima LIST --pcrs FILE`). If it leads there, the "
        "agent sent another; if not, treat the machine as tampered with and reboot it into a known image.",
    ),
    Reason.IMA_LIST_BEHIND: Entry(
        "The IMA list ends before the quote",
        "The PCR has gone on since the last entry that was sent, so there are measurements nobody has seen.",
        "The agent must read the list after the quote, to its end. If it does, somebody withholds entries.",
    ),
    Reason.IMA_LIST_TRUNCATED: Entry(
        "The IMA list is shorter than what was proven of it",
        "Within one boot a kernel only ever appends. What was sent is less than what the verifier already holds, "
        "and does not go on from there.",
        "Find out what serves the list on the machine; then reboot it into a known image.",
    ),
    Reason.IMA_LIST_INCOMPLETE: Entry(
        "A part of the IMA list is missing",
        "It goes on from a place that this verifier, or this reference revision, has not judged. Nothing was "
        "concluded.",
        "Nothing to do: the next challenge asks for the whole list.",
    ),
    Reason.IMA_LIST_REBOOTED: Entry(
        "The IMA list is that of another boot",
        "The whole list leads from the start of a boot to the quote and does not contain what was proven before: "
        "the machine has been rebooted.",
        "Nothing to do.",
    ),
    Reason.IMA_LIST_ROTATED: Entry(
        "The IMA list starts anew and the PCR goes on",
        "The list does not contain what was proven before but leads on from there: the kernel was replaced by "
        "kexec, or the list was trimmed.",
        "Nothing to do; what was measured before stays judged.",
    ),
    Reason.IMA_LIST_CUT: Entry(
        "The IMA list ends inside an entry",
        "The bytes stop before the entry they begin is complete.",
        "Read the list again, whole.",
    ),
    Reason.IMA_TEMPLATE_DIGEST: Entry(
        "A template digest does not fit its entry",
        "The digest in the list is not that of the template data beside it. The PCR covers the data, not this "
        "digest; ascii lists lose line feeds in names.",
        "Hold the list against the PCRs; read the binary list instead of the ascii one.",
    ),
    Reason.IMA_PCR_UNPROVEN: Entry(
        "Entries in a PCR that is not proven",
        "The IMA policy of the machine measures into another PCR as well, which is not quoted or is not explained "
        "by the list alone. Those entries were not judged.",
        "Quote that PCR (`quote.pcrs` of the policy), or take `pcr=` out of the machine's IMA policy.",
    ),
    Reason.IMA_REFERENCE_MISSING: Entry(
        "Nothing says which files are known",
        "The list is proven, but there is no runtime reference to judge it by.",
        "Add reference sets to the policy's `runtime` section.",
    ),
    Reason.IMA_FILES_STAGED: Entry(
        "Files of a staged update run",
        "Files are known to a staged runtime set only: the update that was announced is being installed.",
        "When the update is meant to be there, move its set from `staged` to `sets`; until then this is a warning.",
    ),
    Reason.IMA_FILES_KNOWN: Entry(
        "Everything that was measured is known",
        "No proven entry of this boot is anything but what the runtime policy allows.",
        "Nothing to do.",
    ),
    Reason.IMA_FILES_ALLOWED: Entry(
        "Nothing that was measured is denied",
        "The policy lets through what it does not know (`allow`), and there was such. It says nothing of what ran.",
        "Nothing to do; set `unknown_files` and the like to `warn` to see what it is.",
    ),
    Reason.IMA_FILE_UNKNOWN: Entry(
        "A file that no reference set has",
        "The kernel measured a file (run, mapped or read as its IMA policy says) whose path is in no set of the "
        "policy. The finding names the likely reason.",
        "If it belongs there, add its package's set or its digest to the policy, or exclude its path; if not, find "
        "out who put it there.",
    ),
    Reason.IMA_FILE_CHANGED: Entry(
        "A known file has another content",
        "The path is in a reference set, with other digests. The finding names them and the likely reason.",
        "If its package was updated, add the new version's set (stage it ahead of updates); if not, restore the "
        "file from its package and find out who changed it.",
    ),
    Reason.IMA_MODULE_UNKNOWN: Entry(
        "A kernel module that is not known",
        "A module was loaded whose path or digest no reference set has. It runs with the kernel's rights.",
        "Add the set of the kernel's package, or of what builds modules (DKMS); otherwise treat the kernel as "
        "compromised.",
    ),
    Reason.IMA_VIOLATION: Entry(
        "A file was written while it was measured or in use",
        "IMA could not tell what was used: a file was opened for writing while it was in use (ToMToU), or read "
        "while it was open for writing. The PCR proves that it happened, and neither to which file nor which of "
        "the two.",
        "Keep programs from writing files that are measured (log files read as root are the usual case), or narrow "
        "the IMA policy; `violations: warn` or `allow` accepts them all.",
    ),
    Reason.IMA_SIGNATURE_MISSING: Entry(
        "A file without a signature",
        "The policy requires file signatures, and this file carries none in `security.ima`.",
        "Sign it (`evmctl ima_sign`, or signed packages), measure with template ima-sig, or exclude the path.",
    ),
    Reason.IMA_SIGNATURE_INVALID: Entry(
        "A file signature is not valid",
        "It does not verify by the key it names, is of another digest, or uses what is not supported.",
        "Sign the file again; if it was signed right, it was changed since.",
    ),
    Reason.IMA_SIGNATURE_KEY_UNKNOWN: Entry(
        "A file signed by a key that is not trusted",
        "No key of the policy has the id that the signature names.",
        "Add the key to the policy's `runtime` section if its holder may vouch for files.",
    ),
    Reason.IMA_KEY_UNKNOWN: Entry(
        "A key that is not known was loaded",
        "A key was put on a keyring of the kernel and the policy does not know it. What it signs passes the "
        "kernel's own checks from there on.",
        "Add the digest of its certificate to the policy, or find out who loaded it.",
    ),
    Reason.IMA_POLICY_LOADED: Entry(
        "An IMA policy that is not known was loaded",
        "It replaces the rules of what is measured, so what is missing from the list afterwards says nothing.",
        "Add its digest to a reference set, or find out who loaded it.",
    ),
    Reason.IMA_BUFFER_UNKNOWN: Entry(
        "Critical data that is not known",
        "The kernel measured data of its own (kexec command line, SELinux state) that the policy does not know.",
        "Add its digest to the policy if it is as it should be.",
    ),
    Reason.IMA_TARGET_UNKNOWN: Entry(
        "A device-mapper target that is not allowed",
        "A block device was set up in a way the policy does not allow: another target, or another root digest.",
        "Add the target to the policy if the device is as it should be.",
    ),
    Reason.IMA_TEMPLATE_UNKNOWN: Entry(
        "An entry that cannot be judged",
        "Its template is unknown here or has neither path nor digest, so nothing says what was measured.",
        "Boot with a template that has both (`ima_template=ima-sig`).",
    ),
    Reason.IMA_BOOT_AGGREGATE: Entry(
        "The IMA list is not of this boot's firmware",
        "The boot aggregate, IMA's own record of PCRs 0 to 9 when it started, does not agree with the quoted "
        "values and the boot log.",
        "Check that TPM driver and IMA are built into the kernel; otherwise PCRs were extended before the kernel "
        "started in ways the boot log does not say.",
    ),
    Reason.IMA_MORE: Entry(
        "More findings than are kept",
        "The first hundred findings of a boot are kept in full; the rest is counted, and weighs as the gravest of "
        "them.",
        "Look at the first ones: many of one kind usually mean a set that is missing.",
    ),
}
