"""Results as a client gets them: files, sizes, token counts."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from careedit.records import EditTrace
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import FieldError
from careedit_deployments.http.schema import EditFields, InputDetails, OutputDetails, OutputFormat, Usage

TOKEN_SIDE = 16
"""Pixels of an image token's side: what one token of a FLUX-class transformer covers."""

_TOLERANCE = 1.0
_MOST_SIDE: Mapping[OutputFormat, int] = {"jpeg": 65_500, "webp": 16_383}
_WORDS = re.compile(r"\w+|[^\w\s]")


def target_size(fields: EditFields, source: tuple[int, int], config: ServeConfig) -> tuple[int, int]:
    """The size (width, height) of the results: the source's, or the one that is asked for.

    Other proportions than the source's are filled as `encode` says, or refused where `http.compatibility` is strict.
    Raises `FieldError`.
    """
    if fields.size == "auto":
        size = source
    else:
        width, height = (int(side) for side in fields.size.split("x"))
        size = (width, height)
        if width * height > config.limits.pixels:
            raise FieldError(
                f"size is {fields.size} = {width * height:,} pixels; the limit is {config.limits.pixels:,}, so ask for less.",
                "size",
            )
    most = _MOST_SIDE.get(fields.output_format)
    if most is not None and max(size) > most:
        raise FieldError(
            f"The result would be {size[0]}x{size[1]}; a side of a {fields.output_format} has at most {most:,} pixels. Ask for a "
            "smaller size, or for png.",
            "size",
        )
    if config.http.compatibility == "strict" and not _same_shape(size, source):
        exact = max(1, round(size[0] * source[1] / source[0]))
        raise FieldError(
            f"size is {fields.size} but the image is {source[0]}x{source[1]}, and this server keeps its proportions "
            f"(http.compatibility is strict); use auto, or {size[0]}x{exact}.",
            "size",
        )
    return size


def size_notes(size: tuple[int, int], source: tuple[int, int]) -> tuple[str, ...]:
    """How a size of other proportions than the source's was filled, if it is one."""
    if _same_shape(size, source):
        return ()
    width, height = _inside(source, size)
    told = (
        f"size is {size[0]}x{size[1]} and the image {source[0]}x{source[1]}: the edit is {width}x{height} in the middle"
    )
    return (f"{told}, and its edge is repeated around it.",)


def _same_shape(size: tuple[int, int], source: tuple[int, int]) -> bool:
    """Whether the proportions are the same, within a pixel of rounding on either side."""
    exact = (size[1] * source[0] / source[1], size[0] * source[1] / source[0])
    return abs(exact[0] - size[0]) <= _TOLERANCE or abs(exact[1] - size[1]) <= _TOLERANCE


def _inside(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the source's proportions that `size` has room for."""
    scale = min(size[0] / source[0], size[1] / source[1])
    return max(1, min(size[0], round(source[0] * scale))), max(1, min(size[1], round(source[1] * scale)))


def _fill(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in the middle of `size`, as large as it fits, and its edge repeated around it."""
    width, height = _inside(picture.size, size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    fitted = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    margins = ((top, size[1] - height - top), (left, size[0] - width - left), (0, 0))
    return Image.fromarray(np.pad(fitted, margins, mode="edge"))


def encode(picture: Image.Image, size: tuple[int, int], kind: OutputFormat, compression: int | None) -> bytes:
    """The file of a picture, without metadata, scaled to `size` where it has another one.

    Nothing is cropped or stretched: where the proportions differ, the picture is scaled to fit, stands in the middle, and its
    outermost pixels are repeated up to the margins' ends.
    """
    if picture.size != size and not _same_shape(size, picture.size):
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


def usage_of(traces: Sequence[EditTrace], prompt: str, references: int) -> Usage:
    """Tokens of the pictures and words that went in and of the panels that came out."""
    width, height = traces[0].panel
    panel = -(-width // TOKEN_SIDE) * -(-height // TOKEN_SIDE)
    details = InputDetails(image_tokens=panel * (1 + references), text_tokens=len(_WORDS.findall(prompt)))
    entered = details.image_tokens + details.text_tokens
    left = panel * len(traces)
    return Usage(
        input_tokens=entered,
        input_tokens_details=details,
        output_tokens=left,
        output_tokens_details=OutputDetails(image_tokens=left),
        total_tokens=entered + left,
    )
