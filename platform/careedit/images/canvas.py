"""Panels and canvases: fitting a picture to a panel and back, and panels next to each other with the target last.

docs/images.md states the rules of fitting. Canvases follow ICEdit (arXiv 2504.20690, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from careedit.errors import InputError, MaskError

MAX_REFERENCES = 15
"""Maximum number of references of an edit: OpenAI's 16 images less the source. Most bases take fewer (`Facts.references`)."""

Rule = Literal["letterbox", "resize", "bucket"]
_SHAPES = (1.0, 1.09, 1.18, 1.34, 1.5, 1.75, 1.85, 2.0, 2.33)
"""Long side to short side of the panels of the rule "bucket". Few shapes make large batches and few compiled kernels."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """How one picture is placed on its panel. Sizes are (width, height) in pixels."""

    source: Size
    """Size of the picture, before fitting."""
    panel: Size
    """Size of the panel that it is fitted to."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the picture on the panel; the rest of the panel is bars."""

    def to_panel(self, image: Image.Image) -> Image.Image:
        """`image` (source size) on the panel: scaled with Lanczos, edge pixels repeated into the bars.

        `to_panel_mask` handles a mask (mode "L"). A picture of the panel's size comes back bit for bit.
        """
        if image.mode == "L":
            return self.to_panel_mask(image)
        _check(image, self.source, "source")
        scaled = _resized(image, self._content, Image.Resampling.LANCZOS)
        return scaled if scaled.size == self.panel else Image.fromarray(self._with_bars(np.asarray(scaled)))

    def to_panel_mask(self, mask: Image.Image) -> Image.Image:
        """`mask` ("L", source size) on the panel; a panel pixel is marked if any marked source pixel touches it.

        So even a thin line survives shrinking. Bars repeat the mask's edge, as they repeat the picture's.
        """
        _check(mask, self.source, "mask")
        if self.source == self.panel:
            return mask
        width, height = self._content
        values = _pooled(_pooled(np.asarray(mask.convert("L")), height, 0), width, 1)
        return Image.fromarray(self._with_bars(values))

    def from_panel(self, image: Image.Image) -> Image.Image:
        """A panel back at the source's size: without bars, scaled with Lanczos (a mask, mode "L": nearest)."""
        _check(image, self.panel, "panel")
        content = image if self._content == self.panel else image.crop(self.box)
        kernel = Image.Resampling.NEAREST if image.mode == "L" else Image.Resampling.LANCZOS
        return _resized(content, self.source, kernel)

    @property
    def _content(self) -> Size:
        left, top, right, bottom = self.box
        return right - left, bottom - top

    def _with_bars(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        left, top, right, bottom = self.box
        bars = ((top, self.panel[1] - bottom), (left, self.panel[0] - right), (0, 0))
        return np.pad(values, bars[: values.ndim], mode="edge")


def fit_panel(size: Size, panel: int, rule: Rule, multiple: int) -> Fit:
    """The `Fit` of a picture of `size` (width, height) for panels of side `panel`.

    "letterbox": scaled to fit into a `panel` x `panel` square and centred. "resize": the picture fills a panel of its
    own aspect ratio and an area of about `panel` squared, each side rounded to `multiple` (at least one `multiple`); a
    size that this rounding can produce is its own panel. "bucket": scaled to fit into the most similar of a few shapes of
    an area of about `panel` squared (`_SHAPES`, upright and lying), and centred.
    Raises `InputError` for a size without pixels, or a `panel` that is not a multiple of `multiple`.
    """
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"A picture of {width}x{height} has no pixels; give one of at least 1x1.")
    if multiple < 1 or panel < multiple or panel % multiple:
        raise InputError(f"The panel side {panel} must be a positive multiple of {multiple}.")
    if rule == "letterbox":
        return _letterbox(width, height, (panel, panel))
    if rule == "bucket":
        return _letterbox(width, height, _bucket(width, height, panel, multiple))
    if rule == "resize":
        return _resize(width, height, panel, multiple)
    raise InputError(f"The panel rule {rule!r} does not exist; use 'letterbox', 'resize' or 'bucket'.")


def panel_sizes(panel: int, rule: Rule, multiple: int) -> tuple[Size, ...]:
    """The sizes (width, height) that panels of a rule can have; for "resize", which has any, those of "bucket"."""
    if rule == "letterbox":
        return ((panel, panel),)
    wide = [_bucket(round(1000 * shape), 1000, panel, multiple) for shape in _SHAPES]
    return tuple(dict.fromkeys([*wide, *((height, width) for width, height in wide)]))


def _letterbox(width: int, height: int, panel: Size) -> Fit:
    scale = min(panel[0] / width, panel[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (panel[0] - inner[0]) // 2, (panel[1] - inner[1]) // 2
    return Fit((width, height), panel, (left, top, left + inner[0], top + inner[1]))


def _bucket(width: int, height: int, panel: int, multiple: int) -> Size:
    """The shape of a panel for a picture: of the nearest aspect ratio, in multiples of `multiple`."""
    ratios = [*_SHAPES, *(1 / shape for shape in _SHAPES)]
    ratio = min(ratios, key=lambda one: abs(math.log(one * height / width)))
    sides = (panel * math.sqrt(ratio), panel / math.sqrt(ratio))
    return max(1, round(sides[0] / multiple)) * multiple, max(1, round(sides[1] / multiple)) * multiple


def _resize(width: int, height: int, panel: int, multiple: int) -> Fit:
    scale = panel / math.sqrt(width * height)
    # Rounding moves the area, so a panel's own size would drift to another panel without this slack.
    slack = multiple / 2 * (1 / width + 1 / height)
    if width % multiple or height % multiple or abs(scale - 1) > slack:
        sides = [max(1, round(side * scale / multiple)) * multiple for side in (width, height)]
    else:
        sides = [width, height]
    return Fit((width, height), (sides[0], sides[1]), (0, 0, sides[0], sides[1]))


def _resized(image: Image.Image, size: Size, kernel: Image.Resampling) -> Image.Image:
    # Equal size must mean equal bits, whatever the kernel does.
    return image if image.size == size else image.resize(size, kernel)


def _pooled(values: np.ndarray[Any, Any], count: int, axis: int) -> np.ndarray[Any, Any]:
    """Maximum over all source cells that each of `count` target cells touches, along `axis`."""
    length = values.shape[axis]
    index = np.arange(count)
    starts, ends = index * length // count, -(-(index + 1) * length // count)
    padded = np.concatenate([values, np.zeros_like(values.take([0], axis))], axis)  # `ends` may be `length` itself
    pairs = np.stack([starts, ends], axis=1).ravel()
    return np.maximum.reduceat(padded, pairs, axis).take(2 * index, axis)


def _check(image: Image.Image, size: Size, what: str) -> None:
    if image.size != size:
        raise InputError(
            f"The {what} is {image.width}x{image.height} but this fit was made for {size[0]}x{size[1]}; "
            "make a fit for its size."
        )


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
