"""systemd's log of its own measurements: what is read, what is skipped, what is refused and where."""

from __future__ import annotations

import json

import pytest

from tests.simulator import SoftwareTpm
from tests.userspace import HARDWARE, MACHINE_ID, Systemd, record
from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.userspace_log import DEFAULT_LIMIT, MAX_RECORDS, parse_userspace_log
from verifier.tcg.userspace_text import kind_of, machine_id, nvpcr_start, product_id

SHA256 = HashAlg.SHA256
ONE = record({SHA256: SHA256.digest(b"ready")}, "ready", "phase", pcr=11)


def booted() -> Systemd:
    return Systemd(SoftwareTpm(1)).boot()


def test_every_record_of_a_boot_is_read_with_its_place_in_the_log() -> None:
    systemd = booted()
    parsed = parse_userspace_log(systemd.log)
    assert parsed.torn == 0
    assert len(parsed.events) == len(systemd.records)
    identity = next(event for event in parsed.events if event.pcr == 15)
    assert identity.text == f"machine-id:{MACHINE_ID}"
    assert identity.label == "machine-id"
    assert identity.digests[SHA256] == SHA256.digest(f"machine-id:{MACHINE_ID}".encode())
    assert set(identity.digests) == {HashAlg.SHA1, SHA256}
    assert systemd.log[identity.offset :].startswith(b'{"pcr":15')
    product = next(event for event in parsed.events if event.nv_index == HARDWARE)
    assert (product.pcr, product.nv_name, set(product.digests)) == (None, "hardware", {SHA256})


def test_lines_of_json_say_the_same_as_the_framed_sequence() -> None:
    systemd = booted()
    lines = systemd.log.replace(b"\x1e", b"")
    assert [event._replace(offset=0) for event in parse_userspace_log(lines).events] == [
        event._replace(offset=0) for event in parse_userspace_log(systemd.log).events
    ]


@pytest.mark.parametrize("framing", [b"\x1e", b""])
@pytest.mark.parametrize("kept", range(1, len(ONE) - 2, 7))
def test_a_last_record_that_is_still_being_written_is_left_out(kept: int, framing: bytes) -> None:
    whole, cut = framing + ONE[1:], framing + ONE[1:][:kept]
    parsed = parse_userspace_log(whole + whole + cut)
    assert (len(parsed.events), parsed.torn) == (2, 1)


def test_a_record_whose_writer_died_is_skipped_and_counted() -> None:
    parsed = parse_userspace_log(ONE + ONE[:40] + ONE)
    assert (len(parsed.events), parsed.torn) == (2, 1)


def test_an_empty_log_has_no_events() -> None:
    assert parse_userspace_log(b"").events == ()
    assert parse_userspace_log(b"\n \n").events == ()


def changed(**members: object) -> bytes:
    document = json.loads(ONE[1:]) | members
    return json.dumps({name: value for name, value in document.items() if value != "-"}).encode() + b"\n"


GOOD = {"hashAlg": "sha256", "digest": "00" * 32}
BAD = {
    "not JSON": b"{\n",
    "no object": b"[]\n",
    "neither PCR nor index": changed(pcr="-"),
    "both": changed(nv_index=HARDWARE),
    "PCR out of range": changed(pcr=24),
    "negative PCR": changed(pcr=-1),
    "PCR as text": changed(pcr="11"),
    "an index that is none": changed(pcr="-", nv_index=0x81000001),
    "no digests": changed(digests=[]),
    "too many digests": changed(digests=[GOOD | {"hashAlg": f"alg{n}"} for n in range(9)]),
    "a digest of another length": changed(digests=[GOOD | {"digest": "00" * 20}]),
    "a digest that is not hexadecimal": changed(digests=[GOOD | {"digest": "0x" * 32}]),
    "white space in a digest": changed(digests=[GOOD | {"digest": " 00" * 16 + "0" * 16}]),
    "one algorithm twice": changed(digests=[GOOD, GOOD]),
    "content that is a number": changed(content=5),
    "a text that is a number": changed(content={"string": 5}),
    "bytes that are not UTF-8": ONE[1:].replace(b"ready", b"\xff\xfe"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_whole_record_that_is_wrong_refuses_the_log_and_says_where(what: str) -> None:
    for framing in (b"\x1e", b""):
        log = framing + ONE[1:] + framing + BAD[what] + framing + ONE[1:]
        with pytest.raises(MalformedInputError) as caught:
            parse_userspace_log(log)
        assert caught.value.offset == len(framing + ONE[1:]) + len(framing), what


def test_unknown_members_algorithms_and_content_types_are_passed_over() -> None:
    log = changed(recnum=7, digests=[GOOD, {"hashAlg": "sha999", "digest": "zz"}])
    (event,) = parse_userspace_log(log).events
    assert set(event.digests) == {SHA256}
    (foreign,) = parse_userspace_log(changed(content_type="pcclient_std", content=[1])).events
    assert foreign.text is None


def test_size_and_number_are_bounded() -> None:
    with pytest.raises(MalformedInputError, match="at most"):
        parse_userspace_log(b" " * (DEFAULT_LIMIT + 1))
    short = b'\x1e{"pcr":1,"digests":[{"hashAlg":"sha256","digest":"%s"}]}\n' % (b"0" * 64)
    assert len(short) * (MAX_RECORDS + 1) < DEFAULT_LIMIT
    assert len(parse_userspace_log(short * MAX_RECORDS).events) == MAX_RECORDS
    with pytest.raises(MalformedInputError, match="records"):
        parse_userspace_log(short * (MAX_RECORDS + 1))


def test_deep_nesting_is_refused_not_followed() -> None:
    nested = b'\x1e{"pcr":1,"digests":[],"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    with pytest.raises(MalformedInputError):
        parse_userspace_log(nested)


def test_what_a_text_says_is_read_whole_or_not_at_all() -> None:
    assert machine_id(f"machine-id:{MACHINE_ID}") == MACHINE_ID
    assert machine_id(f"machine-id:{MACHINE_ID}\n") is None
    assert machine_id(f"machine-id:{MACHINE_ID.upper()}") is None
    assert product_id("product-id:missing") == "missing"
    assert kind_of("os-separator") == "os-separator"
    assert kind_of("ready") is None
    assert kind_of("db:anything") is None


def test_the_start_of_an_nvpcr_is_read_in_both_of_systemds_forms() -> None:
    # From systemd's documentation (262), and in the form of 259 to 261.
    name = "000bff27bc66b6eda11bccd3a0ca07664ae4c360bcc3d7ef019d0b19cb5fa4067541"
    newer = nvpcr_start(f"nvpcr-init:hardware:0x1d10200:{name}")
    assert newer is not None
    assert (newer.name, newer.handle, newer.index_name) == ("hardware", HARDWARE, bytes.fromhex(name))
    assert newer.value.hex() == "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"
    older = nvpcr_start(f"nvpcr-init:verity:0x1d10202:sha256:{'ab' * 32}")
    assert older is not None
    assert (older.value, older.index_name, older.bank) == (b"\xab" * 32, None, SHA256)
    for wrong in (
        f"nvpcr-init:hardware:1d10200:{name}",
        f"nvpcr-init:hardware:0x1d10200:{name}00",
        f"nvpcr-init:hardware:0x1d10200:ffff{name[4:]}",
        f"nvpcr-init:hardware:0x1d10200:sha256:{'ab' * 20}",
        f"nvpcr-init:a b:0x1d10200:{name}",
        "nvpcr-init:hardware:0x1d10200:",
    ):
        assert nvpcr_start(wrong) is None, wrong
