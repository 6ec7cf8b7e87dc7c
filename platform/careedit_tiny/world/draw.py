"""Drawing scenes: anti-aliased, deterministic, at any square size.

An object is a tile with soft edges, which is drawn once and then put into every scene that has the object.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from careedit_tiny.world import first_draw
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.looks import apply_look
from careedit_tiny.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, RGB, SIZES, Scene, Thing

SUPERSAMPLING = 6
"""Drawn at this multiple of the size and reduced by averaging: Pillow's shapes have hard edges. A stripe is 32 pixels then."""

Pixels = NDArray[np.float32]
"""[height, width, channels], values from 0 to 255."""


def silhouette(thing: Thing, size: int = GEOMETRY.side) -> Image.Image:
    """Where the thing is: an anti-aliased "L" picture, 255 inside."""
    if GEOMETRY.edition == 1:
        return first_draw.silhouette(thing, size)
    rows, columns, tile = _tile_in_place(thing, size)
    covered = np.zeros((size, size), np.uint8)
    covered[rows, columns] = np.round(tile[..., 3] * 255)
    return Image.fromarray(covered)


def draw_scene(scene: Scene, size: int = GEOMETRY.side) -> Image.Image:
    """The scene's picture, RGB, `size` x `size` pixels (multiples of the native side keep its textures regular)."""
    if GEOMETRY.edition == 1:
        return first_draw.draw_scene(scene, size)
    pixels = _ground(scene.background, scene.backdrop, size).copy()
    for thing in scene.things:
        rows, columns, tile = _tile_in_place(thing, size)
        pixels[rows, columns] *= 1 - tile[..., 3:]
        pixels[rows, columns] += tile[..., :3]
    image = Image.fromarray(np.round(pixels).astype(np.uint8))
    if scene.look is None:
        return image
    styled = apply_look(image, scene.look)
    if scene.keep is not None:
        # The whole silhouette is kept, its soft border included: a kept object is kept to the last pixel.
        covered = silhouette(scene.things[scene.keep], size).point(lambda value: 255 if value else 0)
        styled.paste(image, (0, 0), covered)
    return styled


def draw_ground(background: str, backdrop: str, size: int) -> Pixels:
    """A background without objects; the caller must not change it."""
    return (
        first_draw.draw_ground(background, backdrop, size)
        if GEOMETRY.edition == 1
        else _ground(background, backdrop, size)
    )


def draw_window(scene: Scene, thing: Thing | None, rows: slice, columns: slice, size: int) -> Pixels:
    """A window of the scene's background with one object or none."""
    if GEOMETRY.edition == 1:
        return first_draw.draw_window(scene, thing, rows, columns, size)
    pixels = _ground(scene.background, scene.backdrop, size)
    if thing is not None:
        pixels = pixels.copy()
        across, down, tile = _tile_in_place(thing, size)
        pixels[across, down] *= 1 - tile[..., 3:]
        pixels[across, down] += tile[..., :3]
    return pixels[rows, columns]


def changed_region(before: Image.Image, after: Image.Image, threshold: int = 10) -> Image.Image:
    """255 where any channel differs by more than `threshold` of 255: an "L" picture of the same size."""
    difference = np.asarray(ImageChops.difference(before, after)).max(axis=2)
    return Image.fromarray(((difference > threshold) * 255).astype(np.uint8))


def _shade(colour: RGB, factor: float = 0.58) -> RGB:
    """The second colour of a texture: darker, or lighter where the colour is already dark."""
    if sum(colour) < 150:
        return (colour[0] + 110, colour[1] + 110, colour[2] + 110)
    return (round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor))


def _textured(canvas: int, colour: RGB, texture: str, periods: int) -> Image.Image:
    """A square of `canvas` pixels with a texture that repeats `periods` times along its side."""
    image = Image.new("RGB", (canvas, canvas), colour)
    draw, second, period = ImageDraw.Draw(image), _shade(colour), canvas / periods
    if texture == "striped":
        for i in range(periods):
            draw.rectangle((0, round(i * period), canvas, round((i + 0.5) * period) - 1), fill=second)
    elif texture == "dotted":
        radius = period * 0.27
        for i in range(periods):
            for j in range(periods):
                x, y = (i + 0.5) * period, (j + 0.5) * period
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
    elif texture == "checkered":
        for i in range(2 * periods):
            for j in range(i % 2, 2 * periods, 2):
                box = (i * period / 2, j * period / 2, (i + 1) * period / 2 - 1, (j + 1) * period / 2 - 1)
                draw.rectangle(box, fill=second)
    return image


def _reduced(image: Image.Image, size: int) -> Pixels:
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32)


@lru_cache(maxsize=128)
def _ground(background: str, backdrop: str, size: int) -> Pixels:
    """[size, size, 3]; the caller must not change it."""
    return _reduced(_textured(size * SUPERSAMPLING, BACKGROUNDS[background], backdrop, GEOMETRY.ground_periods), size)


def _tile_in_place(thing: Thing, size: int) -> tuple[slice, slice, Pixels]:
    """Rows and columns of the picture, and the tile for them: colour times coverage, and coverage from 0 to 1."""
    if size % 3 or thing.dx or thing.dy:
        tile = _tile(thing, size)
        return slice(0, size), slice(0, size), tile
    cell, (row, column) = size // 3, divmod(thing.cell, 3)
    tile = _cell_tile(thing.shape, thing.colour, thing.size, thing.texture, thing.pose, cell)
    return slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell), tile


@lru_cache(maxsize=8192)
def _cell_tile(shape: str, colour: str, size: str, texture: str, pose: str, cell: int) -> Pixels:
    """The tile of a thing at the centre of a cell of `cell` pixels; the caller must not change it."""
    canvas = cell * SUPERSAMPLING
    place = _Place(canvas / 2, canvas / 2, SIZES[size] * 3 * canvas / 2)
    return _drawn(Thing(shape, colour, 0, size, texture, pose), canvas, GEOMETRY.object_periods // 3, place)


@lru_cache(maxsize=16)
def _tile(thing: Thing, size: int) -> Pixels:
    """The tile of a thing anywhere, as large as the picture; the caller must not change it."""
    canvas = size * SUPERSAMPLING
    x, y = (thing.cell % 3 + 0.5) / 3 + thing.dx, (thing.cell // 3 + 0.5) / 3 + thing.dy
    place = _Place(x * canvas, y * canvas, SIZES[thing.size] * canvas / 2)
    return _drawn(thing, canvas, GEOMETRY.object_periods, place)


class _Place(NamedTuple):
    """Where an object is on a canvas, in pixels."""

    x: float
    y: float
    radius: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the unit square [-1, 1]^2 on the canvas."""
        return self.x + x * self.radius, self.y + y * self.radius

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """A box of the unit square on the canvas."""
        return (*self.at(left, top), *self.at(right, bottom))


def _drawn(thing: Thing, canvas: int, periods: int, place: _Place) -> Pixels:
    surface = _textured(canvas, COLOURS[thing.colour], thing.texture, periods)
    _details(thing, surface, place)
    covered = _silhouette(thing, canvas, place)
    size = canvas // SUPERSAMPLING
    colour = _reduced(Image.composite(surface, Image.new("RGB", (canvas, canvas)), covered), size)
    return np.concatenate([colour, _reduced(covered, size)[..., None] / 255], axis=2)


def _silhouette(thing: Thing, canvas: int, place: _Place) -> Image.Image:
    """White where the thing is, on a black "L" picture of `canvas` pixels."""
    mask = Image.new("L", (canvas, canvas), 0)
    draw, box = ImageDraw.Draw(mask), place.box(-1, -1, 1, 1)
    if thing.shape in ("circle", "face", "ring"):
        draw.ellipse(box, fill=255)
        if thing.shape == "ring":
            draw.ellipse(place.box(-0.5, -0.5, 0.5, 0.5), fill=0)
    elif thing.shape == "logo":
        draw.rounded_rectangle(box, radius=place.radius * 0.45, fill=255)
    else:
        direction = thing.pose if thing.pose in DIRECTIONS else "up"
        draw.polygon([place.at(x, y) for x, y in _turned(_polygon(thing.shape), direction)], fill=255)
    return mask


def _details(thing: Thing, image: Image.Image, place: _Place) -> None:
    """What a face and a logo have on their surface: nothing that is thinner than 4 of 96 pixels."""
    draw = ImageDraw.Draw(image)
    ink = (255, 255, 255) if sum(COLOURS[thing.colour]) < 330 else (20, 20, 20)
    if thing.shape == "face":
        for side in (-0.38, 0.38):
            draw.ellipse(place.box(side - 0.24, -0.62, side + 0.24, -0.08), fill=ink)
        bend = -0.42 if thing.pose == "sad" else 0.42
        for i in range(-30, 31):
            x, y = i / 60, 0.46 + bend * (0.5 - (i / 30) ** 2)
            draw.ellipse(place.box(x - 0.22, y - 0.22, x + 0.22, y + 0.22), fill=ink)
    elif thing.shape == "logo":
        draw.ellipse(place.box(-0.65, -0.65, 0.1, 0.1), fill=ink)
        draw.polygon([place.at(*point) for point in ((0.75, -0.25), (0.75, 0.75), (-0.45, 0.75))], fill=ink)


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in the unit square [-1, 1]^2, y downwards, pointing up."""
    if shape == "triangle":
        return [(0, -1), (0.95, 0.85), (-0.95, 0.85)]
    if shape == "arrow":
        return [(0, -1), (0.85, -0.05), (0.35, -0.05), (0.35, 1), (-0.35, 1), (-0.35, -0.05), (-0.85, -0.05)]
    if shape == "cross":
        quarter = [(-0.36, -1), (0.36, -1), (0.36, -0.36)]
        return [point for direction in DIRECTIONS for point in _turned(quarter, direction)]
    if shape == "star":
        angles = [math.pi * i / 5 for i in range(10)]
        return [
            ((0.45, 1.0)[i % 2 == 0] * math.sin(a), -(0.45, 1.0)[i % 2 == 0] * math.cos(a))
            for i, a in enumerate(angles)
        ]
    if shape == "heart":
        steps = [2 * math.pi * i / 40 for i in range(40)]
        curve = [
            (16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
            for t in steps
        ]
        return [(x / 17, (y - 2.5) / 15.5) for x, y in curve]
    return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]


def _turned(points: list[tuple[float, float]], direction: str) -> list[tuple[float, float]]:
    for _ in range(DIRECTIONS.index(direction)):
        points = [(-y, x) for x, y in points]
    return points
