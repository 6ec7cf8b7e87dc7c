"""Rivals of a truth: the drawings one slip away from it, e.g. the right object in the wrong colour.

Only what an edit changes has rivals; everything else is compared pixel by pixel. A rival is drawn only in the cell in
which it differs, because the oracle compares thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from careedit_tiny.world.draw import draw_ground, draw_scene, draw_window, silhouette
from careedit_tiny.world.looks import apply_look
from careedit_tiny.world.scene import (
    BACKDROPS,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    LOOKS,
    MOODS,
    SHAPES,
    SIZES,
    TEXTURES,
    TURNING,
    Scene,
    Thing,
)

Pixels = NDArray[Any]
"""[height, width, 3], floating point, a full scale being 1."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A drawing that is not the truth."""

    name: str
    """What is different, for example "colour red"."""
    rows: slice
    """Rows in which the drawing differs from the truth."""
    columns: slice
    """Columns in which the drawing differs from the truth."""
    difference: Pixels
    """Rival minus truth, in that window."""
    shade: Pixels | None = None
    """A difference that does not count for the rival: a texture is its pattern, not its shade. Default: none."""
    faint: bool = False
    """Whether it is fine detail that the edit does not concern: a moved object's pattern may fade. Default: no."""


def rivals(source: Scene, target: Scene, side: int) -> Iterator[Rival]:
    """The rivals of `target` as an edit of `source`, at `side` x `side` pixels."""
    if target.look != source.look:
        yield from _looks(source, target, side)
        return
    if target.look is not None:
        return  # objects under a look have no drawings of their own
    if (target.background, target.backdrop) != (source.background, source.backdrop):
        yield from _backgrounds(target, side)
    for thing in target.things:
        if thing not in source.things:
            yield from _things(source, target, thing, side)


def cell_window(cell: int, side: int) -> tuple[slice, slice]:
    """Rows and columns of a cell; together the nine cover the picture."""
    row, column = divmod(cell, 3)
    return slice(row * side // 3, (row + 1) * side // 3), slice(column * side // 3, (column + 1) * side // 3)


def slips(thing: Thing) -> Iterator[tuple[str, Thing]]:
    """Every thing that differs from `thing` in one property, with what is different in words."""
    for shape in SHAPES:
        if shape != thing.shape:
            poses: tuple[str, ...] = DIRECTIONS if shape in TURNING else MOODS if shape == "face" else ("up",)
            yield f"shape {shape}", replace(thing, shape=shape, pose=thing.pose if thing.pose in poses else poses[0])
    for colour in COLOURS:
        if colour != thing.colour:
            yield f"colour {colour}", replace(thing, colour=colour)
    for size in SIZES:
        if size != thing.size:
            yield f"size {size}", replace(thing, size=size)
    for texture in TEXTURES:
        if texture != thing.texture:
            yield f"texture {texture}", replace(thing, texture=texture)
    for pose in DIRECTIONS if thing.shape in TURNING else MOODS if thing.shape == "face" else ():
        if pose != thing.pose:
            yield f"pose {pose}", replace(thing, pose=pose)


def _things(source: Scene, target: Scene, thing: Thing, side: int) -> Iterator[Rival]:
    rows, columns = cell_window(thing.cell, side)

    def drawn(what: Thing | None) -> Pixels:
        return draw_window(target, what, rows, columns, side) / 255

    truth = drawn(thing)
    yield Rival(f"no {thing.name}", rows, columns, drawn(None) - truth)
    before = [old.texture for old in source.things if old.cell == thing.cell and old.shape == thing.shape]
    retextured = any(texture != thing.texture for texture in before)
    for name, other in slips(thing):
        difference = drawn(other) - truth
        shade, pattern = None, name.startswith("texture ")
        if pattern:
            share = np.asarray(silhouette(thing, side), np.float32)[rows, columns, None] / 255
            shade = share * difference.sum(axis=(0, 1))
        yield Rival(name, rows, columns, difference, shade, faint=pattern and not retextured)


def _backgrounds(target: Scene, side: int) -> Iterator[Rival]:
    everywhere = slice(0, side)
    covered = np.zeros((side, side, 1), np.float32)
    for thing in target.things:
        covered = np.maximum(covered, np.asarray(silhouette(thing, side), np.float32)[..., None] / 255)

    def drawn(background: str, backdrop: str) -> Pixels:
        return draw_ground(background, backdrop, side) / 255

    truth = drawn(target.background, target.backdrop)
    for background in BACKGROUNDS:
        if background != target.background:
            difference = (drawn(background, target.backdrop) - truth) * (1 - covered)
            yield Rival(f"background {background}", everywhere, everywhere, difference)
    for backdrop in BACKDROPS:
        if backdrop != target.backdrop:
            difference = (drawn(target.background, backdrop) - truth) * (1 - covered)
            yield Rival(f"background {backdrop}", everywhere, everywhere, difference)


def _looks(source: Scene, target: Scene, side: int) -> Iterator[Rival]:
    everywhere = slice(0, side)
    plain = draw_scene(source, side)
    before = np.asarray(plain, np.float32) / 255
    truth = np.asarray(draw_scene(target, side), np.float32) / 255
    kept = np.zeros((side, side, 1), np.bool_)
    if target.keep is not None:
        kept = np.asarray(silhouette(target.things[target.keep], side))[..., None] > 0
    for look in LOOKS:
        if look != target.look:
            styled = np.asarray(apply_look(plain, look), np.float32) / 255
            yield Rival(f"look {look}", everywhere, everywhere, np.where(kept, before, styled) - truth)
    for index, thing in enumerate(target.things):
        covered = np.asarray(silhouette(thing, side))[..., None] > 0
        if index != target.keep:
            yield Rival(f"unstyled {thing.name}", everywhere, everywhere, np.where(covered, before - truth, 0))
        elif target.look is not None:
            styled = np.asarray(apply_look(plain, target.look), np.float32) / 255
            yield Rival(f"styled {thing.name}", everywhere, everywhere, np.where(covered, styled - truth, 0))
