"""CLIP-I, CLIP-T, CLIP direction and DINO: cosines of embeddings, not clamped at 0 and not multiplied by 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from careedit.errors import CareEditError
from careedit_eval.errors import MetricError
from careedit_eval.metrics.backbones import (
    MAGICBRUSH_CLIP,
    MAGICBRUSH_DINO,
    ClipBackbone,
    Embedder,
    Vector,
    VitBackbone,
    check_dino_vits16,
    clip_backbone,
    vit_backbone,
)
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, one_by_one
from careedit_eval.metrics.official import weights_of_model
from careedit_eval.metrics.options import (
    BackboneOptions,
    ClipDirectionOptions,
    ClipImageOptions,
    ClipOptions,
    ClipTextOptions,
    DinoOptions,
)
from careedit_eval.metrics.views import Area, View, edit_in
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

CUT = "text truncated"
"""Note on a score whose text was longer than the model reads."""
UNCHANGED = "edit equals source"
"""Note on a direction that is 0 because nothing moved."""


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of two vectors. Raises `MetricError` if one of them is zero or not finite."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not np.isfinite(length) or length == 0:
        raise MetricError("An embedding is zero or not finite, so it has no cosine; check the backbone's weights.")
    return float(np.clip(one @ other / length, -1, 1))


def _spec(
    name: str, protocol: str, backbone: VitBackbone, reference: Literal["target", "source", "text", "source and text"],
    view: View = View(), **fields: Any,  # noqa: B008 - frozen
) -> MetricSpec:  # fmt: skip
    """The identity of a cosine of embeddings."""
    name, protocol = view.name(name), view.protocol(protocol)
    return MetricSpec(
        name=name,
        outputs=(Output(name=name, better="higher"),),
        protocol=protocol,
        backbone=backbone.name,
        revision=backbone.revision,
        weights=backbone.weights,
        preprocessing=view.preprocessing(backbone.preprocessing),
        reference=reference,
        dtype="float32",
        **fields,
    )


class ImageSimilarity:
    """CLIP-I and DINO: the cosine of the edit and the target (MagicBrush), or of the edit and the source (Emu Edit).

    Against the source it is another metric with another name.
    """

    def __init__(self, name: str, protocol: str, backbone: VitBackbone, view: View = View()) -> None:  # noqa: B008
        self._embed, self.view, self.needs = backbone.images, view, view.needs
        self.spec = _spec(name, protocol, backbone, view.against, view, settings=view.settings)

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        warm(self._embed, batch, self.view.pair)

        def measure(item: ScoreItem) -> Measurement:
            value = cosine(*self._embed(self.view.pair(item)))
            return Measurement(values={self.spec.name: value}, notes=self.view.notes(item))

        return one_by_one(batch, measure)


class ClipText:
    """CLIP-T: the cosine of the edit and a description of the result, by default the target's caption."""

    def __init__(self, protocol: str, backbone: ClipBackbone, text: str = "target_caption", area: Area = "all") -> None:
        self.backbone, self.text, self.area = backbone, text, area
        view = View(area=area)
        name = "clip_t" if text == "target_caption" else f"clip_t_{text}"
        self.needs = view.mask_needs | (frozenset() if text == "instruction" else frozenset({f"text:{text}"}))
        self.spec = _spec(name, protocol, backbone, "text", view, text_field=text)

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`. A truncated text is noted."""
        warm(self.backbone.images, batch, lambda item: (edit_in(self.area, item),))
        self.backbone.texts([self._text(item) for item in batch])

        def measure(item: ScoreItem) -> Measurement:
            text = self._text(item)
            (picture,), (words,) = self.backbone.images([edit_in(self.area, item)]), self.backbone.texts([text])
            notes = (CUT,) if self.backbone.is_cut(text) else ()
            mask = item.pictures.mask if self.area != "all" else None
            sized = () if mask is None else item.resizing(mask.size)
            return Measurement(values={self.spec.name: cosine(picture, words)}, notes=(*notes, *sized))

        return one_by_one(batch, measure)

    def _text(self, item: ScoreItem) -> str:
        return item.sample.instruction if self.text == "instruction" else item.sample.texts[self.text]


class ClipDirection:
    """Whether image and caption change in the same direction (StyleGAN-NADA, arXiv 2108.00946, equation 3).

    It is unreliable for small edits: ICEdit's figure 14 has a good edit at -0.02 and a failed one at 0.40. An edit that equals
    its source counts as 0: if it were left out of the mean, doing nothing would be rewarded.
    """

    def __init__(
        self, protocol: str, backbone: ClipBackbone, before: str = "source_caption", after: str = "target_caption"
    ) -> None:
        self.backbone, self.before, self.after = backbone, before, after
        self.needs = frozenset({f"text:{before}", f"text:{after}"})
        settings = {"source_text": before}
        self.spec = _spec("clip_direction", protocol, backbone, "source and text", text_field=after, settings=settings)

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        warm(self.backbone.images, batch, lambda item: (item.edited, item.pictures.source))
        return one_by_one(batch, self._measure)

    def _measure(self, item: ScoreItem) -> Measurement:
        captions = [item.sample.texts[name] for name in (self.before, self.after)]
        before, after = self.backbone.texts(captions)
        if np.array_equal(before, after):
            raise NotApplicableError("The two captions mean the same to the backbone, so they name no direction.")
        edited, source = self.backbone.images([item.edited, item.pictures.source])
        notes = (CUT,) if any(map(self.backbone.is_cut, captions)) else ()
        if np.array_equal(edited, source):
            return Measurement(values={self.spec.name: 0.0}, notes=(*notes, UNCHANGED))
        return Measurement(values={self.spec.name: cosine(edited - source, after - before)}, notes=notes)


def warm(
    embed: Embedder[Image.Image], batch: Sequence[ScoreItem], pictures: Callable[[ScoreItem], Sequence[Image.Image]]
) -> None:
    """Embed all images of a batch together. An item whose images cannot be read is skipped here and gets its own error."""
    wanted: list[Image.Image] = []
    for item in batch:
        try:
            wanted += pictures(item)
        except CareEditError:
            continue
    embed(wanted)


def clip_i(options: ClipImageOptions) -> Metric:
    """CLIP-I from its options."""
    return ImageSimilarity("clip_i", options.protocol, _clip(options), options.view)


def clip_t(options: ClipTextOptions) -> Metric:
    """CLIP-T from its options."""
    return ClipText(options.protocol, _clip(options), options.text, options.area)


def clip_direction(options: ClipDirectionOptions) -> Metric:
    """CLIP direction from its options."""
    return ClipDirection(options.protocol, _clip(options), options.before, options.text)


def dino(options: DinoOptions) -> Metric:
    """DINO from its options."""
    return ImageSimilarity("dino", options.protocol, dino_backbone(options), options.view)


def dino_backbone(options: BackboneOptions) -> VitBackbone:
    """The vision transformer of a metric. Raises `MetricError`."""
    magicbrush = options.protocol == "magicbrush-v1"
    model = (options.model or MAGICBRUSH_DINO) if magicbrush else _own(options)
    if not magicbrush:
        return vit_backbone(model, magicbrush, options.device)
    check_dino_vits16(str(model))
    backbone = vit_backbone(model, magicbrush, options.device)
    return replace(backbone, weights=weights_of_model(options.model, MAGICBRUSH_DINO))


def _clip(options: ClipOptions) -> ClipBackbone:
    if options.protocol == "magicbrush-v1":
        name, tag = MAGICBRUSH_CLIP
        backbone = clip_backbone(name, options.model or tag, options.device)
        return replace(backbone, weights=weights_of_model(options.model, tag))
    return clip_backbone(_own(options), options.pretrained, options.device)


def _own(options: BackboneOptions) -> str | None:
    if options.protocol == "own" and options.model is None:
        raise MetricError('The protocol "own" needs a model; name it by folder or hub id.')
    return options.model
