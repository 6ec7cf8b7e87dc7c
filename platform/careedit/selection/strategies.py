"""The strategies of the early filter: when the judge sees previews, and how many candidates go on after each checkpoint.

A strategy is pure arithmetic; `careedit.selection.run` does the work. So the cost of a filter is known before it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point at which the judge scores previews of all candidates that are left."""

    after: int
    """Steps that each candidate has made by then."""
    keep: int
    """Number of candidates that go on."""


class Strategy(Protocol):
    """When the judge scores previews, and how many candidates go on."""

    @property
    def restarts(self) -> bool:
        """Whether previews have a short schedule of their own, so that the winner starts again with the full one."""
        ...

    def checkpoints(self, candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
        """The checkpoints of `candidates` (2 or more) noises; the last is after `preview_steps` steps and keeps one."""
        ...


class NoFilter:
    """No filter: the first noise is finished. NFE (transformer evaluations) = n steps."""

    restarts = False
    """No candidate is previewed."""

    def checkpoints(self, candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
        """Always empty."""
        return ()


class Restart:
    """ICEdit's filter (arXiv 2504.20690, section 3.4): coarse previews, and the winner is redone. NFE = n + M m.

    Each of M candidates is denoised to the end on a coarse schedule of m steps; the best one's noise starts again. A preview
    is a finished, if rough, picture, but the coarse sigmas differ from the edit's, so no step is reused.
    """

    restarts = True
    """The winner's noise goes through the full schedule."""

    def checkpoints(self, candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
        """One, at the end of the coarse schedule."""
        return (Checkpoint(preview_steps, 1),)


class Continue:
    """Candidates share the first m steps of the edit's own schedule; the winner goes on. NFE = M m + (n - m).

    Previews are the denoised estimates at that noise level, softer than those of `restart`.
    """

    restarts = False
    """The winner goes on."""

    def checkpoints(self, candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
        """One, after m steps."""
        return (Checkpoint(preview_steps, 1),)


class Halving:
    """Successive halving (arXiv 1502.07943): the worst half is dropped at each of several checkpoints in the first m steps.

    Most candidates are paid for while they are easy to tell apart; the close ones get more steps. NFE = sum over checkpoints
    of (candidates left) * (steps since the checkpoint before), plus n - m. With M = 6 and m = 4, checkpoints after 2, 3 and 4
    steps keep 3, 2 and 1, which costs 6*2 + 3*1 + 2*1 = 17 steps, plus n - 4 for the winner.
    """

    restarts = False
    """The winner goes on."""

    def checkpoints(self, candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
        """As many as it takes to halve down to one, evenly over the m steps; at most one per step, the last keeps one."""
        needed = (candidates - 1).bit_length()
        count = min(needed, preview_steps)
        made, alive = [], candidates
        for i in range(1, count + 1):
            alive = 1 if i == count else ceil(alive / 2)
            # Rounded up: a later preview shows more.
            made.append(Checkpoint(ceil(preview_steps * i / count), alive))
        return tuple(made)


STRATEGIES: Mapping[str, Strategy] = {
    "none": NoFilter(),
    "restart": Restart(),
    "continue": Continue(),
    "halving": Halving(),
}
"""The strategies, by the name that a request gives."""
