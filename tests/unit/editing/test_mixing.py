"""The Latent Mixture's arithmetic."""

import pytest
import torch

from careedit.editing.mixing import mix_velocities
from careedit.records import mixture_rows

VELOCITIES = {name: torch.full((1, 4, 2), value) for name, value in {"base": 1.0, "erase": 3.0, "style": 11.0}.items()}
MIX = {"style": 0.25, "erase": 0.75}


@pytest.mark.parametrize(
    ("weights", "masked", "rows"),
    [
        ({"base": 1.0}, False, ("base",)),
        ({"erase": 1.0}, True, ("erase",)),
        (MIX, False, ("erase", "style")),
        (MIX, True, ("erase", "style", "base")),
        ({"style": 0.5, "base": 0.5}, True, ("base", "style")),
    ],
)
def test_only_a_masked_mixture_needs_the_base_besides_its_experts(weights, masked, rows):
    assert mixture_rows(weights, masked=masked) == rows


def test_without_a_mask_velocities_are_averaged_by_weight():
    assert torch.equal(mix_velocities(VELOCITIES, MIX, None), torch.full((1, 4, 2), 0.75 * 3 + 0.25 * 11))


def test_outside_the_mask_a_mixture_is_the_base():
    coverage = torch.tensor([0.0, 1.0, 0.5, 0.0]).view(1, 4, 1)

    assert mix_velocities(VELOCITIES, MIX, coverage)[0, :, 0].tolist() == [1.0, 5.0, 3.0, 1.0]


def test_a_single_expert_is_used_as_it_is_even_under_a_mask():
    coverage = torch.zeros(1, 4, 1)

    assert torch.equal(mix_velocities(VELOCITIES, {"erase": 1.0}, coverage), VELOCITIES["erase"])


def test_the_order_in_which_weights_are_given_does_not_change_a_bit():
    velocities = {name: torch.randn(1, 64, 32) for name in ("a", "b", "c")}
    weights = {"a": 0.3, "b": 0.1, "c": 0.6}

    forwards = mix_velocities(velocities, weights, None)

    assert torch.equal(forwards, mix_velocities(velocities, dict(reversed(weights.items())), None))


def test_a_mixture_keeps_the_velocities_number_format():
    velocities = {name: value.to(torch.bfloat16) for name, value in VELOCITIES.items()}

    assert mix_velocities(velocities, MIX, torch.ones(1, 4, 1)).dtype == torch.bfloat16
