"""The agent as a Windows service: what the Service Control Manager starts, and what is told to the event log.

NOT RUN ON WINDOWS by this project's tests, which have stand-ins for pywin32. `install.ps1` registers it.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final, Protocol

from agent.commands import Clockwork, Output
from agent.config import load
from agent.daemon import Terminated, run_forever
from agent.errors import AgentError

NAME: Final = "vtpm-attest-agent"


class EventLog(Protocol):
    """The part of pywin32's `servicemanager` that writes the Application event log."""

    def LogInfoMsg(self, text: str) -> None:  # noqa: N802 - pywin32's name
        """An information event."""

    def LogErrorMsg(self, text: str) -> None:  # noqa: N802
        """An error event."""


class _Events(Output, frozen=True):
    """A service has no console: remarks and verdicts go to the event log."""

    log: EventLog

    def say(self, text: str) -> None:
        """As an information event."""
        self.log.LogInfoMsg(text)

    def result(self, document: object, text: str) -> None:  # noqa: ARG002 - as its base has it
        """As an information event."""
        self.log.LogInfoMsg(text)


def attest_until(stopping: threading.Event, log: EventLog) -> None:
    """Attest until `stopping` is set.

    Raises:
        AgentError: what cannot be waited out; told to `log` with what to do.
    """

    def sleep(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Terminated

    try:
        run_forever(
            load({}, os.environ, None),
            _Events(as_json=False, log=log),
            Clockwork(sleep=sleep, random=lambda: int.from_bytes(os.urandom(6)) / (1 << 48)),
        )
    except AgentError as error:
        log.LogErrorMsg(f"{error.message}\n\nWhat to do: {error.remedy}")
        raise


def service_class(framework: type[Any], log: EventLog, stop_pending: int) -> type[Any]:
    """The class that pywin32's framework starts and stops; `stop_pending` is its SERVICE_STOP_PENDING."""

    class AttestAgentService(framework):  # type: ignore[misc]
        _svc_name_ = NAME

        def __init__(self, arguments: list[str]) -> None:
            super().__init__(arguments)
            self._stopping = threading.Event()

        def SvcStop(self) -> None:  # noqa: N802 - pywin32's name
            """Called on another thread. A TPM command or request under way goes on to its end."""
            self.ReportServiceStatus(stop_pending)
            self._stopping.set()

        SvcShutdown = SvcStop

        def SvcDoRun(self) -> None:  # noqa: N802
            """Returning ends the service; an exception ends it as failed, so that recovery actions begin."""
            attest_until(self._stopping, log)

    return AttestAgentService


def main() -> None:
    """Called by the Service Control Manager."""
    import servicemanager  # noqa: PLC0415 - the extra `windows`
    import win32service  # noqa: PLC0415
    import win32serviceutil  # noqa: PLC0415

    servicemanager.Initialize()
    servicemanager.PrepareToHostSingle(
        service_class(win32serviceutil.ServiceFramework, servicemanager, win32service.SERVICE_STOP_PENDING)
    )
    servicemanager.StartServiceCtrlDispatcher()


if __name__ == "__main__":
    main()
