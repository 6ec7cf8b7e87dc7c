"""What a run is made of: its scenes and its noise are functions of its settings alone."""

from __future__ import annotations

import pytest

from careedit.errors import InputError
from careedit_tiny import KINDS
from careedit_tiny.evaluation.quality import Plan


def test_kinds_take_turns_and_splits_do_not_meet() -> None:
    plan = Plan(n=24, validation_n=12, infeasible_n=3, chains_n=2)

    assert [sample.kind for sample in plan.test] == [*KINDS, *KINDS]
    assert {sample.id for sample in plan.test}.isdisjoint(sample.id for sample in plan.validation)
    assert [sample.feasible for sample in plan.infeasible] == [False] * 3
    assert [len(chain) for chain in plan.chains] == [3, 3]
    assert len(plan.shown) == len(KINDS)


def test_the_smaller_parts_follow_n() -> None:
    plan = Plan(n=48)

    assert (len(plan.validation), len(plan.infeasible), len(plan.chains)) == (12, 8, 8)


def test_noise_depends_on_seed_scene_and_draw_but_not_on_n() -> None:
    few, many, other = Plan(n=2), Plan(n=24), Plan(n=2, seed=1)
    sample = few.test[0]

    assert few.noise(sample) == many.noise(sample)
    assert len({few.noise(sample), few.noise(sample, "pick"), other.noise(sample), few.noise(few.test[1])}) == 4


def test_edits_are_counted_beforehand() -> None:
    plan = Plan(n=12, validation_n=5, infeasible_n=2, chains_n=1)

    assert plan.edits(5, unified=True, learned=True) == 12 * (7 + 6 + 1) + 5 * 5 + 2 * 7 + 3 * 2
    assert Plan(12, 0, 5, 2, 1, oracle_seeds=1).edits(5, unified=False, learned=False) == 12 * 6 + 5 * 5 + 2 * 6 + 3


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"validation_n": 0}, "validation_n"),
        ({"seed": -1}, "seed"),
        ({"oracle_seeds": 3}, "oracle_seeds"),
    ],
)
def test_unusable_settings_are_refused_by_name(settings: dict[str, int], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is"):
        Plan(**settings)
