"""Who goes on at each look, given the scores: the same function for a real edit and for a benchmark's look-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from careedit.records import FilterLook
from careedit.selection.base import Plan

ScoresAt = Callable[[int, tuple[int, ...]], Sequence[float | None]]
"""(steps done, candidates alive) to their overall scores, None for one without; raises `JudgeFailed`."""


class JudgeFailed(Exception):
    """The judge did not choose; the message is a part of a sentence."""


@dataclass(frozen=True, slots=True)
class Race:
    """How a race went."""

    chosen: int
    """The candidate that is finished."""
    looks: tuple[FilterLook, ...]
    """Looks that were taken; the failed one too, whose steps were spent."""
    exited_early: bool = False
    """Whether looks were left out for a clearly good candidate."""
    degraded: str | None = None
    """Why the judge did not choose."""

    @property
    def cost(self) -> int:
        """Steps of all candidates together."""
        before = (0, *(look.steps for look in self.looks[:-1]))
        return sum(len(look.alive) * (look.steps - steps) for look, steps in zip(self.looks, before, strict=True))


def race(plan: Plan, scores_at: ScoresAt) -> Race:
    """Run the looks of `plan`. Of equal scores the earlier seed's is better; a candidate without a score is the worst."""
    alive, leader = tuple(range(plan.candidates)), 0
    looks: list[FilterLook] = []
    for look in plan.looks:
        looks.append(FilterLook(steps=look.after, alive=alive))
        try:
            scores = dict(zip(alive, scores_at(look.after, alive), strict=True))
        except JudgeFailed as failure:
            return Race(leader, tuple(looks), degraded=str(failure))
        known = {i: -1.0 if score is None else score for i, score in scores.items()}
        ranked = sorted(alive, key=lambda i: known[i], reverse=True)
        leader = ranked[0]
        if plan.early_exit is not None and known[leader] >= plan.early_exit:
            return Race(leader, tuple(looks), exited_early=look is not plan.looks[-1])
        alive = tuple(sorted(ranked[: look.keep]))
    return Race(leader, tuple(looks))
