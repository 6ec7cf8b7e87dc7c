"""The edits of the tiny world: each operation makes, from a scene, an edited scene and the words' slots.

An operation returns None where the scene offers nothing to do it on; the sampler then draws another scene.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from careedit_tiny.world.phrases import LOOK_NAMES, NUMBERS, group_name, with_article
from careedit_tiny.world.scene import (
    BACKDROPS,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    LOOKS,
    MOODS,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    TURNING,
    Scene,
    Thing,
    random_pose,
    random_thing,
)


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation did."""

    source: Scene
    """The scene before (an operation may prepare it, e.g. add a second circle to count)."""
    target: Scene
    """The scene after: the exact truth."""
    slots: Mapping[str, str]
    """Words for the phrasing's slots."""
    marked: tuple[Thing, ...] = ()
    """For masked operations: what the mask's box must cover."""
    reference: Scene | None = None
    """For reference operations: the reference picture."""
    absent: Thing | None = field(default=None)
    """For infeasible instructions: the object that is named and not there."""


Operation = Callable[[Random, Scene], Change | None]


def described(scene: Scene, thing: Thing, rng: Random) -> str:
    """ "the red circle", or "the circle" (half the time) where it is the only one."""
    alone = sum(other.shape == thing.shape for other in scene.things) == 1
    return f"the {thing.shape}" if alone and rng.random() < 0.5 else f"the {thing.name}"


def _other(rng: Random, options: tuple[str, ...], than: str) -> str:
    return rng.choice([option for option in options if option != than])


def _pick(rng: Random, scene: Scene, *shapes: str) -> int | None:
    """Index of a thing, of one of `shapes` if any are named."""
    fitting = [i for i, thing in enumerate(scene.things) if not shapes or thing.shape in shapes]
    return rng.choice(fitting) if fitting else None


def _new_thing(rng: Random, scene: Scene, cell: int) -> tuple[Thing, str]:
    """A plain new thing, of no name that the scene has, centred in a cell, and its words."""
    while True:
        thing = Thing(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), cell)
        if all(thing.name != other.name for other in scene.things):
            break
    if thing.shape == "face":
        thing = replace(thing, pose="happy")
    size = rng.choice(("small", "medium", "medium", "large"))
    words = thing.name if size == "medium" else f"{size} {thing.name}"
    return replace(thing, size=size), with_article(words)


def remove(rng: Random, scene: Scene) -> Change | None:
    """An object goes; what was behind it is the background."""
    i = _pick(rng, scene)
    return None if i is None else Change(scene, scene.without(i), {"x": described(scene, scene.things[i], rng)})


def add(rng: Random, scene: Scene) -> Change | None:
    """A plain new object, centred in a free cell, joins; a size is named unless it is medium."""
    if len(scene.things) > 5 or not scene.free_cells():
        return None
    cell = rng.choice(scene.free_cells())
    thing, words = _new_thing(rng, scene, cell)
    return Change(scene, scene.plus(thing), {"y": words, "p": POSITIONS[cell]})


def replace_thing(rng: Random, scene: Scene) -> Change | None:
    """Another shape, plain and upright, takes an object's place and size."""
    i = _pick(rng, scene)
    if i is None:
        return None
    old = scene.things[i]
    while True:
        new = Thing(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), old.cell, old.size, dx=old.dx, dy=old.dy)
        if new.shape != old.shape and all(new.name != other.name for other in scene.things):
            break
    new = replace(new, pose="happy" if new.shape == "face" else "up")
    target = replace(scene, things=(*scene.things[:i], new, *scene.things[i + 1 :]))
    return Change(scene, target, {"x": described(scene, old, rng), "y": with_article(new.name)})


def turn(rng: Random, scene: Scene) -> Change | None:
    """A shape with a direction points another way."""
    i = _pick(rng, scene, *TURNING)
    if i is None:
        return None
    direction = _other(rng, DIRECTIONS, scene.things[i].pose)
    words = {"x": described(scene, scene.things[i], rng), "d": direction}
    return Change(scene, scene.with_thing(i, pose=direction), words)


def mood(rng: Random, scene: Scene) -> Change | None:
    """A face becomes happy or sad."""
    i = _pick(rng, scene, "face")
    if i is None:
        return None
    new = _other(rng, MOODS, scene.things[i].pose)
    words = {"x": described(scene, scene.things[i], rng), "d": new}
    return Change(scene, scene.with_thing(i, pose=new), words)


def count(rng: Random, scene: Scene) -> Change | None:
    """Copies go to the free cells in reading order, centred; surplus ones leave from the end of the reading order."""
    i = _pick(rng, scene)
    if i is None or len(scene.things) > 4:
        return None
    one = replace(scene.things[i], dx=0.0, dy=0.0)
    before = rng.randint(1, 3)
    after = rng.choice([n for n in range(1, 5) if n != before])
    rest = scene.without(i)
    spare = replace(rest, things=(*rest.things, one)).free_cells()
    source = replace(rest, things=(*rest.things, one, *(replace(one, cell=c) for c in rng.sample(spare, before - 1))))
    group = sorted((thing for thing in source.things if thing.name == one.name), key=lambda thing: thing.cell)
    others = tuple(thing for thing in source.things if thing.name != one.name)
    new = tuple(replace(one, cell=c) for c in source.free_cells()[: max(0, after - before)])
    if before + len(new) < after:
        return None
    target = replace(source, things=(*others, *group[:after], *new))
    return Change(source, target, {"n": NUMBERS[after], "xs": group_name(one.name, after)})


RELATIONS: Mapping[str, tuple[int, int]] = {
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


def next_to(rng: Random, scene: Scene) -> Change | None:
    """The mover goes to the next cell on that side of the anchor, which must be free."""
    if len(scene.things) < 2:
        return None
    i, anchor = rng.sample(range(len(scene.things)), 2)
    relation = rng.choice(tuple(RELATIONS))
    across, down = RELATIONS[relation]
    column, row = scene.things[anchor].cell % 3 + across, scene.things[anchor].cell // 3 + down
    if not (0 <= column < 3 and 0 <= row < 3) or row * 3 + column not in scene.free_cells():
        return None
    x, z = described(scene, scene.things[i], rng), described(scene, scene.things[anchor], rng)
    return Change(scene, scene.with_thing(i, cell=row * 3 + column), {"x": x, "r": relation, "z": z})


def move(rng: Random, scene: Scene) -> Change | None:
    """An object goes to a free cell, which is named."""
    i = _pick(rng, scene)
    if i is None or not scene.free_cells():
        return None
    cell = rng.choice(scene.free_cells())
    words = {"x": described(scene, scene.things[i], rng), "p": POSITIONS[cell]}
    return Change(scene, scene.with_thing(i, cell=cell), words)


def recolour(rng: Random, scene: Scene) -> Change | None:
    """An object gets a colour that makes no second object of its name."""
    i = _pick(rng, scene)
    if i is None:
        return None
    colour = _other(rng, tuple(COLOURS), scene.things[i].colour)
    if any(thing.name == f"{colour} {scene.things[i].shape}" for thing in scene.things):
        return None
    return Change(scene, scene.with_thing(i, colour=colour), {"x": described(scene, scene.things[i], rng), "c": colour})


def resize(rng: Random, scene: Scene) -> Change | None:
    """An object gets another of the three sizes; its centre stays."""
    i = _pick(rng, scene)
    if i is None:
        return None
    size = _other(rng, tuple(SIZES), scene.things[i].size)
    return Change(scene, scene.with_thing(i, size=size), {"x": described(scene, scene.things[i], rng), "s": size})


def retexture(rng: Random, scene: Scene) -> Change | None:
    """An object becomes plain, striped or dotted."""
    i = _pick(rng, scene)
    if i is None:
        return None
    texture = _other(rng, TEXTURES, scene.things[i].texture)
    words = {"x": described(scene, scene.things[i], rng), "t": texture}
    return Change(scene, scene.with_thing(i, texture=texture), words)


def background_colour(rng: Random, scene: Scene) -> Change | None:
    """The background gets another colour and keeps its texture."""
    colour = _other(rng, tuple(BACKGROUNDS), scene.background)
    return Change(scene, replace(scene, background=colour), {"c": colour})


def background_texture(rng: Random, scene: Scene) -> Change | None:
    """The background gets another texture and keeps its colour."""
    texture = _other(rng, BACKDROPS, scene.backdrop)
    return Change(scene, replace(scene, backdrop=texture), {"t": texture})


def look(rng: Random, scene: Scene) -> Change | None:
    """The whole picture gets a global look."""
    name = rng.choice(LOOKS)
    return Change(scene, replace(scene, look=name), {"look": LOOK_NAMES[name]})


def look_but_keep(rng: Random, scene: Scene) -> Change | None:
    """Half the time the kept object is a logo, the case that users ask for most."""
    i = _pick(rng, scene)
    if i is None:
        return None
    if rng.random() < 0.5 and all(thing.name != f"{scene.things[i].colour} logo" for thing in scene.things):
        scene = scene.with_thing(i, shape="logo", pose="up")
    name = rng.choice(LOOKS)
    words = {"x": described(scene, scene.things[i], rng), "look": LOOK_NAMES[name]}
    return Change(scene, replace(scene, look=name, keep=i), words)


def _portrait(rng: Random, **changes: str) -> Scene:
    """A reference picture: one large object in the middle."""
    thing = replace(random_thing(rng, 4), size="large", dx=0.0, dy=0.0)
    shape = changes.get("shape", thing.shape)
    pose = changes.get("pose", random_pose(shape, rng))
    changed: dict[str, Any] = {**changes, "shape": shape, "pose": pose}
    return Scene(rng.choice(tuple(BACKGROUNDS)), things=(replace(thing, **changed),))


def reference_colour(rng: Random, scene: Scene) -> Change | None:
    """An object takes the colour of the reference's object."""
    change = recolour(rng, scene)
    if change is None:
        return None
    return Change(scene, change.target, {"x": change.slots["x"]}, reference=_portrait(rng, colour=change.slots["c"]))


def reference_texture(rng: Random, scene: Scene) -> Change | None:
    """An object takes the texture of the reference's object."""
    change = retexture(rng, scene)
    if change is None:
        return None
    return Change(scene, change.target, {"x": change.slots["x"]}, reference=_portrait(rng, texture=change.slots["t"]))


def reference_thing(rng: Random, scene: Scene) -> Change | None:
    """The reference's object joins the scene at medium size."""
    change = add(rng, scene)
    if change is None:
        return None
    new = replace(change.target.things[-1], size="medium")
    portrait = _portrait(rng, shape=new.shape, colour=new.colour, pose=new.pose, texture="plain")
    return Change(scene, scene.plus(new), {"p": change.slots["p"]}, reference=portrait)


def reference_look(rng: Random, scene: Scene) -> Change | None:
    """The whole picture takes the look of the reference, a scene of its own."""
    name = rng.choice(LOOKS)
    things = tuple(random_thing(rng, cell) for cell in rng.sample(range(9), 3))
    reference = Scene(rng.choice(tuple(BACKGROUNDS)), rng.choice(BACKDROPS), things, look=name)
    return Change(scene, replace(scene, look=name), {}, reference=reference)


def masked_remove(rng: Random, scene: Scene) -> Change | None:
    """What is marked goes; the words do not name it."""
    i = _pick(rng, scene)
    return None if i is None else Change(scene, scene.without(i), {}, marked=(scene.things[i],))


def masked_replace(rng: Random, scene: Scene) -> Change | None:
    """What is marked is replaced; the words name only the new object."""
    change = replace_thing(rng, scene)
    if change is None:
        return None
    marked = tuple(thing for thing in scene.things if thing not in change.target.things)
    return Change(scene, change.target, {"y": change.slots["y"]}, marked=marked)


def masked_add(rng: Random, scene: Scene) -> Change | None:
    """A new object joins in the marked area; the words do not say where."""
    change = add(rng, scene)
    if change is None:
        return None
    return Change(scene, change.target, {"y": change.slots["y"]}, marked=change.target.things[-1:])


def masked_colour(rng: Random, scene: Scene) -> Change | None:
    """What is marked gets another colour; the words name only the colour."""
    change = recolour(rng, scene)
    if change is None:
        return None
    marked = tuple(thing for thing in scene.things if thing not in change.target.things)
    return Change(scene, change.target, {"c": change.slots["c"]}, marked=marked)


OPERATIONS: Mapping[str, Operation] = {
    "add.thing": add,
    "remove.thing": remove,
    "replace.thing": replace_thing,
    "action.turn": turn,
    "action.mood": mood,
    "counting.set": count,
    "relation.beside": next_to,
    "relation.move": move,
    "attribute.colour": recolour,
    "attribute.size": resize,
    "attribute.texture": retexture,
    "background.colour": background_colour,
    "background.texture": background_texture,
    "style.look": look,
    "identity.look": look_but_keep,
    "reference.colour": reference_colour,
    "reference.texture": reference_texture,
    "reference.thing": reference_thing,
    "reference.look": reference_look,
    "masked.remove": masked_remove,
    "masked.replace": masked_replace,
    "masked.add": masked_add,
    "masked.colour": masked_colour,
}
"""By name: the part before the dot is the edit's kind."""

KINDS = tuple(dict.fromkeys(name.split(".")[0] for name in OPERATIONS))
"""The twelve kinds of single edits."""

EXPERT_OF: Mapping[str, str] = {
    **dict.fromkeys(OPERATIONS, "compose"),
    "remove.thing": "erase",
    "masked.remove": "erase",
    "background.colour": "style",
    "background.texture": "style",
    "style.look": "style",
    "identity.look": "identity",
    **{name: "reference" for name in OPERATIONS if name.startswith("reference.")},
}
"""The competence that each operation needs."""
