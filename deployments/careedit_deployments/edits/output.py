"""How the results of an edit look: size, file format and quality, and the files themselves."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from careedit.files import png_bytes
from careedit.provenance import xmp_options
from careedit.provenance.watermark import Mark
from careedit.record import Record

OutputFormat = Literal["png", "jpeg", "webp"]
Quality = Literal["low", "medium", "high", "auto"]

_TOLERANCE = 1.0


class Output(Record):
    """How the results of one edit look; stored with a job."""

    size: tuple[int, int]
    """Width and height of the results, in pixels."""
    format: OutputFormat = "png"
    """File format of the results; default png."""
    compression: int | None = None
    """Quality of a JPEG or WebP file, 0 to 100. None: 95 for JPEG, lossless for WebP."""
    quality: Quality = "auto"
    """The requested quality, which the response repeats; default auto."""
    notes: Annotated[tuple[str, ...], Field(exclude_if=lambda notes: not notes)] = ()
    """Sentences about fields without effect and about a filled size. Not stored if empty, so that older replicas can
    read the record."""


def encode(
    picture: Image.Image, output: Output | None, *, marked: bool = False, watermark: Mark | None = None
) -> bytes:
    """The file of a picture, scaled to `output.size` if it has another size, without metadata.

    `marked` adds the XMP mark of a trained model. `watermark` is put into the pixels last. Nothing is cropped or stretched. If the proportions differ, the picture is scaled to fit and centered, and its outermost
    pixels are repeated to fill the margins. None: a PNG with little compression, to store; speed matters more than bytes.
    """
    if output is None:
        picture = picture if watermark is None else watermark.embed(picture)
        return png_bytes(picture, compress_level=1, **(xmp_options("PNG") if marked else {}))
    size = output.size
    if picture.size != size and not same_shape(size, picture.size):
        picture = _fill(picture, size)
    elif picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if watermark is not None:
        picture = watermark.embed(picture)
    if picture.info:
        picture = picture.copy()
        picture.info = {}
    options: dict[str, Any] = {}
    if output.format == "jpeg":
        options = {"quality": 95 if output.compression is None else output.compression, "subsampling": 0}
    elif output.format == "webp":
        options = {"lossless": True} if output.compression is None else {"quality": output.compression}
    if marked:
        options |= xmp_options(output.format.upper())
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, output.format.upper(), **options)
    return buffer.getvalue()


def same_shape(size: tuple[int, int], source: tuple[int, int]) -> bool:
    """Whether the proportions are the same, within a pixel of rounding on either side."""
    exact = (size[1] * source[0] / source[1], size[0] * source[1] / source[0])
    return abs(exact[0] - size[0]) <= _TOLERANCE or abs(exact[1] - size[1]) <= _TOLERANCE


def inside(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the proportions of the source that fits into `size`."""
    scale = min(size[0] / source[0], size[1] / source[1])
    return max(1, min(size[0], round(source[0] * scale))), max(1, min(size[1], round(source[1] * scale)))


def _fill(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture centered in `size`, as large as fits, with its edge repeated around it."""
    width, height = inside(picture.size, size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    fitted = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    margins = ((top, size[1] - height - top), (left, size[0] - width - left), (0, 0))
    return Image.fromarray(np.pad(fitted, margins, mode="edge"))
