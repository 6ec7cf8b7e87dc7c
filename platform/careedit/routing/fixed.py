"""The fixed router: the caller has chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from careedit.record import Record
from careedit.records import (
    BASE,
    RoutingDecision,
    check_weights,
    unknown_expert,
)
from careedit.routing.base import RoutableExpert, read_options, register_router
from careedit.routing.features import RoutingFeatures


class FixedRouter:
    """Always answers with one expert, or with one mixture, whatever the edit.

    `choice` is a name (`BASE`: no expert) or a weight per name, positive and summing to 1. `top_k` does not cut a
    mixture that was asked for. There are no probabilities, and `feasible` is 1: the instruction is not looked at.
    Raises `UnknownExpertError` for an expert that `experts` lacks and `InputError` for unusable weights.
    """

    name = "fixed"

    def __init__(self, choice: str | Mapping[str, float], experts: Sequence[RoutableExpert]) -> None:
        weights = {choice: 1.0} if isinstance(choice, str) else dict(choice)
        known = [expert.name for expert in experts]
        for name in weights:
            if name not in known and name != BASE:
                raise unknown_expert(name, known)
        check_weights(weights)
        total = sum(weights.values())
        self._weights = {name: weight / total for name, weight in weights.items()}

    def route(self, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """The fixed choice."""
        named = [f"{name} {weight:.2f}" for name, weight in self._weights.items()]
        if len(named) > 1:
            what = f"a mixture of {' and '.join((', '.join(named[:-1]), named[-1]))}"
        else:
            (only,) = self._weights
            what = "the base alone" if only == BASE else f"the {only} expert"
        return RoutingDecision(weights=self._weights, router=self.name, reason=f"Fixed beforehand: {what}.")


class FixedOptions(Record):
    """Options of the fixed router in an expert set's file."""

    expert: str | dict[str, float]
    """A name, "base" for no expert, or a weight per name."""


@register_router("fixed")
def _build(experts: Sequence[RoutableExpert], options: Mapping[str, Any]) -> FixedRouter:
    return FixedRouter(read_options("fixed", FixedOptions, options).expert, experts)
