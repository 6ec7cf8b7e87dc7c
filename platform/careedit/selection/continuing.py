"""The strategy "continue": candidates share the first m steps, the winner goes on from there. NFE = M m + (n - m)."""

from __future__ import annotations

from careedit.selection.base import Look


class Continue:
    """Every candidate does the first m steps of the edit's own schedule, so that the winner's are not lost.

    Previews are the denoised estimates at that noise level, softer than `restart`'s.
    """

    restarts = False
    """The winner goes on."""

    def looks(self, candidates: int, preview_steps: int) -> tuple[Look, ...]:
        """One, after m steps."""
        return (Look(preview_steps, 1),)
