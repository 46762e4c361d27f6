"""CEL expressions: what is refused when a policy is parsed, and what an evaluation can come to."""

from __future__ import annotations

import copy
import pickle
import threading
import time

import pytest

from verifier.errors import PolicyError
from verifier.policy.cel import MAX_EXPRESSION, Outcome, compile_program, run, unfit

SB = "boot.secure_boot.enabled"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("boot.secure_bot.enabled", "line 1 column 16", "did you mean boot.secure_boot.enabled?"),
        ("true &&\n  boot.foo", "line 2 column 7", "'boot.foo' is neither a claim nor a function"),
        ("boot.kernel_command_line.lower() == ''", "line 1 column 31", "neither a claim nor a function"),
        (f"{SB} == 1", "line 1 column 26", "found no matching overload for '_==_' applied to '(bool, int)'"),
        ("quote.firmware_version > 3", "line 1 column 24", "an unsigned number such as 3u"),
        ("1 +", "line 1 column 4", "Syntax error"),
        ("// nothing", "line 1 column 11", "Syntax error"),
        ("boot.phases", "", "a rule has type bool"),
        (f"{SB} ? 'a' : 'b'", "", "type string; a rule has type bool"),
        ("dyn(boot.phases) == 1", "", "mixes types"),
        ("boot.kernel_command_line in ['a', 1]", "", "mixes types"),
        ("google.protobuf.BoolValue{value: true} == true", "", "message google.protobuf.BoolValue"),
        ("boot.kernel_command_line.matches('(')", "", "missing )"),
        ("boot.phases.exists(p, 'x'.matches(p))", "", "literal pattern"),
        (
            "boot.phases.all(a, boot.phases.all(b, boot.phases.all(c, a == b || b == c)))",
            "",
            "loops are nested more than 2 deep",
        ),
        ("(" * 40 + SB + ")" * 40, "", "recursion limit"),
        (f"{SB} && " * 400 + SB, "", f"{MAX_EXPRESSION} are allowed"),
        (f"{SB}\0 || true", "", r"control character '\x00'"),
        ("boot.kernel_command_line == '\ud800'", "", r"control character '\ud800'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, where: str, what: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_program(text)
    assert what in caught.value.detail
    assert caught.value.structure == where


@pytest.mark.parametrize(
    ("text", "references"),
    [
        (SB, (SB,)),
        (f"!{SB} // boot.kernel_command_line", (SB,)),
        ("boot.kernel_command_line == 'boot.secure_boot.enabled'", ("boot.kernel_command_line",)),
        ("boot.phases.all(boot, boot != 'x')", ("boot.phases",)),
        ("has(boot.uki.sections.linux)", ("boot.uki.sections",)),
        ("'.linux' in boot.uki.sections && boot.uki.sections['.linux'] == 'a'", ("boot.uki.sections",)),
        ("quote.pcrs[7] == boot.digests[4][0]", ("quote.pcrs", "boot.digests")),
        (".boot.secure_boot.enabled", (SB,)),
        ("b'a' == b'b' || 1.5 > double(quote.firmware_version)", ("quote.firmware_version",)),
        ("'a' == 'a'", ()),
    ],
)
def test_the_claims_an_expression_reads_are_those_it_names(text: str, references: tuple[str, ...]) -> None:
    assert compile_program(text).references == references


LINE = "boot.kernel_command_line"


@pytest.mark.parametrize(
    ("text", "values", "outcome", "problem"),
    [
        (SB, {SB: True}, Outcome.HOLDS, ""),
        (SB, {SB: False}, Outcome.BROKEN, ""),
        (f"{LINE}.matches('(^| )ima_policy=tcb( |$)')", {LINE: "quiet ima_policy=tcb"}, Outcome.HOLDS, ""),
        ("boot.uki.sections['.x'] == 'a'", {"boot.uki.sections": {}}, Outcome.FAULTY, "Key not found"),
        ("1 / boot.startup_locality == 1", {"boot.startup_locality": 0}, Outcome.FAULTY, "divide by zero"),
        ("quote.firmware_version > 3u", {"quote.firmware_version": 2**64 - 1}, Outcome.HOLDS, ""),
        ("quote.firmware_version > 3u", {"quote.firmware_version": 2**64}, Outcome.FAULTY, "OUT_OF_RANGE"),
        ("boot.digests[4].exists(d, d == 'a')", {"boot.digests": {4: ["b", "a"]}}, Outcome.HOLDS, ""),
        (SB, {}, Outcome.FAULTY, "No value"),
    ],
)
def test_an_expression_holds_or_not_or_cannot_be_computed(
    text: str, values: dict, outcome: Outcome, problem: str
) -> None:
    result, why = run(compile_program(text), values)
    assert result is outcome
    assert problem in why


def test_a_long_list_costs_no_more_than_its_budget() -> None:
    program = compile_program("boot.phases.all(a, boot.phases.all(b, a != 'x' || b != 'x'))")
    start = time.perf_counter()
    result, why = run(program, {"boot.phases": ["a"] * 5000})
    assert (result, "budget" in why) == (Outcome.FAULTY, True)
    assert time.perf_counter() - start < 1.0


def test_a_regular_expression_is_linear_in_its_text() -> None:
    program = compile_program(f"{LINE}.matches('^(a+)+$')")
    start = time.perf_counter()
    assert run(program, {LINE: "a" * 20_000 + "b"})[0] is Outcome.BROKEN
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    "value",
    ["quiet\0init=/bin/sh", "\ud800", ["ok", "a\0"], {"k\0": "v"}, {"k": "v\0"}, {4: ["a", "\udfff"]}],
)
def test_text_that_the_runtime_would_cut_is_unfit(value: object) -> None:
    assert unfit(value)


@pytest.mark.parametrize("value", ["quiet", "", "é😀", True, 3, [], ["a"], {"k": "v"}, {4: ["a"]}])
def test_every_other_value_is_fit(value: object) -> None:
    assert not unfit(value)


def test_the_runtime_really_cuts_text_at_a_nul() -> None:
    """Why `unfit` exists; when this fails, the library has mended it."""
    assert run(compile_program(f"{LINE} == 'quiet'"), {LINE: "quiet\0init=/bin/sh"})[0] is Outcome.HOLDS


def test_programs_are_equal_by_their_text_and_can_be_copied() -> None:
    program = compile_program(SB)
    assert program == compile_program(SB)
    assert hash(program) == hash(compile_program(SB))
    for twin in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program)):
        assert twin == program
        assert run(twin, {SB: True})[0] is Outcome.HOLDS


def test_one_program_may_run_in_many_threads() -> None:
    program = compile_program("boot.phases.exists(p, p == 'ready')")
    wrong: list[object] = []

    def work() -> None:
        for number in range(500):
            phases = ["ready"] if number % 2 else ["sysinit"]
            if (run(program, {"boot.phases": phases})[0] is Outcome.HOLDS) != bool(number % 2):
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
