"""What each code means and what to do next, in plain words. `docs/reasons.md` is made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.ima_reason_texts import IMA_ENTRIES
from verifier.reasons import Entry, Reason

_INPUT: Final = {
    Reason.MALFORMED_STRUCTURE: Entry(
        "A binary structure does not parse",
        "The bytes end early, run over, or hold a value the specification does not allow. `structure` and `offset` say where.",
        "Send the structure exactly as the TPM or the kernel gave it. If it was, keep the bytes and report them as a parser fault.",
    ),
    Reason.UNSUPPORTED_ALGORITHM: Entry(
        "Unsupported algorithm or type",
        "The structure is well formed but names an algorithm, bank or type this verifier does not judge.",
        "Use SHA-256, SHA-384 or SHA-512 and RSA or NIST P curves; see docs/standards.md for the list.",
    ),
    Reason.MALFORMED_REQUEST: Entry(
        "The request is not the message it should be",
        "The body or a parameter does not match the published schema.",
        "Compare the request with /openapi.json; the detail names the field.",
    ),
    Reason.BODY_TOO_LARGE: Entry(
        "The request body is too large",
        "The body, or what it expands to, is over the limit of this route.",
        "Send logs by digest or from an offset; the challenge says what the verifier already holds.",
    ),
    Reason.UNSUPPORTED_MEDIA_TYPE: Entry(
        "Unsupported media type or encoding",
        "Only JSON and MessagePack are read, plain or compressed with zstd or gzip.",
        "Set Content-Type to application/json or application/msgpack.",
    ),
    Reason.NOT_FOUND: Entry(
        "No such record",
        "The path names something that does not exist or belongs to another tenant.",
        "Check the path and the id; what you may see is in the listing of its kind, such as `attestctl attesters`.",
    ),
    Reason.METHOD_NOT_ALLOWED: Entry(
        "Method not allowed",
        "This path exists, but not for this method.",
        "See /openapi.json for the methods of this path.",
    ),
    Reason.UNAUTHENTICATED: Entry(
        "No valid credential",
        "The request carries no token, or one that is unknown, expired or revoked.",
        "Create one with `attest-verifier tokens create` and send it as `Authorization: Bearer`.",
    ),
    Reason.FORBIDDEN: Entry(
        "The token lacks the scope",
        "The credential is valid but may not do this.",
        "Use a token with the scope the detail names.",
    ),
    Reason.RATE_LIMITED: Entry(
        "Too many requests",
        "This identity or address asked too often.",
        "Wait as Retry-After says, then try again.",
    ),
    Reason.CONFLICT: Entry(
        "The state has changed meanwhile",
        "The request assumes a state that no longer holds.",
        "Read the record again and repeat the request if it still makes sense.",
    ),
    Reason.TIER_NOT_MET: Entry(
        "The attester is not known to be good enough",
        "Its verdict is below the tier that was asked for, it has none, it is stale, revoked or retired, or nobody knows it.",
        "Read the verdict without `min_tier` and resolve what speaks against the machine; the next attestation judges it anew.",
    ),
    Reason.VERIFIER_UNAVAILABLE: Entry(
        "The verifier cannot answer now",
        "A part of the verifier is down. No verdict was made or changed.",
        "Try again after Retry-After; operators look at /readyz.",
    ),
    Reason.INTERNAL_FAULT: Entry(
        "A fault of the verifier",
        "Something failed that should not. No verdict was made or changed.",
        "Report it with the request id; the log has the cause.",
    ),
    Reason.POLICY_INVALID: Entry(
        "The policy must not be used",
        "The policy has an unknown key, a contradiction, or would let something pass unseen.",
        "Mend the place the detail names; `attestctl policy lint` checks it offline.",
    ),
    Reason.RUNTIME_SET_INVALID: Entry(
        "A runtime set, or what it is made of, cannot be used",
        "A package, image or list that a set is made of cannot be read, or the set is not written as it must be.",
        "Look at the file and the place that are named. What is damaged is fetched again; a set is made again.",
    ),
}

_ENROLMENT: Final = {
    Reason.JOIN_TOKEN_REQUIRED: Entry(
        "A join token is needed",
        "This verifier enrols only guests that bring a join token.",
        "Ask an operator for one: `attest-verifier tokens create --scope join`.",
    ),
    Reason.JOIN_TOKEN_INVALID: Entry(
        "The join token is not valid",
        "It is unknown, expired, revoked or used up.",
        "Ask an operator for a new one: `attest-verifier tokens create --scope join`.",
    ),
    Reason.EK_CERTIFICATE_MISSING: Entry(
        "No certificate for the EK",
        "The enrolment policy wants the EK vouched for by a certificate, and none of those sent holds this EK.",
        "On vSphere, check that the vTPM has an EK certificate; or pin the EK by inventory or approval.",
    ),
    Reason.EK_CERTIFICATE_MALFORMED: Entry(
        "The EK certificate does not parse",
        "Neither the strict nor the tolerant reader can make sense of the bytes.",
        "Read it again from NV; keep the bytes and report them if they are as the TPM gave them.",
    ),
    Reason.EK_CERTIFICATE_UNTRUSTED: Entry(
        "The EK certificate has no path to an anchor",
        "No configured trust anchor signed this certificate or its issuers.",
        "Import the issuer's root: for VMCA, `download.zip` of the vCenter; for hardware, the vendor's CA.",
    ),
    Reason.EK_CERTIFICATE_EXPIRED: Entry(
        "A certificate of the path is not valid now",
        "The EK certificate or an issuer is expired or not yet valid.",
        "Check the verifier's clock and the dates; a renewed issuer must be imported.",
    ),
    Reason.EK_CERTIFICATE_KEY_MISMATCH: Entry(
        "The certificate is for another key",
        "The EK public area that was sent is not the key in the certificate.",
        "Someone else's certificate vouches for nothing: look at who sent this.",
    ),
    Reason.EK_CERTIFICATE_PROFILE: Entry(
        "The certificate cannot be an EK certificate",
        "It is a CA, lacks a needed usage, has an unknown critical extension, or its key is weak.",
        "Ask the issuer for a certificate of the EK; without one, the inventory or an operator can vouch for this TPM.",
    ),
    Reason.EK_CERTIFICATE_REVOKED: Entry(
        "A certificate of the path is revoked",
        "A current CRL of its issuer lists it.",
        "Treat the TPM as untrusted; ask the issuer why.",
    ),
    Reason.EK_ATTRIBUTES: Entry(
        "The EK is not an endorsement key",
        "It must be a restricted decryption key fixed to its TPM.",
        "Create it from a template of the TCG EK credential profile.",
    ),
    Reason.AK_ATTRIBUTES: Entry(
        "The AK is not an attestation key",
        "It must be restricted, signing, not decrypting, fixed to its TPM and parent, and made inside the TPM. A key without "
        "these can sign anything its owner likes.",
        "Let the agent make the AK. If it did, someone is forging: look at the guest.",
    ),
    Reason.ACTIVATION_FAILED: Entry(
        "The credential was not activated",
        "The proof is not the one that only the TPM with both keys can make.",
        "Start the enrolment again; if it repeats, EK and AK are not in the same TPM.",
    ),
    Reason.ENROLLMENT_EXPIRED: Entry(
        "The enrolment is gone", "It expired or was already completed.", "Start a new enrolment."
    ),
    Reason.ENROLLMENT_PENDING: Entry(
        "The enrolment waits for approval",
        "The machine has proven its keys; an operator has to approve them.",
        "Approve or refuse it: `attestctl enrollments`. The agent comes back by itself.",
    ),
    Reason.REENROLLMENT_REQUIRED: Entry(
        "A new enrolment is required",
        "An operator wants this machine to enrol again before anything it says counts, or has called it a copy of another.",
        "Enrol it again: `attest-agent enroll --again`; a copy needs a new vTPM first.",
    ),
    Reason.IDENTITY_REPLACED: Entry(
        "Another TPM for a known machine",
        "A machine with a known SMBIOS UUID comes with another endorsement key: its vTPM was replaced, it was restored without "
        "its .nvram, or another machine claims its UUID.",
        "If it waits, approve or refuse it: `attestctl enrollments`. Approved, it takes the place of the earlier attester, whose "
        "history stays; of that one nothing is to be done.",
    ),
    Reason.ATTESTER_REVOKED: Entry(
        "The attester is revoked",
        "An operator revoked it. It gets no challenge and no verdict.",
        "Enrol it again after an operator lifted the revocation.",
    ),
    Reason.KEY_CERTIFICATE_MISSING: Entry(
        "No certificate for the AK",
        "The enrolment policy wants the AK certified by its cloud or by the maker of the machine, and none of the certificates"
        " sent is for this AK.",
        "Let the agent use the certified key (`attest-agent enroll --ak certified`), and import the issuer's root for it:"
        " `attest-verifier anchors import --for ak`.",
    ),
    Reason.ANCHORS_REFUSED: Entry(
        "The trust anchors cannot be taken",
        "There is nothing in them that can be trusted, or the name, the purpose or the fingerprint given is not one.",
        "The detail says which. A trust anchor is a CA certificate with a strong key: PEM, DER, PKCS#7, a zip or cabinet archive.",
    ),
    Reason.AK_CERTIFICATE_WITHHELD: Entry(
        "No AK certificate is issued for this attester now",
        "The settings issue certificates only to machines in good standing, and this one is not: the detail says why.",
        "Read its verdict and resolve what speaks against it; the next affirming verdict renews the certificate.",
    ),
    Reason.INVENTORY_DISAGREES: Entry(
        "The inventory does not know this TPM as this machine's",
        "Enrolment asks for an endorsement key that the inventory pins to the machine, and it does not, or is not current.",
        "The detail names the machines concerned. Sync the inventory, or resolve the replaced or copied vTPM.",
    ),
    Reason.INVENTORY_MATCHES: Entry(
        "The inventory lists this TPM for this machine",
        "Exactly one machine of the inventory has this endorsement key, and nothing the guest says of itself speaks against it."
        " That is the inventory's word, as good as its source.",
        "Nothing to do.",
    ),
    Reason.INVENTORY_MISMATCH: Entry(
        "The TPM is another machine's",
        "The inventory lists this endorsement key for one machine, and the guest says that it is another: a copy of that machine's"
        " vTPM runs where the inventory does not see it, or its UUID was changed and the guest has not been started since.",
        "Compare both machines: `attestctl inventory vm UUID`. After a change of the UUID, restart the guest; otherwise find the copy"
        " and give it a vTPM of its own.",
    ),
    Reason.INVENTORY_SHARED_KEY: Entry(
        "Several machines have this TPM's key",
        "The inventory lists one endorsement key for more than one machine: one was cloned, deployed or copied from another without"
        " replacing the vTPM. Whichever runs speaks for all of them.",
        "Give each copy a vTPM of its own (vSphere: clone with `tpmProvisionPolicy` `replace`, or remove and add the device),"
        " and enrol it.",
    ),
    Reason.INVENTORY_KEY_REPLACED: Entry(
        "The machine has another TPM now",
        "The inventory lists other endorsement keys for the machine that this guest says it is: its vTPM was replaced, and this"
        " evidence comes from the old one, which should be gone; or the guest is not that machine.",
        "Find out where the old vTPM still runs. Revoke this attester (`attestctl revoke ID`) if its machine enrols anew.",
    ),
    Reason.INVENTORY_SILENT: Entry(
        "The inventory does not say whose TPM this is",
        "No source lists this endorsement key, or the machine is listed without keys. That proves nothing for or against it.",
        "If it should be listed, add its source or its keys. A policy may demand `identity.inventory.outcome`.",
    ),
    Reason.INVENTORY_STALE: Entry(
        "The inventory is not current",
        "A source was last known to be whole longer ago than `correlation.max_age`. What it said then is in the message and is not"
        " relied on.",
        "`attestctl inventory` tells what is wrong with the source.",
    ),
    Reason.INVENTORY_EVENT: Entry(
        "The inventory tells of something that happened to this machine",
        "vCenter posted an event, or the machine was read with other keys than before: a clone, a revert, another UUID, another"
        " vTPM. It explains other findings and decides nothing by itself.",
        "Read it together with findings of clones and rollbacks: `attestctl inventory events`.",
    ),
    Reason.ENROLLMENT_REFUSED: Entry(
        "An operator refused this machine",
        "Somebody looked at the enrolment of this endorsement key and said no; the detail has the reason.",
        "If that was a mistake: `attestctl enrollments approve ID --overrule`. The agent of a refused machine asks rarely.",
    ),
    Reason.ENROLLMENT_QUEUE_FULL: Entry(
        "Too many enrolments wait",
        "As many enrolments as the settings allow wait for a decision, from this address or in all.",
        "Decide them (`attestctl enrollments`), or raise `enrollment.max_pending` or `enrollment.max_pending_per_address`.",
    ),
}

_QUOTE: Final = {
    Reason.QUOTE_MAGIC: Entry(
        "Not made by a TPM",
        "The signed bytes do not begin with TPM_GENERATED_VALUE, which a restricted key puts only before what the TPM made itself.",
        "Treat the sender as a forger.",
    ),
    Reason.QUOTE_TYPE: Entry(
        "Not a quote",
        "The attestation structure is of another type.",
        "Send what TPM2_Quote returned.",
    ),
    Reason.QUOTE_SIGNATURE: Entry(
        "Signed by another key",
        "The signature does not verify under the enrolled AK.",
        "Enrol again if the AK was replaced on purpose; otherwise treat the sender as a forger.",
    ),
    Reason.QUOTE_SIGNATURE_ALGORITHM: Entry(
        "The signature scheme is not allowed",
        "The scheme or hash is not the AK's own, or the policy does not allow it.",
        "Use the AK's scheme with SHA-256 or better.",
    ),
    Reason.QUOTE_NONCE: Entry(
        "The quote is over another nonce",
        "The signed nonce is not the one of this challenge: the quote is old or made for someone else.",
        "Quote again over the nonce you were given: that of the latest challenge, or the relying party's.",
    ),
    Reason.NONCE_UNKNOWN: Entry(
        "The nonce is not ours",
        "This verifier did not issue it.",
        "Ask for a challenge and quote over its nonce.",
    ),
    Reason.NONCE_EXPIRED: Entry(
        "The nonce has expired",
        "The challenge is too old.",
        "Ask for a new challenge; check for delays between quote and sending.",
    ),
    Reason.NONCE_FOREIGN: Entry(
        "The nonce is another attester's",
        "It was issued, but not to this attester.",
        "Quote over a nonce of this attester's own challenge.",
    ),
    Reason.NONCE_REUSED: Entry(
        "The nonce was used before",
        "Evidence over this nonce was already judged; a replay is refused even within its life.",
        "Ask for a new challenge.",
    ),
    Reason.QUOTE_PCR_SELECTION: Entry(
        "The quote leaves out PCRs",
        "It covers fewer PCRs, or another bank, than was asked for.",
        "Quote exactly the selection of the challenge.",
    ),
    Reason.QUOTE_PCR_DIGEST: Entry(
        "PCR values differ from the quote",
        "The values sent beside the quote do not hash to the digest that was signed.",
        "Read the PCRs again around the quote; if it repeats, someone edits them.",
    ),
    Reason.QUOTE_VERIFIED: Entry(
        "The quote is genuine", "Signature, nonce, selection and PCR digest agree.", "Nothing to do."
    ),
    Reason.FRESHNESS_ASSUMED: Entry(
        "Freshness is not proven",
        "The nonce is not one this verifier issued, so the evidence may be of any age.",
        "Attest online for a fresh verdict.",
    ),
    Reason.AK_UNPROVEN: Entry(
        "The AK is not proven to be a TPM's",
        "No credential activation bound it to an endorsed EK.",
        "Enrol the machine; offline, say --ak-trusted if you know the key by other means.",
    ),
    Reason.AK_TRUSTED: Entry("The AK is a TPM's", "Activation bound it to a trusted EK.", "Nothing to do."),
}

_HISTORY: Final = {
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

_BOOT: Final = {
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

_POLICY: Final = {
    Reason.POLICY_MISSING: Entry(
        "No policy",
        "No policy is assigned, so nothing says what is good.",
        "Assign one, or set a default policy.",
    ),
    Reason.POLICY_COVERAGE: Entry(
        "A quoted PCR is not judged",
        "No rule speaks for it.",
        "Add a rule, or list it under `unjudged` with the reason.",
    ),
    Reason.PCR_MATCHES: Entry("PCR as expected", "The PCR has a golden value.", "Nothing to do."),
    Reason.PCR_MISMATCH: Entry(
        "PCR differs",
        "The PCR has none of the golden values.",
        "Compare the boot with the last good one; if the change was meant, add its value.",
    ),
    Reason.PCR_NOT_QUOTED: Entry(
        "PCR not quoted",
        "A rule judges a PCR the quote does not cover.",
        "Add it to quote.pcrs of the policy.",
    ),
    Reason.EVENT_MATCHES: Entry("Events as expected", "The measured events are golden.", "Nothing to do."),
    Reason.EVENT_MISMATCH: Entry(
        "An event differs",
        "Something else was measured in this place than the golden value.",
        "Find out what changed: an update (then add its digest) or tampering.",
    ),
    Reason.EVENT_MISSING: Entry(
        "An event is missing",
        "Something that has to be measured was not.",
        "Compare the boot chain with the one the policy is for.",
    ),
    Reason.EVENT_UNEXPECTED: Entry(
        "An event too many",
        "Something was measured that the policy does not know or forbids.",
        "Find out what ran; if it was meant, add it to the policy.",
    ),
    Reason.SECURE_BOOT_ON: Entry(
        "Secure Boot on", "Measured as on before the OS loader ran.", "Nothing to do."
    ),
    Reason.SECURE_BOOT_OFF: Entry(
        "Secure Boot off",
        "Measured as off, whatever the log's text says.",
        "Turn Secure Boot on in the VM's firmware settings and reboot.",
    ),
    Reason.SECURE_BOOT_UNPROVEN: Entry(
        "Secure Boot is not proven",
        "No bound event in PCR 7 before the separator says it.",
        "Check that the firmware measures the SecureBoot variable and that the log is whole.",
    ),
    Reason.COMMAND_LINE_MATCHES: Entry(
        "Command line as required", "The proven kernel command line fits.", "Nothing to do."
    ),
    Reason.COMMAND_LINE_MISMATCH: Entry(
        "Command line differs",
        "The proven kernel command line is not as the policy requires.",
        "Compare expected and actual; restore the boot entry or adapt the policy.",
    ),
    Reason.COMMAND_LINE_UNPROVEN: Entry(
        "Command line not proven",
        "No measured digest covers the text that was sent.",
        "Measure it (GRUB with a TPM module, or a UKI) and let the agent send it.",
    ),
    Reason.CLAIM_UNPROVEN: Entry(
        "A claim is not proven",
        "The rule's expression reads a claim that this evidence does not prove, so it was not computed.",
        "See docs/claims.md for what proves the claim, and `attestctl eventlog` for what the log proves.",
    ),
    Reason.RULE_HOLDS: Entry("The expression holds", "It is true of the proven claims.", "Nothing to do."),
    Reason.RULE_BROKEN: Entry(
        "The expression does not hold",
        "It is false of the proven claims.",
        "Compare it with the values found; if they are meant, change the rule.",
    ),
    Reason.RULE_FAULTY: Entry(
        "The expression cannot be computed",
        "It asks for a key that is not there, divides by zero, loops too long, or meets text that it cannot take whole.",
        "Ask for a key only where it is: `'.linux' in boot.uki.sections && ...`; the finding says what failed.",
    ),
    Reason.POLICY_SIGNATURE: Entry(
        "The policy is not signed by an accepted signer",
        "This verifier demands signed policies (`policy_signers`), and no signature on this one holds under their keys.",
        "Sign it: `attestctl policy sign F --key KEY.pem --out F.dsse.json`; or add the signer's public key to the settings.",
    ),
    Reason.POLICY_STAGED: Entry(
        "A policy is tried beside the one that decides",
        "An assignment in mode `warn` or `observe` names it; the finding says what the verdict would be were it enforced.",
        "Read its findings, whose rule begins with the policy's id. When none is left that should not be, assign it in"
        " mode `enforce`; otherwise change the policy, or the machines.",
    ),
    Reason.REVOCATIONS_PRESENT: Entry(
        "What must be revoked is",
        "The dbx that firmware measured, and shim's level where it is asked for, hold every required revocation.",
        "Nothing to do.",
    ),
    Reason.REVOCATIONS_MISSING: Entry(
        "Revocations are missing",
        "The dbx that firmware measured, or shim's SbatLevel, lacks revocations that the policy requires: images with known"
        " holes would still have run.",
        "Update the machine's dbx (`fwupdmgr update`, Windows Update, the hypervisor's firmware) or shim, then reboot it.",
    ),
}

ENTRIES: Final[Mapping[Reason, Entry]] = {
    **_INPUT,
    **_ENROLMENT,
    **_QUOTE,
    **_HISTORY,
    **_BOOT,
    **IMA_ENTRIES,
    **_POLICY,
}
