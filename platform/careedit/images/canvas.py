"""In-context canvases: panels side by side, the target last (ICEdit, arXiv 2504.20690, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from careedit.errors import InputError, MaskError

MAX_REFERENCES = 1
"""References that a canvas has room for; every base here was trained on `[source | target]` and `[reference | source | target]`."""


def compose_canvas(panels: Sequence[Image.Image]) -> Image.Image:
    """`[source | target]` or `[reference | source | target]`: panels of one size, left to right, as one RGB picture."""
    if len({panel.size for panel in panels}) != 1:
        sizes = ", ".join(f"{panel.width}x{panel.height}" for panel in panels)
        raise InputError(f"The panels of a canvas must have one size, not {sizes or 'none at all'}.")
    width, height = panels[0].size
    canvas = Image.new("RGB", (width * len(panels), height))
    for index, panel in enumerate(panels):
        canvas.paste(panel, (index * width, 0))
    return canvas


def canvas_mask(n_panels: int, size: tuple[int, int], mask: Image.Image | None = None) -> Image.Image:
    """The "L" mask of a canvas of `n_panels` panels of `size` (width, height): 0 = given, 255 = to be filled in.

    Only the last panel is marked: all of it, or where `mask` (of one panel's size) is. Raises `MaskError` if `mask` has
    another size.
    """
    width, height = size
    if mask is not None and mask.size != size:
        raise MaskError(f"The mask is {mask.width}x{mask.height} but a panel is {width}x{height}; fit it first.")
    marked = Image.new("L", (width * n_panels, height))
    left = width * (n_panels - 1)
    if mask is None:
        marked.paste(255, (left, 0, left + width, height))
    else:
        marked.paste(mask.convert("L"), (left, 0))
    return marked


def crop_target(canvas: Image.Image, n_panels: int) -> Image.Image:
    """The last of `n_panels` panels."""
    if n_panels < 1 or canvas.width % n_panels:
        raise InputError(f"A canvas {canvas.width} pixels wide cannot hold {n_panels} panels of one width.")
    width = canvas.width // n_panels
    return canvas.crop((canvas.width - width, 0, canvas.width, canvas.height))
