"""Who goes on at each look, given the scores."""

import pytest

from careedit.records import EarlyFilter
from careedit.selection.plan import JudgeFailed, make_plan, race


def run(strategy, table, *, preview_steps=4, **more):
    """A race whose scores are `table[steps][candidate]`."""
    candidates = len(next(iter(table.values())))
    plan = make_plan(
        EarlyFilter(strategy=strategy, candidates=candidates, preview_steps=preview_steps, **more), steps=8
    )

    def scores_at(steps, alive):
        if isinstance(table[steps], JudgeFailed):
            raise table[steps]
        return [table[steps][i] for i in alive]

    return race(plan, scores_at)


def seen(run):
    return [(look.steps, look.alive) for look in run.looks]


def test_the_best_score_wins_and_of_equals_the_first_seed():
    assert run("continue", {4: [0.2, 0.9, 0.9]}).chosen == 1
    assert run("restart", {4: [0.0, 0.0, 0.0]}).chosen == 0


def test_a_candidate_without_a_score_is_the_worst():
    assert run("continue", {4: [None, 0.0, None]}).chosen == 1


def test_halving_keeps_the_best_in_the_order_of_their_seeds():
    table = {2: [0.1, 0.5, 0.2, 0.6, 0.3, 0.7], 3: [0, 0.8, 0, 0.1, 0, 0.9], 4: [0, 0.9, 0, 0, 0, 0.8]}
    made = run("halving", table)
    assert seen(made) == [(2, (0, 1, 2, 3, 4, 5)), (3, (1, 3, 5)), (4, (1, 5))]
    assert made.chosen == 1 and not made.exited_early
    assert made.cost == 6 * 2 + 3 + 2


def test_a_clearly_good_candidate_ends_the_race():
    table = {2: [0.1, 0.95, 0.2, 0.6], 4: [1.0, 0, 0, 0]}
    made = run("halving", table, early_exit=0.95)
    assert (made.chosen, made.exited_early, seen(made)) == (1, True, [(2, (0, 1, 2, 3))])
    assert made.cost == 8


@pytest.mark.parametrize("strategy", ["continue", "restart"])
def test_half_way_nobody_is_dropped_unless_one_is_clearly_good(strategy):
    table = {2: [0.1, 0.8, 0.2], 4: [0.99, 0.0, 0.0]}
    slow = run(strategy, table, early_exit=0.9)
    assert (slow.chosen, slow.exited_early, seen(slow)) == (0, False, [(2, (0, 1, 2)), (4, (0, 1, 2))])
    fast = run(strategy, table, early_exit=0.8)
    assert (fast.chosen, fast.exited_early, fast.cost) == (1, True, 6)


def test_without_any_score_the_first_seed_goes_on_at_once():
    made = run("halving", {4: [0.1] * 4, 2: JudgeFailed("the judge is away")})
    assert (made.chosen, made.degraded) == (0, "the judge is away")
    assert seen(made) == [(2, (0, 1, 2, 3))]


def test_when_the_judge_fails_later_the_best_so_far_goes_on():
    made = run("halving", {2: [0.1, 0.2, 0.9, 0.8], 4: JudgeFailed("the judge is away")})
    assert (made.chosen, made.degraded) == (2, "the judge is away")
    assert seen(made) == [(2, (0, 1, 2, 3)), (4, (2, 3))]
