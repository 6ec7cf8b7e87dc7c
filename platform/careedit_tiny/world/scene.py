"""Scenes of the tiny world: a background and up to five objects on a 3 x 3 grid, as plain data.

A scene says everything about its picture, so an edit's ground truth is the drawing of an edited scene
(`careedit_tiny.world.draw`), exact to the pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from random import Random
from typing import Any

from careedit_tiny.world.geometry import GEOMETRY

RGB = tuple[int, int, int]

COLOURS: Mapping[str, RGB] = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 84, 200),
    "yellow": (250, 218, 40),
    "purple": (130, 50, 170),
    "orange": (255, 127, 14),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
"""Names and RGB values of objects' colours."""

BACKGROUNDS: Mapping[str, RGB] = {
    "gray": (150, 150, 150),
    "pink": (245, 180, 200),
    "cyan": (130, 215, 225),
    "brown": (130, 90, 60),
    "beige": (225, 210, 175),
    "navy": (35, 45, 95),
    "olive": (125, 130, 60),
    "lavender": (190, 180, 235),
}
"""Colours of backgrounds; none is a colour of objects, so every object can be seen."""

SHAPES = ("circle", "square", "triangle", "star", "heart", "arrow", "cross", "ring", "face", "logo")
TURNING = ("triangle", "arrow", "heart")
"""Shapes whose pose is a direction."""
SIZES = GEOMETRY.sizes
"""Diameter of an object, as a share of the picture's side; the largest still fits its cell."""
TEXTURES = ("plain", "striped", "dotted")
"""Names of the textures of objects."""
BACKDROPS = ("plain", "striped", "dotted", "checkered")
"""Names of the textures of backgrounds."""
DIRECTIONS = ("up", "right", "down", "left")
MOODS = ("happy", "sad")
"""Names of a face's poses."""
LOOKS = ("monochrome", "sepia", "negative", "night", "mosaic", "blur", "poster", "sketch")
"""Names of the global looks (`careedit_tiny.world.looks`)."""
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
"""Names of the cells, in reading order."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object."""

    shape: str
    """Shape of the object, one of `SHAPES`."""
    colour: str
    """Colour of the object, one of `COLOURS`."""
    cell: int
    """Its place, an index into `POSITIONS`."""
    size: str = "medium"
    """Size of the object, one of `SIZES`. Default: medium."""
    texture: str = "plain"
    """Texture of the object, one of `TEXTURES`. Default: plain."""
    pose: str = "up"
    """A direction for a `TURNING` shape, a mood for a face, "up" for all others."""
    dx: float = 0.0
    """Horizontal offset from the cell's centre, as a share of the picture's side. Default: 0."""
    dy: float = 0.0
    """Vertical offset from the cell's centre, as a share of the picture's side. Default: 0."""

    @property
    def name(self) -> str:
        """Colour and shape, as an instruction calls it."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as data."""

    background: str
    """Colour of the background, a key of `BACKGROUNDS`."""
    backdrop: str = "plain"
    """Pattern of the background, one of `BACKDROPS`. Default: plain."""
    things: tuple[Thing, ...] = ()
    """The objects of the scene, each in a cell of its own."""
    look: str | None = None
    """A global look over the whole picture."""
    keep: int | None = None
    """Index of the thing that the look leaves exactly as it is."""

    def free_cells(self) -> list[int]:
        """Cells without an object, in reading order."""
        taken = {thing.cell for thing in self.things}
        return [cell for cell in range(9) if cell not in taken]

    def with_thing(self, index: int, **changes: Any) -> Scene:
        """This scene with thing `index` changed."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))

    def without(self, *indices: int) -> Scene:
        """This scene without the things `indices`."""
        return replace(self, things=tuple(t for i, t in enumerate(self.things) if i not in indices))

    def plus(self, *things: Thing) -> Scene:
        """This scene with more things."""
        return replace(self, things=(*self.things, *things))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `scene_from_dict` reads it back."""
        return asdict(self)


def scene_from_dict(data: Mapping[str, Any]) -> Scene:
    """Read what `Scene.to_dict` wrote; an unknown key is a `KeyError`."""
    unknown = set(data) - {field.name for field in fields(Scene)}
    if unknown:
        raise KeyError(f"A scene has no key {min(unknown)!r}.")
    return Scene(**{**data, "things": tuple(Thing(**thing) for thing in data["things"])})


def random_pose(shape: str, rng: Random) -> str:
    """A pose that the shape can take."""
    if shape in TURNING:
        return rng.choice(DIRECTIONS)
    return rng.choice(MOODS) if shape == "face" else "up"


def random_thing(rng: Random, cell: int, *, shape: str | None = None, colour: str | None = None) -> Thing:
    """An object in a cell; two in three are plain, and it sits up to `GEOMETRY.shift` off the cell's centre."""
    shape = shape or rng.choice(SHAPES)
    return Thing(
        shape=shape,
        colour=colour or rng.choice(tuple(COLOURS)),
        cell=cell,
        size=rng.choice(tuple(SIZES)),
        texture=rng.choice(("plain", "plain", "plain", "plain", "striped", "dotted")),
        pose=random_pose(shape, rng),
        dx=_offset(rng),
        dy=_offset(rng),
    )


def _offset(rng: Random) -> float:
    shift = GEOMETRY.shift
    return round(rng.uniform(-shift, shift), 4) if shift else 0.0


def random_scene(rng: Random, *, minimum: int = 1, maximum: int = 4) -> Scene:
    """A scene of `minimum` to `maximum` objects, no two of one shape and colour."""
    things: list[Thing] = []
    for cell in rng.sample(range(9), rng.randint(minimum, maximum)):
        thing = random_thing(rng, cell)
        while any(thing.name == other.name for other in things):
            thing = random_thing(rng, cell)
        things.append(thing)
    backdrop = rng.choice(("plain", "plain", *BACKDROPS))
    return Scene(background=rng.choice(tuple(BACKGROUNDS)), backdrop=backdrop, things=tuple(things))
