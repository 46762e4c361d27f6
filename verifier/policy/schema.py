"""The policy document as JSON Schema (draft 2020-12), made from the types that parse it.

It says what can be written, for editors and generators; what makes sense together is for `lint`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from verifier.policy.document import RULE_KINDS, PolicyDocument, ReferenceSetDocument, RuleDocument

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID: Final = "urn:vtpm-attest:schema:policy:1"
_TEMPLATE: Final = "#/$defs/{name}"


def policy_schema() -> dict[str, Any]:
    """One schema for a document of a policy file: the policy itself, or a set of reference values."""
    _, components = msgspec.json.schema_components(
        [PolicyDocument, ReferenceSetDocument], ref_template=_TEMPLATE
    )
    definitions = {name: dict(schema) for name, schema in components.items()}
    rule = definitions[RuleDocument.__name__]
    rule["oneOf"] = [{"required": [kind]} for kind in RULE_KINDS]
    for kind in RULE_KINDS:
        rule["properties"] = {**rule["properties"], kind: _present(rule["properties"][kind])}
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": SCHEMA_ID,
        "title": "vtpm-attest policy document",
        "anyOf": [
            {"$ref": _TEMPLATE.format(name=kind.__name__)} for kind in (PolicyDocument, ReferenceSetDocument)
        ],
        "$defs": definitions,
    }
    return msgspec.json.decode(
        msgspec.json.encode(schema), type=dict[str, Any]
    )  # defaults are tuples in Python


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """A rule's kind is written or left out; the null that the parser also takes helps nobody who writes."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return {**choices[0], **kept} if choices else kept
