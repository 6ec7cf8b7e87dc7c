"""What is measured: scenes, noises, and every setting of every strategy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from careedit.errors import InputError
from careedit.records import MAX_CANDIDATES, EarlyFilter
from careedit.selection.plan import Plan, make_plan
from careedit_tiny.world.samples import Sample, draw_samples

LIMIT = 50_000
"""Most scenes."""
STRATEGIES = ("restart", "continue", "halving")
"""Strategies that choose."""
REFERENCE = 6
"""Candidates of ICEdit's filter, the yardstick."""


@dataclass(frozen=True)
class FilterPlan:
    """One run; a function of its fields alone."""

    steps: int
    """Denoising steps of an edit."""
    n: int = 300
    """Test scenes, the kinds in turn."""
    seed: int = 0
    """Decides the noise; the scenes are the split's own."""
    candidates: tuple[int, ...] = (1, 2, 4, 6, 12)
    """Noises per edit."""
    preview_steps: tuple[int, ...] = ()
    """Steps before the last look; empty: an eighth, a quarter and a half of `steps`."""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= LIMIT:
            raise InputError(f"n is {self.n}; it must lie between 1 and {LIMIT:,}.")
        if not 0 <= self.seed <= 2**31:
            raise InputError(f"seed is {self.seed}; it must lie between 0 and 2^31.")
        if not self.candidates or not all(1 <= count <= MAX_CANDIDATES for count in self.candidates):
            raise InputError(f"candidates are {self.candidates}; give numbers between 1 and {MAX_CANDIDATES}.")
        if not self.lasts or not all(1 <= last < self.steps for last in self.lasts):
            raise InputError(
                f"preview_steps are {self.lasts} and an edit has {self.steps} steps; give numbers of steps below that."
            )

    @cached_property
    def lasts(self) -> tuple[int, ...]:
        """`preview_steps`, or what stands for them."""
        steps = self.steps
        return tuple(sorted(set(self.preview_steps or {max(1, steps // 8), max(1, steps // 4), max(1, steps // 2)})))

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The scenes."""
        return tuple(draw_samples(self.n, "test"))

    @cached_property
    def most(self) -> int:
        """Noises that are tried per scene: a smaller filter looks at the first of them."""
        return max(*self.candidates, REFERENCE)

    @cached_property
    def settings(self) -> tuple[Plan, ...]:
        """Every strategy with every number of candidates and preview steps; what would repeat another is left out."""
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
        """Schedule (in steps) to the steps after which somebody looks; the finished edit is the last of its own."""
        looks: dict[int, set[int]] = {self.steps: {self.steps}}
        for plan in self.settings:
            looks.setdefault(plan.schedule, set()).update(look.after for look in plan.checkpoints)
        looks[self.steps].add(self.quarter)
        return {schedule: tuple(sorted(after)) for schedule, after in looks.items()}

    @property
    def quarter(self) -> int:
        """A quarter of the steps, where the judge's previews are measured."""
        return max(1, self.steps // 4)

    def noise(self, sample: Sample) -> int:
        """Seed of the first noise for one scene; candidate j has this plus j."""
        digest = hashlib.sha256(f"{self.seed}:filter:{sample.id}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


def look_key(schedule: int, after: int) -> str:
    """Name of a look in a scene's table: "8@2" is after 2 of 8 steps."""
    return f"{schedule}@{after}"
