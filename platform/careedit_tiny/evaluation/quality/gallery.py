"""One image of many edits, for a README: each scene with its source, the results of some rows, and the right result."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from careedit.errors import InputError
from careedit.selection.strip import CHOSEN as RIGHT
from careedit.selection.strip import GAP, INK, LINE, PAPER
from careedit_tiny.evaluation.quality.page import NAMES, GalleryRow

SIDE, ACROSS = 96, 2
"""The side of an image in pixels, and the number of scenes per line."""


def draw_gallery(scenes: Sequence[GalleryRow], rows: Sequence[str]) -> Image.Image:
    """Draw an RGB image of `scenes`. `rows` are the captions of the edits to show, if a scene has them. Right edits have a frame.

    Raises `InputError` if `scenes` is empty.
    """
    if not scenes:
        raise InputError("There are no scenes to draw; measure at least one.")
    wanted = ("source", *rows, "truth")
    present = [name for name in wanted if any(name == one.caption for scene in scenes for one in scene.pictures)]
    font = ImageFont.load_default(12)
    block = (GAP + len(present) * (SIDE + GAP), LINE + SIDE + 2 * GAP)
    lines = -(-len(scenes) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * block[0] + GAP, LINE + GAP + lines * block[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column in range(ACROSS):
        for i, name in enumerate(present):
            pen.text((column * block[0] + GAP + i * (SIDE + GAP), GAP), _short(name), fill=INK, font=font)
    for index, scene in enumerate(scenes):
        left, top = (index % ACROSS) * block[0] + GAP, LINE + GAP + (index // ACROSS) * block[1]
        pen.text((left, top), _fitting(scene.instruction, font, block[0] - 2 * GAP), fill=INK, font=font)
        found = {one.caption: one for one in scene.pictures}
        for i, name in enumerate(present):
            one = found.get(name)
            if one is None:
                continue
            place = (left + i * (SIDE + GAP), top + LINE)
            sheet.paste(one.image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), place)
            if one.right:
                corner = (place[0] + SIDE + 1, place[1] + SIDE + 1)
                pen.rectangle((place[0] - 2, place[1] - 2, *corner), outline=RIGHT, width=2)
    return sheet


def _short(name: str) -> str:
    """A row's name without the part that the heading makes clear."""
    return NAMES.get(name, name).split(",")[0].removesuffix(" alone")


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, shortened at its end to at most `width` pixels."""
    shown = text
    while font.getlength(shown) > width:
        shown = f"{shown.removesuffix('...')[:-1]}..."
    return shown
