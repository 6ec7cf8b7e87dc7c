"""The file of a result: its format, size and quality."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

import numpy as np
from PIL import Image

OutputFormat = Literal["png", "jpeg", "webp"]
Quality = Literal["low", "medium", "high", "auto"]

_TOLERANCE = 1.0


def encode(picture: Image.Image, size: tuple[int, int], kind: OutputFormat, compression: int | None) -> bytes:
    """The file of a picture, without metadata, scaled to `size` where it has another one.

    Nothing is cropped or stretched: where the proportions differ, the picture is scaled to fit, stands in the middle, and its
    outermost pixels are repeated up to the margins' ends.
    """
    if picture.size != size and not same_shape(size, picture.size):
        picture = _fill(picture, size)
    elif picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if picture.info:
        picture = picture.copy()
        picture.info = {}
    options: dict[str, Any] = {}
    if kind == "jpeg":
        options = {"quality": 95 if compression is None else compression, "subsampling": 0}
    elif kind == "webp":
        options = {"lossless": True} if compression is None else {"quality": compression}
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def encode_base64(picture: Image.Image, size: tuple[int, int], kind: OutputFormat, compression: int | None) -> str:
    """`encode`, as text for JSON."""
    return base64.b64encode(encode(picture, size, kind, compression)).decode("ascii")


def same_shape(size: tuple[int, int], source: tuple[int, int]) -> bool:
    """Whether the proportions are the same, within a pixel of rounding on either side."""
    exact = (size[1] * source[0] / source[1], size[0] * source[1] / source[0])
    return abs(exact[0] - size[0]) <= _TOLERANCE or abs(exact[1] - size[1]) <= _TOLERANCE


def inside(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the source's proportions that `size` has room for."""
    scale = min(size[0] / source[0], size[1] / source[1])
    return max(1, min(size[0], round(source[0] * scale))), max(1, min(size[1], round(source[1] * scale)))


def _fill(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in the middle of `size`, as large as it fits, and its edge repeated around it."""
    width, height = inside(picture.size, size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    fitted = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    margins = ((top, size[1] - height - top), (left, size[0] - width - left), (0, 0))
    return Image.fromarray(np.pad(fitted, margins, mode="edge"))
