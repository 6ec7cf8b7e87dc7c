"""Rows from tables of outcomes: who is chosen, and what that comes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from careedit.errors import InputError
from careedit_tiny.evaluation.quality.outcomes import Outcome
from careedit_tiny.evaluation.quality.rows import (
    best_single,
    looked_up,
    oracle_choice,
    random_row,
    row_of,
)

ARMS = ("base", "erase", "style")


def outcome(right: bool, *, l1: float = 0.1, nfe: int = 8) -> Outcome:
    return Outcome(right, True, 0.01, 0.005, l1, nfe=nfe, seconds=0.5)


def outcomes(rights: str, *, l1: float = 0.1) -> list[Outcome]:
    """One per character, "+" for right."""
    return [outcome(one == "+", l1=l1) for one in rights]


@pytest.fixture
def table() -> dict[str, Sequence[Outcome]]:
    return {"base": outcomes("----"), "erase": outcomes("++--", l1=0.2), "style": outcomes("--+-")}


def test_a_row_counts_what_is_both_followed_and_preserved() -> None:
    spoilt = Outcome(True, False, 0.2, 0.1, 0.3)

    row = row_of([outcome(True), spoilt], routing_seconds=0.25)

    assert (row.compliance, row.followed.mean(), row.preserved.mean()) == (0.5, 1.0, 0.5)
    assert row.seconds.tolist() == [0.75, 0.25]


def test_a_row_says_each_kind_with_its_count(table: dict[str, Sequence[Outcome]]) -> None:
    document = row_of(table["erase"]).document(["remove", "remove", "style", "add"])

    assert {kind: (one["compliance"], one["count"]) for kind, one in document["by_kind"].items()} == {
        "remove": (1.0, 2),
        "style": (0.0, 1),
        "add": (0.0, 1),
    }
    assert document["ci"][0] <= document["compliance"] == 0.5 <= document["ci"][1]


def test_random_routing_is_the_mean_over_the_experts_scene_by_scene(table: dict[str, Sequence[Outcome]]) -> None:
    row = random_row(table, ("erase", "style"))

    assert row.compliant.tolist() == [0.5, 0.5, 0.5, 0.0]
    assert row.l1.tolist() == pytest.approx([0.15] * 4)


def test_routing_looks_up_what_the_chosen_one_made(table: dict[str, Sequence[Outcome]]) -> None:
    made = looked_up(table, ["erase", "style", "style", "base"])

    assert [one.compliant for one in made] == [True, False, True, False]


def test_the_oracle_takes_who_is_right_and_else_who_is_nearest(table: dict[str, Sequence[Outcome]]) -> None:
    assert oracle_choice(table, ARMS) == ["erase", "erase", "style", "base"]


def test_the_best_single_expert_is_the_one_most_often_right_and_of_equals_the_nearest() -> None:
    assert best_single({"a": outcomes("+-"), "b": outcomes("++")}, ("a", "b")) == "b"
    assert best_single({"a": outcomes("+-", l1=0.3), "b": outcomes("-+", l1=0.2)}, ("a", "b")) == "b"


def test_an_empty_row_is_refused() -> None:
    with pytest.raises(InputError, match="one or more"):
        row_of([])


def test_a_perfect_oracle_is_never_below_any_choice() -> None:
    rng = np.random.default_rng(0)
    table = {name: [outcome(bool(one)) for one in rng.integers(2, size=30)] for name in ARMS}

    best = row_of(looked_up(table, oracle_choice(table, ARMS)))

    assert all(best.compliance >= row_of(table[name]).compliance for name in ARMS)
