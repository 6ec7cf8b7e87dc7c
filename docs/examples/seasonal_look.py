"""A shop's seasonal look that keeps the logo: train a brand expert, route to it by the brand's words, measure the drift.

    python docs/examples/seasonal_look.py --out runs/seasonal

`--pictures FOLDER` has two tables (docs/batches.md). `train` has pairs to learn from, with the columns source, instruction and
target. `edit` has pictures to edit, with source, instruction and mask. The mask marks everything but the logo; only the
measurement sees it. Without `--pictures` both are drawn: the look is one that the packaged models were never taught.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import shared
from PIL import ImageOps

from careedit import EditRequest
from careedit.experts import RouterSpec, install_router
from careedit.report import EditRow
from careedit_eval.alignment import Pictures
from careedit_eval.metrics import load_metric
from careedit_tiny.world.draw import silhouette
from careedit_tiny.world.samples import Sample as Drawing
from careedit_tiny.world.scene import random_scene

BRAND = "winter"
"""The brand's word. An instruction with it goes to the brand expert."""
PHRASES = (
    "put our winter look on everything but {x}",
    "our winter look, but keep {x} exactly as it is",
    "winter season, leave {x} alone",
)
OTHERS = ("remove the red circle", "make it look like a pencil sketch", "add a blue star at the top left")
"""Instructions that must not go to the brand expert."""


def draw(part: str, number: int) -> Drawing:
    """A scene with a logo, and the same scene under the look "frost" with an unchanged logo."""
    rng = Random(f"{part}:{number}")
    scene = random_scene(rng, minimum=2, maximum=4)
    logo = rng.randrange(len(scene.things))
    scene = scene.with_thing(logo, shape="logo", pose="up")
    return Drawing(
        id=f"shop-{number}",
        kind="identity",
        operation="identity.look",
        expert=BRAND,
        instruction=rng.choice(PHRASES).format(x=f"the {scene.things[logo].colour} logo"),
        held_out_phrasing=False,
        source=scene,
        target=replace(scene, look="frost", keep=logo),
    )


def draw_pictures(folder: Path, train: int, edit: int) -> Path:
    """Draw both tables."""
    shared.draw_rows(folder / "train", [draw("train", number) for number in range(train)])
    drawings = [draw("edit", number) for number in range(edit)]
    # Where a pixel of the logo is, even a soft one at its border, the mask is black: it must not change.
    masks = {
        drawing.id: ImageOps.invert(
            silhouette(drawing.target.things[drawing.target.keep or 0]).point(lambda value: 255 if value else 0)
        )
        for drawing in drawings
    }
    shared.draw_rows(folder / "edit", drawings, **masks)
    return folder


def train_brand_expert(given: argparse.Namespace, rows: Path) -> Path:
    """Train the expert, add it to a copy of the set, and let the brand's words choose it."""
    expert_set: Path = given.out / "set"
    shared.careedit(
        "train", "expert", "--data", rows, "--base", given.train_base or given.set, "--name", BRAND,
        "--handles", f"identity,{BRAND}", "--description", "Our winter look, which keeps the logo.",
        "--rank", str(given.rank), "--batch", "4", "--steps", str(given.steps or (40 if given.quick else 100)),
        "--out", given.out / "expert", *(["--device", given.device] if given.device else []),
    )  # fmt: skip
    shared.careedit("experts", "copy", expert_set, "--expert-set", given.set)
    shared.careedit("experts", "add", given.out / "expert", "--expert-set", expert_set)
    # The tiny set's learned router does not know the new expert. The rules router reads the words in its `handles`.
    install_router(expert_set, RouterSpec(kind="rules"))
    return expert_set


def options() -> argparse.ArgumentParser:
    """The options of the example."""
    parser = shared.parser(str(__doc__))
    parser.add_argument("--train-base", help="Base to train on. Default: that of --set. For klein: its base model.")
    parser.add_argument("--steps", type=int, help="Training steps. Default: 100, or 40 with --quick.")
    parser.add_argument("--rank", type=int, default=8, help="Rank of the LoRA. Default: 8.")
    return parser


def example(arguments: Sequence[str] | None = None) -> None:
    """Train, edit, measure, and write the page."""
    given = options().parse_args(arguments)
    shared.new_folder(given.out)
    sizes = (60, 6) if given.quick else (120, 16)
    pictures = given.pictures or draw_pictures(given.out / "pictures", *sizes)
    samples = shared.read_samples(pictures / "edit")
    check = shared.Check(samples, given.judge, given.device)
    editor = shared.open_editor(given, train_brand_expert(given, pictures / "train"))

    drift = {"drift": load_metric("preservation")}
    made: dict[str, list[shared.Attempt]] = {}
    for arm, expert in (("brand", "auto"), ("base", "base")):
        shared.say(f"Editing {len(samples)} pictures: {'routed' if arm == 'brand' else 'by the base alone'} ...")
        turns = [{"expert": expert, "seed": given.seed}]
        made[arm] = [
            shared.attempt(editor, check, one, [{**turns[0], "instruction": one.instruction}], drift) for one in samples
        ]
    routed = [BRAND in attempt.traces[0].routing.weights for attempt in made["brand"] if attempt.traces]
    first = Pictures(samples[0]).source
    others = {words: editor.route(EditRequest(image=first, instruction=words)) for words in OTHERS}

    figures = [
        shared.share("Right, brand expert", [one.right for one in made["brand"]], f"Judged by {check.name}."),
        shared.share("Right, base alone", [one.right for one in made["base"]], "The same pictures, words and seed."),
        *(
            shared.mean(
                f"Drift of the logo, {words}",
                [one.numbers["drift"] for one in made[arm] if "drift" in one.numbers],
                "Mean absolute change of the logo's pixels, from 0 (unchanged) to 1.",
            )
            for arm, words in (("brand", "brand expert"), ("base", "base alone"))
        ),
        shared.difference(
            "Drift, brand expert minus base", "drift", made["base"], made["brand"],
            "Below 0: the brand expert keeps the logo better. An interval with 0 in it shows no difference.",
        ),
        shared.share("Brand words that reach the brand expert", routed, "By the rules router, from the word in `handles`."),
    ]  # fmt: skip
    training = json.loads((given.out / "expert/report.json").read_text("utf-8"))["validation"]
    intro = [
        f"A brand expert (LoRA of rank {given.rank}) learned the look from pairs. Its loss on pairs that it did not see is "
        f"{training['expert_loss']:.3f}, and {training['base_loss']:.3f} with the base alone."
        if training["expert_loss"] is not None
        else f"A brand expert (LoRA of rank {given.rank}) learned the look from pairs.",
        *([shared.WEAK] if check.drawn else []),
        *(f"“{words}” goes to: {', '.join(found.weights)}. {found.reason}" for words, found in others.items()),
        "An editor that gets the mask cannot change the logo at all: give it the mask if you have one.",
    ]
    cards = []
    for sample, brand, base in zip(samples, made["brand"], made["base"], strict=True):
        shown = {"before": Pictures(sample).source, "base alone": base.image, "brand expert": brand.image}
        shown["wanted"] = Pictures(sample).target
        verdict = f"brand expert: {brand.verdict}; drift {brand.numbers.get('drift', float('nan')):.3f}. Base: {base.verdict}."
        row = EditRow(
            "seasonal look",
            sample.instruction,
            {name: picture for name, picture in shown.items() if picture is not None},
            brand.right,
            verdict,
            brand.routing,
        )
        cards.append((row, {"id": sample.id, "brand": brand.record(), "base": base.record()}))
    facts = {"example": "seasonal_look", "expert_set_sha256": editor.expert_set.sha256, "training": training}
    shared.write_page(given.out, "A seasonal look that keeps the logo", intro, figures, cards, facts)


if __name__ == "__main__":
    sys.exit(shared.run_example(example))
