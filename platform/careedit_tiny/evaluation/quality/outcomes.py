"""One edited image compared with the known right result of its scene."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from careedit.editing import Family
from careedit.errors import InputError
from careedit.files import json_digest, png_base64
from careedit_tiny.models.family import PANEL
from careedit_tiny.oracle.compare import TO_YCC, Case, Thresholds, build_case, preservation
from careedit_tiny.oracle.rivals import Pixels
from careedit_tiny.oracle.verdict import DEFAULT, judge
from careedit_tiny.world.samples import Sample

VERSION = 1
"""Part of every key. Raise it when the oracle or the edit loop gives other outcomes for the same edit."""
CODEC_BATCH = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the oracle says of one edited image. Errors are mean absolute differences of RGB values between 0 and 1."""

    followed: bool
    """Whether the instruction was carried out, by the oracle."""
    preserved: bool
    """Whether the rest of the image was left alone, by the oracle."""
    preservation_error: float
    """The difference from the right result outside the edited area."""
    softened_error: float
    """The oracle's own measure of that difference, without what a small autoencoder does to any image."""
    l1: float
    """The difference from the right result over all pixels."""
    kept_drift: float | None = None
    """The difference on the object that an identity edit must keep; None for other kinds of edit."""
    kept_drifted: bool | None = None
    """Whether that object alone fails the oracle's test of preservation; None for other kinds of edit."""
    nfe: int = 0
    """The number of evaluations of the transformer."""
    seconds: float = 0.0
    """Wall-clock seconds without routing; the time of a batch is divided by its number of edits."""
    picture: str | None = None
    """The image as a PNG in base64, if it is shown or edited further; else None."""
    key: str = ""
    """The key of `outcome_key`; empty for an outcome that is not cached."""

    @property
    def compliant(self) -> bool:
        """Whether the edit is right: followed and preserved."""
        return self.followed and self.preserved

    @property
    def image(self) -> Image.Image:
        """The kept image, RGB. Raises `InputError` if it was not kept."""
        if self.picture is None:
            raise InputError("This outcome was measured without keeping its image; measure it again.")
        return Image.open(io.BytesIO(base64.b64decode(self.picture))).convert("RGB")


def judge_outcome(
    sample: Sample, image: Image.Image, *, nfe: int = 0, seconds: float = 0.0, keep: bool = False
) -> Outcome:
    """Judge an image (RGB, square) and measure its difference from the right result; `keep` keeps the image itself."""
    verdict = judge(sample, image)
    case = build_case(sample.source, sample.target, image.width, DEFAULT)
    error = np.asarray(image, np.float32) / 255 - case.target
    distance = np.abs(error)
    return Outcome(
        followed=verdict.followed,
        preserved=verdict.preserved,
        preservation_error=float(distance[case.kept].mean()) if case.kept.any() else 0.0,
        softened_error=verdict.preservation_error,
        l1=float(distance.mean()),
        kept_drift=verdict.kept_drift,
        kept_drifted=None if case.held is None else _drifted(error @ TO_YCC, replace(case, kept=case.held)),
        nfe=nfe,
        seconds=seconds,
        picture=png_base64(image) if keep else None,
    )


def outcome_key(sample: Sample, made_with: Mapping[str, Any], *, noise: int, source_sha256: str | None) -> str:
    """The hash of everything that an outcome depends on: scene, words, oracle, weights, settings, noise, another source.

    The router is not part of it, so a set with a new router finds the outcomes of its experts again.
    """
    content = {
        "version": VERSION,
        "sample": sample.to_dict(),
        "oracle": dataclasses.asdict(Thresholds()),
        "made_with": made_with,
        "noise": noise,
        "source": source_sha256,
    }
    return json_digest(content, ensure_ascii=True, allow_nan=True)[:32]


def identity_outcomes(samples: Sequence[Sample]) -> list[Outcome]:
    """The outcomes of no edit at all: the source itself is judged."""
    return [judge_outcome(sample, sample.source_image(PANEL)) for sample in samples]


@torch.no_grad()
def codec_outcomes(base: Family, samples: Sequence[Sample]) -> list[Outcome]:
    """The right result of every scene, encoded and decoded by the base's autoencoder: the best that an edit could reach."""
    outcomes = []
    for first in range(0, len(samples), CODEC_BATCH):
        part = samples[first : first + CODEC_BATCH]
        pixels = np.stack([np.asarray(sample.target_image(PANEL), np.float32) for sample in part])
        images = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).to(base.device, base.vae.dtype)
        decoded = base.vae.decode(base.vae.encode(images).latent_dist.mode()).sample.float().cpu()
        back = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        outcomes += [judge_outcome(sample, Image.fromarray(one)) for sample, one in zip(part, back, strict=True)]
    return outcomes


def _drifted(error: Pixels, case: Case) -> bool:
    """Whether the kept pixels of `case` exceed the oracle's limits, which allow for the blur of an autoencoder."""
    mean, tint, block = preservation(error, case, DEFAULT)
    return mean > DEFAULT.outside or tint > DEFAULT.drift or block > DEFAULT.block
