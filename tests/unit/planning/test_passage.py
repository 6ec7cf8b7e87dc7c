"""What became of a trace, and what the simulation says will become of it."""

import pytest

from careedit.errors import InputError
from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.config import ServeConfig
from careedit_deployments.planning.model import load_profiles
from careedit_deployments.planning.replay import Passage, passage, predict

PROFILE = load_profiles()["dit20b-h200"].model_copy(update={"fixed": 0.0})
CONFIG = ServeConfig(arms={"main": {"expert_set": "tiny"}}, expert={"max_ongoing_requests": 1})


def row(at: float, expert: str = "erase") -> TraceRow:
    return TraceRow(arrival_s=at, size="64x64", steps=10, slo_ms=1000, expert=expert)


def test_a_passage_counts_from_the_traces_beginning_to_the_last_answer() -> None:
    found = passage([row(0), row(1), row(2), row(3)], [1.0, None, 4.0, 2.0])
    assert found == Passage(answered=3, p50=2.0, p95=4.0, per_second=3 / 6.0)


def test_a_trace_without_answers_is_told_in_a_sentence() -> None:
    with pytest.raises(InputError, match="No request"):
        passage([row(0)], [None])


def test_one_replica_that_holds_one_edit_is_predicted_as_worked_out_by_hand() -> None:
    alone = PROFILE.overhead_s + PROFILE.encode_s + 10 * PROFILE.step_s + PROFILE.decode_s
    found = predict([row(0), row(0), row(0, "style")], PROFILE, CONFIG, ("erase", "style"), ())
    assert (found.answered, found.p50, found.p95) == (3, pytest.approx(alone), pytest.approx(2 * alone))
    assert found.per_second == pytest.approx(3 / (2 * alone))
