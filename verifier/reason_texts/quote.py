"""Codes about signature, nonce and PCRs of a quote."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

QUOTE: Final = {
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
