"""What every strategy of the early filter is: a rule that says when the judge looks, and how many go on after each look.

A strategy is pure arithmetic; `careedit.selection.run` does the work. So the cost of a filter is known before it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Look:
    """One time that the judge looks at previews."""

    after: int
    """Steps done by then."""
    keep: int
    """How many candidates go on."""


class Strategy(Protocol):
    """When the judge looks, and how many candidates go on."""

    @property
    def restarts(self) -> bool:
        """Whether previews have a short schedule of their own, so that the winner starts anew with the full one."""
        ...

    def looks(self, candidates: int, preview_steps: int) -> tuple[Look, ...]:
        """The looks at `candidates` (2 or more) noises; the last is after `preview_steps` steps and keeps one."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A strategy for one edit, with its numbers; `make_plan` makes it."""

    strategy: str
    """Name of the strategy."""
    candidates: int
    """Noises that are tried."""
    preview_steps: int
    """Steps before the last look."""
    steps: int
    """Steps of the edit."""
    looks: tuple[Look, ...]
    """In their order; none where there is nothing to choose from."""
    restarts: bool = False
    """Whether the winner starts anew."""
    early_exit: float | None = None
    """Overall score at which a candidate goes on at once."""

    @property
    def schedule(self) -> int:
        """Steps of the previews' schedule."""
        return self.preview_steps if self.restarts else self.steps

    @property
    def preview_cost(self) -> int:
        """Steps of all candidates together until one is left, if none exits early."""
        cost, alive, before = 0, self.candidates, 0
        for look in self.looks:
            cost += alive * (look.after - before)
            alive, before = look.keep, look.after
        return cost

    @property
    def cost(self) -> int:
        """Steps in all; times the experts that a step evaluates, the edit's NFE."""
        shared = 0 if self.restarts or not self.looks else self.looks[-1].after
        return self.preview_cost + self.steps - shared
