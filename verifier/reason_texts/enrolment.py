"""Codes about whose TPM it is, and whether it is let in."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

ENROLMENT: Final = {
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
