"""Plans: what a filter costs is known before it starts."""

from __future__ import annotations

import pytest

from careedit.errors import InputError
from careedit.records import EarlyFilter
from careedit.selection.plan import evaluations, make_plan
from careedit.selection.strategies import STRATEGIES


def plan(strategy: str, candidates: int, preview_steps: int | None, steps: int = 50, **more):
    return make_plan(EarlyFilter(strategy=strategy, candidates=candidates, preview_steps=preview_steps, **more), steps)


@pytest.mark.parametrize(("candidates", "preview_steps", "nfe"), [(6, 4, 74), (6, 10, 110), (12, 10, 170)])
def test_restart_costs_what_the_paper_says(candidates, preview_steps, nfe):
    made = plan("restart", candidates, preview_steps)
    assert made.cost == nfe
    assert made.schedule == preview_steps and made.restarts


@pytest.mark.parametrize(("candidates", "preview_steps", "nfe"), [(6, 4, 70), (6, 10, 100), (12, 10, 160), (2, 1, 51)])
def test_continue_keeps_the_winners_first_steps(candidates, preview_steps, nfe):
    made = plan("continue", candidates, preview_steps)
    assert made.cost == nfe
    assert made.schedule == 50 and not made.restarts


@pytest.mark.parametrize(
    ("candidates", "preview_steps", "looks", "nfe"),
    [
        (6, 4, [(2, 3), (3, 2), (4, 1)], 6 * 2 + 3 + 2 + 46),
        (6, 10, [(4, 3), (7, 2), (10, 1)], 6 * 4 + 3 * 3 + 2 * 3 + 40),
        (12, 10, [(3, 6), (5, 3), (8, 2), (10, 1)], 12 * 3 + 6 * 2 + 3 * 3 + 2 * 2 + 40),
        (2, 5, [(5, 1)], 2 * 5 + 45),
        (12, 2, [(1, 6), (2, 1)], 12 + 6 + 48),
        (16, 1, [(1, 1)], 16 + 49),
    ],
)
def test_halving_drops_the_worst_half_at_looks_within_the_first_steps(candidates, preview_steps, looks, nfe):
    made = plan("halving", candidates, preview_steps)
    assert [(look.after, look.keep) for look in made.checkpoints] == looks
    assert made.cost == nfe


@pytest.mark.parametrize(("strategy", "cost"), [("restart", 20 + 6 * 5), ("continue", 15 + 6 * 5), ("halving", 35)])
def test_an_edit_costs_its_plan_for_every_image_and_expert(strategy, cost):
    wanted = EarlyFilter(strategy=strategy, candidates=6)
    assert evaluations(wanted, n=2, steps=20, rows=3) == 2 * 3 * cost
    assert evaluations(None, n=2, steps=20, rows=3) == 2 * 3 * 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_candidate_is_one_edit_and_nobody_looks(strategy):
    made = plan(strategy, 1, 4)
    assert (made.cost, made.checkpoints, made.candidates) == (50, (), 1)


def test_none_takes_the_first_of_however_many():
    assert (plan("none", 6, 4).cost, plan("none", 6, 4).candidates) == (50, 1)


@pytest.mark.parametrize(("steps", "last"), [(50, 12), (8, 2), (4, 1), (2, 1)])
def test_by_default_the_last_look_is_after_a_quarter_of_the_steps(steps, last):
    assert plan("continue", 6, None, steps).preview_steps == last


@pytest.mark.parametrize("strategy", ["restart", "continue"])
def test_with_an_early_exit_a_single_look_gets_one_half_way_where_all_stay(strategy):
    made = plan(strategy, 6, 5, early_exit=0.9)
    assert [(look.after, look.keep) for look in made.checkpoints] == [(3, 6), (5, 1)]
    assert made.cost == plan(strategy, 6, 5).cost


@pytest.mark.parametrize("strategy", ["restart", "continue", "halving"])
@pytest.mark.parametrize(("preview_steps", "steps"), [(8, 8), (9, 8), (None, 1)])
def test_a_preview_as_long_as_the_edit_is_refused(strategy, preview_steps, steps):
    with pytest.raises(InputError, match=rf"and the edit has {steps} steps?; the filter must look before the end"):
        plan(strategy, 6, preview_steps, steps)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"candidates": 0}, "candidates is 0; between 1 and 16 noises can be tried"),
        ({"candidates": 17}, "candidates is 17"),
        ({"preview_steps": 0}, "preview_steps is 0; it must lie between 1 and 199"),
        (
            {"strategy": "bubble"},
            "does not accept 'bubble' for its field 'strategy'.*'restart', 'continue' or 'halving'",
        ),
        ({"early_exit": 0}, "for its field 'early_exit'"),
        ({"early_exit": float("nan")}, "for its field 'early_exit'"),
        ({"timeout": 0}, "for its field 'timeout'"),
        ({"seeds": 3}, "has no field 'seeds'"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_in_a_sentence(fields, said):
    with pytest.raises(InputError, match=said):
        EarlyFilter(**fields)
