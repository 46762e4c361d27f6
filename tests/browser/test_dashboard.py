"""Every page of the dashboard in a real browser: what people see, at two widths, and that nothing is broken or out of reach."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import shoot, sign_in

PAGES = {
    "overview": "",
    "attesters": "/attesters",
    "good": "/attesters/{good}",
    "bad": "/attesters/{bad}",
    "boot": "/attesters/{bad}/boots/1",
    "enrollments": "/enrollments",
    "incidents": "/incidents",
    "policies": "/policies",
    "policy": "/policies/uki-strict",
    "preview": "/policies/uki-strict/preview",
    "inventory": "/inventory",
    "audit": "/audit",
    "no-such-page": "/attesters/nobody",
}


UNREADABLE = """() => [...document.querySelectorAll('main svg text')].filter(text => {
  const drawn = text.getBoundingClientRect(), sheet = text.closest('.sheet').getBoundingClientRect();
  return drawn.height < 10 || drawn.left < sheet.left || drawn.right > sheet.right || drawn.top < sheet.top;
}).map(text => text.textContent)"""
"""Words in pictures that are too small, or do not fit beside what is drawn."""


def address(fleet, name):
    return fleet.url + PAGES[name].format(good=fleet.good, bad=fleet.bad)


def problems(page):
    """What axe finds (WCAG 2.2 A and AA), in words."""
    rules = {
        "runOnly": {
            "type": "tag",
            "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        }
    }
    found = Axe().run(page, options=rules).response["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.mark.expects_errors  # the page that is not there is a 404, which the console tells
@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_usable_by_everyone_at_every_width(open_page, fleet, size, scheme, name):
    page = open_page(size=size, scheme=scheme, token=fleet.operator)
    page.goto(address(fleet, name))
    shoot(page, f"{name}-{size}-{scheme}")
    assert page.get_by_role("heading", level=1).count() == 1
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} pixels stick out"
    assert page.evaluate(UNREADABLE) == []
    assert problems(page) == []


def test_no_page_makes_the_console_complain(open_page, fleet):
    page = open_page(token=fleet.operator)
    for name in PAGES:
        if name != "no-such-page":
            page.goto(address(fleet, name))
            page.wait_for_load_state("load")


def test_the_sign_in_page_is_usable_by_everyone(open_page, fleet, size):
    page = open_page(size=size)
    page.goto(fleet.url)
    assert page.url.endswith("/dashboard/login?next=%2Fdashboard")
    shoot(page, f"login-{size}")
    assert problems(page) == []


@pytest.mark.expects_errors
def test_a_wrong_token_is_told_and_begins_nothing(open_page, fleet):
    page = open_page()
    page.goto(f"{fleet.url}/login")
    page.get_by_label("API token").fill("vta1." + "A" * 43)
    page.get_by_role("button", name="Sign in").click()
    assert "not known" in page.get_by_role("alert").inner_text()
    page.goto(fleet.url)
    assert "/login" in page.url


def test_a_tampered_guest_is_explained_down_to_the_event(open_page, fleet):
    page = open_page(token=fleet.dashboard)
    page.get_by_role("link", name=re.compile("contraindicated")).first.click()
    page.get_by_role("link", name="web-02").click()
    assert "the unified kernel image is another one" in page.get_by_role("main").inner_text()
    page.get_by_role("link", name=re.compile(r"event \d+")).first.click()
    event = page.locator("li:target")
    assert "proven" in event.inner_text()
    assert "PCR" in event.inner_text()


def test_reading_needs_no_script(open_page, fleet):
    page = open_page(script=False, token=fleet.dashboard)
    for name in ("overview", "attesters", "bad", "boot", "policies"):
        page.goto(address(fleet, name))
        assert page.get_by_role("main").inner_text()
    page.goto(address(fleet, "attesters"))
    page.get_by_label("State").select_option("affirming")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_role("link", name="web-01").count() == 1
    assert page.get_by_role("link", name="web-02").count() == 0


def test_the_keyboard_is_enough(open_page, fleet):
    page = open_page()
    page.goto(fleet.url)
    expect(page.get_by_label("API token")).to_be_focused()  # by itself, once the page is drawn
    page.keyboard.type(fleet.dashboard)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/dashboard$"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_an_open_page_follows_a_new_verdict_by_itself(open_page, fleet):
    page = open_page(token=fleet.dashboard)
    page.goto(address(fleet, "good"))
    page.get_by_text("live", exact=True).wait_for()
    before = page.get_by_text(re.compile(r"^Number \d+\.$")).inner_text()
    fleet.again()
    page.wait_for_function("text => !document.body.innerText.includes(text)", arg=before, timeout=15000)


def test_who_may_only_look_gets_no_buttons_and_no_audit_log(open_page, fleet):
    page = open_page(token=fleet.dashboard)
    page.goto(address(fleet, "good"))
    assert page.get_by_text("Revoke this attester").count() == 0
    assert page.get_by_role("link", name="Audit").count() == 0
    page = open_page(token=fleet.operator)
    page.goto(address(fleet, "good"))
    assert page.get_by_text("Revoke this attester").count() == 1


def test_signing_out_ends_it(open_page, fleet):
    page = open_page()
    sign_in(page, fleet, fleet.dashboard)
    page.get_by_role("button", name="Sign out").click()
    page.goto(fleet.url)
    assert "/login" in page.url
