"""Which pixels near a coarse mask belong to the object it covers: colour words inside against outside.

The scheme is GrabCut's (Rother et al. 2004: colour models for both sides, contrast-sensitive smoothness, repeated),
with a shared vocabulary of colours in place of Gaussian mixtures and mean-field sweeps in place of graph cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

_WORDS = 16
_ROUNDS = 4
_SWEEPS = 12
_SMOOTHNESS = 1.6
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_MAX_EVIDENCE = 5.0
_MIN_CONTRAST = 6.0  # mean colour step across the object's edge, in units of CIELAB
_MIN_CONTRAST_RATIO = 1.8  # the same, over the mean step elsewhere


@dataclass(frozen=True)
class Region:
    """The neighbourhood of a coarse mask, at working size."""

    pixels: NDArray[np.uint8]
    """sRGB, [H, W, 3]."""
    coarse: NDArray[np.bool_]
    """The coarse mask, [H, W]."""
    distance: NDArray[Any]
    """Distance to the mask in pixels, 0 inside, [H, W]."""
    reach: float
    """How far out of the mask the object may reach, in pixels."""


def segment(region: Region) -> Array | None:
    """Probability per pixel of belonging to the object, [H, W]; None if no object stands out."""
    colours = _flattened(_lab(region.pixels), region)
    words = _vocabulary(colours)
    outside = region.distance > region.reach / 2
    if words is None or not outside.any():
        return None
    background = _model(words, outside.astype(np.float64))
    obj = _unmixed(_model(words, region.coarse.astype(np.float64)), background)
    weights = _edge_weights(colours)
    prior = np.where(region.coarse, 0.25, -0.25 - 2.0 * region.distance / region.reach)
    probability = np.zeros(region.coarse.shape)
    for _ in range(_ROUNDS):
        evidence = np.clip(words @ np.log(obj / background), -_MAX_EVIDENCE, _MAX_EVIDENCE)
        probability = _smoothed(evidence + prior, weights, region)
        if not (probability >= 0.5).any():
            return None
        obj, background = _model(words, probability), _model(words, 1 - probability)
    return probability if _stands_out(probability >= 0.5, colours) else None


def _lab(pixels: NDArray[np.uint8]) -> Array:
    """CIELAB (D65) of sRGB pixels: distances are roughly what an eye sees."""
    values = pixels.astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / matrix.sum(axis=1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _flattened(colours: Array, region: Region) -> Array:
    """`colours` less a smooth background (a quadratic fitted to the surroundings), so that a gradient becomes plain."""
    height, width = region.coarse.shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    chosen = region.distance > region.reach / 2
    if chosen.sum() < 24:
        chosen = ~region.coarse
    design, values = terms[chosen], colours[chosen]
    trust = np.ones(len(values))
    solution = np.zeros((6, 3))
    for _ in range(6):  # iteratively reweighted, so that other objects nearby do not bend the fit
        root = np.sqrt(trust)[:, None]
        solution = np.linalg.lstsq(design * root, values * root, rcond=None)[0]
        error = np.linalg.norm(values - design @ solution, axis=-1)
        scale = max(2.0, float(np.median(error)))
        trust = 1 / (1 + (error / scale) ** 2) ** 2
    residual = np.median(error)
    spread = np.median(np.linalg.norm(values - np.median(values, axis=0), axis=-1))
    # Only a background that the quadratic explains is flattened; on stripes and in photos it would only add colours.
    return colours - terms @ solution if residual < 4 and residual < 0.7 * spread else colours


def _vocabulary(colours: Array) -> Array | None:
    """Soft assignment of each pixel to the scene's colour words, [H, W, K]; None if there is only one colour."""
    points = colours.reshape(-1, 3)
    sample = points[:: max(1, len(points) // 8192)]
    centres = [np.median(sample, axis=0)]
    # Farthest-first keeps rare colours (a small object), which k-means with random starts would lose.
    distance = np.linalg.norm(sample - centres[0], axis=-1)
    while len(centres) < _WORDS and distance.max() > 4:
        centres.append(sample[distance.argmax()])
        distance = np.minimum(distance, np.linalg.norm(sample - centres[-1], axis=-1))
    if len(centres) < 2:
        return None
    words = np.array(centres)
    for _ in range(8):
        nearest = _distances(sample, words).argmin(axis=-1)
        counts = np.bincount(nearest, minlength=len(words))
        sums = np.stack([np.bincount(nearest, sample[:, axis], len(words)) for axis in range(3)], axis=-1)
        words = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], words)
    squares = _distances(points, words) ** 2
    spread = max(3.0, float(np.sqrt(np.median(squares.min(axis=-1)))))
    soft = np.exp(-(squares - squares.min(axis=-1, keepdims=True)) / (2 * spread**2))
    return np.asarray((soft / soft.sum(axis=-1, keepdims=True)).reshape(*colours.shape[:2], len(words)))


def _distances(points: Array, words: Array) -> Array:
    squares = (points**2).sum(-1)[:, None] - 2 * points @ words.T + (words**2).sum(-1)
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _model(words: Array, weight: Array) -> Array:
    """How often each colour word occurs under `weight`, [K]; never 0."""
    flat = words.reshape(-1, words.shape[-1])
    mass = weight.ravel() @ flat
    return np.asarray((mass + 0.5) / (mass.sum() + 0.5 * len(mass)))


def _unmixed(mask: Array, background: Array) -> Array:
    """The object's colours, given those of a mask that also holds some background.

    A box drawn too large is mostly background, so its own colours would call the background an object. The share of
    background in the mask is the median, over background, of how much of each background colour the mask holds.
    """
    ratio = mask / background
    order = np.argsort(ratio)
    middle = np.searchsorted(np.cumsum(background[order]), 0.5)
    share = min(1.0, float(ratio[order][min(middle, len(order) - 1)]))
    rest = np.maximum(mask - 1.2 * share * background, 1e-3)
    return np.asarray(rest / rest.sum())


def _edge_weights(colours: Array) -> list[Array]:
    """Coupling of each pixel with its neighbour in each of four directions, weak across a colour step."""
    squares = [((colours - _shifted(colours, *step)) ** 2).sum(axis=-1) for step in _NEIGHBOURS]
    typical = max(20.0, float(2 * np.mean(squares)))
    return [np.exp(-square / typical) / np.hypot(*step) for square, step in zip(squares, _NEIGHBOURS, strict=True)]


def _shifted(values: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """`values` at (row + down, column + right), the border repeated."""
    rows = np.clip(np.arange(values.shape[0]) + down, 0, values.shape[0] - 1)
    columns = np.clip(np.arange(values.shape[1]) + right, 0, values.shape[1] - 1)
    return values[rows[:, None], columns]


def _smoothed(unary: Array, weights: list[Array], region: Region) -> Array:
    """Mean-field probability under `unary` (log odds) and the contrast-sensitive coupling."""
    forbidden = region.distance > region.reach
    logits = np.where(forbidden, -30.0, unary)
    spin = np.tanh(logits / 2)
    for _ in range(_SWEEPS):
        pull = np.zeros_like(spin)
        for (down, right), weight in zip(_NEIGHBOURS, weights, strict=True):
            pull += weight * _shifted(spin, down, right) + _shifted(weight * spin, -down, -right)
        spin = 0.5 * spin + 0.5 * np.tanh((logits + _SMOOTHNESS * pull) / 2)
    return np.asarray((1 + spin) / 2)


def _stands_out(found: NDArray[np.bool_], colours: Array) -> bool:
    """Whether colours step at the edge of `found` clearly more than they do elsewhere."""
    if found.all():
        return False
    cut, uncut = [], []
    # Two pixels apart, since an anti-aliased edge takes one pixel to turn.
    near = ndimage.binary_dilation(found, iterations=max(3, round(0.1 * np.sqrt(found.sum()))))
    for down, right in ((0, 2), (2, 0)):
        step = np.linalg.norm(colours - _shifted(colours, down, right), axis=-1)
        crossing = found != _shifted(found, down, right)
        cut.append(step[crossing])
        uncut.append(step[near & ~crossing])
    contrast, ordinary = np.concatenate(cut).mean(), np.concatenate(uncut).mean()
    return bool(contrast >= _MIN_CONTRAST and contrast >= _MIN_CONTRAST_RATIO * ordinary)
