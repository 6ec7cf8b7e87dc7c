"""`careedit bench watermark`: what an invisible watermark survives, how visible it is, and what it costs."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from careedit.errors import ImageError, InputError
from careedit.images import decode_image
from careedit.provenance.watermark import PAYLOAD_BYTES, Watermark, method_of

VERSION = 1
"""Version of the document that `bench_watermark` returns."""

Change = Callable[[Image.Image], Image.Image]


def _jpeg(picture: Image.Image, quality: int = 75) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _scaled(picture: Image.Image, share: float) -> Image.Image:
    size = (round(picture.width * share), round(picture.height * share))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image) -> Image.Image:
    """Without a tenth of the width at the left and a tenth of the height at the top."""
    return picture.crop((picture.width // 10, picture.height // 10, picture.width, picture.height))


CHANGES: Mapping[str, Change] = {
    "png": lambda picture: picture,
    "jpeg_75": _jpeg,
    "jpeg_50": lambda picture: _jpeg(picture, 50),
    "half": lambda picture: _scaled(picture, 0.5),
    "half_and_back": lambda picture: _scaled(picture, 0.5).resize(picture.size, Image.Resampling.LANCZOS),
    "crop_tenth": _cropped,
    "crop_tenth_jpeg_75": lambda picture: _jpeg(_cropped(picture)),
    "half_jpeg_75": lambda picture: _jpeg(_scaled(picture, 0.5)),
    "scaled_0.73": lambda picture: _scaled(picture, 0.73),
}
"""What is done to marked pictures, by its name in the document."""


def bench_watermark(
    method: str,
    *,
    sides: Sequence[int] = (512, 1024),
    count: int = 20,
    folder: Path | None = None,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Mark `count` pictures of each side, change them, read them, and read them unmarked. Returns the figures per side.

    The pictures are drawn, or are the first of `folder`, cut to squares. `done` is called after each. Raises `InputError` for a
    folder with fewer pictures, and for a side that is too small for the method.
    """
    watermark = method_of(method)
    if min(sides) < watermark.min_side:
        raise InputError(f"The method {method!r} marks pictures from {watermark.min_side} pixels per side; give more.")
    figures = {}
    for side in sides:
        pictures = drawn_pictures(side, count) if folder is None else _pictures_of(folder, side, count)
        figures[str(side)] = _measure(watermark, pictures, done)
    return {
        "version": VERSION,
        "sides": figures,
        "environment": {
            "method": method,
            "pictures": count,
            "source": "drawn" if folder is None else "folder",
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }


def _measure(watermark: Watermark, pictures: Iterator[Image.Image], done: Callable[[], None]) -> dict[str, Any]:
    found: dict[str, list[bool]] = {name: [] for name in CHANGES}
    unmarked, wrong, noise = [], 0, []
    times: dict[str, list[float]] = {"embed": [], "detect": [], "detect_unmarked": []}

    def timed(name: str, work: Callable[..., Any], picture: Image.Image, *given: Any) -> Any:
        started = time.process_time()
        made = work(picture, *given)
        times[name].append(1e9 * (time.process_time() - started) / (picture.width * picture.height))
        return made

    for i, picture in enumerate(pictures):
        payload = i.to_bytes(PAYLOAD_BYTES, "big")
        marked = timed("embed", watermark.embed, picture, payload)
        noise.append(psnr(picture, marked))
        for name, change in CHANGES.items():
            read = watermark.detect(change(marked))
            found[name].append(read is not None and read.payload == payload)
            wrong += read is not None and read.payload != payload
        timed("detect", watermark.detect, marked)
        unmarked.append(timed("detect_unmarked", watermark.detect, picture) is not None)
        done()
    return {
        "found": {name: sum(one) / len(one) for name, one in found.items()},
        "wrong": wrong,
        "unmarked_found": sum(unmarked),
        "psnr_db": {"median": median(noise), "worst": min(noise)},
        "cpu_ms_per_megapixel": {name: median(one) for name, one in times.items()},
    }


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures, in dB; 100 for equal ones."""
    error = np.mean((np.asarray(one, np.float32) - np.asarray(other, np.float32)) ** 2)
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def drawn_pictures(side: int, count: int) -> Iterator[Image.Image]:
    """Pictures with the statistics of photos: overlapping discs of power-law sizes ("dead leaves"), textures, gradients, grain.

    Source: Lee, Mumford and Huang, Occlusion models for natural images, IJCV 41, 2001.
    """
    for seed in range(count):
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:side, :side] / side
        canvas = (
            random.uniform(40, 220, 3) + (rows * random.uniform(-60, 60) + columns * random.uniform(-60, 60))[..., None]
        )
        texture = _texture(random, side)
        for radius in sorted(0.02 / np.sqrt(random.uniform(0.002, 1, 150)), reverse=True):
            row, column = random.uniform(0, 1, 2)
            box = tuple(slice(max(0, int((at - radius) * side)), int((at + radius) * side) + 2) for at in (row, column))
            inside = (rows[box] - row) ** 2 + (columns[box] - column) ** 2 < radius**2
            shifted = np.roll(texture, random.integers(0, side, 2), (0, 1))[box][inside]
            colour, contrast = random.uniform(0, 255, 3), random.uniform(0, 25)
            canvas[box][inside] = colour + contrast * shifted[:, None]
        canvas += random.normal(0, 1.5, canvas.shape)
        yield Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _texture(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Noise whose amplitude falls with frequency, as in photos, with mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    noise: NDArray[np.float64] = fft.irfft2(fft.rfft2(random.normal(size=(side, side))) / frequency, s=(side, side))
    noise /= noise.std()
    return noise


def _pictures_of(folder: Path, side: int, count: int) -> Iterator[Image.Image]:
    if not folder.is_dir():
        raise InputError(f"The folder {str(folder)!r} does not exist; name a folder of pictures.")
    made = 0
    for path in sorted(folder.iterdir()):
        try:
            picture = decode_image(path)
        except ImageError:
            continue  # not a picture
        edge = min(picture.size)
        left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
        yield picture.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge))
        made += 1
        if made == count:
            return
    raise InputError(f"The folder {str(folder)!r} has {made} pictures; give at least {count}, or a smaller --count.")
