"""Codes about what cannot be read, found or answered."""

from __future__ import annotations

from typing import Final

from verifier.reasons import Entry, Reason

REQUESTS: Final = {
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
    Reason.SECRET_UNKNOWN: Entry(
        "No such secret for this attester",
        "There is no secret of this name, or no grant by which this attester may have it now: it does not learn which.",
        "Ask the operator: `attestctl secret show NAME` lists the grants, `attestctl audit --subject NAME` says why not.",
    ),
    Reason.SECRET_WITHHELD: Entry(
        "The secret is withheld",
        "This attester may have the secret, and is not in the state in which it gets it: affirming, now, by the evidence that"
        " came with the question, and without an open incident.",
        "Resolve what the detail names (`attestctl verdict ID` has all of it), then ask again.",
    ),
}
