"""Which scenes, candidates and settings of the early filter are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from careedit.errors import InputError
from careedit.records import MAX_CANDIDATES, EarlyFilter
from careedit.selection.plan import Plan, make_plan
from careedit_tiny.evaluation.common import LIMIT, check_range, noise_seed
from careedit_tiny.world.samples import Sample, draw_samples

STRATEGIES = ("restart", "continue", "halving")
"""The strategies that choose among candidates."""
REFERENCE = 6
"""The number of candidates of ICEdit's filter, with which others are compared."""


@dataclass(frozen=True)
class FilterPlan:
    """Scenes, noise and settings of one run. Equal fields give equal runs."""

    steps: int
    """The number of denoising steps of an edit."""
    n: int = 300
    """The number of test scenes. The kinds of edit take turns."""
    seed: int = 0
    """Decides the noise of every edit. The scenes do not depend on it."""
    candidates: tuple[int, ...] = (1, 2, 4, 6, 12)
    """The numbers of candidates to compare."""
    preview_steps: tuple[int, ...] = ()
    """Numbers of steps before the last preview; empty means an eighth, a quarter and a half of `steps`."""

    def __post_init__(self) -> None:
        check_range([("n", self.n, 1, LIMIT), ("seed", self.seed, 0, 2**31)])
        if not self.candidates or not all(1 <= count <= MAX_CANDIDATES for count in self.candidates):
            raise InputError(f"candidates are {self.candidates}; give numbers between 1 and {MAX_CANDIDATES}.")
        if not self.lasts or not all(1 <= last < self.steps for last in self.lasts):
            raise InputError(
                f"preview_steps are {self.lasts} and an edit has {self.steps} steps; give numbers of steps below that."
            )

    @cached_property
    def lasts(self) -> tuple[int, ...]:
        """`preview_steps`, or their default."""
        steps = self.steps
        return tuple(sorted(set(self.preview_steps or {max(1, steps // 8), max(1, steps // 4), max(1, steps // 2)})))

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The scenes that are edited."""
        return tuple(draw_samples(self.n, "test"))

    @cached_property
    def most(self) -> int:
        """The number of candidates that are denoised per scene. A smaller filter uses the first ones."""
        return max(*self.candidates, REFERENCE)

    @cached_property
    def settings(self) -> tuple[Plan, ...]:
        """Every strategy with every number of candidates and preview steps, without settings that would repeat another one."""
        counts = sorted({*self.candidates, REFERENCE} - {1})
        made: dict[tuple[object, ...], Plan] = {}
        for strategy in STRATEGIES:
            for count in counts:
                for last in self.lasts:
                    wanted = EarlyFilter.model_validate(
                        {"strategy": strategy, "candidates": count, "preview_steps": last}
                    )
                    plan = make_plan(wanted, self.steps)
                    made.setdefault((plan.restarts, count, plan.checkpoints), plan)
        return tuple(made.values())

    @cached_property
    def looks(self) -> dict[int, tuple[int, ...]]:
        """Per schedule (in steps): the steps after which a preview is judged. The finished edit is the last one of its schedule."""
        looks: dict[int, set[int]] = {self.steps: {self.steps}}
        for plan in self.settings:
            looks.setdefault(plan.schedule, set()).update(look.after for look in plan.checkpoints)
        looks[self.steps].add(self.quarter)
        return {schedule: tuple(sorted(after)) for schedule, after in looks.items()}

    @property
    def quarter(self) -> int:
        """A quarter of the steps, after which the judge's scores of previews are measured."""
        return max(1, self.steps // 4)

    def noise(self, sample: Sample) -> int:
        """The seed of the noise of the first candidate of one scene. Candidate j has this seed plus j."""
        return noise_seed(self.seed, "filter", sample)


def look_key(schedule: int, after: int) -> str:
    """The name of a preview in a scene's table: "8@2" is after 2 of 8 steps."""
    return f"{schedule}@{after}"
