"""Identity: whether the subject of an edit stays the same, as the cosine of embeddings of one crop of both images."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from careedit_eval.metrics.backbones import VitBackbone
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one
from careedit_eval.metrics.options import IdentityOptions
from careedit_eval.metrics.similarity import cosine, dino_backbone, warm
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

Box = tuple[int, int, int, int]


class Identity:
    """The cosine of the edit within the mask's box and the same box of the other image, or the whole reference image."""

    def __init__(self, backbone: VitBackbone, options: IdentityOptions) -> None:
        self._embed, self.options = backbone.images, options
        self.needs = frozenset({"mask"} | ({"target"} if options.against == "target" else set()))
        name = "identity" if options.against == "source" else f"identity_{options.against}"
        self.spec = MetricSpec(
            name=name,
            outputs=(Output(name=name, better="higher"),),
            protocol=f"{options.protocol}, the mask's box against the {options.against}",
            backbone=backbone.name,
            revision=backbone.revision,
            weights=backbone.weights,
            preprocessing=f"edit resized to the source's size; box with a margin of {options.margin:g}; {backbone.preprocessing}",
            reference=options.against,
            dtype="float32",
            settings={"kinds": ", ".join(options.kinds)} if options.kinds else {},
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        warm(self._embed, batch, self._pair)

        def measure(item: ScoreItem) -> Measurement:
            value = cosine(*self._embed(self._pair(item)))
            return Measurement(values={self.spec.name: value}, notes=item.resizing(item.pictures.source.size))

        return one_by_one(batch, measure)

    def _pair(self, item: ScoreItem) -> tuple[Image.Image, Image.Image]:
        options, pictures = self.options, item.pictures
        if options.kinds and item.sample.kind not in options.kinds:
            raise NotApplicableError(f"Edits of the kind {item.sample.kind!r} need not keep a subject.")
        box = None if pictures.mask is None else pictures.mask.getbbox()
        if box is None:
            raise NotApplicableError("The mask marks no place of the source, so the subject's place is unknown.")
        size = pictures.source.size
        box = widened(box, options.margin, size)
        edited = item.edited_at(size).crop(box)
        if options.against == "reference":
            if not pictures.references:
                raise NotApplicableError("The sample has no reference image, so it has no subject to keep.")
            return edited, pictures.references[0]
        other = pictures.source if options.against == "source" else item.target
        return edited, (other if other.size == size else other.resize(size)).crop(box)


def widened(box: Box, margin: float, size: tuple[int, int]) -> Box:
    """A box (left, top, right, bottom) with a margin, as a share of its longer side, within an image of `size`."""
    left, top, right, bottom = box
    extra = round(margin * max(right - left, bottom - top))
    return max(0, left - extra), max(0, top - extra), min(size[0], right + extra), min(size[1], bottom + extra)


def identity(options: IdentityOptions) -> Metric:
    """Identity from its options."""
    return Identity(dino_backbone(options), options)
