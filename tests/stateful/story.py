"""What every rule needs: the service, what machines send it, and what everybody may ask it at any time."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from tests.harness import Answer, Guest, b64
from tests.postgresql import Cluster
from tests.stateful.model import Line, Machine
from tests.stateful.site import TENANTS, Site

_names = itertools.count()


class Story(RuleBasedStateMachine):
    """One verifier, its machines, and the model of them."""

    cluster: Cluster | None = None
    """Where each story has a database of its own; None: SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="stateful-")
        database = None
        if self.cluster is not None:
            name = f"story{next(_names)}"
            self.cluster.sql(f"CREATE DATABASE {name}")
            database = self.cluster.url(name)
        self.site = Site(Path(self.folder.name), database)
        self.lines: list[Line] = []
        self.seeds = 0

    def teardown(self) -> None:
        try:
            self.look_at_all()
        finally:
            self.site.close()
            self.folder.cleanup()

    # --- what machines do

    @property
    def now(self) -> Any:
        return self.site.clock.now()

    def new_guest(self) -> Guest:
        self.seeds += 1
        return Guest.booted(self.site.verifier, self.seeds)

    def begin(self, guest: Guest, identity: dict[str, str], token: str) -> Answer:
        guest.harness = self.site.verifier
        return self.site.call("POST", "/v1/enrollments", json=guest.enrollment(token, identity=identity))

    def prove(self, guest: Guest, number: str, proof: bytes) -> Answer:
        return self.site.call("POST", f"/v1/enrollments/{number}/activation", json={"proof": b64(proof)})

    def enrol(self, guest: Guest, identity: dict[str, str], tenant: str) -> tuple[Answer, bytes]:
        begun = self.begin(guest, identity, self.site.joins[tenant])
        assert begun.status == 201, begun.content
        proof = guest.proof(begun.json)
        return self.prove(guest, begun.json["enrollment_id"], proof), proof

    def ask(self, machine: Machine) -> Answer:
        machine.guest.harness = self.site.verifier
        return self.site.call("POST", "/v1/challenges", json={"attester_id": machine.line.attester_id})

    def send(self, body: dict[str, Any]) -> Answer:
        return self.site.call("POST", "/v1/attestations", json=body)

    def evidence(self, machine: Machine, challenge: Any, **changes: Any) -> dict[str, Any]:
        machine.guest.attester_id = machine.line.attester_id
        return machine.guest.evidence(challenge, identity=machine.identity, **changes)

    def without_ratchet(self, machine: Machine, challenge: Any, **changes: Any) -> dict[str, Any]:
        """Evidence that is going to be refused: the TPM is left as it was."""
        machine.guest.keeps_ratchet = False
        body = self.evidence(machine, challenge, **changes)
        machine.guest.keeps_ratchet = True
        return body

    def challenged(self, machine: Machine) -> Any:
        """A challenge; None where this machine gets none, which the model has to agree with."""
        answer = self.ask(machine)
        refusal = {"revoked": "attester-revoked", "retired": "identity-replaced"}.get(machine.line.lifecycle)
        if refusal is not None:
            assert (answer.status, answer.code) == (403, refusal)
            return None
        assert answer.status == 200, answer.content
        return answer.json

    def refused(self, answer: Answer, status: int, code: str) -> None:
        assert (answer.status, answer.code) == (status, code), answer.content

    # --- what everybody may ask at any time

    def look_at(self, line: Line) -> None:
        other = next(tenant for tenant in TENANTS if tenant != line.tenant)
        path = f"/v1/attesters/{line.attester_id}"
        self.refused(self.site.call("GET", path, tenant=other), 404, "not-found")
        shown = self.site.call("GET", path, tenant=line.tenant).json
        assert shown["lifecycle"] == line.lifecycle_at(self.now)
        verdict = shown.get("verdict")
        assert (None if verdict is None else verdict["status"]) == line.status_at(self.now)
        assert (0 if verdict is None else verdict["sequence"]) == len(line.told)

    def incidents(self, tenant: str) -> dict[str, Any]:
        listed = self.site.call("GET", "/v1/incidents", tenant=tenant).json["incidents"]
        return {one["attester"]: one for one in listed}

    def incident_of(self, line: Line) -> str | None:
        return self.incidents(line.tenant).get(line.attester_id, {}).get("kind")

    def look_at_all(self) -> None:
        for tenant in TENANTS:
            own = [line for line in self.lines if line.tenant == tenant]
            listed = self.site.call("GET", "/v1/attesters", tenant=tenant).json["attesters"]
            assert sorted(one["id"] for one in listed) == sorted(line.attester_id for line in own)
            found = self.incidents(tenant)
            for line in own:
                self.look_at(line)
                incident = found.pop(line.attester_id, None)
                kind = None if incident is None else incident["kind"]
                if incident is not None:
                    shown = [
                        (one["smbios_uuid"], one["boot_id"], one["parted"]) for one in incident["guests"]
                    ]
                    assert shown == line.seen, "who is listed as part of it, and whether its state had parted"
                wanted = (
                    {"ratchet-foreign", "rollback", "clone-proven"}
                    if line.grave
                    else {"clone-suspected"}
                    if line.suspected
                    else {None}
                )
                assert kind in wanted
                history = self.site.call(
                    "GET", f"/v1/attesters/{line.attester_id}/history?limit=100", tenant=tenant
                )
                kept = [told.status for told in line.told[line.dropped :]]
                assert [one["status"] for one in history.json["verdicts"]] == kept[::-1]
            assert not found
