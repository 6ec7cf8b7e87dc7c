"""The plan of an early filter with its checkpoints and cost, and the choice of a candidate from the judge's scores.

Pure arithmetic, without torch: the same functions serve an edit, a server's limits and a benchmark's table of scores.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from careedit.errors import InputError
from careedit.records import MAX_SEED, EarlyFilter, FilterLook
from careedit.selection.strategies import STRATEGIES, Checkpoint


@dataclass(frozen=True, slots=True)
class Plan:
    """A strategy with the numbers of one edit; made by `make_plan`."""

    strategy: str
    """Name of the strategy, as in `EarlyFilter.strategy`."""
    candidates: int
    """Starting noises that are tried; 1: there is nothing to choose."""
    preview_steps: int
    """Steps before the last checkpoint; 0 without checkpoints."""
    steps: int
    """Denoising steps of the edit."""
    checkpoints: tuple[Checkpoint, ...]
    """In their order; empty if there is nothing to choose from."""
    restarts: bool = False
    """Whether the winner starts again with the full schedule."""
    early_exit: float | None = None
    """Overall score, above 0 to 1, at which a candidate is finished at once; None: never."""

    @property
    def schedule(self) -> int:
        """Steps of the schedule on which the candidates are previewed."""
        return self.preview_steps if self.restarts else self.steps

    @property
    def preview_cost(self) -> int:
        """Steps of all candidates together until one is left, if none exits early."""
        cost, alive, before = 0, self.candidates, 0
        for checkpoint in self.checkpoints:
            cost += alive * (checkpoint.after - before)
            alive, before = checkpoint.keep, checkpoint.after
        return cost

    @property
    def cost(self) -> int:
        """Steps in all; times the experts that a step evaluates, the edit's NFE."""
        shared = 0 if self.restarts or not self.checkpoints else self.checkpoints[-1].after
        return self.preview_cost + self.steps - shared


def make_plan(wanted: EarlyFilter | None, steps: int) -> Plan:
    """The plan of an edit of `steps` steps; its `cost` is what an edit without early exit spends exactly.

    With an early exit, a strategy with one checkpoint gets another half-way, at which no candidate is dropped.
    Raises `InputError` where a preview would take as many steps as the edit.
    """
    if wanted is None or wanted.strategy == "none" or wanted.candidates == 1:  # nothing to choose from
        return Plan("none" if wanted is None else wanted.strategy, 1, 0, steps, ())
    strategy = STRATEGIES[wanted.strategy]
    last = max(1, steps // 4) if wanted.preview_steps is None else wanted.preview_steps
    if last >= steps:
        raise InputError(
            f"preview_steps is {last} and the edit has {steps} step{'' if steps == 1 else 's'}; "
            "the filter must look before the end, so give fewer preview steps or more steps.",
            field="preview_steps",
        )
    checkpoints = strategy.checkpoints(wanted.candidates, last)
    if wanted.early_exit is not None and len(checkpoints) == 1 and last > 1:
        checkpoints = (Checkpoint(ceil(last / 2), wanted.candidates), *checkpoints)
    return Plan(wanted.strategy, wanted.candidates, last, steps, checkpoints, strategy.restarts, wanted.early_exit)


def evaluations(wanted: EarlyFilter | None, *, n: int, steps: int, rows: int) -> int:
    """Transformer evaluations of `n` images of `steps` steps, `rows` per step, if no candidate exits early."""
    return n * make_plan(wanted, steps).cost * rows


def first_seed(seed: int | None, noises: int) -> int:
    """`seed`, or one drawn at random. Raises `InputError` where fewer than `noises` seeds follow from it."""
    first = secrets.randbelow(2**32) if seed is None else seed
    if first + noises - 1 > MAX_SEED:
        raise InputError(
            f"The seed {first} leaves no room for the edit's {noises} noises; give a smaller seed.", field="seed"
        )
    return first


ScoresAt = Callable[[int, tuple[int, ...]], Sequence[float | None]]
"""(steps done, candidates alive) to their overall scores, None for one without; raises `JudgeFailed`."""


class JudgeFailed(Exception):
    """The judge did not choose; the message completes the sentence "degraded: filter, ..."."""


@dataclass(frozen=True, slots=True)
class Race:
    """The result of a race."""

    chosen: int
    """The candidate that is finished."""
    looks: tuple[FilterLook, ...]
    """The checkpoints that were reached, one at which the judge failed included."""
    exited_early: bool = False
    """Whether checkpoints were skipped for a clearly good candidate."""
    degraded: str | None = None
    """Why the judge did not choose; None: it chose."""

    @property
    def cost(self) -> int:
        """Steps of all candidates together."""
        before = (0, *(look.steps for look in self.looks[:-1]))
        return sum(len(look.alive) * (look.steps - steps) for look, steps in zip(self.looks, before, strict=True))


def race(plan: Plan, scores_at: ScoresAt) -> Race:
    """Run the checkpoints of `plan`. Of equal scores the earlier seed wins; a candidate without a score comes last."""
    alive, leader = tuple(range(plan.candidates)), 0
    looks: list[FilterLook] = []
    for checkpoint in plan.checkpoints:
        looks.append(FilterLook(steps=checkpoint.after, alive=alive))
        try:
            scores = dict(zip(alive, scores_at(checkpoint.after, alive), strict=True))
        except JudgeFailed as failure:
            return Race(leader, tuple(looks), degraded=str(failure))
        known = {i: -1.0 if score is None else score for i, score in scores.items()}
        ranked = sorted(alive, key=lambda i: known[i], reverse=True)
        leader = ranked[0]
        if plan.early_exit is not None and known[leader] >= plan.early_exit:
            return Race(leader, tuple(looks), exited_early=checkpoint is not plan.checkpoints[-1])
        alive = tuple(sorted(ranked[: checkpoint.keep]))
    return Race(leader, tuple(looks))
