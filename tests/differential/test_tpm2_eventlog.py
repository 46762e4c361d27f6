"""The parser and tpm2-tools' `tpm2_eventlog` agree on every log that tool can read.

Where they do not, `ledger.toml` says in what and why. An agreement that the ledger does not expect fails as well:
then one of the two changed, and the reason is out of date.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import shared_path
from tests.event_logs import CAPTURES, CORPUS, corpus_logs
from verifier.errors import EvidenceError
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.event_types import EVENT_TYPE_BY_NAME
from verifier.tcg.eventlog import ParsedEventLog, parse_event_log, replay

TOOL = shutil.which("tpm2_eventlog")
LEDGER = tomllib.loads((Path(__file__).parent / "ledger.toml").read_text())
CAPTURED = sorted(CAPTURES.glob("*/binary_bios_measurements"))
CORPUS_LOGS = list(corpus_logs())

pytestmark = pytest.mark.skipif(
    TOOL is None, reason="SKIPPED FOR WANT OF A TOOL: tpm2_eventlog is not installed"
)

_FIELD = re.compile(r"^  ?(PCRIndex|EventType|EventSize): (.+)$")
_DIGEST = re.compile(r'^  (?:  |- )?Digest: "([0-9a-f]+)"$')
_ALGORITHM = re.compile(r"^  - AlgorithmId: (\S+)$")
_BANK = re.compile(r"^  (\w+):$")
_PCR = re.compile(r"^    (\d+) *: 0x([0-9a-f]+)$")


@dataclass
class ToolEvent:
    pcr: int = -1
    kind: str = ""
    size: int = -1
    digests: dict[HashAlg, str] = field(default_factory=dict)


@dataclass
class ToolResult:
    """What tpm2_eventlog printed, scanned line by line: it is not always valid YAML."""

    status: int
    events: list[ToolEvent] = field(default_factory=list)
    pcrs: dict[HashAlg, dict[int, str]] = field(default_factory=dict)


def run_tool(path: Path) -> ToolResult:
    done = subprocess.run([str(TOOL), str(path)], capture_output=True, check=False, timeout=60)
    result = ToolResult(done.returncode)
    if done.returncode != 0:
        return result
    text = done.stdout.decode("latin-1")
    events, _, pcrs = text.rpartition("\npcrs:")
    for block in re.split(r"^(?=  PCRIndex: )", events, flags=re.MULTILINE)[1:]:
        result.events.append(_scan_event(block))
    bank: HashAlg | None = None
    for line in pcrs.splitlines():
        if name := _BANK.match(line):
            bank = HASH_BY_LABEL[name[1]]
        elif (pcr := _PCR.match(line)) and bank is not None:
            result.pcrs.setdefault(bank, {})[int(pcr[1])] = pcr[2]
    return result


def _scan_event(block: str) -> ToolEvent:
    event, algorithm = ToolEvent(), HashAlg.SHA1
    for line in block.splitlines():
        if found := _FIELD.match(line):
            name, value = found.groups()
            if name == "PCRIndex":
                event.pcr = int(value)
            elif name == "EventType":
                event.kind = value
            elif event.size < 0:
                event.size = int(value)
        elif found := _ALGORITHM.match(line):
            algorithm = HASH_BY_LABEL[found[1]]
        elif (found := _DIGEST.match(line)) and event.size < 0:
            event.digests[algorithm] = found[1]
    return event


def divergences(path: Path) -> set[str]:
    """In what the two differ: `refuses`, `accepts`, `events`, `pcrs`."""
    tool = run_tool(path)
    try:
        own = parse_event_log(path.read_bytes())
    except EvidenceError:
        return {"accepts"} if tool.status == 0 else set()
    if tool.status != 0:
        return {"refuses"}
    found = set()
    if not _same_events(own, tool):
        found.add("events")
    if {bank: _hex(replay(own, bank)) for bank in own.algorithms if replay(own, bank)} != tool.pcrs:
        found.add("pcrs")
    return found


def _hex(values: dict[int, bytes]) -> dict[int, str]:
    return {pcr: value.hex() for pcr, value in values.items()}


def _same_events(own: ParsedEventLog, tool: ToolResult) -> bool:
    if len(own.events) != len(tool.events):
        return False
    for event, seen in zip(own.events, tool.events, strict=True):
        if (event.pcr, len(event.data)) != (seen.pcr, seen.size):
            return False
        if EVENT_TYPE_BY_NAME.get(seen.kind, event.event_type) != event.event_type:
            return False
        digests = {
            alg: value.hex() for alg, value in zip(own.algorithms, event.digests, strict=True) if value
        }
        if digests and digests != seen.digests:
            return False
    return True


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.parent.name)
def test_both_agree_on_every_captured_boot(path: Path) -> None:
    assert divergences(path) == set()


@pytest.mark.parametrize("file", [log.file for log in CORPUS_LOGS] or [None])
def test_both_agree_on_the_corpus_but_for_what_the_ledger_says(file: str | None) -> None:
    path = shared_path(f"corpus/{file}" if file else "corpus")
    expected = set(LEDGER.get(file, {}).get("differs", ()))
    found = divergences(path)
    assert found == expected, f"{file}: {found or 'agreement'} where the ledger has {expected or 'nothing'}"


def test_every_entry_of_the_ledger_is_a_log_and_has_a_reason() -> None:
    shared_path("corpus/VALIDATION_eventlogs.tsv")
    files = {log.file for log in CORPUS_LOGS}
    for file, entry in LEDGER.items():
        assert file in files
        assert len(entry["reason"]) > 20
        assert set(entry["differs"]) <= {"refuses", "accepts", "events", "pcrs"}
    assert CORPUS.is_dir()
