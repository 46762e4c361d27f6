"""Everything that may happen to machines, operators and the verifier itself, as rules for hypothesis."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.harness import Answer, Guest, b64, boot_log
from tests.simulator import Tamper
from tests.stateful.model import Line, Machine, begun_anew, judge, resolved
from tests.stateful.site import KEEP, TENANTS
from tests.stateful.story import Story

tenants = st.sampled_from(TENANTS)


class Waiting:
    """An enrolment that an operator has to decide: of a machine that has come with another TPM."""

    def __init__(self, guest: Guest, replaces: Line, uuid: str, answer: Answer, proof: bytes) -> None:
        self.guest, self.replaces, self.uuid = guest, replaces, uuid
        self.id, self.proof = answer.json["enrollment_id"], proof


class ServiceMachine(Story):
    """Rules act on the service and on the model, and hold one against the other."""

    machines = Bundle("machines")
    waiting = Bundle("waiting")

    # --- machines

    @initialize(target=machines)
    def first(self) -> Any:
        return self.enrolled(TENANTS[0])

    @rule(target=machines, tenant=tenants)
    def enrols(self, tenant: str) -> Any:
        if len(self.lines) >= 4:
            return multiple()
        return self.enrolled(tenant)

    def enrolled(self, tenant: str) -> Machine:
        guest = self.new_guest()
        uuid = f"uuid-{self.seeds}"
        done, _ = self.enrol(guest, {"hostname": f"host-{uuid}", "smbios_uuid": uuid}, tenant)
        assert (done.status, done.json["status"]) == (200, "enrolled"), done.content
        line = Line(done.json["attester_id"], tenant, {uuid})
        self.lines.append(line)
        return Machine(guest, line, uuid)

    @rule(machine=machines)
    def attests(self, machine: Machine) -> None:
        challenge = self.challenged(machine)
        if challenge is None:
            return
        answer = self.send(self.evidence(machine, challenge))
        if machine.uuid in machine.line.refused:
            self.refused(answer, 403, "reenrollment-required")
            return
        assert answer.status == 200, answer.content
        wanted = judge(machine, self.site.severity[machine.line.tenant], self.now)
        verdict = answer.json["verdict"]
        assert (verdict["status"], verdict["sequence"]) == (wanted, len(machine.line.told)), verdict[
            "findings"
        ]
        self.look_at(machine.line)

    @rule(machine=machines, secure=st.booleans())
    def reboots(self, machine: Machine, secure: bool) -> None:
        machine.guest.reboot(boot_log(secure=secure))
        machine.secure = secure

    @rule(machine=machines)
    def sleeps(self, machine: Machine) -> None:
        machine.guest.tpm.suspend_resume()

    @rule(target=machines, machine=machines, renamed=st.booleans())
    def is_copied(self, machine: Machine, renamed: bool) -> Machine:
        self.seeds += 1
        uuid = f"{machine.uuid}-copy-{self.seeds}" if renamed else machine.uuid
        return Machine(machine.guest.copied(), machine.line, uuid, list(machine.past), machine.secure)

    @rule(target=machines, machine=machines)
    def is_snapshotted(self, machine: Machine) -> Machine:
        """A state of now, with its memory; it comes to life when it is used, beside the other or after it."""
        return Machine(
            machine.guest.copied(running=True), machine.line, machine.uuid, list(machine.past), machine.secure
        )

    @rule(machine=machines, minutes=st.sampled_from([1, 4, 11]))
    def time_passes(self, machine: Machine, minutes: int) -> None:
        self.site.clock.advance(minutes=minutes)
        machine.guest.tpm.advance(minutes * 60_000)

    @rule(machine=machines)
    def enrols_again(self, machine: Machine) -> None:
        """With a join token: the same machine under the same id, and its line begins anew unless it is a proven clone."""
        line = machine.line
        if line.lifecycle == "retired" or (line.uuids - {machine.uuid}):
            return
        guest = machine.guest
        if line.lifecycle == "revoked":
            self.refused(
                self.begin(guest, machine.identity, self.site.joins[line.tenant]), 403, "attester-revoked"
            )
            return
        proven = self.incident_of(line) == "clone-proven"
        done, _ = self.enrol(guest, machine.identity, line.tenant)
        assert (done.status, done.json["attester_id"]) == (200, line.attester_id)
        if not proven:
            begun_anew(line)

    # --- what is no evidence

    @rule(machine=machines, how=st.sampled_from(["made up", "expired", "another quote", "another key"]))
    def brings_what_proves_nothing(self, machine: Machine, how: str) -> None:
        challenge = self.challenged(machine)
        if challenge is None or machine.uuid in machine.line.refused:
            return
        match how:
            case "made up":
                body = self.without_ratchet(machine, challenge | {"nonce": b64(bytes(range(32)))})
                wanted = (403, "nonce-unknown")
            case "expired":
                body, wanted = self.without_ratchet(machine, challenge), (409, "nonce-expired")
                self.site.clock.advance(minutes=3)
            case "another quote":
                body = self.without_ratchet(machine, challenge, quote={"tamper": Tamper(nonce=bytes(32))})
                wanted = (403, "quote-nonce")
            case _:
                stranger = Machine(self.new_guest(), machine.line, machine.uuid)
                body, wanted = self.without_ratchet(stranger, challenge), (403, "quote-signature")
        self.refused(self.send(body), *wanted)
        self.look_at(machine.line)

    @rule(one=machines, other=machines)
    def brings_anothers_nonce(self, one: Machine, other: Machine) -> None:
        if one.line is other.line or one.line.lifecycle != "enrolled" or one.uuid in one.line.refused:
            return
        challenge = self.challenged(other)
        if challenge is not None:
            self.refused(self.send(self.without_ratchet(one, challenge)), 403, "nonce-foreign")

    @rule(machine=machines)
    def is_replayed(self, machine: Machine) -> None:
        """What was judged once is never judged again."""
        challenge = self.challenged(machine)
        if challenge is None or machine.uuid in machine.line.refused:
            return
        body = self.evidence(machine, challenge)
        assert self.send(body).status == 200
        judge(machine, self.site.severity[machine.line.tenant], self.now)
        self.refused(self.send(body), 409, "nonce-reused")
        self.look_at(machine.line)

    @rule(tenant=tenants, how=st.sampled_from(["revoked", "used up", "over", "none", "no token"]))
    def joins_without_leave(self, tenant: str, how: str) -> None:
        uses, lifetime = (1 if how == "used up" else None), (timedelta(minutes=1) if how == "over" else None)
        number, token = self.site.join_token(tenant, uses, lifetime)
        if how == "revoked":
            assert self.site.call("DELETE", f"/v1/tokens/{number}", tenant=tenant).status in {200, 204}
        elif how == "over":
            self.site.clock.advance(minutes=2)
        elif how == "used up":
            self.begin(self.new_guest(), {"hostname": "first"}, token)
        guest, before = self.new_guest(), len(self.lines)
        given = {"none": "", "no token": "vtj1.nonsense"}.get(how, token)
        answer = self.begin(guest, {"hostname": "late"}, given)
        assert (answer.status, answer.code[:11]) in {(401, "join-token-"), (400, "malformed-r")}, (
            answer.content
        )
        assert before == len(self.lines)

    # --- operators

    @rule(machine=machines)
    @precondition(lambda self: len(self.lines) > 1)
    def is_revoked(self, machine: Machine) -> None:
        line = machine.line
        path = f"/v1/attesters/{line.attester_id}/revoke"
        other = next(tenant for tenant in TENANTS if tenant != line.tenant)
        self.refused(self.site.call("POST", path, tenant=other, json={}), 404, "not-found")
        answer = self.site.call("POST", path, tenant=line.tenant, json={})
        if line.lifecycle == "enrolled":
            assert answer.status in {200, 204}, answer.content
            line.lifecycle = "revoked"
        self.look_at(line)

    @rule(machine=machines)
    def incident_is_resolved(self, machine: Machine) -> None:
        """Who was seen last goes on."""
        line = machine.line
        found = self.incidents(line.tenant).get(line.attester_id)
        if found is None or line.lifecycle != "enrolled":
            return
        newest = found["guests"][-1]
        answer = self.site.call(
            "POST",
            f"/v1/incidents/{found['id']}/resolve",
            tenant=line.tenant,
            json={"keep": newest["id"], "reason": "test"},
        )
        assert answer.status == 200, answer.content
        resolved(line)
        self.look_at(line)

    @rule(target=machines, machine=machines)
    def is_copied_found_and_resolved(self, machine: Machine) -> Machine:
        """The way of a clone, which chance alone seldom goes to its end."""
        copy = self.is_copied(machine=machine, renamed=True)
        for one in (machine, copy, machine):
            self.attests(machine=one)
        self.incident_is_resolved(machine=machine)
        for one in (copy, machine):
            self.attests(machine=one)
        return copy

    @rule(tenant=tenants, severity=st.sampled_from(["warning", "contraindicated"]))
    def policy_changes(self, tenant: str, severity: str) -> None:
        self.site.apply_policy(tenant, severity)

    @rule(target=waiting, machine=machines)
    def comes_with_another_tpm(self, machine: Machine) -> Any:
        """A vTPM was replaced: nobody gets a known machine's place by its UUID alone."""
        line = machine.line
        if line.lifecycle != "enrolled" or line.uuids != {machine.uuid} or line.refused:
            return multiple()
        guest = self.new_guest()
        answer, proof = self.enrol(guest, machine.identity, line.tenant)
        assert (answer.json["status"], answer.json["code"]) == ("pending", "identity-replaced"), (
            answer.content
        )
        self.look_at(line)
        return Waiting(guest, line, machine.uuid, answer, proof)

    @rule(target=machines, one=consumes(waiting), approved=st.booleans())
    def is_decided(self, one: Waiting, approved: bool) -> Any:
        line, what = one.replaces, "approve" if approved else "refuse"
        if line.lifecycle != "enrolled" or line.uuids != {one.uuid}:
            return multiple()
        answer = self.site.call(
            "POST", f"/v1/enrollments/{one.id}/{what}", tenant=line.tenant, json={"reason": "test"}
        )
        assert answer.status in {200, 409}, answer.content
        told = self.prove(one.guest, one.id, one.proof)
        if not approved:
            self.refused(told, 403, "enrollment-refused")
            return multiple()
        assert (told.status, told.json["status"]) == (200, "enrolled"), told.content
        line.lifecycle = "retired"
        new = Line(told.json["attester_id"], line.tenant, {one.uuid})
        self.lines.append(new)
        self.look_at(line)
        return Machine(one.guest, new, one.uuid)

    # --- the verifier itself

    @rule(machine=machines)
    def store_fails(self, machine: Machine) -> None:
        """A fault of ours is never a verdict; the same evidence counts once the store is back."""
        challenge = self.challenged(machine)
        if challenge is None or machine.uuid in machine.line.refused:
            return
        body = self.evidence(machine, challenge)
        with self.site.out_of_order():
            self.refused(self.send(body), 503, "verifier-unavailable")
        self.look_at(machine.line)
        answer = self.send(body)
        assert answer.status == 200, answer.content
        assert answer.json["verdict"]["status"] == judge(
            machine, self.site.severity[machine.line.tenant], self.now
        )

    @rule()
    def restarts(self) -> None:
        self.site.stop()
        self.site.start()

    @rule(machine=machines)
    def restarts_between_challenge_and_evidence(self, machine: Machine) -> None:
        challenge = self.challenged(machine)
        if challenge is None or machine.uuid in machine.line.refused:
            return
        self.restarts()
        machine.guest.harness = self.site.verifier
        answer = self.send(self.evidence(machine, challenge))
        assert answer.status == 200, answer.content
        assert answer.json["verdict"]["status"] == judge(
            machine, self.site.severity[machine.line.tenant], self.now
        )

    @rule()
    @precondition(
        lambda self: self.cluster is None
    )  # a clock that is turned by hand is ahead of a database's own
    def old_history_is_dropped(self) -> None:
        self.site.clock.advance(days=3)
        self.site.do(self.site.verifier.service.services.retention.history())
        before = self.now - timedelta(days=int(KEEP[:-1]))
        for line in self.lines:
            kept = [told for told in line.told[:-1] if told.judged_at >= before]
            line.dropped = max(len(line.told) - 1, 0) - len(kept)

    @invariant()
    def is_alive(self) -> None:
        assert self.site.call("GET", "/healthz").status == 200
