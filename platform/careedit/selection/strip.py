"""The previews of an early filter as one picture: the source, then every candidate with its score, the chosen one framed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from careedit.errors import InputError
from careedit.records import FilterTrace

SIDE = 160
"""Longest side of a picture in the strip, in pixels."""
GAP, LINE = 8, 16
"""Space between pictures, and height of a line of text, in pixels."""
PAPER, INK, CHOSEN = "#ffffff", "#1c1e21", "#17803d"


def preview_strip(source: Image.Image, trace: FilterTrace, previews: Sequence[Image.Image]) -> Image.Image:
    """An RGB picture of `source` and each candidate's last preview, in the trace's order.

    Raises `InputError` unless there is one preview per candidate.
    """
    if len(previews) != len(trace.candidates):
        raise InputError(f"The filter tried {len(trace.candidates)} seeds and there are {len(previews)} previews.")
    captions = [("source", "", "")]
    for i, one in enumerate(trace.candidates):
        verdict = "not scored" if one.score is None else f"score {one.score:.3f}"
        after = f"{one.steps} step{'' if one.steps == 1 else 's'}{', chosen' if i == trace.chosen else ''}"
        captions.append((f"seed {one.seed}", verdict, after))
    # Previews come at the panel's scale, so the source is brought to it.
    tiles = [_scaled(picture) for picture in (source.resize(previews[0].size, Image.Resampling.LANCZOS), *previews)]
    font = ImageFont.load_default(12)
    widths = [
        max(tile.width, *(int(font.getlength(line)) for line in lines))
        for tile, lines in zip(tiles, captions, strict=True)
    ]
    height = max(tile.height for tile in tiles)
    strip = Image.new("RGB", (GAP + sum(width + GAP for width in widths), height + 3 * LINE + 3 * GAP), PAPER)
    pen, left = ImageDraw.Draw(strip), GAP
    for i, (tile, lines, width) in enumerate(zip(tiles, captions, widths, strict=True)):
        strip.paste(tile, (left, GAP))
        colour = CHOSEN if i - 1 == trace.chosen else INK
        if i - 1 == trace.chosen:
            pen.rectangle((left - 3, GAP - 3, left + tile.width + 2, GAP + tile.height + 2), outline=CHOSEN, width=3)
        for row, line in enumerate(lines):
            pen.text((left, height + 2 * GAP + row * LINE), line, fill=colour, font=font)
        left += width + GAP
    return strip


def _scaled(picture: Image.Image) -> Image.Image:
    """Small pictures grow by a whole factor, so that their pixels stay pixels; large ones shrink."""
    longest = max(picture.size)
    if longest > SIDE:
        size = (max(1, round(picture.width * SIDE / longest)), max(1, round(picture.height * SIDE / longest)))
        return picture.resize(size, Image.Resampling.LANCZOS)
    factor = SIDE // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
