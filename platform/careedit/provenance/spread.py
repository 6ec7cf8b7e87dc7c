"""The watermark method "spread": spread spectrum in brightness, as one tile that repeats over the picture.

The tile has `TILE` x `TILE` pixels and only frequencies that survive JPEG and scaling to half the size. Some of its Fourier
coefficients are fixed (the *anchor*), by which a reader finds where tiles begin after a crop. The others form one group per
byte of the message; the byte chooses one of 256 fixed patterns of signs for its group. A reader correlates with all 256 and takes
the best: orthogonal-like signalling, which corrects errors about as well as a short convolutional code with soft decisions.
The message is the payload and `CHECK_BYTES` of its hash.

A writer first measures what the picture itself has in the tile's coefficients, also an earlier watermark, and takes it away,
at most as much as the mark's own strength. So the edit of an edit has one payload, the last. The mark is weaker where the
picture is smooth. A reader who does not find a tile at the usual sizes looks for its period in the autocorrelation.

Everything is public and made from SHAKE-256: each copy of careedit reads each mark. A person who knows the method can remove it.

Sources: Cox et al., Secure spread spectrum watermarking for multimedia, IEEE TIP 6(12), 1997; Malvar and Florencio, Improved
spread spectrum, IEEE TSP 51(4), 2003; Alattar and Meyer, Watermark re-synchronization using log-polar mapping of image
autocorrelation, ISCAS 2003 (repeated tiles).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from careedit.errors import ImageError
from careedit.provenance.watermark import PAYLOAD_BYTES, Found

Floats = NDArray[np.float32]

TILE = 128
"""Side of the tile, in pixels."""
BAND = (8, 26)
"""Lowest and highest frequency of the tile, in periods per tile: waves of 16 to 5 pixels."""
CHECK_BYTES = 3
"""Length of the check, in bytes: a reading of noise passes with probability 2^-24."""
ANCHOR_SHARE = 0.25
"""Share of the coefficients that are fixed."""
FLAT, BUSY, MOST = 0.7, 0.1, 2.5
"""Root mean square of the mark where the picture is flat, its growth per level of contrast, and its maximum; in levels of 255."""
ANCHOR_FOUND = 6.5
"""Minimum height of the anchor's correlation, in standard deviations over all positions. Unmarked pictures reach about 5."""
SIDE = 1536
"""Maximum side of the part that is read, in pixels: the middle of a larger picture is enough."""

_MESSAGE = PAYLOAD_BYTES + CHECK_BYTES
_FINER = 2  # positions are searched in steps of half a pixel
_LAGS = (
    (0, 1),
    (1, 0),
    (1, 1),
    (-1, 1),
    (0, 2),
    (2, 0),
    (1, 2),
    (2, 1),
    (-1, 2),
    (-2, 1),
    (2, 2),
    (-2, 2),
    (0, 3),
    (3, 0),
)
_PERIODS = ((0.4, 0.55), (0.53, 0.75), (0.73, 1.02), (0.98, 1.35))  # ranges of periods, in tiles; each has its band


class Spread:
    """The method; see the module."""

    min_side = 3 * TILE
    """Minimum width and height of a picture that is marked, in pixels."""

    def embed(self, picture: Image.Image, payload: bytes) -> Image.Image:
        """The picture with the payload; see `careedit.provenance.watermark.Watermark`."""
        if min(picture.size) < self.min_side:
            raise ImageError(
                f"The picture has {picture.width}x{picture.height} pixels; a watermark needs at least {self.min_side} in width and height."
            )
        code = _code()
        detail, strength = _detail(_brightness(picture))
        host = fft.rfft2(_fold(detail / strength))[code.rows, code.columns]
        host *= np.minimum(1, code.amplitude / np.maximum(np.abs(host), 1e-9))
        tile = code.tile(code.amplitude * code.coefficients(_message(payload)) - host)
        height, width = detail.shape
        strength *= np.tile(tile, (-(-height // TILE), -(-width // TILE)))[:height, :width]
        change = np.rint(strength).astype(np.int16)
        pixels = np.asarray(picture).astype(np.int16)
        pixels += change if pixels.ndim == 2 else change[:, :, None]
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    def detect(self, picture: Image.Image) -> Found | None:
        """The payload of a picture; see `careedit.provenance.watermark.Watermark`."""
        if min(picture.size) < TILE // 2:
            return None
        width, height = (min(side, SIDE) for side in picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        detail, strength = _detail(_brightness(picture.crop((left, top, left + width, top + height))))
        detail /= strength
        for period in _candidates(detail):
            if (found := _read(_at_period(detail, period))) is not None:
                return found
        return None


SPREAD = Spread()
"""The method, for the entry point."""


@dataclass(frozen=True)
class _Code:
    """Which Fourier coefficients of the tile carry what."""

    rows: NDArray[np.intp]
    """Row of each coefficient in the tile's `rfft2`: the anchor's, then group by group."""
    columns: NDArray[np.intp]
    """Column of each coefficient."""
    anchor: NDArray[np.complex64]
    """The fixed coefficients, of magnitude 1."""
    signs: Floats
    """Patterns of the message, (byte, value, sign): signs of the real parts, then of the imaginary parts."""

    @property
    def group(self) -> int:
        """Number of coefficients per byte of the message."""
        return int(self.signs.shape[2]) // 2

    @cached_property
    def amplitude(self) -> float:
        """Magnitude of the coefficients for which a tile has a root mean square of 1."""
        return float(1 / self.tile(self.coefficients(bytes(_MESSAGE))).std())

    def coefficients(self, message: bytes) -> NDArray[np.complex64]:
        """The coefficients of a message, of magnitude 1."""
        signs = self.signs[np.arange(_MESSAGE), list(message)]
        groups = (signs[:, : self.group] + 1j * signs[:, self.group :]) / np.sqrt(2)
        return np.concatenate([self.anchor, groups.ravel()]).astype(np.complex64)

    def tile(self, coefficients: NDArray[np.complex64]) -> Floats:
        """The tile with these coefficients."""
        spectrum = np.zeros((TILE, TILE // 2 + 1), np.complex64)
        spectrum[self.rows, self.columns] = coefficients
        edge = self.columns == 0  # rfft2 has both halves of this column
        spectrum[-self.rows[edge], 0] = np.conj(coefficients[edge])
        tile: Floats = fft.irfft2(spectrum, s=(TILE, TILE))
        return tile


@cache
def _code() -> _Code:
    low, high = BAND
    vertical, horizontal = np.ogrid[:TILE, : TILE // 2 + 1]
    vertical = np.where(vertical > TILE // 2, vertical - TILE, vertical)
    radius = np.hypot(vertical, horizontal)
    rows, columns = np.nonzero((radius >= low) & (radius <= high) & ((horizontal > 0) | (vertical > 0)))
    mixed = np.argsort(np.frombuffer(_noise("order", 4 * len(rows)), ">u4"), kind="stable")
    group = round(len(rows) * (1 - ANCHOR_SHARE)) // _MESSAGE
    count = len(rows) - group * _MESSAGE
    angles = np.frombuffer(_noise("anchor", count), np.uint8) * (2 * np.pi / 256)
    bits = np.unpackbits(np.frombuffer(_noise("signs", _MESSAGE * 256 * 2 * group // 8), np.uint8))
    signs = bits.reshape(_MESSAGE, 256, 2 * group).astype(np.float32) * 2 - 1
    return _Code(rows[mixed], columns[mixed], np.exp(1j * angles).astype(np.complex64), signs)


def _noise(name: str, count: int) -> bytes:
    return hashlib.shake_256(f"careedit watermark spread 1 {name}".encode()).digest(count)


def _message(payload: bytes) -> bytes:
    return payload + hashlib.sha256(b"careedit watermark" + payload).digest()[:CHECK_BYTES]


def _brightness(picture: Image.Image) -> Floats:
    return np.asarray(picture.convert("L"), np.float32)


def _detail(brightness: Floats) -> tuple[Floats, Floats]:
    """Brightness less its local mean, and the strength of the mark at each pixel."""
    detail = brightness - ndimage.uniform_filter(brightness, 17, mode="nearest")
    contrast = ndimage.uniform_filter(np.abs(detail), 9, mode="nearest")
    return detail, np.minimum(FLAT + BUSY * contrast, MOST)


def _fold(picture: Floats) -> Floats:
    """The mean of all tiles of the picture; tiles at its right and lower edge may be incomplete."""
    counted = []
    for axis in (0, 1):
        side = picture.shape[axis]
        starts = np.arange(0, side, TILE)
        whole, rest = divmod(side, TILE)
        counted.append(whole + (np.arange(TILE) < rest))
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, len(starts) * TILE - side)
        padded = np.pad(picture, pad)
        shape = (len(starts), TILE, -1) if axis == 0 else (padded.shape[0], len(starts), TILE)
        picture = padded.reshape(shape).sum(axis=axis)
    mean: Floats = (picture / np.maximum(np.outer(*counted), 1)).astype(np.float32)
    return mean


def _candidates(detail: Floats) -> Iterator[float]:
    """Periods at which the tile may repeat, the likeliest first."""
    yield from (float(TILE), TILE / 2, 2.0 * TILE)
    for period in _periods(detail):
        yield from (period, period - 0.125, period + 0.125)


def _periods(detail: Floats, count: int = 6) -> list[float]:
    """The periods with the highest peaks in the autocorrelation of the whitened picture."""
    height, width = detail.shape
    side = fft.next_fast_len(max(height, width) * 3 // 2, real=True)
    power = np.abs(fft.rfft2(detail, s=(side, side))) ** 2
    power = (
        np.minimum(power / (ndimage.uniform_filter(power, 41, mode="wrap") + 1e-9), 8) - 1
    )  # a tile makes thin lines
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.arange(side // 2 + 1)[None] / side)
    found: list[tuple[float, float]] = []
    for lowest, highest in _PERIODS:
        periods = np.arange(lowest * TILE, highest * TILE, 0.125)
        periods = periods[periods < max(0.6 * min(height, width), TILE / 2)]
        if not periods.size:
            continue
        inside = (radius > BAND[0] / TILE / highest) & (radius < BAND[1] / TILE / lowest)
        heights = _heights(fft.irfft2(power * inside, s=(side, side)), periods, (height, width))
        for _ in range(4):
            best = int(heights.argmax())
            found.append((float(heights[best]), float(periods[best])))
            heights[max(0, best - 12) : best + 13] = -np.inf
    return [period for height_, period in sorted(found, reverse=True)[:count] if np.isfinite(height_)]


def _heights(correlation: Floats, periods: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """How high the autocorrelation is at the multiples of each period, in standard deviations."""
    side = len(correlation)
    sums, weights = np.zeros(len(periods)), np.full(len(periods), 1e-9)
    for down, right in _LAGS:
        y, x = down * periods, right * periods
        shared = np.maximum(size[0] - np.abs(y), 0) * np.maximum(size[1] - x, 0) / (size[0] * size[1])
        shared[(np.abs(y) > side / 2) | (x > side / 2)] = 0
        sums += shared * ndimage.map_coordinates(correlation, [y % side, x % side], order=1, mode="grid-wrap")
        weights += shared**2
    heights: NDArray[np.float64] = sums / np.sqrt(weights) / (correlation.std() + 1e-9)
    return heights


def _at_period(detail: Floats, period: float) -> Floats:
    """The picture scaled so that a tile of `period` pixels has `TILE`."""
    if period == TILE:
        return detail
    height, width = (min(SIDE, int(side * TILE / period)) for side in detail.shape)
    box = (0, 0, width * period / TILE, height * period / TILE)
    return np.asarray(Image.fromarray(detail).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _read(detail: Floats) -> Found | None:
    """The payload of a picture whose tile has `TILE` pixels; None if the anchor or the check is not found."""
    code = _code()
    values = fft.rfft2(_fold(detail))[code.rows, code.columns]
    values *= np.minimum(1, 2 * np.median(np.abs(values)) / np.maximum(np.abs(values), 1e-9))  # textures are not votes
    count, fine = len(code.anchor), TILE * _FINER
    vertical = np.where(code.rows > TILE // 2, code.rows - TILE, code.rows)
    spectrum = np.zeros((fine, fine // 2 + 1), np.complex64)
    spectrum[vertical[:count], code.columns[:count]] = values[:count] * np.conj(code.anchor)
    matches = fft.irfft2(spectrum, s=(fine, fine))
    place = np.unravel_index(matches.argmax(), matches.shape)
    if matches[place] < ANCHOR_FOUND * (np.sqrt(np.mean(matches**2)) + 1e-9):
        return None
    down, right = (int(index) / _FINER for index in place)
    values *= np.exp(2j * np.pi / TILE * (vertical * down + code.columns * right))
    groups = values[count:].reshape(_MESSAGE, code.group)
    parts = np.concatenate([groups.real, groups.imag], axis=1)
    scores = np.einsum("gvs,gs->gv", code.signs, parts) / (np.linalg.norm(parts, axis=1, keepdims=True) + 1e-9)
    message = bytes(scores.argmax(axis=1).astype(np.uint8))
    payload = message[:PAYLOAD_BYTES]
    return Found(payload, _confidence(scores)) if message == _message(payload) else None


def _confidence(scores: NDArray[Any]) -> float:
    """Probability that every byte is the right one, for scores with Gaussian noise of variance 1 and one signal."""
    best = scores.max(axis=1, keepdims=True)
    odds = np.exp((scores - best) * best.mean())
    return float(np.prod(1 / odds.sum(axis=1)))
