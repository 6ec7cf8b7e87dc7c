"""Successive halving (arXiv 1502.07943): the worst half is dropped at each of several looks within the first m steps."""

from __future__ import annotations

from math import ceil

from careedit.selection.base import Look


class Halving:
    """Most candidates are paid for while they are cheap to tell apart; the close calls get more steps.

    NFE = sum over looks of (candidates alive) * (steps since the look before), plus n - m: with M = 6 and m = 4, looks
    after 2, 3 and 4 steps keep 3, 2 and 1, which costs 6*2 + 3*1 + 2*1 = 17 steps beside the n - 4 of the winner.
    """

    restarts = False
    """The winner goes on."""

    def looks(self, candidates: int, preview_steps: int) -> tuple[Look, ...]:
        """As many as it takes to halve down to one, evenly over the m steps; at most one per step, the last keeps one."""
        needed = (candidates - 1).bit_length()
        count = min(needed, preview_steps)
        looks, alive = [], candidates
        for i in range(1, count + 1):
            alive = 1 if i == count else ceil(alive / 2)
            # Rounded up: the later a look, the more there is to see.
            looks.append(Look(ceil(preview_steps * i / count), alive))
        return tuple(looks)
