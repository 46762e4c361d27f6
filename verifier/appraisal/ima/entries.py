"""Judge one proven entry: which kind it is, and what the reference says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from verifier.appraisal.ima.likely import MODULE, likely
from verifier.appraisal.ima.state import MAX_RETAINED, ImaCounts, ImaSummary
from verifier.crypto.file_signature import Checked, check_file_signature, kernel_digest, key_of_certificate
from verifier.errors import MalformedInputError
from verifier.findings import Finding, Severity, Status
from verifier.policy.runtime.reference import (
    Handling,
    Lookup,
    RuntimeReference,
    SignatureUse,
    SigningKey,
    TargetRule,
    Verdict,
)
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.boot_aggregate import Aggregate, check_aggregate
from verifier.tcg.ima.device_mapper import ACTIONS, TABLES, Target, parse_targets
from verifier.tcg.ima.entry import BOOT_AGGREGATE, ImaEntry, ImaFields, shown
from verifier.tcg.ima.signature import FileSignature, parse_file_signature

POLICY_FILES: Final = frozenset({"/etc/ima/ima-policy", "/etc/ima/ima_policy", "/etc/sysconfig/ima-policy"})
"""Where systemd, dracut and others load IMA policies from; elsewhere one is a file like any other."""
_SEVERITY: Final = {Handling.DENY: Severity.CONTRAINDICATED, Handling.WARN: Severity.WARNING}
_RANK: Final = {severity: rank for rank, severity in enumerate(Severity)}
MAX_KEY: Final = 4096
"""Bytes of a key that is learned: more than RSA with 16,384 bits needs."""
MAX_LEARNED: Final = 64
"""Keys learned per boot; more are findings, not keys."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is to be said of an entry, before it is known whether there is room for it."""

    reason: Reason
    handling: Handling
    message: str
    claim: Claim = Claim.EXECUTABLES
    expected: str | None = None


@dataclass(slots=True)
class EntryJudge:
    """Judges entries one after another and sums up; starts from what was judged before.

    Attributes:
        reference: the runtime policy.
        summary: of the entries before.
        quoted: PCR values, for boot aggregates.
    """

    reference: RuntimeReference
    summary: ImaSummary
    quoted: Mapping[HashAlg, Mapping[int, bytes]]
    _counts: Counter[str] = field(default_factory=Counter)
    _findings: list[Finding] = field(default_factory=list)
    _more: Counter[str] = field(default_factory=Counter)
    _worst: Severity | None = None
    _learned: list[SigningKey] = field(default_factory=list)
    _aggregate: tuple[str, bytes] | None = None
    _agrees: bool | None = None

    def __post_init__(self) -> None:
        self._findings.extend(self.summary.findings)
        self._more.update(self.summary.more)
        self._learned.extend(self.summary.learned)
        self._worst, self._aggregate = self.summary.more_worst, self.summary.aggregate
        self._agrees = self.summary.boot_aggregate

    def accepted(self, count: int) -> None:
        """So many entries were accepted as a whole."""
        self._counts["known"] += count

    def unproven(self) -> None:
        """An entry of a PCR that the quote does not prove."""
        self._counts["unproven"] += 1

    def take(self, entry: ImaEntry, follower: ImaEntry | None = None) -> None:
        """Judge a proven entry; `follower` is the one after it, which tells violations apart for people."""
        problem = self._judge(entry, follower)
        if problem is None:
            return
        if problem.handling is Handling.ALLOW:
            self._counts["allowed"] += 1
        else:
            self._keep(entry, problem)

    def result(self) -> ImaSummary:
        """What all of it came to."""
        before = self.summary
        counts = {name: getattr(before.counts, name) + self._counts[name] for name in ImaCounts._fields}
        return ImaSummary(
            counts=ImaCounts(**counts),
            unknown_modules=before.unknown_modules + self._counts["modules"],
            policy_loads=before.policy_loads + self._counts["policies"],
            findings=tuple(self._findings),
            more=dict(self._more),
            more_worst=self._worst,
            learned=tuple(self._learned),
            aggregate=self._aggregate,
            boot_aggregate=self._agrees,
        )

    def _keep(self, entry: ImaEntry, problem: _Problem) -> None:
        severity = _SEVERITY[problem.handling]
        if len(self._findings) >= MAX_RETAINED:
            self._more[problem.reason.value] += 1
            if self._worst is None or _RANK[severity] > _RANK[self._worst]:
                self._worst = severity
            return
        fields = entry.fields
        self._findings.append(
            Finding(
                reason=problem.reason,
                status=Status.FAILED,
                severity=severity,
                claim=problem.claim,
                message=problem.message,
                pcr=entry.pcr,
                event_index=entry.index,
                expected=problem.expected,
                actual=None
                if entry.is_violation or fields.digest is None
                else _text(fields.algorithm, fields.digest),
            )
        )

    def _judge(self, entry: ImaEntry, follower: ImaEntry | None) -> _Problem | None:
        if entry.is_violation:
            return self._violation(entry, follower)
        fields = entry.fields
        if fields.path is None or fields.digest is None or fields.algorithm is None:
            self._counts["unknown"] += 1
            message = f"an entry of template {_told(entry.template_name)} says neither path nor digest"
            return _Problem(Reason.IMA_TEMPLATE_UNKNOWN, Handling.DENY, message)
        if fields.path == BOOT_AGGREGATE and self._is_aggregate(entry, fields):
            self._counts["boot_aggregates"] += 1
            return None
        if self._is_buffer(fields):
            return self._buffer(fields.path, fields)
        return self._file(fields.path, fields)

    def _violation(self, entry: ImaEntry, follower: ImaEntry | None) -> _Problem:
        self._counts["violations"] += 1
        path = entry.fields.path or "a file without a name"
        # Open writers: the file is measured right after; ToMToU: it had been before, and is being written now.
        measured = (
            follower is not None and not follower.is_violation and follower.fields.path == entry.fields.path
        )
        kind = (
            "was opened for reading while it was being written"
            if measured
            else "was written while it was in use"
        )
        message = (
            f"a file {kind}, so what was used is not known; the list names {_told(path)}, which no PCR covers"
        )
        return _Problem(Reason.IMA_VIOLATION, self.reference.options.violations, message)

    def _is_aggregate(self, entry: ImaEntry, fields: ImaFields) -> bool:
        """Only the kernel makes the first entry of a boot. A later one might be a file whose path is not known to it.

        After kexec it has to agree with the PCRs, or be the same as before.
        """
        own = (fields.algorithm or "", fields.digest or b"")
        if entry.index == 0 and len(own[1]) <= _MOST_DIGEST:
            self._aggregate = own
            self._agrees = check_aggregate(*own, (self.quoted,)) is Aggregate.AGREES or None
            return True
        return own == self._aggregate or check_aggregate(*own, (self.quoted,)) is Aggregate.AGREES

    def _is_buffer(self, fields: ImaFields) -> bool:
        """The template name is not measured, so a file's signature can pose as a buffer; its digest then differs."""
        if fields.buffer is None or fields.path is None or fields.path.startswith("/"):
            return False
        return kernel_digest(fields.algorithm or "", fields.buffer) == fields.digest

    # --- buffers

    def _buffer(self, name: str, fields: ImaFields) -> _Problem | None:
        buffer, digest, algorithm = fields.buffer or b"", fields.digest or b"", fields.algorithm or ""
        options = self.reference.options
        found = self.reference.buffer(name, algorithm, digest)
        good = found.verdict in {Verdict.KNOWN, Verdict.KNOWN_STAGED, Verdict.EXCLUDED}
        if name in TABLES | ACTIONS and options.targets is not None:
            self._counts["buffers"] += 1
            return None if good or name in ACTIONS else _targets(name, buffer, options.targets)
        certificate = key_of_certificate(buffer)
        if certificate is not None or name.startswith("."):
            self._counts["keys"] += 1
            return self._key(name, certificate, found, good=good)
        self._counts["buffers"] += 1
        if good:
            return None
        message = f"critical data {_told(name)}: {_preview(buffer)} is not what the policy knows"
        return _Problem(
            Reason.IMA_BUFFER_UNKNOWN, options.unknown_buffer, message, Claim.CONFIGURATION, _expected(found)
        )

    def _key(
        self, keyring: str, certificate: tuple[bytes, bytes, str] | None, found: Lookup, *, good: bool
    ) -> _Problem | None:
        options = self.reference.options
        name = (
            "a key that is no certificate" if certificate is None else f"the key of {_told(certificate[2])}"
        )
        if (
            certificate is not None
            and keyring in options.learn_keyrings
            and self._has_room_for(certificate[1])
        ):
            key = SigningKey(certificate[0], certificate[1], _told(certificate[2]))
            if key not in self._learned:
                self._learned.append(key)
            return None
        if good:
            return None
        message = f"{name} was loaded onto keyring {_told(keyring)} and is not one the policy knows"
        return _Problem(
            Reason.IMA_KEY_UNKNOWN, options.unknown_key, message, Claim.CONFIGURATION, _expected(found)
        )

    def _has_room_for(self, public: bytes) -> bool:
        return len(self._learned) < MAX_LEARNED and len(public) <= MAX_KEY

    # --- files

    def _file(self, path: str, fields: ImaFields) -> _Problem | None:
        digest, algorithm = fields.digest or b"", fields.algorithm or ""
        found = self.reference.file(path, algorithm, digest, fields.digest_type)
        use = self.reference.options.signatures
        match found.verdict:
            case Verdict.EXCLUDED:
                self._counts["excluded"] += 1
                return None
            case Verdict.KNOWN | Verdict.KNOWN_STAGED if use is not SignatureUse.REQUIRED:
                self._counts["known" if found.verdict is Verdict.KNOWN else "staged"] += 1
                return None
            case Verdict.KNOWN | Verdict.KNOWN_STAGED | Verdict.WRONG_DIGEST | Verdict.UNKNOWN_PATH:
                pass
            case _:
                assert_never(found.verdict)
        flaw = None if use is SignatureUse.IGNORED else self._signature_flaw(fields)
        if use is not SignatureUse.IGNORED and flaw is None:
            self._counts["signed"] += 1
            return None
        return self._unaccepted(path, found, flaw)

    def _unaccepted(self, path: str, found: Lookup, flaw: tuple[Reason, str] | None) -> _Problem:
        """A file that neither the sets nor a signature vouch for."""
        hint = "" if len(self._findings) >= MAX_RETAINED else likely(path, found)  # which would not be kept
        options, name = self.reference.options, _told(path)
        wrong = found.verdict is Verdict.WRONG_DIGEST
        self._counts["wrong" if wrong else "unknown"] += 1
        signed = "" if flaw is None else f"; {flaw[1]}"
        if flaw is not None and options.signatures is SignatureUse.REQUIRED:
            return _Problem(
                flaw[0],
                Handling.DENY,
                f"{name}: {flaw[1]}, and the policy requires one",
                expected=_expected(found),
            )
        message = f"{name} {'has another content than' if wrong else 'is not among'} the known files: {hint}"
        if path in POLICY_FILES:
            self._counts["policies"] += 1
            message = f"an IMA policy was loaded from {name} that is not known: it decides what is measured from there on"
            return _Problem(
                Reason.IMA_POLICY_LOADED, options.policy_load, message, Claim.CONFIGURATION, _expected(found)
            )
        if MODULE.search(path):
            self._counts["modules"] += 1
            handling = Handling.DENY if wrong else options.unknown_module
            return _Problem(
                Reason.IMA_MODULE_UNKNOWN,
                handling,
                f"kernel module {message}{signed}",
                expected=_expected(found),
            )
        if wrong:
            return _Problem(
                Reason.IMA_FILE_CHANGED, Handling.DENY, message + signed, expected=_expected(found)
            )
        return _Problem(Reason.IMA_FILE_UNKNOWN, options.unknown_path, message + signed)

    def _signature_flaw(self, fields: ImaFields) -> tuple[Reason, str] | None:
        """Why the file's signature vouches for nothing; None where it is valid."""
        if not fields.signature:
            return Reason.IMA_SIGNATURE_MISSING, "it carries no signature"
        try:
            signature = parse_file_signature(fields.signature)
        except MalformedInputError as error:
            return Reason.IMA_SIGNATURE_INVALID, f"its signature does not parse ({error.detail})"
        if signature.algorithm != fields.algorithm or signature.digest_type is not fields.digest_type:
            said = f"{signature.digest_type.value} digest by {signature.algorithm}"
            return Reason.IMA_SIGNATURE_INVALID, f"its signature is of a {said}, which the list does not have"
        return self._vouched(signature, fields.digest or b"")

    def _vouched(self, signature: FileSignature, digest: bytes) -> tuple[Reason, str] | None:
        """Whether a key that is trusted made the signature; None where one did."""
        known = self.reference.keys(signature.key_id)
        keys = [*known, *(key for key in self._learned if key.key_id == signature.key_id)]
        key_id = signature.key_id.hex()
        if not keys:
            return Reason.IMA_SIGNATURE_KEY_UNKNOWN, f"its signature is by key {key_id}, which is not trusted"
        checked = [check_file_signature(key.public, signature, digest) for key in keys]
        if Checked.VALID in checked:
            return None
        if Checked.UNSUPPORTED in checked:
            said = f"its signature ({signature.algorithm}) or key {key_id} is too weak or unsupported"
        else:
            said = f"its signature by key {key_id} ({keys[0].name}) is invalid"
        return Reason.IMA_SIGNATURE_INVALID, said


def _targets(event: str, buffer: bytes, rules: tuple[TargetRule, ...]) -> _Problem | None:
    """Whether every target of a table is one of `rules`."""
    try:
        targets = parse_targets(buffer)
    except ValueError as error:
        message = f"a device-mapper table ({event}) does not read: {error}"
        return _Problem(Reason.IMA_TARGET_UNKNOWN, Handling.DENY, message, Claim.FILE_SYSTEM)
    for target in targets:
        if not any(_obeys(target, rule) for rule in rules):
            detail = f"a device-mapper target {_told(target.name)} was loaded that the policy does not allow"
            allowed = ", ".join(sorted({rule.target for rule in rules})) or "none"
            return _Problem(Reason.IMA_TARGET_UNKNOWN, Handling.DENY, detail, Claim.FILE_SYSTEM, allowed)
    return None


def _obeys(target: Target, rule: TargetRule) -> bool:
    if target.name != rule.target:
        return False
    return all(target.attributes.get(name) == value for name, value in rule.attributes.items())


def _expected(found: Lookup) -> str | None:
    return " or ".join(_text(algorithm, digest) for algorithm, digest in found.expected) or None


def _text(algorithm: str | None, digest: bytes) -> str:
    return f"{algorithm}:{digest[:_MOST_DIGEST].hex()}{'...' if len(digest) > _MOST_DIGEST else ''}"


def _told(name: str) -> str:
    """A name for a message: a machine can measure names of any length, and findings are kept."""
    return shown(name[:_MOST_NAME]) + ("..." if len(name) > _MOST_NAME else "")


_MOST_NAME: Final = 512
_MOST_DIGEST: Final = 64
_PREVIEW: Final = 80


def _preview(buffer: bytes) -> str:
    text = _told(buffer[:_PREVIEW].decode("utf-8", "surrogateescape"))
    return f"{text!r}{'...' if len(buffer) > _PREVIEW else ''} ({len(buffer)} bytes)"
