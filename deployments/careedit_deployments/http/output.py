"""Results as a client gets them: sizes and token counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from careedit.records import EditTrace
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.output import OutputFormat, inside, same_shape
from careedit_deployments.errors import FieldError
from careedit_deployments.http.schema import EditFields, InputDetails, OutputDetails, Usage

TOKEN_SIDE = 16
"""Pixels of an image token's side: what one token of a FLUX-class transformer covers."""

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
    if config.http.compatibility == "strict" and not same_shape(size, source):
        exact = max(1, round(size[0] * source[1] / source[0]))
        raise FieldError(
            f"size is {fields.size} but the image is {source[0]}x{source[1]}, and this server keeps its proportions "
            f"(http.compatibility is strict); use auto, or {size[0]}x{exact}.",
            "size",
        )
    return size


def size_notes(size: tuple[int, int], source: tuple[int, int]) -> tuple[str, ...]:
    """How a size of other proportions than the source's was filled, if it is one."""
    if same_shape(size, source):
        return ()
    width, height = inside(source, size)
    told = (
        f"size is {size[0]}x{size[1]} and the image {source[0]}x{source[1]}: the edit is {width}x{height} in the middle"
    )
    return (f"{told}, and its edge is repeated around it.",)


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
