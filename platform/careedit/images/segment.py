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
_ROUNDS = 3
_SWEEPS = 10
_SMOOTHNESS = 1.6
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_MAX_EVIDENCE = 5.0
_EXCESS = 2.0  # a colour is the object's if the mask has it this much more often than its background would
_MIN_OBJECT = 0.04  # smallest share of the mask that an object may fill
_MIN_SURROUNDINGS = 0.1  # as a share of the mask's area
_MIN_CONTRAST = 6.0  # mean colour step across the object's edge, in units of CIELAB
_MIN_CONTRAST_RATIO = 1.8  # the same, over the mean step elsewhere


@dataclass(frozen=True)
class Region:
    """The neighbourhood of a coarse mask, at working size."""

    pixels: NDArray[np.uint8]
    """The pixels in sRGB, [H, W, 3]."""
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
    if words is None:
        return None
    background = _model(words, _surroundings(region).astype(np.float64))
    obj = _unmixed(_model(words, region.coarse.astype(np.float64)), background)
    if obj is None:
        return None
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


def _surroundings(region: Region) -> NDArray[np.bool_]:
    """Pixels that are taken to be background at first: far enough out for an object that the mask cuts off.

    Where the mask nearly fills the picture, no pixel is that far and every unmarked pixel is used.
    """
    far = region.distance > region.reach / 2
    return far if far.sum() >= _MIN_SURROUNDINGS * region.coarse.sum() else ~region.coarse


def _flattened(colours: Array, region: Region) -> Array:
    """`colours` less a smooth background (a quadratic fitted to the surroundings), so that a gradient becomes one colour."""
    height, width = region.coarse.shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    chosen = _surroundings(region)
    every = max(1, int(chosen.sum()) // 4096)
    design, values = terms[chosen][::every], colours[chosen][::every]
    solution, error = _robust_fit(design, values)
    _, error_if_plain = _robust_fit(design[:, :1], values)
    # Only a background that the quadratic explains is flattened; on stripes and in photos it would only add colours.
    explained = np.minimum(error, 40).mean() < 0.8 * np.minimum(error_if_plain, 40).mean()
    return colours - terms @ solution if explained and np.median(error) < 15 else colours


def _robust_fit(design: Array, values: Array) -> tuple[Array, Array]:
    """Coefficients of a least-squares fit that other objects nearby do not bend, and each pixel's error."""
    trust = np.ones(len(values))
    for _ in range(6):
        root = np.sqrt(trust)[:, None]
        solution = np.asarray(np.linalg.lstsq(design * root, values * root, rcond=None)[0], np.float64)
        error = np.asarray(np.linalg.norm(values - design @ solution, axis=-1), np.float64)
        trust = 1 / (1 + (error / max(2.0, float(np.median(error)))) ** 2) ** 2
    return solution, error


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


def _unmixed(mask: Array, background: Array) -> Array | None:
    """The object's colours, given those of a mask that also holds some background; None if it holds nothing else.

    A box drawn too large is mostly background, so its own colours would call the background an object. The share of
    background in the mask is the median, over background, of how much of each background colour the mask holds.
    """
    ratio = mask / background
    order = np.argsort(ratio)
    middle = int(np.searchsorted(np.cumsum(background[order]), 0.5))
    share = min(1.0, float(ratio[order][min(middle, len(order) - 1)]))
    own = np.where(ratio > _EXCESS * share, mask - share * background, 0)
    if own.sum() < _MIN_OBJECT:
        return None
    return np.asarray((own + 1e-3) / (own + 1e-3).sum())


def _edge_weights(colours: Array) -> list[Array]:
    """Coupling of each pixel with its neighbour in each of four directions, weak across a colour step."""
    padded = np.pad(colours, ((1, 1), (1, 1), (0, 0)), mode="edge")
    squares = [((colours - _shifted(padded, *step)) ** 2).sum(axis=-1) for step in _NEIGHBOURS]
    typical = max(20.0, float(2 * np.mean(squares)))
    return [np.exp(-square / typical) / np.hypot(*step) for square, step in zip(squares, _NEIGHBOURS, strict=True)]


def _shifted(padded: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """A view of an array that was padded by one pixel, moved so that (row, column) shows (row + down, column + right)."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _smoothed(unary: Array, weights: list[Array], region: Region) -> Array:
    """Mean-field probability under `unary` (log odds) and the contrast-sensitive coupling."""
    half = np.where(region.distance > region.reach, -15.0, unary / 2)
    couplings = [0.5 * _SMOOTHNESS * weight for weight in weights]
    spin = np.tanh(half)
    for _ in range(_SWEEPS):
        padded = np.pad(spin, 1, mode="edge")
        field = half.copy()
        for step, coupling in zip(_NEIGHBOURS, couplings, strict=True):
            field += coupling * _shifted(padded, *step)
            field += _shifted(np.pad(coupling * spin, 1), -step[0], -step[1])
        spin = 0.5 * spin + 0.5 * np.tanh(field)
    return np.asarray((1 + spin) / 2)


def _stands_out(found: NDArray[np.bool_], colours: Array) -> bool:
    """Whether colours step at the edge of `found` clearly more than they do elsewhere."""
    if found.all():
        return False
    cut, uncut = [], []
    near = ndimage.binary_dilation(found, iterations=max(3, round(0.1 * np.sqrt(found.sum()))))
    for axis in (0, 1):
        # Two pixels apart, since an anti-aliased edge takes one pixel to turn.
        one, two = (slice(None),) * axis + (slice(None, -2),), (slice(None),) * axis + (slice(2, None),)
        step = np.linalg.norm(colours[one] - colours[two], axis=-1)
        crossing = found[one] != found[two]
        cut.append(step[crossing])
        uncut.append(step[near[one] & ~crossing])
    edge, rest = np.concatenate(cut), np.concatenate(uncut)
    if not edge.size:
        return False
    ordinary = rest.mean() if rest.size else 0.0
    return bool(edge.mean() >= max(_MIN_CONTRAST, _MIN_CONTRAST_RATIO * ordinary))
