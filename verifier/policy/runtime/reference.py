"""What a runtime policy answers when an IMA list is judged: the interface of a compiled one.

PURE, and asked once per entry that is not accepted as a whole; an implementation keeps no state that an answer
depends on, and never sees an entry that a quote has not proven.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType


class Verdict(enum.Enum):
    """What a reference says of one path and digest."""

    KNOWN = "known"
    KNOWN_STAGED = "known-staged"
    """Known to a set that is staged: an update that has been announced. Good, and counted."""
    EXCLUDED = "excluded"
    """The policy says that this path is not judged."""
    WRONG_DIGEST = "wrong-digest"
    """The path is known with other digests."""
    UNKNOWN_PATH = "unknown-path"


class Lookup(NamedTuple):
    """An answer.

    Attributes:
        verdict: see `Verdict`.
        expected: digests the path is known with, as (kernel name of the hash, digest); at most 8, newest first. Only
            with WRONG_DIGEST.
        source: what says so, for people: `bash 5.2.15-2+b7 (debian-12)`, `exclude /tmp/*`; or None.
        digest_known_as: a path the digest is known under, where its own path does not have it: a moved or renamed
            file of the reference. None where unknown or not indexed.
    """

    verdict: Verdict
    expected: tuple[tuple[str, bytes], ...] = ()
    source: str | None = None
    digest_known_as: str | None = None


class Handling(enum.Enum):
    """What something that is not known does to the verdict."""

    DENY = "deny"
    """FAILED, contraindicated."""
    WARN = "warn"
    """FAILED, a warning."""
    ALLOW = "allow"
    """Counted and shown, never moves the verdict."""


class SignatureUse(enum.Enum):
    """What file signatures (`security.ima`, in ima-sig and ima-sigv2) are for."""

    IGNORED = "ignored"
    ACCEPTED = "accepted"
    """A file is good if it is KNOWN, or carries a valid signature by a key of the policy."""
    REQUIRED = "required"
    """Every file that is not EXCLUDED must carry a valid signature; KNOWN alone is not enough."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that file signatures may be made with.

    Attributes:
        key_id: 4 bytes: the last of the X.509 subject key identifier (as `evmctl` and the kernel name keys).
        public: SubjectPublicKeyInfo, DER; RSA or EC.
        name: for people.
    """

    key_id: bytes
    public: bytes
    name: str


@dataclass(frozen=True, slots=True)
class TargetRule:
    """A device-mapper target that may be loaded (Documentation/admin-guide/device-mapper/dm-ima.rst).

    Attributes:
        target: `target_name` of its table: `verity`, `crypt`, `linear`.
        attributes: attributes of the target that must have exactly these values (`root_digest`, `verity_algorithm`).
    """

    target: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How entries are judged beyond their paths and digests.

    Attributes:
        unknown_path: a file the reference does not know at all. (A wrong digest of a known path is always denied.)
        unknown_module: likewise for a kernel module, which runs with the kernel's rights.
        violations: a file was written while it was measured or used. The list says neither which file (the PCR does
            not cover it) nor whether it was ToMToU or open writers, so one handling covers both kinds and all paths.
        signatures: see `SignatureUse`.
        learn_keyrings: keyrings (`.ima`, `.evm`) whose measured keys count as keys of the policy from there on. The
            kernel admits only keys that a key of its own vouches for; that is then what is trusted.
        unknown_key: a key was loaded onto a keyring and `buffer` does not know it.
        policy_load: an IMA policy was loaded whose file is not known.
        unknown_buffer: other critical data (`kexec-cmdline`, `selinux-policy-hash`) that `buffer` does not know.
        targets: device-mapper targets that may be loaded; None: as `unknown_buffer` says.
    """

    unknown_path: Handling = Handling.DENY
    unknown_module: Handling = Handling.DENY
    violations: Handling = Handling.DENY
    signatures: SignatureUse = SignatureUse.IGNORED
    learn_keyrings: frozenset[str] = frozenset()
    unknown_key: Handling = Handling.DENY
    policy_load: Handling = Handling.DENY
    unknown_buffer: Handling = Handling.DENY
    targets: tuple[TargetRule, ...] | None = None


class RuntimeReference(Protocol):
    """A compiled runtime policy: sets of known files, excludes, keys and options."""

    @property
    def revision(self) -> bytes:
        """SHA-256 over everything an answer depends on, options too. Another revision: all entries are judged anew."""
        ...

    @property
    def options(self) -> RuntimeOptions:
        """How the rest is judged."""
        ...

    def accepted(self, algorithm: HashAlg) -> Container[bytes]:
        """Digests under `algorithm` of template data that is good as it stands: fields d-ng (or d-ngv2) and n-ng.

        That is all of it for ima-ng; of entries with more fields (ima-sig) these two are looked up.

        The fast path: an entry in here is counted as KNOWN and never decoded. It may hold only files, and of them only
        what `file` calls KNOWN for the very same fields and what `options` demands nothing more of; it must be empty
        where signatures are required, and may always be. Membership must be O(1).
        """
        ...

    def file(self, path: str, algorithm: str, digest: bytes, digest_type: DigestType) -> Lookup:
        """What is known of a file: `algorithm` is the kernel's name; a weaker hash than the sets have is not KNOWN.

        Without a match by path and digest, excludes are asked before anything is called wrong or unknown.
        """
        ...

    def buffer(self, name: str, algorithm: str, digest: bytes) -> Lookup:
        """What is known of a buffer.

        A key is named by its keyring (`.ima`) and has the digest of its certificate; critical data is named as the
        kernel names it (`kexec-cmdline`).
        """
        ...

    def keys(self, key_id: bytes) -> tuple[SigningKey, ...]:
        """Keys of the policy with this id; several may share one, none is an unknown key."""
        ...
