"""One image of a call: its job, the noises that are tried for it, and the way back to the user's picture."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from careedit.editing import EditJob
from careedit.images import Fit, composite
from careedit.records import BatchSlot, EditRequest, RoutingDecision
from careedit.scoring import ScoreRequest
from careedit.selection.base import Plan


@dataclass(frozen=True, eq=False)
class Slot:
    """One image to make."""

    request: EditRequest
    """What was asked for."""
    decision: RoutingDecision
    """Who edits."""
    fit: Fit
    """How the source lies on its panel."""
    mask: Image.Image | None
    """The mask in force, refined where that was asked for, at the source's size."""
    job: EditJob
    """What the engine is given."""
    route_seconds: float
    """Seconds until the job stood."""
    plan: Plan
    """Looks of the early filter; none where nothing is chosen."""
    seeds: tuple[int, ...]
    """Seeds of its candidates, the job's own first."""

    @property
    def batch_slot(self) -> BatchSlot:
        """What a replay of a neighbour needs to know of this slot."""
        return BatchSlot(steps=self.job.steps, weights=dict(self.job.weights), masked=self.job.mask is not None)

    def picture(self, panel: Image.Image) -> Image.Image:
        """What the user gets of a target panel: of the source's size, and outside the mask the source's own pixels."""
        picture = self.fit.from_panel(panel)
        return picture if self.mask is None else composite(self.request.image, picture, self.mask)

    def preview(self, panel: Image.Image) -> Image.Image:
        """`picture` at the panel's scale, without its bars: what a judge sees costs the same for a source of any size."""
        mask = self.job.mask
        return (panel if mask is None else composite(self.job.source, panel, mask)).crop(self.fit.box)

    def question(self, preview: Image.Image) -> ScoreRequest:
        """What the judge is asked about `preview`'s result."""
        request = self.request
        return ScoreRequest(
            source=self.job.source.crop(self.fit.box),
            edited=preview,
            instruction=request.instruction,
            references=request.references,
        )

    def in_place_of(self, other: BatchSlot) -> Slot:
        """This slot with another's steps and experts, and a mask if that had one (any mask: only shapes matter)."""
        everything = Image.new("L", self.job.source.size, 255)
        mask = (self.job.mask or everything) if other.masked else None
        return replace(self, job=replace(self.job, steps=other.steps, weights=other.weights, mask=mask))


def batches(slots: Sequence[Slot], most: int) -> list[list[Slot]]:
    """Slots that can share a batch (one canvas shape), in their order, at most `most` together.

    One with an early filter stands alone: its batch is its candidates.
    """
    groups: dict[Hashable, list[Slot]] = {}
    for slot in slots:
        alike = id(slot) if slot.plan.looks else (slot.job.source.size, slot.job.panels)
        groups.setdefault(alike, []).append(slot)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]
