"""Editors without a model: no edit at all, and the truth."""

from __future__ import annotations

from careedit_eval.editors.base import Edited, EditFailed, EditWork


class Identity:
    """Gives the source back: what every number must be read against."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """The source."""
        return Edited(work.source, seconds=0.0, nfe=0)


class Truth:
    """Gives the target back: what a metric says of a perfect edit."""

    concurrency = 1

    def edit(self, work: EditWork) -> Edited:
        """The target, of its own size; raises `EditFailed` where the benchmark has none."""
        if work.target is None:
            raise EditFailed("The benchmark has no target for this sample; leave the truth row out.")
        # Of its own size, which may not be the source's: resized to it and back it would differ from itself.
        return Edited(work.target, seconds=0.0, nfe=0)
