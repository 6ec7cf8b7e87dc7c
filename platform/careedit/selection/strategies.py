"""The strategies of the early filter: when the judge sees previews, and how many candidates go on after each checkpoint.

A strategy is pure arithmetic; `careedit.selection.run` does the work. So the cost of a filter is known before it starts.
NFE is the number of transformer evaluations for n steps, M candidates and m preview steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point at which the judge scores previews of all candidates that are left."""

    after: int
    """Steps that each candidate has made by then."""
    keep: int
    """Number of candidates that go on."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """When the judge scores previews, and how many candidates go on."""

    checkpoints: Callable[[int, int], tuple[Checkpoint, ...]]
    """(candidates, 2 or more; preview steps) -> the checkpoints. The last is after all preview steps and keeps one."""
    restarts: bool = False
    """Whether previews have a short schedule of their own, so that the winner starts again with the full one."""


def _none(candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
    """No filter: the first noise is finished. NFE = n."""
    return ()


def _once(candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
    """One checkpoint, after the preview steps.

    "restart" is ICEdit's filter (arXiv 2504.20690, section 3.4): each candidate is denoised to the end on a coarse schedule
    of m steps, and the best one's noise starts again. NFE = n + M m. A preview is a finished, if rough, picture, but the
    coarse sigmas differ from the edit's, so no step is reused.

    "continue": candidates share the first m steps of the edit's own schedule, and the winner goes on. NFE = M m + (n - m).
    Previews are the denoised estimates at that noise level, softer than those of "restart".
    """
    return (Checkpoint(preview_steps, 1),)


def _halving(candidates: int, preview_steps: int) -> tuple[Checkpoint, ...]:
    """Successive halving (arXiv 1502.07943): the worst half is dropped at each of several checkpoints in the first m steps.

    Most candidates are paid for while they are easy to tell apart; the close ones get more steps. NFE = sum over checkpoints
    of (candidates left) * (steps since the checkpoint before), plus n - m. With M = 6 and m = 4, checkpoints after 2, 3 and 4
    steps keep 3, 2 and 1, which costs 6*2 + 3*1 + 2*1 = 17 steps, plus n - 4 for the winner.

    There are as many checkpoints as it takes to halve down to one, evenly over the m steps, and at most one per step.
    """
    count = min((candidates - 1).bit_length(), preview_steps)
    made, alive = [], candidates
    for i in range(1, count + 1):
        alive = 1 if i == count else ceil(alive / 2)
        # Rounded up: a later preview shows more.
        made.append(Checkpoint(ceil(preview_steps * i / count), alive))
    return tuple(made)


STRATEGIES: Mapping[str, Strategy] = {
    "none": Strategy(_none),
    "restart": Strategy(_once, restarts=True),
    "continue": Strategy(_once),
    "halving": Strategy(_halving),
}
"""The strategies, by the name that a request gives."""
