"""How many replicas some work needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from careedit_deployments.replica.scaling import QUEUED_SECONDS, SECONDS_PER_EDIT, StepSecondsPolicy, replicas_needed

IDLE = {
    "queued_seconds": [0.0],
    "seconds_per_edit": [2.0],
    "waiting_requests": 0,
    "running_requests": 0,
    "target_seconds": 10.0,
    "minimum": 0,
    "maximum": 8,
}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, 0),
        ({"minimum": 1}, 1),
        ({"queued_seconds": [9.0]}, 1),
        ({"queued_seconds": [10.0]}, 1),
        ({"queued_seconds": [10.1]}, 2),
        ({"queued_seconds": [12.0, 12.0, 12.0]}, 4),
        ({"queued_seconds": [500.0]}, 8),
        ({"waiting_requests": 20}, 4),
        ({"waiting_requests": 20, "queued_seconds": [10.0]}, 5),
        # Nobody knows yet what an edit costs: each waiting one counts as a whole target.
        ({"waiting_requests": 3, "seconds_per_edit": [], "queued_seconds": []}, 3),
        ({"waiting_requests": 3, "seconds_per_edit": [0.0]}, 3),
        # One that runs keeps its replica, even before its work is told.
        ({"running_requests": 1}, 1),
    ],
)
def test_replicas_follow_the_seconds_that_wait_and_not_the_requests(changes, wanted):
    assert replicas_needed(**(IDLE | changes)) == wanted


def context(queued, per_edit, **changes):
    points = lambda values: {f"r{i}": [SimpleNamespace(value=v) for v in told] for i, told in enumerate(values)}
    return SimpleNamespace(
        **{
            "raw_metrics": {QUEUED_SECONDS: points(queued), SECONDS_PER_EDIT: points(per_edit)},
            "total_queued_requests": 0.0,
            "total_running_requests": 0.0,
            "capacity_adjusted_min_replicas": 1,
            "capacity_adjusted_max_replicas": 4,
            "policy_state": {"kept": 1},
            **changes,
        }
    )


def test_the_policy_takes_each_replicas_latest_word():
    policy = StepSecondsPolicy(target_seconds=5.0)
    assert policy(context([[90.0, 4.0], [6.0, 5.0]], [[1.0], [1.0]])) == (2, {"kept": 1})
    assert policy(context([[4.0, 90.0]], [[1.0]]))[0] == 4
    assert policy(context([[]], [[]], total_queued_requests=2.0))[0] == 2
    assert policy(context([], [], raw_metrics=None))[0] == 1
