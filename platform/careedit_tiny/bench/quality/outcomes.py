"""What one edit of one scene came to, and the cache that keeps it: a line of JSON each, so that a killed run goes on."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from careedit.bench.lines import LineCache, content_key
from careedit.errors import InputError
from careedit.files import png_base64
from careedit_tiny.oracle.compare import TO_YCC, Case, Thresholds, build_case, preservation
from careedit_tiny.oracle.rivals import Pixels
from careedit_tiny.oracle.verdict import DEFAULT, judge
from careedit_tiny.world.samples import Sample

VERSION = 1
"""Of a line of the cache. To be raised when the oracle or the loop gives other outcomes for the same edit."""
FILE = "outcomes.jsonl"
"""Name of the cache's file in its folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One picture against its scene's truth."""

    followed: bool
    """The oracle: the instruction was carried out."""
    preserved: bool
    """The oracle: the rest was left alone."""
    preservation_error: float
    """Mean absolute difference from the truth outside the edit, RGB, of a full scale of 1."""
    softened_error: float
    """The oracle's own figure for it, freed of what a small autoencoder does to any picture."""
    l1: float
    """Mean absolute difference from the truth, all pixels, RGB, of a full scale of 1."""
    kept_drift: float | None = None
    """Identity edits: mean absolute difference on the object that must be kept."""
    kept_drifted: bool | None = None
    """Identity edits: whether that object alone fails the oracle's test of what must be preserved."""
    nfe: int = 0
    """Evaluations of the transformer."""
    seconds: float = 0.0
    """Wall-clock seconds, a batch's divided by its pictures; without routing."""
    picture: str | None = None
    """The picture as a PNG in base64, where it is shown or edited on."""

    @property
    def compliant(self) -> bool:
        """Followed and preserved."""
        return self.followed and self.preserved

    @property
    def image(self) -> Image.Image:
        """The kept picture, RGB; raises `InputError` where none was kept."""
        if self.picture is None:
            raise InputError("This outcome was measured without keeping its picture; measure it again.")
        return Image.open(io.BytesIO(base64.b64decode(self.picture))).convert("RGB")


def judge_outcome(
    sample: Sample, image: Image.Image, *, nfe: int = 0, seconds: float = 0.0, keep: bool = False
) -> Outcome:
    """Judge a picture (RGB, square) and measure its distance from the truth; `keep` keeps the picture itself."""
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
    """What an outcome depends on, as a hash: scene and words, oracle, weights and settings, noise, and another source.

    The router is no part of it: a set with a new router finds its experts' outcomes again.
    """
    content = {
        "version": VERSION,
        "sample": sample.to_dict(),
        "oracle": dataclasses.asdict(Thresholds()),
        "made_with": made_with,
        "noise": noise,
        "source": source_sha256,
    }
    return content_key(content)


class OutcomeCache(LineCache[Outcome]):
    """Outcomes by key."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder, FILE, VERSION, lambda fields: Outcome(**fields))

    def get(self, key: str, *, picture: bool = False) -> Outcome | None:
        """The outcome, or None; with `picture`, only one whose picture was kept."""
        found = super().get(key)
        return None if found is not None and picture and found.picture is None else found


def _drifted(error: Pixels, case: Case) -> bool:
    """The oracle's limits on what `case` keeps; an autoencoder's blur, which a bare mean counts, is forgiven there."""
    mean, tint, block = preservation(error, case, DEFAULT)
    return mean > DEFAULT.outside or tint > DEFAULT.drift or block > DEFAULT.block
