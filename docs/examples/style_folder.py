"""A folder of pictures in the style of one reference: edit all, measure which are right, retry the failed ones.

    python docs/examples/style_folder.py --out runs/styled

`--pictures FOLDER` is a folder of pictures and `--style FILE` the style reference. Without them both are drawn. The first
attempt is one `careedit edit` of the whole table. Those that are not right are edited again with the early filter: several
seeds, of which a judge finishes the most promising. Both attempts stay; `right` has the pictures that are right.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import shared
from PIL import Image

from careedit import Editor, EditRequest
from careedit.batches.rows import PICTURES
from careedit.errors import InputError
from careedit.images.save import SUFFIXES
from careedit.report import EditRow
from careedit_eval.alignment import Pictures
from careedit_eval.records import Sample
from careedit_tiny.world.samples import Sample as Drawing
from careedit_tiny.world.scene import Scene, random_scene, random_thing

LOOK = "sepia"
"""The look of the drawn style reference."""


def draw_pictures(folder: Path, number: int) -> Path:
    """Draw scenes, and one reference that shows other objects under the look."""
    rng = Random("style")
    style = Scene("beige", things=tuple(random_thing(rng, cell) for cell in rng.sample(range(9), 3)), look=LOOK)
    drawings = []
    for index in range(number):
        scene = random_scene(Random(f"folder:{index}"), minimum=2, maximum=4)
        drawings.append(
            Drawing(
                id=f"picture-{index}",
                kind="reference",
                operation="reference.look",
                expert="reference",
                instruction="give it the look of the reference",
                held_out_phrasing=False,
                source=scene,
                target=replace(scene, look=LOOK),
                reference=style,
            )
        )
    return shared.draw_rows(folder, drawings)


def list_pictures(table: Path, pictures: Path, style: Path, words: str) -> Path:
    """Write the table of a plain folder of pictures: one row each, with the style as its reference."""
    found = sorted(path for path in pictures.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise InputError(f"{str(pictures)!r} has no pictures; check --pictures.")
    write_table(table, [
        {
            "id": path.name,
            "source": str(path.resolve()),
            "reference": str(style.resolve()),
            "instruction": words,
            "output": path.name if path.suffix.lower() in SUFFIXES else f"{path.name}.png",
        }
        for path in found
    ])  # fmt: skip
    return table


def write_table(table: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table of edits."""
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def edit_all(table: Path, names: Sequence[str], out: Path, options: Sequence[str]) -> dict[str, dict[str, str]]:
    """Run `careedit edit` on a table with these ids; the rows of its results by id."""
    shared.careedit("edit", table, "--out", out, *options, fails=True)
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        return dict(zip(names, csv.DictReader(stream), strict=True))


def judged(check: shared.Check, sample: Sample, folder: Path, result: dict[str, str]) -> shared.Attempt:
    """The attempt behind a row of results."""
    if result["status"] != "done":
        return shared.Attempt(verdict=f"the edit failed: {result['error']}")
    with Image.open(folder / result["output"]) as opened:
        image = opened.convert("RGB")
    right, verdict = check(sample, image)
    return shared.Attempt(image, right, f"{verdict} (seed {result['seed']})")


def why(editor: Editor, sample: Sample) -> str:
    """The expert that the set's router chooses for a row, and the reason."""
    pictures = Pictures(sample)
    found = editor.route(
        EditRequest(image=pictures.source, instruction=sample.instruction, references=pictures.references)
    )
    return shared.routing_words(found.weights, found.reason)


def options() -> argparse.ArgumentParser:
    """The options of the example."""
    parser = shared.parser(str(__doc__))
    parser.add_argument("--style", type=Path, help="The style reference, with --pictures.")
    parser.add_argument("--words", default="give it the look of the reference", help="Instruction, with --pictures.")
    parser.add_argument("--candidates", type=int, default=4, help="Seeds that a retry tries. Default: 4.")
    return parser


def example(arguments: Sequence[str] | None = None) -> None:
    """Edit, check, retry, and write the page."""
    given = options().parse_args(arguments)
    if (given.pictures is None) != (given.style is None):
        raise InputError("--pictures and --style belong together; give both or neither.")
    shared.new_folder(given.out)
    if given.pictures is None:
        table = draw_pictures(given.out / "pictures", 6 if given.quick else 24) / "metadata.jsonl"
    else:
        table = list_pictures(given.out / "pictures.jsonl", given.pictures, given.style, given.words)
    samples = {sample.id: sample for sample in shared.read_samples(table)}
    check = shared.Check(list(samples.values()), given.judge, given.device)
    common = ["--expert-set", given.set, *(["--device", given.device] if given.device else [])]

    results = edit_all(table, list(samples), given.out / "first", [*common, "--seed", str(given.seed)])
    first = {name: judged(check, samples[name], given.out / "first", results[name]) for name in samples}
    failed = [name for name, attempt in first.items() if not attempt.right]
    shared.say(f"{len(samples) - len(failed)} of {len(samples)} are right; {len(failed)} are edited again.")

    # The rows are written as they were, with paths that hold in the new place of the table.
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    again = [
        {name: row[name] for name in ("id", "instruction", "output") if name in row}
        | {role: str((table.parent / row[role]).resolve()) for role in ("source", "reference")}
        for row in rows
        if row["id"] in failed
    ]
    retried: dict[str, shared.Attempt] = {}
    plain: dict[str, shared.Attempt] = {}
    if failed:
        write_table(given.out / "failed.jsonl", again)
        filtered = ["--early-filter", "halving", "--candidates", str(given.candidates), "--preview-steps", "2"]
        filtered += ["--judge", given.judge] if given.judge else []
        for folder, seed, more, made in (
            ("retry", given.seed + 1, filtered, retried),
            # What one more seed without a filter gives: the retry has to be better than that.
            ("second-seed", given.seed + 1, [], plain),
        ):
            found = edit_all(
                given.out / "failed.jsonl", failed, given.out / folder, [*common, "--seed", str(seed), *more]
            )
            made |= {name: judged(check, samples[name], given.out / folder, found[name]) for name in failed}
    final = {name: retried[name] if name in failed and retried[name].right else first[name] for name in samples}
    (given.out / "right").mkdir()
    for name in samples:
        if final[name].right:
            folder = "retry" if name in failed else "first"
            shutil.copy(given.out / folder / results[name]["output"], given.out / "right")

    figures = [
        shared.share("Right at the first attempt", [one.right for one in first.values()], f"Judged by {check.name}.")
    ]
    if failed:
        figures += [
            shared.share(
                "Failed ones: right after the retry", [one.right for one in retried.values()],
                f"Early filter with {given.candidates} seeds, of which the judge finishes one.",
            ),
            shared.share(
                "Failed ones: right with a second seed", [one.right for one in plain.values()],
                "The same pictures with one other seed and no filter: what the retry is compared with.",
            ),
        ]  # fmt: skip
    figures.append(
        shared.share(
            "Right in the end", [one.right for one in final.values()],
            "The better of two attempts, chosen by the check itself: not the quality of a single edit.",
        )
    )  # fmt: skip
    intro = [
        f"Pictures edited in the style of one reference: {len(samples)}. Not right, and edited again: {len(failed)}.",
        *([shared.WEAK] if check.drawn else []),
        "The early filter's judge sees cheap previews. "
        + (
            "It is not the oracle that judges here."
            if check.drawn
            else "The same model judges here: that favours the retry."
        ),
    ]
    editor = shared.open_editor(given, given.set)
    cards = []
    for name, sample in samples.items():
        pictures = Pictures(sample)
        shown = {"before": pictures.source, "style": pictures.references[0], "first attempt": first[name].image}
        verdict = f"first attempt: {first[name].verdict}"
        record: dict[str, Any] = {"id": name, "right": final[name].right, "first": first[name].record()}
        if name in failed:
            shown["retry"] = retried[name].image
            verdict += f"; retry: {retried[name].verdict}"
            record |= {"retry": retried[name].record(), "second_seed": plain[name].record()}
        shown["wanted"] = pictures.target
        record["routing"] = routing = why(editor, sample)
        row = EditRow(
            "retried" if name in failed else "first attempt",
            f"{sample.instruction} ({name})",
            {caption: picture for caption, picture in shown.items() if picture is not None},
            final[name].right,
            verdict,
            routing,
        )
        cards.append((row, record))
    facts = {"example": "style_folder", "expert_set_sha256": editor.expert_set.sha256, "candidates": given.candidates}
    shared.write_page(given.out, "A folder in the style of a reference", intro, figures, cards, facts)


if __name__ == "__main__":
    sys.exit(shared.run_example(example))
