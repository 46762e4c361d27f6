"""CEL expressions: refused with a place, or compiled; a compiled one gives an answer or says that it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.conftest import ROOT
from tests.fuzz.targets import Bound
from verifier.errors import PolicyError
from verifier.policy.catalogue import CATALOGUE, Kind, Value
from verifier.policy.cel import Outcome, compile_program, run

RAISES = (PolicyError,)
RUNS = 300
CALLS = Bound(400, 100_000)
VALUES: dict[Kind, Value] = {
    Kind.BOOL: True, Kind.INT: -1, Kind.UINT: 3, Kind.STRING: "text", Kind.STRINGS: ["a", "b"], Kind.INTS: [1],
    Kind.TEXT_MAP: {"a": "b"}, Kind.NUMBER_MAP: {"a": 1}, Kind.BY_PCR: {7: "00"}, Kind.LISTS_BY_PCR: {7: ["00"]},
    Kind.TEXTS_BY_NAME: {"a": ["b"]},
}  # fmt: skip


def seeds() -> Iterator[bytes]:
    yield b"true"
    yield b"[1, 2].all(x, x < 3) && 'a'.matches('^[a-z]+$') && size({'a': 1}) == 1"
    yield b"1 / 0 == 1 || [1][5] == 2 || {'a': 1}['b'] == 1 || duration('1s') > duration('2s')"
    yield b"(" * 200 + b"true" + b")" * 200
    yield b"!" * 2000 + b"true"
    yield b" && ".join(b"%s == %s" % (name.encode(), name.encode()) for name in list(CATALOGUE)[:8])
    for path in sorted((ROOT / "policies").rglob("*.yaml")):
        yield from (
            found.encode() for found in re.findall(r"cel: ['\"]?(.*?)['\"]?$", path.read_text(), re.MULTILINE)
        )


def target(data: bytes) -> None:
    program = compile_program(data.decode("utf-8", "surrogateescape"))
    values = {name: VALUES[CATALOGUE[name].kind] for name in program.references}
    outcome, told = run(program, values)
    assert outcome in Outcome
    assert (outcome is Outcome.FAULTY) == bool(told)
