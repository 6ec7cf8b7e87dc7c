"""Results as a client gets them: files, sizes, token counts."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from careedit.records import EditTrace
from careedit_deployments.http.errors import FieldError
from careedit_deployments.http.schema import InputDetails, OutputDetails, OutputFormat, Usage

TOKEN_SIDE = 16
"""Pixels of an image token's side: what one token of a FLUX-class transformer covers."""

_TOLERANCE = 1.0
_WORDS = re.compile(r"\w+|[^\w\s]")


def target_size(asked: str, source: tuple[int, int], most_pixels: int) -> tuple[int, int]:
    """The size (width, height) of the results: the source's, or the one that is asked for if its proportions are the same.

    An edit keeps what it does not change, so it neither crops nor stretches. Raises `FieldError`.
    """
    if asked == "auto":
        return source
    width, height = (int(side) for side in asked.split("x"))
    if width * height > most_pixels:
        raise FieldError(
            f"size is {asked} = {width * height:,} pixels; the limit is {most_pixels:,}, so ask for less.", "size"
        )
    # Within a pixel of rounding on either side.
    exact = width * source[1] / source[0]
    if abs(exact - height) > _TOLERANCE and abs(height * source[0] / source[1] - width) > _TOLERANCE:
        raise FieldError(
            f"size is {asked} but the image is {source[0]}x{source[1]}, and an edit keeps its proportions; "
            f"use auto, or {width}x{max(1, round(exact))}.",
            "size",
        )
    return width, height


def encode(picture: Image.Image, size: tuple[int, int], kind: OutputFormat, compression: int | None) -> bytes:
    """The file of a picture, scaled to `size` where it has another one, without metadata."""
    if picture.size != size:
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
