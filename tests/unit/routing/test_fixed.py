"""The fixed router: what the caller says is used."""

from __future__ import annotations

import math

import pytest

from careedit.errors import InputError, UnknownExpertError
from careedit.routing import FixedRouter, Router, RoutingFeatures

ANY = RoutingFeatures("remove the dog")


@pytest.mark.parametrize(("name", "reason"), [("style", "the style expert"), ("base", "the base alone")])
def test_one_expert_is_always_chosen(experts, name, reason):
    decision = FixedRouter(name, experts).route(ANY, top_k=1)

    assert decision.weights == {name: 1.0}
    assert decision.router == "fixed"
    assert decision.reason == f"Fixed beforehand: {reason}."
    assert decision.probabilities == {} and decision.entropy == 0 and decision.feasible == 1


def test_a_mixture_is_not_cut_by_top_k(experts):
    decision = FixedRouter({"style": 0.25, "erase": 0.5, "base": 0.25}, experts).route(ANY, top_k=1)

    assert decision.weights == {"style": 0.25, "erase": 0.5, "base": 0.25}
    assert decision.reason == "Fixed beforehand: a mixture of style 0.25, erase 0.50 and base 0.25."


def test_weights_that_are_rounded_are_made_exact(experts):
    decision = FixedRouter({"style": 0.333, "erase": 0.667 - 1e-4}, experts).route(ANY, top_k=2)

    assert math.isclose(sum(decision.weights.values()), 1, abs_tol=1e-12)


@pytest.mark.parametrize("choice", ["stlye", {"stlye": 1.0}])
def test_an_unknown_expert_is_refused_with_the_known_ones(experts, choice):
    with pytest.raises(UnknownExpertError, match=r"expert 'stlye' does not exist; .* erase, compose, .* and 'base'\."):
        FixedRouter(choice, experts)


@pytest.mark.parametrize(
    "weights", [{}, {"style": 0.5}, {"style": 1.5, "erase": -0.5}, {"style": math.nan}, {"style": 1.0, "erase": 0.0}]
)
def test_unusable_weights_are_refused(experts, weights):
    with pytest.raises(InputError, match="positive and sum to 1"):
        FixedRouter(weights, experts)


def test_it_is_a_router(experts):
    assert isinstance(FixedRouter("style", experts), Router)
