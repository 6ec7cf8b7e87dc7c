"""CLIP-I, CLIP-T, CLIP direction and DINO: cosines of embeddings, one pair at a time, neither clamped at 0 nor times 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

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
    """Cosine of two vectors; raises `MetricError` where one of them has no direction."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not np.isfinite(length) or length == 0:
        raise MetricError("An embedding is zero or not finite, so it has no cosine; check the backbone's weights.")
    return float(np.clip(one @ other / length, -1, 1))


def image_spec(name: str, protocol: str, against: Against, backbone: ClipBackbone | VitBackbone) -> MetricSpec:
    """The identity of a similarity of two pictures; against the source it is another metric of another name."""
    full = name if against == "target" else f"{name}_{against}"
    return MetricSpec(
        name=full,
        outputs=(Output(name=full, better="higher"),),
        protocol=protocol if against == "target" else f"{protocol}, against the source",
        backbone=backbone.name,
        revision=backbone.revision,
        preprocessing=backbone.preprocessing,
        reference=against,
        dtype="float32",
    )


class ImageSimilarity:
    """CLIP-I and DINO: the edit's embedding and the target's (MagicBrush) or the source's (Emu Edit)."""

    def __init__(self, spec: MetricSpec, embed: Embedder[Image.Image], against: Against) -> None:
        self.spec, self._embed, self.against = spec, embed, against
        self.needs = frozenset({"target"} if against == "target" else ())

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        warm(self._embed, batch, lambda item: (item.edited, self._other(item)))

        def measure(item: ScoreItem) -> Measurement:
            return Measurement(values={self.spec.name: cosine(*self._embed([item.edited, self._other(item)]))})

        return one_by_one(batch, measure)

    def _other(self, item: ScoreItem) -> Image.Image:
        return item.target if self.against == "target" else item.pictures.source


class ClipText:
    """CLIP-T: the edit and a description of what is wanted, by default the target's caption."""

    def __init__(self, protocol: str, backbone: ClipBackbone, text: str = "target_caption") -> None:
        self.backbone, self.text = backbone, text
        name = "clip_t" if text == "target_caption" else f"clip_t_{text}"
        self.needs = frozenset() if text == "instruction" else frozenset({f"text:{text}"})
        self.spec = MetricSpec(
            name=name,
            outputs=(Output(name=name, better="higher"),),
            protocol=protocol,
            backbone=backbone.name,
            revision=backbone.revision,
            preprocessing=backbone.preprocessing,
            reference="text",
            text_field=text,
            dtype="float32",
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`; a text that was cut is noted."""
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
    """Whether picture and caption moved the same way (StyleGAN-NADA, arXiv 2108.00946, equation 3).

    Unreliable for small edits: ICEdit's figure 14 has a good edit at -0.02 and a failed one at 0.40. An edit that is its
    source has moved in no direction and counts 0, as an average without it would reward doing nothing.
    """

    def __init__(
        self, protocol: str, backbone: ClipBackbone, before: str = "source_caption", after: str = "target_caption"
    ) -> None:
        self.backbone, self.before, self.after = backbone, before, after
        self.needs = frozenset({f"text:{before}", f"text:{after}"})
        self.spec = MetricSpec(
            name="clip_direction",
            outputs=(Output(name="clip_direction", better="higher"),),
            protocol=protocol,
            backbone=backbone.name,
            revision=backbone.revision,
            preprocessing=backbone.preprocessing,
            reference="source and text",
            text_field=after,
            dtype="float32",
            settings={"source_text": before},
        )

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
    """Embeds all pictures of a batch together; an item whose pictures cannot be had is left for its own error."""
    wanted: list[Image.Image] = []
    for item in batch:
        try:
            wanted += pictures(item)
        except CareEditError:
            continue
    embed(wanted)


def clip_i(options: BackboneOptions) -> Metric:
    """CLIP-I from its options."""
    backbone = _clip(options)
    spec = image_spec("clip_i", options.protocol, options.against, backbone)
    return ImageSimilarity(spec, backbone.images, options.against)


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
    spec = image_spec("dino", options.protocol, options.against, backbone)
    return ImageSimilarity(spec, backbone.images, options.against)


def _clip(options: BackboneOptions) -> ClipBackbone:
    if options.protocol == "magicbrush-v1":
        name, tag = MAGICBRUSH_CLIP
        return clip_backbone(name, options.model or tag, options.device)
    return clip_backbone(_own(options), options.pretrained, options.device)


def _own(options: BackboneOptions) -> str | None:
    if options.protocol == "own" and options.model is None:
        raise MetricError('The protocol "own" needs a model; name it by folder or hub id.')
    return options.model
