"""What an enrolment is written with, built once for each dialect: to build a statement costs more than to run it."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, Select, Update, bindparam, func, null, select, update

from verifier.ports import Lifecycle
from verifier.store.schema import attestation_key, attester, attester_uuid, endorsement_key, latest
from verifier.store.statements import Insert, InsertInto, insert_all

_THIS: Final[BindParameter[str]] = bindparam("b_attester_id", type_=latest.c.attester_id.type)
LOCK_OF_EK: Final[Select[*tuple[Any, ...]]] = (
    select(latest.c.attester_id)
    .where(
        latest.c.attester_id
        == select(attester.c.id)
        .where(
            attester.c.tenant == bindparam("b_tenant"),
            attester.c.ek_fingerprint == bindparam("b_fingerprint"),
        )
        .scalar_subquery()
    )
    .with_for_update(key_share=True)
)
BRING_BACK: Final[Update] = (
    update(latest)
    .where(latest.c.attester_id == _THIS, latest.c.lifecycle == Lifecycle.RETIRED.value)
    .values(lifecycle=Lifecycle.ENROLLED.value)
)
RETIRE_OTHER_AKS: Final[Update] = (
    update(attestation_key)
    .where(
        attestation_key.c.attester_id == _THIS,
        attestation_key.c.name != bindparam("b_name"),
        attestation_key.c.retired_at.is_(None),
    )
    .values(retired_at=bindparam("b_at"))
)
MOVE_ON: Final[Update] = (
    update(latest).where(latest.c.attester_id == _THIS).values(position=latest.c.position + 1)
)
PAST: Final = select(latest.c.position, latest.c.lineage).where(latest.c.attester_id == _THIS)
BEGIN_ANEW: Final[Update] = (
    update(latest)
    .where(latest.c.attester_id == _THIS)
    .values(
        position=bindparam("b_position"), lineage=bindparam("b_lineage"), incident=bindparam("b_incident")
    )
)


class Inserts(NamedTuple):
    """In the dialect's words."""

    keep_ek: Insert
    bind_attester: Any
    """Returns the id and the UUIDs of whoever has the EK."""
    add_uuid: Insert
    begin_latest: Insert
    bind_ak: Insert


@cache
def inserts(into: InsertInto) -> Inserts:
    """Built at the first call."""
    ek, machine, ak = (insert_all(into, one) for one in (endorsement_key, attester, attestation_key))
    return Inserts(
        keep_ek=ek.on_conflict_do_update(
            index_elements=["tenant", "fingerprint"],
            set_={
                "certificate": func.coalesce(ek.excluded.certificate, endorsement_key.c.certificate),
                "issuer": func.coalesce(ek.excluded.issuer, endorsement_key.c.issuer),
                "profile": ek.excluded.profile,
                "endorsed_by": ek.excluded.endorsed_by,
                "last_seen_at": ek.excluded.last_seen_at,
            },
        ),
        # An attester that is there already is locked by the update, so that its UUIDs are read as they stay.
        bind_attester=machine.on_conflict_do_update(
            index_elements=["tenant", "ek_fingerprint"], set_={"ak_name": machine.excluded.ak_name}
        ).returning(attester.c.id, attester.c.smbios_uuids),
        add_uuid=insert_all(into, attester_uuid).on_conflict_do_nothing(
            index_elements=["attester_id", "smbios_uuid"]
        ),
        begin_latest=into(latest)
        .values({name: bindparam(name) for name in ("attester_id", "tenant", "sequence", "lifecycle")})
        .on_conflict_do_nothing(index_elements=["attester_id"]),
        bind_ak=ak.on_conflict_do_update(
            index_elements=["attester_id", "name"],
            set_={"activated_at": ak.excluded.activated_at, "retired_at": null()},
        ),
    )
