"""Everything that can go wrong for the agent, each with what to do about it and an exit code.

Exit codes 0..3 belong to verdicts (affirming, warning, contraindicated, none); failures start at 64 and follow
`sysexits.h` where it has a fitting number.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from agent.wire.messages import Problem

_PASSING = frozenset({408, 425, 429})
"""HTTP statuses that ask for another try: time-out, too early, too many requests."""


class Exit(enum.IntEnum):
    """Process exit codes."""

    AFFIRMING = 0
    WARNING = 1
    CONTRAINDICATED = 2
    NONE = 3
    USAGE = 64
    REFUSED = 65
    NO_TPM = 66
    UNREACHABLE = 69
    INTERNAL = 70
    TPM_FAILED = 71
    IO = 74
    TRY_LATER = 75
    UNTRUSTED = 76
    NO_PERMISSION = 77
    CONFIG = 78


class AgentError(Exception):
    """Root of every error the agent raises on purpose.

    Attributes:
        code: stable name, for programs and for the session's table of reactions.
        message: what happened, naming the value found.
        remedy: what a person can do next.
        transient: the same attempt may succeed later without anybody acting.
    """

    code: str = "agent-fault"
    exit_code: ClassVar[Exit] = Exit.INTERNAL
    transient: bool = False
    retry_after: float | None = None

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message)


class UsageError(AgentError):
    """An argument that cannot be used."""

    code = "usage"
    exit_code = Exit.USAGE


class ConfigError(AgentError):
    """A configuration or state file that cannot be used."""

    code = "configuration"
    exit_code = Exit.CONFIG


class StateError(ConfigError):
    """The agent's state file is damaged or cannot be written."""

    code = "state"


class NotAttestedError(AgentError):
    """The verdict that was waited for has not come."""

    code = "not-attested"
    exit_code = Exit.TRY_LATER
    transient = True


class SourceError(AgentError):
    """A file the evidence needs cannot be used."""

    code = "source"
    exit_code = Exit.IO


# --- TPM


class TpmError(AgentError):
    """The TPM answered with an error nobody foresaw; `rc` is the TSS2 response code."""

    code = "tpm-failed"
    exit_code = Exit.TPM_FAILED

    def __init__(self, message: str, remedy: str, *, rc: int | None = None) -> None:
        self.rc = rc
        super().__init__(message, remedy)


class NoTpmError(TpmError):
    """No TPM 2.0 was found where one was looked for."""

    code = "no-tpm"
    exit_code = Exit.NO_TPM


class TpmLibraryMissingError(NoTpmError):
    """tpm2-pytss, the agent's `[tpm]` extra, is not installed."""

    code = "tpm-library-missing"


class TpmPermissionError(TpmError):
    """The device exists and this user may not open it."""

    code = "tpm-permission"
    exit_code = Exit.NO_PERMISSION


class TpmLockoutError(TpmError):
    """Dictionary-attack protection refuses authorisations for a while."""

    code = "tpm-lockout"
    exit_code = Exit.TRY_LATER
    transient = True


class TpmBusyError(TpmError):
    """The TPM is out of slots, in self test, or held by another program."""

    code = "tpm-busy"
    exit_code = Exit.TRY_LATER
    transient = True


class TpmCommandBlockedError(TpmError):
    """The operating system keeps this command from the TPM; others pass."""

    code = "tpm-command-blocked"


class TpmAuthError(TpmError):
    """The endorsement hierarchy has an authorisation value the agent does not know, or is switched off."""

    code = "tpm-endorsement-auth"


class TpmReplacedError(AgentError):
    """The TPM at hand does not make the attestation key this machine was enrolled with."""

    code = "tpm-replaced"
    exit_code = Exit.REFUSED


class BankMissingError(TpmError):
    """The verifier asks for a PCR bank or register this TPM does not have switched on."""

    code = "pcr-bank-missing"


class PcrsUnstableError(TpmError):
    """PCRs changed between every quote and the reading beside it."""

    code = "pcrs-unstable"
    exit_code = Exit.TRY_LATER
    transient = True


# --- verifier


class UnreachableError(AgentError):
    """No answer from the verifier: name, route, port, time-out, or a proxy in between."""

    code = "verifier-unreachable"
    exit_code = Exit.UNREACHABLE
    transient = True


class UntrustedError(AgentError):
    """The server's certificate does not chain to the CA this agent trusts, or names another host."""

    code = "verifier-untrusted"
    exit_code = Exit.UNTRUSTED


class PinMismatchError(UntrustedError):
    """The CA the server shows is not the one the join token names."""

    code = "ca-pin-mismatch"


class ProtocolError(AgentError):
    """The verifier answered with something that is not the message it should be."""

    code = "protocol"
    exit_code = Exit.UNTRUSTED


class RefusedError(AgentError):
    """The verifier understood and said no; `problem` is its own explanation."""

    exit_code = Exit.REFUSED

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem = problem
        self.code = problem.code
        self.transient = problem.status in _PASSING or problem.status >= 500  # noqa: PLR2004 - server errors
        self.retry_after = problem.retry_after if problem.retry_after is not None else retry_after
        where = f" ({problem.structure} at byte {problem.offset})" if problem.structure else ""
        super().__init__(
            f"the verifier refused: {problem.title} [{problem.code}]: {problem.detail}{where}",
            problem.remedy or "ask the verifier's operator, naming the code and the time",
        )


class PendingError(AgentError):
    """Enrolment is complete but for an operator's approval."""

    code = "enrollment-pending"
    exit_code = Exit.TRY_LATER
    transient = True
