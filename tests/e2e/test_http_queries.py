"""What relying parties ask: verdicts by what a machine is, good enough or not, unchanged, or when they change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest

from tests.eventually import PATIENCE, eventually
from tests.harness import boot_log, running, settings_for
from verifier.ports import Scope

RP = Scope.RELYING_PARTY
UUID = "12345678-1234-1234-1234-123456789abc"
SWAPPED = "78563412-3412-3412-1234-123456789abc"


def path_of(guest, query=""):
    return f"/v1/attesters/{guest.attester_id}/verdict{query}"


async def label(verifier, guest, **labels):
    answer = await verifier.call(
        "PUT", f"/v1/attesters/{guest.attester_id}/labels", scope=Scope.OPERATOR, json={"labels": labels}
    )
    assert answer.status == 200, answer.content


async def revoke(verifier, guest):
    path = f"/v1/attesters/{guest.attester_id}/revoke"
    assert (await verifier.call("POST", path, scope=Scope.OPERATOR)).status == 200


async def bulk(verifier, ids, query="", **options):
    return await verifier.post(f"/v1/verdicts{query}", {"ids": ids}, scope=RP, **options)


def ids(answer):
    assert answer.status == 200, answer.content
    return [line["attester_id"] for line in answer.json["verdicts"]]


async def bad_boot(guest):
    """The next verdict is contraindicated: Secure Boot is off."""
    guest.reboot(boot_log(secure=False))
    answer = await guest.attest()
    assert answer.json["verdict"]["status"] == "contraindicated"


@contextmanager
def without_database(verifier):
    """Whoever asks the database for anything fails."""

    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"the database was asked: {name}")

    store = verifier.service.store
    kept, store._backend = store._backend, Forbidden()
    try:
        yield
    finally:
        store._backend = kept


@asynccontextmanager
async def replica(verifier):
    """Another process on the same database and clock."""
    async with running(verifier.service.settings, verifier.clock) as other:
        yield other


# --- many at once


async def test_verdicts_are_found_by_label_ek_and_uuid(verifier):
    web, database, silent = [await verifier.guest(seed) for seed in (1, 2, 3)]
    for guest in (web, database):
        await guest.attest()
    await label(verifier, web, role="web", zone="a")
    await label(verifier, silent, role="web")
    both = sorted([web.attester_id, silent.attester_id])
    assert ids(await verifier.get("/v1/verdicts?label=role=web", RP)) == both
    assert ids(await verifier.get("/v1/verdicts?label=role=none", RP)) == []
    ek = (await verifier.get(f"/v1/attesters/{database.attester_id}")).json["endorsement"]["ek_sha256"]
    (found,) = (await verifier.get(f"/v1/verdicts?ek={ek.upper()}", RP)).json["verdicts"]
    one = (await verifier.get(path_of(database), RP)).json
    assert found == {
        "attester_id": database.attester_id,
        "status": "affirming",
        "lifecycle": "enrolled",
        "ek_sha256": ek,
        "sequence": 1,
        "vector": one["vector"],
        "policy": "secure-boot",
        "judged_at": one["judged_at"],
        "valid_until": one["valid_until"],
    }
    everyone = sorted(guest.attester_id for guest in (web, database, silent))
    assert ids(await verifier.get("/v1/verdicts", RP)) == everyone
    (unheard,) = (await bulk(verifier, [silent.attester_id])).json["verdicts"]
    assert (unheard["status"], unheard["lifecycle"], "sequence" in unheard) == ("none", "enrolled", False)


async def test_a_uuid_is_found_in_either_spelling_and_may_be_claimed_by_several(verifier):
    owner = await verifier.guest(1)
    owner.identity["smbios_uuid"] = UUID
    await owner.attest()
    for spelling in (UUID, SWAPPED, UUID.upper()):
        assert ids(await verifier.get(f"/v1/verdicts?uuid={spelling}", RP)) == [owner.attester_id]
    liar = await verifier.guest(2)
    liar.identity["smbios_uuid"] = UUID
    await liar.attest()
    assert ids(await verifier.get(f"/v1/verdicts?uuid={UUID}", RP)) == sorted(
        [owner.attester_id, liar.attester_id]
    )
    ek = (await verifier.get(f"/v1/attesters/{owner.attester_id}")).json["endorsement"]["ek_sha256"]
    assert ids(await verifier.get(f"/v1/verdicts?uuid={UUID}&ek={ek}", RP)) == [owner.attester_id]


async def test_a_listing_is_paged_without_gap_or_repetition(verifier):
    guests = [await verifier.guest(seed) for seed in range(1, 6)]
    for guest in guests:
        await label(verifier, guest, role="web")
    query, seen = "/v1/verdicts?label=role=web&limit=2", []
    answer = await verifier.get(query, RP)
    while True:
        seen += ids(answer)
        if "cursor" not in answer.json:
            break
        answer = await verifier.get(f"{query}&cursor={answer.json['cursor']}", RP)
    assert seen == sorted(guest.attester_id for guest in guests)
    first = (await verifier.get(query, RP)).json["cursor"]
    other = await verifier.get(f"/v1/verdicts?label=role=db&limit=2&cursor={first}", RP)
    assert (other.status, other.code) == (400, "malformed-request")


async def test_many_are_asked_for_by_id_and_what_is_not_known_is_named(verifier):
    known, silent = await verifier.guest(1), await verifier.guest(2)
    await known.attest()
    stranger = await verifier.token(RP, tenant="other")
    asked = ["att-nobody", silent.attester_id, known.attester_id, known.attester_id, "zzz"]
    answer = await bulk(verifier, asked)
    assert ids(answer) == sorted([known.attester_id, silent.attester_id])
    assert answer.json["unknown"] == ["att-nobody", "zzz"]
    foreign = await verifier.post("/v1/verdicts", {"ids": asked}, token=stranger)
    assert foreign.json == {"verdicts": [], "unknown": list(dict.fromkeys(asked))}
    before = verifier.rows()
    thousand = [known.attester_id, *(f"att-{number}" for number in range(999))]
    answer = await bulk(verifier, thousand)
    assert ids(answer) == [known.attester_id]
    assert answer.json["unknown"] == thousand[1:]
    assert verifier.rows() == before


async def test_what_cannot_be_asked_is_refused(verifier):
    for body in (
        {"ids": []},
        {"ids": ["x"] * 1001},
        {"ids": ["a b"]},
        {"ids": "x"},
        {},
        {"ids": ["a"], "x": 1},
    ):
        answer = await verifier.post("/v1/verdicts", body, scope=RP)
        assert (answer.status, answer.code) == (400, "malformed-request"), body
    for query in (
        "?ek=12",
        "?uuid=12345678",
        "?uuid=00000000-0000-0000-0000-000000000000",
        f"?uuid={'x' * 36}",
        "?label=x",
        "?min_tier=none",
        "?min_tier=contraindicated",
        "?min_tier=gold",
        "?limit=501",
        "?cursor=x",
        "?x=1",
    ):
        answer = await verifier.get(f"/v1/verdicts{query}", RP)
        assert (answer.status, answer.code) == (400, "malformed-request"), query
    guest = await verifier.guest()
    for query in ("?min_tier=none", "?wait=61", "?wait=-1", "?wait=x"):
        answer = await verifier.get(path_of(guest, query), RP)
        assert (answer.status, answer.code) == (400, "malformed-request"), query
    assert (await verifier.call("GET", "/v1/verdicts")).status == 401
    join = await verifier.token(Scope.JOIN)
    assert (await verifier.post("/v1/verdicts", {"ids": ["x"]}, token=join)).status == 401


# --- good enough or not


async def gate(verifier, guest, least="affirming"):
    """What a gate sees of one attester: the status of the single query, and what list and bulk say."""
    single = await verifier.get(path_of(guest, f"?min_tier={least}"), RP)
    listed = guest.attester_id in ids(await verifier.get(f"/v1/verdicts?min_tier={least}", RP))
    (line,) = (await bulk(verifier, [guest.attester_id], f"?min_tier={least}")).json["verdicts"]
    assert listed == line["satisfied"] == (single.status == 200)
    if single.status != 200:
        assert single.code == "tier-not-met"
        assert "ETag" not in single.headers
    return single.status


async def test_a_gate_lets_in_what_is_good_enough_and_nothing_else(verifier, clock):
    guest = await verifier.guest()
    assert await gate(verifier, guest) == 403, "it never attested"
    await guest.attest()
    assert await gate(verifier, guest) == 200
    assert await gate(verifier, guest, "warning") == 200
    clock.advance(minutes=11)
    assert await gate(verifier, guest, "warning") == 403, "it is stale"
    await guest.attest()
    assert await gate(verifier, guest) == 200
    await bad_boot(guest)
    assert await gate(verifier, guest, "warning") == 403, "it is contraindicated"


async def test_a_revoked_attester_is_never_good_enough(verifier):
    guest = await verifier.guest()
    await guest.attest()
    await revoke(verifier, guest)
    assert await gate(verifier, guest, "warning") == 403
    (line,) = (await bulk(verifier, [guest.attester_id])).json["verdicts"]
    assert (line["status"], line["lifecycle"]) == ("contraindicated", "revoked")
    assert "attester-revoked" in line["reasons"]
    assert "satisfied" not in line


async def test_a_warning_is_enough_for_whoever_says_so(tmp_path, clock):
    settings = settings_for(tmp_path)
    policy = tmp_path / "policies" / "secure-boot.yaml"
    policy.write_text(policy.read_text().replace("severity: contraindicated", "severity: warning"))
    async with running(settings, clock) as verifier:
        guest = await verifier.guest()
        guest.reboot(boot_log(secure=False))
        assert (await guest.attest()).json["verdict"]["status"] == "warning"
        assert await gate(verifier, guest, "warning") == 200
        assert await gate(verifier, guest, "affirming") == 403


async def test_to_a_gate_a_stranger_is_forbidden_and_not_missing(verifier):
    guest = await verifier.guest()
    await guest.attest()
    stranger = await verifier.token(RP, tenant="other")
    for token, path in ((None, "/v1/attesters/att-nobody/verdict"), (stranger, path_of(guest))):
        scope = RP if token is None else None
        options = {"scope": scope} if token is None else {"token": token}
        assert (await verifier.call("GET", path, **options)).status == 404
        answer = await verifier.call("GET", f"{path}?min_tier=warning", **options)
        assert (answer.status, answer.code) == (403, "tier-not-met")


async def test_an_ear_passes_the_same_gate(verifier):
    guest = await verifier.guest()
    await guest.attest()
    ear = {"Accept": "application/eat+jwt"}
    assert (await verifier.get(path_of(guest, "?min_tier=affirming"), RP, headers=ear)).status == 200
    await revoke(verifier, guest)
    assert (await verifier.get(path_of(guest, "?min_tier=affirming"), RP, headers=ear)).status == 403


# --- unchanged


@pytest.mark.parametrize(
    "path",
    [
        "/v1/status",
        "/v1/attesters",
        "/v1/attesters?status=affirming&limit=5",
        "/v1/verdicts?min_tier=affirming",
    ],
)
async def test_a_poller_is_told_304_without_the_database(verifier, path):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path)).headers["ETag"]
    with without_database(verifier):
        for _ in range(3):
            answer = await verifier.get(path, headers={"If-None-Match": tag})
            assert (answer.status, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    await bad_boot(guest)
    changed = await verifier.get(path, headers={"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


@pytest.mark.parametrize(
    ("query", "accept"),
    [
        ("", "application/json"),
        ("", "application/msgpack"),
        ("?min_tier=affirming", "application/json"),
        ("?audience=me", "application/eat+jwt"),
        ("?profile=veraison", "application/eat+jwt"),
        ("", "application/eat+cwt"),
    ],
)
async def test_a_known_verdict_is_not_read_again(verifier, clock, query, accept):
    guest, other = await verifier.guest(1), await verifier.guest(2)
    await guest.attest()
    path, headers = path_of(guest, query), {"Accept": accept}
    tag = (await verifier.get(path, RP, headers=headers)).headers["ETag"]
    headers["If-None-Match"] = tag
    await other.attest()  # another attester's change is none of this one
    with without_database(verifier):
        answer = await verifier.get(path, RP, headers=headers)
        assert (answer.status, answer.headers["ETag"]) == (304, tag)
    await guest.attest()
    confirmed = await verifier.get(path, RP, headers=headers)
    assert (confirmed.status, confirmed.headers["ETag"] != tag) == (200, True)
    headers["If-None-Match"] = confirmed.headers["ETag"]
    assert (await verifier.get(path, RP, headers=headers)).status == 304
    clock.advance(minutes=11)
    assert (await verifier.get(path, RP, headers=headers)).status == (403 if "min_tier" in query else 200)


async def test_forms_of_one_verdict_have_tags_of_their_own(verifier):
    guest = await verifier.guest()
    await guest.attest()
    asked = [
        ("", "application/json"),
        ("", "application/msgpack"),
        ("", "application/eat+jwt"),
        ("?audience=me", "application/eat+jwt"),
        ("?profile=veraison", "application/eat+jwt"),
        ("", "application/eat+cwt"),
    ]
    answers = [await verifier.get(path_of(guest, query), headers={"Accept": kind}) for query, kind in asked]
    assert len({answer.headers["ETag"] for answer in answers}) == len(asked)


async def test_a_verdict_that_grows_stale_is_another_answer_to_the_moment(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    await verifier.get(path_of(guest), RP)
    clock.advance(minutes=10, seconds=-1)
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    headers = {"If-None-Match": tag}
    with without_database(verifier):
        assert (await verifier.get(path_of(guest), RP, headers=headers)).status == 304
    clock.advance(seconds=1.5)
    answer = await verifier.get(path_of(guest), RP, headers=headers)
    assert (answer.status, answer.json["lifecycle"], answer.json["status"]) == (200, "stale", "none")


@pytest.mark.parametrize("change", ["verdict", "revocation"])
async def test_another_replicas_change_shows_within_two_seconds(verifier, clock, change):
    guest = await verifier.guest()
    await guest.attest()
    paths = [path_of(guest), "/v1/status", "/v1/attesters", "/v1/verdicts"]
    tags = {path: (await verifier.get(path)).headers["ETag"] for path in paths}
    async with replica(verifier) as other:
        guest.harness = other
        await (bad_boot(guest) if change == "verdict" else revoke(other, guest))
    clock.advance(seconds=2)
    for path in paths:
        answer = await verifier.get(path, headers={"If-None-Match": tags[path]})
        assert answer.status == 200, path


async def test_what_is_asked_for_again_and_again_is_kept_current_behind_the_requests(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    headers, watch = {"If-None-Match": tag}, verifier.service.services.watch
    for _ in range(5):
        assert (await verifier.get(path_of(guest), RP, headers=headers)).status == 304
        clock.advance(seconds=1.5)
        await watch.refresh()
        clock.advance(seconds=1.5)
        with without_database(verifier):
            assert watch.mark("default", guest.attester_id).sequence == 1
    async with replica(verifier) as other:
        guest.harness = other
        await bad_boot(guest)
    await watch.refresh()
    assert (await verifier.get(path_of(guest), RP, headers=headers)).status == 200


# --- waiting


@asynccontextmanager
async def watching(verifier):
    """With what a running service does by itself."""
    task = asyncio.create_task(verifier.service.services.watch.run())
    yield
    task.cancel()


async def waiting(verifier, path, tag=None, scope=RP, **options):
    """A call that waits, once it does."""
    watch = verifier.service.services.watch
    before = watch.waiting
    headers = {} if tag is None else {"If-None-Match": tag}
    call = asyncio.ensure_future(verifier.get(path, scope, headers=headers, **options))
    await eventually(lambda: watch.waiting > before)
    return call


async def test_a_wait_ends_with_another_verdict(verifier):
    guest, other = await verifier.guest(1), await verifier.guest(2)
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    call = await waiting(verifier, path_of(guest, "?wait=60"), tag)
    await other.attest()
    done, _ = await asyncio.wait({call}, timeout=0.2)
    assert not done
    await bad_boot(guest)
    answer = await call
    assert (answer.status, answer.json["status"]) == (200, "contraindicated")
    assert verifier.service.services.watch.waiting == 0


async def test_a_wait_ends_with_what_another_replica_did(verifier):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    async with watching(verifier), replica(verifier) as other:
        call = await waiting(verifier, path_of(guest, "?wait=60"), tag)
        await revoke(other, guest)
        answer = await call
    assert (answer.status, answer.json["lifecycle"]) == (200, "revoked")


async def test_a_wait_ends_when_the_verdict_runs_out(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    call = await waiting(verifier, path_of(guest, "?wait=60"), tag)
    clock.advance(minutes=11)
    assert (await call).json["lifecycle"] == "stale"


async def test_who_knows_nothing_or_something_else_is_answered_at_once(verifier):
    guest = await verifier.guest()
    await guest.attest()
    for headers in ({}, {"If-None-Match": '"other"'}):
        answer = await verifier.get(path_of(guest, "?wait=60"), RP, headers=headers)
        assert (answer.status, answer.json["status"]) == (200, "affirming")
    answer = await verifier.get("/v1/attesters/att-nobody/verdict?wait=60", RP)
    assert answer.status == 404


async def test_without_a_change_the_wait_ends_with_304(verifier):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    answer = await verifier.get(path_of(guest, "?wait=1"), RP, headers={"If-None-Match": tag})
    assert (answer.status, answer.headers["ETag"]) == (304, tag)


async def test_a_gate_can_wait_for_the_first_good_verdict(verifier):
    guest = await verifier.guest()
    assert (await verifier.get(path_of(guest, "?wait=1"), RP)).status == 404
    below = await verifier.get(path_of(guest, "?min_tier=affirming&wait=1"), RP)
    assert (below.status, below.code) == (403, "tier-not-met")
    first = await waiting(verifier, path_of(guest, "?wait=60"))
    good = await waiting(verifier, path_of(guest, "?wait=60&min_tier=affirming"))
    await bad_boot(guest)
    assert (await first).json["status"] == "contraindicated"
    done, _ = await asyncio.wait({good}, timeout=0.2)
    assert not done
    guest.reboot(boot_log())
    await guest.attest()
    assert ((await good).status, (await good).json["status"]) == (200, "affirming")
    tag = (await good).headers["ETag"]
    lost = await waiting(verifier, path_of(guest, "?wait=60&min_tier=affirming"), tag)
    await revoke(verifier, guest)
    assert ((await lost).status, (await lost).code) == (403, "tier-not-met")


async def test_a_token_that_is_revoked_meanwhile_learns_nothing(verifier):
    guest = await verifier.guest()
    await guest.attest()
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    record, text = await verifier.service.services.tokens.create(
        tenant="default", scopes=frozenset({RP}), label="", lifetime=None, uses=None, actor="test"
    )
    call = asyncio.ensure_future(
        verifier.call("GET", path_of(guest, "?wait=60"), token=text, headers={"If-None-Match": tag})
    )
    await eventually(lambda: verifier.service.services.watch.waiting)
    await verifier.service.services.tokens.revoke("default", record.id, "test")
    await bad_boot(guest)
    assert ((await call).status, (await call).code) == (401, "unauthenticated")


async def test_no_more_wait_than_the_settings_allow_and_who_leaves_makes_room(tmp_path, clock):
    async with running(settings_for(tmp_path, LIMITS_WAITING="1"), clock) as verifier:
        guest = await verifier.guest()
        await guest.attest()
        tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
        call = await waiting(verifier, path_of(guest, "?wait=60"), tag)
        full = await verifier.get(path_of(guest, "?wait=60"), RP, headers={"If-None-Match": tag})
        assert (full.status, full.code) == (429, "rate-limited")
        assert int(full.headers["Retry-After"]) >= 1
        call.cancel()
        await eventually(lambda: verifier.service.services.watch.waiting == 0)
        assert (
            await verifier.get(path_of(guest, "?wait=1"), RP, headers={"If-None-Match": tag})
        ).status == 304


async def test_a_verifier_that_stops_keeps_nobody_waiting(tmp_path, clock):
    async with aiohttp.ClientSession() as session:
        async with running(settings_for(tmp_path), clock) as verifier:
            guest = await verifier.guest()
            await guest.attest()
            tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
            verifier.session, own = session, verifier.session
            call = await waiting(verifier, path_of(guest, "?wait=60"), tag)
            verifier.session = own
            stopping = asyncio.get_running_loop().time()
        answer = await call
        assert asyncio.get_running_loop().time() - stopping < PATIENCE, "it was not waited for"
    assert (answer.status, answer.headers["ETag"]) == (304, tag)


async def test_what_is_read_while_it_changes_is_not_kept(verifier, monkeypatch):
    """A reading that began before a change of this process and ends after it is of the past."""
    guest = await verifier.guest()
    await guest.attest()
    store, overtaken = verifier.service.store, False
    whole = store.attester_state

    async def slow(attester_id):
        nonlocal overtaken
        found = await whole(attester_id)
        if not overtaken:
            overtaken = True
            await revoke(verifier, guest)
        return found

    monkeypatch.setattr(store, "attester_state", slow)
    old = await verifier.get(path_of(guest), RP)
    assert (overtaken, old.json["status"]) == (True, "affirming")
    answer = await verifier.get(path_of(guest), RP, headers={"If-None-Match": old.headers["ETag"]})
    assert (answer.status, answer.json["lifecycle"]) == (200, "revoked")


async def test_counts_that_are_made_while_they_change_are_not_kept(verifier, monkeypatch):
    guest = await verifier.guest()
    await guest.attest()
    store, overtaken = verifier.service.store, False
    whole = store.status_counts

    async def slow(tenant, now):
        nonlocal overtaken
        found = await whole(tenant, now)
        if not overtaken:
            overtaken = True
            await bad_boot(guest)
        return found

    monkeypatch.setattr(store, "status_counts", slow)
    assert (await verifier.get("/v1/status")).json["counts"]["affirming"] == 1
    assert (await verifier.get("/v1/status")).json["counts"]["contraindicated"] == 1


async def test_a_tag_alone_opens_no_gate(verifier):
    """Who has the tag of a verdict that is not good enough is not told 304 by the gate."""
    guest = await verifier.guest()
    await bad_boot(guest)
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    for known in (tag, "*"):
        headers = {"If-None-Match": known}
        assert (await verifier.get(path_of(guest), RP, headers=headers)).status == 304
        answer = await verifier.get(path_of(guest, "?min_tier=warning"), RP, headers=headers)
        assert (answer.status, answer.code) == (403, "tier-not-met")


async def test_the_tag_of_a_good_verdict_opens_no_gate_once_it_is_stale(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    clock.advance(minutes=11)
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    for known in (tag, "*"):
        headers = {"If-None-Match": known}
        assert (await verifier.get(path_of(guest), RP, headers=headers)).status == 304
        answer = await verifier.get(path_of(guest, "?min_tier=affirming"), RP, headers=headers)
        assert (answer.status, answer.code) == (403, "tier-not-met")


async def test_another_tenant_is_not_told_that_nothing_is_new(verifier):
    guest = await verifier.guest()
    await guest.attest()
    stranger = await verifier.token(RP, tenant="other")
    tag = (await verifier.get(path_of(guest), RP)).headers["ETag"]
    for known in (tag, "*"):
        for query in ("", "?wait=60"):
            answer = await verifier.call(
                "GET", path_of(guest, query), token=stranger, headers={"If-None-Match": known}
            )
            assert (answer.status, answer.code) == (404, "not-found")
