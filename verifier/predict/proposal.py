"""A policy from a prediction: golden sequences for what follows from the files, a reason for what does not."""

from __future__ import annotations

from typing import Any

from verifier.policy.writing import PolicyHead, PolicyWriter, Proposal
from verifier.predict.model import PredictedEvent, Prediction


def propose(prediction: Prediction, head: PolicyHead) -> Proposal:
    """A policy under which a boot of just these files is affirming.

    Quoted are the PCRs that are predicted, and those of which the prediction says why they are not: the log is held
    against those as well. A PCR that must stay untouched is judged by its value. What runs after the boot extends
    PCR 11 further; the words systemd-pcrphase uses for that are allowed by the appraisal, not by a rule.

    Raises:
        PolicyError: never for a `Prediction`; the documents are those that `parse_policy` reads.
    """
    writer = PolicyWriter(head)
    if prediction.secure_boot is not None:
        writer.secure_boot(enabled=prediction.secure_boot)
    if prediction.command_line is not None:
        writer.command_line([prediction.command_line])
    for pcr in sorted(prediction.pcrs):
        predicted = prediction.pcrs[pcr]
        if predicted.events:
            writer.sequence(pcr, [_step(event) for event in predicted.events])
        else:
            writer.values(pcr, [each.value.hex() for each in predicted.values])
    for pcr, why in sorted(prediction.unpredicted.items()):
        writer.unjudged(pcr, why)
    return writer.proposal(prediction.pcrs.keys() | prediction.unpredicted.keys())


def _step(event: PredictedEvent) -> dict[str, Any]:
    step: dict[str, Any] = {"label": event.text, "any_of": [event.digest.hex()]}
    if event.optional:
        step["optional"] = True
    return step
