"""What a relying party may meet: every error has a stable `code`, a `detail`, and a `remedy`. None of them is ever a pass."""

from __future__ import annotations

import enum
from typing import Final

UNAVAILABLE: Final = "verifier-unavailable"


class AttestationError(Exception):
    """Root of all errors of the client.

    Attributes:
        code: stable; the verifier's own code where it answered with a problem document (docs/reasons.md).
        detail: one sentence for a person.
        remedy: what to do next.
    """

    def __init__(self, code: str, detail: str, remedy: str) -> None:
        self.code = code
        self.detail = detail
        self.remedy = remedy
        super().__init__(f"{code}: {detail}" + (f"; next: {remedy}" if remedy else ""))


class RefusedError(AttestationError):
    """The verifier understood and refused (4xx): trying the same again changes nothing.

    Attributes:
        status: of the HTTP reply.
        request_id: under which the verifier's log has it.
    """

    def __init__(
        self, status: int, code: str, detail: str, remedy: str, *, request_id: str | None = None
    ) -> None:
        self.status = status
        self.request_id = request_id
        super().__init__(code, detail, remedy)


class UnavailableError(AttestationError):
    """The verifier could not be asked, or could not answer, as often as was tried. Nothing is known of the attester.

    Attributes:
        retry_after: seconds the verifier asked to wait, or None.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str = UNAVAILABLE,
        remedy: str = "Try again later; look at the verifier's /readyz and at the network between.",
        retry_after: float | None = None,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(code, detail, remedy)


class ReplyError(AttestationError):
    """The verifier's answer is not what its API promises; it is not used."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            "reply-unreadable", detail, "Compare the versions of client and verifier, and the address asked."
        )


class EarFault(enum.StrEnum):
    """Why an EAR is not believed."""

    UNREADABLE = "ear-unreadable"
    ALGORITHM = "ear-algorithm"
    HEADER = "ear-header"
    KEY = "ear-key-unknown"
    SIGNATURE = "ear-signature"
    ISSUER = "ear-issuer"
    AUDIENCE = "ear-audience"
    EXPIRED = "ear-expired"
    TIME = "ear-not-yet-valid"
    NONCE = "ear-nonce"
    PROFILE = "ear-profile"
    SUBJECT = "ear-subject"


_REMEDIES: Final = {
    EarFault.UNREADABLE: "Send the EAR as the verifier gave it: three parts of base64url with dots between.",
    EarFault.ALGORITHM: "Only ES256 is accepted; get an EAR from the verifier itself.",
    EarFault.HEADER: "Only alg, kid and typ (eat+jwt) are accepted; get an EAR from the verifier itself.",
    EarFault.KEY: "Get a new EAR: its key is not published any more, or it is another verifier's.",
    EarFault.SIGNATURE: "Somebody changed the EAR, or it is forged: find out who sent it.",
    EarFault.ISSUER: "Get the EAR from the verifier this relying party trusts.",
    EarFault.AUDIENCE: "Ask the verifier for an EAR with ?audience= set to this relying party's name.",
    EarFault.EXPIRED: "Get a new EAR; an attester that is silent must attest again first.",
    EarFault.TIME: "Set the clocks of verifier and relying party by NTP.",
    EarFault.NONCE: "Ask for the EAR with the nonce this relying party gave out.",
    EarFault.PROFILE: "Ask for the current profile (leave ?profile= away).",
    EarFault.SUBJECT: "Find out why the EAR of one attester was presented for another.",
}


class EarError(AttestationError):
    """A token that is not believed: nothing in it may be used.

    Attributes:
        fault: why; its value is the `code`.
    """

    def __init__(self, fault: EarFault, detail: str) -> None:
        self.fault = fault
        super().__init__(fault.value, detail, _REMEDIES[fault])
