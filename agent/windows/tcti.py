"""A tpm2-pytss TCTI over TBS: ESAPI's commands go to `Tbsip_Submit_Command`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from agent.errors import AgentError, TpmCommandBlockedError

_UNKNOWN_COMMAND: Final = bytes.fromhex("8001 0000000a 00000143")
"""A response of TPM_RC_COMMAND_CODE (TPM 2.0 Part 2, section 6.6)."""


class Channel(Protocol):
    """Where commands go; `agent.windows.tbs.TbsContext`."""

    def submit(self, command: bytes) -> bytes:
        """A command's response."""

    def close(self) -> None:
        """Idempotent."""


class TbsTcti:
    """What ESAPI is given, and what went wrong underneath it.

    An error cannot pass through the C library, which tells of an I/O error only, and whose context is of no use after
    it. So the error is kept in `failure`, and of a command that only Windows refuses the library hears as if the TPM had.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.failure: AgentError | None = None
        self.context = _pytcti(self._transmit, self._receive)
        self._response: bytes | None = None

    def close(self) -> None:
        """Let go of the TPM: TBS flushes what is left in it of this context."""
        self._channel.close()

    def _transmit(self, command: bytes) -> None:
        self.failure = None
        try:
            self._response = self._channel.submit(command)
        except TpmCommandBlockedError as error:
            self.failure = error
            self._response = _UNKNOWN_COMMAND
        except AgentError as error:
            self.failure = error
            raise

    def _receive(self) -> bytes:
        """ESAPI asks for the size first, then for the response: it is kept until the next command."""
        if self._response is None:
            raise AgentError("no command was sent to the TPM", "report this: it is a fault of the agent")
        return self._response


def _pytcti(transmit: Callable[[bytes], None], receive: Callable[[], bytes]) -> Any:  # noqa: ANN401 - tpm2-pytss has no types
    from tpm2_pytss.TCTI import PyTCTI  # noqa: PLC0415 - an extra, and slow to import

    class Bridge(PyTCTI):  # type: ignore[misc]
        def do_transmit(self, command: bytes) -> None:
            transmit(bytes(command))

        def do_receive(self, timeout: int) -> bytes:  # noqa: ARG002 - TBS answers before it returns
            return receive()

    return Bridge(magic=b"TBS\0\0\0\0\0")
