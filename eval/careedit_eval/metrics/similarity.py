"""CLIP-I, CLIP-T, CLIP direction and DINO: cosines of embeddings, not clamped at 0 and not multiplied by 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from careedit_eval.metrics.options import BackboneOptions
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

Against = Literal["target", "source"]
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
    **fields: Any,
) -> MetricSpec:  # fmt: skip
    """The identity of a cosine of embeddings."""
    return MetricSpec(
        name=name,
        outputs=(Output(name=name, better="higher"),),
        protocol=protocol,
        backbone=backbone.name,
        revision=backbone.revision,
        preprocessing=backbone.preprocessing,
        reference=reference,
        dtype="float32",
        **fields,
    )


class ImageSimilarity:
    """CLIP-I and DINO: the cosine of the edit and the target (MagicBrush), or of the edit and the source (Emu Edit).

    Against the source it is another metric with another name.
    """

    def __init__(self, name: str, protocol: str, backbone: VitBackbone, against: Against) -> None:
        self._embed, self.against = backbone.images, against
        self.needs = frozenset({"target"} if against == "target" else ())
        if against == "source":
            name, protocol = f"{name}_source", f"{protocol}, against the source"
        self.spec = _spec(name, protocol, backbone, against)

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        warm(self._embed, batch, lambda item: (item.edited, self._other(item)))

        def measure(item: ScoreItem) -> Measurement:
            return Measurement(values={self.spec.name: cosine(*self._embed([item.edited, self._other(item)]))})

        return one_by_one(batch, measure)

    def _other(self, item: ScoreItem) -> Image.Image:
        return item.target if self.against == "target" else item.pictures.source


class ClipText:
    """CLIP-T: the cosine of the edit and a description of the result, by default the target's caption."""

    def __init__(self, protocol: str, backbone: ClipBackbone, text: str = "target_caption") -> None:
        self.backbone, self.text = backbone, text
        name = "clip_t" if text == "target_caption" else f"clip_t_{text}"
        self.needs = frozenset() if text == "instruction" else frozenset({f"text:{text}"})
        self.spec = _spec(name, protocol, backbone, "text", text_field=text)

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`. A truncated text is noted."""
        warm(self.backbone.images, batch, lambda item: (item.edited,))
        self.backbone.texts([self._text(item) for item in batch])

        def measure(item: ScoreItem) -> Measurement:
            text = self._text(item)
            (picture,), (words,) = self.backbone.images([item.edited]), self.backbone.texts([text])
            notes = (CUT,) if self.backbone.is_cut(text) else ()
            return Measurement(values={self.spec.name: cosine(picture, words)}, notes=notes)

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
        fields = {"text_field": after, "settings": {"source_text": before}}
        self.spec = _spec("clip_direction", protocol, backbone, "source and text", **fields)

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


def clip_i(options: BackboneOptions) -> Metric:
    """CLIP-I from its options."""
    return ImageSimilarity("clip_i", options.protocol, _clip(options), options.against)


def clip_t(options: BackboneOptions) -> Metric:
    """CLIP-T from its options."""
    return ClipText(options.protocol, _clip(options), options.text)


def clip_direction(options: BackboneOptions) -> Metric:
    """CLIP direction from its options."""
    return ClipDirection(options.protocol, _clip(options), options.before, options.text)


def dino(options: BackboneOptions) -> Metric:
    """DINO from its options."""
    magicbrush = options.protocol == "magicbrush-v1"
    model = (options.model or MAGICBRUSH_DINO) if magicbrush else _own(options)
    if magicbrush:
        check_dino_vits16(str(model))
    backbone = vit_backbone(model, magicbrush, options.device)
    return ImageSimilarity("dino", options.protocol, backbone, options.against)


def _clip(options: BackboneOptions) -> ClipBackbone:
    if options.protocol == "magicbrush-v1":
        name, tag = MAGICBRUSH_CLIP
        return clip_backbone(name, options.model or tag, options.device)
    return clip_backbone(_own(options), options.pretrained, options.device)


def _own(options: BackboneOptions) -> str | None:
    if options.protocol == "own" and options.model is None:
        raise MetricError('The protocol "own" needs a model; name it by folder or hub id.')
    return options.model
