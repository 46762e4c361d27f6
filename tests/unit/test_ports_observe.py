"""What is noted of a request while it goes on."""

from __future__ import annotations

from verifier.appraisal.stages import Stage
from verifier.ports_observe import Observation, StageSpan


def test_a_stage_that_was_entered_again_counts_with_all_of_its_time():
    """Evidence that was overtaken is judged anew."""
    seen = Observation("r")
    seen.stages += [(Stage.LOOKUP, 100), (Stage.COMMIT, 130), (Stage.LOOKUP, 200), (Stage.COMMIT, 207)]
    assert seen.spent(300) == {Stage.LOOKUP: 30 + 7, Stage.COMMIT: 70 + 93}
    assert seen.spans(300) == [
        StageSpan(Stage.LOOKUP, 100, 130),
        StageSpan(Stage.COMMIT, 130, 200),
        StageSpan(Stage.LOOKUP, 200, 207),
        StageSpan(Stage.COMMIT, 207, 300),
    ]


def test_a_request_that_entered_no_stage_spent_no_time_in_one():
    assert Observation("r").spent(300) == {}
