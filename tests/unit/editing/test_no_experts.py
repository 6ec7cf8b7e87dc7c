"""The applier of a base without experts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from careedit.errors import UnknownExpertError
from careedit.experts.applier import ExpertApplier, NoExperts
from careedit.records import BASE
from velocities import velocity


class Doubling(nn.Module):
    def forward(self, hidden_states: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        assert not return_dict
        return (2 * hidden_states,)


def test_every_row_is_the_bases():
    applier = NoExperts(Doubling())

    with applier.lease([BASE]):
        output = velocity(applier, [BASE, BASE], {"hidden_states": torch.ones(2, 3, 4)})

    assert torch.equal(output, torch.full((2, 3, 4), 2.0))


def test_it_is_an_applier():
    assert isinstance(NoExperts(Doubling()), ExpertApplier)


@pytest.mark.parametrize("use", [lambda a: a.lease(["erase"]), lambda a: velocity(a, ["base", "erase"], {})])
def test_a_named_expert_is_refused(use):
    with pytest.raises(UnknownExpertError, match="expert 'erase' does not exist"):
        use(NoExperts(Doubling()))
