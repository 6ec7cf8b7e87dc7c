"""What mask refinement is worth on drawn scenes: coarse boxes as masks, the object's silhouette as the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from careedit.images import boundary_error, refine_mask
from careedit_tiny.world.draw import draw_scene, silhouette
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.samples import SPLITS
from careedit_tiny.world.scene import BACKDROPS, random_scene

BOXES = ("too large", "too small", "shifted")
"""How a box is wrong: 15 to 40 % of the object's side too far out on each side, 10 to 25 % too far in, or moved by 20
to 33 % of the side in one direction."""


@dataclass(frozen=True, slots=True)
class AblationRow:
    """Mean boundary errors of one sort of box on one sort of background, in pixels of a 64 x 64 picture."""

    box: str
    """One of `BOXES`, or "all"."""
    backdrop: str
    """One of `BACKDROPS`, or "all"."""
    n: int
    """Number of masks that were measured."""
    before: float
    """The box as it is."""
    after: float
    """The box refined by `careedit.images.refine_mask`."""
    grow_only: float
    """The refined mask joined with the box: refinement that cannot shrink, as CARE-Edit prints it."""
    improved: float
    """Share of masks that refinement brought nearer to the object."""


def ablate_masks(
    count: int, *, size: int = GEOMETRY.side, done: Callable[[], object] = lambda: None
) -> list[AblationRow]:
    """Measure `count` scenes with one box of each sort; `done` is called after every scene.

    One row per box and background, then per box, then over all.
    """
    errors: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for index in range(count):
        rng = Random(f"refinement:{SPLITS['validation'][index]}")
        scene = random_scene(rng)
        thing = rng.choice(scene.things)
        picture = draw_scene(scene, size)
        truth = silhouette(thing, size).point(lambda value: 255 if value >= 128 else 0)
        for box in BOXES:
            mask = coarse_box(truth, box, rng)
            refined = refine_mask(picture, mask)
            masks = (mask, refined, ImageChops.lighter(mask, refined))
            before, after, grown = (boundary_error(each, truth) * 64 / size for each in masks)
            errors.setdefault((box, scene.backdrop), []).append((before, after, grown))
        done()
    rows = [_row(b, t, errors[b, t]) for b in BOXES for t in BACKDROPS if (b, t) in errors]
    rows += [_row(b, "all", _joined(errors[key] for key in errors if key[0] == b)) for b in BOXES]
    return [*rows, _row("all", "all", _joined(errors.values()))]


def coarse_box(truth: Image.Image, box: str, rng: Random) -> Image.Image:
    """A box ("L", 255 inside) around the object of a mask that is wrong in one of the ways of `BOXES`."""
    left, top, right, bottom = truth.getbbox() or (0, 0, *truth.size)
    width, height = right - left, bottom - top
    if box == "shifted":
        across, down = rng.choice(((-1, 0), (1, 0), (0, -1), (0, 1)))
        by = rng.uniform(0.2, 0.33)
        edges = [left + across * by * width, top + down * by * height]
        edges += [edges[0] + width, edges[1] + height]
    else:
        low, high, sign = (0.15, 0.4, 1) if box == "too large" else (0.1, 0.25, -1)
        out = [sign * rng.uniform(low, high) for _ in range(4)]
        edges = [left - out[0] * width, top - out[1] * height, right + out[2] * width, bottom + out[3] * height]
    x0, y0, x1, y1 = (min(max(round(edge), 0), truth.width) for edge in edges)
    mask = Image.new("L", truth.size, 0)
    ImageDraw.Draw(mask).rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), fill=255)
    return mask


def _joined(lists: Iterable[list[tuple[float, float, float]]]) -> list[tuple[float, float, float]]:
    return [entry for part in lists for entry in part]


def _row(box: str, backdrop: str, errors: list[tuple[float, float, float]]) -> AblationRow:
    before, after, grown = np.array(errors).T
    return AblationRow(
        box=box,
        backdrop=backdrop,
        n=len(errors),
        before=float(before.mean()),
        after=float(after.mean()),
        grow_only=float(grown.mean()),
        improved=float((after < before).mean()),
    )
