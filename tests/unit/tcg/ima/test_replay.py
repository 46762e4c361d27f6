"""Lists lead to the PCRs of the kernel that wrote them, and the proven prefix is found among what came later."""

from __future__ import annotations

import pytest

from tests.ima_kernel import TEMPLATES, ImaKernel
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.ima.boot_aggregate import Aggregate, check_aggregate
from verifier.tcg.ima.entry import ImaEntry, ListEncoding
from verifier.tcg.ima.parse import parse_list
from verifier.tcg.ima.replay import Route, Scan, replay
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.walk import detect_encoding

SHA256 = HashAlg.SHA256
BANKS = ("sha1", "sha256", "sha384", "sha512")


def aggregate(entry: ImaEntry) -> tuple[str, bytes]:
    return entry.fields.algorithm or "", entry.fields.digest or b""


def busy(**options: object) -> ImaKernel:
    kernel = ImaKernel(banks=BANKS, **options)  # type: ignore[arg-type]
    for number in range(30):
        kernel.measure(f"/usr/bin/{number}", f"content {number}")
        if number % 10 == 4:
            kernel.violation(f"/var/log/{number}")
        if number % 10 == 7:
            kernel.buffer("kexec-cmdline", b"quiet")
    return kernel


def quoted(kernel: ImaKernel, bank: HashAlg = SHA256) -> dict[int, bytes]:
    return dict(kernel.pcrs[bank.label])


def scan(
    kernel: ImaKernel,
    targets: dict[int, bytes],
    *,
    bank: HashAlg = SHA256,
    rule: BankRule = BankRule.OWN_HASH,
    start: dict[int, bytes] | None = None,
    offset: int = 0,
    index: int = 0,
    accepted: frozenset[bytes] = frozenset(),
    step: int = 7,
    data: bytes | None = None,
    main: int = 10,
) -> Scan:
    raw = (kernel.list if data is None else data)[offset:]
    result = Scan(
        raw, detect_encoding(kernel.list), Route(bank, rule, start or {}, targets, main), accepted, index
    )
    while not result.advance(step):
        pass
    return result


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"ima-buf"}))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padded", [False, True], ids=["own-hash", "padded"])
@pytest.mark.parametrize("label", BANKS)
def test_a_list_leads_to_the_pcr_of_every_bank_under_its_kernels_rule(
    template: str, order: str, padded: bool, label: str
) -> None:
    kernel = busy(template=template, order=order, padded=padded)
    parsed = parse_list(kernel.list)
    assert parsed.encoding is not None
    rule = BankRule.PADDED_SHA1 if padded else BankRule.OWN_HASH
    bank = HASH_BY_LABEL[label]
    assert replay(parsed.entries, bank, rule, parsed.encoding.byte_order) == {10: kernel.pcrs[label][10]}
    found = scan(kernel, quoted(kernel, bank), bank=bank, rule=rule)
    assert found.found
    assert found.index == len(kernel.offsets)
    assert found.position == len(kernel.list)
    if bank is not HashAlg.SHA1:
        other = BankRule.OWN_HASH if padded else BankRule.PADDED_SHA1
        assert not scan(kernel, quoted(kernel, bank), bank=bank, rule=other).found


def test_the_proven_prefix_ends_where_the_quote_was_taken_wherever_that_is() -> None:
    kernel = ImaKernel()
    seen = [(quoted(kernel), len(kernel.list), 1)]
    for number in range(40):
        kernel.violation("/x") if number % 9 == 5 else kernel.measure(f"/bin/{number}", f"{number}")
        seen.append((quoted(kernel), len(kernel.list), len(kernel.offsets)))
    for step in (1, 3, 1000):
        for targets, position, count in seen:
            found = scan(kernel, targets, step=step)
            assert (found.found, found.position, found.index) == (True, position, count)
            assert [miss.index for miss in found.misses] == list(range(count))
            assert [miss.offset for miss in found.misses] == kernel.offsets[:count]


def test_a_torn_tail_behind_the_quote_is_no_alarm() -> None:
    kernel = busy()
    targets, whole = quoted(kernel), len(kernel.list)
    kernel.measure("/bin/late", "late")
    for cut in range(whole, len(kernel.list)):
        found = scan(kernel, targets, data=kernel.list[:cut])
        assert (found.found, found.position) == (True, whole)


def test_a_list_that_ends_inside_what_was_quoted_leads_nowhere() -> None:
    kernel = busy()
    for cut in range(kernel.offsets[-1], len(kernel.list)):
        found = scan(kernel, quoted(kernel), data=kernel.list[:cut])
        assert not found.found
        assert found.position == kernel.offsets[-1]
        assert found.torn == (cut > kernel.offsets[-1])


def test_accepted_entries_are_not_looked_at_and_all_others_are() -> None:
    kernel = busy()
    entries = parse_list(kernel.list).entries
    accepted = frozenset(SHA256.digest(one.template_data) for one in entries if one.index % 3)
    found = scan(kernel, quoted(kernel), accepted=accepted)
    want = [one.index for one in entries if one.index % 3 == 0 or one.is_violation]
    assert [miss.index for miss in found.misses] == want


def test_a_violation_is_a_miss_even_if_its_data_are_accepted() -> None:
    kernel = ImaKernel()
    kernel.violation("/bin/x")
    accepted = frozenset(SHA256.digest(one.template_data) for one in parse_list(kernel.list).entries)
    assert [miss.index for miss in scan(kernel, quoted(kernel), accepted=accepted).misses] == [1]


def test_a_scan_resumes_where_another_ended() -> None:
    kernel = busy()
    first = scan(kernel, quoted(kernel))
    kernel.measure("/bin/late", "late")
    second = scan(kernel, quoted(kernel), start=first.values, offset=first.position, index=first.index)
    assert (second.found, second.index) == (True, len(kernel.offsets))
    assert [miss.index for miss in second.misses] == [len(kernel.offsets) - 1]


def test_entries_of_another_pcr_are_replayed_into_it() -> None:
    kernel = ImaKernel()
    kernel.measure("/bin/a", "a", pcr=11)
    kernel.measure("/bin/b", "b")
    kernel.measure("/bin/c", "c", pcr=11)
    found = scan(kernel, quoted(kernel))
    assert found.found
    assert found.index == len(kernel.offsets), (
        "the entry of PCR 11 behind the last one of PCR 10 is quoted too"
    )
    assert found.values[11] == kernel.pcrs["sha256"][11]
    late = quoted(kernel)
    kernel.measure("/bin/d", "d", pcr=11)
    found = scan(kernel, late)
    assert found.index == len(kernel.offsets) - 1


def test_an_entry_moved_changed_dropped_or_added_leads_nowhere() -> None:
    kernel = busy()
    parts = [kernel.list[a:b] for a, b in zip(kernel.offsets, [*kernel.offsets[1:], None], strict=True)]
    edits = {
        "swapped": [*parts[:5], parts[6], parts[5], *parts[7:]],
        "dropped": [*parts[:5], *parts[6:]],
        "doubled": [*parts[:5], parts[5], *parts[5:]],
        "renamed": [*parts[:5], parts[5].replace(b"/usr/bin/4", b"/usr/bin/3"), *parts[6:]],
        "violation hidden": [part for part in parts if b"/var/log/4" not in part],
    }
    for what, edited in edits.items():
        assert b"".join(edited) != kernel.list
        assert not scan(kernel, quoted(kernel), data=b"".join(edited)).found, what


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384"])
def test_a_boot_aggregate_is_of_the_boot_that_was_quoted_or_of_another(algorithm: str) -> None:
    banks = ("sha1", "sha256", "sha384")
    kernel = ImaKernel(banks=banks, algorithm=algorithm)
    (entry,) = parse_list(kernel.list).entries
    values = {HASH_BY_LABEL[bank]: dict(pcrs) for bank, pcrs in kernel.pcrs.items()}
    bank = HASH_BY_LABEL[algorithm]
    assert check_aggregate(*aggregate(entry), [values]) is Aggregate.AGREES
    other = {bank: {**values[bank], 4: bytes(bank.size)}}
    assert check_aggregate(*aggregate(entry), [other]) is Aggregate.DIFFERS
    assert check_aggregate(*aggregate(entry), [other, values]) is Aggregate.AGREES
    assert check_aggregate(*aggregate(entry), []) is Aggregate.UNCHECKABLE
    without_8 = {bank: {pcr: value for pcr, value in values[bank].items() if pcr < 8}}
    expected = Aggregate.AGREES if algorithm == "sha1" else Aggregate.UNCHECKABLE
    assert check_aggregate(*aggregate(entry), [without_8]) is expected


def test_the_older_rule_of_a_boot_aggregate_covers_eight_pcrs_in_any_bank() -> None:
    kernel = ImaKernel()
    kernel.aggregate(range(8))
    entry = parse_list(kernel.list).entries[1]
    assert check_aggregate(*aggregate(entry), [{SHA256: quoted(kernel)}]) is Aggregate.AGREES


def test_a_kernel_without_tpm_says_so() -> None:
    kernel = ImaKernel()
    kernel.measure_digest("boot_aggregate", bytes(32))
    entry = parse_list(kernel.list).entries[1]
    assert not entry.is_violation
    assert check_aggregate(*aggregate(entry), [{SHA256: quoted(kernel)}]) is Aggregate.NO_TPM


def test_an_encoding_is_told_from_the_first_entries() -> None:
    assert detect_encoding(ImaKernel(order=">", digest="sha256").list) == ListEncoding("big", 32)


def test_what_is_accepted_lies_within_its_entry() -> None:
    """The next entry's template digest and name are not measured, so they must not complete what is looked up."""
    kernel = ImaKernel(template="d-ng|n-ng")
    kernel.measure("/bin/x", "x")
    at = kernel.offsets[1] + 28 + len("d-ng|n-ng") + 4
    data = bytearray(kernel.list[:at])
    body = (5).to_bytes(4, "little") + b"12345" + (30).to_bytes(4, "little")
    data[-4:] = len(body).to_bytes(4, "little")
    data += body + kernel.list[kernel.offsets[0] :]
    value = SHA256.digest(bytes(32) + SHA256.digest(parse_list(kernel.list).entries[0].template_data))
    value = SHA256.digest(value + SHA256.digest(body))
    reaching = SHA256.digest(bytes(data[at : at + len(body) + 30]))
    found = scan(kernel, {10: value}, data=bytes(data), accepted=frozenset({reaching}))
    assert found.found
    assert [miss.index for miss in found.misses] == [0, 1]


def test_a_sha1_aggregate_never_covers_ten_pcrs() -> None:
    pcrs = {pcr: bytes([pcr]) * 20 for pcr in range(10)}
    digest = HashAlg.SHA1.digest(b"".join(pcrs[pcr] for pcr in range(10)))
    assert check_aggregate("sha1", digest, [{HashAlg.SHA1: pcrs}]) is Aggregate.DIFFERS
