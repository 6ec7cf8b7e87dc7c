"""When a full queue will have room again."""

from contextlib import ExitStack

import pytest

from careedit_deployments.cluster.drain_rate import LEAST, MOST, Turnover


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def test_what_is_in_hand_takes_the_mean_interval_between_two_ends_each(clock):
    turnover = Turnover(clock)
    assert turnover.seconds == LEAST
    for _ in range(3):
        with turnover.work():
            clock.now += 4
        clock.now += 1000  # nothing was in hand: this says nothing of the pace
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(turnover.work())
        assert turnover.seconds == pytest.approx(12)
        for _ in range(100):
            held.enter_context(turnover.work())
        assert turnover.seconds == MOST


def test_replicas_that_work_side_by_side_shorten_the_interval(clock):
    turnover = Turnover(clock)
    first, second = turnover.work(), turnover.work()
    first.__enter__()
    second.__enter__()
    clock.now += 4
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    with turnover.work(), turnover.work():
        assert turnover.seconds == pytest.approx(2 * 0.8 * 4)


def test_work_that_fails_says_nothing_of_the_pace_and_is_no_longer_in_hand(clock):
    turnover = Turnover(clock)
    with pytest.raises(ValueError, match="no"), turnover.work():
        clock.now += 50
        raise ValueError("no")
    with turnover.work():
        assert turnover.seconds == LEAST
