"""Samples: one drawn edit each, with its words, its exact truth and what a judge needs to know.

A sample is a function of (kind, split, index) alone. Splits have disjoint ranges of seeds, so no test scene was
trained on. Training uses only seen phrasings; in other splits half of the phrasings are held-out ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from PIL import Image, ImageDraw

from careedit.records import EditRequest
from careedit_tiny.world.draw import changed_region, draw_scene, silhouette
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.operations import EXPERT_OF, KINDS, OPERATIONS, Change
from careedit_tiny.world.phrases import phrasings
from careedit_tiny.world.scene import COLOURS, SHAPES, Scene, Thing, random_scene, scene_from_dict

Split = Literal["train", "validation", "test"]
SPLITS: Mapping[str, range] = {
    "train": range(100_000_000),
    "validation": range(100_000_000, 101_000_000),
    "test": range(101_000_000, 102_000_000),
}
"""Range of seeds of each split."""

INFEASIBLE = ("remove.thing", "replace.thing", "attribute.colour", "action.turn", "relation.move")
"""Operations whose instruction can name an object that is not there."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One edit of the tiny world."""

    id: str
    """"KIND-SEED", unique over all splits."""
    kind: str
    """One of `KINDS`, or "infeasible"."""
    operation: str
    """Name of the operation, a key of `OPERATIONS`."""
    expert: str
    """The competence that the edit needs; "base" for an infeasible one."""
    instruction: str
    """The text of the instruction."""
    held_out_phrasing: bool
    """Whether the phrasing is never used in training."""
    source: Scene
    """The scene before the edit."""
    target: Scene
    """The scene after the edit. Equal to the source if the instruction is infeasible."""
    box: tuple[float, float, float, float] | None = None
    """The mask: a coarse box (left, top, right, bottom) as shares of the side."""
    reference: Scene | None = None
    """The scene of the reference image. Default: none."""
    phrasing: str = field(default="", compare=False)
    """The instruction with its slots open, "make {x} {c}"; known of a drawn sample, not of one read back."""
    slots: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    """The words that fill the slots."""

    @property
    def feasible(self) -> bool:
        """Whether the instruction applies to the picture."""
        return self.kind != "infeasible"

    def source_image(self, size: int = GEOMETRY.side) -> Image.Image:
        """The picture before, RGB."""
        return draw_scene(self.source, size)

    def target_image(self, size: int = GEOMETRY.side) -> Image.Image:
        """The exact truth, RGB."""
        return draw_scene(self.target, size)

    def reference_image(self, size: int = GEOMETRY.side) -> Image.Image | None:
        """The reference picture, RGB."""
        return None if self.reference is None else draw_scene(self.reference, size)

    def mask_image(self, size: int = GEOMETRY.side) -> Image.Image | None:
        """The coarse mask, "L", 255 = edit."""
        if self.box is None:
            return None
        mask = Image.new("L", (size, size), 0)
        left, top, right, bottom = (round(edge * size) for edge in self.box)
        ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), fill=255)
        return mask

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `sample_from_dict` reads it back."""
        scenes = {
            name: None if scene is None else scene.to_dict()
            for name, scene in (("source", self.source), ("target", self.target), ("reference", self.reference))
        }
        words = {
            n: getattr(self, n)
            for n in ("id", "kind", "operation", "expert", "instruction", "held_out_phrasing", "box")
        }
        return {**words, **scenes}


def sample_from_dict(data: Mapping[str, Any]) -> Sample:
    """Read what `Sample.to_dict` wrote."""
    scenes = {name: scene_from_dict(data[name]) for name in ("source", "target")}
    reference = None if data["reference"] is None else scene_from_dict(data["reference"])
    box = None if data["box"] is None else tuple(data["box"])
    return Sample(**{**data, **scenes, "reference": reference, "box": box})


def _coarse_box(marked: tuple[Thing, ...], rng: Random) -> tuple[float, float, float, float]:
    """A box around the marked things with 1 to 4 pixels (of 64) to spare on each side, snapped to pixels."""
    left, top, right, bottom = 1.0, 1.0, 0.0, 0.0
    for thing in marked:
        x0, y0, x1, y1 = silhouette(thing, 64).getbbox() or (0, 0, 64, 64)
        left, top, right, bottom = min(left, x0 / 64), min(top, y0 / 64), max(right, x1 / 64), max(bottom, y1 / 64)
    spare = [rng.randint(1, 4) / 64 for _ in range(4)]
    return (max(0, left - spare[0]), max(0, top - spare[1]), min(1, right + spare[2]), min(1, bottom + spare[3]))


def _phrasing(operation: str, split: Split, rng: Random) -> tuple[str, bool]:
    held_out = split != "train" and rng.random() < 0.5
    return rng.choice(phrasings(operation, "held_out" if held_out else "seen")), held_out


def _visible(change: Change) -> bool:
    """Whether a look shows: a blur of a plain background around a kept object does not."""
    region = changed_region(draw_scene(change.source), draw_scene(change.target))
    return region.histogram()[255] >= 40


def _change(operation: str, rng: Random, scene: Scene | None) -> Change:
    """A change by this operation of `scene`, or of scenes drawn until one offers it."""
    for _ in range(400):
        change = OPERATIONS[operation](rng, scene or random_scene(rng))
        if change is not None and (not operation.endswith(".look") or _visible(change)):
            return change
    raise LookupError(operation)


def _build(operation: str, seed: int, split: Split, rng: Random, scene: Scene | None = None) -> Sample:
    change, kind = _change(operation, rng, scene), operation.split(".")[0]
    phrasing, held_out = _phrasing(operation, split, rng)
    return Sample(
        id=f"{kind}-{seed}",
        kind=kind,
        operation=operation,
        expert=EXPERT_OF[operation],
        instruction=phrasing.format(**change.slots),
        held_out_phrasing=held_out,
        source=change.source,
        target=change.target,
        box=_coarse_box(change.marked, rng) if change.marked else None,
        reference=change.reference,
        phrasing=phrasing,
        slots=change.slots,
    )


def _infeasible(seed: int, split: Split, rng: Random) -> Sample:
    """An instruction about an object that is not there: a shape that is absent, or there in another colour only."""
    operation = rng.choice(INFEASIBLE)
    named = _build(operation, seed, split, rng)
    name = f"{rng.choice(tuple(COLOURS))} {rng.choice(SHAPES)}"
    while any(thing.name == name for thing in named.source.things):
        name = f"{rng.choice(tuple(COLOURS))} {rng.choice(SHAPES)}"
    slots = dict(_change(operation, rng, None).slots) | {"x": f"the {name}"}
    phrasing, held_out = _phrasing(operation, split, rng)
    return replace(
        named,
        id=f"infeasible-{seed}",
        kind="infeasible",
        expert="base",
        instruction=phrasing.format(**slots),
        held_out_phrasing=held_out,
        target=named.source,
        phrasing=phrasing,
        slots=slots,
    )


def draw_sample(kind: str, index: int, split: Split = "train") -> Sample:
    """Sample `index` of a kind (one of `KINDS` or "infeasible") or of a whole operation name ("masked.add")."""
    seeds = SPLITS[split]
    seed = seeds[index]
    rng = Random(f"{kind}:{seed}")
    if kind == "infeasible":
        return _infeasible(seed, split, rng)
    names = [name for name in OPERATIONS if name == kind or name.split(".")[0] == kind]
    if not names:
        raise KeyError(kind)
    return _build(rng.choice(names), seed, split, rng)


def draw_samples(count: int, split: Split, *, kinds: tuple[str, ...] = KINDS, first: int = 0) -> Iterator[Sample]:
    """`count` samples, the kinds in turn."""
    for i in range(count):
        yield draw_sample(kinds[i % len(kinds)], first + i // len(kinds), split)


CHAINABLE = ("add.thing", "remove.thing", "replace.thing", "relation.move", "attribute.colour", "background.colour")


def draw_chain(index: int, split: Split = "test", *, turns: int = 3) -> tuple[Sample, ...]:
    """A multi-turn edit: each turn's source is the truth of the turn before."""
    seed = SPLITS[split][index]
    rng = Random(f"chain:{seed}")
    chain: list[Sample] = []
    scene = random_scene(rng, minimum=2, maximum=4)
    while len(chain) < turns:
        try:
            turn = _build(rng.choice(CHAINABLE), seed, split, rng, scene)
        except LookupError:
            continue
        chain.append(replace(turn, id=f"chain-{seed}-{len(chain) + 1}"))
        scene = turn.target
    return tuple(chain)


def request_for(
    sample: Sample, *, seed: int = 0, expert: str | Mapping[str, float] = "auto", size: int = GEOMETRY.side
) -> EditRequest:
    """The request that a user would make for this sample."""
    reference = sample.reference_image(size)
    return EditRequest(
        image=sample.source_image(size),
        instruction=sample.instruction,
        mask=sample.mask_image(size),
        references=() if reference is None else (reference,),
        seed=seed,
        expert=expert,
    )
