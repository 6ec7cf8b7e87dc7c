"""No filter: the first noise is finished. NFE = n."""

from __future__ import annotations

from careedit.selection.base import Look


class NoFilter:
    """Nobody looks."""

    restarts = False
    """There is nothing to start anew."""

    def looks(self, candidates: int, preview_steps: int) -> tuple[Look, ...]:
        """None."""
        return ()
