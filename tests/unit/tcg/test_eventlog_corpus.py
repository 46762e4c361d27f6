"""Every log of the shared corpus parses and replays as its origin states, or is refused for its stated reason."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import shared_path
from tests.event_logs import CORPUS, CorpusLog, corpus_logs, pcrs_of
from verifier.errors import MalformedInputError
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import LogFormat, ParsedEventLog, parse_event_log, replay

LOGS = list(corpus_logs())

REFUSED = {
    "nsacyber_HIRS/binary_bios_measurements_addEvt11asSPDMFirmwareBlob": (15265, "0x000c is not declared"),
    "nsacyber_HIRS/binary_bios_measurements_addEvt11asSPDMFirmwareBlob_version1": (
        15265,
        "0x000c is not declared",
    ),
    "google_go-attestation/inline/malformed_event_size_too_large.bin": (28, "event size 1206894525"),
    "google_go-attestation/inline/specid_invalid_version.bin": (53, "version 1.2"),
    "google_go-attestation/inline/specid_malicious_number_of_algs.bin": (56, "4294967295 algorithms"),
    "keylime_keylime/binary_bios_measurements-bogus": (28, "event size 1919248394"),
    "keylime_keylime/binary_bios_measurements-empty": (0, "0 are here"),
}
"""Logs whose origin says that they must not parse: where the fault is, and what it is."""

UNEXPLAINED = {
    "immune-gmbh_guard-oss/evidence/hahuri-invalid-eventlog.eventlog.bin": ("sha1:11", "sha256:11"),
    "immune-gmbh_guard-oss/evidence/t480s.eventlog.bin": ("sha1:12", "sha1:13"),
}
"""Besides those the corpus names: the first says so in its name, the second has a wrong SHA-1 bank throughout."""

ACCEPTED = [log for log in LOGS if log.file not in REFUSED]


def parsed(log: CorpusLog | None) -> ParsedEventLog:
    if log is None:
        shared_path("corpus/VALIDATION_eventlogs.tsv")
    assert log is not None
    return parse_event_log(log.data)


@pytest.mark.parametrize("log", ACCEPTED or [None], ids=str)
def test_events_banks_and_localities_are_those_of_an_independent_parser(log: CorpusLog | None) -> None:
    own = parsed(log)
    assert log is not None
    count = re.search(r"(\d+) events", log.own_parser)
    assert count is not None
    assert len(own.events) == int(count[1])
    assert own.format is (LogFormat.SHA1 if log.own_parser.startswith("sha1") else LogFormat.CRYPTO_AGILE)
    assert tuple(alg.label for alg in own.algorithms) == log.banks
    stated = re.search(r"locality (\d)", log.own_parser)
    assert own.locality == (int(stated[1]) if stated else None)
    assert own.hcrtm == ("HCRTM" in log.own_parser)
    assert (Quirk.PADDED in own.quirks) == ("padding" in log.own_parser)


@pytest.mark.parametrize("file", sorted(REFUSED))
def test_a_log_that_must_not_parse_is_refused_at_its_fault(file: str) -> None:
    data = shared_path(f"corpus/{file}").read_bytes()
    offset, detail = REFUSED[file]
    with pytest.raises(MalformedInputError) as raised:
        parse_event_log(data)
    assert raised.value.offset == offset
    assert detail in raised.value.detail


STATED = [log for log in ACCEPTED if re.search(r" vs \S+\.json", log.stated)]


@pytest.mark.parametrize("log", STATED or [None], ids=str)
def test_pcrs_are_those_the_origin_states(log: CorpusLog | None) -> None:
    """All of them, but for those of which the corpus says that the log does not explain them."""
    own = parsed(log)
    assert log is not None
    name = re.search(r" vs (\S+\.json)", log.stated)
    assert name is not None
    compared = 0
    for bank, pcr, expected in _stated_pcrs(log, name[1]):
        values = replay(own, bank) if bank in own.algorithms else {}
        differs = f"{bank.label}:{pcr}"
        if pcr not in values or (_excepted(log, differs) and values[pcr] != expected):
            continue
        assert values[pcr].hex() == expected.hex(), differs
        assert not _excepted(log, differs), f"{differs} was expected to differ"
        compared += 1
    matches = re.match(r"(\d+) match", log.stated)
    if matches and _exists(name[1]):
        assert compared >= int(matches[1])


def _exists(name: str) -> bool:
    return any(path.is_file() for path in (CORPUS / name, *CORPUS.glob(f"*/{name}")))


def _excepted(log: CorpusLog, pcr: str) -> bool:
    return pcr in re.findall(r"sha\d+:\d+", log.stated) or pcr in UNEXPLAINED.get(log.file, ())


def _stated_pcrs(log: CorpusLog, name: str) -> list[tuple[HashAlg, int, bytes]]:
    paths = [path for path in (CORPUS / name, *CORPUS.glob(f"*/{name}")) if path.is_file()]
    if not paths:
        pytest.skip(
            f"SKIPPED FOR WANT OF DATA: the corpus has no {name}, so the stated PCRs were not compared"
        )
    document = json.loads(paths[0].read_text())
    if "pcrs" in document:
        stated = pcrs_of(document["pcrs"])
        return [(bank, pcr, value) for bank, values in stated.items() for pcr, value in values.items()]
    registers = document["sha384"].get(log.file.rsplit("/", 1)[1], {})
    return [
        (HashAlg.SHA384, int(register.removeprefix("rtmr")) + 1, bytes.fromhex(value))
        for register, value in registers.items()
    ]
