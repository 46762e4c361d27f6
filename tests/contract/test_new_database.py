"""PostgreSQL plans by what it knows of the rows, and of a new database it knows nothing: a boot storm must not wait for ANALYZE."""

from __future__ import annotations

from sqlalchemy import text

from tests.contract.test_fleet_pages import nodes
from verifier.ports import DEFAULT_TENANT
from verifier.store.machines import _OF_UUID


async def test_who_claimed_a_uuid_is_found_without_a_walk_through_the_fleet(postgresql_database):
    store = await postgresql_database.open()
    asked = _OF_UUID.params(tenant=DEFAULT_TENANT, keys=["8f2d5e0c-0001-4000-8000-000000000001"])

    def explained(connection):
        compiled = asked.compile(connection.engine, compile_kwargs={"literal_binds": True})
        return connection.execute(text(f"EXPLAIN (FORMAT JSON) {compiled}".replace(":", "\\:"))).scalar()

    (whole,) = await store._backend.write(explained)
    used = {
        node["Relation Name"]: node.get("Index Name")
        for node in nodes(whole["Plan"])
        if "Relation Name" in node
    }
    assert used.pop("attester_uuid") == "ix_attester_uuid_tenant_smbios_uuid_attester_id"
    assert used == {table: f"pk_{table}" for table in used}
    assert {"latest", "attester"} <= used.keys()
