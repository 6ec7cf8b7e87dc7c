"""Editors without a model: no edit at all, and the right result."""

from __future__ import annotations

from careedit_eval.editors.base import Edited, EditFailed, EditWork


class Identity:
    """Returns the source: the lower bound for every number."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """Return the source."""
        return Edited(work.source, seconds=0.0, nfe=0)


class Truth:
    """Returns the target: what a metric gives for a perfect edit."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """Return the target in its own size. Raises `EditFailed` if the benchmark has none."""
        if work.target is None:
            raise EditFailed("The benchmark has no target for this sample; leave the truth row out.")
        # Of its own size, which may not be the source's: resized to it and back it would differ from itself.
        return Edited(work.target, seconds=0.0, nfe=0)
