"""A digital twin's part replaced after a reference picture: edit in two turns, measure how faithful the new part is.

    python docs/examples/twin_part.py --out runs/twin

`--pictures FOLDER` is a table (docs/batches.md) with the columns source, instruction, mask (the place of the part) and
reference (the new part). Without it both are drawn. The first turn erases the marked part, the second one adds the part of
the reference. With `--turns 1` the edit has one turn with mask and reference, which FLUX.2 klein and Qwen-Image-Edit can do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import shared
from PIL import Image, ImageChops, ImageDraw

from careedit.report import EditRow, Figure
from careedit_eval.alignment import Pictures
from careedit_eval.metrics import load_metric
from careedit_eval.records import Sample
from careedit_tiny.world.draw import silhouette
from careedit_tiny.world.samples import Sample as Drawing
from careedit_tiny.world.scene import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, Scene, Thing, random_scene

ERASE = "remove the marked object"


def draw(number: int) -> tuple[Drawing, Image.Image]:
    """A twin of several parts, a reference with the new part, the exact result; and the mask of the part's place."""
    rng = Random(f"twin:{number}")
    scene = random_scene(rng, minimum=3, maximum=4)
    index = rng.randrange(len(scene.things))
    old = scene.things[index]
    new = old
    while new.shape == old.shape or any(new.name == part.name for part in scene.things):
        new = Thing(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), old.cell)
    if new.shape == "face":
        new = replace(new, pose="happy")
    portrait = Scene(rng.choice(tuple(BACKGROUNDS)), things=(replace(new, cell=4, size="large"),))
    drawing = Drawing(
        id=f"twin-{number}",
        kind="reference",
        operation="reference.thing",
        expert="reference",
        instruction=f"put the object from the reference at the {POSITIONS[old.cell]}",
        held_out_phrasing=False,
        source=scene,
        target=scene.without(index).plus(new),
        reference=portrait,
    )
    place = ImageChops.lighter(silhouette(old), silhouette(new)).getbbox()
    assert place is not None, "a part has pixels"
    mask = Image.new("L", drawing.source_image().size, 0)
    ImageDraw.Draw(mask).rectangle((place[0] - 1, place[1] - 1, place[2], place[3]), fill=255)
    return drawing, mask


def draw_pictures(folder: Path, number: int) -> Path:
    """Draw the table."""
    drawn = [draw(index) for index in range(number)]
    return shared.draw_rows(folder, [drawing for drawing, _ in drawn], **{one.id: mask for one, mask in drawn})


def turns_of(sample: Sample, count: int, seed: int) -> list[Mapping[str, Any]]:
    """The requests of an edit, each without its image."""
    pictures = Pictures(sample)
    add = {"instruction": sample.instruction, "references": pictures.references, "seed": seed}
    if count == 1:
        return [{**add, "mask": pictures.mask}]
    return [{"instruction": ERASE, "mask": pictures.mask, "seed": seed}, add]


def fidelity(what: str, number: str, before: Sequence[shared.Attempt], after: Sequence[shared.Attempt]) -> list[Figure]:
    """The likeness of the part's place to a picture: with the old part, with the new part, and the difference."""
    means = [
        shared.mean(
            f"Likeness to {what}, {part}",
            [one.numbers[number] for one in attempts if number in one.numbers],
            "Cosine of DINO embeddings of the part's place and that picture; 1 is equal.",
        )
        for part, attempts in (("old part", before), ("new part", after))
    ]
    meaning = "Above 0: the new part is more like it. An interval with 0 in it shows no difference."
    return [*means, shared.difference(f"Likeness to {what}, new minus old", number, before, after, meaning)]


def options() -> argparse.ArgumentParser:
    """The options of the example."""
    parser = shared.parser(str(__doc__))
    parser.add_argument("--turns", type=int, choices=(1, 2), default=2, help="Turns of an edit. Default: 2.")
    parser.add_argument("--dino", help="Backbone of the fidelity: a transformers ViT. Default: facebook/dino-vits16.")
    return parser


def example(arguments: Sequence[str] | None = None) -> None:
    """Edit, measure, and write the page."""
    given = options().parse_args(arguments)
    shared.new_folder(given.out)
    place = given.pictures or draw_pictures(given.out / "pictures", 6 if given.quick else 24)
    samples = shared.read_samples(place)
    check = shared.Check(samples, given.judge, given.device)
    backbone = {"protocol": "own", "model": given.dino} if given.dino else {}
    if check.drawn and not given.dino:
        backbone = {"protocol": "tiny-v1"}
    device = {} if given.device is None else {"device": given.device}
    metrics = {
        "fidelity": load_metric("identity", against="reference", **backbone, **device),
        "change": load_metric("preservation"),
    }
    if check.drawn:
        metrics["result"] = load_metric("identity", against="target", **backbone, **device)
    editor = shared.open_editor(given, given.set)
    shared.say(f"Editing {len(samples)} twins in {given.turns} turn{'s' if given.turns > 1 else ''} each ...")
    made = [
        shared.attempt(editor, check, one, turns_of(one, given.turns, given.seed), metrics) for one in samples
    ]  # fmt: skip
    # The same numbers with the old part still in place: they are what an edit that does nothing gets.
    before = [
        shared.Attempt(numbers=shared.numbers_of(metrics, one, Pictures(one).source)) for one in samples
    ]  # fmt: skip

    figures = [
        shared.share("Right", [one.right for one in made], f"Judged by {check.name}: the new part, and nothing else changed."),
        *fidelity("the reference", "fidelity", before, made),
        *(fidelity("the wanted result", "result", before, made) if check.drawn else ()),
        shared.mean(
            "Change outside the part",
            [one.numbers["change"] for one in made if "change" in one.numbers],
            "Mean absolute change of all other pixels, from 0 (unchanged) to 1.",
        ),
    ]  # fmt: skip
    intro = [
        "The part at the marked place is replaced by the part of the reference picture"
        + (
            ": the first turn erases, the second one adds."
            if given.turns == 2
            else ", in one turn with mask and reference."
        ),
        *([shared.WEAK] if check.drawn else []),
        (
            "Likeness to the reference compares a crop with a whole picture on another background, so a right edit too stays "
            "below 1. Compare the old part with the new one first: a small backbone may not see the difference."
        ),
    ]
    cards = []
    for sample, one in zip(samples, made, strict=True):
        pictures = Pictures(sample)
        shown = {"before": pictures.source, "mask": pictures.mask, "reference": pictures.references[0]}
        shown |= {"after": one.image, "wanted": pictures.target}
        number = f"; fidelity {one.numbers['fidelity']:.2f}" if "fidelity" in one.numbers else ""
        row = EditRow(
            "part replaced",
            sample.instruction,
            {name: picture for name, picture in shown.items() if picture is not None},
            one.right,
            f"{one.verdict}{number}",
            one.routing,
        )
        cards.append((row, {"id": sample.id, **one.record()}))
    facts = {"example": "twin_part", "expert_set_sha256": editor.expert_set.sha256, "turns": given.turns}
    shared.write_page(given.out, "A part replaced after a reference", intro, figures, cards, facts)


if __name__ == "__main__":
    sys.exit(shared.run_example(example))
