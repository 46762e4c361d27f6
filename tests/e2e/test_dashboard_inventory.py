"""The page about inventories: how sources stand, who does not match, what happened; and how to have one."""

from __future__ import annotations

import re

from tests.e2e.test_dashboard import csrf, look, session, submit
from tests.e2e.test_http_inventory import NOBODY, OTHER_VM, VM, begin, ek_of, prove, sync, verifier_with
from tests.harness import Guest
from verifier.ports import Scope

PATH = "/dashboard/inventory"


def part(page, heading):
    """The section under this heading, without markup."""
    section = next(one for one in re.findall(r"<section.*?</section>", page, re.DOTALL) if heading in one)
    return " ".join(re.sub(r"<[^>]+>", " ", section).split())


async def page_of(verifier, query="", scope=Scope.OPERATOR, **options):
    cookie, _ = await session(verifier, scope, **options)
    answer = await look(verifier, PATH + query, cookie)
    assert answer.status == 200, answer.content
    return answer.content.decode()


async def test_without_an_inventory_it_says_how_to_have_one(verifier):
    page = await page_of(verifier)
    assert "No inventory is configured" in page
    assert "[[inventory]]" in page
    cookie, _ = await session(verifier)
    answer = await submit(verifier, f"{PATH}/sync", cookie, csrf=await csrf(verifier, cookie))
    assert answer.status == 303


async def test_what_a_page_tells_operators_to_write_is_what_settings_accept(verifier, tmp_path):
    import html

    from verifier.settings import load_settings

    blocks = re.findall(r"<pre[^>]*>(.*?)</pre>", await page_of(verifier), re.DOTALL)
    assert len(blocks) == 2
    file = tmp_path / "as-told.toml"
    file.write_text("\n".join(html.unescape(block) for block in blocks))
    assert [one.name for one in load_settings(file, {}).inventory] == ["machines", "north"]


async def test_sources_machines_events_and_who_does_not_match(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "inventory|certificate") as (verifier, file):
        good, bad = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        file.put("web-1", VM, good, labels={"site": "north"})
        await sync(verifier)
        assert (await prove(good, VM)).status == 200
        assert (await prove(bad, OTHER_VM)).status == 200
        page = await page_of(verifier)
        sources = part(page, 'id="sources"')
        assert re.search(r"hw file \S+machines.json current now 1 1 nothing", sources), sources
        disagree = part(page, 'id="disagree"')
        assert OTHER_VM in disagree
        assert "it is not listed" in disagree
        assert VM not in disagree
        assert "web-1 hw/web-1 appeared" in part(page, 'id="events"')
        machines = part(page, 'id="machines"')
        assert VM in machines
        assert ek_of(good)[:16] in machines
        assert "site=north" in machines


async def test_a_stale_source_is_told_with_its_problem_and_read_again_on_demand(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        file.path.write_text("[")
        cookie, _ = await session(verifier)
        secret = await csrf(verifier, cookie)
        clock.advance(minutes=16)
        answer = await submit(verifier, f"{PATH}/sync", cookie, csrf=secret)
        assert (answer.status, answer.headers["Location"]) == (303, PATH)
        sources = part((await look(verifier, PATH, cookie)).content.decode(), 'id="sources"')
        assert " stale 16 min ago" in sources
        assert "machines.json" in sources.split("16 min ago")[1]
        file.put("web-1", VM)
        await submit(verifier, f"{PATH}/sync", cookie, csrf=secret)
        sources = part((await look(verifier, PATH, cookie)).content.decode(), 'id="sources"')
        assert " current now 1 " in sources


async def test_machines_are_searched_and_paged(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        file.machines = {
            str(number): {"name": f"vm-{number:03}", "smbios_uuid": VM[:-3] + f"{number:03}"}
            for number in range(120)
        }
        file.save()
        await sync(verifier)
        seen, query = [], ""
        for _ in range(3):
            page = await page_of(verifier, query)
            seen += re.findall(r"hw/(vm-\d+)", page[page.index('id="machines"') :])
            more = re.search(r'href="/dashboard/inventory(\?[^"]*cursor=[^"#]+)', page)
            query = more[1].replace("&amp;", "&") if more else ""
        assert not query
        assert len(seen) == len(set(seen)) == 120
        page = await page_of(verifier, "?search=VM-07&source=hw")
        assert len(re.findall(r"hw/vm-07\d", page[page.index('id="machines"') :])) == 10
        assert "No machine matches" in await page_of(verifier, f"?search={NOBODY}")


async def test_a_query_that_makes_no_sense_is_told(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, _):
        cookie, _ = await session(verifier)
        for query in ("before=x", "before=" + "9" * 30, "search=" + "a" * 200, "source=" + "a" * 100,
                      "cursor=%FF", "guests=forged"):  # fmt: skip
            assert (await look(verifier, f"{PATH}?{query}", cookie)).status == 400, query


async def test_another_tenant_sees_nothing_of_the_sources_and_reads_none(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        file.put("web-1", VM)
        page = await page_of(verifier, tenant="other")
        assert "belongs to the default tenant" in page
        assert "web-1" not in page
        cookie, _ = await session(verifier, tenant="other")
        await submit(verifier, f"{PATH}/sync", cookie, csrf=await csrf(verifier, cookie))
        assert "web-1" not in await page_of(verifier)


async def test_what_a_source_says_is_text_and_never_markup(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        hostile = '"><script>alert(1)</script>'
        file.put(hostile, VM, labels={"site": hostile})
        await sync(verifier)
        guest = Guest.booted(verifier, 1)
        await begin(guest, NOBODY)
        page = await page_of(verifier)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
