"""Pictures with known faults: what an oracle must forgive (`FLAWS`) and what it must not (`FAULTS`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image
from scipy import ndimage

from careedit_tiny.oracle.rivals import slips
from careedit_tiny.world.draw import changed_region, draw_scene
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.samples import Sample
from careedit_tiny.world.scene import BACKGROUNDS, COLOURS, LOOKS, Scene, Thing

Picture = Callable[[Sample, Random, int], Image.Image | None]
"""(sample, random numbers, side) -> an edited picture, or None where the sample offers no such picture."""


def _degraded(degrade: Callable[[Image.Image, Random], Image.Image]) -> Picture:
    return lambda sample, rng, side: degrade(sample.target_image(side), rng)


def _blurred(deviation: float) -> Picture:
    def blur(image: Image.Image, rng: Random) -> Image.Image:
        scale = deviation * image.width / 64
        pixels = ndimage.gaussian_filter(np.asarray(image, np.float32), (scale, scale, 0), mode="nearest")
        return Image.fromarray(np.round(pixels).astype(np.uint8))

    return _degraded(blur)


def _jpeg(image: Image.Image, rng: Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def _noise(image: Image.Image, rng: Random) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 0.03 * 255, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.round(np.asarray(image, np.float64) + noise), 0, 255).astype(np.uint8))


def _moved(image: Image.Image, rng: Random) -> Image.Image:
    step, axis = rng.choice((-1, 1)), rng.choice((0, 1))
    pad = [(1, 1), (1, 1), (0, 0)]
    pixels = np.roll(np.pad(np.asarray(image), pad, mode="edge"), step, axis=axis)
    return Image.fromarray(pixels[1:-1, 1:-1])


def _off(distance: float) -> Picture:
    """The edit with a new object at some distance from its place, in pixels of an image of 64 x 64."""

    def move(sample: Sample, rng: Random, side: int) -> Image.Image | None:
        there = [(thing.shape, thing.cell) for thing in sample.source.things]
        new = [i for i in _new(sample) if (sample.target.things[i].shape, sample.target.things[i].cell) not in there]
        if not new:
            return None
        index = rng.choice(new)
        thing, sign, across = sample.target.things[index], rng.choice((-1, 1)), rng.random() < 0.5
        by = sign * distance / 64
        moved = {"dx": thing.dx + by} if across else {"dy": thing.dy + by}
        return draw_scene(sample.target.with_thing(index, **moved), side)

    return move


def _new(sample: Sample) -> list[int]:
    """Indices of the target's things that the edit made, moved or changed."""
    if sample.target.look is not None:
        return []
    return [i for i, thing in enumerate(sample.target.things) if thing not in sample.source.things]


def _bystanders(sample: Sample) -> list[int]:
    """Indices of the target's things that the edit has nothing to do with."""
    return [i for i, thing in enumerate(sample.target.things) if thing in sample.source.things]


def _source(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    return sample.source_image(side) if sample.feasible else None


def _half(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    if not sample.feasible:
        return None
    return Image.blend(sample.source_image(side), sample.target_image(side), 0.5)


def _slipped(prefix: str, operations: tuple[str, ...] = ()) -> Picture:
    """The edit with one property of a new object wrong."""

    def fault(sample: Sample, rng: Random, side: int) -> Image.Image | None:
        new = _new(sample)
        if not new or (operations and sample.operation not in operations):
            return None
        index = rng.choice(new)
        options = [thing for name, thing in slips(sample.target.things[index]) if name.startswith(prefix)]
        if not options:
            return None
        return draw_scene(_swapped(sample.target, index, rng.choice(options)), side)

    return fault


def _swapped(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _wrong_object(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    """The same change done to another object."""
    source, target = sample.source, sample.target
    gone = [thing for thing in source.things if thing not in target.things]
    others = [i for i, thing in enumerate(source.things) if thing in target.things]
    if len(gone) != 1 or not others or target.look is not None:
        return None
    index, new = rng.choice(others), _new(sample)
    if not new:
        return draw_scene(source.without(index), side)
    old, made, other = gone[0], target.things[new[0]], source.things[index]
    names = ("shape", "colour", "cell", "size", "texture", "pose")
    changes = {name: getattr(made, name) for name in names if getattr(made, name) != getattr(old, name)}
    if "shape" in changes:
        changes["pose"] = made.pose
    return draw_scene(_swapped(source, index, replace(other, **changes)), side)


def _wrong_position(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    places = ("add.thing", "relation.beside", "relation.move", "masked.add", "reference.thing")
    free = [cell for cell in sample.target.free_cells() if cell in sample.source.free_cells()]
    if not sample.feasible or sample.operation not in places or not free:
        return None
    return draw_scene(sample.target.with_thing(_new(sample)[0], cell=rng.choice(free)), side)


def _wrong_background(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    if sample.operation != "background.colour":
        return None
    seen = (sample.source.background, sample.target.background)
    return draw_scene(replace(sample.target, background=rng.choice([b for b in BACKGROUNDS if b not in seen])), side)


def _wrong_look(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    if sample.target.look is None:
        return None
    return draw_scene(replace(sample.target, look=rng.choice([x for x in LOOKS if x != sample.target.look])), side)


def _kept_edited(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    return None if sample.target.keep is None else draw_scene(replace(sample.target, keep=None), side)


def _wrong_count(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    if sample.operation != "counting.set":
        return None
    names = {thing.name for thing in (*sample.source.things, *sample.target.things)}
    changed = [n for n in names if [t.name for t in sample.source.things].count(n) != _count(sample.target, n)]
    group = [i for i, thing in enumerate(sample.target.things) if thing.name == changed[0]]
    free = sample.target.free_cells()
    if free and rng.random() < 0.5:
        return draw_scene(sample.target.plus(replace(sample.target.things[group[0]], cell=rng.choice(free))), side)
    return draw_scene(sample.target.without(rng.choice(group)), side)


def _count(scene: Scene, name: str) -> int:
    return sum(thing.name == name for thing in scene.things)


def _lost(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    """The right edit, and an object elsewhere is gone."""
    others = _bystanders(sample)
    if not others or sample.target.look is not None:
        return None
    return draw_scene(sample.target.without(rng.choice(others)), side)


def _recoloured(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    """The right edit, and an object elsewhere has another colour."""
    others = _bystanders(sample)
    if not others or sample.target.look is not None:
        return None
    index = rng.choice(others)
    colour = rng.choice([name for name in COLOURS if name != sample.target.things[index].colour])
    return draw_scene(sample.target.with_thing(index, colour=colour), side)


def _tinted(sample: Sample, rng: Random, side: int) -> Image.Image | None:
    """The right edit under 8 % of a full colour; looks and backgrounds leave too little to tint."""
    if sample.target.look is not None or sample.kind == "background":
        return None
    colour = rng.choice([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)])
    return Image.blend(sample.target_image(side), Image.new("RGB", (side, side), colour), 0.08)


FLAWS: Mapping[str, Picture] = {
    "truth": _degraded(lambda image, rng: image),
    "blur 0.5 px": _blurred(0.5),
    "blur 0.7 px": _blurred(0.7),
    "JPEG quality 85": _degraded(_jpeg),
    "noise 3 %": _degraded(_noise),
    "edited object 1 px off": _off(1),
}
"""Right edits with flaws that the oracle must forgive; lengths are of a picture of 64 x 64."""

UNDECIDED: Mapping[str, Picture] = {
    "edited object 2 px off": _off(2),
    "whole picture 1 px off": _degraded(_moved),
}
"""Neither required to pass nor to fail, and measured."""

FAULTS: Mapping[str, Picture] = {
    "source (nothing done)": _source,
    "half done (50 % blend)": _half,
    "wrong object": _wrong_object,
    "wrong colour": _slipped("colour"),
    "wrong shape": _slipped("shape"),
    "wrong size": _slipped("size"),
    "wrong texture": _slipped("texture"),
    "wrong direction": _slipped("pose", ("action.turn", "action.mood")),
    "edited object 4 px off": _off(4),
    "wrong position": _wrong_position,
    "wrong count": _wrong_count,
    "wrong background": _wrong_background,
    "wrong look": _wrong_look,
    "kept object edited": _kept_edited,
    "another object lost": _lost,
    "another object recoloured": _recoloured,
    "tint of 8 %": _tinted,
}
"""Images that the oracle must reject, by name."""


def make_picture(name: str, sample: Sample, rng: Random, side: int = GEOMETRY.side) -> Image.Image | None:
    """One of `FLAWS`, `UNDECIDED` or `FAULTS` of a sample, or None if the sample does not offer it.

    A fault must show, in at least 12 pixels of 64 x 64: a black logo is black in a black and white photo, so editing it
    is not a fault.
    """
    if name not in FAULTS:
        return {**FLAWS, **UNDECIDED}[name](sample, rng, side)
    image = FAULTS[name](sample, rng, side)
    if image is None:
        return None
    differing = changed_region(sample.target_image(side), image).histogram()[255]
    return image if differing * (64 / side) ** 2 >= 12 else None
