"""Lists of every template, form, byte order and digest size say what the kernel measured."""

from __future__ import annotations

import struct

import pytest

from tests.ima_kernel import TEMPLATES, ImaKernel
from verifier.tcg.ima.entry import DigestType, ImaFormatError, shown
from verifier.tcg.ima.parse import fits, parse_ascii, parse_binary, parse_list, to_binary

CUSTOM = "d-ng|n-ng|imode"
NAMES = [*TEMPLATES, CUSTOM]
ORDERS = ["<", ">"]


def machine(template: str, order: str = "<", digest: str = "sha1") -> ImaKernel:
    kernel = ImaKernel(template=template if template != "ima-buf" else "ima-ng", order=order, digest=digest)
    kernel.measure("/usr/bin/a file", "content", sig=b"\x03\x02\x04rest", modsig=b"\x30\x03")
    kernel.buffer(".ima", b"\x30\x82certificate")
    kernel.violation("/var/log/x")
    return kernel


@pytest.mark.parametrize("template", NAMES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_a_binary_list_is_read_whatever_wrote_it(template: str, order: str, digest: str) -> None:
    kernel = machine(template, order, digest)
    parsed = parse_list(kernel.list)
    assert parsed.encoding is not None
    assert parsed.encoding.byte_order == ("little" if order == "<" else "big")
    assert [one.offset for one in parsed.entries] == kernel.offsets
    assert [one.index for one in parsed.entries] == [0, 1, 2, 3]
    assert [one.fields.path for one in parsed.entries] == [
        "boot_aggregate",
        "/usr/bin/a_file",
        ".ima",
        "/var/log/x",
    ]
    assert [one.is_violation for one in parsed.entries] == [False, False, False, True]
    assert [fits(one, parsed.encoding.byte_order) for one in parsed.entries] == [True, True, True, False]
    assert parsed.entries[2].fields.buffer == b"\x30\x82certificate"
    assert {one.fields.algorithm for one in parsed.entries} == (
        {"sha1", "sha256"} if template == "ima" else {"sha256"}
    ) or (template == "ima")


@pytest.mark.parametrize("template", NAMES)
@pytest.mark.parametrize("order", ORDERS)
def test_ascii_and_binary_say_the_same(template: str, order: str) -> None:
    kernel = machine(template, order)
    from_binary = parse_list(kernel.list)
    from_ascii = parse_list(kernel.ascii)
    assert [one.fields for one in from_ascii.entries] == [one.fields for one in from_binary.entries]
    assert [one.template_digest for one in from_ascii.entries] == [
        one.template_digest for one in from_binary.entries
    ]
    if (
        template != "ima" or order == "<"
    ):  # template ima's ascii form does not tell the byte order, nor need it
        assert to_binary(kernel.ascii) == kernel.list


def test_blanks_in_a_name_are_read_wherever_they_come_from() -> None:
    """Kernels write underscores; a list that was made otherwise is read all the same."""
    line = ImaKernel(template="ima-sig").ascii.replace(b"boot_aggregate", b"/a b (deleted)")
    (entry,) = parse_ascii(line).entries
    assert entry.fields.path == "/a b (deleted)"
    (entry,) = parse_ascii(line.rstrip() + b" 0302\n").entries
    assert (entry.fields.path, entry.fields.signature) == ("/a b (deleted)", b"\x03\x02")


def test_fields_beyond_digest_and_name() -> None:
    entry = parse_list(machine("ima-modsig").list).entries[1]
    assert entry.fields.signature == b"\x03\x02\x04rest"
    assert entry.fields.modsig == b"\x30\x03"
    assert entry.fields.modsig_digest is None
    kernel = ImaKernel(template="ima-modsig")
    kernel.measure("/lib/x.ko", "x", d_modsig=b"sha512:\0" + b"\7" * 64)
    assert parse_list(kernel.list).entries[1].fields.modsig_digest == ("sha512", b"\7" * 64)
    kernel = ImaKernel(template="evm-sig")
    kernel.measure("/bin/x", "x", evmsig=b"\x05\x02")
    fields = parse_list(kernel.list).entries[1].fields
    assert fields.evm_signature == b"\x05\x02"
    assert fields.extra["imode"] == struct.pack("<H", 0o100755)
    assert fields.extra["xattrnames"] == b"security.selinux\0"


def test_verity_digests_are_told_from_file_digests() -> None:
    kernel = ImaKernel(template="ima-sigv2")
    kernel.measure("/bin/x", d_ngv2=b"verity:sha256:\0" + bytes(32))
    kernel.measure("/bin/y", "y")
    verity, plain = parse_list(kernel.list).entries[1:]
    assert verity.fields.digest_type is DigestType.VERITY
    assert plain.fields.digest_type is DigestType.FILE


def test_names_that_are_no_utf8_stay_different_and_print_harmlessly() -> None:
    kernel = ImaKernel()
    kernel.measure("/tmp/\udcff\n\x1b[2J")
    kernel.measure("/tmp/\\xff")
    first, second = parse_list(kernel.list).entries[1:]
    assert first.fields.path != second.fields.path
    assert shown(first.fields.path or "") == "/tmp/\\xff\\n\\x1b[2J"


def test_any_hash_algorithm_is_read() -> None:
    for algorithm in ("md5", "sha1", "sha224", "sha512", "sha3_256"):
        kernel = ImaKernel()
        label = algorithm.replace("_", "-").encode()
        kernel.measure("/bin/x", d_ng=label + b":\0" + b"\1" * 16)
        fields = parse_list(kernel.list).entries[1].fields
        assert (fields.algorithm, fields.digest) == (label.decode(), b"\1" * 16)


def test_a_segment_counts_on_from_where_it_starts() -> None:
    kernel = machine("ima-sig")
    tail = parse_binary(kernel.list[kernel.offsets[2] :], first_index=2)
    assert [one.index for one in tail.entries] == [2, 3]
    assert tail.entries[0].fields.path == ".ima"


def test_an_unknown_template_is_carried_undecoded() -> None:
    kernel = ImaKernel()
    raw = kernel.list.replace(b"ima-ng", b"ima-xx")
    (entry,) = parse_list(raw).entries
    assert entry.template_name == "ima-xx"
    assert entry.fields.path is None
    with pytest.raises(ImaFormatError, match="unknown"):
        parse_list(kernel.ascii.replace(b"ima-ng", b"ima-xx"))


LIST = machine("ima-sig").list
SECOND = machine("ima-sig").offsets[1]
MALFORMED = [
    ("nothing like a list", b"\x7fELF" + bytes(60), 0, 0, False),
    ("cut in the header", LIST[: SECOND + 10], SECOND, 1, True),
    ("cut in the data", LIST[: SECOND + 60], SECOND + 35, 1, True),
    ("another PCR", LIST[:SECOND] + b"\x18" + LIST[SECOND + 1 :], SECOND, 1, False),
    ("no template name", LIST[: SECOND + 24] + bytes(4) + LIST[SECOND + 28 :], SECOND + 24, 1, False),
    ("name too long", LIST[: SECOND + 24] + b"\xff\xff\0\0" + LIST[SECOND + 28 :], SECOND + 24, 1, False),
    ("data too long", LIST[: SECOND + 35] + b"\xff\xff\xff\xff" + LIST[SECOND + 39 :], SECOND + 35, 1, False),
    (
        "a field beyond the data",
        LIST[: SECOND + 39] + b"\xff\0\0\0" + LIST[SECOND + 43 :],
        SECOND + 39,
        1,
        False,
    ),
    ("name is not ASCII", LIST[: SECOND + 28] + b"\xff" + LIST[SECOND + 29 :], SECOND + 28, 1, False),
]


@pytest.mark.parametrize(
    ("what", "data", "offset", "entry", "cut"), MALFORMED, ids=[one[0] for one in MALFORMED]
)
def test_a_malformed_list_is_refused_where_it_is_wrong(
    what: str, data: bytes, offset: int, entry: int, cut: bool
) -> None:
    with pytest.raises(ImaFormatError) as refusal:
        parse_list(data)
    assert (refusal.value.offset, refusal.value.entry, refusal.value.cut) == (offset, entry, cut), what


BAD_LINES = [
    b"10 zz ima-ng sha256:00 /bin/x",
    b"10 " + b"0" * 40 + b" ima-ng",
    b"99 " + b"0" * 40 + b" ima-ng sha256:00 /bin/x",
    b"10 " + b"0" * 40 + b" ima-ng sha256 /bin/x",
    b"10 " + b"0" * 42 + b" ima-ng sha256:00 /bin/x",
    b"10 " + b"0" * 40 + b" ima-sig sha256:00 /bin/x 0g",
    b"10 " + b"0" * 40 + b" d-ng|n-ng|imode sha256:00 /bin/x 65536",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_refused_where_it_stands(line: bytes) -> None:
    good = machine("ima-sig").ascii
    with pytest.raises(ImaFormatError) as refusal:
        parse_ascii(good + line + b"\n" + good)
    assert (refusal.value.offset, refusal.value.entry) == (len(good), 4)
