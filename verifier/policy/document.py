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

MAX_SOURCE: Final = 8 * 1024 * 1024
Identifier = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Pcr = Annotated[int, Meta(ge=0, le=23)]
DigestText = Annotated[str, Meta(min_length=1, max_length=256)]
"""Hex, or `ref:SET/NAME` naming a reference value."""


class _Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class QuoteDocument(_Document, frozen=True, kw_only=True):
    """`quote:` of a policy."""

    bank: str = "sha256"
    pcrs: Annotated[list[Pcr], Meta(min_length=1, max_length=24)]
    signature_hashes: tuple[str, ...] = ("sha256", "sha384", "sha512")


class PcrDocument(_Document, frozen=True, kw_only=True):
    """`pcr:` golden values of one PCR."""

    index: Pcr
    any_of: Annotated[list[DigestText], Meta(min_length=1)]


class EventDocument(_Document, frozen=True, kw_only=True):
    """`event:` events of one PCR, by proven name or by digest alone.

    There is no selection by event type: types are not measured, so a forger chooses them.
    """

    pcr: Pcr
    name: str | None = None
    occurs: str = "once"
    any_of: list[DigestText] | None = None


class StepDocument(_Document, frozen=True, kw_only=True):
    """One place in a `sequence:`."""

    label: str = ""
    any_of: Annotated[list[DigestText], Meta(min_length=1)]
    optional: bool = False


class SequenceDocument(_Document, frozen=True, kw_only=True):
    """`sequence:` every measured event of a PCR, in order."""

    pcr: Pcr
    steps: list[StepDocument]


class CommandLineDocument(_Document, frozen=True, kw_only=True):
    """`command_line:` what the kernel may have been told."""

    any_of: list[str] = []
    require: list[str] = []
    forbid: list[str] = []


class RuleDocument(_Document, frozen=True, kw_only=True):
    """One rule: exactly one of the kinds below its head."""

    id: Identifier
    severity: str = "contraindicated"
    claim: str
    message: str | None = None
    pcr: PcrDocument | None = None
    event: EventDocument | None = None
    sequence: SequenceDocument | None = None
    secure_boot: str | None = None
    command_line: CommandLineDocument | None = None
    cel: Annotated[str, Meta(min_length=1)] | None = None


RULE_KINDS: Final = ("pcr", "event", "sequence", "secure_boot", "command_line", "cel")


class UnjudgedDocument(_Document, frozen=True, kw_only=True):
    """PCRs that are quoted but not judged, and why that is right."""

    pcrs: Annotated[list[Pcr], Meta(min_length=1)]
    why: Annotated[str, Meta(min_length=10)]


class PolicyDocument(_Document, frozen=True, kw_only=True):
    """The `vtpm-attest/policy/1` document."""

    schema: str
    id: Identifier
    description: str = ""
    validity: str = "15m"
    quote: QuoteDocument
    boot_log: str = "required"
    rules: Annotated[list[RuleDocument], Meta(min_length=1, max_length=2048)]
    unjudged: list[UnjudgedDocument] = []


class ReferenceValueDocument(_Document, frozen=True, kw_only=True):
    """One named reference value: digests of the same thing."""

    digests: Annotated[list[DigestText], Meta(min_length=1)]
    note: str = ""


class ReferenceSetDocument(_Document, frozen=True, kw_only=True):
    """The `vtpm-attest/reference-values/1` document."""

    schema: str
    id: Identifier
    description: str = ""
    values: dict[Identifier, ReferenceValueDocument]


POLICY_SCHEMA: Final = "vtpm-attest/policy/1"
REFERENCE_SCHEMA: Final = "vtpm-attest/reference-values/1"


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
