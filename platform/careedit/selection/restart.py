"""ICEdit's filter (arXiv 2504.20690, section 3.4): coarse previews, and the winner is redone in full. NFE = n + M m."""

from __future__ import annotations

from careedit.selection.base import Look


class Restart:
    """Every candidate is denoised to the end on a coarse schedule of m steps; the best one's noise starts anew.

    A preview is a finished, if rough, picture; but the coarse sigmas are others than the edit's, so no step is reused.
    """

    restarts = True
    """The winner's noise goes through the full schedule."""

    def looks(self, candidates: int, preview_steps: int) -> tuple[Look, ...]:
        """One, at the end of the coarse schedule."""
        return (Look(preview_steps, 1),)
