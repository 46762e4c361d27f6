"""The policy document as written: YAML, typed by msgspec, strict in every place.

Unknown keys, duplicate keys and YAML aliases are refused: a rule someone thinks is active must be active.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final

import msgspec
import yaml
from msgspec import Meta, Struct

from verifier.errors import PolicyError
from verifier.findings import Severity
from verifier.policy.cel import MAX_EXPRESSION
from verifier.policy.document_parts import about as _about
from verifier.policy.document_parts import choice as _choice
from verifier.policy.document_runtime import RuntimeDocument
from verifier.policy.model import LogUse, Occurs
from verifier.quirks import Quirk
from verifier.reasons import Claim

MAX_RULES: Final = 2048
POLICY_SCHEMA: Final = "vtpm-attest/policy/1"
REFERENCE_SCHEMA: Final = "vtpm-attest/reference-values/1"
MAX_SOURCE: Final = 8 * 1024 * 1024
RULE_KINDS: Final = ("pcr", "event", "sequence", "secure_boot", "command_line", "revocations", "cel")


Identifier = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Pcr = Annotated[int, Meta(ge=0, le=23, description="Index of a PCR.")]
DigestText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="Hex, or `ref:SET/NAME` naming a reference value, or `ref:SET/*` for all of a set.",
    ),
]
Hash = Annotated[str, _choice("A hash algorithm.", ("sha1", "sha256", "sha384", "sha512"))]
SecureBootText = Annotated[
    str, _choice("What was measured before the OS loader ran.", ("enabled", "disabled"))
]
Expression = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_EXPRESSION,
        description="An expression over the claims of docs/claims.md that must be true.",
    ),
]
AnyOf = Annotated[list[DigestText], Meta(min_length=1, description="Digests that are accepted.")]


class _Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class QuoteDocument(_Document, frozen=True, kw_only=True):
    """What must be quoted, and signed how."""

    bank: Annotated[Hash, _about("PCR bank that is quoted and judged.")] = "sha256"
    pcrs: Annotated[
        list[Pcr], Meta(min_length=1, max_length=24, description="PCRs the quote must cover; more may be.")
    ]
    signature_hashes: Annotated[tuple[Hash, ...], _about("Hashes a quote may be signed with.")] = (
        "sha256",
        "sha384",
        "sha512",
    )


class PcrDocument(_Document, frozen=True, kw_only=True):
    """Golden values of one PCR."""

    index: Pcr
    any_of: AnyOf


class EventDocument(_Document, frozen=True, kw_only=True):
    """Events of one PCR, by proven name or by digest alone.

    There is no selection by event type: types are not measured, so a forger chooses them.
    """

    pcr: Pcr
    name: Annotated[
        str | None, _about("Proven name: a variable (`SecureBoot`), a UKI section (`.cmdline`).")
    ] = None
    occurs: Annotated[str, _choice("How often it must be found.", Occurs)] = "once"
    any_of: Annotated[list[DigestText] | None, _about("Digests that are accepted (`never`: forbidden).")] = (
        None
    )


class StepDocument(_Document, frozen=True, kw_only=True):
    """One place in a sequence."""

    label: Annotated[str, _about("What people call it; shown in findings.")] = ""
    any_of: AnyOf
    optional: Annotated[bool, _about("Nothing may have been measured in this place.")] = False


class SequenceDocument(_Document, frozen=True, kw_only=True):
    """Every measured event of one PCR, in order."""

    pcr: Pcr
    steps: Annotated[list[StepDocument], _about("The golden events; none: nothing may be measured.")]


class CommandLineDocument(_Document, frozen=True, kw_only=True):
    """What the kernel may have been told."""

    any_of: Annotated[list[str], _about("Whole lines, one of which it must be.")] = []
    require: Annotated[list[str], _about("Words that must be in it.")] = []
    forbid: Annotated[list[str], _about("Words that must not be in it.")] = []


class RevocationsDocument(_Document, frozen=True, kw_only=True):
    """What must be revoked already."""

    require: Annotated[
        list[DigestText],
        _about(
            "SHA-256 of images and certificates that dbx must hold; `attestctl policy revocations` lists them."
        ),
    ] = []
    sbat: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[int, Meta(ge=1)]],
        _about("Component to the lowest generation that shim's revocation level (SbatLevel) must name."),
    ] = {}


class RuleDocument(_Document, frozen=True, kw_only=True):
    """One rule: exactly one of the kinds below its head."""

    id: Annotated[Identifier, _about("Findings name the rule by it.")]
    severity: Annotated[str, _choice("How bad it is when the rule does not pass.", Severity)] = (
        "contraindicated"
    )
    claim: Annotated[str, _choice("The AR4SI claim the rule speaks for.", Claim)]
    message: Annotated[
        str | None, _about("What its failure means, in your words; findings begin with it.")
    ] = None
    pcr: PcrDocument | None = None
    event: EventDocument | None = None
    sequence: SequenceDocument | None = None
    secure_boot: SecureBootText | None = None
    command_line: CommandLineDocument | None = None
    revocations: RevocationsDocument | None = None
    cel: Expression | None = None


class UnjudgedDocument(_Document, frozen=True, kw_only=True):
    """PCRs that are quoted but not judged, and why that is right."""

    pcrs: Annotated[list[Pcr], Meta(min_length=1)]
    why: Annotated[str, Meta(min_length=10, description="For the next reader.")]


TOLERABLE: Final = tuple(quirk for quirk in Quirk if quirk.entry.tolerable)
TOLERATED_AS: Final = (Severity.WARNING, Severity.INFO)


class TolerateDocument(_Document, frozen=True, kw_only=True):
    """A known quirk of the boot log that is expected, and why that is acceptable."""

    quirk: Annotated[str, _choice("Its name; docs/quirks.md explains each.", TOLERABLE)]
    pcrs: Annotated[
        list[Pcr], Meta(max_length=24, description="Where it is expected; none for `zero-length-log`.")
    ] = []
    severity: Annotated[str, _choice("What it means for the verdict all the same.", TOLERATED_AS)] = "warning"
    why: Annotated[str, Meta(min_length=10, description="For the next reader.")]


class PolicyDocument(_Document, frozen=True, kw_only=True):
    """An appraisal policy."""

    schema: Annotated[str, _choice("The format of this document.", [POLICY_SCHEMA])]
    id: Annotated[
        Identifier, _about("Policies are assigned by it; each change of the text is a new revision.")
    ]
    description: Annotated[str, _about("One line for people.")] = ""
    validity: Annotated[
        str,
        Meta(
            description="How long a verdict may be relied on: 10s to 7d.",
            extra_json_schema={"pattern": "^[0-9]{1,6}(s|m|h|d)$"},
        ),
    ] = "15m"
    quote: QuoteDocument
    boot_log: Annotated[
        str, _choice("`optional`: its absence is a warning; `ignored`: no rule may read it.", LogUse)
    ] = "required"
    rules: Annotated[list[RuleDocument], Meta(min_length=1, max_length=MAX_RULES)]
    runtime: Annotated[
        RuntimeDocument | None, _about("What the machine may run, by its IMA list; left out: it is not read.")
    ] = None
    unjudged: list[UnjudgedDocument] = []
    tolerate: Annotated[
        list[TolerateDocument], Meta(max_length=64, description="Quirks of the boot log that are expected.")
    ] = []


class ReferenceValueDocument(_Document, frozen=True, kw_only=True):
    """One named reference value: digests of the same thing."""

    digests: AnyOf
    note: Annotated[str, _about("Shown beside the digest: which release it is.")] = ""


class ReferenceSetDocument(_Document, frozen=True, kw_only=True):
    """Reference values that rules name as `ref:ID/NAME`; every one must be used."""

    schema: Annotated[str, _choice("The format of this document.", [REFERENCE_SCHEMA])]
    id: Identifier
    description: str = ""
    values: dict[Identifier, ReferenceValueDocument]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (they can expand without bound), without duplicate keys, and with few guesses.

    Plain scalars are text but for `true`, `false`, `null` and short decimal numbers: a digest that happens
    to be all digits, or to look like 1e5, must stay the text it is.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc] # the stubs call it an instance's

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - PyYAML's own signature
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise PolicyError("YAML aliases are not allowed", where=f"line {event.start_mark.line + 1}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401, FBT001, FBT002
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)):
                raise PolicyError(f"key {key!r} is not text", where=f"line {key_node.start_mark.line + 1}")
            if key in seen:
                raise PolicyError(f"key {key!r} stands twice", where=f"line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|)$", ["n", ""]),
    ("int", r"^(?:0|[1-9][0-9]{0,5})$", "0123456789"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_documents(source: bytes) -> tuple[PolicyDocument | None, tuple[ReferenceSetDocument, ...]]:
    """Split a policy source into its one policy (None: none there) and its reference sets.

    Raises `PolicyError` naming the line or the key.
    """
    if len(source) > MAX_SOURCE:
        raise PolicyError(f"policy of {len(source)} bytes is larger than {MAX_SOURCE}")
    policy: PolicyDocument | None = None
    references: list[ReferenceSetDocument] = []
    for raw in _load_yaml(source):
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if schema == POLICY_SCHEMA:
            if policy is not None:
                raise PolicyError("a policy source holds exactly one policy document; this one has two")
            policy = _convert(raw, PolicyDocument)
        elif schema == REFERENCE_SCHEMA:
            references.append(_convert(raw, ReferenceSetDocument))
        else:
            raise PolicyError(
                f"schema is {schema!r}; write {POLICY_SCHEMA!r} or {REFERENCE_SCHEMA!r}", where="schema"
            )
    return policy, tuple(references)


def _load_yaml(source: bytes) -> list[Any]:
    try:
        text = source.decode("utf-8")
        return [document for document in yaml.load_all(text, Loader=_StrictLoader) if document is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise PolicyError(error.problem or "not YAML", where=f"line {line}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PolicyError(f"not YAML: {error}") from error


def _convert(raw: object, kind: type[Any]) -> Any:  # noqa: ANN401 - the caller names the type
    try:
        return msgspec.convert(raw, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        detail, _, where = str(error).partition(" - at `$")
        raise PolicyError(detail, where=where.rstrip("`").lstrip(".")) from error
