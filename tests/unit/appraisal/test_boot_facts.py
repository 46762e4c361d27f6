"""Boot facts: only what a quoted PCR and a recomputed digest prove together."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from tests.conftest import shared_path
from tests.event_logs import Boot, Pcrs, boot, boots, pcrs_of, read_boot
from tests.logs import (
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_IPL,
    EV_NO_ACTION,
    EV_SEPARATOR,
    Written,
    agile_log,
    secure_boot,
    separators,
    sha1_log,
    variable,
)
from verifier.appraisal.boot.explain import BOOT_PHASES
from verifier.appraisal.boot_facts import BoundBoot, bind_log
from verifier.claims import Binding, BootFacts
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import extend_all, initial_value, parse_event_log, replay

SHA1, SHA256, SHA384 = HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384
LINE = "/vmlinuz root=/dev/vda2 quiet"
EV_TAG = 6


def quoted(log: bytes, *banks: HashAlg) -> Pcrs:
    """PCRs 0 to 15 as they are after exactly the measurements of `log`."""
    parsed = parse_event_log(log)
    return {
        bank: {pcr: initial_value(pcr, bank, parsed.initial_locality) for pcr in range(16)}
        | replay(parsed, bank)
        for bank in banks or (SHA256,)
    }


def bind(log: bytes, pcrs: Pcrs | None = None, candidate: str | None = None) -> BoundBoot:
    return bind_log(log, parse_event_log(log), quoted(log) if pcrs is None else pcrs, candidate)


def facts(log: bytes, pcrs: Pcrs | None = None, candidate: str | None = None) -> BootFacts:
    bound = bind(log, pcrs, candidate)
    assert bound.facts is not None
    assert not bound.mismatches
    return bound.facts


def bound_boot(captured: Boot, *banks: HashAlg, candidate: str | None = None) -> BootFacts:
    return facts(captured.log, captured.quoted(*banks), candidate)


def grub(text: str, prefix: str = "grub_cmd") -> Written:
    return Written(8, EV_IPL, f"{prefix}: {text}\0".encode(), text.encode())


def grub_boot(line: str = LINE) -> list[Written]:
    return [
        secure_boot(on=True),
        *separators(),
        grub("set timeout=0"),
        grub(f"linux {line}"),
        grub(line, "kernel_cmdline"),
        grub("initrd /initrd.img"),
    ]


def section(name: str, content: bytes, *, label: str | None = None) -> list[Written]:
    text = (label or name).encode("utf-16-le") + b"\0\0"
    return [Written(11, EV_IPL, text, name.encode() + b"\0"), Written(11, EV_IPL, text, content)]


def load_options(line: str) -> Written:
    data = b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0"
    return Written(9, EV_TAG, data, line.encode("utf-16-le") + b"\0\0")


INITRD = Written(9, EV_TAG, b"\xec\x22\x3b\x8f\x0d\0\0\0Linux initrd\0", b"initrd")


def uki_boot(line: str = LINE, *, passed: str | None = None, options: bool = True) -> list[Written]:
    actual = line if passed is None else passed
    return [
        secure_boot(on=True),
        *separators(),
        *section(".linux", b"kernel"),
        *section(".cmdline", line.encode()),
        *section(".initrd", b"initrd"),
        *([] if passed is None else [Written(12, EV_IPL, wide(passed) + b"\0\0", wide(passed))]),
        *([load_options(actual)] if options else []),
        INITRD,
    ]


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def after_boot(log: list[Written], *forged: Written) -> bytes:
    """What a guest that booted `log` can make of it: further extends, with any label it likes."""
    return agile_log([*log, *forged])


# --- real boots


@pytest.mark.parametrize("captured", boots(), ids=lambda captured: captured.name)
@pytest.mark.parametrize("banks", [(SHA256,), (SHA1, SHA256)], ids=["sha256", "both"])
def test_a_captured_boot_is_explained_and_bound(captured: Boot, banks: tuple[HashAlg, ...]) -> None:
    read = bound_boot(captured, *banks, candidate=captured.command_line)
    assert read.banks == banks
    assert read.secure_boot.enabled is ("sb-off" not in captured.name)
    assert read.startup_locality == 0
    assert read.unlogged_pcrs == (10,)  # IMA
    assert read.digest == SHA256.digest(captured.log)
    line = captured.command_line.removeprefix("BOOT_IMAGE=")
    assert read.kernel_command_line == line
    for event in read.events:
        if event.event_type in (EventType.EV_SEPARATOR, EventType.EV_EFI_ACTION):
            assert event.binding is Binding.BOUND
        if event.event_type == EV_NO_ACTION:
            assert (event.binding, event.digests) == (Binding.UNMEASURED, {})
        if event.event_type == EV_EFI_BOOT_SERVICES_APPLICATION:
            assert (event.binding, event.text) == (Binding.UNBOUND, None)


def test_every_scenario_of_the_shared_evidence_is_explained() -> None:
    folder = shared_path("evidence")
    scenarios = boots(folder)
    assert len(scenarios) >= 20
    for captured in scenarios:
        read = bound_boot(captured, SHA256, SHA1, candidate=captured.command_line)
        assert read.banks == (SHA256, SHA1), captured.name
        assert read.kernel_command_line == captured.command_line.removeprefix("BOOT_IMAGE="), captured.name
        assert read.secure_boot.enabled is ("sb-off" not in captured.name), captured.name


def test_boot_phases_beyond_the_log_explain_pcr_11_and_are_a_fact() -> None:
    captured = read_boot(shared_path("evidence/uki-sb-on-systemd"))
    read = bound_boot(captured, SHA1, SHA256)
    assert read.boot_phases == ("sysinit", "ready")
    assert 11 not in read.unlogged_pcrs
    assert bound_boot(boot("uki-sb-on")).boot_phases == ()


def test_a_uki_without_its_command_line_sent_still_names_its_sections() -> None:
    read = bound_boot(boot("uki-sb-on"))
    names = [event.name for event in read.events if event.pcr == 11]
    assert names == [None, ".linux", None, ".osrel", None, ".cmdline", None, ".initrd"]
    texts = [event.text for event in read.events if event.pcr == 11]
    assert texts == [".linux", None, ".osrel", None, ".cmdline", None, ".initrd", None]
    assert read.kernel_command_line is None


def test_the_tampered_command_line_is_what_was_measured_whatever_the_guest_says() -> None:
    tampered = boot("uki-sb-on-cmdline-tampered")
    assert bound_boot(tampered, candidate=tampered.command_line).kernel_command_line == tampered.command_line
    assert bound_boot(tampered, candidate=boot("uki-sb-on").command_line).kernel_command_line is None
    tampered = boot("grub-sb-on-cmdline-tampered")
    honest = boot("grub-sb-on").command_line
    assert bound_boot(tampered, candidate=honest).kernel_command_line != honest.removeprefix("BOOT_IMAGE=")


@pytest.mark.parametrize("name", ["t480s", "r340", "hahuri-invalid-eventlog", "test-before"])
def test_machines_of_the_corpus_are_explained_in_sha256_as_far_as_their_origin_says(name: str) -> None:
    folder = shared_path("corpus/immune-gmbh_guard-oss/evidence")
    document = json.loads((folder / f"{name}.min.json").read_text())
    log = (folder.parent.parent / document["event_logs"][0]).read_bytes()
    pcrs = {SHA256: {pcr: v for pcr, v in pcrs_of(document["pcrs"])[SHA256].items() if pcr < 16}}
    result = bind(log, pcrs)
    assert result.facts is not None
    assert [m.pcr for m in result.mismatches] == ([11] if "invalid" in name else [])
    assert result.facts.secure_boot.enabled is True


def test_a_machine_whose_sha1_bank_is_wrong_is_believed_in_sha256_only() -> None:
    folder = shared_path("corpus/immune-gmbh_guard-oss/evidence")
    document = json.loads((folder / "t480s.min.json").read_text())
    log = (folder / "t480s.eventlog.bin").read_bytes()
    pcrs = {
        bank: {pcr: v for pcr, v in values.items() if pcr < 16}
        for bank, values in pcrs_of(document["pcrs"]).items()
    }
    both = bind(log, pcrs)
    assert both.facts is not None
    assert {m.bank for m in both.mismatches} == {SHA1}
    assert set(range(8)) <= set(both.facts.unlogged_pcrs)
    assert both.facts.secure_boot.enabled is None


# --- replay against the quote


def test_a_pcr_the_log_does_not_lead_to_is_believed_in_nothing() -> None:
    log = agile_log(grub_boot())
    pcrs = quoted(log)
    pcrs[SHA256][8] = b"\x07" * 32
    result = bind(log, pcrs)
    assert result.facts is not None
    (mismatch,) = result.mismatches
    assert (mismatch.pcr, mismatch.bank, mismatch.expected) == (8, SHA256, b"\x07" * 32)
    assert mismatch.actual == quoted(log)[SHA256][8]
    assert result.facts.unlogged_pcrs == (8,)
    assert result.facts.kernel_command_line is None
    for event in result.facts.events:
        if event.pcr == 8:
            assert (event.binding, event.digests, event.name, event.text) == (Binding.UNBOUND, {}, None, None)
    assert result.facts.secure_boot.enabled is True


def test_a_pcr_that_fails_in_one_quoted_bank_is_believed_in_none() -> None:
    log = agile_log(grub_boot())
    pcrs = quoted(log, SHA1, SHA256)
    pcrs[SHA1][7] = bytes(20)
    result = bind(log, pcrs)
    assert result.facts is not None
    assert result.facts.unlogged_pcrs == (7,)
    assert result.facts.secure_boot.enabled is None


def test_a_log_that_runs_past_the_quote_names_the_last_event_that_was_extended() -> None:
    log = agile_log(grub_boot())
    shorter = quoted(agile_log(grub_boot()[:-1]))
    (mismatch,) = bind(log, shorter).mismatches
    assert mismatch.pcr == 8
    events = [place for place, event in enumerate(parse_event_log(log).events) if event.pcr == 8]
    assert mismatch.after_event == events[-2]


def test_a_mismatch_points_at_the_first_event_whose_data_its_digest_contradicts() -> None:
    lie = Written(4, EV_EFI_ACTION, b"Calling EFI Application", b"something else")
    log = agile_log([*separators(), lie])
    pcrs = quoted(agile_log([*separators(), Written(4, EV_EFI_ACTION, b"Calling EFI Application")]))
    (mismatch,) = bind(log, pcrs).mismatches
    assert mismatch.after_event == 9


def test_a_missing_event_cannot_be_pointed_at() -> None:
    log = agile_log(grub_boot())
    pcrs = quoted(agile_log([*grub_boot(), grub("boot")]))
    (mismatch,) = bind(log, pcrs).mismatches
    assert mismatch.after_event is None


def test_an_event_without_the_quoted_banks_digest_explains_nothing() -> None:
    from tests.logs import agile_event, spec_id

    log = spec_id() + agile_event(Written(4, EV_EFI_ACTION, b"x"), (SHA256,))
    pcrs = quoted(agile_log([Written(4, EV_EFI_ACTION, b"x")]), SHA1, SHA256)
    (mismatch,) = bind(log, pcrs).mismatches
    assert (mismatch.pcr, mismatch.bank) == (4, SHA1)


def test_banks_the_log_lacks_are_missing_and_no_bank_is_no_facts() -> None:
    log = agile_log(grub_boot())
    pcrs = quoted(log) | {SHA384: {0: bytes(48)}}
    result = bind(log, pcrs)
    assert result.missing_banks == (SHA384,)
    assert result.facts is not None
    assert result.facts.banks == (SHA256,)
    nothing = bind(log, {SHA384: {0: bytes(48)}})
    assert nothing.facts is None
    assert nothing.missing_banks == (SHA384,)


def test_a_quoted_pcr_with_content_and_no_event_is_unlogged() -> None:
    log = agile_log(grub_boot())
    pcrs = quoted(log)
    pcrs[SHA256][15] = b"\x01" * 32
    read = facts(log, pcrs)
    assert read.unlogged_pcrs == (15,)
    assert read.banks == (SHA256,)


def test_sha1_alone_binds_nothing() -> None:
    log = sha1_log(grub_boot())
    read = facts(log, quoted(log, SHA1), LINE)
    assert {event.binding for event in read.events} == {Binding.UNBOUND}
    assert read.secure_boot.enabled is None
    assert read.kernel_command_line is None
    log = agile_log(uki_boot())
    assert facts(log, quoted(log, SHA1), LINE).kernel_command_line is None


def test_both_quoted_banks_must_lead_to_the_data() -> None:
    from tests.logs import agile_event, spec_id

    half = agile_event(secure_boot(on=True))
    off = SHA256.digest(variable("SecureBoot", b"\0"))
    lie = half.replace(SHA256.digest(variable("SecureBoot", b"\x01")), off)
    log = spec_id() + lie + b"".join(agile_event(event) for event in separators())
    assert facts(log, quoted(log, SHA1, SHA256)).secure_boot.enabled is None
    assert facts(log, quoted(log, SHA256)).secure_boot.enabled is None


# --- locality


def test_a_forged_startup_locality_is_not_believed() -> None:
    events = [Written(0, EventType.EV_S_CRTM_VERSION, b"1\0"), *separators()]
    honest = quoted(agile_log(events))
    forged = agile_log([Written(0, EV_NO_ACTION, b"StartupLocality\0\x03"), *events])
    result = bind(forged, honest)
    assert [mismatch.pcr for mismatch in result.mismatches] == [0]
    assert result.facts is not None
    assert result.facts.startup_locality is None


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_a_startup_locality_that_replays_is_a_fact(locality: int) -> None:
    record = Written(0, EV_NO_ACTION, b"StartupLocality\0" + bytes([locality]))
    log = agile_log([record, Written(0, EV_EFI_ACTION, b"x"), *separators()])
    assert facts(log).startup_locality == locality


def test_without_a_quoted_pcr_0_no_locality_is_a_fact() -> None:
    log = agile_log(grub_boot())
    pcrs = {SHA256: {7: quoted(log)[SHA256][7]}}
    assert facts(log, pcrs).startup_locality is None


# --- boot phases


@pytest.mark.parametrize(
    "phases",
    [
        ("enter-initrd",),
        ("enter-initrd", "leave-initrd", "sysinit", "ready"),
        BOOT_PHASES,
        ("sysinit", "ready"),
    ],
)
def test_boot_phases_are_found_in_their_order(phases: tuple[str, ...]) -> None:
    log = agile_log(uki_boot())
    pcrs = quoted(log, SHA1, SHA256)
    for bank, values in pcrs.items():
        values[11] = extend_all(values[11], [bank.digest(word.encode()) for word in phases], bank)
    read = facts(log, pcrs, LINE)
    assert read.boot_phases == phases
    assert read.kernel_command_line == LINE


def test_phases_in_another_order_or_unequal_between_banks_explain_nothing() -> None:
    log = agile_log(uki_boot())
    pcrs = quoted(log)
    pcrs[SHA256][11] = extend_all(
        pcrs[SHA256][11], [SHA256.digest(b"ready"), SHA256.digest(b"sysinit")], SHA256
    )
    assert [m.pcr for m in bind(log, pcrs).mismatches] == [11]
    pcrs = quoted(log, SHA1, SHA256)
    for bank, word in ((SHA1, b"ready"), (SHA256, b"sysinit")):
        pcrs[bank][11] = extend_all(pcrs[bank][11], [bank.digest(word)], bank)
    result = bind(log, pcrs)
    assert [m.pcr for m in result.mismatches] == [11]
    assert result.facts is not None
    assert result.facts.boot_phases == ()


# --- Secure Boot


def secure_boot_of(*events: Written) -> bool | None:
    return facts(agile_log(events)).secure_boot.enabled


def test_secure_boot_measured_off_whose_text_says_on_is_not_believed() -> None:
    assert secure_boot_of(secure_boot(on=True, measured_on=False), *separators()) is None


def test_secure_boot_is_what_was_measured() -> None:
    assert secure_boot_of(secure_boot(on=True), *separators()) is True
    assert secure_boot_of(secure_boot(on=False), *separators()) is False
    assert secure_boot_of(config("SecureBoot", b""), *separators()) is False
    assert secure_boot_of(config("SecureBoot", b"\x02"), *separators()) is None
    assert secure_boot_of(*separators()) is None


def config(name: str, value: bytes, pcr: int = 7, **vendor: bytes) -> Written:
    return Written(pcr, EV_EFI_VARIABLE_DRIVER_CONFIG, variable(name, value, **vendor))


def test_an_event_after_the_separator_is_not_read_as_one_before_it() -> None:
    late = [*separators(), secure_boot(on=True)]
    assert secure_boot_of(*late) is None
    assert secure_boot_of(secure_boot(on=False), *late) is False
    read = facts(agile_log(late))
    assert read.events[-1].after_separator
    assert not read.events[1].after_separator


def test_a_separator_hidden_under_another_type_still_separates() -> None:
    hidden = Written(7, EV_EFI_ACTION, bytes(4))
    others = [event for event in separators() if event.pcr != 7]
    read = facts(agile_log([*others, hidden, secure_boot(on=True)]))
    assert read.events[-1].after_separator
    assert read.secure_boot.enabled is None


def test_without_a_proven_separator_nothing_is_before_it() -> None:
    assert secure_boot_of(secure_boot(on=True)) is None
    fake = Written(7, EV_SEPARATOR, bytes(4), b"no separator at all")
    assert secure_boot_of(secure_boot(on=True), fake) is None
    assert secure_boot_of(fake, secure_boot(on=True), *separators()) is None


def test_contradicting_or_hidden_measurements_prove_nothing() -> None:
    on, off = secure_boot(on=True), secure_boot(on=False)
    assert secure_boot_of(on, on, *separators()) is True
    assert secure_boot_of(off, on, *separators()) is None
    assert secure_boot_of(on, off, *separators()) is None
    # The true measurement under a label that binds it, but not as a variable.
    for label in (EV_EFI_ACTION, EV_SEPARATOR, EV_TAG):
        assert secure_boot_of(Written(7, label, off.data), on, *separators()) is None
    # The true measurement under a label that leaves it unbound.
    unbound = Written(7, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", off.data)
    assert secure_boot_of(unbound, on, *separators()) is None
    wrapped = Written(7, EventType.EV_EFI_VARIABLE_AUTHORITY, variable("db", off.data), off.data)
    assert secure_boot_of(wrapped, on, *separators()) is None


def test_only_the_right_vendor_and_register_speak_of_secure_boot() -> None:
    other = config("SecureBoot", b"\x01", vendor=bytes(16))
    assert secure_boot_of(other, *separators()) is None
    assert facts(agile_log([other])).events[1].name == "SecureBoot-00000000-0000-0000-0000-000000000000"
    elsewhere = Written(1, EV_EFI_VARIABLE_DRIVER_CONFIG, secure_boot(on=True).data)
    assert secure_boot_of(elsewhere, *separators()) is None


def test_an_error_separator_is_reported_and_says_nothing_of_secure_boot() -> None:
    error = [Written(pcr, EV_SEPARATOR, b"\x01\0\0\0") for pcr in range(8)]
    read = facts(agile_log([secure_boot(on=True), *error]))
    assert read.secure_boot.enabled is None
    assert read.error_separators == tuple(range(8))
    assert facts(agile_log(separators())).error_separators == ()


def test_the_mode_variables_are_read_from_pcr_1_or_7() -> None:
    modes = [config("AuditMode", b"\0", 1), config("DeployedMode", b"\x01", 7), config("SetupMode", b"\0", 7)]
    read = facts(agile_log([secure_boot(on=True), *modes, *separators()])).secure_boot
    assert (read.setup_mode, read.audit_mode, read.deployed_mode) == (False, False, True)
    twice = [config("AuditMode", b"\0", 1), config("AuditMode", b"\x01", 7)]
    assert facts(agile_log([*twice, *separators()])).secure_boot.audit_mode is None


# --- the command line


def command_line(events: Iterable[Written], candidate: str | None = None) -> str | None:
    return facts(agile_log(list(events)), candidate=candidate).kernel_command_line


def test_grubs_own_text_is_the_command_line_whatever_the_guest_says() -> None:
    for candidate in (None, f"BOOT_IMAGE={LINE}", "something else"):
        assert command_line(grub_boot(), candidate) == LINE


def test_grubs_quoting_does_not_hide_the_command_line() -> None:
    events = [
        *separators(),
        grub("linux /vmlinuz dyndbg=file a +p"),
        grub('/vmlinuz "dyndbg=file a +p"', "kernel_cmdline"),
    ]
    assert command_line(events) == '/vmlinuz "dyndbg=file a +p"'


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("grub_cmd linux X\0", "linux X\0"),
        ("grub_cmd linux X\0\0", "linux X\0"),
        ("grub_cmd linux X\0?", "linux X\0"),
    ],
)
def test_red_hats_grub_measures_its_commands_with_their_terminator(command: str, line: str) -> None:
    events = [
        Written(8, EV_IPL, command.encode(), line.encode()),
        Written(8, EV_IPL, b"grub_kernel_cmdline X\0", b"X"),
    ]
    assert command_line(events) == "X"


def test_the_label_of_a_grub_event_decides_nothing() -> None:
    """Prefixes are not measured: any text could call itself the kernel's command line."""
    assert command_line([grub("set timeout=0", "kernel_cmdline")]) is None
    events = [grub(f"linux {LINE}", "kernel_cmdline"), grub(LINE)]
    assert command_line(events) == LINE


def test_a_second_pair_of_grub_measurements_does_not_win() -> None:
    forged = (grub("linux /vmlinuz good"), grub("/vmlinuz good", "kernel_cmdline"))
    log = after_boot(grub_boot(), *forged)
    assert facts(log).kernel_command_line is None


def test_an_edited_text_in_pcr_8_takes_the_command_line_away() -> None:
    bad = [Written(8, EV_IPL, b"grub_cmd: insmod tpm\0", b"linux /vmlinuz init=/bin/sh")]
    bad += [Written(8, EV_IPL, b"grub_cmd: insmod x\0", b"/vmlinuz init=/bin/sh")]
    log = after_boot([*separators(), *bad], grub(f"linux {LINE}"), grub(LINE, "kernel_cmdline"))
    assert facts(log, candidate=LINE).kernel_command_line is None


def test_another_loader_called_by_grub_makes_its_line_doubtful() -> None:
    assert command_line([grub("chainloader /evil.efi"), *grub_boot()]) is None


def test_grub_measurements_beside_a_stubs_prove_no_command_line() -> None:
    """A UKI that booted with another line can extend PCR 8 afterwards."""
    log = after_boot(uki_boot("bad"), grub(f"linux {LINE}"), grub(LINE, "kernel_cmdline"))
    assert facts(log, candidate=LINE).kernel_command_line is None


def test_load_options_under_grub_become_known() -> None:
    read = facts(agile_log([*grub_boot(), load_options(f"BOOT_IMAGE={LINE}")]))
    assert read.kernel_command_line == LINE
    assert (read.events[-1].binding, read.events[-1].text) == (Binding.KNOWN, f"BOOT_IMAGE={LINE}")


def test_a_candidate_that_the_kernel_measured_first_is_believed() -> None:
    read = facts(agile_log(uki_boot()), candidate=LINE)
    assert read.kernel_command_line == LINE
    known = [(event.pcr, event.text) for event in read.events if event.text == LINE]
    assert known == [(11, LINE), (9, LINE)]


def test_the_stubs_section_alone_is_believed_when_nothing_overrode_it() -> None:
    events = uki_boot(options=False)
    assert command_line(events, LINE) == LINE
    log = agile_log(events)
    pcrs = quoted(log)
    del pcrs[SHA256][12]
    assert facts(log, pcrs, LINE).kernel_command_line is None


@pytest.mark.parametrize("end", ["", "\0", "\n"])
def test_a_section_may_end_as_builders_leave_it(end: str) -> None:
    events = [*separators(), *section(".cmdline", (LINE + end).encode())]
    assert command_line(events, LINE) == LINE


def test_an_overridden_command_line_is_what_the_kernel_got() -> None:
    events = uki_boot(passed="init=/bin/sh")
    for candidate in (None, LINE, "init=/bin/sh"):  # the stub's own text in PCR 12 is tried first
        assert command_line(events, candidate) == "init=/bin/sh"
    assert command_line(uki_boot(passed="init=/bin/sh", options=False), LINE) is None


def test_a_command_line_measured_after_the_boot_is_not_believed() -> None:
    bad = uki_boot("init=/bin/sh")
    assert facts(after_boot(bad, load_options(LINE)), candidate=LINE).kernel_command_line is None
    assert (
        facts(after_boot(bad, *section(".cmdline", LINE.encode())), candidate=LINE).kernel_command_line
        is None
    )


def test_a_candidate_that_nothing_covers_is_not_believed() -> None:
    assert command_line(uki_boot(), LINE + " ") is None
    assert command_line([*separators()], LINE) is None


# --- sections


def test_sections_are_named_by_their_digest_and_not_by_their_label() -> None:
    lying = [*section(".linux", b"evil", label=".initrd"), *section(".initrd", b"good", label=".linux")]
    read = facts(agile_log(lying))
    assert [event.name for event in read.events[1:]] == [None, ".linux", None, ".initrd"]
    assert read.events[2].digests == {SHA256: SHA256.digest(b"evil")}


def test_sections_count_only_in_front_and_in_the_stubs_order() -> None:
    named = [*section(".linux", b"k"), *section(".initrd", b"i"), *section(".cmdline", b"late")]
    read = facts(agile_log(named))
    assert [event.name for event in read.events if event.name] == [".linux", ".initrd"]
    behind = [Written(11, EV_IPL, b"x\0"), *section(".linux", b"k")]
    assert [event.name for event in facts(agile_log(behind)).events if event.name] == []


# --- names and texts


def event_fact(written: Written, position: int = 1) -> tuple[Binding, str | None, str | None]:
    fact = facts(agile_log([written])).events[position]
    return fact.binding, fact.name, fact.text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (Written(4, EV_EFI_ACTION, b"Exit Boot Services"), (Binding.BOUND, None, "Exit Boot Services")),
        (Written(0, 0x8, "1.2".encode("utf-16-le") + b"\0\0"), (Binding.BOUND, None, "1.2")),
        (Written(0, 0x8, b"1.2\0"), (Binding.BOUND, None, "1.2")),
        (Written(0, 0x8, b"\xff\xfe\xfd"), (Binding.BOUND, None, None)),
        (Written(3, EV_SEPARATOR, bytes(4)), (Binding.BOUND, None, "00000000")),
        (Written(13, EV_SEPARATOR, b"WBCL"), (Binding.BOUND, None, "WBCL")),
        (config("db", b"x" * 40), (Binding.BOUND, "db", None)),
        (Written(7, EV_EFI_VARIABLE_DRIVER_CONFIG, b"odd"), (Binding.BOUND, None, None)),
        (
            Written(7, 0x800000E0, variable("SbatLevel", b"sbat,1,2025\n")),
            (Binding.BOUND, "SbatLevel", "sbat,1,2025\n"),
        ),
        (Written(7, 0x800000E0, variable("db", b"certificate"), b"certificate"), (Binding.BOUND, None, None)),
        (
            Written(7, 0x800000E0, variable("Shim", b"der") + bytes(6), variable("Shim", b"der") + bytes(5)),
            (Binding.BOUND, "Shim", None),
        ),
        (Written(1, 0x80000002, variable("BootOrder", b"\0\0"), b"\0\0"), (Binding.BOUND, None, None)),
        (Written(1, 0x80000002, variable("BootOrder", b"\0\0")), (Binding.BOUND, "BootOrder", None)),
        (Written(1, 0x80000002, b"short", b"other"), (Binding.UNBOUND, None, None)),
        (Written(9, EV_IPL, b"(hd0,gpt1)/grub.cfg\0", b"content"), (Binding.UNBOUND, None, None)),
        (Written(14, EV_IPL, b"MokList\0", b"list"), (Binding.UNBOUND, None, None)),
        (Written(12, EV_IPL, wide("quiet") + b"\0\0", wide("quiet")), (Binding.BOUND, None, "quiet")),
        (Written(12, EV_IPL, wide("quiet") + b"\0\0"), (Binding.BOUND, None, "quiet")),
        (Written(12, EV_IPL, b"text\0"), (Binding.BOUND, None, "text")),
        (Written(8, EV_IPL, b"grub_cmd: \xff\0", b"\xff"), (Binding.BOUND, None, None)),
        (Written(5, 0x80000006, b"EFI PART"), (Binding.BOUND, None, None)),
        (Written(0, 0x80000008, bytes(16), b"firmware"), (Binding.UNBOUND, None, None)),
        (Written(0, 0x80000008, bytes(16)), (Binding.UNBOUND, None, None)),
        (Written(4, 0xDEADBEEF, b"unknown type"), (Binding.UNBOUND, None, None)),
        (Written(6, 0xC, b"compact"), (Binding.BOUND, None, None)),
    ],
)
def test_each_type_is_bound_by_its_own_rule(
    written: Written, expected: tuple[Binding, str | None, str | None]
) -> None:
    assert event_fact(written) == expected
