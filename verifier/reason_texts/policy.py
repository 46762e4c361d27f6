"""Codes about policies and their rules."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

POLICY: Final = {
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
