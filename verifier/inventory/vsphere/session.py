"""One login at a vCenter, in blocking calls. Runs in whatever thread calls it, one call at a time.

vSphere Web Services SDK Programming Guide, "PropertyCollector", "Events". What is followed is small (`SIGNALS`); what
is large is read, in pages, of those machines whose signals changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from pyVmomi import vim, vmodl

from verifier.appraisal.inventory import InventoryEvent
from verifier.inventory.errors import VcenterError, VcenterProtocolError
from verifier.inventory.settings import Login, VcenterSettings
from verifier.inventory.vsphere.connection import Transport, tls_context, translate
from verifier.inventory.vsphere.events import EVENT_TYPES, read_event
from verifier.inventory.vsphere.reading import (
    DETAILS,
    SIGNALS,
    Origin,
    Reading,
    moid_of,
    read_machine,
    read_snapshots,
    utc_of,
)

T = TypeVar("T")

_EVENTS_PER_PAGE: Final = 200
_REQUEST_OBJECTS: Final = 1000
"""Machines named in one request for details; its answer comes in pages."""
_EVENT_OVERLAP: Final = timedelta(minutes=1)
"""Events may be stored a little out of order; those read twice have the same id."""

_PropertyCollector: Any = vmodl.query.PropertyCollector


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What vCenter told of one machine: its signals as far as they changed, or that it is gone."""

    moid: str
    gone: bool
    entered: bool
    """First told of in this session: `signals` are all there are."""
    signals: Mapping[str, object]


class VcenterSession:
    """A session: `open`, then `poll`, `details` and `events` in turns, then `close`.

    Every method raises a `VcenterError`, after which only `close` and `abort` make sense.
    """

    def __init__(self, settings: VcenterSettings, login: Login) -> None:
        self._settings = settings
        self._login: Login | None = login
        self._origin = Origin(source=settings.name, host=settings.host, labels=settings.labels)
        self._transport = Transport(settings, tls_context(settings))
        self._content: Any = None
        self._filter: Any = None
        self._collector: Any = None
        self._version = ""
        self._logged_in = False
        self.latest_event: datetime | None = None
        """vCenter's time of the newest event read, to go on from in the next session."""
        self.warnings: tuple[str, ...] = ()

    def open(self, events_since: datetime | None) -> None:
        """Log in and set up what is followed. `events_since` None goes back as far as is configured."""
        self._call(lambda: self._open(events_since))

    def poll(self, wait: int) -> list[Update]:
        """What changed since the last call, waiting up to `wait` seconds for it; at first, everything."""
        return self._call(lambda: list(self._poll(wait)))

    def details(self, moids: Sequence[str]) -> Iterator[list[Reading]]:
        """Read machines, a page at each step. Those that are gone meanwhile are left out."""
        for start in range(0, len(moids), _REQUEST_OBJECTS):
            yield from self._pages(list(moids[start : start + _REQUEST_OBJECTS]))

    def events(self) -> list[InventoryEvent]:
        """Events since the last call, oldest first."""
        return self._call(self._events)

    def close(self) -> None:
        """Log out, if that still works, so that the session does not count against vCenter's limit."""
        if self._logged_in:
            self._logged_in = False
            self._call(self._content.sessionManager.Logout)
        self.abort()

    def abort(self) -> None:
        """Cut the connections. May be called from any thread, while another waits in one of the methods."""
        self._transport.abort()

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except VcenterError:
            raise
        except Exception as error:  # noqa: BLE001 - pyVmomi raises what its parser or the network trips over
            # Without the cause: its traceback has the arguments of the login in its frames.
            raise translate(self._settings.name, error) from None

    def _open(self, events_since: datetime | None) -> None:
        service = vim.ServiceInstance("ServiceInstance", self._transport.stub)
        self._content = service.RetrieveContent()
        if self._login is None:
            raise VcenterProtocolError(self._settings.name, "a session logs in once")
        login, self._login = self._login, None
        self._content.sessionManager.Login(userName=login.user, password=login.password)
        self._logged_in = True
        view = self._content.viewManager.CreateContainerView(
            container=self._content.rootFolder, type=[vim.VirtualMachine], recursive=True
        )
        self._filter = self._content.propertyCollector.CreateFilter(
            spec=_view_spec(view, SIGNALS), partialUpdates=False
        )
        if events_since is None:
            events_since = utc_of(service.CurrentTime()) - self._settings.event_lookback
        self.latest_event = events_since
        self._open_events(events_since - _EVENT_OVERLAP)

    def _open_events(self, since: datetime) -> None:
        wanted = vim.event.EventFilterSpec(
            time=vim.event.EventFilterSpec.ByTime(beginTime=since),
            eventTypeId=list(EVENT_TYPES),
            disableFullMessage=True,
        )
        try:
            self._collector = self._content.eventManager.CreateCollectorForEvents(filter=wanted)
        except vim.fault.NotAuthenticated:
            raise
        except vim.fault.NoPermission:
            self.warnings = ("the user may not read events: clones and reverts are not told of",)

    def _poll(self, wait: int) -> Iterator[Update]:
        options = _PropertyCollector.WaitOptions(
            maxWaitSeconds=wait, maxObjectUpdates=self._settings.page_size * 10
        )
        while True:
            found = self._content.propertyCollector.WaitForUpdatesEx(version=self._version, options=options)
            if found is None:
                return
            self._version = found.version
            for filtered in found.filterSet or ():
                for update in filtered.objectSet or ():
                    yield _update(update)
            if not found.truncated:
                return
            options.maxWaitSeconds = 0

    def _pages(self, moids: list[str]) -> Iterator[list[Reading]]:
        while moids:
            try:
                page, token = self._call(lambda: self._first_page(moids))
            except _GoneError as gone:
                moids.remove(gone.moid)
                continue
            yield page
            while token is not None:
                page, token = self._call(partial(self._next_page, token))
                yield page
            return

    def _first_page(self, moids: list[str]) -> tuple[list[Reading], str | None]:
        stub = self._transport.stub
        objects = [
            _PropertyCollector.ObjectSpec(obj=vim.VirtualMachine(moid, stub), skip=False) for moid in moids
        ]
        wanted = _PropertyCollector.PropertySpec(type=vim.VirtualMachine, all=False, pathSet=list(DETAILS))
        spec = _PropertyCollector.FilterSpec(propSet=[wanted], objectSet=objects)
        options = _PropertyCollector.RetrieveOptions(maxObjects=self._settings.page_size)
        try:
            found = self._content.propertyCollector.RetrievePropertiesEx(specSet=[spec], options=options)
        except vmodl.fault.ManagedObjectNotFound as fault:
            # Removed since it was told of. One that is gone must not keep the others from being read.
            moid = None if fault.obj is None else moid_of(fault.obj)
            if moid is None or moid not in moids:
                raise
            raise _GoneError(self._settings.name, moid) from None
        return self._readings(found)

    def _next_page(self, token: str) -> tuple[list[Reading], str | None]:
        return self._readings(self._content.propertyCollector.ContinueRetrievePropertiesEx(token=token))

    def _readings(self, found: Any) -> tuple[list[Reading], str | None]:  # noqa: ANN401 - RetrieveResult or None
        if found is None:
            return [], None
        readings = []
        for one in found.objects or ():
            properties = {str(value.name): value.val for value in one.propSet or ()}
            missing = {str(path.path): _why(path.fault) for path in one.missingSet or ()}
            readings.append(read_machine(self._origin, moid_of(one.obj), properties, missing))
        return readings, found.token or None

    def _events(self) -> list[InventoryEvent]:
        found: list[InventoryEvent] = []
        while self._collector is not None:
            page = self._collector.ReadNextEvents(maxCount=_EVENTS_PER_PAGE)
            if not page:
                break
            for event in page:
                told = read_event(self._settings.name, event)
                if told is not None:
                    found.append(told)
                at = utc_of(event.createdTime)
                self.latest_event = at if self.latest_event is None else max(self.latest_event, at)
        return sorted(found, key=lambda one: one.at)


class _GoneError(VcenterError):
    """A machine named in a request no longer exists."""

    def __init__(self, vcenter: str, moid: str) -> None:
        self.moid = moid
        super().__init__(vcenter, f"{moid} is gone")


def _view_spec(view: Any, paths: Sequence[str]) -> Any:  # noqa: ANN401 - pyVmomi's types
    """A filter over all machines of a view: those that come later too."""
    members = _PropertyCollector.TraversalSpec(
        name="members", type=vim.view.ContainerView, path="view", skip=False
    )
    return _PropertyCollector.FilterSpec(
        propSet=[_PropertyCollector.PropertySpec(type=vim.VirtualMachine, all=False, pathSet=list(paths))],
        objectSet=[_PropertyCollector.ObjectSpec(obj=view, skip=True, selectSet=[members])],
    )


def _update(update: Any) -> Update:  # noqa: ANN401 - ObjectUpdate
    changes = {str(change.name): _signal(change.val) for change in update.changeSet or ()}
    return Update(
        moid=moid_of(update.obj),
        gone=update.kind == "leave",
        entered=update.kind == "enter",
        signals=changes,
    )


def _signal(value: Any) -> object:  # noqa: ANN401 - whatever the property is
    return read_snapshots(value) if isinstance(value, vim.vm.SnapshotInfo) else value


def _why(fault: Any) -> str:  # noqa: ANN401 - MethodFault or None
    if isinstance(fault, vim.fault.NoPermission):
        return "the user may not read it"
    return type(fault).__name__.rpartition(".")[2]
