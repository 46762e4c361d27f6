"""The dictionary of stable codes: every finding and every refusal names one of these.

Append only: a code, once released, keeps its meaning. Each has one explanation (what it means), one remedy
(what to do next), one test vector and one entry in `docs/reasons.md`, generated from here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Tier(enum.IntEnum):
    """Trust tiers, ordered from best to worst (AR4SI section 2.3.2).

    The value orders; `status` is the number an EAR carries.
    """

    AFFIRMING = 0
    WARNING = 1
    NONE = 2
    CONTRAINDICATED = 3

    def __init__(self, _value: int) -> None:
        self.label = self.name.lower()
        """On the wire."""

    @property
    def status(self) -> int:
        """`ear_status` value (draft-ietf-rats-ear, section 3.2)."""
        return {Tier.NONE: 0, Tier.AFFIRMING: 2, Tier.WARNING: 32, Tier.CONTRAINDICATED: 96}[self]


class Claim(enum.StrEnum):
    """AR4SI trustworthiness claims (draft-ietf-rats-ar4si, section 2.3.4)."""

    INSTANCE_IDENTITY = "instance-identity"
    CONFIGURATION = "configuration"
    EXECUTABLES = "executables"
    FILE_SYSTEM = "file-system"
    HARDWARE = "hardware"
    RUNTIME_OPAQUE = "runtime-opaque"
    STORAGE_OPAQUE = "storage-opaque"
    SOURCED_DATA = "sourced-data"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a code means and what to do about it."""

    title: str
    explanation: str
    remedy: str


class Reason(enum.StrEnum):
    """Stable wire codes."""

    # --- input that cannot be used (4xx, nothing stored)
    MALFORMED_STRUCTURE = "malformed-structure"
    UNSUPPORTED_ALGORITHM = "unsupported-algorithm"
    MALFORMED_REQUEST = "malformed-request"
    BODY_TOO_LARGE = "body-too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate-limited"
    CONFLICT = "conflict"
    TIER_NOT_MET = "tier-not-met"
    VERIFIER_UNAVAILABLE = "verifier-unavailable"
    INTERNAL_FAULT = "internal-fault"
    POLICY_INVALID = "policy-invalid"
    RUNTIME_SET_INVALID = "runtime-set-invalid"
    SECRET_UNKNOWN = "secret-unknown"  # noqa: S105 - a code, not a secret
    SECRET_WITHHELD = "secret-withheld"  # noqa: S105

    # --- enrolment
    JOIN_TOKEN_REQUIRED = "join-token-required"  # noqa: S105 - a code, not a secret
    JOIN_TOKEN_INVALID = "join-token-invalid"  # noqa: S105
    EK_CERTIFICATE_MISSING = "ek-certificate-missing"
    EK_CERTIFICATE_MALFORMED = "ek-certificate-malformed"
    EK_CERTIFICATE_UNTRUSTED = "ek-certificate-untrusted"
    EK_CERTIFICATE_EXPIRED = "ek-certificate-expired"
    EK_CERTIFICATE_KEY_MISMATCH = "ek-certificate-key-mismatch"
    EK_CERTIFICATE_PROFILE = "ek-certificate-profile"
    EK_CERTIFICATE_REVOKED = "ek-certificate-revoked"
    EK_ATTRIBUTES = "ek-attributes"
    AK_ATTRIBUTES = "ak-attributes"
    ACTIVATION_FAILED = "activation-failed"
    ENROLLMENT_EXPIRED = "enrollment-expired"
    ENROLLMENT_PENDING = "enrollment-pending"
    ATTESTER_REVOKED = "attester-revoked"
    REENROLLMENT_REQUIRED = "reenrollment-required"
    IDENTITY_REPLACED = "identity-replaced"
    KEY_CERTIFICATE_MISSING = "key-certificate-missing"
    ANCHORS_REFUSED = "anchors-refused"
    AK_CERTIFICATE_WITHHELD = "ak-certificate-withheld"
    INVENTORY_DISAGREES = "inventory-disagrees"
    INVENTORY_MATCHES = "inventory-matches"
    INVENTORY_MISMATCH = "inventory-mismatch"
    INVENTORY_SHARED_KEY = "inventory-shared-key"
    INVENTORY_KEY_REPLACED = "inventory-key-replaced"
    INVENTORY_SILENT = "inventory-silent"
    INVENTORY_STALE = "inventory-stale"
    INVENTORY_EVENT = "inventory-event"
    ENROLLMENT_REFUSED = "enrollment-refused"
    ENROLLMENT_QUEUE_FULL = "enrollment-queue-full"

    # --- the quote
    QUOTE_MAGIC = "quote-magic"
    QUOTE_TYPE = "quote-type"
    QUOTE_SIGNATURE = "quote-signature"
    QUOTE_SIGNATURE_ALGORITHM = "quote-signature-algorithm"
    QUOTE_NONCE = "quote-nonce"
    NONCE_UNKNOWN = "nonce-unknown"
    NONCE_EXPIRED = "nonce-expired"
    NONCE_FOREIGN = "nonce-foreign"
    NONCE_REUSED = "nonce-reused"
    QUOTE_PCR_SELECTION = "quote-pcr-selection"
    QUOTE_PCR_DIGEST = "quote-pcr-digest"
    QUOTE_VERIFIED = "quote-verified"
    FRESHNESS_ASSUMED = "freshness-assumed"
    AK_UNPROVEN = "ak-unproven"
    AK_TRUSTED = "ak-trusted"

    # --- clock and history
    CLOCK_FIRST_SEEN = "clock-first-seen"
    CLOCK_CONTINUES = "clock-continues"
    CLOCK_ROLLBACK = "clock-rollback"
    CLOCK_UNSAFE = "clock-unsafe"
    FIRMWARE_CHANGED = "firmware-changed"
    CLONE_SUSPECTED = "clone-suspected"
    CLONE_PROVEN = "clone-proven"
    ROLLBACK = "rollback"
    BOOT_ID_CHANGED = "boot-id-changed"
    BOOT_COUNTER_ROLLBACK = "boot-counter-rollback"
    RATCHET_STARTED = "ratchet-started"
    RATCHET_CONTINUES = "ratchet-continues"
    RATCHET_RESUMED = "ratchet-resumed"
    RATCHET_UNSUPPORTED = "ratchet-unsupported"
    RATCHET_MISSING = "ratchet-missing"
    RATCHET_INVALID = "ratchet-invalid"
    RATCHET_ROLLBACK = "ratchet-rollback"
    RATCHET_DIVERGED = "ratchet-diverged"
    RATCHET_FOREIGN = "ratchet-foreign"
    EVIDENCE_OVERTAKEN = "evidence-overtaken"
    IMA_OFFSET_UNKNOWN = "ima-offset-unknown"
    RATCHET_STALLED = "ratchet-stalled"
    BOOT_ID_KEPT = "boot-id-kept"
    HISTORY_UNJUDGED = "history-unjudged"
    EVIDENCE_UNAVAILABLE = "evidence-unavailable"

    # --- the boot log
    BOOT_LOG_MISSING = "boot-log-missing"
    BOOT_LOG_REPLAYS = "boot-log-replays"
    BOOT_LOG_MISMATCH = "boot-log-mismatch"
    BOOT_LOG_BANK_MISSING = "boot-log-bank-missing"
    EVENT_DATA_UNBOUND = "event-data-unbound"
    BOOT_LOG_QUIRK = "boot-log-quirk"
    BOOT_LOG_CUT = "boot-log-cut"
    BOOT_LOG_EMPTY = "boot-log-empty"
    USERSPACE_LOG_REPLAYS = "userspace-log-replays"
    USERSPACE_LOG_UNEXPLAINED = "userspace-log-unexplained"
    NV_INDEX_CERTIFIED = "nv-index-certified"
    NV_INDEX_INVALID = "nv-index-invalid"

    # --- the IMA list
    IMA_LIST_MISSING = "ima-list-missing"
    IMA_LIST_REPLAYS = "ima-list-replays"
    IMA_LIST_MISMATCH = "ima-list-mismatch"
    IMA_LIST_BEHIND = "ima-list-behind"
    IMA_LIST_TRUNCATED = "ima-list-truncated"
    IMA_LIST_INCOMPLETE = "ima-list-incomplete"
    IMA_LIST_REBOOTED = "ima-list-rebooted"
    IMA_LIST_ROTATED = "ima-list-rotated"
    IMA_LIST_CUT = "ima-list-cut"
    IMA_TEMPLATE_DIGEST = "ima-template-digest"
    IMA_PCR_UNPROVEN = "ima-pcr-unproven"
    IMA_REFERENCE_MISSING = "ima-reference-missing"
    IMA_FILES_KNOWN = "ima-files-known"
    IMA_FILES_ALLOWED = "ima-files-allowed"
    IMA_FILE_UNKNOWN = "ima-file-unknown"
    IMA_FILE_CHANGED = "ima-file-changed"
    IMA_MODULE_UNKNOWN = "ima-module-unknown"
    IMA_VIOLATION = "ima-violation"
    IMA_SIGNATURE_MISSING = "ima-signature-missing"
    IMA_SIGNATURE_INVALID = "ima-signature-invalid"
    IMA_SIGNATURE_KEY_UNKNOWN = "ima-signature-key-unknown"
    IMA_KEY_UNKNOWN = "ima-key-unknown"
    IMA_POLICY_LOADED = "ima-policy-loaded"
    IMA_BUFFER_UNKNOWN = "ima-buffer-unknown"
    IMA_TARGET_UNKNOWN = "ima-target-unknown"
    IMA_TEMPLATE_UNKNOWN = "ima-template-unknown"
    IMA_BOOT_AGGREGATE = "ima-boot-aggregate"
    IMA_MORE = "ima-more"
    IMA_FILES_STAGED = "ima-files-staged"

    # --- policy
    POLICY_MISSING = "policy-missing"
    POLICY_COVERAGE = "policy-coverage"
    PCR_MATCHES = "pcr-matches"
    PCR_MISMATCH = "pcr-mismatch"
    PCR_NOT_QUOTED = "pcr-not-quoted"
    EVENT_MATCHES = "event-matches"
    EVENT_MISMATCH = "event-mismatch"
    EVENT_MISSING = "event-missing"
    EVENT_UNEXPECTED = "event-unexpected"
    SECURE_BOOT_ON = "secure-boot-on"
    SECURE_BOOT_OFF = "secure-boot-off"
    SECURE_BOOT_UNPROVEN = "secure-boot-unproven"
    COMMAND_LINE_MATCHES = "command-line-matches"
    COMMAND_LINE_MISMATCH = "command-line-mismatch"
    COMMAND_LINE_UNPROVEN = "command-line-unproven"
    CLAIM_UNPROVEN = "claim-unproven"
    RULE_HOLDS = "rule-holds"
    RULE_BROKEN = "rule-broken"
    RULE_FAULTY = "rule-faulty"
    POLICY_SIGNATURE = "policy-signature"
    POLICY_STAGED = "policy-staged"
    REVOCATIONS_PRESENT = "revocations-present"
    REVOCATIONS_MISSING = "revocations-missing"

    @property
    def entry(self) -> Entry:
        """Explanation and remedy of this code."""
        from verifier.reason_texts import ENTRIES  # noqa: PLC0415 - the texts import this enum

        return ENTRIES[self]
