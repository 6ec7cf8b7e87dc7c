"""Statistics of a router's decisions: known answers, and what must hold for any labels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careedit_tiny.bench.quality.routed import mutual_information, permuted_information, recall_at

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


def test_information_of_a_perfect_router_is_the_entropy_and_of_a_constant_one_nothing() -> None:
    kinds = ["add", "remove", "style", "add", "remove", "style"]

    assert mutual_information(kinds, kinds) == pytest.approx(math.log(3))
    assert mutual_information(["compose"] * 6, kinds) == 0.0
    assert mutual_information(["a", "a", "b", "b"], ["x", "y", "x", "y"]) == pytest.approx(0.0)


def test_a_perfect_router_beats_every_permutation_and_a_constant_one_none() -> None:
    kinds = ["add", "remove", "style", "move"] * 10

    perfect, constant = permuted_information(kinds, kinds), permuted_information(["one"] * 40, kinds)

    assert (perfect.p, perfect.value) == (pytest.approx(1 / 2001), pytest.approx(math.log(4)))
    assert 0 < perfect.null_mean < perfect.null_high < perfect.value
    assert (constant.value, constant.p) == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_information_is_symmetric_and_no_more_than_an_entropy(first: list[str], random: object) -> None:
    second = list(first)
    random.shuffle(second)  # type: ignore[attr-defined]

    value = mutual_information(first, second)

    assert value == pytest.approx(mutual_information(second, first))
    assert -1e-9 <= value <= mutual_information(first, first) + 1e-9


def test_recall_keeps_to_the_allowed_false_alarms() -> None:
    doubts = [*([0.1] * 98), 0.9, 0.95]

    assert recall_at(doubts, [0.5, 0.5, 0.05], 0.02) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.01) == pytest.approx(2 / 3)
    assert recall_at(doubts, [0.92, 0.5, 0.99], 0.0) == pytest.approx(1 / 3)
