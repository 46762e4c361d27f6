"""What each failure does to a session: the second half of its table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Reaction(enum.Enum):
    """What a failure does to the session."""

    RETRY = "retry"
    """Same state, after a back-off."""
    ASK_AGAIN = "ask-again"
    """The nonce is void: ask for another; at once, unless that happened since the last verdict."""
    RESEND_WHOLE = "resend-whole"
    """As `ASK_AGAIN`, and send the logs whole."""
    ENROLL_AGAIN = "enroll-again"
    """The enrolment is void: begin anew, with the same restraint."""
    REENROLL_IF_ALLOWED = "reenroll-if-allowed"
    """The verifier does not know this attester any more, or wants it to come anew: enrol if a join token is at hand,
    else as `SLOW`."""
    REFUSED = "refused"
    """A person said no: go on with the enrolment of before if there is one, else as `SLOW`."""
    DEVICE = "device"
    """The TPM's device node may not be there yet, early in a boot: an agent that runs for ever looks again after a
    back-off; a command stops."""
    SLOW = "slow"
    """Only a person can lift this: stop, or for an agent that runs for ever, ask rarely."""


REACTIONS: Final[Mapping[str, Reaction]] = {
    "nonce-unknown": Reaction.ASK_AGAIN,
    "nonce-expired": Reaction.ASK_AGAIN,
    "nonce-foreign": Reaction.ASK_AGAIN,
    "nonce-reused": Reaction.ASK_AGAIN,
    "quote-nonce": Reaction.ASK_AGAIN,
    "evidence-overtaken": Reaction.ASK_AGAIN,
    "boot-log-missing": Reaction.RESEND_WHOLE,
    "ima-offset-unknown": Reaction.RESEND_WHOLE,
    "enrollment-expired": Reaction.ENROLL_AGAIN,
    "enrollment-refused": Reaction.REFUSED,
    "tpm-replaced": Reaction.ENROLL_AGAIN,
    "not-found": Reaction.REENROLL_IF_ALLOWED,
    "reenrollment-required": Reaction.REENROLL_IF_ALLOWED,
    "no-tpm": Reaction.DEVICE,
    "tpm-permission": Reaction.DEVICE,
    # A guest's clock may be wrong until the network is up, and certificates are replaced: not final.
    "verifier-untrusted": Reaction.RETRY,
}
"""By code; a code that is not here is `RETRY` if the error is transient, else `SLOW`."""
ENROLLMENT_GONE: Final = frozenset({"not-found", "activation-failed"})
"""While an enrolment is under way: the verifier does not know it any more. There is nothing to lose by a new one."""
