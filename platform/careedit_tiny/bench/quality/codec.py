"""What the autoencoder alone costs: the exact truth, encoded and decoded, judged like an edit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from careedit.editing import EditorBase
from careedit_tiny.bench.quality.outcomes import Outcome, judge_outcome
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample

BATCH = 32


@torch.no_grad()
def codec_outcomes(base: EditorBase, samples: Sequence[Sample]) -> list[Outcome]:
    """The truth of every scene through the base's autoencoder: what an otherwise perfect edit would be judged as."""
    outcomes = []
    for first in range(0, len(samples), BATCH):
        part = samples[first : first + BATCH]
        pixels = np.stack([np.asarray(sample.target_image(PANEL), np.float32) for sample in part])
        images = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).to(base.device, base.vae.dtype)
        decoded = base.vae.decode(base.vae.encode(images).latent_dist.mode()).sample.float().cpu()
        back = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        outcomes += [judge_outcome(sample, Image.fromarray(one)) for sample, one in zip(part, back, strict=True)]
    return outcomes
