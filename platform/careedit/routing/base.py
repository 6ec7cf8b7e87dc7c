"""What a router is, what it needs to know of experts, and the simplest router: the caller has chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from careedit.language import listed
from careedit.records import BASE, RoutingDecision, check_weights, unknown_expert
from careedit.routing.features import RoutingFeatures


class RoutableExpert(Protocol):
    """What a router needs to know of an expert; `ExpertManifest` has it."""

    @property
    def name(self) -> str:
        """Name of the expert, unique within the expert set."""
        ...

    @property
    def competence(self) -> str:
        """What the expert does, in a word: erase, compose, style, identity, reference, or one of your own."""
        ...

    @property
    def handles(self) -> Sequence[str]:
        """Edit kinds and conditions that the expert is for, e.g. "remove", "mask"."""
        ...


@runtime_checkable
class Router(Protocol):
    """Chooses the experts of an edit. The same features give the same decision."""

    @property
    def name(self) -> str:
        """The router's kind, as in `RoutingDecision.router`."""
        ...

    def route(self, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """The experts for one edit, at most `top_k` of them, with weights that sum to 1 and the reason."""
        ...


class FixedRouter:
    """Always answers with one expert, or with one mixture, whatever the edit.

    `choice` is a name (`BASE`: no expert) or a weight per name, positive and summing to 1. `top_k` does not shorten a
    mixture that was asked for. The decision has no probabilities, and `feasible` is 1, because the instruction is not read.
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
        """The fixed choice, whatever the features are."""
        if len(self._weights) > 1:
            what = f"a mixture of {listed([f'{name} {weight:.2f}' for name, weight in self._weights.items()])}"
        else:
            (only,) = self._weights
            what = "the base alone" if only == BASE else f"the {only} expert"
        return RoutingDecision(weights=self._weights, router=self.name, reason=f"Fixed beforehand: {what}.")
