"""`Retry-After` of a full queue."""

from contextlib import ExitStack

import pytest

from careedit_deployments.cluster.ray_backend import MAX_DRAIN_S, MIN_DRAIN_S, DrainRate


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def test_each_edit_in_flight_counts_for_the_mean_interval(clock):
    rate = DrainRate(clock)
    assert rate.seconds == MIN_DRAIN_S
    for _ in range(3):
        with rate.edit():
            clock.now += 4
        clock.now += 1000  # idle time is not an interval
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(rate.edit())
        assert rate.seconds == pytest.approx(12)
        for _ in range(100):
            held.enter_context(rate.edit())
        assert rate.seconds == MAX_DRAIN_S


def test_replicas_that_work_at_the_same_time_shorten_the_interval(clock):
    rate = DrainRate(clock)
    first, second = rate.edit(), rate.edit()
    first.__enter__()
    second.__enter__()
    clock.now += 4
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    with rate.edit(), rate.edit():
        assert rate.seconds == pytest.approx(2 * 0.8 * 4)


def test_an_edit_that_fails_leaves_the_rate_unchanged(clock):
    rate = DrainRate(clock)
    with pytest.raises(ValueError, match="no"), rate.edit():
        clock.now += 50
        raise ValueError("no")
    with rate.edit():
        assert rate.seconds == MIN_DRAIN_S
