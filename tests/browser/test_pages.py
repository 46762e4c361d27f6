"""Pages that need more than to be opened: a policy's preview, the inventory with and without sources."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import shoot, sign_in
from tests.browser.test_dashboard import problems
from tests.conftest import ROOT


def sticks_out(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_a_policy_is_previewed_and_what_changes_is_shown(open_page, fleet, size):
    scheme = "light" if size == "desktop" else "dark"
    page = open_page(size=size, scheme=scheme, token=fleet.operator)
    page.goto(f"{fleet.url}/policies/uki-strict")
    page.get_by_role("link", name="Preview what it would change").click()
    area = page.get_by_label("Policy (YAML, or a signed envelope)")
    text = area.input_value()
    assert "id: uki-strict" in text
    area.fill(re.sub(r"(?m)^(\s+)secure_boot: enabled", r"\1secure_boot: disabled", text))
    page.get_by_role("button", name="Preview").click()
    table = page.get_by_role("region", name="Verdicts before and after")
    assert "affirming" in table.inner_text()
    changed = page.get_by_role("region", name="Table: Guests that change")
    assert "web-01" in changed.inner_text()
    assert "1 would fare worse" in page.get_by_role("main").inner_text()
    shoot(page, f"preview-result-{size}-{scheme}")
    assert sticks_out(page) <= 0
    assert problems(page) == []


def test_a_preview_needs_no_script_and_no_mouse(open_page, fleet):
    page = open_page(script=False, token=fleet.operator)
    page.goto(f"{fleet.url}/policies/uki-strict/preview")
    assert not page.get_by_label("Read it from a file").is_visible()
    page.get_by_role("button", name="Preview").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="What would change").wait_for()
    assert "0 would fare worse, 0 better" in page.get_by_role("main").inner_text()


def test_a_file_is_put_into_the_form_where_it_can_be_read_before_it_is_sent(open_page, fleet):
    page = open_page(token=fleet.operator)
    page.goto(f"{fleet.url}/policies/uki-strict/preview")
    file = ROOT / "policies" / "permissive" / "policy.yaml"
    page.get_by_label("Read it from a file").set_input_files(file)
    page.wait_for_function("text => document.getElementById('source').value === text", arg=file.read_text())


@pytest.mark.expects_errors  # the answer is a 422, which the console tells
def test_a_policy_that_cannot_be_used_is_explained_above_the_form(open_page, fleet, size):
    page = open_page(size=size, token=fleet.operator)
    page.goto(f"{fleet.url}/policies/uki-strict/preview")
    page.get_by_label("Policy (YAML, or a signed envelope)").fill("id: [")
    page.get_by_role("button", name="Preview").click()
    assert "cannot be tried" in page.get_by_role("alert").inner_text()
    shoot(page, f"preview-refused-{size}")
    assert sticks_out(page) <= 0
    assert problems(page) == []


def test_the_inventory_tells_who_matches_and_who_does_not(open_page, fleet):
    page = open_page(token=fleet.operator)
    page.goto(f"{fleet.url}/inventory")
    page.get_by_role("button", name="Read them now").click()
    assert "current" in page.get_by_role("region", name="Table: Sources").inner_text()
    disagreeing = page.get_by_role("region", name="Table: Attesters that do not match").inner_text()
    assert "web-02" in disagreeing
    assert "web-01" not in disagreeing
    page.get_by_label("Name, UUID, EK or label").fill("db-")
    page.get_by_role("button", name="Show").click()
    assert "db-09" in page.get_by_role("region", name="Table: Machines").inner_text()


def test_without_an_inventory_the_page_says_how_to_have_one(open_page, bare, size):
    page = open_page(size=size)
    sign_in(page, bare, bare.operator)
    page.goto(f"{bare.url}/inventory")
    shoot(page, f"inventory-none-{size}")
    assert "[[inventory]]" in page.get_by_role("main").inner_text()
    assert sticks_out(page) <= 0
    assert problems(page) == []


def test_signing_in_through_the_provider_leads_back_to_where_one_wanted(open_page, bare, provider, size):
    page = open_page(size=size, scheme="light" if size == "desktop" else "dark")
    page.goto(f"{bare.url}/policies")
    assert "/dashboard/login?next=" in page.url
    shoot(page, f"login-oidc-{size}")
    assert sticks_out(page) <= 0
    assert problems(page) == []
    page.get_by_role("link", name="Sign in with Example SSO").press("Enter")
    page.get_by_role("button", name="Continue as anna").click()
    page.wait_for_url(f"{bare.url}/policies")
    assert page.get_by_role("heading", name="Policies").count() == 1
    assert page.get_by_role("link", name="Audit").count() == 1, "an operator"
    page.get_by_role("button", name="Sign out").click()
    page.goto(bare.url)
    assert "/login" in page.url


@pytest.mark.expects_errors  # a refusal is a 403, which the console tells
def test_a_sign_in_that_does_not_hold_is_explained(open_page, bare, provider, size):
    page = open_page(size=size, script=False)
    page.goto(f"{bare.url}/login")
    roles = provider.person.pop("roles")
    try:
        page.get_by_role("link", name="Sign in with Example SSO").click()
        page.get_by_role("button", name="Continue as anna").click()
        page.wait_for_url(re.compile("/dashboard/oidc/return"))
    finally:
        provider.person["roles"] = roles
    assert "has no role that may use this dashboard" in page.get_by_role("alert").inner_text()
    shoot(page, f"login-refused-{size}")
    assert sticks_out(page) <= 0
    page.get_by_role("link", name="Sign in with Example SSO").click()
    page.get_by_role("button", name="Continue as anna").click()
    page.wait_for_url(bare.url)
