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
        """The target; raises `EditFailed` where the benchmark has none."""
        if work.target is None:
            raise EditFailed("The benchmark has no target for this sample; leave the truth row out.")
        # A target is drawn on its own canvas; an edit has its source's size.
        same = work.target.size == work.source.size
        return Edited(work.target if same else work.target.resize(work.source.size), seconds=0.0, nfe=0)
