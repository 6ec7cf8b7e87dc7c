"""Softmax first, then top-k."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from careedit.errors import InputError
from careedit.routing import entropy, softmax, softmax_top_k

LOGITS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)
NEAR = st.lists(st.floats(-20, 20), min_size=1, max_size=12)


@given(LOGITS, st.integers(1, 15), st.floats(0.01, 100))
def test_probabilities_and_weights_sum_to_one_and_the_best_come_first(logits, k, temperature):
    top = softmax_top_k(logits, k, temperature=temperature)

    assert math.isclose(top.probabilities.sum(), 1, abs_tol=1e-9)
    assert math.isclose(top.weights.sum(), 1, abs_tol=1e-9)
    assert len(set(top.chosen)) == len(top.chosen) == len(top.weights) <= min(k, len(logits))
    assert (top.weights > 0).all()
    assert (np.diff(top.weights) <= 0).all()
    left_out = [p for i, p in enumerate(top.probabilities) if i not in top.chosen]
    assert max(left_out, default=0) <= top.probabilities[top.chosen[-1]]
    assert -1e-12 <= top.entropy <= math.log(len(logits)) + 1e-9


@given(NEAR, st.integers(1, 15))
def test_weights_are_the_probabilities_of_all_experts_renormalised(logits, k):
    top = softmax_top_k(logits, k)
    kept = top.probabilities[list(top.chosen)]

    assert len(top.chosen) == min(k, len(logits))
    assert np.allclose(top.weights, kept / kept.sum())


@given(NEAR, st.floats(-1e3, 1e3))
def test_only_differences_of_logits_count(logits, shift):
    assert np.allclose(softmax(logits), softmax([logit + shift for logit in logits]), atol=1e-9)


@given(NEAR)
def test_the_best_experts_probability_moves_with_its_logit_even_for_top_one(logits):
    """With top-k before softmax it would be 1 whatever the logit, and a top-1 router could not learn."""
    logits = [*logits, max(logits)]
    raised = [*logits[:-1], logits[-1] + 0.5]

    assert softmax_top_k(raised, 1).probabilities[-1] > softmax_top_k(logits, 1).probabilities[-1] + 1e-12


def test_known_values():
    top = softmax_top_k([math.log(1), math.log(6), math.log(3)], 2)

    assert np.allclose(top.probabilities, [0.1, 0.6, 0.3])
    assert top.chosen == (1, 2)
    assert np.allclose(top.weights, [2 / 3, 1 / 3])
    assert math.isclose(top.entropy, -(0.1 * math.log(0.1) + 0.6 * math.log(0.6) + 0.3 * math.log(0.3)))


def test_of_equals_the_earlier_is_chosen():
    assert softmax_top_k([1.0, 2.0, 2.0, 2.0], 2).chosen == (1, 2)


def test_an_expert_without_weight_is_not_evaluated():
    assert softmax_top_k([0.0, -5000.0], 2).chosen == (0,)


@pytest.mark.parametrize(("p", "nats"), [([1.0, 0.0], 0.0), ([0.5, 0.5], math.log(2)), ([0.25] * 4, math.log(4))])
def test_entropy_is_in_nats(p, nats):
    assert math.isclose(entropy(p), nats, abs_tol=1e-12)


@pytest.mark.parametrize("logits", [[], [math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_unusable_logits_are_refused(logits):
    with pytest.raises(InputError, match="finite numbers"):
        softmax_top_k(logits, 1)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_an_unusable_temperature_is_refused(temperature):
    with pytest.raises(InputError, match="positive number"):
        softmax([1.0], temperature=temperature)


def test_at_least_one_expert_must_be_allowed():
    with pytest.raises(InputError, match="top_k is 0"):
        softmax_top_k([1.0], 0)
