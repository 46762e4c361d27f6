"""The managed objects an inventory uses: sessions, views, property collector, event collectors."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import Serialize
from pyVmomi.VmomiSupport import GetWsdlName, Object

from tests.vsphere_endpoint.estate import API_VERSION, Estate, Machine, now
from tests.vsphere_endpoint.soap import Call

PC = vmodl.query.PropertyCollector
_UNAUTHENTICATED = {"RetrieveServiceContent", "Login"}


@dataclass
class Told:
    """What a client was told of a filter: serialised properties by machine, and at which version."""

    paths: list[str]
    machines: dict[str, dict[str, bytes]] = field(default_factory=dict)
    version: int = 0


@dataclass
class Collected:
    filter: Any
    position: int = 0


@dataclass
class Session:
    key: str
    objects: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, list[Any]] = field(default_factory=dict)


class Service:
    """Methods by their wire name. `login` is the user and password that is right."""

    def __init__(self, estate: Estate, login: tuple[str, str]) -> None:
        self.estate = estate
        self.login = login
        self.sessions: dict[str, Session] = {}
        self.calls: list[str] = []
        self.attempts: list[str] = []
        """Passwords that were tried."""
        self.read: list[list[str]] = []
        """Machines of every page of details."""
        self.before: dict[str, Callable[[Call], None]] = {}
        """Done before a method: to be slow, or to fail."""
        self.may_read_events = True
        self._lock = threading.Lock()
        self._serial = 0

    def expire_sessions(self) -> None:
        self.sessions.clear()
        with self.estate.changed:
            self.estate.changed.notify_all()

    def handle(self, call: Call, cookie: str | None) -> tuple[Any, str | None]:
        """Answer a call; the second value is a cookie to be set. Raises the fault to be sent."""
        self.calls.append(call.method)
        session = self.sessions.get(cookie or "")
        hook = self.before.get(call.method)
        if hook is not None:
            hook(call)
        if session is None and call.method not in _UNAUTHENTICATED:
            raise vim.fault.NotAuthenticated(
                object=call.this, privilegeId="System.View", msg="The session is not authenticated."
            )
        if call.method == "Login":
            return self._login(**call.arguments)
        method = getattr(self, "do_" + re.sub(r"(?<!^)(?=[A-Z])", "_", call.method).lower(), None)
        if method is None:
            raise vmodl.fault.MethodNotFound(receiver=call.this, method=call.method)
        return method(session, call, **call.arguments), None

    def _login(self, userName: str, password: str, locale: str | None = None) -> tuple[Any, str]:  # noqa: N803
        self.attempts.append(password)
        if (userName, password) != self.login:
            raise vim.fault.InvalidLogin(
                msg="Cannot complete login due to an incorrect user name or password."
            )
        session = Session(secrets.token_hex(16))
        self.sessions[session.key] = session
        user = vim.UserSession(
            key=session.key,
            userName=userName,
            fullName=userName,
            loginTime=now(),
            lastActiveTime=now(),
            locale=locale or "en",
            messageLocale="en",
            extensionSession=False,
            ipAddress="127.0.0.1",
            userAgent="",
            callCount=0,
        )
        return user, session.key

    def do_retrieve_service_content(self, _session, _call) -> Any:
        about = vim.AboutInfo(
            name="VMware vCenter Server",
            fullName="test endpoint",
            vendor="VMware, Inc.",
            version="8.0.3",
            build="0",
            osType="linux-x64",
            productLineId="vpx",
            apiType="VirtualCenter",
            apiVersion="8.0.3.0",
        )
        return vim.ServiceInstanceContent(
            rootFolder=vim.Folder("group-d1", None),
            propertyCollector=PC("propertyCollector", None),
            viewManager=vim.view.ViewManager("ViewManager", None),
            about=about,
            sessionManager=vim.SessionManager("SessionManager", None),
            eventManager=vim.event.EventManager("EventManager", None),
        )

    def do_logout(self, session, _call) -> None:
        del self.sessions[session.key]

    def do_current_time(self, _session, _call) -> Any:
        return now()

    def do_create_container_view(self, session, _call, container, recursive, type=None) -> Any:  # noqa: A002
        assert container._moId == "group-d1"
        assert recursive
        assert [GetWsdlName(one) for one in type] == ["VirtualMachine"]
        return self._register(session, vim.view.ContainerView, "view", None)

    def do_create_filter(self, session, call, spec, partialUpdates) -> Any:  # noqa: N803
        assert not partialUpdates
        view = spec.objectSet[0]
        self._find(session, view.obj, call)
        assert view.skip
        assert view.selectSet[0].path == "view"
        paths = [str(path) for path in spec.propSet[0].pathSet]
        return self._register(session, PC.Filter, "filter", Told(paths))

    def do_wait_for_updates_ex(self, session, _call, version="", options=None) -> Any:
        told = next(value for value in session.objects.values() if isinstance(value, Told))
        reference = next(key for key, value in session.objects.items() if value is told)
        if not version:
            told.machines.clear()
            told.version = 0
        elif version != str(told.version):
            raise vmodl.query.InvalidCollectorVersion
        until = time.monotonic() + (600 if options.maxWaitSeconds is None else options.maxWaitSeconds)
        with self.estate.changed:
            while True:
                if session.key not in self.sessions:
                    raise vim.fault.NotAuthenticated(object=None, privilegeId="System.View")
                updates, truncated = self._updates(told, options.maxObjectUpdates or 10_000)
                left = until - time.monotonic()
                if updates or told.version == 0:
                    break
                if left <= 0:
                    return None
                self.estate.changed.wait(min(left, 0.5))
        told.version += 1
        found = PC.FilterUpdate(filter=PC.Filter(reference, None), objectSet=updates)
        return PC.UpdateSet(version=str(told.version), filterSet=[found], truncated=truncated)

    def _updates(self, told: Told, most: int) -> tuple[list[Any], bool]:
        updates = []
        for machine in list(self.estate.machines.values()):
            values = {path: machine.property(path) for path in told.paths if path not in machine.unreadable}
            values = {path: value for path, value in values.items() if value is not None}
            text = {path: _serialise(value) for path, value in values.items()}
            before = told.machines.get(machine.moid)
            if text == before:
                continue
            if len(updates) == most:
                return updates, True
            told.machines[machine.moid] = text
            changes = [
                PC.Change(name=path, op="assign", val=value)
                for path, value in values.items()
                if before is None or before.get(path) != text[path]
            ]
            changes += [PC.Change(name=path, op="assign") for path in (before or {}) if path not in text]
            kind = "enter" if before is None else "modify"
            updates.append(PC.ObjectUpdate(kind=kind, obj=machine.reference, changeSet=changes))
        for moid in [moid for moid in told.machines if moid not in self.estate.machines]:
            del told.machines[moid]
            updates.append(PC.ObjectUpdate(kind="leave", obj=vim.VirtualMachine(moid, None)))
        return updates, False

    def do_retrieve_properties_ex(self, session, _call, specSet, options) -> Any:  # noqa: N803
        paths = [str(path) for path in specSet[0].propSet[0].pathSet]
        asked = []
        with self.estate.changed:
            for spec in specSet[0].objectSet:
                machine = self.estate.machines.get(spec.obj._moId)
                if machine is None:
                    text = f"The object {spec.obj._moId} has already been deleted"
                    raise vmodl.fault.ManagedObjectNotFound(obj=spec.obj, msg=text)
                asked.append(_content(machine, paths))
        return self._page(session, asked, options.maxObjects or len(asked) or 1)

    def do_continue_retrieve_properties_ex(self, session, _call, token) -> Any:
        if token not in session.pages:
            raise vmodl.fault.InvalidArgument(invalidProperty="token")
        size, *rest = session.pages.pop(token)
        return self._page(session, rest, size)

    def _page(self, session: Session, objects: list[Any], size: int) -> Any:
        token = None
        if len(objects) > size:
            token = secrets.token_hex(4)
            session.pages[token] = [size, *objects[size:]]
        self.read.append([one.obj._moId for one in objects[:size]])
        return PC.RetrieveResult(token=token, objects=objects[:size])

    def do_create_collector_for_events(self, session, call, filter) -> Any:  # noqa: A002
        if not self.may_read_events:
            raise vim.fault.NoPermission(object=call.this, privilegeId="System.Read")
        return self._register(session, vim.event.EventHistoryCollector, "events", Collected(filter))

    def do_read_next_events(self, session, call, maxCount) -> Any:  # noqa: N803
        collected = self._find(session, call.this, call)
        with self.estate.changed:
            matching = [one for one in self.estate.events if _matches(collected.filter, one)]
        page = matching[collected.position : collected.position + maxCount]
        collected.position += len(page)
        return page

    def _register(self, session: Session, kind: Any, word: str, value: Any) -> Any:
        with self._lock:
            self._serial += 1
            moid = f"session[{session.key[:8]}]{word}-{self._serial}"
        session.objects[moid] = value
        return kind(moid, None)

    def _find(self, session: Session, reference: Any, call: Call) -> Any:
        if reference._moId not in session.objects:
            raise vmodl.fault.ManagedObjectNotFound(obj=reference, msg=f"{call.method}: no such object")
        return session.objects[reference._moId]


def _content(machine: Machine, paths: list[str]) -> Any:
    found, missing = [], []
    for path in paths:
        if path in machine.unreadable:
            fault = vim.fault.NoPermission(object=machine.reference, privilegeId="System.Read")
            missing.append(PC.MissingProperty(path=path, fault=fault))
        elif (value := machine.property(path)) is not None:
            found.append(vmodl.DynamicProperty(name=path, val=value))
    return PC.ObjectContent(obj=machine.reference, propSet=found, missingSet=missing)


def _serialise(value: Any) -> bytes:
    return Serialize(value, Object(name="val", type=object, version=API_VERSION, flags=0), API_VERSION)


def _matches(wanted: Any, event: Any) -> bool:
    if (
        wanted.time is not None
        and wanted.time.beginTime is not None
        and event.createdTime < wanted.time.beginTime
    ):
        return False
    kind = event.eventTypeId if isinstance(event, vim.event.EventEx) else GetWsdlName(type(event))
    return not wanted.eventTypeId or kind in wanted.eventTypeId
