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
    their colours hardly change: what an edit changes must stay visible to a metric. Random numbers come from the generator, on
    the CPU, and are the same on every device.
    """
    count, device = len(pixels), pixels.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

    area = scale[0] + (scale[1] - scale[0]) * uniform(count)
    stretch = (0.75 + (4 / 3 - 0.75) * uniform(count)).sqrt()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    # The crop's centre, in coordinates from -1 to 1.
    x, y = ((2 * uniform(count) - 1) * (1 - share) for share in (width, height))
    none = torch.zeros(count, device=device)
    boxes = torch.stack([torch.stack([width, none, x], 1), torch.stack([none, height, y], 1)], 1)
    grid = F.affine_grid(boxes, [count, 3, side, side], align_corners=False)
    cut = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    contrast = 0.85 + 0.3 * uniform(count, 1, 1, 1)
    brightness = 0.3 * (uniform(count, 1, 1, 1) - 0.5)
    return cut * contrast + brightness + 0.05 * torch.randn(cut.shape, generator=generator).to(device)
