"""Learned policies: every boot learned from passes, what is constant is demanded, what varies is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from msgspec import structs

from tests.unit.appraisal.test_userspace import Guest
from tests.unit.policy.test_catalogue import captured
from tests.unit.policy.test_evaluate import BOOT, CLAIMS, QUOTE, SHA256, event
from verifier.claims import BootDetails, ProvenClaims
from verifier.errors import PolicyError
from verifier.findings import Status
from verifier.policy.evaluate import evaluate
from verifier.policy.learn import LearnOptions, Style, learn
from verifier.policy.parse import check_policy, parse_policy
from verifier.tcg.algorithms import HashAlg

OPTIONS = LearnOptions(id="learned", description="", bank=SHA256)
UKI = ("uki-sb-on", "uki-sb-on-reboot-1")


def proposal(*scenarios: str, style: Style = Style.EVENTS):
    return learn({name: captured(name) for name in scenarios}, OPTIONS, style)


def wrong(source: str, claims: ProvenClaims) -> set[str | None]:
    findings = evaluate(parse_policy(source), claims)
    return {finding.rule for finding in findings if finding.status is not Status.PASSED}


def rules(source: str) -> dict[str, dict]:
    return {rule["id"]: rule for rule in next(iter(yaml.safe_load_all(source)))["rules"]}


SETS = [
    ("uki-sb-on",),
    UKI,
    ("grub-sb-on",),
    ("uki-sb-off",),
    ("uki-sb-on", "uki-sb-on-initrd-modified", "uki-sb-on-extra-db-key"),
    ("uki-sb-on", "uki-sb-off"),
    ("uki-sb-on", "grub-sb-on"),
]


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("scenarios", SETS, ids="+".join)
def test_a_proposal_is_sound_and_takes_every_boot_it_was_learned_from(scenarios, style: Style) -> None:
    source = proposal(*scenarios, style=style).source
    _, problems = check_policy(source)
    assert problems == ()
    for scenario in scenarios:
        assert wrong(source, captured(scenario)) == set()


@pytest.mark.parametrize(
    ("scenario", "found"),
    [
        ("uki-sb-on-reboot-2", set()),
        ("uki-sb-on-cmdline-tampered", {"command-line", "images", "uki-sections-cmdline"}),
        ("uki-sb-on-initrd-modified", {"images", "uki-sections-initrd"}),
        ("uki-sb-on-extra-db-key", {"secure-boot-db-certificates"}),
        ("uki-sb-on-signed-by-second-key", {"secure-boot-db-certificates", "secure-boot-authorities"}),
        ("uki-sb-off", {"secure-boot", "images", "secure-boot-dbx-entries"}),
    ],
)
def test_claims_name_what_was_changed(scenario: str, found: set[str]) -> None:
    assert wrong(proposal(*UKI, style=Style.CLAIMS).source, captured(scenario)) >= found


def test_one_boot_learned_by_events_is_one_rule_a_pcr() -> None:
    learned = rules(proposal("uki-sb-on").source)
    assert [rule for rule in learned.values() if "cel" in rule] == []
    assert {"secure-boot", "command-line", "pcr-4", "pcr-11"} <= set(learned)


def test_where_events_vary_what_they_say_alike_becomes_a_rule() -> None:
    learned = rules(proposal("uki-sb-on", "uki-sb-on-extra-db-key").source)
    assert "cel" in learned["secure-boot-authorities"]
    assert learned["secure-boot-db-certificates"]["cel"].count('"') == 4, "both certificates are listed"
    assert "images" not in learned, "the sequence of PCR 4 lists them"
    assert "drivers" not in learned


def test_a_new_firmware_breaks_events_and_not_claims() -> None:
    claims = captured("uki-sb-on")
    assert claims.boot is not None
    blob = next(e for e in claims.boot.events if e.type_name == "EV_EFI_PLATFORM_FIRMWARE_BLOB")
    updated = blob._replace(digests={SHA256: bytes(32)})
    events = tuple(updated if e is blob else e for e in claims.boot.events)
    next_boot = structs.replace(claims, boot=replace(claims.boot, events=events))
    assert wrong(proposal("uki-sb-on").source, next_boot) == {"pcr-0"}
    assert wrong(proposal("uki-sb-on", style=Style.CLAIMS).source, next_boot) == set()


def test_a_claims_policy_says_of_every_pcr_whether_anything_reads_it() -> None:
    policy = parse_policy(proposal("grub-sb-on", style=Style.CLAIMS).source)
    assert set(policy.unjudged) == policy.quote.pcrs
    assert policy.unjudged[7] == policy.unjudged[4]
    assert "whatever was measured into it passes" in policy.unjudged[0]
    assert "while the guest runs" in policy.unjudged[10]


def test_levels_may_rise_and_not_sink() -> None:
    learned = rules(proposal("grub-sb-on", style=Style.CLAIMS).source)
    assert learned["shim-sbat-level-shim"]["cel"] == 'int(boot.shim.sbat_level["shim"]) >= 4'
    assert learned["secure-boot-dbx-entries"]["cel"] == "boot.secure_boot.dbx.entries >= 1"
    assert "shim-sbat-level-sbat" not in learned, "its level is a date, not a number"


def details(**changes) -> BootDetails:
    known = captured("grub-sb-on").boot
    assert known is not None
    assert known.details is not None
    return replace(known.details, **changes)


def with_details(**changes) -> ProvenClaims:
    boot = captured("grub-sb-on").boot
    assert boot is not None
    found = details(**changes)
    return structs.replace(captured("grub-sb-on"), boot=replace(boot, decode=lambda: found))


def by_claims(*boots: ProvenClaims) -> dict[str, dict]:
    return rules(
        learn({str(number): boot for number, boot in enumerate(boots)}, OPTIONS, Style.CLAIMS).source
    )


def test_only_what_every_boot_proves_is_demanded() -> None:
    both = by_claims(captured("grub-sb-on"), with_details(mok_list_trusted=None))
    assert "shim-mok-list-trusted" not in both
    differing = by_claims(captured("grub-sb-on"), with_details(mok_list_trusted=False))
    assert "shim-mok-list-trusted" not in differing
    assert by_claims(with_details(mok_list_trusted=False))["shim-mok-list-trusted"]["cel"].startswith("!")


def test_versions_are_listed_and_odd_levels_left_out() -> None:
    learned = by_claims(
        with_details(firmware_version="1.0"), with_details(firmware_version="1.1", sbat_level={"shim": "x"})
    )
    assert learned["firmware-version"]["cel"] == 'boot.firmware.version in ["1.0", "1.1"]'
    assert not [name for name in learned if "sbat" in name]


def test_values_no_rule_could_judge_are_not_learned() -> None:
    assert "firmware-version" not in by_claims(with_details(firmware_version="1\0"))


def test_lists_too_long_for_an_expression_are_not_learned() -> None:
    databases = details().databases
    many = replace(databases["db"], certificates=tuple(bytes([number]) * 32 for number in range(100)))
    learned = by_claims(with_details(databases={**databases, "db": many}))
    assert "secure-boot-db-certificates" not in learned
    assert "secure-boot-kek-certificates" in learned


def test_firmware_errors_are_not_made_golden() -> None:
    claims = captured("grub-sb-on")
    assert claims.boot is not None
    failed = structs.replace(claims, boot=replace(claims.boot, error_separators=(3,)))
    assert "error-separators" not in by_claims(failed)


def test_boots_that_prove_nothing_in_common_teach_no_claims() -> None:
    with pytest.raises(PolicyError, match="learn events instead"):
        learn({"a": structs.replace(CLAIMS, boot=None)}, OPTIONS, Style.CLAIMS)


def test_without_a_log_there_is_only_what_is_untouched() -> None:
    quote = QUOTE._replace(pcrs={SHA256: {4: bytes(32), 7: b"\1" * 32}})
    policy = parse_policy(learn({"a": ProvenClaims(quote=quote, boot=None)}, OPTIONS).source)
    assert [rule.head.id for rule in policy.rules] == ["pcr-4"]
    assert set(policy.unjudged) == {7}
    assert policy.boot_log.value == "optional"


def test_a_pcr_that_is_touched_in_some_boots_only_has_values() -> None:
    boot = replace(BOOT, events=(), unlogged_pcrs=())
    source = learn({"a": CLAIMS, "b": structs.replace(CLAIMS, boot=boot)}, OPTIONS).source
    assert "pcr" in rules(source)["pcr-4"]


def test_events_missing_in_a_boot_become_optional() -> None:
    extra = replace(BOOT, events=(*BOOT.events, event(3, 4, "tool", bound=False)))
    source = learn({"a": CLAIMS, "b": structs.replace(CLAIMS, boot=extra)}, OPTIONS).source
    steps = rules(source)["pcr-4"]["sequence"]
    assert [step.get("optional", False) for step in steps["steps"]] == [False, False, True]


def test_long_texts_are_cut_in_labels() -> None:
    boot = replace(BOOT, events=(event(0, 8, "x" * 200, name="kernel_cmdline"),))
    source = learn({"a": structs.replace(CLAIMS, boot=boot)}, OPTIONS).source
    label = rules(source)["pcr-8"]["sequence"]["steps"][0]
    assert label["label"].endswith("…")


def test_boots_that_cannot_share_a_policy_are_refused() -> None:
    with pytest.raises(PolicyError, match="no evidence"):
        learn({}, OPTIONS)
    with pytest.raises(PolicyError, match="a has no quoted sha384 PCRs"):
        learn({"a": CLAIMS}, LearnOptions(id="x", description="", bank=HashAlg.SHA384))
    other = structs.replace(CLAIMS, quote=QUOTE._replace(pcrs={SHA256: {1: bytes(32)}}))
    with pytest.raises(PolicyError, match="no quoted PCR in common"):
        learn({"a": CLAIMS, "b": other}, OPTIONS)


def measured(machine_id: str, secret: bytes | None) -> ProvenClaims:
    """What a guest with systemd's log proves: `machine_id` and, of old, the secret are its own."""
    guest = Guest.booted(secret=secret, machine_id=machine_id)
    claims = guest.judged().claims
    assert claims is not None
    return claims


@pytest.mark.parametrize("secret", [None, b"one machine's"], ids=["systemd 262", "systemd 259"])
@pytest.mark.parametrize("style", Style)
def test_what_names_the_machine_is_not_learned_as_golden(style: Style, secret: bytes | None) -> None:
    one = measured("1" * 32, secret)
    other = measured("2" * 32, None if secret is None else b"another machine's")
    assert one.boot.details.userspace.machine_id != other.boot.details.userspace.machine_id
    source = learn({"one": one}, OPTIONS, style).source
    assert check_policy(source)[1] == ()
    assert wrong(source, one) == set()
    assert wrong(source, other) == set(), "another machine of the same image"
    assert "1" * 32 not in source
