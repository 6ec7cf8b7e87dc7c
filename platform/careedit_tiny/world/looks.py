"""The global looks: each a fixed function of the picture, so that a styled truth is exact.

The edits of the drawn world use the eight of `careedit_tiny.world.scene.LOOKS`. No recipe shows those of `UNTAUGHT` to a
model: they are for questions about what a model was never taught.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from careedit_tiny.world.geometry import GEOMETRY

Pixels = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _grey(pixels: Pixels) -> Pixels:
    return (pixels @ _LUMA)[..., None]


def _monochrome(pixels: Pixels) -> Pixels:
    return np.repeat(_grey(pixels), 3, axis=2)


def _sepia(pixels: Pixels) -> Pixels:
    return _grey(pixels) * np.array([1.05, 0.82, 0.58], np.float32) + np.array([18, 8, 0], np.float32)


def _negative(pixels: Pixels) -> Pixels:
    return 255 - pixels


def _night(pixels: Pixels) -> Pixels:
    return pixels * np.array([0.22, 0.27, 0.5], np.float32) + np.array([0, 0, 14], np.float32)


def _mosaic(pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    block = max(2, round(max(height, width) / GEOMETRY.mosaic))
    small = Image.fromarray(pixels.astype(np.uint8)).resize(
        (-(-width // block), -(-height // block)), Image.Resampling.BOX
    )
    large = np.asarray(small, np.float32).repeat(block, axis=0).repeat(block, axis=1)
    return large[:height, :width]


def _blur(pixels: Pixels) -> Pixels:
    radius = 1.6 * max(pixels.shape[:2]) / 64
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _poster(pixels: Pixels) -> Pixels:
    grey = _grey(pixels)
    vivid = np.clip(grey + (pixels - grey) * 1.8, 0, 255)
    return np.round(vivid / 127.5).astype(np.float32) * 127.5


def _sketch(pixels: Pixels) -> Pixels:
    grey = _grey(pixels)[..., 0]
    across, down = np.gradient(grey, axis=1), np.gradient(grey, axis=0)
    ink = np.clip(np.hypot(across, down) * 3.0, 0, 225)
    return np.repeat((245 - ink)[..., None], 3, axis=2).astype(np.float32)


def _duotone(pixels: Pixels, dark: tuple[int, int, int], light: tuple[int, int, int]) -> Pixels:
    first, last = (np.array(colour, np.float32) for colour in (dark, light))
    return first + _grey(pixels) / 255 * (last - first)


def _forest(pixels: Pixels) -> Pixels:
    return _duotone(pixels, (10, 50, 20), (225, 245, 160))


def _dusk(pixels: Pixels) -> Pixels:
    return _duotone(pixels, (45, 10, 90), (255, 175, 90))


def _frost(pixels: Pixels) -> Pixels:
    return _duotone(pixels, (70, 110, 150), (235, 250, 255))


def _bloom(pixels: Pixels) -> Pixels:
    return 255 - (255 - pixels) * np.array([0.35, 0.9, 0.55], np.float32)


UNTAUGHT: dict[str, Callable[[Pixels], Pixels]] = {"forest": _forest, "dusk": _dusk, "frost": _frost, "bloom": _bloom}
"""Looks that no model of the tiny family is trained on, by name."""

_FUNCTIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "monochrome": _monochrome,
    "sepia": _sepia,
    "negative": _negative,
    "night": _night,
    "mosaic": _mosaic,
    "blur": _blur,
    "poster": _poster,
    "sketch": _sketch,
    **UNTAUGHT,
}


def apply_look(image: Image.Image, look: str) -> Image.Image:
    """`image` (RGB) under a global look; an unknown look is a `KeyError`."""
    pixels = _FUNCTIONS[look](np.asarray(image, np.float32))
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
