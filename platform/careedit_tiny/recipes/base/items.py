"""What the editor is trained on: canvases with a free region, and the words for what belongs there.

`edit_item` shows an edit of the tiny world; `fill_item` a fill task without an edit (caption, inpainting, copy), which is
what a fill-type base is for. Both are functions of an index alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from PIL import Image, ImageDraw

from careedit.editing.families import in_context_prompt
from careedit.finetune.pool import Item
from careedit.images import canvas_mask
from careedit_tiny.models.family import PANEL
from careedit_tiny.recipes.base.labels import canvas_labels
from careedit_tiny.world.draw import draw_scene
from careedit_tiny.world.phrases import LOOK_NAMES, with_article
from careedit_tiny.world.samples import Sample, draw_sample
from careedit_tiny.world.scene import LOOKS, POSITIONS, TURNING, Scene, Thing, random_scene

GREY = (128, 128, 128)
COPY_WORDS = (
    "nothing has changed",
    "it stays as it is",
    "keep everything as it is",
    "change nothing",
    "it is the same",
)
UNKNOWN = "\u25a1"
"""A character outside the vocabulary: what any unknown word becomes."""
UNKNOWN_SHARE = 0.04
"""Share of words replaced by an unknown one, so that an unheard word does not derail an instruction."""
LOOSE_SHARE = 0.5
"""Share of instructions in which words around the slots are unknown or missing. People say an edit in more ways than the
phrasings of training; what the slots say is what counts."""
FRAME_UNKNOWN_SHARE, FRAME_DROPPED_SHARE = 0.15, 0.08
"""Shares of those words that are replaced by an unknown one, or left out."""

EXPERT_KINDS = {
    "erase": ("remove.thing", "remove.thing", "masked.remove"),
    "compose": (
        "add.thing", "replace.thing", "action.turn", "action.turn", "action.mood", "counting.set", "counting.set",
        "relation.beside", "relation.beside", "relation.move", "attribute.colour", "attribute.size", "attribute.size",
        "attribute.texture", "attribute.texture", "masked.replace", "masked.add", "masked.colour",
    ),
    "style": ("background.colour", "background.texture", "style.look", "style.look"),
    "identity": ("identity.look",),
    "reference": (
        "reference.colour", "reference.colour", "reference.texture", "reference.texture", "reference.thing",
        "reference.look",
    ),
}  # fmt: skip
"""Operations that each expert is trained on; one named twice is shown twice as often."""
INFEASIBLE_SHARE = 0.06
"""Share of items for erase and compose whose instruction names an absent object: the truth is the source."""


def with_unknown_words(words: str, rng: Random, share: float = UNKNOWN_SHARE) -> str:
    """The words, each of them unheard of with this probability."""
    return " ".join(UNKNOWN if rng.random() < share else word for word in words.split())


def loosely(sample: Sample, rng: Random, *, dropped: float = FRAME_DROPPED_SHARE) -> str:
    """The instruction, with some words unheard of; every other time some around its slots are, too, or are left out."""
    if rng.random() >= LOOSE_SHARE:
        return with_unknown_words(sample.instruction, rng)
    words = []
    for piece in sample.phrasing.split():
        if piece.startswith("{"):
            words.append(with_unknown_words(sample.slots[piece.strip("{}")], rng))
        elif rng.random() >= dropped:
            words.append(with_unknown_words(piece, rng, FRAME_UNKNOWN_SHARE))
    return " ".join(words)


def edit_item(expert: str, index: int) -> Item:
    """Training edit `index` of one expert's competence, from the train split."""
    sample, prompt = edit_words(expert, index)
    panels = [sample.source_image(PANEL), sample.target_image(PANEL)]
    scenes: tuple[Scene | None, ...] = (sample.source, sample.target)
    reference = sample.reference_image(PANEL)
    if reference is not None:
        panels.insert(0, reference)
        scenes = (sample.reference, *scenes)
    mask = canvas_mask(len(panels), (PANEL, PANEL), sample.mask_image(PANEL))
    return Item.of_panels(panels, mask, prompt, canvas_labels(scenes))


def edit_words(expert: str, index: int) -> tuple[Sample, str]:
    """The sample of training edit `index`, and its prompt."""
    rng = Random(f"edit:{expert}:{index}")
    operations = EXPERT_KINDS[expert]
    feasible = expert not in ("erase", "compose") or rng.random() >= INFEASIBLE_SHARE
    operation = operations[index % len(operations)] if feasible else "infeasible"
    sample = draw_sample(operation, 1_000_000 * list(EXPERT_KINDS).index(expert) + index)
    return sample, in_context_prompt(loosely(sample, rng), references=int(sample.reference is not None))


def caption(scene: Scene, rng: Random) -> str:
    """The scene in words: one object with all that it is, or the names of two that are plain, as `captioned_scene` makes them."""
    things = rng.sample(scene.things, min(2, len(scene.things)))
    if len(things) == 1:
        parts = [described_in_full(things[0])]
    else:
        parts = [f"{with_article(thing.name)} at the {POSITIONS[thing.cell]}" for thing in things]
    parts.append(f"{with_article(f'{scene.backdrop} {scene.background}')} background")
    if scene.look is not None:
        return f"it shows {LOOK_NAMES[scene.look]} with {parts[0]}"
    return "it shows " + " and ".join(parts)


def described_in_full(thing: Thing) -> str:
    """An object in words that leave nothing open: "a large striped red heart pointing left at the top"."""
    words = (thing.pose if thing.shape == "face" else "", thing.size, thing.texture, thing.name)
    named = [word for word in words if word not in ("", "medium", "plain")]
    pointing = f" pointing {thing.pose}" if thing.shape in TURNING and thing.pose != "up" else ""
    return f"{with_article(' '.join(named))}{pointing} at the {POSITIONS[thing.cell]}"


def captioned_scene(rng: Random) -> Scene:
    """A scene that a caption can describe completely: no object, one, or two plain ones of medium size."""
    scene = random_scene(rng, minimum=0, maximum=2)
    if len(scene.things) < 2:
        return scene
    plain = tuple(
        replace(t, size="medium", texture="plain", pose="happy" if t.shape == "face" else "up") for t in scene.things
    )
    return replace(scene, things=plain)


def fill_item(index: int) -> Item:
    """Fill task `index`: a caption to draw (60 %), a region to complete from its surroundings (30 %), a copy (10 %)."""
    rng = Random(f"fill:{index}")
    task = rng.random()
    scene = captioned_scene(rng) if task < 0.6 else random_scene(rng, minimum=0, maximum=4)
    if scene.things and rng.random() < 0.25:
        scene = replace(scene, look=rng.choice(LOOKS))
    picture, blank = draw_scene(scene, PANEL), Image.new("RGB", (PANEL, PANEL), GREY)
    mask = None
    if task < 0.6:
        panels, words = [blank, picture], caption(scene, rng)
    elif task < 0.9:
        # The box is grey on the left too: it must be completed from what surrounds it and from the words.
        left, top = rng.randrange(0, 40), rng.randrange(0, 40)
        edges = (left, top, left + rng.randrange(12, 24), top + rng.randrange(12, 24))
        box = tuple(edge * PANEL // 64 for edge in edges)
        holed, mask = picture.copy(), Image.new("L", picture.size, 0)
        ImageDraw.Draw(holed).rectangle(box, fill=GREY)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        panels, words = [holed, picture], caption(scene, rng)
    else:
        panels, words = [picture, picture], rng.choice(COPY_WORDS)
    prompt = in_context_prompt(with_unknown_words(words, rng))
    left_scene = scene if task >= 0.9 else None
    return Item.of_panels(panels, canvas_mask(2, (PANEL, PANEL), mask), prompt, canvas_labels((left_scene, scene)))


@cache
def corpus() -> tuple[str, ...]:
    """The texts from which the tokenizers are made: every seen phrasing, with the words of every slot."""
    texts = [*COPY_WORDS]
    rng = Random("corpus")
    texts += [caption(captioned_scene(rng) if i % 2 else random_scene(rng, minimum=1), rng) for i in range(1000)]
    texts += ["it shows a happy sad small large striped dotted face pointing left right down"]
    texts += [f"it shows {name} with" for name in LOOK_NAMES.values()]
    for expert, operations in EXPERT_KINDS.items():
        first = 1_000_000 * list(EXPERT_KINDS).index(expert)
        named = dict.fromkeys(operations)
        texts += [draw_sample(operation, first + i).instruction for operation in named for i in range(250)]
    return tuple(texts)
