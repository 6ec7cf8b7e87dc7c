"""Which scenes are edited, from which noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from careedit.errors import InputError
from careedit_tiny.evaluation.common import LIMIT, check_range, noise_seed
from careedit_tiny.world.samples import Sample, draw_chain, draw_sample, draw_samples


@dataclass(frozen=True)
class Plan:
    """Scenes and noise of one run. Equal fields give equal scenes and noise."""

    n: int = 600
    """The number of test scenes. The kinds of edit take turns."""
    seed: int = 0
    """Decides the noise of every edit. The scenes do not depend on it."""
    validation_n: int | None = None
    """The number of validation scenes on which the best single expert is chosen; None means a quarter of `n`."""
    infeasible_n: int | None = None
    """The number of test scenes whose instruction cannot be carried out; None means a sixth of `n`."""
    chains_n: int | None = None
    """The number of chains of three edits; None means a sixth of `n`."""
    oracle_seeds: int = 2
    """With 2, the oracle chooses on other noise than it is scored on. With 1 it uses the same noise, which flatters it."""

    def __post_init__(self) -> None:
        check_range(
            [
                ("n", self.n, 1, LIMIT),
                ("validation_n", self.validation_n, 1, LIMIT),
                ("infeasible_n", self.infeasible_n, 0, LIMIT),
                ("chains_n", self.chains_n, 0, LIMIT),
                ("seed", self.seed, 0, 2**31),
            ]
        )
        if self.oracle_seeds not in (1, 2):
            raise InputError(f"oracle_seeds is {self.oracle_seeds}; it must be 1 or 2.")

    @cached_property
    def test(self) -> tuple[Sample, ...]:
        """The scenes on which every row of the table is measured."""
        return tuple(draw_samples(self.n, "test"))

    @cached_property
    def validation(self) -> tuple[Sample, ...]:
        """The scenes on which the best single expert is chosen."""
        count = max(1, self.n // 4) if self.validation_n is None else self.validation_n
        return tuple(draw_samples(count, "validation"))

    @cached_property
    def infeasible(self) -> tuple[Sample, ...]:
        """Scenes whose instruction is about something that they do not show."""
        count = self.n // 6 if self.infeasible_n is None else self.infeasible_n
        return tuple(draw_sample("infeasible", i, "test") for i in range(count))

    @cached_property
    def chains(self) -> tuple[tuple[Sample, ...], ...]:
        """Edits of several turns; each turn edits the result of the turn before."""
        count = self.n // 6 if self.chains_n is None else self.chains_n
        return tuple(draw_chain(i, "test") for i in range(count))

    @cached_property
    def shown(self) -> frozenset[str]:
        """Ids of the scenes whose images are kept: the first of each kind."""
        first: dict[str, str] = {}
        for sample in self.test:
            first.setdefault(sample.kind, sample.id)
        return frozenset(first.values())

    def noise(self, sample: Sample, draw: str = "score") -> int:
        """The seed of the noise of one scene: the same for every row of the table, another one per `draw`."""
        return noise_seed(self.seed, draw, sample)

    def edits(self, experts: int, *, unified: bool, learned: bool) -> int:
        """The maximum number of edits of a run, mixtures of two experts included."""
        arms = experts + 1 + unified
        test = len(self.test) * (arms + (self.oracle_seeds - 1) * (experts + 1) + learned)
        chained = sum(map(len, self.chains)) * (1 + unified)
        return test + len(self.validation) * experts + len(self.infeasible) * arms + chained
