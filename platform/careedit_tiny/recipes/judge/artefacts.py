"""Pictures that no editor should give back: what the judge learns to call not clean."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from random import Random

import numpy as np
from PIL import Image, ImageFilter


def _noise(image: Image.Image, rng: Random) -> Image.Image:
    return _plus(image, _normal(rng, image.size) * rng.uniform(0.08, 0.3))


def _clouds(image: Image.Image, rng: Random) -> Image.Image:
    """Noise of a decoder that was given half-denoised latents: smooth patches of a few pixels."""
    width, height = image.size
    coarse = _normal(rng, (max(1, width // 4), max(1, height // 4)))
    layers = [Image.fromarray(coarse[..., c]).resize(image.size, Image.Resampling.BICUBIC) for c in range(3)]
    return _plus(image, np.stack([np.asarray(layer) for layer in layers], axis=2) * rng.uniform(0.08, 0.25))


def _blur(image: Image.Image, rng: Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(2.2, 4) * image.width / 64))


def _jpeg(image: Image.Image, rng: Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(3, 12))
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def _blocks(image: Image.Image, rng: Random) -> Image.Image:
    """A few squares that belong nowhere."""
    side, result = max(4, image.width // 8), image.copy()
    for _ in range(rng.randint(1, 4)):
        where = (rng.randrange(image.width - side), rng.randrange(image.height - side))
        square = Image.fromarray(np.uint8(255 * np.clip(0.5 + 0.3 * _normal(rng, (side, side)), 0, 1)))
        result.paste(square, where)
    return result


def _shifted_channels(image: Image.Image, rng: Random) -> Image.Image:
    by = rng.choice((-4, -3, 3, 4)) * image.width // 64
    pixels = np.asarray(image).copy()
    channel = rng.randrange(3)
    pixels[..., channel] = np.roll(pixels[..., channel], by, axis=rng.choice((0, 1)))
    return Image.fromarray(pixels)


ARTEFACTS: Mapping[str, Callable[[Image.Image, Random], Image.Image]] = {
    "noise": _noise,
    "clouds": _clouds,
    "blur": _blur,
    "JPEG": _jpeg,
    "blocks": _blocks,
    "shifted channels": _shifted_channels,
}
"""(RGB picture, random numbers) -> the picture with the artefact, for any size from 32 pixels on."""


def _normal(rng: Random, size: tuple[int, int]) -> np.ndarray:
    """Standard normal numbers, float32 [height, width, 3]."""
    return np.random.default_rng(rng.getrandbits(32)).standard_normal((size[1], size[0], 3), np.float32)


def _plus(image: Image.Image, change: np.ndarray) -> Image.Image:
    return Image.fromarray(np.uint8(np.clip(np.asarray(image, np.float32) + 255 * change, 0, 255)))
