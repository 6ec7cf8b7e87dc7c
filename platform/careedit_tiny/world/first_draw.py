"""How the first edition of the world draws. It goes with the packaged weights that were made for it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from careedit_tiny.world.looks import apply_look
from careedit_tiny.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, RGB, SIZES, Scene, Thing

SUPERSAMPLING = 4
"""Drawn at this multiple of the size and reduced by averaging: Pillow's shapes have hard edges."""


def _shade(colour: RGB, factor: float = 0.72) -> RGB:
    """The second colour of a texture: darker, or lighter where the colour is already dark."""
    if sum(colour) < 150:
        return (colour[0] + 85, colour[1] + 85, colour[2] + 85)
    return (round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor))


def _textured(size: int, colour: RGB, texture: str, period: float) -> Image.Image:
    """A square of `size` pixels with a texture whose pattern repeats every `period` pixels; the caller may draw on it."""
    if texture == "plain":
        return Image.new("RGB", (size, size), colour)
    return (_remembered_pattern if size <= 512 else _pattern)(size, colour, texture, period).copy()


def _pattern(size: int, colour: RGB, texture: str, period: float) -> Image.Image:
    image = Image.new("RGB", (size, size), colour)
    draw, second = ImageDraw.Draw(image), _shade(colour)
    count = math.ceil(size / period)
    if texture == "striped":
        for i in range(count):
            draw.rectangle((0, i * period, size, i * period + period / 2 - 1), fill=second)
    elif texture == "dotted":
        radius = period * 0.27
        for i in range(count):
            for j in range(count):
                x, y = (i + 0.5) * period, (j + 0.5) * period
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
    elif texture == "checkered":
        for i in range(count):
            for j in range(i % 2, count, 2):
                draw.rectangle((i * period, j * period, (i + 1) * period - 1, (j + 1) * period - 1), fill=second)
    return image


_remembered_pattern = lru_cache(maxsize=64)(_pattern)


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in the unit square [-1, 1]^2, y downwards, pointing up."""
    if shape == "triangle":
        return [(0, -1), (0.95, 0.85), (-0.95, 0.85)]
    if shape == "arrow":
        return [(0, -1), (0.85, -0.05), (0.35, -0.05), (0.35, 1), (-0.35, 1), (-0.35, -0.05), (-0.85, -0.05)]
    if shape == "cross":
        a = 0.36
        return [
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
        ]
    if shape == "star":
        points = []
        for i in range(10):
            radius, angle = (1.0 if i % 2 == 0 else 0.45), math.pi * i / 5
            points.append((radius * math.sin(angle), -radius * math.cos(angle)))
        return points
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


def _silhouette(thing: Thing, canvas: int) -> Image.Image:
    """White where the thing is, on a black "L" picture of `canvas` pixels."""
    mask = Image.new("L", (canvas, canvas), 0)
    draw = ImageDraw.Draw(mask)
    radius = SIZES[thing.size] * canvas / 2
    cx = ((thing.cell % 3 + 0.5) / 3 + thing.dx) * canvas
    cy = ((thing.cell // 3 + 0.5) / 3 + thing.dy) * canvas
    box = (cx - radius, cy - radius, cx + radius, cy + radius)
    if thing.shape in ("circle", "face", "ring"):
        draw.ellipse(box, fill=255)
        if thing.shape == "ring":
            inner = radius * 0.52
            draw.ellipse((cx - inner, cy - inner, cx + inner, cy + inner), fill=0)
    elif thing.shape == "logo":
        draw.rounded_rectangle(box, radius=radius * 0.45, fill=255)
    else:
        direction = thing.pose if thing.pose in DIRECTIONS else "up"
        points = _turned(_polygon(thing.shape), direction)
        draw.polygon([(cx + x * radius, cy + y * radius) for x, y in points], fill=255)
    return mask


def _details(thing: Thing, image: Image.Image) -> None:
    """What a face and a logo have on their surface."""
    canvas, draw = image.width, ImageDraw.Draw(image)
    radius = SIZES[thing.size] * canvas / 2
    cx = ((thing.cell % 3 + 0.5) / 3 + thing.dx) * canvas
    cy = ((thing.cell // 3 + 0.5) / 3 + thing.dy) * canvas
    ink = (255, 255, 255) if sum(COLOURS[thing.colour]) < 330 else (20, 20, 20)
    width = max(1, round(radius * 0.22))

    def box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        return (cx + x0 * radius, cy + y0 * radius, cx + x1 * radius, cy + y1 * radius)

    if thing.shape == "face":
        for side in (-0.38, 0.38):
            draw.ellipse(box(side - 0.16, -0.5, side + 0.16, -0.1), fill=ink)
        if thing.pose == "sad":
            draw.arc(box(-0.55, 0.2, 0.55, 1.0), 200, 340, fill=ink, width=width)
        else:
            draw.arc(box(-0.6, -0.35, 0.6, 0.65), 20, 160, fill=ink, width=width)
    elif thing.shape == "logo":
        draw.ellipse(box(-0.6, -0.6, 0.1, 0.1), fill=ink)
        draw.polygon([(cx + x * radius, cy + y * radius) for x, y in ((0.7, -0.2), (0.7, 0.7), (-0.4, 0.7))], fill=ink)


def silhouette(thing: Thing, size: int = 64) -> Image.Image:
    """Where the thing is: an anti-aliased "L" picture, 255 inside."""
    return _silhouette(thing, size * SUPERSAMPLING).resize((size, size), Image.Resampling.BOX)


def draw_scene(scene: Scene, size: int = 64) -> Image.Image:
    """The scene's picture, RGB, `size` x `size` pixels (a multiple of 8 keeps its textures regular)."""
    canvas = size * SUPERSAMPLING
    image = _textured(canvas, BACKGROUNDS[scene.background], scene.backdrop, canvas / 8)
    for thing in scene.things:
        surface = _textured(canvas, COLOURS[thing.colour], thing.texture, canvas / 16)
        _details(thing, surface)
        covered = _silhouette(thing, canvas)
        box = covered.getbbox() or (0, 0, 0, 0)
        image.paste(surface.crop(box), box, covered.crop(box))
    image = image.resize((size, size), Image.Resampling.BOX)
    if scene.look is None:
        return image
    styled = apply_look(image, scene.look)
    if scene.keep is not None:
        # The whole silhouette is kept, its soft border included: a kept object is kept to the last pixel.
        covered = silhouette(scene.things[scene.keep], size).point(lambda value: 255 if value else 0)
        styled.paste(image, (0, 0), covered)
    return styled


def draw_ground(background: str, backdrop: str, size: int) -> NDArray[np.float32]:
    """As `careedit_tiny.world.draw.draw_ground`."""
    canvas = size * SUPERSAMPLING
    image = _textured(canvas, BACKGROUNDS[background], backdrop, canvas / 8)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32)


def draw_window(scene: Scene, thing: Thing | None, rows: slice, columns: slice, size: int) -> NDArray[np.float32]:
    """As `careedit_tiny.world.draw.draw_window`."""
    canvas = size * SUPERSAMPLING
    box = tuple(edge * SUPERSAMPLING for edge in (columns.start, rows.start, columns.stop, rows.stop))
    image = _textured(canvas, BACKGROUNDS[scene.background], scene.backdrop, canvas / 8).crop(box)
    if thing is not None:
        surface = _textured(canvas, COLOURS[thing.colour], thing.texture, canvas / 16)
        _details(thing, surface)
        image.paste(surface.crop(box), (0, 0), _silhouette(thing, canvas).crop(box))
    small = image.resize((columns.stop - columns.start, rows.stop - rows.start), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
