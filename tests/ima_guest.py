"""A guest whose kernel measures what it runs, and a runtime reference of the programs it is known to run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.harness import Guest, Harness, b64
from tests.ima_kernel import ImaKernel
from verifier.policy.model import Policy
from verifier.policy.runtime.entry import KIND_OF, Entry, Kind, Source
from verifier.policy.runtime.reference import (
    Lookup,
    RuntimeOptions,
    RuntimeReference,
    SigningKey,
    Verdict,
)
from verifier.policy.runtime.runtime_set import Head, RuntimeSet, assemble
from verifier.policy.runtime.writing import digest_of
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType

FILE = KIND_OF[Kind.FILE, HashAlg.SHA256]
PCRS = [0, 4, 7, 8, 9, 10]
POLICY = """\
schema: vtpm-attest/policy/1
id: measured
description: Secure Boot has to be on, and what runs has to be known
validity: 10m
quote:
  bank: sha256
  pcrs: [0, 4, 7, 8, 9, 10]
boot_log: optional
rules:
  - id: secure-boot
    severity: contraindicated
    claim: configuration
    secure_boot: enabled
unjudged:
  - pcrs: [0, 4, 7, 8, 9, 10]
    why: a policy for tests of the service, not of machines
"""


def known_content(path: str) -> bytes:
    """What a program of this name holds where it is what it should be."""
    return f"the program {path}".encode()


RUNTIME_POLICY = """\
schema: vtpm-attest/policy/1
id: measured
description: Secure Boot has to be on, and what runs has to be in the sets
validity: 10m
quote:
  bank: sha256
  pcrs: [0, 4, 7, 8, 9, 10]
boot_log: optional
rules:
  - id: secure-boot
    severity: contraindicated
    claim: configuration
    secure_boot: enabled
unjudged:
  - pcrs: [0, 4, 7, 8, 9]
    why: a policy for tests of the service, not of machines
runtime:
  sets: [SETS]
  excludes:
    - paths: ["/tmp/**"]
      why: nothing that counts lies there on these machines
"""


def a_set(paths: Iterable[str], name: str = "programs") -> RuntimeSet:
    """These programs, with the content they should have."""
    source = (Source("deb", "base-files", "12.4", "amd64"),)
    return assemble(
        Head(name=name),
        [Entry(path.encode(), FILE, hashlib.sha256(known_content(path)).digest(), source) for path in paths],
    )


def policy_of(*sets: RuntimeSet) -> str:
    """A policy that knows what is in these sets."""
    return RUNTIME_POLICY.replace("SETS", ", ".join(f"{{sha256: {digest_of(each)}}}" for each in sets))


@dataclass(frozen=True)
class Programs:
    """A runtime reference: every path below one of `roots`, with `known_content`."""

    roots: tuple[str, ...] = ("/usr",)
    salt: str = ""

    @property
    def revision(self) -> bytes:
        return hashlib.sha256(repr((self.roots, self.salt)).encode()).digest()

    @property
    def options(self) -> RuntimeOptions:
        return RuntimeOptions()

    def accepted(self, algorithm: HashAlg) -> Container[bytes]:
        return frozenset()

    def file(self, path: str, algorithm: str, digest: bytes, digest_type: DigestType) -> Lookup:
        if not path.startswith(self.roots):
            return Lookup(Verdict.UNKNOWN_PATH)
        if hashlib.new(algorithm, known_content(path)).digest() == digest:
            return Lookup(Verdict.KNOWN)
        return Lookup(Verdict.WRONG_DIGEST, source="coreutils 9.1-1 (deb)")

    def buffer(self, name: str, algorithm: str, digest: bytes) -> Lookup:
        return Lookup(Verdict.UNKNOWN_PATH)

    def keys(self, key_id: bytes) -> tuple[SigningKey, ...]:
        return ()


@dataclass(frozen=True)
class ProgramsRecipe:
    """Makes it, wherever it is asked for."""

    programs: Programs

    @property
    def revision(self) -> bytes:
        return self.programs.revision

    def make(self) -> RuntimeReference:
        return self.programs


@dataclass
class KnownPrograms:
    """The `RuntimeReferences` port: policies of these ids read the list; what they know can be changed."""

    programs: dict[str, Programs] = field(default_factory=lambda: {"measured": Programs()})

    def reads(self, policy: Policy) -> bool:
        return policy.id in self.programs

    async def recipe(self, policy: Policy) -> ProgramsRecipe:
        return ProgramsRecipe(self.programs[policy.id])


class GuestKernel(ImaKernel):
    """An IMA that extends a guest's TPM."""

    def __init__(self, guest: Guest, **options: Any) -> None:
        self._guest = guest
        boot = {bank: dict(guest.tpm.pcrs(bank)) for bank in ("sha1", "sha256")}
        super().__init__(boot=boot, **options)

    def _extend(self, bank: str, pcr: int, hashed: bytes, *, violation: bool) -> None:
        alg = HashAlg[bank.upper()]
        value = b"\xff" * alg.size if violation else alg.digest(hashed)
        self._guest.tpm.extend(pcr, {alg: value})
        super()._extend(bank, pcr, hashed, violation=violation)


@dataclass
class MeasuringGuest:
    """A guest, its kernel, and an agent that sends its list as the real one does."""

    guest: Guest
    kernel: GuestKernel
    sent: list[tuple[int, int]] = field(default_factory=list)
    """Offset and size of every list that was sent."""

    @classmethod
    async def enrolled(
        cls, harness: Harness, seed: int = 1, programs: int = 3, **options: Any
    ) -> MeasuringGuest:
        made = cls.on(await harness.guest(seed, **options))
        for number in range(programs):
            made.run(f"/usr/bin/p{number}")
        return made

    @classmethod
    def on(cls, guest: Guest) -> MeasuringGuest:
        """A guest whose kernel begins to measure now."""
        return cls(guest, GuestKernel(guest))

    @property
    def attester_id(self) -> str:
        return self.guest.attester_id

    def run(self, path: str, content: bytes | None = None) -> None:
        """Run a program; by default one that is what it should be."""
        self.kernel.measure(path, known_content(path) if content is None else content)

    def reboot(self, **options: Any) -> None:
        self.guest.reboot(**options)
        self.kernel = GuestKernel(self.guest)

    def kexec(self) -> None:
        """Another kernel takes over, without the list of this one: no reset, so the PCRs go on."""
        self.guest.boot_id = str(uuid4())
        self.kernel = GuestKernel(self.guest)

    def part(self, challenge: Mapping[str, Any], whole: bool = False) -> dict[str, Any] | None:
        """The list as the agent sends it for this challenge."""
        if not challenge.get("want_ima_log"):
            return None
        known = challenge.get("ima_boot") == self.guest.boot_id and not whole
        offset = challenge.get("ima_offset", 0) if known else 0
        content = self.kernel.list[offset:] if offset <= len(self.kernel.list) else self.kernel.list
        offset = offset if offset <= len(self.kernel.list) else 0
        self.sent.append((offset, len(content)))
        return {"content": b64(content), "offset": offset} if offset else {"content": b64(content)}

    def evidence(
        self,
        challenge: Mapping[str, Any],
        *,
        before_quote: Callable[[], None] = lambda: None,
        after_quote: Callable[[], None] = lambda: None,
        whole: bool = False,
        **changes: Any,
    ) -> dict[str, Any]:
        """PCRs are read before the quote, the list after it; in between the machine may go on."""
        read = dict(self.guest.tpm.pcrs("sha256"))
        before_quote()
        body = self.guest.evidence(challenge)
        after_quote()
        pcrs = next(part["pcrs"] for part in challenge["selection"] if part["bank"] == "sha256")
        body["pcrs"] = [{"bank": "sha256", "values": {str(pcr): b64(read[pcr]) for pcr in pcrs}}]
        part = self.part(challenge, whole)
        if part is not None:
            body["ima_log"] = part
        return {key: value for key, value in (body | changes).items() if value is not None}

    async def attest(self, challenge: Any = None, **options: Any) -> Any:
        """Attest, and send the whole list where that is what is wanted; the reply's document."""
        answer = await self.answer(challenge, **options)
        if answer.status == 409 and answer.code == "ima-offset-unknown":
            answer = await self.answer(whole=True)
        assert answer.status == 200, answer.content
        self.guest.carried = answer.json["challenge"]
        return answer.json

    async def answer(self, challenge: Any = None, **options: Any) -> Any:
        challenge = challenge or await self.guest.challenge()
        return await self.guest.harness.post("/v1/attestations", self.evidence(challenge, **options))
