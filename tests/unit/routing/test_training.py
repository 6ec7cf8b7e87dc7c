"""What training a learned router needs: its losses, temperature, threshold and calibration error."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from careedit.errors import InputError
from careedit.routing.transformer import (
    calibration_bins,
    calibration_error,
    fit_temperature,
    largest_threshold,
    load_balance,
    top_k_weights,
)


def test_weights_renormalised_over_one_expert_have_no_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    kept = top_k_weights(logits, 1)
    (kept / kept.sum(dim=-1, keepdim=True)).sum(dim=0)[0].backward()
    assert float(logits.grad.abs().max()) < 1e-6


def test_training_weights_are_the_probabilities_of_the_best_k():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    p = logits.softmax(-1)[0]
    assert top_k_weights(logits, 2)[0].tolist() == pytest.approx([float(p[0]), float(p[1]), 0.0])
    assert top_k_weights(logits, 9)[0].tolist() == pytest.approx(p.tolist())


def test_load_balance_is_zero_when_all_are_used_alike_and_largest_when_one_is():
    even = torch.eye(3) * 50
    assert float(load_balance(even)) == pytest.approx(0, abs=1e-9)
    one = torch.tensor([[50.0, 0, 0]]).expand(3, 3)
    assert float(load_balance(one)) == pytest.approx((2 / 3) ** 2 + 2 / 9, abs=1e-6)


def test_a_fitted_temperature_recovers_the_true_one():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(6000, 4, generator=generator)
    labels = torch.multinomial(true.softmax(-1), 1, generator=generator)[:, 0]
    assert fit_temperature(true * 3, labels) == pytest.approx(3, rel=0.1)
    binary = torch.bernoulli(true[:, 0].sigmoid(), generator=generator)
    assert fit_temperature(true[:, 0] * 2, binary) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize(("labels", "temperature"), [(torch.arange(4), 0.05), (torch.arange(4).flip(0), 20.0)])
def test_a_fitted_temperature_stays_in_its_range(labels, temperature):
    assert fit_temperature(torch.eye(4) * 9, labels) == pytest.approx(temperature, rel=1e-5)


def test_the_threshold_keeps_the_promised_share_of_false_alarms():
    feasible = torch.linspace(0, 1, 101)
    threshold = largest_threshold(feasible, false_alarms=0.02)
    assert float((feasible < threshold).double().mean()) <= 0.02
    assert threshold > 0.015


def test_nothing_to_calibrate_on_is_a_sentence():
    with pytest.raises(InputError, match="validation"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0))
    with pytest.raises(InputError, match="validation"):
        largest_threshold(torch.zeros(0), false_alarms=0.1)


def test_the_calibration_error_of_a_known_case():
    """Eight decisions at 0.9 of which six are right, two at 0.5 of which one is: 0.8 * 0.15 + 0.2 * 0."""
    stated, right = [0.9] * 8 + [0.5] * 2, [1] * 6 + [0] * 2 + [1, 0]

    assert [(one.count, one.accuracy) for one in calibration_bins(stated, right)] == [(2, 0.5), (8, 0.75)]
    assert calibration_error(stated, right) == pytest.approx(0.12)


def test_certainty_falls_into_the_last_bin():
    (only,) = calibration_bins([1.0, 1.0], [1, 1])

    assert (only.confidence, only.accuracy, only.count) == (1.0, 1.0, 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_bins_hold_every_decision_and_the_error_is_a_share(decisions):
    stated, right = zip(*decisions, strict=True)

    bins = calibration_bins(stated, right)

    assert sum(one.count for one in bins) == len(decisions)
    assert sum(one.count * one.accuracy for one in bins) == pytest.approx(sum(right))
    assert 0 <= calibration_error(stated, right) <= 1
