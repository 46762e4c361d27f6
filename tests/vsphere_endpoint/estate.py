"""The machines of a test vCenter, what may be done to them, and the events that are posted when it is."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from pyVmomi import vim
from pyVmomi.VmomiSupport import binary

from tests.simulator import SoftwareCa
from tests.simulator.keys import private_key

API_VERSION = "vim.version.version12"


def vtpm(*ek_certificates: bytes, requests: Iterable[bytes] = ()) -> Any:
    return vim.vm.device.VirtualTPM(
        key=11000,
        deviceInfo=vim.Description(label="Virtual TPM", summary="Trusted Platform Module"),
        endorsementKeyCertificate=[binary(der) for der in ek_certificates],
        endorsementKeyCertificateSigningRequest=[binary(der) for der in requests],
    )


@dataclass(eq=False)
class Machine:
    """A virtual machine: its configuration as vCenter shows it."""

    moid: str
    name: str
    config: Any
    snapshot: Any = None
    unreadable: set[str] = field(default_factory=set)
    """Property paths that the user lacks a privilege for."""
    disconnected: bool = False
    """Its host is: there is no configuration to be read."""

    @property
    def reference(self) -> Any:
        return vim.VirtualMachine(self.moid, None)

    @property
    def argument(self) -> Any:
        return vim.event.VmEventArgument(name=self.name, vm=self.reference)

    @property
    def ek_certificates(self) -> list[bytes]:
        return [bytes(der) for device in self._vtpms() for der in device.endorsementKeyCertificate]

    def property(self, path: str) -> Any:
        if self.disconnected and path.startswith("config"):
            return None
        value: Any = self
        for part in path.split("."):
            value = None if value is None else getattr(value, part)
        # As a value of any type, an array has to say of what; pyVmomi keeps a list as it was given.
        return vim.vm.device.VirtualDevice.Array(value) if type(value) is list else value

    def _vtpms(self) -> list[Any]:
        return [one for one in self.config.hardware.device if isinstance(one, vim.vm.device.VirtualTPM)]


class Estate:
    """Everything a vCenter knows. Every change wakes up whoever waits for one."""

    def __init__(self, ca: SoftwareCa | None = None) -> None:
        self.ca = ca or SoftwareCa()
        self.changed = threading.Condition()
        self.machines: dict[str, Machine] = {}
        self.events: list[Any] = []
        self._next_machine = 10
        self._next_event = 100
        self._keys = 0
        self._versions = 0

    def add(self, name: str, *, tpm: bool = True, **config: Any) -> Machine:
        """A new machine: UUIDs of its own, and a vTPM with two endorsement keys, both certified."""
        with self.changed:
            moid = f"vm-{self._next_machine}"
            self._next_machine += 1
            devices = [vim.vm.device.VirtualE1000(key=4000), *([self._new_vtpm()] if tpm else [])]
            made = Machine(moid=moid, name=name, config=_config(name, devices, config))
            self.machines[moid] = made
            self._touch(made)
            return made

    def clone(self, source: Machine, name: str, *, policy: str = "copy") -> Machine:
        """`CloneVM_Task` with a tpmProvisionPolicy; UUIDs are new in either case."""
        with self.changed:
            made = self.add(name, tpm=policy == "replace")
            if policy == "copy":
                made.config.hardware.device = list(source.config.hardware.device)
            self._post(vim.event.VmClonedEvent, made, sourceVm=source.argument)
            return made

    def deploy(self, template: Machine, name: str) -> Machine:
        """Deploy from a template, which copies the vTPM."""
        with self.changed:
            made = self.add(name, tpm=False)
            made.config.hardware.device = list(template.config.hardware.device)
            self._post(vim.event.VmDeployedEvent, made, srcTemplate=template.argument)
            return made

    def replace_vtpm(self, machine: Machine) -> None:
        """Remove the vTPM and add a new one; or restore the machine without its .nvram."""
        with self.changed:
            others = [one for one in machine.config.hardware.device if one not in machine._vtpms()]
            machine.config.hardware.device = [*others, self._new_vtpm()]
            self._touch(machine)

    def set_uuid(self, machine: Machine, value: str) -> None:
        with self.changed:
            old, machine.config.uuid = machine.config.uuid, value
            self._post(vim.event.VmUuidChangedEvent, machine, oldUuid=old, newUuid=value)
            self._touch(machine)

    def set_instance_uuid(self, machine: Machine, value: str) -> None:
        with self.changed:
            old, machine.config.instanceUuid = machine.config.instanceUuid, value
            self._post(
                vim.event.VmInstanceUuidChangedEvent, machine, oldInstanceUuid=old, newInstanceUuid=value
            )
            self._touch(machine)

    def take_snapshot(self, machine: Machine, name: str) -> None:
        with self.changed:
            number = 1 if machine.snapshot is None else len(list(_trees(machine.snapshot))) + 1
            taken = vim.vm.Snapshot(f"snapshot-{machine.moid}-{number}", None)
            tree = vim.vm.SnapshotTree(
                snapshot=taken,
                vm=machine.reference,
                name=name,
                description="",
                id=number,
                createTime=now(),
                state="poweredOn",
                quiesced=False,
                childSnapshotList=[],
            )
            if machine.snapshot is None:
                machine.snapshot = vim.vm.SnapshotInfo(currentSnapshot=taken, rootSnapshotList=[tree])
            else:
                parent = machine.snapshot.currentSnapshot._moId
                next(
                    one for one in _trees(machine.snapshot) if one.snapshot._moId == parent
                ).childSnapshotList.append(tree)
                machine.snapshot.currentSnapshot = taken
            self._touch(machine)

    def revert(self, machine: Machine, name: str) -> None:
        with self.changed:
            tree = next(one for one in _trees(machine.snapshot) if one.name == name)
            machine.snapshot.currentSnapshot = tree.snapshot
            self._post(
                vim.event.EventEx,
                machine,
                eventTypeId="com.vmware.vc.vm.VmStateRevertedToSnapshot",
                severity="info",
                arguments=_arguments(snapshotName=name, snapshotId=str(tree.id)),
            )
            self._touch(machine)

    def rename(self, machine: Machine, name: str) -> None:
        with self.changed:
            machine.name = machine.config.name = name
            self._touch(machine)

    def power_on(self, machine: Machine) -> None:
        """Of no interest to anybody here."""
        with self.changed:
            self._post(vim.event.VmPoweredOnEvent, machine)

    def remove(self, machine: Machine) -> None:
        with self.changed:
            del self.machines[machine.moid]
            self._post(vim.event.VmRemovedEvent, machine)

    def touch(self, machine: Machine) -> None:
        """Something of its configuration was changed by the test itself."""
        with self.changed:
            self._touch(machine)

    def ek_certificate(self, kind: str = "p256") -> bytes:
        self._keys += 1
        return self.ca.issue(private_key(kind, f"estate {id(self)} {self._keys}").public_key())

    def _new_vtpm(self) -> Any:
        return vtpm(self.ek_certificate("p384"), self.ek_certificate("p256"))

    def _touch(self, machine: Machine) -> None:
        self._versions += 1
        machine.config.changeVersion = f"{now().isoformat()}-{self._versions}"
        machine.config.modified = now()
        self.changed.notify_all()

    def _post(self, kind: Any, machine: Machine, **members: Any) -> None:
        self._next_event += 1
        if issubclass(kind, vim.event.VmEvent):
            members["template"] = machine.config.template
        self.events.append(
            kind(
                key=self._next_event,
                chainId=self._next_event,
                createdTime=now(),
                userName="root",
                vm=machine.argument,
                **members,
            )
        )
        self.changed.notify_all()


def signing_request(kind: str, seed: str) -> tuple[bytes, Any]:
    """A PKCS #10 request and its public key."""
    key = private_key(kind, seed)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    assert not isinstance(key, rsa.RSAPrivateKey)
    from cryptography.hazmat.primitives.serialization import Encoding

    return request.public_bytes(Encoding.DER), key.public_key()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _config(name: str, devices: list[Any], members: dict[str, Any]) -> Any:
    defaults = {
        "changeVersion": "",
        "modified": now(),
        "name": name,
        "guestFullName": "Debian GNU/Linux 12 (64-bit)",
        "version": "vmx-20",
        "uuid": str(uuid.uuid4()),
        "instanceUuid": str(uuid.uuid4()),
        "template": False,
        "guestId": "debian12_64Guest",
        "bootOptions": vim.vm.BootOptions(efiSecureBootEnabled=True),
        "keyId": vim.encryption.CryptoKeyId(
            keyId="key-1", providerId=vim.encryption.KeyProviderId(id="native")
        ),
    }
    hardware = vim.vm.VirtualHardware(numCPU=2, memoryMB=4096, device=devices)
    return vim.vm.ConfigInfo(hardware=hardware, **{**defaults, **members})


def _trees(info: Any) -> Iterable[Any]:
    waiting = list(info.rootSnapshotList)
    while waiting:
        tree = waiting.pop()
        yield tree
        waiting += tree.childSnapshotList


def _arguments(**values: str) -> list[Any]:
    from pyVmomi import vmodl

    return [vmodl.KeyAnyValue(key=key, value=value) for key, value in values.items()]
