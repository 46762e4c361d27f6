"""Expressions that can come out one way only are found; none is called so that can come out both ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.policy.cel import Outcome, compile_program, run
from verifier.policy.cel_logic import Verdict, analyse
from verifier.policy.cel_text import code

SB, SETUP, LINE = "boot.secure_boot.enabled", "boot.secure_boot.setup_mode", "boot.kernel_command_line"
FIRMWARE, LOCALITY, SECTIONS = "quote.firmware_version", "boot.startup_locality", "boot.uki.sections"

ALWAYS = [
    f"{SB} || !{SB}",
    f"{SB} == true || {SB} == false",
    f"{SB} ? true : !{SB}",
    f"{SB} == {SETUP} || {SB} != {SETUP}",
    "!('a' in boot.phases) || 'a' in boot.phases",
    f"{FIRMWARE} >= 0u",
    f"0u <= {FIRMWARE}",
    "size(boot.phases) >= 0",
    f"{FIRMWARE} > 3u || {FIRMWARE} < 5u",
    f"{LINE} != 'a' || {LINE} != 'b'",
    f"{LINE} < 'a' || {LINE} >= 'a'",
    f"{LINE} == {LINE}",
    f"{SECTIONS}['.linux'] <= {SECTIONS}['.linux']",
    f"{SECTIONS}['a'] < {SECTIONS}['b'] || {SECTIONS}['b'] <= {SECTIONS}['a']",
    "boot.phases.all(p, true)",
    "boot.phases.all(p, p != 'a' || p != 'b')",
    f"{LINE}.matches('x') || !{LINE}.matches('x')",
    "1 < 2",
    "'a' in ['a', 'b']",
]
NEVER = [
    f"{SB} && !{SB}",
    f"{FIRMWARE} < 0u",
    f"{FIRMWARE} > 3u && {FIRMWARE} < 4u",
    f"{LOCALITY} in [0, 3, 4] && {LOCALITY} > 4",
    f"{LINE} == 'a' && {LINE} == 'b'",
    f"{LINE} in ['a', 'b'] && {LINE} == 'c'",
    f"{LINE} in []",
    "boot.phases.exists(p, p == 'a' && p == 'b')",
    "boot.phases.exists(p, false)",
    f"{SECTIONS}['a'] < {SECTIONS}['b'] && {SECTIONS}['b'] < {SECTIONS}['a']",
    "'c' in ['a', 'b']",
    f"{LOCALITY} > 9223372036854775807",
]
DEPENDS = [
    SB,
    f"{FIRMWARE} > 0u",
    f"{FIRMWARE} > 3u && {FIRMWARE} < 5u",
    "size(boot.phases) > 0",
    "boot.phases.all(p, false)",  # true of an empty list
    "boot.phases.exists(p, true)",  # false of one
    "boot.phases.exists_one(p, p == 'a')",
    "boot.phases.map(p, p + 'x') == ['ax']",
    "boot.phases.filter(p, p > 'a').size() == 1",
    f"{LINE} > 'a' && {LINE} < 'ab'",
    f"{LINE} in boot.phases",
    f"double({LINE}) == double({LINE})",  # not of NaN
    f"1.5 < double({LINE})",
    f"has({SECTIONS}.x)",
    f"{SECTIONS} == {{}}",
    f"b'a' == bytes({LINE})",
    f"[{LINE}] == boot.phases",
]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(text, Verdict.ALWAYS) for text in ALWAYS]
    + [(text, Verdict.NEVER) for text in NEVER]
    + [(text, Verdict.DEPENDS) for text in DEPENDS],
)
def test_what_can_come_out_one_way_only_is_found(text: str, verdict: Verdict) -> None:
    assert analyse(compile_program(text).tree).verdict is verdict


def test_too_many_cases_are_not_tried() -> None:
    many = " && ".join(f"'{number}' in boot.phases" for number in range(13))
    assert analyse(compile_program(f"({many}) || !({many})").tree).verdict is Verdict.DEPENDS
    assert analyse(compile_program(f"{SB} || !{SB}").tree, max_cases=1).verdict is Verdict.DEPENDS


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        (f"{SB} || {SB} && {SETUP}", (SETUP,)),
        (f"{SB} && size(boot.phases) >= 0", ("size(boot.phases)",)),
        (f"{SB} && ({LINE}.contains('x') || true)", (f'{LINE}.contains("x")',)),
        (f"{SB} && {SETUP}", ()),
    ],
)
def test_a_part_that_decides_nothing_is_named(text: str, idle: tuple[str, ...]) -> None:
    assert analyse(compile_program(text).tree).idle == idle


ATOMS = st.sampled_from(
    [
        SB,
        SETUP,
        f"{SB} == {SETUP}",
        f"{LINE} == 'a'",
        f"{LINE} < 'b'",
        f"'b' >= {LINE}",
        f"{LINE} in ['', 'a', 'ab']",
        f"{LINE}.startsWith('a')",
        f"{FIRMWARE} > 3u",
        f"4u != {FIRMWARE}",
        f"{FIRMWARE} in [0u, 18446744073709551615u]",
        f"{LOCALITY} <= -1",
        f"{LOCALITY} == 3",
        f"{LOCALITY} < size(boot.phases)",
        "size(boot.phases) > 1",
        "'a' in boot.phases",
        "boot.phases.all(p, p == 'a')",
        "boot.phases.exists(p, p > 'a')",
        "true",
        "false",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map("!({})".format),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) && ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) || ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) == ({pair[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]}) ? ({t[1]}) : ({t[2]})"),
    ),
    max_leaves=8,
)
TEXTS = st.sampled_from(["", "a", "aa", "ab", "b", "c"])
VALUES = st.fixed_dictionaries(
    {
        SB: st.booleans(),
        SETUP: st.booleans(),
        LINE: TEXTS,
        FIRMWARE: st.sampled_from([0, 3, 4, 5, 2**64 - 1]),
        LOCALITY: st.sampled_from([-(2**63), -1, 0, 1, 3, 4, 2**63 - 1]),
        "boot.phases": st.lists(TEXTS, max_size=3),
    }
)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, st.lists(VALUES, min_size=1, max_size=8))
def test_no_run_contradicts_the_analysis(text: str, cases: list[dict]) -> None:
    program = compile_program(text)
    analysis = analyse(program.tree)
    for values in cases:
        outcome, _ = run(program, values)
        if analysis.verdict is Verdict.ALWAYS:
            assert outcome is Outcome.HOLDS
        elif analysis.verdict is Verdict.NEVER:
            assert outcome is Outcome.BROKEN


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, VALUES)
def test_an_expression_written_out_again_means_the_same(text: str, values: dict) -> None:
    program = compile_program(text)
    again = compile_program(code(program.tree))
    assert run(program, values) == run(again, values)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"has({SECTIONS}.x)", f"has({SECTIONS}.x)"),
        (f"{SECTIONS}.x == 'é'", f'{SECTIONS}.x == "é"'),
        (f"-{LOCALITY} == 1", f"-{LOCALITY} == 1"),
        (f"size({SECTIONS}) == size({{'a': 'b'}})", f"size({SECTIONS}) == size({{…}})"),
        (f"bytes({LINE}) == b'\\x01'", f"bytes({LINE}) == b'\\x01'"),
        ("boot.phases.filter(p, p != '') == []", "boot.phases.…(p, …) == []"),
        (f"{FIRMWARE} == 3u", f"{FIRMWARE} == 3u"),
        (f"null == null || {SB}", f"(null == null) || {SB}"),
    ],
)
def test_parts_are_shown_as_code(text: str, shown: str) -> None:
    assert code(compile_program(text).tree) == shown
