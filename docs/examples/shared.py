"""What the three worked examples share: options, commands, rows, edits, the check of a result, figures and the page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from careedit import Editor, EditRequest, EditTrace, load_editor
from careedit.cli.editors import quieten
from careedit.cli.main import main as careedit_command
from careedit.cli.output import emit as say
from careedit.errors import CareEditError, InputError
from careedit.files import write_atomic
from careedit.report import EditRow, Figure, write_edit_page
from careedit_eval.alignment import Pictures
from careedit_eval.benchmarks.folder import FolderBenchmark, FolderConfig
from careedit_eval.metrics import load_metric, measure_image
from careedit_eval.records import Metric, Sample
from careedit_eval.stats import difference_interval, mean_interval
from careedit_tiny.world.samples import Sample as Drawing

FEW = 5
"""Images below which a mean has no interval on the page."""
WEAK = (
    "The pictures are drawn, so the right result of each is known, and an oracle compares each edit with it. The packaged "
    "weights are weak. This page shows what this run measured, failures included, and not what a larger base would do."
)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every example has."""
    options = argparse.ArgumentParser(description=description.split("\n\n")[0])
    options.add_argument(
        "--set", default="tiny", help="The expert set that edits: tiny (default), a folder or an address."
    )
    options.add_argument("--pictures", type=Path, help="Folder of your own pictures. Default: pictures are drawn.")
    options.add_argument("--judge", help="Vision model that says which edits are right: needed for your own pictures.")
    options.add_argument("--out", type=Path, required=True, help="New folder for everything that the example makes.")
    options.add_argument("--device", help="cpu or cuda. Default: cuda if there is one.")
    options.add_argument("--seed", type=int, default=1, help="Seed of every edit. Default: 1.")
    options.add_argument("--quick", action="store_true", help="Fewer pictures and steps: a test, which shows little.")
    return options


def run_example(example: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None) -> int:
    """The exit code of an example: 0, or 2 with a sentence for wrong input."""
    try:
        example(arguments)
    except CareEditError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def new_folder(path: Path) -> Path:
    """Create the folder of an example. Raises `InputError` if it is not empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{str(path)!r} exists already; give a new folder with --out.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def careedit(*arguments: str | Path, fails: bool = False) -> None:
    """Run a command of careedit in this process. With `fails`, rows of a batch may fail (exit code 1)."""
    words = [str(word) for word in arguments]
    say(f"$ careedit {' '.join(repr(word) if ' ' in word else word for word in words)}")
    if careedit_command(words) not in ((0, 1) if fails else (0,)):
        raise CareEditError(f"`careedit {words[0]}` failed; the lines above say why.")


def open_editor(given: argparse.Namespace, expert_set: str | Path) -> Editor:
    """The editor of a set on the device of the options."""
    quieten()
    editor = load_editor(str(expert_set), device=given.device)
    say(f"Expert set {editor.expert_set.name} ({editor.expert_set.sha256[:12]}), router {editor.router.name}.")
    return editor


def draw_rows(folder: Path, drawings: Sequence[Drawing], **masks: Image.Image) -> Path:
    """Draw samples of the drawn world as a table: pictures and `metadata.jsonl`. `masks` replace their own, by id."""
    folder.mkdir(parents=True)
    rows = []
    for drawing in drawings:
        row: dict[str, Any] = {
            "id": drawing.id,
            "instruction": drawing.instruction,
            "scene": json.dumps(drawing.to_dict()),
        }
        pictures = {
            "source": drawing.source_image(),
            "target": drawing.target_image(),
            "mask": masks.get(drawing.id),
            "reference": drawing.reference_image(),
        }
        for role, picture in pictures.items():
            if picture is not None:
                row[role] = f"{drawing.id}-{role}.png"
                picture.save(folder / row[role])
        rows.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows), "utf-8")
    return folder


def read_samples(place: Path) -> list[Sample]:
    """The rows of a table, as `careedit eval` reads them. Raises `InputError` for a row that cannot be used."""
    samples = list(FolderBenchmark(FolderConfig(path=str(place))).rows())
    for sample in samples:
        if sample.trouble:
            raise InputError(f"{sample.id}: {sample.trouble}")
    return samples


@dataclass
class Attempt:
    """One attempt at an edit: an image or an error."""

    image: Image.Image | None = None
    """The edited image; None if the edit failed."""
    right: bool = False
    """Whether the image is right; an image that cannot be judged counts as not right."""
    verdict: str = ""
    """The verdict, or the error, as words."""
    traces: tuple[EditTrace, ...] = ()
    """The trace of each turn."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Measured numbers by name."""

    @property
    def routing(self) -> str:
        """The experts of each turn and why they were chosen."""
        return " Then ".join(routing_words(trace.routing.weights, trace.routing.reason) for trace in self.traces)

    def record(self) -> dict[str, Any]:
        """The attempt as JSON data, without its image."""
        return {
            "right": self.right,
            "verdict": self.verdict,
            "routing": [trace.routing.model_dump(mode="json") for trace in self.traces],
            "seeds": [trace.seed for trace in self.traces],
            "numbers": self.numbers,
        }


def routing_words(weights: Mapping[str, float], reason: str) -> str:
    """The chosen experts and the reason, for a page."""
    experts = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return f"Expert: {experts}. {reason}"


class Check:
    """Says whether an edit is right: by the oracle if the rows are drawn scenes, else by a judge's marks."""

    def __init__(self, samples: Sequence[Sample], judge: str | None, device: str | None) -> None:
        """Raises `InputError` for own pictures without a judge."""
        self.drawn = all("scene" in sample.extras for sample in samples)
        if not self.drawn and judge is None:
            raise InputError(
                "The right result of these pictures is not known; name a vision model with --judge, such as "
                "Qwen/Qwen2.5-VL-7B-Instruct@COMMIT."
            )
        self._metric = load_metric("oracle") if self.drawn else load_metric("vqa", judge=judge, device=device)
        self.name = "the oracle of the drawn world" if self.drawn else f"the judge {judge}"

    def __call__(self, sample: Sample, image: Image.Image) -> tuple[bool, str]:
        """Whether the image is right, and the verdict in words."""
        found = measure_image(self._metric, sample, image)
        if not found.values:
            return False, f"not judged: {found.error or found.not_applicable}"
        if not self.drawn:
            marks = ", ".join(f"{name.removeprefix('vqa_')} {value:.2f}" for name, value in found.values.items())
            return found.values["vqa_overall"] >= 0.5, f"marks of the judge: {marks}"
        followed, preserved = found.values["oracle_followed"] == 1, found.values["oracle_preserved"] == 1
        words = f"{'followed' if followed else 'not followed'}, the rest {'as it was' if preserved else 'has changed'}"
        return followed and preserved, words


def attempt(
    editor: Editor, check: Check, sample: Sample, turns: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric]
) -> Attempt:
    """Edit in one or more turns, each from the result of the one before, judge the last image and measure it."""
    image = Pictures(sample).source
    traces: list[EditTrace] = []
    try:
        for turn in turns:
            result = editor.edit(EditRequest(image=image, **turn))
            image, traces = result.image, [*traces, result.trace]
    except CareEditError as error:
        return Attempt(verdict=f"the edit failed: {error}", traces=tuple(traces))
    right, verdict = check(sample, image)
    return Attempt(image, right, verdict, tuple(traces), numbers_of(metrics, sample, image))


def numbers_of(metrics: Mapping[str, Metric], sample: Sample, image: Image.Image) -> dict[str, float]:
    """The numbers that could be measured, by name."""
    found = {name: measure_image(metric, sample, image) for name, metric in metrics.items()}
    return {name: value for name, one in found.items() for value in one.values.values()}


def share(name: str, right: Sequence[bool], meaning: str) -> Figure:
    """A share of images, with its interval."""
    values = [float(one) for one in right]
    return Figure(name, _mean(values), mean_interval(values, passes=True), len(values), meaning, share=True)


def mean(name: str, values: Sequence[float], meaning: str) -> Figure:
    """The mean of a number, with its interval."""
    return Figure(name, _mean(values), mean_interval(values) if len(values) >= FEW else None, len(values), meaning)


def difference(name: str, number: str, before: Sequence[Attempt], after: Sequence[Attempt], meaning: str) -> Figure:
    """The mean of a paired difference, `after` - `before`, with its interval, over images that have both numbers."""
    pairs = [
        (one.numbers[number], other.numbers[number])
        for one, other in zip(before, after, strict=True)
        if number in one.numbers and number in other.numbers
    ]
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    interval = difference_interval(first, second) if len(pairs) >= FEW else None
    return Figure(name, _mean(second) - _mean(first), interval, len(pairs), meaning)


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise CareEditError("No image could be measured, so there is no figure; the lines above say why.")
    return sum(values) / len(values)


def write_page(
    out: Path,
    title: str,
    intro: Sequence[str],
    figures: Sequence[Figure],
    cards: Sequence[tuple[EditRow, Mapping[str, Any]]],
    facts: Mapping[str, Any],
) -> None:
    """Write `index.html`, and `figures.json` with the same figures and every attempt."""
    numbers = [
        {
            "name": one.name,
            "value": one.value,
            "low": one.interval and one.interval.low,
            "high": one.interval and one.interval.high,
            "count": one.count,
        }
        for one in figures
    ]
    document = {"version": 1, **facts, "figures": numbers, "edits": [record for _, record in cards]}
    write_atomic(out / "figures.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    # Failures first: they are what a reader has to look at.
    rows = sorted((row for row, _ in cards), key=lambda row: row.right)
    write_edit_page(out / "index.html", title, intro, rows, figures)
    for one in figures:
        ends = f" ({one.text(one.interval.low)} to {one.text(one.interval.high)})" if one.interval else ""
        say(f"{one.name}: {one.text(one.value)}{ends}, {one.count} images")
    say(f"Page: {out / 'index.html'}")
