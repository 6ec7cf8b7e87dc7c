"""What the tiny DINO is shown: scenes drawn once, and crops of them that change from step to step."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from careedit_tiny.world.samples import SPLITS, Split
from careedit_tiny.world.scene import LOOKS, SIZES, Scene, Thing, random_scene

LOOK_SHARE = 0.3
"""Share of the scenes that have a look."""


def dino_scene(index: int, split: Split) -> Scene:
    """Scene `index` of a split; a function of the two alone."""
    rng = Random(f"dino:{SPLITS[split][index]}")
    scene = random_scene(rng, minimum=1, maximum=4)
    return replace(scene, look=rng.choice(LOOKS)) if rng.random() < LOOK_SHARE else scene


def main_object(scene: Scene) -> Thing:
    """The largest object, the first in reading order of those."""
    return max(scene.things, key=lambda thing: (SIZES[thing.size], -thing.cell))


def crops(pixels: Tensor, side: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """One random crop of each picture [B, 3, H, W], resized to [B, 3, side, side].

    Its area is between the two shares of `scale`, its aspect ratio between 3/4 and 4/3. Pictures are not mirrored and
    their colours hardly change: what an edit changes must stay visible to a metric.
    """
    count = len(pixels)
    area = scale[0] + (scale[1] - scale[0]) * torch.rand(count, generator=generator)
    stretch = (0.75 + (4 / 3 - 0.75) * torch.rand(count, generator=generator)).sqrt()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    # The crop's centre, in coordinates from -1 to 1.
    x, y = ((2 * torch.rand(count, generator=generator) - 1) * (1 - share) for share in (width, height))
    none = torch.zeros(count)
    boxes = torch.stack([torch.stack([width, none, x], 1), torch.stack([none, height, y], 1)], 1)
    grid = F.affine_grid(boxes, [count, 3, side, side], align_corners=False)
    cut = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    contrast = 0.85 + 0.3 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = 0.3 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    return cut * contrast + brightness + 0.05 * torch.randn(cut.shape, generator=generator)
