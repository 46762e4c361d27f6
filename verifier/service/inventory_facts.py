"""What a policy may read of the inventories' word on an attester. Pure."""

from __future__ import annotations

from verifier.appraisal.correlate import InventoryView, Outcome
from verifier.claims import InventoryFacts


def inventory_facts(view: InventoryView | None) -> InventoryFacts | None:
    """The facts; none where there are no inventories, or what they would rest on is not current."""
    if view is None or view.correlation.outcome is Outcome.INVENTORY_STALE:
        return None
    found = view.correlation
    if found.machine is None or found.outcome not in {Outcome.MATCH, Outcome.EK_ONLY}:
        return InventoryFacts(outcome=found.outcome.value)
    machine = found.machine
    return InventoryFacts(
        outcome=found.outcome.value,
        source=machine.key.source,
        machine=machine.name,
        instance_uuid=machine.instance_uuid,
        secure_boot=machine.secure_boot,
        encrypted=None if machine.vcenter is None else machine.encrypted_key_id is not None,
    )
