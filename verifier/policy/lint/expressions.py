"""Relations between rules on claims: every such rule is an expression, whatever form it is written in."""

from __future__ import annotations

from functools import reduce
from typing import Final

from verifier.policy import model
from verifier.policy.cel_logic import Verdict, analyse
from verifier.policy.cel_tree import Call, Const, Ident, ListOf, Node
from verifier.policy.lint.relation import Relation

PAIR_CASES: Final = 512
"""Far fewer than for one expression alone: there are many pairs."""
Expression = tuple[frozenset[str], Node]
"""The claims read, and the tree."""


def expression_of(rule: model.Rule) -> Expression | None:
    """A rule on claims as an expression.

    None for rules on PCRs and events, and for what can come out one way only, which is a problem of that rule.
    """
    found = _expression(rule)
    if found is None or analyse(found[1]).verdict is not Verdict.DEPENDS:
        return None
    return found


def _expression(rule: model.Rule) -> Expression | None:
    match rule:
        case model.CelRule(program=program):
            return frozenset(program.references), program.tree
        case model.SecureBootRule(enabled=enabled):
            claim = Ident("boot.secure_boot.enabled")
            return frozenset(model.references(rule)), claim if enabled else _not(claim)
        case model.CommandLineRule():
            return frozenset({"boot.kernel_command_line", "boot.kernel_arguments"}), _command_line(rule)
        case _:
            return None


def compare_expressions(first: Expression, second: Expression) -> Relation:
    """Two expressions over a claim in common.

    One follows from another only where it reads no claim beside: an unproven one keeps a rule from passing.
    """
    (left_claims, left), (right_claims, right) = first, second
    if not left_claims & right_claims:
        return Relation.NONE
    if _never(_and(left, right)):
        return Relation.EXCLUSIVE
    return Relation.of_implications(
        first_second=right_claims <= left_claims and _never(_and(left, _not(right))),
        second_first=left_claims <= right_claims and _never(_and(right, _not(left))),
    )


def _never(tree: Node) -> bool:
    return analyse(tree, PAIR_CASES).verdict is Verdict.NEVER


def _command_line(rule: model.CommandLineRule) -> Node:
    arguments = Ident("boot.kernel_arguments")
    words: list[Node] = [Call("@in", (Const(word), arguments)) for word in sorted(rule.require)]
    words += [_not(Call("@in", (Const(word), arguments))) for word in sorted(rule.forbid)]
    if rule.any_of:
        lines = ListOf(tuple(Const(line) for line in sorted(rule.any_of)))
        words.append(Call("@in", (Ident("boot.kernel_command_line"), lines)))
    return reduce(_and, words)


def _and(left: Node, right: Node) -> Node:
    return Call("_&&_", (left, right))


def _not(node: Node) -> Node:
    return Call("!_", (node,))
