"""The pages about policies: assignments in words, and what another policy would change, previewed without changing it."""

from __future__ import annotations

import html
import re

import pytest

from tests.e2e.test_dashboard import csrf, look, session, submit
from tests.harness import POLICY, Guest, Here, boot_log, running, settings_for
from verifier.policy.assignment import Mode
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.service.assignments import AssignCommand
from verifier.web.dashboard import preview

LAX = POLICY.replace("secure_boot: enabled", "secure_boot: disabled").replace("contraindicated", "warning")
PATH = "/dashboard/policies/secure-boot/preview"


@pytest.fixture
async def verifier(tmp_path, clock):
    async with running(settings_for(tmp_path), clock, Here()) as harness:
        yield harness


async def fleet(verifier, *logs):
    for seed, log in enumerate(logs, 1):
        guest = Guest.booted(verifier, seed, log=log)
        await guest.enroll()
        assert (await guest.attest()).status == 200


async def tried(verifier, source, **fields):
    """The page that answers, as text."""
    cookie, _ = await session(verifier)
    secret = await csrf(verifier, cookie)
    answer = await submit(verifier, PATH, cookie, csrf=secret, source=source, **fields)
    return answer.status, answer.content.decode()


def rows(page, caption):
    """Cells of the table with this caption."""
    table = next(one for one in re.findall(r"<table.*?</table>", page, re.DOTALL) if caption in one)
    found = []
    for row in re.findall(r"<tr>.*?</tr>", table.split("<tbody>")[1], re.DOTALL):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        found.append([" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells])
    return found


def text_area(page):
    content = re.search(r'<textarea id="source"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)[1]
    return html.unescape(content)


async def test_an_assignment_is_told_in_words(verifier):
    policies = verifier.service.services.policies
    pinned = await policies.register(DEFAULT_TENANT, LAX.encode(), "test", current=False)
    put = verifier.service.services.assignments.put
    everyone = {"policy_id": "secure-boot", "priority": 5}
    await put(DEFAULT_TENANT, AssignCommand(**everyone, revision=None, mode=Mode.ENFORCE, selector={}), "t")
    some = {"site": "north", "tier": "web"}
    command = AssignCommand(
        **everyone | {"priority": 1}, revision=pinned.revision, mode=Mode.OBSERVE, selector=some
    )
    await put(DEFAULT_TENANT, command, "test")
    cookie, _ = await session(verifier)
    page = (await look(verifier, "/dashboard/policies", cookie)).content.decode()
    first, second = rows(page, "What judges whom")
    assert first[:5] == [
        "secure-boot", "whichever is current", "any labels", "enforce its findings are the verdict", "5",
    ]  # fmt: skip
    assert second[1:4] == [
        pinned.revision[:16], "site=north tier=web", "observe shown, moves no verdict",
    ]  # fmt: skip
    assert "Assignment(" not in page


async def test_the_form_begins_with_the_current_revision_or_the_one_asked_for(verifier):
    policies = verifier.service.services.policies
    record = await policies.register(DEFAULT_TENANT, LAX.encode(), "test", current=False)
    cookie, _ = await session(verifier)
    assert text_area((await look(verifier, PATH, cookie)).content.decode()) == POLICY
    other = await look(verifier, f"{PATH}?revision={record.revision}", cookie)
    assert text_area(other.content.decode()) == LAX
    shown = await look(verifier, f"/dashboard/policies/secure-boot?revision={record.revision}", cookie)
    assert html.escape("secure_boot: disabled") in shown.content.decode()
    for path in (PATH, "/dashboard/policies/secure-boot"):
        assert (await look(verifier, f"{path}?revision={'0' * 64}", cookie)).status == 404
    assert (await look(verifier, "/dashboard/policies/nowhere/preview", cookie)).status == 404


OF_TOKENS = ("token", "audit", "event", "log_batch")
"""What a token brings of itself."""


async def test_what_would_change_is_counted_explained_and_named_guest_by_guest(verifier):
    await fleet(verifier, boot_log(), boot_log(secure=False), boot_log())
    before = verifier.rows()
    status, page = await tried(verifier, LAX)
    assert status == 200
    assert rows(page, "Guests by verdict") == [
        ["affirming", "2", "1", "-1"],
        ["warning", "0", "2", "+2"],
        ["contraindicated", "1", "0", "-1"],
        ["none", "0", "0", "0"],
    ]
    assert "2 would fare worse, 1 better" in page
    changes = [(row[0], row[1], row[2]) for row in rows(page, "fare worse first")]
    assert changes[2] == ("guest-2", "contraindicated", "affirming")
    assert sorted(changes[:2]) == [("guest-1", "affirming", "warning"), ("guest-3", "affirming", "warning")]
    reasons = {row[0].split()[-4]: row[2:5] for row in rows(page, "keeps guests from affirming")}
    assert reasons == {"secure-boot-on": ["2", "2", "0"], "secure-boot-off": ["0", "0", "1"]}
    assert "(not stored)" in page
    after = verifier.rows()
    assert {name: count for name, count in after.items() if name not in OF_TOKENS} == {
        name: count for name, count in before.items() if name not in OF_TOKENS
    }
    assert len(await verifier.service.store.policy_revisions(DEFAULT_TENANT, "secure-boot")) == 1


async def test_the_text_as_browsers_send_it_is_the_same_revision(verifier):
    await fleet(verifier, boot_log())
    _, page = await tried(verifier, POLICY.replace("\n", "\r\n"))
    assert "(the current one)" in page
    assert "0 would fare worse, 0 better" in page


async def test_a_policy_that_cannot_be_used_is_told_and_kept_in_the_form(verifier):
    for source, told in (
        ("rules: [", "policy-invalid"),
        (POLICY.replace("id: secure-boot\ndesc", "id: other\ndesc"), "names &#39;secure-boot&#39;"),
        ("", "policy-invalid"),
    ):
        status, page = await tried(verifier, source)
        assert status == 422, source
        assert told in page
        assert 'role="alert"' in page
        assert text_area(page) == source


@pytest.mark.parametrize(
    "fields",
    [{"whose": "nobody"}, {"label": "novalue"}, {"label": "a=b,c=d"}, {"cursor": "forged"}],
    ids=str,
)
async def test_a_choice_that_makes_no_sense_is_told(verifier, fields):
    status, page = await tried(verifier, POLICY, **fields)
    assert status == 400
    assert "It cannot be tried" in page


async def test_it_is_tried_on_those_it_judges_or_on_all_or_by_label(verifier):
    await fleet(verifier, boot_log(), boot_log())
    policies = verifier.service.services.policies
    other = POLICY.replace("id: secure-boot\ndesc", "id: other\ndesc")
    await policies.register(DEFAULT_TENANT, other.encode(), "test")
    (first, _) = (await verifier.service.store.list_attesters(
        DEFAULT_TENANT, preview_filter(), now=verifier.clock.now(), cursor=None, limit=10
    )).items  # fmt: skip
    await policies.assign(DEFAULT_TENANT, first.attester.id, "other", "test")
    labels = verifier.service.services.assignments.label
    await labels(DEFAULT_TENANT, first.attester.id, {"site": "north"}, "test")
    _, page = await tried(verifier, LAX)
    assert "1 would fare worse" in page
    assert "1 judged by other policies" in page
    assert "2 would fare worse" in (await tried(verifier, LAX, whose="all"))[1]
    _, page = await tried(verifier, LAX, whose="all", label="site=north")
    assert "1 would fare worse" in page


def preview_filter():
    from verifier.ports import FleetFilter

    return FleetFilter()


async def test_a_fleet_too_large_for_the_time_is_gone_through_form_by_form(verifier, monkeypatch):
    await fleet(verifier, boot_log(), boot_log(), boot_log())
    monkeypatch.setattr(preview, "_STEP", 2)
    monkeypatch.setattr(preview, "ENOUGH", 0.0)
    _, page = await tried(verifier, LAX)
    assert "2 would fare worse" in page
    form = page[page.index("These are not all") - 3000 : page.index("Go on with the next ones")]
    cursor = re.search(r'name="cursor" value="([^"]+)"', form)[1]
    _, page = await tried(verifier, LAX, cursor=cursor)
    assert "1 would fare worse" in page
    assert "These are not all" not in page


async def test_of_many_that_change_the_worst_are_listed_and_the_rest_counted(verifier, monkeypatch):
    await fleet(verifier, boot_log(secure=False), boot_log(), boot_log())
    monkeypatch.setattr(preview, "SHOWN", 2)
    _, page = await tried(verifier, LAX)
    assert [row[2] for row in rows(page, "fare worse first")] == ["warning", "warning"]
    assert "1 further guests are not listed" in page


async def test_one_that_takes_too_long_is_given_up_and_told(verifier, monkeypatch):
    await fleet(verifier, boot_log())
    monkeypatch.setattr(preview, "LONGEST", 0.0)
    status, page = await tried(verifier, LAX)
    assert status == 200
    assert "This took too long and was stopped before any attester was judged" in page
    assert "Policy {" not in page


async def test_evidence_that_is_gone_is_told_by_guest_and_never_counted_as_good(verifier):
    await fleet(verifier, boot_log())
    await damaged(verifier)
    _, page = await tried(verifier, POLICY)
    assert "1 could not be judged again" in page
    assert rows(page, "Guests by verdict")[0] == ["affirming", "0", "0", "0"]


async def damaged(verifier):
    import sqlite3

    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as connection:
        assert connection.execute("delete from blob").rowcount


async def test_who_may_only_look_is_offered_no_preview(verifier):
    cookie, _ = await session(verifier, Scope.DASHBOARD)
    for path in ("/dashboard/policies", "/dashboard/policies/secure-boot"):
        assert b"/preview" not in (await look(verifier, path, cookie)).content
    assert (await look(verifier, PATH, cookie)).status == 403
