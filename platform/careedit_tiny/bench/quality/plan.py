"""What is measured: which scenes, which noise, and how much of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from careedit.errors import InputError
from careedit_tiny.world.samples import Sample, draw_chain, draw_sample, draw_samples

LIMIT = 50_000
"""Most scenes of a kind of measurement."""


@dataclass(frozen=True)
class Plan:
    """Scenes and noise of one run; a function of its fields alone."""

    n: int = 600
    """Test scenes, the kinds in turn."""
    seed: int = 0
    """Decides every edit's noise; the scenes are the split's own."""
    validation_n: int | None = None
    """Validation scenes that the best single expert is chosen on; None: a quarter of `n`."""
    infeasible_n: int | None = None
    """Test scenes with an instruction that does not apply; None: a sixth of `n`."""
    chains_n: int | None = None
    """Three-turn chains; None: a sixth of `n`."""
    oracle_seeds: int = 2
    """2: the oracle picks on other noise than it is scored on; 1: on the same, which flatters it."""

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("validation_n", 1), ("infeasible_n", 0), ("chains_n", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= (2**31 if name == "seed" else LIMIT):
                raise InputError(f"{name} is {value}; it must lie between {least} and {LIMIT:,}.")
        if self.oracle_seeds not in (1, 2):
            raise InputError(f"oracle_seeds is {self.oracle_seeds}; it must be 1 or 2.")

    @cached_property
    def test(self) -> tuple[Sample, ...]:
        """The scenes of every row."""
        return tuple(draw_samples(self.n, "test"))

    @cached_property
    def validation(self) -> tuple[Sample, ...]:
        """The scenes that choose the best single expert."""
        count = max(1, self.n // 4) if self.validation_n is None else self.validation_n
        return tuple(draw_samples(count, "validation"))

    @cached_property
    def infeasible(self) -> tuple[Sample, ...]:
        """Instructions about what is not there."""
        count = self.n // 6 if self.infeasible_n is None else self.infeasible_n
        return tuple(draw_sample("infeasible", i, "test") for i in range(count))

    @cached_property
    def chains(self) -> tuple[tuple[Sample, ...], ...]:
        """Multi-turn edits."""
        count = self.n // 6 if self.chains_n is None else self.chains_n
        return tuple(draw_chain(i, "test") for i in range(count))

    @cached_property
    def shown(self) -> frozenset[str]:
        """Ids of the scenes whose pictures are kept: the first of each kind."""
        first: dict[str, str] = {}
        for sample in self.test:
            first.setdefault(sample.kind, sample.id)
        return frozenset(first.values())

    def noise(self, sample: Sample, draw: str = "score") -> int:
        """Seed of the noise for one scene: the same for every row, another per `draw`, and whatever `n` is."""
        digest = hashlib.sha256(f"{self.seed}:{draw}:{sample.id}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def edits(self, experts: int, *, unified: bool, learned: bool) -> int:
        """How many edits a run makes at most, mixtures of two experts included."""
        arms = experts + 1 + unified
        test = len(self.test) * (arms + (self.oracle_seeds - 1) * (experts + 1) + learned)
        chained = sum(map(len, self.chains)) * (1 + unified)
        return test + len(self.validation) * experts + len(self.infeasible) * arms + chained
